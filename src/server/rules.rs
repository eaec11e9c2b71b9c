//! What of a server's configuration may change while it runs, beside its listeners: who may
//! connect, what is allowed to whom, and how visitors are met.

use super::auth::AuthApi;
use super::claims::Claims;
use super::users::{Strangers, Users};
use crate::config::{self, AnyClient, TlsVersion, Wire};
use crate::net::tls::{Acceptor, MinVersion};
use event_listener::Event;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub struct Rules {
    pub users: Users,
    /// What tunnels may speak.
    pub wire: Wire,
    /// The header that routes.
    pub mux_header: String,
    /// Silence that ends a tunnel, or a visitor's connection.
    pub timeout: Option<Duration>,
    /// One direction without traffic is silence enough.
    pub unidirectional: bool,
    /// For the listener with TLS, if there is one.
    pub acceptor: Option<Acceptor>,
}

impl Rules {
    /// The error says which file cannot be used, or what the authAPI lacks. What is the same
    /// as in the rules `before` is kept: an authAPI keeps its connections.
    pub fn new(
        config: &config::Server,
        claims: &Arc<Claims>,
        before: Option<&Rules>,
    ) -> io::Result<Self> {
        if let Some(before) = before {
            before.users.check_successor(config)?;
        }
        let acceptor = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) if config.tls_addr.is_some() => {
                Some(acceptor(cert, key, config.tls_min)?)
            }
            _ => None,
        };
        let strangers = match &config.auth_api {
            Some(url) => {
                Strangers::AskedAbout(match before.and_then(|rules| rules.users.auth_api()) {
                    Some(api) if api.is_at(url) => api.clone(),
                    _ => Arc::new(AuthApi::new(url)?),
                })
            }
            None => match config.any_client {
                AnyClient::Refused => Strangers::Refused,
                AnyClient::Allowed | AnyClient::AllowedByDefault => {
                    Strangers::Welcome(claims.clone())
                }
            },
        };
        Ok(Self {
            users: Users::new(&config.users, strangers, &config.limits),
            wire: config.wire,
            mux_header: config.http_mux_header.clone(),
            timeout: Some(config.timeout).filter(|timeout| !timeout.is_zero()),
            unidirectional: config.timeout_on_unidirectional_traffic,
            acceptor,
        })
    }
}

/// The error says what is wrong with which file.
pub fn acceptor(cert: &Path, key: &Path, min: TlsVersion) -> io::Result<Acceptor> {
    let min = match min {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    };
    Acceptor::new(cert, key, min)
}

/// The rules in force. Who has taken them keeps them until it asks again.
pub struct InForce {
    rules: Mutex<Arc<Rules>>,
    changed: Event,
}

impl InForce {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules: Mutex::new(Arc::new(rules)),
            changed: Event::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Rules>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self) -> Arc<Rules> {
        self.lock().clone()
    }

    pub fn replace(&self, rules: Rules) {
        *self.lock() = Arc::new(rules);
        self.changed.notify(usize::MAX);
    }

    /// Waits until the rules are others than `known`, and returns them.
    pub async fn other_than(&self, known: &Arc<Rules>) -> Arc<Rules> {
        loop {
            let changed = self.changed.listen();
            let rules = self.get();
            if !Arc::ptr_eq(&rules, known) {
                return rules;
            }
            changed.await;
        }
    }
}
