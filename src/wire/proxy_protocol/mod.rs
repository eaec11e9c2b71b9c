//! The PROXY protocol: the header before a connection that says where it comes from (HAProxy's
//! doc/proxy-protocol.txt).

#[cfg(feature = "server")]
pub mod parse;

use super::origin::{Transport, VisitorOrigin};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The first bytes of version 2 (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 and the command PROXY: the connection is relayed for another one.
const PROXY: u8 = 0x21;
/// Family and transport.
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const UDP_OVER_IPV4: u8 = 0x12;
const TCP_OVER_IPV6: u8 = 0x21;
const UDP_OVER_IPV6: u8 = 0x22;
/// The type of the server name that the visitor has asked for (section 2.2.2).
const AUTHORITY: u8 = 0x02;
/// The type of what is known of the visitor's TLS (section 2.2.6).
const SSL: u8 = 0x20;
/// The visitor has connected over TLS.
const CLIENT_SSL: u8 = 0x01;
/// The visitor has presented no certificate that was verified.
const NOT_VERIFIED: u32 = 1;

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    One,
    /// Binary, with the server name and TLS.
    Two,
}

impl ProxyVersion {
    /// Encodes the header of a connection. `None` stands for an unknown origin.
    pub fn encode(self, origin: Option<&VisitorOrigin>) -> Vec<u8> {
        match self {
            Self::One => one(origin).into_bytes(),
            Self::Two => two(origin),
        }
    }
}

fn one(origin: Option<&VisitorOrigin>) -> String {
    let Some(origin) = origin.filter(|origin| origin.transport == Transport::Tcp) else {
        return "PROXY UNKNOWN\r\n".to_owned();
    };
    let (source, destination) = of_one_family(origin);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut line = String::with_capacity(107);
    let (from, to) = (source.port(), destination.port());
    // Writing to a string does not fail.
    let _ = write!(
        line,
        "PROXY {family} {} {} {from} {to}\r\n",
        source.ip(),
        destination.ip()
    );
    line
}

fn two(origin: Option<&VisitorOrigin>) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(PROXY);
    let mut rest = Vec::new();
    let mut family = UNSPECIFIED;
    if let Some(origin) = origin {
        let (source, destination) = of_one_family(origin);
        family = match (origin.transport, source.is_ipv4()) {
            (Transport::Tcp, true) => TCP_OVER_IPV4,
            (Transport::Tcp, false) => TCP_OVER_IPV6,
            (Transport::Udp, true) => UDP_OVER_IPV4,
            (Transport::Udp, false) => UDP_OVER_IPV6,
            (Transport::Other, _) => UNSPECIFIED,
        };
        if family != UNSPECIFIED {
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(ip) => rest.extend(ip.octets()),
                    IpAddr::V6(ip) => rest.extend(ip.octets()),
                }
            }
            for address in [source, destination] {
                rest.extend(address.port().to_be_bytes());
            }
        }
        if let Some(name) = &origin.server_name {
            append(&mut rest, AUTHORITY, name.as_bytes());
        }
        if origin.is_decrypted {
            let [a, b, c, d] = NOT_VERIFIED.to_be_bytes();
            append(&mut rest, SSL, &[CLIENT_SSL, a, b, c, d]);
        }
    }
    out.push(family);
    // Addresses take up to 36 bytes, and the name, which an origin bounds, up to 255.
    out.extend((rest.len() as u16).to_be_bytes());
    out.extend(rest);
    out
}

/// Appends a value with its type and length.
fn append(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    // At most 255 bytes.
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
}

/// Returns source and destination, both as addresses of IPv6 if one of them is.
fn of_one_family(origin: &VisitorOrigin) -> (SocketAddr, SocketAddr) {
    let widened = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let (source, destination) = (origin.source, origin.destination);
    match source.is_ipv4() == destination.is_ipv4() {
        true => (source, destination),
        false => (widened(source), widened(destination)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, destination: &str) -> VisitorOrigin {
        VisitorOrigin {
            transport: Transport::Tcp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            is_decrypted: false,
            is_told: false,
            server_name: None,
            subject: None,
        }
    }

    #[test]
    fn version_1_is_a_line() {
        let udp = VisitorOrigin {
            transport: Transport::Udp,
            ..origin("192.0.2.7:1", "192.0.2.1:2")
        };
        for (origin, line) in [
            (
                Some(origin("192.0.2.7:50000", "198.51.100.1:80")),
                "PROXY TCP4 192.0.2.7 198.51.100.1 50000 80\r\n",
            ),
            (
                Some(origin("[2001:db8::7]:50000", "[2001:db8::1]:80")),
                "PROXY TCP6 2001:db8::7 2001:db8::1 50000 80\r\n",
            ),
            (
                Some(origin("192.0.2.7:50000", "[2001:db8::1]:80")),
                "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 50000 80\r\n",
            ),
            (Some(udp), "PROXY UNKNOWN\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            let header = ProxyVersion::One.encode(origin.as_ref());
            assert_eq!(String::from_utf8(header).unwrap(), line);
        }
    }

    #[test]
    fn version_2_has_the_addresses_the_server_name_and_whether_there_was_tls() {
        let mut visitor = origin("192.0.2.7:50000", "198.51.100.1:443");
        visitor.is_decrypted = true;
        visitor.server_name = Some("a.example".into());
        let header = ProxyVersion::Two.encode(Some(&visitor));
        let (signature, rest) = header.split_at(12);
        assert_eq!(signature, SIGNATURE);
        let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xC3, 0x50, 0x01, 0xBB];
        let name = [&[2, 0, 9][..], b"a.example"].concat();
        let tls = [0x20, 0, 5, 1, 0, 0, 0, 1];
        let expected = [&[0x21, 0x11, 0, 32][..], &addresses, &name, &tls].concat();
        assert_eq!(rest, expected);
    }

    #[test]
    fn an_unknown_origin_has_no_addresses_in_version_2() {
        let header = ProxyVersion::Two.encode(None);
        assert_eq!(header, [&SIGNATURE[..], &[0x21, 0, 0, 0]].concat());
    }

    #[test]
    fn the_longest_header_of_version_1_has_107_bytes() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let header = ProxyVersion::One.encode(Some(&origin(longest, longest)));
        assert!(header.len() <= 107, "{}", header.len());
    }
}
