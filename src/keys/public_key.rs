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
/// The encodings of the y coordinates of all points of small order, those above the prime among them.
const SMALL_ORDER: [[u8; PUBLIC_KEY]; 7] = [
    encoding(0x00, 0x00, 0x00),
    encoding(0x01, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    encoding(0xec, 0xff, 0x7f),
    encoding(0xed, 0xff, 0x7f),
    encoding(0xee, 0xff, 0x7f),
];
/// What the text of a key begins with.
const NAME: &str = "gt-ed25519";

/// Returns an encoding of this first, this last byte, and these between them.
const fn encoding(first: u8, between: u8, last: u8) -> [u8; PUBLIC_KEY] {
    let mut bytes = [between; PUBLIC_KEY];
    let [to_first, .., to_last] = &mut bytes;
    (*to_first, *to_last) = (first, last);
    bytes
}

/// A signature of Ed25519.
pub type Signature = [u8; SIGNATURE];

/// A public key of Ed25519. Prints as `gt-ed25519` and base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; PUBLIC_KEY]);

impl PublicKey {
    /// Whether the key has no owner: it is a point of small order, for which anyone can sign (RFC 8032 leaves the
    /// check to the application).
    fn is_of_small_order(&self) -> bool {
        let Self([rest @ .., last]) = self;
        // The highest bit is the sign of the other coordinate.
        let of_same_height =
            |[others @ .., end]: &[u8; PUBLIC_KEY]| rest == others && last & 0x7f == *end;
        SMALL_ORDER.iter().any(of_same_height)
    }

    /// Whether this key has signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        !self.is_of_small_order() && key.verify(message, signature).is_ok()
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

    /// Reads a line as `gt keygen` prints it. The error is a sentence without the line, which may be a private key.
    fn from_str(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.contains("PRIVATE") {
            return Err("This is a private key: write the line that gt keygen printed.".to_owned());
        }
        if line.contains(['\n', '\r']) {
            return Err(
                "A publicKey has several lines: write each key as an item of the list.".to_owned(),
            );
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        let (key, comment) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if name != NAME {
            let what = match name.starts_with("ssh-") || name.starts_with("ecdsa-") {
                true => "a key of SSH",
                false => "not the public key of a client",
            };
            return Err(format!(
                "This publicKey is {what}: write the line that gt keygen printed, {NAME} and 43 characters."
            ));
        }
        let bytes = BASE64.decode(key).ok();
        let bytes = bytes.and_then(|bytes| <[u8; PUBLIC_KEY]>::try_from(bytes).ok());
        let key = bytes.map(PublicKey).ok_or(
            "This publicKey is cut or mistyped: write the whole line that gt keygen printed.",
        )?;
        if key.is_of_small_order() {
            return Err(
                "This publicKey is one with which anyone could log in: make a key by gt keygen."
                    .to_owned(),
            );
        }
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
            ("MC4CAQAwBQYDK2VwBCIEIBwc", "is not the public key"),
            ("gt-ed25519 MC4CAQAwBQYDK2VwBCIEIBwc", "cut or mistyped"),
            ("gt-ed25519 A\ngt-ed25519 B", "several lines"),
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
            let key = line.split_whitespace().last().unwrap_or("none");
            assert!(!error.contains(key), "{line}: {error}");
        }
    }

    #[test]
    fn keys_with_which_anyone_could_sign_are_refused() {
        for key in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = key;
                bytes[PUBLIC_KEY - 1] |= sign;
                let line = PublicKey(bytes).to_string();
                let why = line.parse::<AuthorizedKey>().unwrap_err();
                assert!(why.contains("anyone"), "{line}: {why}");
            }
        }
        // The neutral element has signed everything, with itself and 0.
        let neutral = PublicKey(SMALL_ORDER[1]);
        let mut signature = [0; SIGNATURE];
        signature[0] = 1;
        let unchecked = UnparsedPublicKey::new(&ED25519, &neutral.0);
        assert!(unchecked.verify(b"message", &signature).is_ok());
        assert!(!neutral.has_signed(b"message", &signature));
    }
}
