//! A secret that does not show itself. Not how it is agreed on, made up or sent.

use std::fmt;
use std::hint::black_box;

use super::value::Scalar;

/// Prints as `******` and compares in a time that does not tell how much of it was right.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Any bytes; the wire takes 1 to 200 of them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Secret(bytes.into())
    }

    /// The secret itself, for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        // The length may show: it says nothing about the bytes.
        if self.0.len() != other.0.len() {
            return false;
        }
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        difference == 0
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

impl Scalar for Secret {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Secret::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_itself() {
        let secret = Secret::new("hush");
        assert_eq!(format!("{secret} {secret:?}"), "****** ******");
        assert_eq!(secret.as_bytes(), b"hush");
    }

    #[test]
    fn secrets_are_equal_when_every_byte_is() {
        assert_eq!(Secret::new("hush"), Secret::new(*b"hush"));
        assert_ne!(Secret::new("hush"), Secret::new("husk"));
        assert_ne!(Secret::new("hush"), Secret::new("hus"));
    }
}
