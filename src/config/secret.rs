//! Secrets in memory and in messages. Not their generation or exchange.

use std::fmt;

use subtle::ConstantTimeEq;

use super::value::Scalar;

/// A secret that prints as `******` and is compared in constant time.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Creates a secret from any bytes. The wire carries 1 to 200 of them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Secret(bytes.into())
    }

    /// Returns the bytes of the secret, for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        // In constant time for secrets of one length. The length itself may show.
        self.0.as_slice().ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

/// Masks possible passwords and keys in a URL, which may be mistyped: the part before an `@`, and
/// the query. `file://` paths have neither part and stay as they are.
pub(super) fn redact(text: &str) -> String {
    const VEIL: &str = "******";
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("file") => return text.to_owned(),
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let end = if query.is_some() { "?******" } else { "" };
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}{VEIL}@{rest}{end}"),
        // The question mark may be part of a password.
        None if query.is_some_and(|query| query.contains('@')) => format!("{scheme}{VEIL}{end}"),
        None => format!("{scheme}{rest}{end}"),
    }
}

impl Scalar for Secret {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Secret::new(text))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// URLs with a scheme, and how they print.
    pub const URLS: [(&str, &str); 6] = [
        ("http://h:80/x", "http://h:80/x"),
        ("https://u:p@h/x?token=p#p", "https://******@h/x?******"),
        ("https://u:p/p@h/x", "https://******@h/x"),
        ("https://u:p@p@h/x", "https://******@h/x"),
        ("https://u:p?p@h/x", "https://******?******"),
        ("file:///a@b?c", "file:///a@b?c"),
    ];

    #[test]
    fn a_secret_prints_masked() {
        let secret = Secret::new("hush");
        assert_eq!(format!("{secret} {secret:?}"), "****** ******");
        assert_eq!(secret.as_bytes(), b"hush");
    }

    #[test]
    fn a_url_prints_without_passwords() {
        let without_scheme = [("u:p@h", "******@h"), ("h:80", "h:80")];
        for (url, text) in URLS.into_iter().chain(without_scheme) {
            assert_eq!(redact(url), text);
        }
    }

    #[test]
    fn secrets_are_equal_when_every_byte_is() {
        assert_eq!(Secret::new("hush"), Secret::new(*b"hush"));
        assert_ne!(Secret::new("hush"), Secret::new("husk"));
        assert_ne!(Secret::new("hush"), Secret::new("hus"));
    }
}
