//! The fingerprint of a server's key: what `remoteKey` pins. Not the certificate around the key.

use crate::encoding::BASE64;
use base64::Engine;
use ring::digest::{digest, SHA256};
use std::fmt;
use std::str::FromStr;

/// What a fingerprint begins with.
const PREFIX: &str = "SHA256:";

/// The SHA-256 digest of a public key, as a SubjectPublicKeyInfo in DER (RFC 5280, section 4.1).
/// Prints as `SHA256:` and base64 without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a public key, a SubjectPublicKeyInfo in DER.
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        // Both have 32 bytes.
        let digest = digest(&SHA256, key);
        bytes
            .iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digest = text.strip_prefix(PREFIX).ok_or(())?;
        let digest = BASE64.decode(digest).map_err(drop)?;
        digest.try_into().map(Self).map_err(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_printed() {
        let fingerprint = Fingerprint([7; 32]);
        let text = fingerprint.to_string();
        assert_eq!(text, "SHA256:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(format!("{text}=").parse(), Ok(fingerprint));
        for wrong in [
            "",
            "SHA256:",
            "SHA256:BwcH",
            "sha1:BwcH",
            &text[7..],
            &format!("{text}AAAA"),
        ] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(()), "{wrong}");
        }
    }
}
