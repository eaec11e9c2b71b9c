//! Parsing of a request's target into names below the shared folder. Does not access the disk.

use super::status::{self, FileStatus};
use crate::net::http::percent;

/// The path that a request names. No name in it is empty, begins with a dot, or contains a slash or
/// a NUL: `..` and hidden files are excluded here, however they are spelled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestTarget {
    /// The names, joined by `/`; empty for the shared folder itself.
    pub(crate) path: Vec<u8>,
    /// Whether the target ends in `/` and so means a folder.
    pub(crate) folder: bool,
}

impl RequestTarget {
    /// Parses a request target in origin form (`/a/b?query`) or absolute form (`http://host/a/b`);
    /// `*` and `host:port` name no file and get 400.
    pub(crate) fn parse(target: &[u8]) -> Result<RequestTarget, FileStatus> {
        let raw = before(origin_form(target)?, b'?');
        let mut path = Vec::with_capacity(raw.len());
        for raw in raw
            .split(|byte| *byte == b'/')
            .filter(|raw| !raw.is_empty())
        {
            if !path.is_empty() {
                path.push(b'/');
            }
            let start = path.len();
            percent::decode(raw, &mut path).ok_or(status::BAD_REQUEST)?;
            let name = path.get(start..).unwrap_or_default();
            if name.starts_with(b".") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
                return Err(status::NOT_FOUND);
            }
        }
        Ok(RequestTarget {
            path,
            folder: raw.ends_with(b"/"),
        })
    }

    /// Returns the last name, for a redirect relative to the request's folder.
    pub(crate) fn last_name(&self) -> &[u8] {
        self.path
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default()
    }
}

/// Returns the query of a target with its `?`; empty if there is none or it is not plain ASCII.
pub(crate) fn query(target: &[u8]) -> &str {
    let query = target.get(before(target, b'?').len()..).unwrap_or_default();
    std::str::from_utf8(query)
        .ok()
        .filter(|query| query.bytes().all(|byte| byte.is_ascii_graphic()))
        .unwrap_or_default()
}

fn origin_form(target: &[u8]) -> Result<&[u8], FileStatus> {
    if target.starts_with(b"/") {
        return Ok(target);
    }
    for scheme in [b"http://".as_slice(), b"https://"] {
        match target.split_at_checked(scheme.len()) {
            Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => {
                let at = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
                return match at.and_then(|at| rest.get(at..)) {
                    Some(path) if path.starts_with(b"/") => Ok(path),
                    _ => Ok(b"/"),
                };
            }
            _ => {}
        }
    }
    Err(status::BAD_REQUEST)
}

fn before(text: &[u8], stop: u8) -> &[u8] {
    text.split(|byte| *byte == stop).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(target: &str) -> Result<(String, bool), u16> {
        let target = RequestTarget::parse(target.as_bytes()).map_err(|status| status.code)?;
        Ok((target.path.escape_ascii().to_string(), target.folder))
    }

    #[test]
    fn names_are_decoded_and_joined() {
        for (target, names, folder) in [
            ("/", "", true),
            ("/a/b.txt", "a/b.txt", false),
            ("/a%20b/%E4%BD%a0/", "a b/\\xe4\\xbd\\xa0", true),
            ("//a///b", "a/b", false),
            ("/a?b=/../c", "a", false),
            ("/a%3Fb", "a?b", false),
            ("/a\\..\\b", "a\\\\..\\\\b", false),
            ("http://host", "", true),
            ("HTTPS://host:1/a/?b", "a", true),
            ("http://host?/a", "", true),
        ] {
            assert_eq!(path(target), Ok((names.to_string(), folder)), "{target}");
        }
    }

    #[test]
    fn parents_hidden_names_and_encoded_slashes_are_not_found() {
        for target in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/.%2E/a",
            "/.",
            "/a/./b",
            "/.git/config",
            "/%2egit",
            "/a%2fb",
            "/a%2F..%2Fb",
            "/%2f",
            "/a%00",
            "/a%00.txt",
            "http://host/../a",
        ] {
            assert_eq!(path(target), Err(404), "{target}");
        }
    }

    #[test]
    fn a_target_without_a_path_is_a_bad_request() {
        for target in [
            "",
            "*",
            "host:80",
            "a/b",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "ftp://host/a",
        ] {
            assert_eq!(path(target), Err(400), "{target}");
        }
    }

    #[test]
    fn only_a_plain_query_is_passed_on() {
        assert_eq!(query(b"/a?b=c&d"), "?b=c&d");
        assert_eq!(query(b"/a"), "");
        assert_eq!(query(b"/a?\xff"), "");
        assert_eq!(query(b"/a?b\r\nc"), "");
    }

    proptest! {
        #[test]
        fn an_encoded_name_is_one_segment_and_decodes_to_itself(name: Vec<u8>) {
            let mut text = String::new();
            percent::encode(&name, &mut text);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            let mut back = Vec::new();
            prop_assert!(percent::decode(text.as_bytes(), &mut back).is_some());
            prop_assert_eq!(back, name);
        }

        #[test]
        fn no_target_yields_a_name_that_leads_up(target in "[/.%2eEfF5cC\\\\a\u{c0}?]{0,24}") {
            if let Ok(RequestTarget { path, .. }) = RequestTarget::parse(target.as_bytes()) {
                prop_assert!(!path.starts_with(b"/") && !path.contains(&0));
                if !path.is_empty() {
                    let mut names = path.split(|byte| *byte == b'/');
                    prop_assert!(names.all(|name| !name.is_empty() && !name.starts_with(b".")));
                }
            }
        }
    }
}
