//! The host names that requests may have, for listeners that browsers can reach.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The host names that requests may be for, besides IP addresses and `localhost`. They prevent DNS
/// rebinding: a web page can make its own name resolve to the API's address to read the answers,
/// but it cannot make browsers send another host name than its own.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts(Arc<[String]>);

impl AllowedHosts {
    /// Allows these names.
    pub fn new(names: &[String]) -> Self {
        Self(names.into())
    }

    /// Whether a request may be for this host and optional port (RFC 9110, section 7.2). Requests
    /// without a host have an empty one.
    pub fn allow(&self, authority: &str) -> bool {
        if let Some(rest) = authority.strip_prefix('[') {
            let split = rest.split_once(']');
            return split.is_some_and(|(addr, port)| {
                let is_port = port.is_empty() || port.starts_with(':');
                is_port && addr.parse::<Ipv6Addr>().is_ok()
            });
        }
        if authority.is_empty() {
            return true;
        }
        let host = authority
            .split_once(':')
            .map_or(authority, |(host, _)| host);
        let host = host.strip_suffix('.').unwrap_or(host);
        let is = |name: &str| name.eq_ignore_ascii_case(host);
        host.parse::<IpAddr>().is_ok() || is("localhost") || self.0.iter().any(|name| is(name))
    }
}
