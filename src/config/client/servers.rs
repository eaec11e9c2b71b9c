//! Which remotes are ways to one server, and which of them can go through a proxy. Not the choice between them.

use super::remote::Remote;
use std::net::IpAddr;

/// Groups remotes into servers, each with its ways in the order in which they were written. Remotes of one
/// host name are ways to one server. Those of one IP address are, too, if no two of them have the same
/// transport: an address with two ports of one kind may well be two servers.
pub fn servers(remotes: &[Remote]) -> Vec<Vec<Remote>> {
    let mut servers: Vec<Vec<Remote>> = Vec::new();
    for remote in remotes {
        let is_address = remote.host.parse::<IpAddr>().is_ok();
        let is_of = |server: &&mut Vec<Remote>| {
            let mut ways = server.iter();
            let is_same_kind = |way: &Remote| way.transport == remote.transport && way != remote;
            ways.clone()
                .any(|way| way.host.eq_ignore_ascii_case(&remote.host))
                && !(is_address && ways.any(is_same_kind))
        };
        match servers.iter_mut().find(is_of) {
            Some(server) if server.contains(remote) => {}
            Some(server) => server.push(remote.clone()),
            None => servers.push(vec![remote.clone()]),
        }
    }
    servers
}

/// Returns the remotes that can be reached through a proxy, by `can`, with a warning about each other one.
/// The error names a server that has no such way.
pub(super) fn through_proxy(
    remotes: &[Remote],
    can: impl Fn(&Remote) -> bool,
) -> Result<(Vec<Remote>, Vec<String>), String> {
    let mut warnings = Vec::new();
    for ways in servers(remotes) {
        let (usable, others): (Vec<_>, Vec<_>) = ways.iter().partition(|way| can(way));
        match (usable.first(), others.first()) {
            (None, Some(other)) => {
                return Err(format!(
                    "{other} cannot be reached through a proxy: use a tls:// or tcp:// address, or remove \
                     remoteProxy."
                ))
            }
            _ => warnings.extend(others.iter().map(|other| {
                format!("{other} is not used, since it cannot be reached through remoteProxy")
            })),
        }
    }
    let usable = remotes.iter().filter(|remote| can(remote)).cloned();
    Ok((usable.collect(), warnings))
}

/// Returns a warning about each server that has ways with encryption and without.
pub(super) fn mixed(remotes: &[Remote]) -> impl Iterator<Item = String> {
    servers(remotes).into_iter().filter_map(|ways| {
        let of = |is_secure| {
            let mut ways = ways.iter();
            ways.find(|way| way.transport.is_secure() == is_secure)
        };
        let (secure, plain) = of(true).zip(of(false))?;
        Some(format!(
            "{plain} is a way to the same server as {secure} and is not encrypted: whoever can block the one can \
             read the secret on the other"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;

    fn remotes(texts: &[&str]) -> Vec<Remote> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn grouped(texts: &[&str]) -> Vec<String> {
        let servers = servers(&remotes(texts));
        let shown = |ways: &Vec<Remote>| {
            let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
            ways.join(" ")
        };
        servers.iter().map(shown).collect()
    }

    #[test]
    fn remotes_of_one_host_name_are_ways_to_one_server() {
        assert_eq!(
            grouped(&[
                "tls://h",
                "tcp://other",
                "tcp://H:8080",
                "tls://h:8443",
                "tls://h"
            ]),
            ["tls://h:443 tcp://H:8080 tls://h:8443", "tcp://other:80"]
        );
    }

    #[test]
    fn an_address_with_two_ports_of_one_kind_is_two_servers() {
        assert_eq!(
            grouped(&[
                "tcp://[::1]:1",
                "tcp://[::1]:2",
                "tls://[::1]:3",
                "tls://[::1]:4",
                "tcp://[::1]:1"
            ]),
            ["tcp://[::1]:1 tls://[::1]:3", "tcp://[::1]:2 tls://[::1]:4"]
        );
    }

    #[test]
    fn a_way_without_encryption_beside_one_with_it_is_a_warning() {
        let warned = |texts: &[&str]| mixed(&remotes(texts)).count();
        assert_eq!(warned(&["tls://h", "tcp://h"]), 1);
        assert_eq!(warned(&["tls://h", "tcp://other"]), 0);
        assert_eq!(warned(&["tcp://h", "tcp://h:1"]), 0);
    }

    #[test]
    fn a_proxy_leaves_out_ways_and_no_server() {
        let can = |remote: &Remote| remote.transport == Transport::Tls;
        let (usable, warnings) =
            through_proxy(&remotes(&["tcp://h", "tls://h", "tls://i"]), can).unwrap();
        assert_eq!(usable, remotes(&["tls://h", "tls://i"]));
        assert_eq!(
            warnings,
            ["tcp://h:80 is not used, since it cannot be reached through remoteProxy"]
        );
        let error = through_proxy(&remotes(&["tls://h", "tcp://i"]), can).unwrap_err();
        assert!(error.starts_with("tcp://i:80 cannot be reached through a proxy"));
    }
}
