//! Where the first head of a connection names its host, so that it can be rewritten
//! (useLocalAsHTTPHost). Anything that is not HTTP is left as it is.
//!
//! A service may read a head otherwise than we do, so all is rewritten that it could take for the
//! host: every Host line, also one that goes on in the next line (RFC 9112, 5.2), and the host in
//! a target such as `http://host/path`, which comes before them (3.2.2).

use std::ops::Range;

/// Longest head that is looked through: more than common servers take.
pub const MAX: usize = 32 * 1024;

/// What the bytes so far say.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// The places of the host, in their order; none if there is nothing to rewrite.
    Hosts(Vec<Range<usize>>),
    /// More bytes are needed.
    More,
    /// It cannot be said what a service would make of this.
    Bad(&'static str),
}

/// Looks through a head; `ended` says that nothing comes behind `bytes`.
pub fn scan(bytes: &[u8], ended: bool) -> Scan {
    let mut hosts: Vec<Range<usize>> = Vec::new();
    let (mut at, mut first, mut in_host) = (0, true, false);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => end,
            None if ended && !rest.is_empty() => rest.len(),
            None if ended => return Scan::Hosts(hosts),
            // A line of text goes on; anything else is not HTTP.
            None if first && !(bytes.len() < MAX && rest.iter().all(is_text)) => {
                return Scan::Hosts(hosts)
            }
            None if bytes.len() >= MAX => return Scan::Bad("it is longer than 32 KiB"),
            None => return Scan::More,
        };
        let line = rest.get(..end).unwrap_or_default();
        // Nor would the end of such a line have been waited for.
        if first && !line.iter().all(is_text) {
            return Scan::Hosts(hosts);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if first && !line.is_empty() {
            let version = line.rsplit(|b| *b == b' ').next();
            if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) {
                return Scan::Hosts(hosts);
            }
            first = false;
            hosts.extend(authority(line).map(|range| range.start + at..range.end + at));
        } else if !first {
            if line.is_empty() {
                return Scan::Hosts(hosts);
            }
            let goes_on = line.first().is_some_and(is_blank);
            match hosts.last_mut() {
                Some(host) if goes_on && in_host => host.end = at + line.len(),
                _ => {
                    let value = host_value(line);
                    in_host = value.is_some();
                    hosts.extend(value.map(|range| range.start + at..range.end + at));
                }
            }
        }
        // Some take a CR alone for the end of a line, and a NUL for the end of everything.
        if !first && line.iter().any(|b| matches!(b, b'\r' | 0)) {
            return Scan::Bad("it has a carriage return or a NUL within a line");
        }
        at += end + 1;
    }
}

fn is_text(b: &u8) -> bool {
    matches!(b, b'\t' | b'\r' | b' '..)
}

fn is_blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// Where the host stands in a request line whose target begins with a scheme.
fn authority(line: &[u8]) -> Option<Range<usize>> {
    let begin = line.iter().position(|b| *b == b' ')? + 1;
    let target = line.get(begin..)?.split(|b| *b == b' ').next()?;
    let scheme = target.iter().position(|b| !b.is_ascii_alphanumeric())?;
    let rest = target.get(scheme..)?.strip_prefix(b"://")?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let start = begin + scheme + 3;
    Some(start..start + end.unwrap_or(rest.len()))
}

/// Where the value stands in a Host line, without the blanks around it. The name may have blanks
/// before and behind it: not by the rules, but some services do not mind.
fn host_value(line: &[u8]) -> Option<Range<usize>> {
    let colon = line.iter().position(|b| *b == b':')?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    if !name.trim_ascii().eq_ignore_ascii_case(b"host") {
        return None;
    }
    let lead = value.iter().take_while(|b| is_blank(b)).count();
    let trail = value.iter().rev().take_while(|b| is_blank(b)).count();
    let start = colon + 1 + lead;
    Some(start..line.len().saturating_sub(trail).max(start))
}

/// Puts `host` into all of these places.
pub fn rewrite(head: &mut Vec<u8>, places: &[Range<usize>], host: &str) {
    // From the last one on, so that those before stay where they are.
    for place in places.iter().rev() {
        head.splice(place.clone(), host.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(text: &str) -> Vec<&str> {
        match scan(text.as_bytes(), false) {
            Scan::Hosts(hosts) => hosts.into_iter().map(|range| &text[range]).collect(),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn rewritten(text: &str) -> String {
        let mut head = text.as_bytes().to_vec();
        match scan(&head, false) {
            Scan::Hosts(hosts) => rewrite(&mut head, &hosts, "local:1"),
            other => panic!("{text:?}: {other:?}"),
        }
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn the_value_is_found_without_its_blanks() {
        assert_eq!(hosts("GET / HTTP/1.1\r\nHost: a.b:80\r\n\r\n"), ["a.b:80"]);
        assert_eq!(hosts("GET / HTTP/1.1\nA: b\nhOST:\t a \t\nC: d\n\n"), ["a"]);
        assert_eq!(hosts("GET / HTTP/1.0\r\nHost:\r\n\r\n"), [""]);
        assert_eq!(hosts("GET / HTTP/1.0\r\nHost:   \r\n\r\n"), [""]);
    }

    #[test]
    fn no_byte_before_the_end_of_the_head_decides() {
        let head = b"GET http://x/ HTTP/1.1\r\nA: b\r\nHost: c\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(scan(&head[..cut], false), Scan::More, "cut at {cut}");
        }
    }

    #[test]
    fn what_has_no_host_is_left_alone() {
        for bytes in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"\x16\x03\x01",
            b"GET / HTTP/1.1\r\n\r\nHost: body\r\n",
            &[b'a'; MAX],
        ] {
            assert_eq!(scan(bytes, false), Scan::Hosts(Vec::new()));
        }
    }

    #[test]
    fn no_way_to_name_another_host_is_left() {
        for (head, becomes) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nHost: evil\r\nhost:evil\r\n\r\nHost: body",
                "GET / HTTP/1.1\r\nHost: local:1\r\nX: y\r\nHost: local:1\r\nhost:local:1\r\n\r\nHost: body",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n evil\r\n\tevil\r\nX: y\r\n z\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: local:1\r\nX: y\r\n z\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\n Host: evil\r\nHost: a\r\nX: y\r\n Host: evil\r\n\r\n",
                "GET / HTTP/1.1\r\n Host: local:1\r\nHost: local:1\r\nX: y\r\n Host: local:1\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\nHost:\r\n evil\r\n\r\n",
                "GET / HTTP/1.1\r\nHost:local:1\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost \t: evil\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: local:1\r\nHost \t: local:1\r\n\r\n",
            ),
            (
                "GET http://u:p@evil:1/a?b HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://local:1/a?b HTTP/1.1\r\nHost: local:1\r\n\r\n",
            ),
            (
                "GET HTTPS://evil?b HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET HTTPS://local:1?b HTTP/1.1\r\nHost: local:1\r\n\r\n",
            ),
            (
                "GET /a://b/ HTTP/1.1\r\nX-Host: a\r\nHosts: b\r\n\r\n",
                "GET /a://b/ HTTP/1.1\r\nX-Host: a\r\nHosts: b\r\n\r\n",
            ),
        ] {
            assert_eq!(rewritten(head), becomes);
        }
    }

    #[test]
    fn what_others_could_read_otherwise_is_bad() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\rHost: evil\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\rHost: evil\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(MAX)),
        ] {
            let scan = scan(head.as_bytes(), false);
            assert!(matches!(scan, Scan::Bad(_)), "{head:?}: {scan:?}");
        }
    }

    #[test]
    fn a_head_that_breaks_off_is_rewritten_too() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nHost: evil";
        let Scan::Hosts(hosts) = scan(head, true) else {
            panic!("it has ended");
        };
        let mut head = head.to_vec();
        rewrite(&mut head, &hosts, "b");
        assert_eq!(head, b"GET / HTTP/1.1\r\nHost: b\r\nHost: b");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            line in "(GET|G) [a-z:/?# ]{0,12} ?HTTP/1.1\r\n( |Host ?:)?",
            ended: bool,
        ) {
            let mut text = [line.as_bytes(), &bytes[..]].concat();
            if let Scan::Hosts(hosts) = scan(&text, ended) {
                let mut before = 0;
                for host in &hosts {
                    prop_assert!(before <= host.start && host.start <= host.end);
                    before = host.end;
                }
                prop_assert!(before <= text.len());
                rewrite(&mut text, &hosts, "local");
            }
        }
    }
}
