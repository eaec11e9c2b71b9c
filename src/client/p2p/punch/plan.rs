//! What each end does so that datagrams pass two NATs of which one is hard. No sockets and clocks.

use crate::client::p2p::nat_kind::{is_on_internet, NatAddress, NatKind};
use crate::collections::HashSet;
use std::net::SocketAddrV4;

/// Number of sockets that open ports of a NAT with random ports.
pub const SOCKETS: usize = 256;
/// Number of ports that are tried at such a NAT. With 256 open ones of the 64 512 that a NAT has, the chance to find
/// none is 0.1 %.
pub const PORTS: usize = 1700;
/// Number of steps before and behind the newest port of a regular NAT that are tried. The other end's check to this end
/// may be older than the newest port, and what that end sends elsewhere takes ports, too; for the same reason, the step
/// may be a multiple of the real one.
const PREDICTED: i32 = 64;
/// Number of predicted ports of one pass between two hard NATs, and of passes.
const PASS: i32 = 16;
const PASSES: i32 = 8;
/// The lowest port that a NAT uses for the ports of programs.
const LOWEST: u32 = 1024;

/// The part of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PunchPlan {
    /// Open ports of this end's NAT by sending from many sockets to this address.
    Spray(SocketAddrV4),
    /// Send to these addresses in turn from the peers' socket.
    Scan(Vec<SocketAddrV4>),
}

impl PunchPlan {
    /// Plans for the NATs `ours` and `theirs`; `None` if usual checks suffice, or nothing would help. `offers` is
    /// true at one end. `random` returns random numbers.
    pub fn new(
        ours: NatAddress,
        theirs: NatAddress,
        offers: bool,
        random: impl FnMut() -> u32,
    ) -> Option<Self> {
        if !is_on_internet(theirs.addr) || ours.addr.ip() == theirs.addr.ip() {
            return None;
        }
        match (ours.kind, theirs.kind) {
            (NatKind::Random, NatKind::Easy) => Some(Self::Spray(theirs.addr)),
            (NatKind::Easy, NatKind::Random) => Some(Self::Scan(scattered(theirs.addr, random))),
            (NatKind::Easy, NatKind::Regular(step)) => Some(Self::Scan(around(theirs.addr, step))),
            // Each datagram of one end takes the next port there, which the other end's datagram of the same number
            // goes to. How many ports other datagrams have taken meanwhile is unknown; the end that offers assumes
            // none, the other one more in each pass.
            (NatKind::Regular(_), NatKind::Regular(step)) => {
                let ports = (0..PASS * PASSES).filter_map(|count| {
                    let taken = if offers { 0 } else { count / PASS };
                    ahead(theirs.addr, step, 1 + count + taken)
                });
                Some(Self::Scan(ports.collect()))
            }
            _ => None,
        }
    }
}

/// Returns the address with the port that a regular NAT uses after `count` more destinations.
fn ahead(addr: SocketAddrV4, step: i32, count: i32) -> Option<SocketAddrV4> {
    let port = i32::from(addr.port()) + step * count;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(SocketAddrV4::new(*addr.ip(), port))
}

/// Returns the ports around the newest one of a regular NAT, the nearest first.
fn around(addr: SocketAddrV4, step: i32) -> Vec<SocketAddrV4> {
    let mut ports = Vec::new();
    for count in 1..=PREDICTED {
        for step in [step, -step, 1, -1] {
            ports.extend(ahead(addr, step, count).filter(|port| !ports.contains(port)));
        }
    }
    ports
}

/// Returns distinct random ports of a host.
fn scattered(addr: SocketAddrV4, mut random: impl FnMut() -> u32) -> Vec<SocketAddrV4> {
    let mut ports = HashSet::default();
    // Fewer where numbers repeat.
    for _ in 0..2 * PORTS {
        let port = LOWEST + random() % (u32::from(u16::MAX) + 1 - LOWEST);
        ports.extend(u16::try_from(port).ok());
        if ports.len() == PORTS {
            break;
        }
    }
    let addrs = ports
        .into_iter()
        .map(|port| SocketAddrV4::new(*addr.ip(), port));
    addrs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(addr: &str, kind: NatKind) -> NatAddress {
        let addr = addr.parse().unwrap();
        NatAddress { addr, kind }
    }

    fn plan(ours: NatKind, theirs: NatAddress) -> Option<PunchPlan> {
        let mut last = 0u32;
        let random = move || {
            last = last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            last >> 8
        };
        PunchPlan::new(nat("5.6.7.8:1000", ours), theirs, true, random)
    }

    #[test]
    fn one_end_opens_many_ports_and_the_other_tries_many() {
        let theirs = "9.9.9.9:4000";
        let sprays = plan(NatKind::Random, nat(theirs, NatKind::Easy));
        assert_eq!(sprays, Some(PunchPlan::Spray(theirs.parse().unwrap())));
        let Some(PunchPlan::Scan(ports)) = plan(NatKind::Easy, nat(theirs, NatKind::Random)) else {
            panic!("a scan");
        };
        assert_eq!(ports.len(), PORTS);
        assert!(ports
            .iter()
            .all(|addr| addr.ip().to_string() == "9.9.9.9" && addr.port() >= 1024));
        for (ours, kind) in [
            (NatKind::Easy, NatKind::Easy),
            (NatKind::Random, NatKind::Random),
            (NatKind::Random, NatKind::Regular(1)),
            (NatKind::Regular(1), NatKind::Easy),
            (NatKind::Regular(1), NatKind::Random),
        ] {
            assert_eq!(plan(ours, nat(theirs, kind)), None, "{ours:?} {kind:?}");
        }
    }

    #[test]
    fn regular_ports_are_predicted() {
        let scan = |theirs| match plan(NatKind::Easy, theirs) {
            Some(PunchPlan::Scan(ports)) => ports.iter().map(|addr| addr.port()).collect(),
            _ => Vec::new(),
        };
        let ports = scan(nat("9.9.9.9:4000", NatKind::Regular(2)));
        assert_eq!(ports[..6], [4002, 3998, 4001, 3999, 4004, 3996]);
        assert!(ports.contains(&4128) && ports.contains(&3872) && ports.contains(&4063));
        assert!((128..=256).contains(&ports.len()));
        let at_end = scan(nat("9.9.9.9:65535", NatKind::Regular(1)));
        assert_eq!((at_end[0], at_end.len()), (65534, 64));
        assert_eq!(scan(nat("9.9.9.9:3", NatKind::Regular(-1)))[..3], [2, 4, 1]);
    }

    /// Whether a datagram of each end leaves from where the other sends it, if other datagrams have taken this many
    /// ports of their NATs.
    fn meet(taken: [i32; 2]) -> bool {
        let ends = [
            nat("5.6.7.8:1000", NatKind::Regular(1)),
            nat("9.9.9.9:4000", NatKind::Regular(2)),
        ];
        let sent = [0, 1].map(|end: usize| {
            let (ours, theirs) = (ends[end], ends[1 - end]);
            let plan = PunchPlan::new(ours, theirs, end == 0, || 0);
            let Some(PunchPlan::Scan(ports)) = plan else {
                panic!("a scan");
            };
            let NatKind::Regular(step) = ours.kind else {
                panic!("regular");
            };
            let from = |index| ahead(ours.addr, step, index + 1 + taken[end]).unwrap();
            let sent = ports.iter().zip(0..).map(|(to, index)| (from(index), *to));
            sent.collect::<Vec<_>>()
        });
        sent[0]
            .iter()
            .any(|(from, to)| sent[1].contains(&(*to, *from)))
    }

    #[test]
    fn two_regular_nats_meet_whatever_few_ports_others_have_taken() {
        for taken in [[0, 0], [1, 0], [0, 1], [2, 3], [5, 1], [0, 7]] {
            assert!(meet(taken), "{taken:?}");
        }
    }

    #[test]
    fn nothing_is_sent_to_private_networks_and_to_the_own_nat() {
        for theirs in [
            "10.0.0.1:4000",
            "192.168.1.1:4000",
            "127.0.0.1:4000",
            "224.0.0.1:4000",
            "5.6.7.8:4000",
        ] {
            for kind in [NatKind::Easy, NatKind::Random, NatKind::Regular(1)] {
                assert_eq!(plan(NatKind::Easy, nat(theirs, kind)), None);
                assert_eq!(plan(NatKind::Random, nat(theirs, kind)), None);
            }
        }
    }
}
