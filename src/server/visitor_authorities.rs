//! The authorities whose certificates the visitors of single users need (`clientCA` of a user). Not that of all
//! visitors of the server.

use super::registry::{HostKind, Registry};
use super::settings::{self, Settings};
use crate::collections::HashMap;
use crate::config::{ServerConfig, TlsVersion};
use crate::net::tls::{Acceptor, ClientCertificates, NamedCertificates, ServerIdentity};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The authorities of the users that have one.
#[derive(Default)]
pub struct VisitorAuthorities(HashMap<Box<str>, Arc<VisitorAuthority>>);

/// The authority of a user, and how it is asked for in handshakes.
pub struct VisitorAuthority {
    /// The file with its certificates, by which authorities are compared.
    pub file: Arc<Path>,
    /// For visitors, which need a certificate.
    required: Acceptor,
    /// For connections that may be tunnels, which need none.
    optional: Acceptor,
}

impl VisitorAuthority {
    /// Returns the acceptor for a connection. A gt client offers no application protocols in its TLS, and
    /// browsers do.
    pub fn acceptor(&self, may_be_tunnel: bool) -> Acceptor {
        match may_be_tunnel {
            true => self.optional.clone(),
            false => self.required.clone(),
        }
    }
}

impl VisitorAuthorities {
    /// Reads the files of the users. The error names the user.
    pub fn new(
        config: &ServerConfig,
        identity: &ServerIdentity,
        names: Option<&Arc<NamedCertificates>>,
    ) -> io::Result<Self> {
        let mut by_file: HashMap<&Path, Arc<VisitorAuthority>> = HashMap::default();
        let mut by_id = HashMap::default();
        for user in &config.users {
            let Some(file) = user.client_ca.as_deref() else {
                continue;
            };
            let authority = match by_file.get(file) {
                Some(authority) => authority.clone(),
                None => {
                    let read = VisitorAuthority::new(file, identity, config.tls_min, names);
                    let explain = |e: io::Error| {
                        let text = format!("clientCA of the user {}: {e}", user.id);
                        io::Error::new(e.kind(), text)
                    };
                    let authority = Arc::new(read.map_err(explain)?);
                    by_file.insert(file, authority.clone());
                    authority
                }
            };
            by_id.insert(user.id.as_str().into(), authority);
        }
        Ok(Self(by_id))
    }

    /// Whether no user has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, id: &str) -> Option<&Arc<VisitorAuthority>> {
        self.0.get(id)
    }
}

impl VisitorAuthority {
    fn new(
        file: &Path,
        identity: &ServerIdentity,
        min: TlsVersion,
        names: Option<&Arc<NamedCertificates>>,
    ) -> io::Result<Self> {
        let acceptor = |asked| settings::acceptor(identity.again(), min, asked, names.cloned());
        Ok(Self {
            file: file.into(),
            required: acceptor(ClientCertificates::Required(file))?,
            optional: acceptor(ClientCertificates::Optional(file))?,
        })
    }
}

impl Settings {
    /// Returns the authority of the user that has this name for HTTP, as the registry knows it; `None` if it
    /// has none of its own.
    pub fn authority_of(&self, registry: &Registry, name: &str) -> Option<Arc<VisitorAuthority>> {
        if self.authorities.is_empty() {
            return None;
        }
        let known = registry.id_of_name(HostKind::Http, name);
        let its = known.and_then(|id| self.authorities.of(&id));
        // The prefix of a client that is away.
        let its = its.or_else(|| {
            let mut all = self.authorities.0.iter();
            let user = all.find(|(id, _)| self.users.owns(name, id));
            user.map(|(_, authority)| authority)
        });
        its.cloned()
    }
}
