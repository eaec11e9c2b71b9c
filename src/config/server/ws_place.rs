//! Where the server takes tunnels in WebSockets (`wsPath`). Not the tunnels, see `server::upgrade`.

use std::fmt;
use std::net::Ipv6Addr;

use crate::config::address::is_path;
use crate::config::value::Scalar;

/// The path of requests for tunnels in WebSockets, on all hosts or on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsPlace {
    /// The only host, without a port, in lower case, and an IPv6 address in brackets; `None` for all of them.
    pub host: Option<String>,
    /// The path, which begins with a slash.
    pub path: String,
}

impl fmt::Display for WsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.host.as_deref().unwrap_or_default(),
            self.path
        )
    }
}

impl Scalar for WsPlace {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a path for WebSockets: write it like /gt or gt.example.com/gt."
            )
        };
        let (host, path) = text.split_at(text.find('/').ok_or_else(wrong)?);
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let address = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = match address {
            Some(address) => {
                let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
                format!("[{address}]")
            }
            None if host.bytes().all(usual) => host.to_ascii_lowercase(),
            None => return Err(wrong()),
        };
        if !is_path(path) {
            return Err(wrong());
        }
        Ok(Self {
            host: Some(host).filter(|host| !host.is_empty()),
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_of_all_hosts_or_of_one() {
        for (text, host, path) in [
            ("/gt", None, "/gt"),
            ("/", None, "/"),
            ("GT.example.com/a/b", Some("gt.example.com"), "/a/b"),
            ("[2001:DB8::0:7]/gt", Some("[2001:db8::7]"), "/gt"),
        ] {
            let place = WsPlace::read(text).unwrap();
            assert_eq!((place.host.as_deref(), place.path.as_str()), (host, path));
        }
        for text in [
            "gt",
            "/a b",
            "/a?b",
            "/a#b",
            "h:80/gt",
            "https://h/gt",
            "::1/gt",
            "[::1]:80/gt",
            "[127.0.0.1]/gt",
            "/\u{e4}",
        ] {
            let error = WsPlace::read(text).unwrap_err();
            assert!(
                error.ends_with("write it like /gt or gt.example.com/gt."),
                "{error}"
            );
        }
    }
}
