//! Where the server takes tunnels in WebSockets (`wsPath`). Not the tunnels, see `server::upgrade`.

use std::fmt;

use crate::config::address::is_path;
use crate::config::value::Scalar;

/// The path of requests for tunnels in WebSockets, on all hosts or on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsPlace {
    /// The only host, without a port, in lower case; `None` for all of them.
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
        if !host.bytes().all(usual) || !is_path(path) {
            return Err(wrong());
        }
        Ok(Self {
            host: Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty()),
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
