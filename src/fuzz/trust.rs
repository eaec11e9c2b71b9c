//! Fuzz entries for keys and the subjects of certificates.

use crate::keys::{AuthorizedKey, Fingerprint};

/// Parses the line of a public key, and a fingerprint.
pub fn keys(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<AuthorizedKey>() {
        Ok(read) => {
            let line = format!("{} {}", read.key, read.comment);
            assert_eq!(line.parse::<AuthorizedKey>(), Ok(read));
        }
        // The error does not quote the line.
        Err(why) => assert!(why.len() < 200),
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
}

/// Writes the name in a certificate as text.
#[cfg(feature = "server")]
pub fn subjects(data: &[u8]) {
    use crate::wire::origin::MAX_SUBJECT;
    if let Some(text) = crate::net::tls::subject::text(data) {
        assert!((1..=MAX_SUBJECT).contains(&text.len()));
        assert!(
            text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{text:?}"
        );
        assert!(text.contains('='));
    }
}
