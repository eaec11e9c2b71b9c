//! A datagram of a SOCKS5 visitor: its header (RFC 1928, section 7), as bytes and as types.

use super::destination::Destination;
use super::socks::Fields;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// Maximum length in bytes of the header of an answer: with an IPv6 address.
pub(super) const MAX_HEADER: usize = 22;

/// Returns the destination of a visitor's datagram and the payload for it. `None` if the header is malformed or
/// that of a fragment: a proxy without support for fragments must drop them (RFC 1928, section 7).
pub(crate) fn parse(datagram: &[u8]) -> Option<(Destination, &[u8])> {
    let mut fields = Fields::new(datagram);
    let [_, _, fragment, kind] = fields.array().ok()?;
    if fragment != 0 {
        return None;
    }
    let (host, port) = fields.host_and_port(kind).ok()?;
    let host = host.filter(|_| port != 0)?;
    Some((Destination { host, port }, fields.rest()))
}

/// Returns the header of an answer from this address.
pub(crate) fn header(from: SocketAddr) -> SmallVec<[u8; MAX_HEADER]> {
    let mut header = SmallVec::from_slice(&[0, 0, 0]);
    match from.ip().to_canonical() {
        IpAddr::V4(ip) => {
            header.push(1);
            header.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            header.push(4);
            header.extend_from_slice(&ip.octets());
        }
    }
    header.extend_from_slice(&from.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_its_destination_and_what_is_for_it_and_no_part_of_a_header_is_one() {
        for (header, destination) in [
            (&b"\0\0\0\x01\xC0\xA8\x01\x01\x00\x35"[..], "192.168.1.1:53"),
            (b"\0\0\0\x03\x07NAS.lan\x00\x35", "nas.lan:53"),
            (b"\0\0\0\x03\x0b192.168.1.1\x00\x35", "192.168.1.1:53"),
            (
                b"\0\0\0\x04\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35",
                "[fd00::1]:53",
            ),
        ] {
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), None, "{destination} {cut}");
            }
            for payload in [&b""[..], b"question", &[0; 60_000]] {
                let datagram = [header, payload].concat();
                let (parsed, rest) = parse(&datagram).expect("a datagram");
                assert_eq!((parsed.to_string().as_str(), rest), (destination, payload));
            }
        }
        for datagram in [
            // Fragments, the last one of some, no port, and what is neither an address nor a name.
            &b"\0\0\x01\x01\xC0\xA8\x01\x01\x00\x35rest"[..],
            b"\0\0\x81\x01\xC0\xA8\x01\x01\x00\x35rest",
            b"\0\0\0\x01\xC0\xA8\x01\x01\x00\x00rest",
            b"\0\0\0\x02\xC0\xA8\x01\x01\x00\x35rest",
            b"\0\0\0\x03\x00\x00\x35rest",
            b"\0\0\0\x03\x03a b\x00\x35rest",
        ] {
            assert_eq!(parse(datagram), None, "{datagram:?}");
        }
    }

    #[test]
    fn the_header_of_an_answer_is_read_as_that_of_a_question() {
        for (from, shown) in [
            ("192.168.1.1:53", "192.168.1.1:53"),
            ("[::ffff:192.168.1.1]:53", "192.168.1.1:53"),
            ("[fd00::1]:65535", "[fd00::1]:65535"),
        ] {
            let header = header(from.parse().unwrap());
            assert!(header.len() <= MAX_HEADER && !header.spilled());
            let datagram = [&header[..], b"answer"].concat();
            let (parsed, rest) = parse(&datagram).unwrap();
            assert_eq!((parsed.to_string().as_str(), rest), (shown, &b"answer"[..]));
        }
    }
}
