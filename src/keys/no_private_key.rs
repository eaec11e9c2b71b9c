//! The stub of `private_key` in builds without the feature `keys`: there is no key, and none can be made.

use super::public_key::{PublicKey, Signature};
use std::io;
use std::path::Path;

/// A private key, of which there is none.
#[derive(Debug)]
pub enum PrivateKey {}

impl PrivateKey {
    /// Fails.
    pub fn generate() -> io::Result<Self> {
        Err(missing())
    }

    /// Fails.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = format!("reading the key from {}: {}", path.display(), missing());
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    /// Cannot be called.
    pub fn write(&self, _: &Path) -> io::Result<()> {
        match *self {}
    }

    /// Cannot be called.
    pub fn public_key(&self) -> PublicKey {
        match *self {}
    }

    pub(super) fn sign(&self, _: &[u8]) -> Signature {
        match *self {}
    }
}

fn missing() -> io::Error {
    let why = "this gt was built without the feature keys; use a secret, or another build";
    io::Error::new(io::ErrorKind::Unsupported, why)
}
