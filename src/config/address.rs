//! Addresses as users write them: listening addresses, and `host:port`. Not their resolution.

use std::fmt;
use std::net::Ipv6Addr;

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
