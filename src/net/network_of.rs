//! The network whose addresses count as one in limits and bans.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the network that counts as one address: for IPv6 the /64, because a customer usually
/// gets one; for IPv4 the address itself.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}
