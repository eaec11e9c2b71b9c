//! The kind of the NAT in front of this machine, from what several STUN servers see, and how ends tell it each other
//! (docs/p2p.md, "Hard NATs"). No sockets.

use crate::net::is_public;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

/// The attribute of a candidate that tells the kind of its NAT. Other programs skip it (RFC 8839, section 5.1).
const ATTRIBUTE: &str = "gt-nat";
/// Largest difference of the ports for two destinations that counts as regular.
const MAX_STEP: i32 = 16;

/// How a NAT chooses the external port of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// One port for all destinations.
    Easy,
    /// For each new destination the last port and this, from 1 to [`MAX_STEP`] or negative.
    Regular(i32),
    /// Any port for each destination.
    Random,
}

/// An address of a NAT and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatAddress {
    /// The address; its port is the one of the newest destination.
    pub addr: SocketAddrV4,
    /// The kind.
    pub kind: NatKind,
}

impl NatAddress {
    /// An address of a NAT with one port for all destinations; `None` for one of IPv6.
    pub fn easy(addr: SocketAddr) -> Option<Self> {
        let (addr, kind) = (v4(addr)?, NatKind::Easy);
        Some(Self { addr, kind })
    }

    /// Finds out the kind from the addresses that servers see, in the order in which they were asked; `None` if there
    /// are less than two of IPv4.
    pub fn observed(seen: &[SocketAddr]) -> Option<Self> {
        let seen: Vec<SocketAddrV4> = seen.iter().filter_map(|addr| v4(*addr)).collect();
        let [.., before, last] = *seen.as_slice() else {
            return None;
        };
        let steps = seen.windows(2).map(|pair| match pair {
            [one, next] => i32::from(next.port()) - i32::from(one.port()),
            _ => 0,
        });
        let steps: Vec<i32> = steps.collect();
        let step = i32::from(last.port()) - i32::from(before.port());
        let is_one_host = seen.iter().all(|addr| addr.ip() == last.ip());
        let is_regular = steps.iter().all(|one| *one == step);
        let kind = match step {
            0 if is_regular && is_one_host => NatKind::Easy,
            _ if step == 0 || step.abs() > MAX_STEP || !is_regular || !is_one_host => {
                NatKind::Random
            }
            _ => NatKind::Regular(step),
        };
        Some(Self { addr: last, kind })
    }

    /// Formats the attribute that follows the candidate of the address.
    pub fn attribute(&self) -> String {
        let value = match self.kind {
            NatKind::Easy => "easy".to_owned(),
            NatKind::Random => "random".to_owned(),
            NatKind::Regular(step) => step.to_string(),
        };
        format!("{ATTRIBUTE} {value}")
    }

    /// Parses a candidate of a peer; `None` if it does not tell a kind.
    pub fn parse(candidate: &str) -> Option<Self> {
        let mut words = candidate.split_ascii_whitespace();
        let ip: IpAddr = words.nth(4)?.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        words.find(|word| *word == ATTRIBUTE)?;
        let kind = match words.next()? {
            "easy" => NatKind::Easy,
            "random" => NatKind::Random,
            step => {
                let step: i32 = step.parse().ok()?;
                let is_step = step != 0 && step.unsigned_abs() <= MAX_STEP.unsigned_abs();
                is_step.then_some(NatKind::Regular(step))?
            }
        };
        let addr = v4((ip, port).into())?;
        Some(Self { addr, kind })
    }
}

fn v4(addr: SocketAddr) -> Option<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Some(addr),
        SocketAddr::V6(_) => None,
    }
}

/// Whether a socket on the internet can have an address.
pub fn is_on_internet(addr: SocketAddrV4) -> bool {
    addr.port() != 0 && is_public((*addr.ip()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(seen: &[&str]) -> Option<NatAddress> {
        let seen: Vec<SocketAddr> = seen.iter().map(|addr| addr.parse().unwrap()).collect();
        NatAddress::observed(&seen)
    }

    #[test]
    fn the_ports_for_two_destinations_tell_the_kind() {
        for (seen, kind) in [
            (&["5.6.7.8:9", "5.6.7.8:9"][..], NatKind::Easy),
            (&["5.6.7.8:9", "5.6.7.8:10"], NatKind::Regular(1)),
            (
                &["5.6.7.8:9", "5.6.7.8:7", "5.6.7.8:5"],
                NatKind::Regular(-2),
            ),
            (&["5.6.7.8:9", "5.6.7.8:10", "5.6.7.8:5"], NatKind::Random),
            (&["5.6.7.8:9", "5.6.7.8:10", "5.6.7.8:10"], NatKind::Random),
            (&["5.6.7.8:9", "5.6.7.8:60000"], NatKind::Random),
            (&["5.6.7.8:9", "5.6.7.9:9"], NatKind::Random),
        ] {
            let found = observed(seen).unwrap();
            assert_eq!(found.kind, kind, "{seen:?}");
            assert_eq!(found.addr.to_string(), *seen.last().unwrap());
        }
        assert_eq!(observed(&["5.6.7.8:9"]), None);
        assert_eq!(observed(&["5.6.7.8:9", "[2001:db8::1]:9"]), None);
    }

    #[test]
    fn a_kind_is_told_in_a_candidate() {
        let addr = "5.6.7.8:9".parse().unwrap();
        for kind in [NatKind::Easy, NatKind::Random, NatKind::Regular(-3)] {
            let told = NatAddress { addr, kind };
            let candidate = format!(
                "candidate:s0 1 udp 1 5.6.7.8 9 typ srflx raddr 0.0.0.0 rport 0 {}",
                told.attribute()
            );
            assert_eq!(NatAddress::parse(&candidate), Some(told));
            assert!(rtc_ice::candidate::unmarshal_candidate(&candidate[10..]).is_ok());
        }
        for none in [
            "",
            "candidate:s0 1 udp 1 5.6.7.8 9 typ srflx",
            "candidate:s0 1 udp 1 5.6.7.8 9 typ srflx gt-nat",
            "candidate:s0 1 udp 1 5.6.7.8 9 typ srflx gt-nat 0",
            "candidate:s0 1 udp 1 5.6.7.8 9 typ srflx gt-nat 17",
            "candidate:s0 1 udp 1 5.6.7.8 9 typ srflx gt-nat -2147483648",
            "candidate:s0 1 udp 1 x.local 9 typ srflx gt-nat easy",
            "candidate:s0 1 udp 1 2001:db8::1 9 typ srflx gt-nat easy",
        ] {
            assert_eq!(NatAddress::parse(none), None, "{none}");
        }
    }
}
