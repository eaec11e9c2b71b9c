//! What requests to Linux's netlink (netlink(7)) have in common.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;

const AF_NETLINK: i32 = 16;
/// Flag of every request.
const NLM_F_REQUEST: u16 = 1;

/// Length in bytes of `struct nlmsghdr`, with which every message begins.
pub const HEADER: usize = 16;
/// The family of IPv4 addresses.
pub const AF_INET: u8 = 2;
/// The family of IPv6 addresses.
pub const AF_INET6: u8 = 10;

/// Opens a socket of a netlink protocol. It does not block.
pub fn socket(protocol: i32) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let protocol = Protocol::from(protocol);
    Socket::new(Domain::from(AF_NETLINK), kind, Some(protocol))
}

/// Begins a request of `length` bytes in all with its header.
pub fn request(length: u32, kind: u16, flags: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(HEADER));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // The sequence number, and the port, which the kernel sets.
    bytes.extend([0; 8]);
    bytes
}
