//! Listeners for UDP, and UDP ports of clients, that exclude each other. Not whether a port is free.

use super::ServerConfig;
use crate::config::ListenAddr;

/// Fails if two listeners for UDP cannot be open at once, or clients have no UDP port besides those of the listeners.
/// Returns warnings about ports of listeners among those of clients, who cannot have them.
pub fn check(server: &ServerConfig) -> Result<Vec<String>, String> {
    let quic = server.quic_addr.as_ref();
    let stun = server.stun_addr.as_ref();
    let listeners = [
        ("quicAddr", quic.filter(|_| cfg!(feature = "quic"))),
        ("stunAddr", stun.filter(|_| cfg!(feature = "p2p"))),
    ];
    let listeners: Vec<(&str, &ListenAddr)> = listeners
        .into_iter()
        .filter_map(|(name, addr)| Some((name, addr.filter(|addr| addr.port != 0)?)))
        .collect();
    if let [(one, addr), (other, other_addr)] = listeners[..] {
        if addr.meets(other_addr) {
            return Err(format!(
                "{one} ({addr}) and {other} ({other_addr}) are one UDP port, which only one of them can have: \
                 give {other} another port, or \"\" to turn it off."
            ));
        }
    }
    let mut warnings = Vec::new();
    let global = &server.limits.udp.rules;
    let of_users = server.users.iter().flat_map(|user| {
        // A user without ports has the global ones.
        let rules = user.limits.udp.rules.iter();
        let own = rules.filter(|rule| !global.iter().any(|it| it.range == rule.range));
        own.map(|rule| (rule.range, format!("of the user \"{}\"", user.id)))
    });
    let of_all = global.iter();
    let of_all = of_all.map(|rule| (rule.range, "of udpRange".to_owned()));
    for (range, whose) in of_all.chain(of_users) {
        for (name, addr) in &listeners {
            if !range.contains(addr.port) {
                continue;
            }
            if range.first == range.last {
                return Err(format!(
                    "The UDP port {range} {whose} is that of {name} ({addr}), so no client could have it: give one \
                     of them another port."
                ));
            }
            warnings.push(format!(
                "the UDP ports {range} {whose} contain that of {name} ({addr}), which no client can have"
            ));
        }
    }
    Ok(warnings)
}
