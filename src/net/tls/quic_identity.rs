//! The identity of a server's QUIC, as its handshakes use it.

use super::acceptor::server_config;
use super::ServerIdentity;
use crate::keys::Fingerprint;
use async_tls::rustls::{self, version};
use ring::{hkdf, hmac};
use std::io;

/// A certificate with its key, for TLS 1.3.
#[derive(Clone)]
pub struct QuicIdentity {
    config: rustls::ServerConfig,
    /// What keys are derived from that have to last as long as the identity.
    secret: hkdf::Prk,
    fingerprint: Fingerprint,
}

impl QuicIdentity {
    /// Uses an identity. The error names certificate and key.
    pub fn new(identity: ServerIdentity) -> io::Result<Self> {
        let fingerprint = identity.fingerprint()?;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"gt");
        let secret = salt.extract(identity.key.secret_der());
        let config = server_config(identity, &[&version::TLS13], None)?;
        Ok(Self {
            config,
            secret,
            fingerprint,
        })
    }

    /// Returns the fingerprint of the key, for `remoteKey`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Derives a key for this purpose from the private key of the identity.
    pub fn hmac_key(&self, purpose: &'static [u8]) -> io::Result<hmac::Key> {
        let purpose = [purpose];
        let key = self.secret.expand(&purpose, hmac::HMAC_SHA256);
        let key = key.map_err(|_| io::Error::other("a key cannot be derived"))?;
        Ok(key.into())
    }

    /// Returns the configuration of TLS for these application protocols (RFC 7301).
    pub fn config_for(&self, protocols: &[&[u8]]) -> rustls::ServerConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config
    }
}
