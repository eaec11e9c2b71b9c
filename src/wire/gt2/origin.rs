//! The origin of a visitor: the first bytes of each stream of a tunnel whose ends have both announced
//! the capability (docs/wire.md, "Origins").

use crate::wire::{u16_at, Malformed};
use smallvec::SmallVec;
#[cfg(feature = "server")]
use std::net::Ipv4Addr;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Maximum length in bytes of an origin after its length field.
pub const MAX_ORIGIN: u16 = 512;
/// Length in bytes of the length field.
pub const LENGTH: usize = 2;
/// Maximum length in bytes of a server name (RFC 1035, section 2.3.4, and RFC 6066, section 3).
const MAX_SERVER_NAME: usize = 255;
/// Maximum length in bytes of a certificate's subject.
pub const MAX_SUBJECT: usize = 200;

/// Bit of the flags: the server has decrypted the visitor's TLS.
const DECRYPTED: u8 = 0x01;
/// Bit of the flags: the addresses are of IPv6.
const IPV6: u8 = 0x02;
/// Bit of the flags: a proxy has told the visitor's address.
const TOLD: u8 = 0x04;
/// The transport in the flags, and its values.
const TRANSPORT: u8 = 0xF0;
const TCP: u8 = 0x10;
const UDP: u8 = 0x20;

/// The protocol in which a visitor reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, also below TLS.
    Tcp,
    /// UDP.
    Udp,
    /// One of a later version.
    Other,
}

/// Where a visitor comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitorOrigin {
    /// How the visitor reaches the server.
    pub transport: Transport,
    /// The visitor's address.
    pub source: SocketAddr,
    /// The server's address that the visitor has connected to.
    pub destination: SocketAddr,
    /// Whether the server has decrypted the visitor's TLS.
    pub is_decrypted: bool,
    /// Whether the visitor's address is what a proxy that the server trusts has told in the HTTP
    /// request, so that other such words of the proxy hold as well.
    pub is_told: bool,
    /// The server name of the visitor's TLS, if it has sent one.
    pub server_name: Option<Box<str>>,
    /// The subject of the visitor's certificate, which the server has verified, if there is one.
    pub subject: Option<Box<str>>,
}

impl VisitorOrigin {
    /// Creates the origin of a visitor that has reached the server itself, without the server name and the subject of
    /// its TLS. The server's address is unspecified if it is not known; `port` is its port.
    #[cfg(feature = "server")]
    pub fn direct(
        transport: Transport,
        source: SocketAddr,
        destination: Option<IpAddr>,
        port: u16,
    ) -> Self {
        let unknown: IpAddr = match source {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self {
            transport,
            source,
            destination: SocketAddr::new(destination.unwrap_or(unknown), port),
            is_decrypted: false,
            is_told: false,
            server_name: None,
            subject: None,
        }
    }

    /// Returns the visitor's address; `None` if it is unspecified, since nobody knows it.
    pub fn visitor(&self) -> Option<IpAddr> {
        let addr = self.source.ip().to_canonical();
        Some(addr).filter(|addr| !addr.is_unspecified())
    }

    /// Returns the visitor's address and port; `None` if nobody knows them.
    pub fn known_source(&self) -> Option<SocketAddr> {
        self.visitor().map(|_| self.source)
    }

    /// Encodes the origin with its length field.
    pub fn encode(&self) -> SmallVec<[u8; 64]> {
        let (source, destination) = (unmapped(self.source), unmapped(self.destination));
        let is_ipv6 = source.is_ipv6() || destination.is_ipv6();
        let mut flags = match self.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
            Transport::Other => 0,
        };
        if self.is_decrypted {
            flags |= DECRYPTED;
        }
        if self.is_told {
            flags |= TOLD;
        }
        if is_ipv6 {
            flags |= IPV6;
        }
        let mut out = SmallVec::<[u8; 64]>::from_slice(&[flags]);
        for address in [source, destination] {
            match (address.ip(), is_ipv6) {
                (IpAddr::V4(ip), false) => out.extend_from_slice(&ip.octets()),
                (IpAddr::V4(ip), true) => out.extend_from_slice(&ip.to_ipv6_mapped().octets()),
                (IpAddr::V6(ip), _) => out.extend_from_slice(&ip.octets()),
            }
            out.extend_from_slice(&address.port().to_be_bytes());
        }
        let name = self.server_name.as_deref().unwrap_or_default().as_bytes();
        let name = name.get(..MAX_SERVER_NAME).unwrap_or(name);
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name);
        if let Some(subject) = &self.subject {
            let subject = subject.as_bytes();
            // A part of it may be that of another.
            let subject = if subject.len() > MAX_SUBJECT {
                &[]
            } else {
                subject
            };
            out.push(u8::try_from(subject.len()).unwrap_or_default());
            out.extend_from_slice(subject);
        }
        // At most 1 + 2 * 18 + 256 + 201.
        let length = out.len() as u16;
        out.insert_from_slice(0, &length.to_be_bytes());
        out
    }

    /// Returns the length of the origin at the start of `bytes`, its length field included; `None` if
    /// that field is not complete.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        match u16_at(bytes, 0) {
            Some(len @ 1..=MAX_ORIGIN) => Ok(Some(LENGTH + usize::from(len))),
            Some(len) => Err(Malformed::OriginLength(len)),
            None => Ok(None),
        }
    }

    /// Parses a whole origin after its length field. Ignores what later versions append.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = || Malformed::OriginLength(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        let (flags, mut rest) = bytes.split_first().ok_or_else(short)?;
        let mut address = || {
            let ip = if flags & IPV6 == 0 {
                let (ip, after) = rest.split_first_chunk::<4>()?;
                rest = after;
                IpAddr::from(*ip)
            } else {
                let (ip, after) = rest.split_first_chunk::<16>()?;
                rest = after;
                Ipv6Addr::from(*ip).to_canonical()
            };
            let (port, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
        };
        let source = address().ok_or_else(short)?;
        let destination = address().ok_or_else(short)?;
        let (length, rest) = rest.split_first().ok_or_else(short)?;
        let (name, rest) = rest
            .split_at_checked(usize::from(*length))
            .ok_or_else(short)?;
        let subject = match rest.split_first() {
            None => &[],
            Some((length, rest)) => rest.get(..usize::from(*length)).ok_or_else(short)?,
        };
        let subject = std::str::from_utf8(subject).map_err(|_| Malformed::NotText)?;
        let name = std::str::from_utf8(name).map_err(|_| Malformed::NotText)?;
        Ok(Self {
            transport: match flags & TRANSPORT {
                TCP => Transport::Tcp,
                UDP => Transport::Udp,
                _ => Transport::Other,
            },
            source,
            destination,
            is_decrypted: flags & DECRYPTED != 0,
            is_told: flags & TOLD != 0,
            server_name: (!name.is_empty()).then(|| name.into()),
            subject: (!subject.is_empty()).then(|| subject.into()),
        })
    }
}

/// Returns the IPv4 address instead of its form in IPv6.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn parsed(bytes: &[u8]) -> Result<VisitorOrigin, Malformed> {
        assert_eq!(VisitorOrigin::length(bytes), Ok(Some(bytes.len())));
        VisitorOrigin::parse(&bytes[LENGTH..])
    }

    #[test]
    fn ipv4_in_ipv6_is_sent_as_ipv4_unless_the_other_address_is_of_ipv6() {
        let mapped = origin("[::ffff:192.0.2.1]:5", "[::ffff:198.51.100.2]:443");
        let bytes = mapped.encode();
        assert_eq!(bytes[2], TCP);
        assert_eq!(
            parsed(&bytes).unwrap(),
            origin("192.0.2.1:5", "198.51.100.2:443")
        );
        let mixed = origin("192.0.2.1:5", "[2001:db8::1]:443");
        assert_eq!(parsed(&mixed.encode()).unwrap(), mixed);
    }

    #[test]
    fn a_cut_origin_is_an_error_and_a_longer_one_is_not() {
        let mut whole = origin("[2001:db8::2]:1", "[2001:db8::1]:443");
        whole.is_decrypted = true;
        whole.server_name = Some("a.example".into());
        let bytes = whole.encode();
        for cut in LENGTH..bytes.len() {
            assert!(VisitorOrigin::parse(&bytes[LENGTH..cut]).is_err(), "{cut}");
        }
        whole.subject = Some("CN=alice".into());
        let bytes = whole.encode();
        let later = [&bytes[LENGTH..], b"appended by a later version"].concat();
        assert_eq!(VisitorOrigin::parse(&later), Ok(whole.clone()));
        assert!(VisitorOrigin::parse(&bytes[LENGTH..bytes.len() - 1]).is_err());
        whole.subject = Some("x".repeat(MAX_SUBJECT + 1).into());
        let parsed = parsed(&whole.encode()).unwrap();
        assert_eq!(parsed.subject, None, "a part of it would be another");
    }

    #[test]
    fn an_origin_is_longer_than_nothing_and_at_most_512_bytes_long() {
        for (length, wanted) in [
            (&[][..], Ok(None)),
            (&[2], Ok(None)),
            (&[0, 0], Err(Malformed::OriginLength(0))),
            (&[0, 1], Ok(Some(3))),
            (&[2, 0], Ok(Some(514))),
            (&[2, 1], Err(Malformed::OriginLength(513))),
        ] {
            assert_eq!(VisitorOrigin::length(length), wanted, "{length:?}");
        }
    }

    proptest! {
        #[test]
        fn an_origin_survives_encoding(
            source: (IpAddr, u16),
            destination: (IpAddr, u16),
            is_decrypted: bool,
            is_told: bool,
            server_name in proptest::option::of("[a-z0-9.]{1,255}"),
            subject in proptest::option::of("[a-zA-Z0-9=,]{1,200}"),
            transport in prop_oneof![Just(Transport::Tcp), Just(Transport::Udp), Just(Transport::Other)],
        ) {
            let origin = VisitorOrigin {
                transport,
                source: unmapped(source.into()),
                destination: unmapped(destination.into()),
                is_decrypted,
                is_told,
                server_name: server_name.map(Into::into),
                subject: subject.map(Into::into),
            };
            prop_assert_eq!(parsed(&origin.encode()), Ok(origin));
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = (VisitorOrigin::length(&bytes), VisitorOrigin::parse(&bytes));
        }
    }
}
