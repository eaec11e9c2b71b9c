//! Requests to the API: parses the request line and the host.

pub use crate::net::http::hosts::AllowedHosts;
use crate::net::Conn;
use crate::server::incoming::read_more;
use httparse::{Error, Status};

/// Maximum length of a request head in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
const MAX_FIELDS: usize = 64;

/// The pages of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiPage {
    /// `/status`: whether the server works.
    Status,
    /// `/metrics`: counters for Prometheus.
    Metrics,
    /// `/clients`: the connected clients.
    Clients,
}

/// The reason why a request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// The connection closed without a request.
    Gone,
    /// The request is not complete HTTP/1.
    Malformed,
    /// The target is not a page of the API.
    NoSuchPage,
    /// The method is not GET.
    NotGet,
    /// The head is longer than [`MAX_HEAD`] or [`MAX_FIELDS`].
    TooLong,
    /// The request is for a host name that this API does not have.
    OtherHost,
}

/// Reads one request, and appends its bytes to `head`.
pub async fn read(
    conn: &Conn,
    hosts: &AllowedHosts,
    head: &mut Vec<u8>,
) -> Result<ApiPage, RequestError> {
    loop {
        if let Some(asked) = parse(head, hosts) {
            return asked;
        }
        match read_more(conn, head, MAX_HEAD).await {
            Ok(1..) => {}
            Ok(0) if !head.is_empty() => return Err(RequestError::Malformed),
            _ => return Err(RequestError::Gone),
        }
    }
}

/// Parses a request; `None` if its head is incomplete.
pub fn parse(head: &[u8], hosts: &AllowedHosts) -> Option<Result<ApiPage, RequestError>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    Some(match request.parse(head) {
        Ok(Status::Partial) if head.len() < MAX_HEAD => return None,
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => Err(RequestError::TooLong),
        Err(_) => Err(RequestError::Malformed),
        Ok(Status::Complete(_)) => {
            let (authority, path) = split(request.path.unwrap_or_default());
            let fields = request.headers.iter();
            let mut named = fields.filter(|field| field.name.eq_ignore_ascii_case("host"));
            let allowed = authority.is_none_or(|authority| hosts.allow(authority))
                && named
                    .all(|field| std::str::from_utf8(field.value).is_ok_and(|it| hosts.allow(it)));
            match (page(path), request.method) {
                _ if !allowed => Err(RequestError::OtherHost),
                (None, _) => Err(RequestError::NoSuchPage),
                (Some(page), Some("GET")) => Ok(page),
                (Some(_), _) => Err(RequestError::NotGet),
            }
        }
    })
}

/// Splits a request target into host, if it has one, and path. Servers have to accept the absolute
/// form, too (RFC 9112, section 3.2.2).
fn split(target: &str) -> (Option<&str>, &str) {
    match target.split_once("://") {
        Some((_, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Some(authority), path)
        }
        None => (None, target),
    }
}

fn page(path: &str) -> Option<ApiPage> {
    match path.split('?').next()? {
        "/status" => Some(ApiPage::Status),
        "/metrics" => Some(ApiPage::Metrics),
        "/clients" => Some(ApiPage::Clients),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(head: &[u8]) -> Option<Result<ApiPage, RequestError>> {
        super::parse(head, &AllowedHosts::new(&["a".to_owned()]))
    }

    fn parse_line(line: &str) -> Option<Result<ApiPage, RequestError>> {
        parse(format!("{line}\r\nHost: a\r\n\r\n").as_bytes())
    }

    #[test]
    fn only_addresses_and_allowed_names_are_answered() {
        let asked =
            |fields: &str| parse(format!("GET /status HTTP/1.1\r\n{fields}\r\n").as_bytes());
        for host in [
            "127.0.0.1",
            "192.0.2.1:8081",
            "[::1]",
            "[2001:db8::1]:8081",
            "localhost",
            "LocalHost.:8081",
            "A:80",
            "a.",
            "",
        ] {
            let fields = format!("hOST: {host}\r\n");
            assert_eq!(asked(&fields), Some(Ok(ApiPage::Status)), "{host}");
        }
        for host in [
            "b",
            "a.b",
            "localhost.b",
            "127.0.0.1.b",
            "127.0.0.1@b",
            "[::1].b:80",
            "[a]",
            "::b",
            "\u{e4}",
        ] {
            let fields = format!("Host: {host}\r\n");
            assert_eq!(asked(&fields), Some(Err(RequestError::OtherHost)), "{host}");
        }
        assert_eq!(
            asked(""),
            Some(Ok(ApiPage::Status)),
            "browsers always send a host"
        );
        let both = "Host: a\r\nHost: b\r\n";
        assert_eq!(asked(both), Some(Err(RequestError::OtherHost)));
        for (line, expected) in [
            ("GET http://b/status HTTP/1.1", Err(RequestError::OtherHost)),
            ("GET /none HTTP/1.0", Err(RequestError::NoSuchPage)),
        ] {
            assert_eq!(parse_line(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn pages_are_found_in_every_form_of_a_target() {
        for (line, page) in [
            ("GET /status HTTP/1.1", ApiPage::Status),
            ("GET /metrics HTTP/1.0", ApiPage::Metrics),
            ("GET /clients?a=b HTTP/1.1", ApiPage::Clients),
            ("GET http://a:1/status HTTP/1.1", ApiPage::Status),
        ] {
            assert_eq!(parse_line(line), Some(Ok(page)), "{line}");
        }
    }

    #[test]
    fn invalid_requests_have_distinct_errors() {
        for (line, wrong) in [
            ("GET / HTTP/1.1", RequestError::NoSuchPage),
            ("GET /status/ HTTP/1.1", RequestError::NoSuchPage),
            ("GET http://a HTTP/1.1", RequestError::NoSuchPage),
            ("OPTIONS * HTTP/1.1", RequestError::NoSuchPage),
            ("POST /status HTTP/1.1", RequestError::NotGet),
            ("HEAD /metrics HTTP/1.1", RequestError::NotGet),
            ("GET /status", RequestError::Malformed),
            ("GET /status HTTP/2.0", RequestError::Malformed),
        ] {
            assert_eq!(parse_line(line), Some(Err(wrong)), "{line}");
        }
        let many = format!("GET /status HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        assert_eq!(parse(many.as_bytes()), Some(Err(RequestError::TooLong)));
        let mut long = b"GET /status HTTP/1.1\r\nA: ".to_vec();
        long.resize(MAX_HEAD - 1, b'a');
        assert_eq!(parse(&long), None);
        long.push(b'a');
        assert_eq!(parse(&long), Some(Err(RequestError::TooLong)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes: Vec<u8>, line in "[ -~]{0,40}") {
            parse(&bytes);
            parse_line(&format!("GET {line} HTTP/1.1"));
            parse_line(&line);
        }
    }
}
