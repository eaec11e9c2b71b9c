//! The parser of headers of the PROXY protocol, as untrusted as all that the network brings.

use super::{AUTHORITY, CLIENT_SSL, PROXY, SIGNATURE, SSL, TCP_OVER_IPV4, TCP_OVER_IPV6};
use crate::wire::origin::{Transport, VisitorOrigin};
use crate::wire::u16_at;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Maximum length in bytes of a header: that of version 1 has at most 107 (section 2.1), and one of
/// version 2 with addresses and much else should fit into the first TCP segment (section 2.2).
pub const MAX_HEADER: usize = 536;
/// Maximum length in bytes of the line of version 1.
const LONGEST_LINE: usize = 107;
/// Length in bytes of signature, command, family and length in version 2.
const FIXED: usize = 16;
/// The beginning of version 1.
const LINE: &[u8] = b"PROXY ";
/// Version 2 and the command LOCAL: the front's own connection, such as a health check.
const LOCAL: u8 = 0x20;

/// A header at the start of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Length in bytes of the header.
    pub length: usize,
    /// Where the connection comes from; `None` if it is the front's own, or not known.
    pub origin: Option<VisitorOrigin>,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// They begin in another way.
    NoHeader,
    /// The header is longer than [`MAX_HEADER`].
    TooLong,
    /// The line of version 1 has other words than it should.
    Line,
    /// The command or version of version 2 is not known.
    Command(u8),
    /// The addresses or values of version 2 are longer than the header.
    Short,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("no PROXY header, which the connection must begin with"),
            Self::TooLong => write!(f, "a PROXY header of more than {MAX_HEADER} bytes"),
            Self::Line => f.write_str("a malformed line of the PROXY protocol"),
            Self::Command(byte) => {
                write!(f, "an unknown command of the PROXY protocol, {byte:#04x}")
            }
            Self::Short => f.write_str("a PROXY header that is shorter than its parts"),
        }
    }
}

/// Parses the header of either version at the start of `bytes`; `None` if bytes are missing.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
    let begins = |start: &[u8]| start.iter().zip(bytes).all(|(wanted, byte)| wanted == byte);
    if begins(LINE) {
        parse_line(bytes)
    } else if begins(&SIGNATURE) {
        parse_binary(bytes)
    } else {
        Err(BadHeader::NoHeader)
    }
}

fn parse_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
    let bytes = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() {
            LONGEST_LINE => Err(BadHeader::Line),
            _ => Ok(None),
        };
    };
    let line = bytes
        .get(LINE.len()..end)
        .and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.ok_or(BadHeader::Line)?.split(' ');
    let origin = match words.next() {
        // What follows must be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses_of::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(addresses_of::<Ipv6Addr>(words)?),
        _ => return Err(BadHeader::Line),
    };
    Ok(Some(ProxyHeader {
        length: end + 1,
        origin: origin.map(|(source, destination)| of_tcp(source, destination)),
    }))
}

/// Reads two addresses and two ports, and nothing else.
fn addresses_of<'a, A: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<(SocketAddr, SocketAddr), BadHeader> {
    let mut read = || {
        let mut ip = || words.next()?.parse::<A>().ok();
        let (source, destination) = (ip()?, ip()?);
        let mut port = || {
            let word = words.next()?;
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            word.parse().ok().filter(|_| is_number)
        };
        let (from, to): (u16, u16) = (port()?, port()?);
        let source = SocketAddr::new(source.into(), from);
        let destination = SocketAddr::new(destination.into(), to);
        words.next().is_none().then_some((source, destination))
    };
    read().ok_or(BadHeader::Line)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
    let (Some(command), Some(family), Some(length)) =
        (bytes.get(12), bytes.get(13), u16_at(bytes, 14))
    else {
        return Ok(None);
    };
    if !matches!(*command, LOCAL | PROXY) {
        return Err(BadHeader::Command(*command));
    }
    let length = FIXED + usize::from(length);
    if length > MAX_HEADER {
        return Err(BadHeader::TooLong);
    }
    let Some(rest) = bytes.get(FIXED..length) else {
        return Ok(None);
    };
    let mut origin = None;
    if *command == PROXY {
        origin = match *family {
            TCP_OVER_IPV4 => Some(binary_addresses::<4>(rest)?),
            TCP_OVER_IPV6 => Some(binary_addresses::<16>(rest)?),
            // Other families cannot be visitors of a TCP listener.
            _ => None,
        };
    }
    let origin = match origin {
        Some((source, destination, values)) => {
            let mut origin = of_tcp(source, destination);
            read_values(values, &mut origin)?;
            Some(origin)
        }
        None => None,
    };
    Ok(Some(ProxyHeader { length, origin }))
}

/// Splits source and destination off.
fn binary_addresses<const N: usize>(
    bytes: &[u8],
) -> Result<(SocketAddr, SocketAddr, &[u8]), BadHeader>
where
    IpAddr: From<[u8; N]>,
{
    let split = || {
        let (source, rest) = bytes.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (from, rest) = rest.split_first_chunk::<2>()?;
        let (to, rest) = rest.split_first_chunk::<2>()?;
        let address = |ip: &[u8; N], port: &[u8; 2]| {
            SocketAddr::new(IpAddr::from(*ip).to_canonical(), u16::from_be_bytes(*port))
        };
        Some((address(source, from), address(destination, to), rest))
    };
    split().ok_or(BadHeader::Short)
}

/// Reads what an origin has of the values behind the addresses.
fn read_values(mut bytes: &[u8], origin: &mut VisitorOrigin) -> Result<(), BadHeader> {
    while let Some((kind, rest)) = bytes.split_first() {
        let length = usize::from(u16_at(rest, 0).ok_or(BadHeader::Short)?);
        let value = rest.get(2..2 + length).ok_or(BadHeader::Short)?;
        bytes = rest.get(2 + length..).unwrap_or_default();
        match *kind {
            AUTHORITY => {
                let name = std::str::from_utf8(value).ok();
                origin.server_name = name.filter(|name| is_host_name(name)).map(Into::into);
            }
            SSL => origin.is_decrypted = value.first().is_some_and(|bits| bits & CLIENT_SSL != 0),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a text is a host name, so that it may be passed on.
fn is_host_name(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (1..=255).contains(&name.len()) && name.bytes().all(is_valid)
}

fn of_tcp(source: SocketAddr, destination: SocketAddr) -> VisitorOrigin {
    VisitorOrigin {
        transport: Transport::Tcp,
        source,
        destination,
        is_decrypted: false,
        is_told: false,
        server_name: None,
        subject: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ProxyVersion;
    use super::*;
    use proptest::prelude::*;

    fn origin(source: &str, destination: &str) -> VisitorOrigin {
        of_tcp(source.parse().unwrap(), destination.parse().unwrap())
    }

    fn parsed(bytes: &[u8]) -> Result<Option<VisitorOrigin>, BadHeader> {
        let header = parse(bytes)?.expect("a whole header");
        assert_eq!(header.length, bytes.len());
        Ok(header.origin)
    }

    /// Returns a header of version 2.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_are_parsed_as_they_are_encoded() {
        let mut visitor = origin("192.0.2.7:50000", "198.51.100.1:443");
        for version in [ProxyVersion::One, ProxyVersion::Two] {
            let header = version.encode(Some(&visitor));
            assert_eq!(parsed(&header), Ok(Some(visitor.clone())));
            assert_eq!(parsed(&version.encode(None)), Ok(None));
        }
        visitor.is_decrypted = true;
        visitor.server_name = Some("a.example".into());
        assert_eq!(
            parsed(&ProxyVersion::Two.encode(Some(&visitor))),
            Ok(Some(visitor))
        );
    }

    #[test]
    fn bytes_behind_the_header_are_not_its_own_and_a_part_is_not_enough() {
        let visitor = origin("[2001:db8::7]:50000", "[2001:db8::1]:443");
        for version in [ProxyVersion::One, ProxyVersion::Two] {
            let header = version.encode(Some(&visitor));
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "{cut}");
            }
            let longer = [&header[..], b"PROXY TCP4 \r\n"].concat();
            assert_eq!(parse(&longer).unwrap().unwrap().length, header.len());
        }
    }

    #[test]
    fn the_front_s_own_connections_and_other_families_have_no_origin() {
        let addresses = [1; 12];
        for header in [
            binary(LOCAL, TCP_OVER_IPV4, &addresses),
            binary(LOCAL, 0, b""),
            binary(PROXY, 0, b"anything"),
            binary(PROXY, 0x31, &[b'/'; 216]),
            b"PROXY UNKNOWN ffff::1 anything 1 2\r\n".to_vec(),
        ] {
            assert_eq!(parsed(&header), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let addresses = [1; 12];
        for (header, wanted) in [
            (&b"GET / HTTP/1.1\r\n"[..], BadHeader::NoHeader),
            (b"PROXX", BadHeader::NoHeader),
            (b"\r\n\r\nx", BadHeader::NoHeader),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", BadHeader::Line),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", BadHeader::Line),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", BadHeader::Line),
            (b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", BadHeader::Line),
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
                BadHeader::Line,
            ),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", BadHeader::Line),
            (b"PROXY TCP4 ::1 ::2 1 2\r\n", BadHeader::Line),
            (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", BadHeader::Line),
            (b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", BadHeader::Line),
            (b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", BadHeader::Line),
            (
                b"PROXY TCP4 192.0.2.\xFF 192.0.2.2 1 2\r\n",
                BadHeader::Line,
            ),
            (b"PROXY \r\n", BadHeader::Line),
            (
                &[&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat(),
                BadHeader::Line,
            ),
            (&binary(0x22, 0, b""), BadHeader::Command(0x22)),
            (&binary(0x11, 0, b""), BadHeader::Command(0x11)),
            (&binary(PROXY, 0, &[0; 521]), BadHeader::TooLong),
            (
                &binary(PROXY, TCP_OVER_IPV4, &addresses[1..]),
                BadHeader::Short,
            ),
            (&binary(PROXY, TCP_OVER_IPV6, &[1; 35]), BadHeader::Short),
            (
                &binary(
                    PROXY,
                    TCP_OVER_IPV4,
                    &[&addresses[..], &[2, 0, 5, b'x']].concat(),
                ),
                BadHeader::Short,
            ),
        ] {
            assert_eq!(parse(header), Err(wanted), "{}", header.escape_ascii());
        }
    }

    #[test]
    fn a_server_name_that_is_none_is_left_out() {
        let values = [&[1; 12][..], &[2, 0, 4], b"a\r\nb"].concat();
        let visitor = parsed(&binary(PROXY, TCP_OVER_IPV4, &values))
            .unwrap()
            .unwrap();
        assert_eq!(visitor.server_name, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic_and_more_do_not_change_a_result(
            start in prop_oneof![
                Just(&b""[..]), Just(LINE), Just(&b"PROXY TCP4 "[..]), Just(&SIGNATURE[..]),
                Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20"[..]),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..300,
        ) {
            let bytes = [start, &rest].concat();
            let part = parse(&bytes[..cut.min(bytes.len())]);
            if !matches!(part, Ok(None)) {
                prop_assert_eq!(parse(&bytes), part);
            }
        }
    }
}
