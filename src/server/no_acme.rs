//! The stub of `acme` in builds without it: no name gets a certificate. `config` reports that it is missing.

use super::client_hello::HelloFacts;
use super::registry::Registry;
use super::state::ServerState;
use crate::config;
use crate::net::tls::{Acceptor, NamedCertificates, ServerIdentity};
use std::io;
use std::sync::Arc;

/// The settings of certificates, of which there are none.
pub enum AcmeSettings {}

impl AcmeSettings {
    pub fn new(_: &config::ServerConfig, _: Option<&ServerIdentity>) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub fn certificates(&self) -> Arc<NamedCertificates> {
        match *self {}
    }
}

/// What connections and the API need of certificates: nothing.
#[derive(Default)]
pub struct Acme(());

/// The certificate of a name.
pub struct CertificateStatus {
    pub expires: Option<i64>,
    pub error: Option<String>,
}

/// What a TLS connection is.
pub enum TlsPurpose {
    /// A visitor or a tunnel.
    Ordinary,
    /// Never made.
    #[allow(dead_code)]
    Validation(Option<Acceptor>),
}

impl Acme {
    pub fn start(_: &Arc<ServerState>) {}

    pub fn purpose(&self, _: Option<&AcmeSettings>, _: &Registry, _: &HelloFacts) -> TlsPurpose {
        TlsPurpose::Ordinary
    }

    pub fn response(&self, _: &[u8]) -> Option<String> {
        None
    }

    pub fn notify(&self) {}

    pub fn certificates(&self) -> Vec<(Box<str>, CertificateStatus)> {
        Vec::new()
    }
}
