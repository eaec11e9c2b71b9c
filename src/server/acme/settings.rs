//! The settings of a server's certificates, and those that it has already.

use super::store::{self, NameState};
use crate::config::{AcmeConfig, ServerConfig};
use crate::net::tls::{CertificateKey, Connector, NamedCertificates, ServerIdentity, ServerTrust};
use std::io;
use std::sync::Arc;

/// The settings, with the certificates in use.
pub struct AcmeSettings {
    pub config: AcmeConfig,
    /// The URL of the directory, as in the files.
    pub directory: String,
    /// Whether there is an `addr`, and so HTTP.
    pub has_http: bool,
    /// The key of the server, which all certificates are for, so that fingerprints do not change.
    pub key: CertificateKey,
    /// Connects to the authority.
    pub connector: Connector,
    /// The certificates in use.
    pub certificates: Arc<NamedCertificates>,
}

impl AcmeSettings {
    /// Reads the settings of a server with this identity, and the certificates that it has; `None` if it gets
    /// none. Changes nothing.
    pub fn new(
        config: &ServerConfig,
        identity: Option<&ServerIdentity>,
    ) -> io::Result<Option<Self>> {
        let Some(acme) = &config.acme else {
            return Ok(None);
        };
        let connector = Connector::new(match &acme.ca {
            Some(file) => ServerTrust::File(file),
            None => ServerTrust::System,
        });
        let connector = connector.map_err(|e| {
            io::Error::new(e.kind(), format!("acmeDirectory {}: {e}", acme.directory))
        })?;
        let Some(identity) = identity else {
            return Ok(None);
        };
        let settings = Self {
            directory: acme.directory.to_string(),
            config: acme.clone(),
            has_http: config.addr.is_some(),
            key: CertificateKey::of(identity)?,
            connector,
            certificates: Arc::default(),
        };
        for (name, state) in store::read_names(&acme.state_dir)? {
            settings.use_certificate(&name, &state);
        }
        Ok(Some(settings))
    }

    /// Returns the certificates in use.
    pub fn certificates(&self) -> Arc<NamedCertificates> {
        self.certificates.clone()
    }

    /// Uses the certificate of a name from now on, if there is one for the server's key; returns its dates,
    /// in seconds since 1970.
    pub fn use_certificate(&self, name: &str, state: &NameState) -> Option<(i64, i64)> {
        if state.chain.is_empty() {
            return None;
        }
        match self.key.accept(name, &state.chain) {
            Ok(issued) => {
                self.certificates.set(name, issued.named);
                Some((issued.facts.not_before, issued.facts.not_after))
            }
            Err(why) => {
                log::debug!("the certificate of {name} is not used: {why}");
                None
            }
        }
    }
}
