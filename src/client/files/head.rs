//! Parsing of the head of a request: its end, its method and its fields. Not the response.

use super::status::{self, FileStatus};

/// Maximum length of a head, in bytes.
pub(crate) const HEAD_MAX: usize = 16 * 1024;

/// Maximum number of header fields: more than any browser and its proxies send together.
const FIELDS_MAX: usize = 100;

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileMethod {
    Get,
    Head,
    Other,
}

/// The fate of the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The connection is kept for the next request.
    Next,
    /// The connection is kept, and the client, which uses HTTP/1.0, must be told so.
    NextOld,
    /// The connection is closed.
    Close,
    /// The connection is closed after its bytes have been read for a while: the client may still be
    /// sending, and would lose the response if it sent into a closed connection.
    Drain,
}

/// A request, reduced to the fields that matter for a file. The slices are header values.
#[derive(Debug)]
pub(crate) struct FileRequest<'a> {
    pub(crate) method: FileMethod,
    pub(crate) method_name: &'a str,
    pub(crate) target: &'a [u8],
    /// Whether the client supports chunks (HTTP/1.1).
    pub(crate) chunks: bool,
    pub(crate) after: After,
    pub(crate) if_match: Vec<&'a [u8]>,
    pub(crate) if_none_match: Vec<&'a [u8]>,
    pub(crate) if_modified_since: Option<&'a [u8]>,
    pub(crate) if_unmodified_since: Option<&'a [u8]>,
    pub(crate) if_range: Option<&'a [u8]>,
    /// The `Range` field, if there is exactly one.
    pub(crate) range: Option<&'a [u8]>,
    pub(crate) authorization: Vec<&'a [u8]>,
}

/// Finds the end of the head in `bytes`, behind its empty line. Searches from `from` on, which is
/// the number of bytes searched before, less three.
pub(crate) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at = at
            .checked_add(rest.iter().position(|byte| *byte == b'\n')?)?
            .checked_add(1)?;
        match bytes.get(at..) {
            Some([b'\n', ..]) => return at.checked_add(1),
            Some([b'\r', b'\n', ..]) => return at.checked_add(2),
            _ => {}
        }
    }
}

impl<'a> FileRequest<'a> {
    /// Parses a whole head, `bytes`, with its empty line. The error is the response to send before
    /// the connection is closed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<FileRequest<'a>, FileStatus> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(status::BAD_REQUEST),
            Err(httparse::Error::TooManyHeaders) => return Err(status::HEAD_TOO_LARGE),
            Err(httparse::Error::Version) if names_a_version(bytes) => return Err(status::VERSION),
            Err(_) => return Err(status::BAD_REQUEST),
        }
        let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version)
        else {
            return Err(status::BAD_REQUEST);
        };
        let mut request = FileRequest {
            method: match method {
                "GET" => FileMethod::Get,
                "HEAD" => FileMethod::Head,
                _ => FileMethod::Other,
            },
            method_name: method,
            target: target.as_bytes(),
            chunks: minor >= 1,
            after: After::Next,
            if_match: Vec::new(),
            if_none_match: Vec::new(),
            if_modified_since: None,
            if_unmodified_since: None,
            if_range: None,
            range: None,
            authorization: Vec::new(),
        };
        let (mut close, mut keep, mut body) = (false, false, method == "CONNECT");
        let (mut hosts, mut ranges) = (0_usize, 0_usize);
        for field in head.headers.iter() {
            let (name, value) = (field.name, field.value.trim_ascii());
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("host") {
                hosts = hosts.saturating_add(1);
            } else if is("connection") {
                let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                close |= options
                    .clone()
                    .any(|option| option.eq_ignore_ascii_case(b"close"));
                keep |= options.any(|option| option.eq_ignore_ascii_case(b"keep-alive"));
            } else if is("content-length") {
                if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return Err(status::BAD_REQUEST);
                }
                body |= value.iter().any(|digit| *digit != b'0');
            } else if is("transfer-encoding") {
                body = true;
            } else if is("if-match") {
                request.if_match.push(value);
            } else if is("if-none-match") {
                request.if_none_match.push(value);
            } else if is("if-modified-since") {
                request.if_modified_since = Some(value);
            } else if is("if-unmodified-since") {
                request.if_unmodified_since = Some(value);
            } else if is("if-range") {
                request.if_range = Some(value);
            } else if is("range") {
                ranges = ranges.saturating_add(1);
                request.range = Some(value).filter(|_| ranges == 1);
            } else if is("authorization") {
                request.authorization.push(value);
            }
        }
        // RFC 9112, section 3.2.
        if hosts > 1 || (hosts == 0 && minor >= 1) {
            return Err(status::BAD_REQUEST);
        }
        request.after = match (body, close, minor) {
            (true, _, _) => After::Drain,
            (_, true, _) => After::Close,
            (_, _, 0) if keep => After::NextOld,
            (_, _, 0) => After::Close,
            _ => After::Next,
        };
        Ok(request)
    }
}

/// Whether the first line ends in any HTTP version.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes
        .trim_ascii_start()
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let word = line
        .trim_ascii()
        .rsplit(|byte| *byte == b' ')
        .next()
        .unwrap_or_default();
    match word.strip_prefix(b"HTTP/") {
        Some(version) => version
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(head: &str) -> Result<FileRequest<'_>, u16> {
        FileRequest::parse(head.as_bytes()).map_err(|status| status.code)
    }

    fn after(head: &str) -> Result<After, u16> {
        parse(head).map(|request| request.after)
    }

    #[test]
    fn a_head_ends_behind_its_empty_line() {
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest", 0), Some(24));
        assert_eq!(end(b"GET / HTTP/1.0\n\nrest", 0), Some(16));
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n", 0), None);
        assert_eq!(end(b"", 0), None);
        assert_eq!(end(b"abc", 9), None);
    }

    #[test]
    fn the_end_of_a_head_is_found_with_one_look_at_each_piece() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\n\n",
            "A\n\r\n",
        ] {
            let found = (1..=head.len()).find_map(|length| {
                let from = (length - 1).saturating_sub(3);
                end(&head.as_bytes()[..length], from).map(|end| (length, end))
            });
            assert_eq!(found, Some((head.len(), head.len())), "{head:?}");
        }
    }

    #[test]
    fn the_connection_is_kept_by_the_rules_of_each_version() {
        assert_eq!(after("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(After::Next));
        let close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, CLOSE\r\n\r\n";
        assert_eq!(after(close), Ok(After::Close));
        assert_eq!(after("GET / HTTP/1.0\r\n\r\n"), Ok(After::Close));
        let keep = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(after(keep), Ok(After::NextOld));
    }

    #[test]
    fn a_request_that_may_have_a_body_is_the_last_one() {
        for field in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            assert_eq!(after(&head), Ok(After::Drain), "{field}");
        }
        let empty = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(after(empty), Ok(After::Next));
        assert_eq!(
            after("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Ok(After::Drain)
        );
    }

    #[test]
    fn a_head_that_breaks_the_rules_is_refused_with_the_right_code() {
        for (head, code) in [
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n",
                400,
            ),
            ("GET / FTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\n", 505),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ] {
            assert_eq!(after(head), Err(code), "{head:?}");
        }
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(FIELDS_MAX + 1)
        );
        assert_eq!(after(&many), Err(431));
    }

    #[test]
    fn two_range_fields_count_as_none() {
        let head = "GET / HTTP/1.0\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n";
        assert_eq!(
            parse(head).map(|request| request.range.is_some()),
            Ok(false)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, from in 0_usize..64) {
            let _ = FileRequest::parse(&bytes);
            if let Some(end) = end(&bytes, from) {
                prop_assert!(end <= bytes.len());
            }
        }

        #[test]
        fn nothing_that_begins_like_a_request_panics(rest in "[ -~\r\n]{0,200}") {
            for start in ["GET /a HTTP/1.1\r\nHost: x\r\n", "HEAD / HTTP/1.0\r\n", "GET "] {
                let _ = FileRequest::parse(format!("{start}{rest}\r\n\r\n").as_bytes());
            }
        }
    }
}
