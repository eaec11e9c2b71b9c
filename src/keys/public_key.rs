//! The public key of a client, as a line of text and as bytes. Not what it signs, see `login`.

use crate::encoding::BASE64;
use base64::Engine;
use ring::signature::{UnparsedPublicKey, ED25519};
use std::fmt;
use std::str::FromStr;

/// Length of a public key in bytes (RFC 8032, section 5.1.5).
pub const PUBLIC_KEY: usize = 32;
/// Length of a signature in bytes (RFC 8032, section 5.1.6).
pub const SIGNATURE: usize = 64;
/// What the text of a key begins with.
const NAME: &str = "gt-ed25519";

/// A signature of Ed25519.
pub type Signature = [u8; SIGNATURE];

/// A public key of Ed25519. Prints as `gt-ed25519` and base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; PUBLIC_KEY]);

impl PublicKey {
    /// Whether this key has signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME} {}", BASE64.encode(self.0))
    }
}

/// A public key with the comment of its line, which names its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// The key.
    pub key: PublicKey,
    /// What follows the key in its line; may be empty.
    pub comment: Box<str>,
}

impl FromStr for AuthorizedKey {
    type Err = String;

    /// Reads a line as `gt keygen` prints it. The error is a sentence.
    fn from_str(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        let (key, comment) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if line.contains("PRIVATE") {
            // The error does not quote the line: a private key must not appear in a log.
            return Err("This is a private key: write the line that gt keygen printed.".to_owned());
        }
        if name != NAME {
            let what = match name.starts_with("ssh-") || name.starts_with("ecdsa-") {
                true => "is a key of SSH",
                false => "is not the public key of a client",
            };
            return Err(format!(
                "\"{line}\" {what}: write the line that gt keygen printed, {NAME} and 43 characters."
            ));
        }
        let bytes = BASE64.decode(key).ok();
        let bytes = bytes.and_then(|bytes| <[u8; PUBLIC_KEY]>::try_from(bytes).ok());
        let key = bytes.map(PublicKey).ok_or_else(|| {
            format!("\"{line}\" is cut or mistyped: write the whole line that gt keygen printed.")
        })?;
        Ok(Self {
            key,
            comment: comment.trim().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_its_comment() {
        let key = PublicKey([7; PUBLIC_KEY]);
        let text = "gt-ed25519 BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
        assert_eq!(key.to_string(), text);
        for (line, comment) in [
            (text.to_owned(), ""),
            (format!(" {text}=\n"), ""),
            (format!("{text}  the router at home "), "the router at home"),
        ] {
            let comment = comment.into();
            assert_eq!(line.parse(), Ok(AuthorizedKey { key, comment }), "{line}");
        }
    }

    #[test]
    fn an_error_says_what_a_line_is_instead() {
        for (line, why) in [
            ("", "is not the public key"),
            ("gt-ed25519", "cut or mistyped"),
            ("gt-ed25519 BwcHBwcHBwc", "cut or mistyped"),
            (
                "gt-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJj0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                "cut",
            ),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJj0 me@home",
                "a key of SSH",
            ),
            ("-----BEGIN PRIVATE KEY----- MC4C", "This is a private key"),
        ] {
            let error = line.parse::<AuthorizedKey>().unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
