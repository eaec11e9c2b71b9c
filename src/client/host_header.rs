//! Where the Host line of a request stands, so that it can be rewritten
//! (useLocalAsHTTPHost). Anything that is not HTTP is left as it is.

use std::ops::Range;

/// Longest head that is looked through.
pub const MAX: usize = 16 * 1024;

/// What the bytes so far say.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// The place of the value.
    Host(Range<usize>),
    /// There is none to rewrite.
    Nothing,
    /// More bytes are needed.
    More,
}

pub fn scan(bytes: &[u8]) -> Scan {
    let mut at = 0;
    let mut first = true;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            return if is_text(rest) && bytes.len() < MAX {
                Scan::More
            } else {
                Scan::Nothing
            };
        };
        let line = rest.get(..end).unwrap_or_default();
        // Nor would it be waited for the end of such a line.
        if !is_text(line) {
            return Scan::Nothing;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if first && !line.is_empty() {
            let is_http = line.rsplit(|b| *b == b' ').next();
            if !is_http.is_some_and(|version| version.starts_with(b"HTTP/1.")) {
                return Scan::Nothing;
            }
            first = false;
        } else if !first {
            match line.split_first_chunk::<5>() {
                _ if line.is_empty() => return Scan::Nothing,
                Some((name, value)) if name.eq_ignore_ascii_case(b"host:") => {
                    let blank = |b: &&u8| **b == b' ' || **b == b'\t';
                    let lead = value.iter().take_while(blank).count();
                    let trail = value.iter().rev().take_while(blank).count();
                    let start = at + 5 + lead;
                    let stop = (at + 5 + value.len()).saturating_sub(trail).max(start);
                    return Scan::Host(start..stop);
                }
                _ => {}
            }
        }
        at += end + 1;
    }
}

/// Whether it may be a line of HTTP, or the beginning of one.
fn is_text(line: &[u8]) -> bool {
    line.iter()
        .all(|b| *b == b'\t' || *b == b'\r' || *b >= b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> Option<&str> {
        match scan(text.as_bytes()) {
            Scan::Host(range) => Some(&text[range]),
            _ => None,
        }
    }

    #[test]
    fn the_value_is_found_without_its_blanks() {
        assert_eq!(host("GET / HTTP/1.1\r\nHost: a.b:80\r\n"), Some("a.b:80"));
        assert_eq!(
            host("GET / HTTP/1.1\nA: b\nhOST:\t a \t\nC: d\n\n"),
            Some("a")
        );
        assert_eq!(host("GET / HTTP/1.0\r\nHost:\r\n\r\n"), Some(""));
        assert_eq!(host("GET / HTTP/1.0\r\nHost:   \r\n\r\n"), Some(""));
    }

    #[test]
    fn no_byte_before_the_end_of_the_line_decides() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\nHost: c\r\n";
        for cut in 0..head.len() {
            assert_eq!(scan(&head[..cut]), Scan::More, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_is_no_text_decides_the_same_before_its_end_and_behind_it() {
        let head = b"GET / HTTP/1.1\r\nA: \x01\r\nHost: c\r\n";
        for cut in 20..=head.len() {
            assert_eq!(scan(&head[..cut]), Scan::Nothing, "cut at {cut}");
        }
    }

    #[test]
    fn what_has_no_host_line_is_left_alone() {
        for bytes in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"\x16\x03\x01",
            b"GET / HTTP/1.1\r\n\r\nHost: body\r\n",
            &[b'a'; MAX],
        ] {
            assert_eq!(scan(bytes), Scan::Nothing);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = [b"GET / HTTP/1.1\r\n", &bytes[..]].concat();
            if let Scan::Host(range) = scan(&text) {
                prop_assert!(range.start <= range.end && range.end <= text.len());
            }
        }
    }
}
