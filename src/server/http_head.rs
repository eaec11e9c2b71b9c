//! Routing by the head of an HTTP request: finds one header, and whether a proxy has sent the
//! request. Changes no bytes.

use crate::config::label::ascii;

/// Maximum length of a request head in bytes, including its empty line.
pub const MAX_HEAD: usize = 16 * 1024;

/// The verdict about the bytes of a request received so far.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadResult<'a> {
    /// The value of the header; the head is complete.
    Value(&'a str),
    /// An incomplete head: more bytes are needed.
    More,
    /// A head longer than [`MAX_HEAD`] (status 431).
    TooLong,
    /// Not HTTP/1, or a head without the header (status 400), for this reason.
    Bad(&'static str),
}

/// Finds the header `name`, ignoring case, in a request that begins with `bytes`. The result does not
/// depend on how the bytes are split: nothing beyond [`MAX_HEAD`] is read.
pub fn find<'a>(bytes: &'a [u8], name: &str) -> HeadResult<'a> {
    let bytes = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut lines = HeadLines(bytes);
    let Some(request) = first_line(&mut lines) else {
        if !may_become_a_request(lines.0) {
            return HeadResult::Bad("not an HTTP request");
        }
        return more(bytes);
    };
    if !is_request_line(request) {
        return HeadResult::Bad("not an HTTP request line");
    }
    let mut found = None;
    for line in lines {
        match (line.is_empty(), found) {
            (true, Some(value)) => return HeadResult::Value(value),
            (true, None) => return HeadResult::Bad("the routing header is missing"),
            // The service judges the rest of the head.
            (false, Some(_)) => continue,
            (false, None) => {}
        }
        // A folded line (RFC 9112, section 5.2), unless some parsers would take it for the host.
        let continues = line.first().is_some_and(is_blank);
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            if continues {
                continue;
            }
            return HeadResult::Bad("a header line has no colon");
        };
        let (field, value) = line.split_at(colon);
        let names_host = field.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        if field.is_empty() || field.iter().any(|b| is_control(*b)) {
            return HeadResult::Bad("a header has an invalid name");
        }
        if names_host && field.iter().any(is_blank) {
            return HeadResult::Bad("there is white space around the name of the routing header");
        }
        if names_host {
            match std::str::from_utf8(value.get(1..).unwrap_or_default()) {
                Ok(value) => found = Some(value.trim_matches([' ', '\t'])),
                Err(_) => return HeadResult::Bad("the routing header is not UTF-8"),
            }
        }
    }
    more(bytes)
}

/// Whether a complete head has headers that only proxies send.
pub fn shows_proxy(head: &[u8]) -> bool {
    let mut lines = HeadLines(head);
    first_line(&mut lines);
    lines.take_while(|line| !line.is_empty()).any(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let name = name.trim_ascii();
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let forwarded = b"x-forwarded-";
        let begins = name.get(..forwarded.len());
        is(b"via")
            || is(b"forwarded")
            || is(b"x-real-ip")
            || begins.is_some_and(|begins| begins.eq_ignore_ascii_case(forwarded))
    })
}

/// Returns the request line. Skips empty lines before it (RFC 9112, section 2.2).
fn first_line<'a>(lines: &mut HeadLines<'a>) -> Option<&'a [u8]> {
    lines.find(|line| !line.is_empty())
}

/// Returns the name in a Host header, without the port.
pub fn host_name(host: &str) -> &str {
    match host.starts_with('[') {
        // An IPv6 address.
        true => host,
        false => host.split(':').next().unwrap_or_default(),
    }
}

/// Returns the host prefix of a Host header: its first label, without the port, normalized for
/// comparison.
pub fn host_prefix(host: &str) -> String {
    let host = match host.strip_prefix('[') {
        // An IPv6 address has no labels.
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split([':', '.']).next().unwrap_or_default(),
    };
    ascii(host).into_owned()
}

fn more(bytes: &[u8]) -> HeadResult<'_> {
    if bytes.len() >= MAX_HEAD {
        HeadResult::TooLong
    } else {
        HeadResult::More
    }
}

/// Iterates over complete lines, without their ends (CRLF or LF).
struct HeadLines<'a>(&'a [u8]);

impl<'a> Iterator for HeadLines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == b'\n')?;
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Whether a byte is allowed in a token (RFC 9110, section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

fn is_control(b: u8) -> bool {
    b.is_ascii_control() && b != b'\t'
}

/// Whether an incomplete first line may begin with a method.
fn may_become_a_request(line: &[u8]) -> bool {
    let mut method = line.iter().take_while(|b| **b != b' ' && **b != b'\r');
    method.all(|b| is_token(*b))
}

fn is_request_line(line: &[u8]) -> bool {
    let mut parts = line.split(|b| *b == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    method.is_some_and(|m| !m.is_empty() && m.iter().all(|b| is_token(*b)))
        && target.is_some_and(|t| !t.is_empty())
        && version.is_some_and(|v| v.starts_with(b"HTTP/1."))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_found_in_any_case_and_spacing() {
        for head in [
            "GET / HTTP/1.1\r\nHost: id1.example.com\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: id1.example.com\r\nHost: x\r\nno colon\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX[1]: y\r\nM\u{FC} (a b): c\r\n d\r\nHost: id1.example.com\r\n\r\n",
            "GET / HTTP/1.1\r\nAccept: */*\r\nhOSt:\t id1.example.com \t\r\n\r\nbody",
            "\r\nGET / HTTP/1.0\nhost:id1.example.com\n\n",
        ] {
            assert_eq!(
                find(head.as_bytes(), "Host"),
                HeadResult::Value("id1.example.com")
            );
        }
    }

    #[test]
    fn an_incomplete_head_has_no_result() {
        let head = b"POST /a HTTP/1.1\r\nX: y\r\nTarget: abc\r\nZ: y\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(
                find(&head[..cut], "target"),
                HeadResult::More,
                "cut at {cut}"
            );
        }
        assert_eq!(find(head, "target"), HeadResult::Value("abc"));
    }

    #[test]
    fn malformed_requests_are_rejected_early() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"GET\0",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET / / HTTP/1.1\r\n",
            b" GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n",
            b"GET / HTTP/1.1\r\n: x\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n",
            b"GET / HTTP/1.1\r\nX: y\r\n Host: x\r\n",
            b"GET / HTTP/1.1\r\nX\0: y\r\n",
            b"GET / HTTP/1.1\r\nHost: \xFF\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
        ] {
            assert!(
                matches!(find(bytes, "Host"), HeadResult::Bad(_)),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_head_that_does_not_end_is_too_long() {
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(MAX_HEAD - 1, b'a');
        assert_eq!(find(&head, "Host"), HeadResult::More);
        head.push(b'a');
        assert_eq!(find(&head, "Host"), HeadResult::TooLong);
    }

    #[test]
    fn the_limit_does_not_depend_on_how_the_head_is_split() {
        for length in MAX_HEAD - 2..MAX_HEAD + 700 {
            for host in ["Host: a\r\n", ""] {
                let mut head = format!("GET / HTTP/1.1\r\n{host}X: ").into_bytes();
                let tail = match host {
                    "" => "\r\nHost: a\r\n\r\n",
                    _ => "\r\n\r\n",
                };
                head.resize(length - tail.len(), b'x');
                head.extend_from_slice(tail.as_bytes());
                head.extend_from_slice(&[b'b'; 100]);
                let expected = match length <= MAX_HEAD {
                    true => HeadResult::Value("a"),
                    false => HeadResult::TooLong,
                };
                // The first bytes that suffice, and all that may arrive with them.
                for cut in [length.min(MAX_HEAD), length, length + 100] {
                    assert_eq!(
                        find(&head[..cut], "Host"),
                        expected,
                        "{length} cut at {cut}"
                    );
                }
                assert_eq!(
                    find(&head[..length.min(MAX_HEAD) - 1], "Host"),
                    HeadResult::More
                );
            }
        }
    }

    #[test]
    fn a_proxy_is_recognized_by_its_headers() {
        for line in [
            "Via: 1.1 a",
            "FORWARDED: for=1.2.3.4",
            "X-Forwarded-For: a",
            "x-forwarded-proto:https",
            "X-Real-IP: 1.2.3.4",
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
            assert!(shows_proxy(head.as_bytes()), "{line}");
            let behind = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{line}\r\n\r\n");
            assert!(!shows_proxy(behind.as_bytes()), "{line}");
        }
        for line in [
            "X-Forwarded: a",
            "Viaduct: a",
            "Accept: via",
            "X-Real-IPs: a",
        ] {
            let head = format!("GET /via HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
            assert!(!shows_proxy(head.as_bytes()), "{line}");
        }
    }

    #[test]
    fn the_prefix_is_the_first_label() {
        for (host, prefix) in [
            ("id1.example.com:8080", "id1"),
            ("Demo.localhost", "demo"),
            ("demo:8080", "demo"),
            ("demo", "demo"),
            ("127.0.0.1:80", "127"),
            ("[::1]:8080", "::1"),
            ("", ""),
        ] {
            assert_eq!(host_prefix(host), prefix, "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            find(&bytes, "Host");
            host_prefix(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn more_bytes_do_not_change_a_result(
            tail in "[ -~\r\n]{0,120}", cut in 0usize..150,
        ) {
            let bytes = format!("GET / HTTP/1.1\r\n{tail}");
            let cut = cut.min(bytes.len());
            let early = find(&bytes.as_bytes()[..cut], "h");
            if early != HeadResult::More {
                prop_assert_eq!(early, find(bytes.as_bytes(), "h"));
            }
        }
    }
}
