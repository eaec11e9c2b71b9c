//! Certificates for the names of clients from an authority (ACME, RFC 8555): orders them when they are needed,
//! proves the names, keeps and renews the certificates. Not their use in handshakes, see `net::tls`.

mod budget;
mod directory;
mod failure;
mod jws;
pub(crate) mod messages;
mod names;
mod order;
mod pending;
mod schedule;
mod settings;
mod store;
mod visited;
mod worker;

use super::client_hello::HelloFacts;
use super::registry::Registry;
use super::state::ServerState;
use crate::net::tls::{Acceptor, ACME_TLS};
use crate::net::{self, clock};
use crate::sync::Mutex;
use event_listener::Event;
use messages::Problem;
use pending::PendingChallenges;
use serde::{Deserialize, Serialize};
pub use settings::AcmeSettings;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use visited::VisitedNames;

/// A way to prove that a name is the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// A certificate on `tlsAddr` (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    Tls,
    /// A response on `addr` (RFC 8555, section 8.3).
    #[serde(rename = "http-01")]
    Http,
}

impl ChallengeKind {
    /// Returns the name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls-alpn-01",
            Self::Http => "http-01",
        }
    }
}

/// Why there is no certificate.
#[derive(Debug)]
pub enum AcmeError {
    /// Something of this machine has failed: a file, random numbers.
    Local(io::Error),
    /// The authority cannot be reached, or breaks off.
    Unreachable(String),
    /// The authority has answered with this HTTP status and no more.
    Status(u16, Option<Duration>),
    /// The authority has answered with a problem.
    Problem {
        problem: Problem,
        status: u16,
        retry_after: Option<Duration>,
    },
    /// The answer is not what RFC 8555 provides for.
    Malformed(String),
    /// The authority could not validate the name, in this way.
    Unproved(String, Option<ChallengeKind>),
    /// The order has failed.
    Refused(String),
    /// The authority is still at work.
    Slow,
    /// The certificate cannot be used.
    BadCertificate(String),
}

impl fmt::Display for AcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(e) => e.fmt(f),
            Self::Unreachable(why) => write!(f, "the authority cannot be asked: {why}"),
            Self::Status(status, _) => {
                write!(f, "the authority has answered with status {status}")
            }
            Self::Problem {
                problem, status, ..
            } => write!(
                f,
                "the authority has answered with status {status}: {}",
                problem.text()
            ),
            Self::Malformed(why) => write!(f, "the authority cannot be understood: {why}"),
            Self::Unproved(why, Some(kind)) => {
                write!(
                    f,
                    "the authority could not validate it by {}: {why}",
                    kind.name()
                )
            }
            Self::Unproved(why, None) => write!(f, "the authority has not validated it: {why}"),
            Self::Refused(why) => write!(f, "the authority has refused the order: {why}"),
            Self::Slow => f.write_str("the authority has not finished in time"),
            Self::BadCertificate(why) => write!(f, "the authority's certificate is wrong: {why}"),
        }
    }
}

/// The certificate of a name, for the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    /// The end of its validity, in seconds since 1970; `None` without a certificate.
    pub expires: Option<i64>,
    /// Why the last attempt to get one has failed.
    pub error: Option<String>,
}

/// What connections and the API need of the certificates, and what they tell.
#[derive(Default)]
pub struct Acme {
    pending: Arc<PendingChallenges>,
    /// Names that visitors have asked for and that have no certificate.
    visited: Mutex<VisitedNames>,
    /// Notified when there is something to do: other names, other settings, a visitor.
    wake: Event,
    status: Mutex<BTreeMap<Box<str>, CertificateStatus>>,
}

/// What a TLS connection is.
pub enum TlsPurpose {
    /// A visitor or a tunnel.
    Ordinary,
    /// A validation, with the answer to it; `None` if no such validation is awaited.
    Validation(Option<Acceptor>),
}

impl Acme {
    /// Starts the task that gets certificates, until the server stops.
    pub fn start(state: &Arc<ServerState>) {
        net::spawn(worker::run(state.clone()));
    }

    /// Tells what a connection is that begins with this hello.
    pub fn purpose(
        &self,
        settings: Option<&AcmeSettings>,
        registry: &Registry,
        hello: &HelloFacts,
    ) -> TlsPurpose {
        let Some(settings) = settings else {
            return TlsPurpose::Ordinary;
        };
        let name = hello.name.as_deref().unwrap_or_default();
        if hello.protocols.iter().any(|it| it == ACME_TLS) {
            let is_alone = hello.protocols.len() == 1;
            let acceptor = self.pending.acceptor(name).filter(|_| is_alone);
            return TlsPurpose::Validation(acceptor);
        }
        if store::is_certifiable(name)
            && !settings.certificates.has(name)
            && names::is_in_use(registry, &settings.config.domains, name)
            && self.visited.lock().note(name, clock::now())
        {
            self.notify();
        }
        TlsPurpose::Ordinary
    }

    /// Returns the response to an HTTP request with this head, if it is an awaited validation.
    pub fn response(&self, head: &[u8]) -> Option<String> {
        self.pending.response(head)
    }

    /// Has the task look at the names and settings again.
    pub fn notify(&self) {
        self.wake.notify(usize::MAX);
    }

    /// Returns the certificates by name.
    pub fn certificates(&self) -> Vec<(Box<str>, CertificateStatus)> {
        let status = self.status.lock();
        let certificates = status.iter();
        certificates
            .map(|(name, it)| (name.clone(), it.clone()))
            .collect()
    }
}
