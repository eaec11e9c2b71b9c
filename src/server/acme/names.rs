//! The names that get certificates: those that clients have, and no others.

use super::store;
use crate::config::Domain;
use crate::server::registry::{domain_of, HostKind, Registry};

/// Whether a client has a name.
pub fn is_in_use(registry: &Registry, domains: &[Box<str>], name: &str) -> bool {
    let below = name.split_once('.');
    let prefix = below.filter(|(_, below)| domains.iter().any(|domain| **domain == **below));
    registry.has_name(HostKind::Http, name, prefix.map(|(prefix, _)| prefix))
}

/// Returns the names that clients have, with the ids of the clients: their host prefixes below `domains`, and
/// their own domains, both for HTTP. Wildcards are left out.
pub fn in_use(registry: &Registry, domains: &[Box<str>]) -> Vec<(String, Box<str>)> {
    let mut names = Vec::new();
    for (host, id) in registry.names_of_kind(HostKind::Http) {
        match domain_of(&host) {
            Some(domain) => names.push((domain.to_owned(), id)),
            None => {
                let below = domains.iter();
                names.extend(below.map(|domain| (format!("{host}.{domain}"), id.clone())));
            }
        }
    }
    names.retain(|(name, _)| store::is_certifiable(name) && Domain::parse(name).is_ok());
    names.sort();
    names.dedup_by(|one, other| one.0 == other.0);
    names.truncate(store::MAX_NAMES);
    names
}
