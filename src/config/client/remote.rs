//! The address of a server: `tcp://host:port` or `tls://host:port`. Not the connection to it.

use std::fmt;
use std::str::FromStr;

use crate::config::address::{host_port, write_host_port};
use crate::config::secret::redact;
use crate::config::value::Scalar;

/// What carries the bytes of a tunnel to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP alone.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Tcp, Self::Tls];

    /// Returns the scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether it encrypts, and proves who the server is.
    pub fn is_secure(self) -> bool {
        match self {
            Self::Tcp => false,
            Self::Tls => true,
        }
    }

    /// Whether it can go through a proxy.
    pub fn can_use_proxies(self) -> bool {
        match self {
            Self::Tcp | Self::Tls => true,
        }
    }

    /// Returns the port of an address that has none.
    fn default_port(self) -> u16 {
        match self {
            Self::Tcp => 80,
            Self::Tls => 443,
        }
    }
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// What carries the bytes of its tunnels.
    pub transport: Transport,
    /// Host name, or IP address without brackets.
    pub host: String,
    /// Port; never 0.
    pub port: u16,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.transport.scheme())?;
        write_host_port(f, &self.host, self.port)
    }
}

impl FromStr for Remote {
    type Err = String;

    /// Parses an address. The error is a sentence that shows how to write one.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text)
    }
}

impl Scalar for Remote {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = redact(text);
            format!(
                "\"{text}\" is not a server's address: write it like tcp://example.com:80 \
                 or tls://example.com:443."
            )
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let is_named = |transport: &Transport| transport.scheme().eq_ignore_ascii_case(scheme);
        let transport = Transport::ALL
            .into_iter()
            .find(is_named)
            .ok_or_else(wrong)?;
        let (host, given) = host_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wrong)?;
        match given.unwrap_or(transport.default_port()) {
            0 => Err(wrong()),
            port => Ok(Remote {
                transport,
                host,
                port,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_remote_is_read() {
        for (text, shown) in [
            ("tcp://id1.example.com:8080", "tcp://id1.example.com:8080"),
            ("tls://id1.example.com", "tls://id1.example.com:443"),
            ("TLS://id1.example.com/", "tls://id1.example.com:443"),
            ("id1.example.com:7001", "tcp://id1.example.com:7001"),
            ("id1.example.com", "tcp://id1.example.com:80"),
            ("tcp://[::1]:7001", "tcp://[::1]:7001"),
            ("[::1]", "tcp://[::1]:80"),
        ] {
            assert_eq!(Remote::read(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn an_error_shows_how_to_write_a_remote() {
        assert_eq!(
            Remote::read("http://h").unwrap_err(),
            "\"http://h\" is not a server's address: write it like tcp://example.com:80 or tls://example.com:443."
        );
        for text in [
            "tcp://",
            "tcp://h/path",
            "tcp://h:0",
            "tcp://h:99999",
            "tcp://u@h",
            "::1",
            "tcp://h:",
            "tcp://h?x",
        ] {
            assert!(Remote::read(text).is_err(), "{text}");
        }
    }
}
