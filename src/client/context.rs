//! The state that all tunnels of a client share. It refers to its parts only, and to none of their
//! users.

use super::services::Services;
use super::visitor_rules::VisitorRules;
use crate::config::{Remote, Secret, ServerKeys, Uplink, Wire};
use crate::keys::PrivateKey;
use crate::net::tls::{Connector, ServerTrust};
use crate::net::{Dialer, Shutdown, WaitGroup};
use crate::sync::{Mutex, MutexGuard};
use crate::wire::hello::{Proof, SignedKey, INSTANCE};
use event_listener::Event;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The shared state of one client.
pub(crate) struct ClientContext {
    pub(super) id: String,
    pub(super) credential: Credential,
    pub(super) tls: LazyTls,
    /// How servers are reached.
    pub(super) dialer: Arc<Dialer>,
    /// The wire versions that tunnels may use.
    pub(super) wire: Wire,
    /// Whether servers are asked where visitors come from.
    pub(super) origins: bool,
    /// What distinguishes this client from others with its id; `None` if there can be none.
    pub(super) instance: Option<[u8; INSTANCE]>,
    pub(super) remote_timeout: Duration,
    /// Whether tunnels use the congestion control BBR.
    pub(super) bbr: bool,
    pub(super) reconnect_delay: Duration,
    /// Maximum number of tunnels to one server.
    pub(super) connections: usize,
    /// Number of tunnels to one server that are always kept.
    pub(super) idle_connections: usize,
    pub(super) services: Mutex<Arc<Services>>,
    /// The rules about visitors, which a client shares with those that it has replaced.
    pub(super) visitor_rules: Arc<VisitorRules>,
    pub(super) stop: Shutdown,
    /// Triggered when relays have had their time to end.
    pub(super) cut: Shutdown,
    /// Notified to make waiting pools retry at once.
    pub(super) retry: Event,
    /// Tunnels and relays that are still running.
    pub(super) serving: WaitGroup,
}

impl ClientContext {
    pub(super) fn lock_services(&self) -> MutexGuard<'_, Arc<Services>> {
        self.services.lock()
    }

    pub(super) fn services(&self) -> Arc<Services> {
        self.lock_services().clone()
    }
}

/// What a client proves its id with.
#[derive(Clone)]
pub(super) enum Credential {
    /// A secret, which servers see.
    Secret(Secret),
    /// A key, whose private half servers do not see.
    Key(Arc<PrivateKey>),
}

impl Credential {
    /// Returns the proof for a message in a tunnel that the server has admitted: a key without a signature, or
    /// the secret, which is also the proof of a hello.
    pub(super) fn proof(&self) -> Proof {
        match self {
            Self::Secret(secret) => Proof::Secret(secret.as_bytes().into()),
            Self::Key(key) => Proof::Key(Box::new(SignedKey {
                key: key.public_key(),
                signature: None,
            })),
        }
    }

    /// Returns the key; `None` for a secret.
    pub(super) fn key(&self) -> Option<&PrivateKey> {
        match self {
            Self::Secret(_) => None,
            Self::Key(key) => Some(key),
        }
    }
}

/// The TLS connector to servers, created on first use: a remoteAPI may or may not name `tls://`
/// servers.
pub(super) struct LazyTls {
    pub(super) link: Uplink,
    pub(super) connector: Mutex<Option<Connector>>,
}

impl LazyTls {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Connector>> {
        self.connector.lock()
    }

    /// Fails if a server should prove its key (`remoteKey`) but cannot at this address, such as
    /// `tcp://` from a remoteAPI.
    pub(super) fn check(&self, remote: &Remote) -> io::Result<()> {
        if self.link.server_keys == ServerKeys::Any || remote.transport.is_secure() {
            return Ok(());
        }
        let text = format!("remoteKey cannot be checked over {remote}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// Returns the connector. The error names the unusable file, or says that the system has no
    /// certificate authorities.
    pub(super) fn connector(&self) -> io::Result<Connector> {
        if let Some(connector) = &*self.lock() {
            return Ok(connector.clone());
        }
        let connector = connector(&self.link)?;
        Ok(self.lock().insert(connector).clone())
    }
}

/// Creates the connector to servers. The error names the unusable file, or says that the system has
/// no certificate authorities.
pub(super) fn connector(link: &Uplink) -> io::Result<Connector> {
    match &link.server_keys {
        ServerKeys::Only(keys) => return Connector::new(ServerTrust::Keys(keys)),
        ServerKeys::First(directory) => return Connector::new(ServerTrust::FirstKey(directory)),
        ServerKeys::Any => {}
    }
    match &link.remote_cert {
        _ if link.remote_cert_insecure => {
            log::warn!(
                "remoteCertInsecure is set: anyone between here and the server can read and \
                 change everything; better set remoteKey to what gt fingerprint prints there"
            );
            Connector::new(ServerTrust::Nobody)
        }
        Some(path) => Connector::new(ServerTrust::File(path)),
        None => Connector::new(ServerTrust::System)
            .map_err(|e| io::Error::new(e.kind(), format!("{e}, or set remoteCert"))),
    }
}
