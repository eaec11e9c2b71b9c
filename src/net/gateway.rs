//! The gateway of this machine's default route, from Linux's rtnetlink (rtnetlink(7)).

use super::interfaces::{dump, u16_at, u32_at};
use super::netlink::{self, AF_INET};
use socket2::Socket;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

const NETLINK_ROUTE: i32 = 0;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// Length of `struct rtmsg`, which follows the header in messages about routes.
const ROUTE: usize = 12;
/// The kernel answers at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the gateway of the IPv4 default route with the lowest metric; `None` without one.
pub fn default_gateway() -> io::Result<Option<Ipv4Addr>> {
    let mut socket: Socket = netlink::socket(NETLINK_ROUTE)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut best: Option<(u32, Ipv4Addr)> = None;
    let mut family = [0; ROUTE];
    if let Some(first) = family.first_mut() {
        *first = AF_INET;
    }
    dump(&mut socket, RTM_GETROUTE, &family, |kind, body| {
        let found = (kind == RTM_NEWROUTE)
            .then(|| default_route(body))
            .flatten();
        if let Some(route) = found {
            let is_better = best.is_none_or(|best| route.0 < best.0);
            best = if is_better { Some(route) } else { best };
        }
    })?;
    Ok(best.map(|(_, gateway)| gateway))
}

/// Returns the metric and the gateway of a message about an IPv4 default route in the main table.
fn default_route(body: &[u8]) -> Option<(u32, Ipv4Addr)> {
    let [family, destination_length, _, _, table, _, _, kind] = *body.first_chunk::<8>()?;
    if (family, destination_length, table, kind) != (AF_INET, 0, RT_TABLE_MAIN, RTN_UNICAST) {
        return None;
    }
    let mut rest = body.get(ROUTE..)?;
    let (mut metric, mut gateway) = (0, None);
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else {
            break;
        };
        match kind {
            RTA_GATEWAY => gateway = value.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip)),
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            _ => {}
        }
        let next = usize::from(length).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Some((metric, gateway?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
    }

    #[test]
    fn the_kernel_lists_its_routes() {
        default_gateway().unwrap();
    }

    #[test]
    fn a_default_route_has_a_gateway_and_a_metric() {
        let mut body = vec![
            AF_INET,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            3,
            0,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        body.extend(attribute(RTA_GATEWAY, &[10, 0, 0, 1]));
        body.extend(attribute(RTA_PRIORITY, &7u32.to_ne_bytes()));
        assert_eq!(default_route(&body), Some((7, Ipv4Addr::new(10, 0, 0, 1))));
        // Cut anywhere, it has no other gateway.
        for cut in 0..body.len() {
            let found = default_route(&body[..cut]);
            assert!(found.is_none_or(|(_, ip)| ip == Ipv4Addr::new(10, 0, 0, 1)));
        }
        // Neither another network's route, nor one of another table.
        for (at, other) in [(1, 8), (4, 1), (7, 6), (0, 10)] {
            let mut body = body.clone();
            body[at] = other;
            assert_eq!(default_route(&body), None, "{at}");
        }
    }
}
