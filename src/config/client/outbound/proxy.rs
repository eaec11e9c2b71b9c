//! The proxy through which servers are reached: `http://user:password@host:port` or
//! `socks5://user:password@host:port`. Not the connections through it, see `net::outbound`.

use crate::config::address::host_port;
use crate::config::secret::redact;
use crate::config::value::Scalar;
use crate::net::http::percent;
use crate::net::{ProxyLogin, ProxyProtocol, ProxyServer};

/// Maximum length in bytes of a name and of a password (RFC 1929, section 2).
const MAX_LOGIN: usize = 255;

impl Scalar for ProxyServer {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = redact(text);
            format!(
                "\"{text}\" is not a proxy: write it like http://user:password@proxy.example.com:3128 or \
                 socks5://192.168.1.1:1080, with %40 for an @ in the password."
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyProtocol::Http, 3128),
            "socks5" => (ProxyProtocol::Socks5, 1080),
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Some(login), authority),
            None => (None, rest),
        };
        let (host, port) = host_port(authority).ok_or_else(wrong)?;
        let login = match login {
            Some(login) => Some(read_login(login, protocol).ok_or_else(|| {
                format!(
                    "The login of the proxy {host} cannot be used: name and password have 1 to {MAX_LOGIN} \
                     bytes each, and other characters than letters and digits as in a URL, like %40 for an @; \
                     for http:// the name has no colon and neither of them line ends."
                )
            })?),
            None => None,
        };
        match port.unwrap_or(default_port) {
            0 => Err(wrong()),
            port => Ok(ProxyServer {
                protocol,
                host,
                port,
                login,
            }),
        }
    }
}

fn read_login(text: &str, protocol: ProxyProtocol) -> Option<ProxyLogin> {
    let (user, password) = text.split_once(':')?;
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        percent::decode(text.as_bytes(), &mut bytes)?;
        (1..=MAX_LOGIN).contains(&bytes.len()).then_some(bytes)
    };
    let (user, password) = (decode(user)?, decode(password)?);
    // RFC 7617, section 2.
    let is_sound = |bytes: &[u8]| !bytes.iter().any(u8::is_ascii_control);
    let fits = match protocol {
        ProxyProtocol::Http => !user.contains(&b':') && is_sound(&user) && is_sound(&password),
        ProxyProtocol::Socks5 => true,
    };
    fits.then(|| ProxyLogin::new(user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_proxy_is_read_and_its_login_does_not_show() {
        for (text, shown, has_login) in [
            ("http://proxy", "http://proxy:3128", false),
            ("HTTP://u:p@proxy:8080/", "http://proxy:8080", true),
            ("socks5://[::1]", "socks5://[::1]:1080", false),
            ("socks5://u%40h:p%3ap@h:9050", "socks5://h:9050", true),
            ("http://u:p@p@h", "http://h:3128", true),
        ] {
            let proxy = ProxyServer::read(text).unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), shown);
            assert_eq!(proxy.login.is_some(), has_login, "{text}");
        }
    }

    #[test]
    fn a_login_is_decoded() {
        let proxy = ProxyServer::read("socks5://u%40h:p%3ap@h").unwrap();
        assert!(proxy.login == Some(ProxyLogin::new(b"u@h".to_vec(), b"p:p".to_vec())));
    }

    #[test]
    fn an_error_shows_how_to_write_a_proxy_and_no_password() {
        assert_eq!(
            ProxyServer::read("https://user:hush@h").unwrap_err(),
            "\"https://******@h\" is not a proxy: write it like http://user:password@proxy.example.com:3128 \
             or socks5://192.168.1.1:1080, with %40 for an @ in the password."
        );
        for text in [
            "h:3128",
            "http://",
            "http://h:0",
            "http://h/path",
            "http://user@h",
            "http://user:@h",
            "http://:hush@h",
            "http://us%3aer:hush@h",
            "http://user:hush%0d%0a@h",
            "http://user:hush%4@h",
            "socks5://user:hush@h x",
            &format!("socks5://user:hush{}@h", "h".repeat(255)),
        ] {
            let error = ProxyServer::read(text).unwrap_err();
            assert!(!error.contains("hush"), "{text}: {error}");
        }
    }
}
