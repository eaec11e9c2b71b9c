//! Where a visitor of a proxy wants to go, as it has written it. Not whether it may.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Maximum length of a host name in bytes (RFC 1035, section 2.3.4), without the dot at its end.
const MAX_NAME: usize = 253;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: DestinationHost,
    /// Never 0.
    pub(crate) port: u16,
}

/// The host of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DestinationHost {
    Address(IpAddr),
    /// A name in lower case, without a dot at its end. The resolver may take it for an address.
    Name(String),
}

impl Destination {
    /// Parses `host:port`, with an IPv6 address in brackets. `default` is the port if there is none.
    pub(crate) fn parse(text: &[u8], default: Option<u16>) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']')?;
                let ip: Ipv6Addr = host.parse().ok()?;
                let port = match behind {
                    "" => None,
                    behind => Some(behind.strip_prefix(':')?),
                };
                (DestinationHost::Address(ip.into()), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                (DestinationHost::parse(host.as_bytes())?, port)
            }
        };
        let port = match port {
            // `http://host:/` is allowed (RFC 3986, section 3.2.3).
            None | Some("") => default?,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
            Some(_) => return None,
        };
        (port != 0).then_some(Self { host, port })
    }
}

impl DestinationHost {
    /// Parses an IP address without brackets, or a name.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let name = text.strip_suffix('.').unwrap_or(text);
        if let Ok(ip) = name.parse() {
            return Some(Self::Address(ip));
        }
        let is_usual = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_usual);
        let is_name = name.len() <= MAX_NAME && name.split('.').all(is_label);
        is_name.then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            DestinationHost::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            DestinationHost::Address(ip) => write!(f, "{ip}:{}", self.port),
            DestinationHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<String> {
        Destination::parse(text.as_bytes(), Some(80)).map(|it| it.to_string())
    }

    #[test]
    fn a_destination_is_a_host_and_a_port() {
        for (text, shown) in [
            ("nas.lan:22", "nas.lan:22"),
            ("NAS.Lan.:22", "nas.lan:22"),
            ("nas", "nas:80"),
            ("nas:", "nas:80"),
            ("1.2.3.4.:1", "1.2.3.4:1"),
            ("a_b-c.1:65535", "a_b-c.1:65535"),
            ("192.168.1.1:00080", "192.168.1.1:80"),
            ("[::1]:443", "[::1]:443"),
            ("[FD00::1]", "[fd00::1]:80"),
            ("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]:1"),
            // The resolver takes it for an address, which is checked then.
            ("0177.0.0.1:80", "0177.0.0.1:80"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(shown), "{text}");
        }
        for text in [
            "",
            ":80",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]80",
            "[1.2.3.4]:1",
            "[nas]:1",
            "[fe80::1%eth0]:1",
            "fe80::1%eth0",
            "a..b",
            ".a",
            "a b",
            "a@b",
            "a/b",
            "a%41",
            "\u{fc}",
            "[::1]:a",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(Destination::parse(b"nas", None), None);
        let long = ["a"; 127].join(".");
        assert!(parsed(&long).is_some());
        assert_eq!(parsed(&format!("{long}a.a")), None);
    }

    proptest! {
        #[test]
        fn a_destination_can_be_read_as_it_is_shown(text in "[a-z0-9.:\\[\\]-]{0,30}") {
            if let Some(read) = Destination::parse(text.as_bytes(), Some(80)) {
                let again = Destination::parse(read.to_string().as_bytes(), None);
                prop_assert_eq!(again, Some(read));
            }
        }
    }
}
