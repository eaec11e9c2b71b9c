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

    /// Whether the visitors of two users need the same certificates.
    pub fn are_same(&self, id: &str, other: &str) -> bool {
        let file = |id| self.of(id).map(|authority| &authority.file);
        file(id) == file(other)
    }

    /// Returns the authority that all these users have; `None` if they have none.
    fn of_all<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Option<&Arc<VisitorAuthority>>, SeveralAuthorities> {
        let mut first: Option<&str> = None;
        for id in ids {
            match first {
                Some(first) if !self.are_same(first, id) => return Err(SeveralAuthorities),
                _ => first = Some(id),
            }
        }
        Ok(first.and_then(|id| self.of(id)))
    }

    fn of(&self, id: &str) -> Option<&Arc<VisitorAuthority>> {
        self.0.get(id)
    }
}

/// The clients that share a name are of users with different authorities, so that no visitor can be served.
#[derive(Debug, PartialEq, Eq)]
pub struct SeveralAuthorities;

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
    /// has none of its own. Users that share the name all have the same authority, except between a reload
    /// and the end of the registrations that it does not allow any more.
    pub fn authority_of(
        &self,
        registry: &Registry,
        name: &str,
    ) -> Result<Option<Arc<VisitorAuthority>>, SeveralAuthorities> {
        if self.authorities.is_empty() {
            return Ok(None);
        }
        let its =
            registry.with_ids_of_name(HostKind::Http, name, |ids| self.authorities.of_all(ids))?;
        // The prefix of a client that is away.
        let its = its.or_else(|| {
            let mut all = self.authorities.0.iter();
            let user = all.find(|(id, _)| self.users.owns(name, id));
            user.map(|(_, authority)| authority)
        });
        Ok(its.cloned())
    }
}

#[cfg(test)]
impl VisitorAuthorities {
    /// The authorities of users, each in a file of this name in a new folder.
    pub fn of_users(folder: &str, users: &[(&str, &str)]) -> Self {
        let folder = crate::state_dir::scratch(folder);
        let identity = ServerIdentity::in_directory(&folder).unwrap();
        let mut by_id = HashMap::default();
        for (id, file) in users {
            let file = folder.join(file);
            std::fs::copy(folder.join(crate::state_dir::IDENTITY), &file).unwrap();
            let authority = VisitorAuthority::new(&file, &identity, TlsVersion::Tls12, None);
            by_id.insert((*id).into(), Arc::new(authority.unwrap()));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        Self(by_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_a_shared_name_is_that_of_all_its_clients_or_none() {
        let all = [("id1", "a"), ("id2", "a"), ("id3", "b")];
        let authorities = VisitorAuthorities::of_users("authorities-shared", &all);
        let of = |ids: &[&str]| {
            let authority = authorities.of_all(ids.iter().copied());
            authority.map(|it| it.is_some_and(|it| it.file.ends_with("a")))
        };
        assert_eq!(of(&["id1", "id2", "id1"]), Ok(true));
        assert_eq!(of(&["id4", "id5"]), Ok(false));
        assert_eq!(of(&[]), Ok(false));
        for ids in [["id4", "id1"], ["id1", "id4"], ["id1", "id3"]] {
            assert_eq!(of(&ids), Err(SeveralAuthorities), "{ids:?}");
        }
    }
}
