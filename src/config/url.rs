//! URLs of APIs: `http://host:port/path?query`. Not the requests.

use crate::net::http::percent;
use std::fmt;

use super::address::{host_port, write_host_port};
use super::secret::redact;
use super::value::Scalar;

/// An `http://` or `https://` URL. Prints without its query, which may contain a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Host name, or IP address without brackets.
    pub host: String,
    /// Port; never 0.
    pub port: u16,
    /// Path and query for a request line: visible ASCII that begins with `/`.
    pub target: String,
}

impl Url {
    /// Returns the target with one more parameter in its query.
    pub fn target_with(&self, name: &str, value: &str) -> String {
        let target = &self.target;
        let joint = match target.split_once('?') {
            None => "?",
            Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
            Some(_) => "&",
        };
        let mut whole = format!("{target}{joint}{name}=");
        percent::encode(value.as_bytes(), &mut whole);
        whole
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        write_host_port(f, &self.host, self.port)?;
        match self.target.split_once('?') {
            Some((path, _)) => write!(f, "{path}?******"),
            None => f.write_str(&self.target),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Scalar for Url {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = redact(text);
            format!(
                "\"{text}\" is not a URL that can be asked: write it like \
                 http://example.com/path or https://example.com:8443/path."
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(wrong()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, given) = host_port(authority).ok_or_else(wrong)?;
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        match given.unwrap_or(port) {
            0 => Err(wrong()),
            port => Ok(Url {
                tls,
                host,
                port,
                target: format!("{slash}{target}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_url_is_read_and_its_query_does_not_show() {
        for (text, shown, target) in [
            ("http://h", "http://h:80/", "/"),
            ("HTTPS://h/a/b", "https://h:443/a/b", "/a/b"),
            ("http://h:8080?k=v", "http://h:8080/?******", "/?k=v"),
            ("https://[::1]:1/a?k#f", "https://[::1]:1/a?******", "/a?k"),
        ] {
            let url = Url::read(text).unwrap();
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(url.target, target);
        }
    }

    #[test]
    fn an_error_shows_how_to_write_a_url() {
        let error = Url::read("h:80/a").unwrap_err();
        assert_eq!(
            error,
            "\"h:80/a\" is not a URL that can be asked: write it like http://example.com/path \
             or https://example.com:8443/path."
        );
        for text in [
            "http://",
            "http:///a",
            "ftp://h",
            "http://h:0",
            "http://u@h/",
            "http://h/a b",
            "http://h/a\r\nX: y",
            "http://h/ü",
        ] {
            assert!(Url::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_parameter_joins_the_query_there_is() {
        for (text, target) in [
            ("http://h", "/?id=a%20%26%C3%BC~"),
            ("http://h/p", "/p?id=a%20%26%C3%BC~"),
            ("http://h/p?", "/p?id=a%20%26%C3%BC~"),
            ("http://h/p?k=v", "/p?k=v&id=a%20%26%C3%BC~"),
            ("http://h/p?k=v&", "/p?k=v&id=a%20%26%C3%BC~"),
        ] {
            assert_eq!(Url::read(text).unwrap().target_with("id", "a &ü~"), target);
        }
    }
}
