//! Certificates of a server by the name that a visitor asks for. Not how they are got.

use super::rustls;
use crate::collections::HashMap;
use crate::sync::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Certificates by server name, in lower case. They may change while connections use them.
#[derive(Debug, Default)]
pub struct NamedCertificates(Mutex<HashMap<Box<str>, NamedCertificate>>);

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct NamedCertificate(pub(super) Arc<CertifiedKey>);

impl NamedCertificates {
    /// Sets the certificate of a name.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn set(&self, name: &str, certificate: NamedCertificate) {
        self.0.lock().insert(name.into(), certificate);
    }

    /// Takes the certificate of a name out of use.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }

    /// Whether a name has a certificate.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn has(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let table = self.0.lock();
        Some(table.get(name)?.0.clone())
    }
}

/// Selects the certificate of a handshake: that of the name, or else the server's.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) names: Arc<NamedCertificates>,
    pub(super) default: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // In lower case, and without a final dot.
        let named = hello.server_name().and_then(|name| self.names.get(name));
        named.or_else(|| self.default.resolve(hello))
    }
}

#[cfg(test)]
impl NamedCertificate {
    /// The certificate that a server has made itself.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn of(identity: &super::ServerIdentity) -> Self {
        let (certificates, key) = identity.parts();
        let key = super::provider().key_provider.load_private_key(key);
        Self(Arc::new(CertifiedKey::new(certificates, key.unwrap())))
    }
}
