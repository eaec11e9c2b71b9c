//! The address of a server: `tcp://host:port`, `tls://host:port`, `quic://host:port`,
//! `ws://host:port/path` or `wss://host:port/path`. Not the connection to it.

use std::fmt;
use std::str::FromStr;

use crate::config::address::{host_port, is_path, write_host_port};
use crate::config::secret::redact;
use crate::config::value::Scalar;

/// The path of a WebSocket whose address has none: the default of a server's `wsPath`.
const WS_PATH: &str = "/gt";
/// Why an address of a WebSocket is refused in a build without them.
const NO_WS: &str =
    "This gt was built without WebSockets (the feature ws): install one with them, or \
                     use a tcp:// or tls:// server.";

/// Why an address of QUIC is refused in a build without it.
const NO_QUIC: &str =
    "This gt was built without QUIC (the feature quic): install one with it, or use a \
                       tcp:// or tls:// server.";

/// What carries the bytes of a tunnel to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP alone.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// QUIC, over UDP.
    Quic,
    /// A WebSocket over TCP.
    Ws,
    /// A WebSocket over TLS.
    Wss,
}

impl Transport {
    const ALL: [Self; 5] = [Self::Tcp, Self::Tls, Self::Quic, Self::Ws, Self::Wss];

    /// Returns the scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Quic => "quic",
        }
    }

    /// Whether it encrypts, and proves who the server is.
    pub fn is_secure(self) -> bool {
        match self {
            Self::Tcp | Self::Ws => false,
            Self::Tls | Self::Quic | Self::Wss => true,
        }
    }

    /// Whether tunnels are in WebSockets.
    pub fn is_websocket(self) -> bool {
        match self {
            Self::Tcp | Self::Tls | Self::Quic => false,
            Self::Ws | Self::Wss => true,
        }
    }

    /// Whether a connection of this transport can go through a proxy.
    pub fn can_use_proxies(self) -> bool {
        match self {
            Self::Tcp | Self::Tls | Self::Ws | Self::Wss => true,
            Self::Quic => false,
        }
    }

    /// Returns the port of an address that has none.
    fn default_port(self) -> u16 {
        match self {
            Self::Tcp | Self::Ws => 80,
            Self::Tls | Self::Quic | Self::Wss => 443,
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
    /// Path of the WebSocket; empty for other transports.
    pub path: String,
}

impl Remote {
    /// Returns the host, and the port unless it is the usual one, as a request names them.
    pub fn authority(&self) -> String {
        struct Place<'a>(&'a Remote);
        impl fmt::Display for Place<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let host = &self.0.host;
                // The zone of an address means nothing to others.
                let (host, _) = host.split_once('%').unwrap_or((host, ""));
                write_host_port(f, host, self.0.port)
            }
        }
        let place = Place(self).to_string();
        let usual = format!(":{}", self.transport.default_port());
        place
            .strip_suffix(&usual)
            .map_or(place.clone(), str::to_owned)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.transport.scheme())?;
        write_host_port(f, &self.host, self.port)?;
        f.write_str(&self.path)
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
                "\"{text}\" is not a server's address: write it like tcp://example.com:80, \
                 tls://example.com:443, quic://example.com:443 or wss://example.com/gt."
            )
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let is_named = |transport: &Transport| transport.scheme().eq_ignore_ascii_case(scheme);
        let transport = Transport::ALL
            .into_iter()
            .find(is_named)
            .ok_or_else(wrong)?;
        if transport == Transport::Quic && !cfg!(feature = "quic") {
            return Err(NO_QUIC.to_owned());
        }
        let is_websocket = transport.is_websocket();
        if is_websocket && !cfg!(feature = "ws") {
            return Err(NO_WS.to_owned());
        }
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = match (is_websocket, path) {
            (false, "" | "/") => "",
            (true, "") => WS_PATH,
            (true, path) if is_path(path) => path,
            _ => return Err(wrong()),
        };
        let (host, given) = host_port(place).ok_or_else(wrong)?;
        match given.unwrap_or(transport.default_port()) {
            0 => Err(wrong()),
            port => Ok(Remote {
                transport,
                host,
                port,
                path: path.to_owned(),
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
            #[cfg(feature = "quic")]
            ("quic://id1.example.com", "quic://id1.example.com:443"),
            ("id1.example.com:7001", "tcp://id1.example.com:7001"),
            ("id1.example.com", "tcp://id1.example.com:80"),
            ("tcp://[::1]:7001", "tcp://[::1]:7001"),
            ("[::1]", "tcp://[::1]:80"),
        ] {
            assert_eq!(Remote::read(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[cfg(feature = "ws")]
    #[test]
    fn the_address_of_a_websocket_has_a_path() {
        for (text, shown) in [
            ("wss://id1.example.com", "wss://id1.example.com:443/gt"),
            (
                "ws://id1.example.com:8080/a/b",
                "ws://id1.example.com:8080/a/b",
            ),
            ("WSS://[::1]/", "wss://[::1]:443/"),
        ] {
            assert_eq!(Remote::read(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["ws://", "ws:///gt", "ws://h/a b", "wss://h/a?b", "ws://h#a"] {
            assert!(Remote::read(text).is_err(), "{text}");
        }
    }

    #[cfg(not(feature = "ws"))]
    #[test]
    fn without_websockets_their_addresses_are_refused_with_the_name_of_the_feature() {
        for text in ["ws://h", "wss://h/gt"] {
            let error = Remote::read(text).unwrap_err();
            assert!(error.contains("(the feature ws)"), "{error}");
        }
    }

    #[test]
    fn an_error_shows_how_to_write_a_remote() {
        assert_eq!(
            Remote::read("http://h").unwrap_err(),
            "\"http://h\" is not a server's address: write it like tcp://example.com:80, tls://example.com:443, \
             quic://example.com:443 or wss://example.com/gt."
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
