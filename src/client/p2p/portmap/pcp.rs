//! Messages of the Port Control Protocol (RFC 6887), for UDP ports of IPv4. Bytes and values only.

use super::mapping::Answered;
use crate::wire::{u16_at, u32_at};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// The version, which is the first byte of every message.
const VERSION: u8 = 2;
/// The bit of the opcode that tells a response from a request.
const RESPONSE: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const UDP: u8 = 17;
/// Length in bytes of the header of each message.
const HEADER: usize = 24;
/// Length in bytes of a message about a mapping.
const MAP_MESSAGE: usize = HEADER + 36;
/// Maximum length in bytes of any message (RFC 6887, section 7).
const MAX_MESSAGE: usize = 1100;

/// What only the gateway and this end know: a mapping can be changed by the same nonce only.
pub type Nonce = [u8; 12];

/// A request for a mapping. A lifetime of 0 gives it back.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// The mapping's nonce.
    pub nonce: Nonce,
    /// The address of this machine that the request is sent from.
    pub source: Ipv4Addr,
    /// The port of this machine.
    pub port: u16,
    /// The external address that is wanted; unspecified for any.
    pub suggested: SocketAddrV4,
    /// Lifetime in seconds.
    pub lifetime: u32,
}

fn header(opcode: u8, lifetime: u32, source: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![VERSION, opcode, 0, 0];
    bytes.extend(lifetime.to_be_bytes());
    bytes.extend(source.to_ipv6_mapped().octets());
    bytes
}

impl MapRequest {
    /// Writes the request.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = header(MAP, self.lifetime, self.source);
        bytes.extend(self.nonce);
        bytes.extend([UDP, 0, 0, 0]);
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(self.suggested.port().to_be_bytes());
        bytes.extend(self.suggested.ip().to_ipv6_mapped().octets());
        bytes
    }

    /// Parses a datagram of the gateway; `None` if it does not answer this request.
    pub fn answer(&self, bytes: &[u8]) -> Option<Answered> {
        let head = Head::parse(bytes)?;
        if head.opcode != MAP {
            return None;
        }
        let map = bytes.get(HEADER..MAP_MESSAGE)?;
        let is_ours = map.first_chunk() == Some(&self.nonce)
            && map.get(12) == Some(&UDP)
            && u16_at(map, 16) == Some(self.port);
        if !is_ours {
            return None;
        }
        if head.result != 0 {
            return Some(Answered::Refused(head.result.into()));
        }
        let external = Ipv6Addr::from(*map.get(20..)?.first_chunk::<16>()?);
        Some(Answered::Mapped {
            // An address of IPv6 is of no use for this socket.
            external: SocketAddrV4::new(
                external.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
                u16_at(map, 18)?,
            ),
            lifetime: head.lifetime,
            epoch: head.epoch,
        })
    }
}

/// Writes the question whether the gateway still has the state of this epoch (RFC 6887, section 14.1).
pub fn announce(source: Ipv4Addr) -> Vec<u8> {
    header(ANNOUNCE, 0, source)
}

/// Parses the answer to [`announce`]: the epoch in seconds.
pub fn announced(bytes: &[u8]) -> Option<u32> {
    let head = Head::parse(bytes)?;
    (head.opcode == ANNOUNCE && head.result == 0).then_some(head.epoch)
}

/// The header of a response.
struct Head {
    opcode: u8,
    result: u8,
    lifetime: u32,
    epoch: u32,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [version, opcode, _, result] = *bytes.first_chunk::<4>()?;
        let is_response = version == VERSION && opcode & RESPONSE != 0;
        let is_sized =
            (HEADER..=MAX_MESSAGE).contains(&bytes.len()) && bytes.len().is_multiple_of(4);
        (is_response && is_sized).then_some(())?;
        Some(Self {
            opcode: opcode & !RESPONSE,
            result,
            lifetime: u32_at(bytes, 4)?,
            epoch: u32_at(bytes, 8)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: MapRequest = MapRequest {
        nonce: *b"twelve bytes",
        source: Ipv4Addr::new(10, 0, 0, 2),
        port: 40_000,
        suggested: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 40_000),
        lifetime: 3600,
    };

    /// A response that grants the request.
    fn granted() -> Vec<u8> {
        let mut bytes = vec![2, 0x81, 0, 0, 0, 0, 0x0E, 0x10, 0, 0, 0, 9];
        bytes.extend([0; 12]);
        bytes.extend(b"twelve bytes");
        bytes.extend([17, 0, 0, 0, 0x9C, 0x40, 0x9C, 0x41]);
        bytes.extend(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets());
        bytes
    }

    #[test]
    fn a_request_is_that_of_the_rfc() {
        let bytes = REQUEST.write();
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x0E, 0x10]);
        assert_eq!(
            bytes[8..24],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 2]
        );
        assert_eq!(&bytes[24..36], b"twelve bytes");
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0x9C, 0x40, 0x9C, 0x40]);
        assert_eq!(announce(REQUEST.source).len(), 24);
    }

    #[test]
    fn a_grant_has_an_address_a_lifetime_and_an_epoch() {
        let external = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 40_001);
        let mapped = Answered::Mapped {
            external,
            lifetime: 3600,
            epoch: 9,
        };
        assert_eq!(REQUEST.answer(&granted()), Some(mapped));
        let mut refusal = granted();
        refusal[3] = 8;
        assert_eq!(REQUEST.answer(&refusal), Some(Answered::Refused(8)));
        let mut announcement = granted();
        announcement.truncate(24);
        announcement[1] = 0x80;
        assert_eq!(announced(&announcement), Some(9));
        assert_eq!(REQUEST.answer(&announcement), None);
    }

    #[test]
    fn an_answer_to_another_request_is_none() {
        let whole = granted();
        // The version, a request, the nonce, the protocol, the port.
        for at in [0, 1, 24, 35, 36, 40, 41] {
            let mut bytes = whole.clone();
            bytes[at] ^= if at == 1 { 0x80 } else { 1 };
            assert_eq!(REQUEST.answer(&bytes), None, "{at}");
        }
        for cut in 0..whole.len() {
            assert_eq!(REQUEST.answer(&whole[..cut]), None, "{cut}");
        }
        let long = [whole, vec![0; 1100]].concat();
        assert_eq!(REQUEST.answer(&long), None);
    }
}
