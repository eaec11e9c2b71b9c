//! Addresses as users write them: listening addresses, and `host:port`. Not their resolution.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::value::{digits, Scalar};

/// The first port that does not need privileges.
pub const FIRST_FREE_PORT: u16 = 1024;

/// An address to listen on: `80`, `:80`, `0.0.0.0:80`, `[::1]:80` or `host:80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// Host name, or IP address without brackets; `None` for all addresses of the machine.
    pub host: Option<String>,
    /// Port; 0 lets the system choose one.
    pub port: u16,
}

impl ListenAddr {
    /// Whether listening there needs privileges.
    pub fn is_low(&self) -> bool {
        (1..FIRST_FREE_PORT).contains(&self.port)
    }
}

/// The addresses of this machine that a listener is open at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenScope<'a> {
    /// All of them.
    All,
    /// All of IPv4.
    AllV4,
    /// One of them.
    One(IpAddr),
    /// Those of a name.
    Named(&'a str),
}

impl ListenAddr {
    /// Returns the addresses of this machine that the listener is open at.
    pub fn scope(&self) -> ListenScope<'_> {
        let Some(host) = self.host.as_deref() else {
            return ListenScope::All;
        };
        match host.parse::<IpAddr>() {
            // Listeners for IPv6 take IPv4, too.
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => ListenScope::All,
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => ListenScope::AllV4,
            Ok(ip) => ListenScope::One(ip),
            Err(_) => ListenScope::Named(host),
        }
    }

    /// Whether another listener of the same protocol excludes this one, as far as that shows without looking names up.
    pub fn meets(&self, other: &ListenAddr) -> bool {
        use ListenScope::{All, AllV4, Named, One};
        let has_meeting_scopes = match (self.scope(), other.scope()) {
            (All, _) | (_, All) | (AllV4, AllV4) => true,
            (AllV4, One(ip)) | (One(ip), AllV4) => ip.is_ipv4(),
            (One(one), One(other)) => one == other,
            (Named(one), Named(other)) => one.eq_ignore_ascii_case(other),
            (Named(_), AllV4 | One(_)) | (AllV4 | One(_), Named(_)) => false,
        };
        self.port == other.port && self.port != 0 && has_meeting_scopes
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write_host_port(f, host, self.port),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl Scalar for ListenAddr {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not an address to listen on: write it like 80, :80, \
                 0.0.0.0:80 or [::1]:80."
            )
        };
        if let Some(port) = read_port(text) {
            return Ok(ListenAddr { host: None, port });
        }
        if let Some(port) = text.strip_prefix(':').and_then(read_port) {
            return Ok(ListenAddr { host: None, port });
        }
        let (host, port) = host_port(text).ok_or_else(wrong)?;
        let port = port.ok_or_else(wrong)?;
        Ok(ListenAddr {
            host: Some(host),
            port,
        })
    }
}

/// The name of a host as in a URL (RFC 3986, section 3.2.2), without a port.
#[derive(Clone, Debug, PartialEq)]
pub struct HostName(pub String);

impl Scalar for HostName {
    fn read(text: &str) -> Result<Self, String> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.bytes().all(usual) {
            Ok(HostName(text.strip_suffix('.').unwrap_or(text).to_owned()))
        } else {
            Err(format!(
                "\"{text}\" is not the name of a host: write it like gt.example.com, without a \
                 scheme or a port."
            ))
        }
    }
}

/// Writes `host:port`, with an IPv6 address in brackets.
pub fn write_host_port(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

/// Splits `host`, `host:port`, `[ipv6]` or `[ipv6]:port`. Returns `None` for anything else.
pub fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let (address, zone) = host.split_once('%').unwrap_or((host, "lo"));
            address.parse::<Ipv6Addr>().ok()?;
            if !is_host(zone) {
                return None;
            }
            (
                host,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':')?)
                },
            )
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if !is_host(host) {
                return None;
            }
            (host, port)
        }
    };
    let port = match port {
        Some(port) => Some(read_port(port)?),
        None => None,
    };
    Some((host.to_owned(), port))
}

/// Whether a text is a path as it stands in a URL (RFC 3986, section 3.3), without a query.
pub fn is_path(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    text.starts_with('/') && text.bytes().all(usual)
}

/// Whether a text has only characters of host names and IPv4 addresses. Letters outside ASCII are
/// left to the resolver.
fn is_host(text: &str) -> bool {
    let usual = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || "-._".contains(c),
        false => !is_punctuation(c),
    };
    !text.is_empty() && text.chars().all(usual)
}

/// Whether a character outside ASCII is punctuation, a space or a symbol. Compares it with the
/// Unicode blocks that have little else: the standard library's tables of letters would add 3 KB to
/// the program.
fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '\u{80}'..='\u{a9}'
            | '\u{ab}'..='\u{b4}'
            | '\u{b6}'..='\u{b9}'
            | '\u{bb}'..='\u{bf}'
            | '×'
            | '÷'
            | '\u{2000}'..='\u{206f}'
            | '\u{20a0}'..='\u{20cf}'
            | '\u{2190}'..='\u{2bff}'
            | '\u{3000}'..='\u{3004}'
            | '\u{3008}'..='\u{3020}'
            | '\u{fe10}'..='\u{fe6f}'
            | '\u{feff}'..='\u{ff0f}'
            | '\u{ff1a}'..='\u{ff20}'
            | '\u{ff3b}'..='\u{ff40}'
            | '\u{ff5b}'..='\u{ff65}'
            | '\u{fff0}'..='\u{ffff}'
    )
}

fn read_port(text: &str) -> Option<u16> {
    u16::try_from(digits(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_listen_address_is_read() {
        for (text, host, port, shown) in [
            ("80", None, 80, ":80"),
            (":80", None, 80, ":80"),
            ("0.0.0.0:80", Some("0.0.0.0"), 80, "0.0.0.0:80"),
            ("[::1]:80", Some("::1"), 80, "[::1]:80"),
            (
                "[fe80::1%eth0]:80",
                Some("fe80::1%eth0"),
                80,
                "[fe80::1%eth0]:80",
            ),
            ("host:80", Some("host"), 80, "host:80"),
            ("0", None, 0, ":0"),
        ] {
            let address = ListenAddr::read(text).unwrap();
            assert_eq!(
                (address.host.as_deref(), address.port),
                (host, port),
                "{text}"
            );
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn listeners_with_an_address_in_common_exclude_each_other() {
        let meet = |one: &str, other: &str| {
            let (one, other) = (ListenAddr::read(one), ListenAddr::read(other));
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(one.meets(&other), other.meets(&one));
            one.meets(&other)
        };
        for (one, other) in [
            (":80", "[::]:80"),
            (":80", "0.0.0.0:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::1]:80", "[0::1]:80"),
            ("h:80", "H:80"),
            (":80", "h:80"),
        ] {
            assert!(meet(one, other), "{one} {other}");
        }
        for (one, other) in [
            (":80", ":81"),
            (":0", ":0"),
            ("0.0.0.0:80", "[::1]:80"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("h:80", "i:80"),
        ] {
            assert!(!meet(one, other), "{one} {other}");
        }
    }

    #[test]
    fn hosts_in_other_scripts_are_letters_and_no_punctuation() {
        for text in [
            "müller.example",
            "ÅÉ",
            "почта",
            "例え.テスト",
            "한국",
            "ªµº",
        ] {
            assert!(is_host(text), "{text}");
        }
        for c in "\u{a0}¡«·»×–“”…€→★\u{3000}、。「」：（）｡\u{feff}\u{fffd}".chars()
        {
            assert!(!c.is_alphanumeric() && !is_host(&format!("a{c}b")), "{c:?}");
        }
    }

    #[test]
    fn an_error_shows_how_to_write_a_listen_address() {
        assert_eq!(
            ListenAddr::read("localhost").unwrap_err(),
            "\"localhost\" is not an address to listen on: write it like 80, :80, 0.0.0.0:80 or [::1]:80."
        );
        for text in [
            "65536",
            ":",
            "::1:80",
            "[::1]",
            "[::1]80",
            "a b:80",
            "h:",
            "h:x",
            "http://h:80",
            "[h]:80",
            "-1",
            "h:+1",
        ] {
            assert!(ListenAddr::read(text).is_err(), "{text}");
        }
    }
}
