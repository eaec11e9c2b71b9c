//! What is asked of the API: one request, of which only the first line matters.

use crate::net::Conn;
use crate::server::visitor;
use httparse::{Error, Status};

/// Longest head that is read.
pub const MAX_HEAD: usize = 8 * 1024;
const MAX_FIELDS: usize = 64;

/// What the API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Status,
    Metrics,
    Clients,
}

/// Why there is nothing to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It closed without a word: there is nobody to tell.
    Gone,
    Malformed,
    NoSuchPage,
    NotGet,
    TooLong,
}

/// Reads one request.
pub async fn read(conn: &Conn) -> Result<Page, Wrong> {
    let mut head = Vec::new();
    loop {
        if let Some(asked) = parse(&head) {
            return asked;
        }
        match visitor::read_more(conn, &mut head, MAX_HEAD).await {
            Ok(1..) => {}
            Ok(0) if !head.is_empty() => return Err(Wrong::Malformed),
            _ => return Err(Wrong::Gone),
        }
    }
}

/// `None` while there is no whole head.
pub fn parse(head: &[u8]) -> Option<Result<Page, Wrong>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    Some(match request.parse(head) {
        Ok(Status::Partial) if head.len() < MAX_HEAD => return None,
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => Err(Wrong::TooLong),
        Err(_) => Err(Wrong::Malformed),
        Ok(Status::Complete(_)) => match (page(request.path.unwrap_or_default()), request.method) {
            (None, _) => Err(Wrong::NoSuchPage),
            (Some(page), Some("GET")) => Ok(page),
            (Some(_), _) => Err(Wrong::NotGet),
        },
    })
}

fn page(target: &str) -> Option<Page> {
    // RFC 9112, 3.2.2: a server takes the form for proxies too.
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.get(rest.find('/')?..)?,
        None => target,
    };
    match path.split('?').next()? {
        "/status" => Some(Page::Status),
        "/metrics" => Some(Page::Metrics),
        "/clients" => Some(Page::Clients),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_line(line: &str) -> Option<Result<Page, Wrong>> {
        parse(format!("{line}\r\nHost: a\r\n\r\n").as_bytes())
    }

    #[test]
    fn the_pages_are_found_in_every_form_of_a_target() {
        for (line, page) in [
            ("GET /status HTTP/1.1", Page::Status),
            ("GET /metrics HTTP/1.0", Page::Metrics),
            ("GET /clients?a=b HTTP/1.1", Page::Clients),
            ("GET http://a:1/status HTTP/1.1", Page::Status),
        ] {
            assert_eq!(parse_line(line), Some(Ok(page)), "{line}");
        }
    }

    #[test]
    fn everything_else_is_wrong_in_its_own_way() {
        for (line, wrong) in [
            ("GET / HTTP/1.1", Wrong::NoSuchPage),
            ("GET /status/ HTTP/1.1", Wrong::NoSuchPage),
            ("GET http://a HTTP/1.1", Wrong::NoSuchPage),
            ("OPTIONS * HTTP/1.1", Wrong::NoSuchPage),
            ("POST /status HTTP/1.1", Wrong::NotGet),
            ("HEAD /metrics HTTP/1.1", Wrong::NotGet),
            ("GET /status", Wrong::Malformed),
            ("GET /status HTTP/2.0", Wrong::Malformed),
        ] {
            assert_eq!(parse_line(line), Some(Err(wrong)), "{line}");
        }
        let many = format!("GET /status HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        assert_eq!(parse(many.as_bytes()), Some(Err(Wrong::TooLong)));
        let mut long = b"GET /status HTTP/1.1\r\nA: ".to_vec();
        long.resize(MAX_HEAD - 1, b'a');
        assert_eq!(parse(&long), None);
        long.push(b'a');
        assert_eq!(parse(&long), Some(Err(Wrong::TooLong)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>, line in "[ -~]{0,40}") {
            parse(&bytes);
            parse_line(&format!("GET {line} HTTP/1.1"));
            parse_line(&line);
        }
    }
}
