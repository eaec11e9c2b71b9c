//! HTTP's CONNECT (RFC 9110, section 9.3.6), as a client of a proxy: the request, and the head of the
//! answer.

use super::answer::ProxyAnswer;
use super::literal;
use base64::prelude::{Engine, BASE64_STANDARD};
use std::net::IpAddr;

/// Maximum length in bytes of the head of an answer.
pub const MAX_HEAD: usize = 8 * 1024;
/// Maximum number of header fields.
const MAX_FIELDS: usize = 100;

/// Returns the request for a connection to `host`. `login` is a name, a colon and a password.
pub fn request(host: &str, port: u16, login: Option<&[u8]>) -> Vec<u8> {
    let host = match literal(host) {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    };
    let mut head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(login) = login {
        head.push_str("Proxy-Authorization: Basic ");
        head.push_str(&BASE64_STANDARD.encode(login));
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Parses the head of an answer; the result is its status. Interim answers (status 1xx) count as answers.
pub fn parse(bytes: &[u8]) -> ProxyAnswer<u16> {
    const NO_HTTP: ProxyAnswer<u16> = ProxyAnswer::Wrong("it does not speak HTTP");
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > MAX_HEAD => {
            ProxyAnswer::Wrong("its answer is too long")
        }
        Ok(httparse::Status::Complete(length)) => match head.code {
            Some(status @ 100..) => ProxyAnswer::Whole(status, length),
            _ => NO_HTTP,
        },
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            ProxyAnswer::Wrong("its answer is too long")
        }
        Ok(httparse::Status::Partial) => ProxyAnswer::Part(1),
        Err(httparse::Error::TooManyHeaders) => ProxyAnswer::Wrong("its answer is too long"),
        Err(_) => NO_HTTP,
    }
}

/// Returns why a proxy opens no connection, by the status of its answer, and what to do.
pub fn refusal(status: u16, has_login: bool) -> String {
    let why = match status {
        // Tinyproxy answers a wrong password with 401.
        401 | 407 if has_login => "it does not accept the name and the password in remoteProxy",
        401 | 407 => "it asks for a name and a password; write remoteProxy like http://user:password@host:port",
        403 => {
            "it does not allow a connection to this server and port; many proxies allow port 443 only"
        }
        400 | 404 | 405 | 501 => "it does not open connections for others (CONNECT)",
        500 | 502..=504 => "it cannot reach the server",
        _ => "it does not open a connection",
    };
    format!("{why} (status {status})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_server_and_the_login() {
        let request = |host, login| String::from_utf8(request(host, 443, login)).unwrap();
        assert_eq!(
            request("s.example.com", None),
            "CONNECT s.example.com:443 HTTP/1.1\r\nHost: s.example.com:443\r\n\r\n"
        );
        assert_eq!(
            request("::1", Some(b"Aladdin:open sesame")),
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[test]
    fn only_the_head_of_an_answer_counts() {
        let head = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n";
        assert_eq!(parse(head), ProxyAnswer::Whole(200, head.len()));
        assert_eq!(parse(&head[..head.len() - 1]), ProxyAnswer::Part(1));
        assert_eq!(parse(b""), ProxyAnswer::Part(1));
        assert_eq!(
            parse(b"HTTP/1.0 407 Login\r\n\r\n<html>"),
            ProxyAnswer::Whole(407, 22)
        );
        for wrong in [&b"<html>"[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 20 x\r\n\r\n"] {
            assert!(matches!(parse(wrong), ProxyAnswer::Wrong(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_read_up_to_its_limit() {
        let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        head.resize(MAX_HEAD - 1, b'x');
        assert_eq!(parse(&head), ProxyAnswer::Part(1));
        head.push(b'x');
        assert!(matches!(parse(&head), ProxyAnswer::Wrong(_)));
        let many = [&b"HTTP/1.1 200 OK\r\n"[..], &b"X: y\r\n".repeat(101)].concat();
        assert!(matches!(parse(&many), ProxyAnswer::Wrong(_)));
    }
}
