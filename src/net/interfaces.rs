//! The addresses of this machine's interfaces, from Linux's rtnetlink (rtnetlink(7)). The C library's
//! `getifaddrs` does the same; it is larger, and waits forever where netlink does not answer, as under
//! some versions of qemu.

use super::netlink::{self, AF_INET, AF_INET6, HEADER};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

const NETLINK_ROUTE: i32 = 0;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;

/// Lengths of `struct ifinfomsg` and `struct ifaddrmsg`, which follow the header in messages about
/// links and addresses.
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// Length in bytes of the buffer for answers. The kernel fills one of 8 KiB or more with whole messages.
const BUFFER: usize = 16 * 1024;
/// The kernel answers at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// Whether the interface is up.
    pub is_up: bool,
}

/// Returns the addresses of all interfaces.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut socket = netlink::socket(NETLINK_ROUTE)?;
    // A list takes several reads, which wait, but not forever.
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut up = Vec::new();
    dump(&mut socket, RTM_GETLINK, &[0; LINK], |kind, body| {
        if kind == RTM_NEWLINK && u32_at(body, 8).is_some_and(|flags| flags & IFF_UP != 0) {
            up.extend(u32_at(body, 4));
        }
    })?;
    let mut addresses = Vec::new();
    dump(&mut socket, RTM_GETADDR, &[0; ADDRESS], |kind, body| {
        if kind == RTM_NEWADDR {
            addresses.extend(address(body).map(|(ip, index)| InterfaceAddress {
                ip,
                is_up: up.contains(&index),
            }));
        }
    })?;
    Ok(addresses)
}

/// Asks for all objects of a kind, and calls `take` with the type and the body of each message. A `body` of
/// zeros asks for all families.
pub(super) fn dump(
    socket: &mut Socket,
    request: u16,
    body: &[u8],
    mut take: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let length = HEADER + body.len();
    let mut bytes = netlink::request(u32::try_from(length).unwrap_or(0), request, NLM_F_DUMP);
    bytes.extend_from_slice(body);
    socket.write_all(&bytes)?;
    let mut answer = vec![0; BUFFER];
    loop {
        let n = socket.read(&mut answer)?;
        let mut rest = answer.get(..n).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, message, after)) = first_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    return Err(io::Error::other(
                        "the kernel refuses to list interfaces or routes",
                    ))
                }
                _ => take(kind, message),
            }
            rest = after;
        }
    }
}

/// Splits off the first message: its type, its body, and what follows.
fn first_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.checked_next_multiple_of(4)?..);
    Some((kind, body, after.unwrap_or_default()))
}

/// Returns the address and the interface of a message about an address.
fn address(body: &[u8]) -> Option<(IpAddr, u32)> {
    let (family, index) = (*body.first()?, u32_at(body, 4)?);
    let mut rest = body.get(ADDRESS..)?;
    // On a point-to-point link the first is the other end's.
    let (mut any, mut local) = (None, None);
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else {
            break;
        };
        let ip = || match family {
            AF_INET => Some(IpAddr::from(*value.first_chunk::<4>()?)),
            AF_INET6 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
            _ => None,
        };
        match kind {
            IFA_ADDRESS => any = ip(),
            IFA_LOCAL => local = ip(),
            _ => {}
        }
        let next = usize::from(length).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Some((local.or(any)?, index))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_up() {
        let addresses = interface_addresses().unwrap();
        let loopback = addresses
            .iter()
            .find(|it| it.ip == IpAddr::from([127, 0, 0, 1]));
        assert!(loopback.is_some_and(|it| it.is_up), "{addresses:?}");
    }

    #[test]
    fn an_address_is_that_of_this_end() {
        let mut body = vec![AF_INET, 32, 0, 0];
        body.extend(7u32.to_ne_bytes());
        for (kind, ip) in [(IFA_ADDRESS, [10, 0, 0, 2]), (IFA_LOCAL, [10, 0, 0, 1])] {
            body.extend(8u16.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(ip);
        }
        assert_eq!(address(&body), Some((IpAddr::from([10, 0, 0, 1]), 7)));
        // Cut anywhere, it is no other address, and no panic.
        for cut in 0..body.len() {
            let found = address(&body[..cut]);
            assert!(found.is_none() || found == Some((IpAddr::from([10, 0, 0, 2]), 7)));
        }
    }

    #[test]
    fn messages_with_a_wrong_length_end_the_list() {
        let message = |length: u32| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(RTM_NEWADDR.to_ne_bytes());
            bytes.extend([0; 14]);
            bytes
        };
        assert!(first_message(&message(20)).is_some());
        for length in [0, 1, 15, 21, u32::MAX] {
            assert!(first_message(&message(length)).is_none(), "{length}");
        }
    }
}
