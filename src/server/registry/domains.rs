//! The domains of clients among the host prefixes. A domain is kept as `@` and its name: no prefix begins
//! so.

use super::{HostKind, Key};
use crate::config::Domain;
use crate::wire::hello::MAX_DOMAIN;

/// Returns the registry's key of a domain.
pub fn domain_key(kind: HostKind, domain: &str) -> Key {
    (kind, format!("@{domain}").into())
}

/// Returns the domain of a key; `None` for a host prefix.
pub fn domain_of(name: &str) -> Option<&str> {
    name.strip_prefix('@')
}

/// Finds the domain that a host belongs to, the narrowest first. `is_known` tells whether anyone has it.
pub fn find(host: &str, is_known: impl Fn(&str) -> bool) -> Option<String> {
    if host.len() > MAX_DOMAIN {
        return None;
    }
    let names = Domain::of_host(host).map(|domain| format!("@{domain}"));
    names.into_iter().find(|name| is_known(name))
}

/// The name of the domain that has all hosts which nobody else has.
pub const CATCH_ALL: &str = "@*";
