//! The identity of a server's QUIC, as its handshakes use it.

use super::acceptor::server_config;
use super::ServerIdentity;
use crate::keys::Fingerprint;
use async_tls::rustls::{self, version};
use std::io;

/// A certificate with its key, for TLS 1.3.
#[derive(Clone)]
pub struct QuicIdentity {
    config: rustls::ServerConfig,
    fingerprint: Fingerprint,
}

impl QuicIdentity {
    /// Uses an identity. The error names certificate and key.
    pub fn new(identity: ServerIdentity) -> io::Result<Self> {
        let fingerprint = identity.fingerprint()?;
        let config = server_config(identity, &[&version::TLS13], None)?;
        Ok(Self {
            config,
            fingerprint,
        })
    }

    /// Returns the fingerprint of the key, for `remoteKey`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the configuration of TLS for these application protocols (RFC 7301).
    pub fn config_for(&self, protocols: &[&[u8]]) -> rustls::ServerConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config
    }
}
