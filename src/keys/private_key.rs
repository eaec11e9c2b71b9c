//! The private key of a client and its file. Not what it signs, see `login`.

use super::public_key::{PublicKey, Signature, PUBLIC_KEY, SIGNATURE};
use crate::net::tls;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fmt, iter};

/// What precedes the 32 bytes of a key of Ed25519 in PKCS #8 (RFC 8410, section 7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

/// A private key of Ed25519. Does not print.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
    /// The key in PKCS #8, of a key that was generated.
    der: Vec<u8>,
}

impl PrivateKey {
    /// Generates a key. Fails if the system has no random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut der = PKCS8.to_vec();
        let mut seed = [0; 32];
        tls::fill_random(&mut seed)?;
        der.extend_from_slice(&seed);
        Self::from_der(der).ok_or_else(|| io::Error::other("a key could not be made"))
    }

    /// Reads a key from a PEM file: one of `gt keygen`, or of openssl's Ed25519. The error names the file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let der = tls::private_key_in(path)?;
        Self::from_der(der).ok_or_else(|| {
            let text = format!(
                "reading the key from {}: it is not a key of Ed25519; make one by gt keygen",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    fn from_der(der: Vec<u8>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()?;
        Some(Self { pair, der })
    }

    /// Writes the key into a new file with mode 0600. An existing file stays as it is. The error names
    /// the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let explain = |e: io::Error| {
            let text = match e.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("{} exists already and stays as it is", path.display())
                }
                _ => format!("writing {}: {e}", path.display()),
            };
            io::Error::new(e.kind(), text)
        };
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).map_err(explain)?;
        let text = tls::pem_of("PRIVATE KEY", &self.der);
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        written.map_err(|e| {
            // The incomplete file is useless, and would make the next attempt fail.
            let _ = fs::remove_file(path);
            explain(e)
        })
    }

    /// Returns the public key.
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_KEY];
        copy(&mut bytes, self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        let mut bytes = [0; SIGNATURE];
        copy(&mut bytes, self.pair.sign(message).as_ref());
        bytes
    }
}

/// Copies bytes between arrays of one length.
fn copy(to: &mut [u8], from: &[u8]) {
    iter::zip(to, from).for_each(|(to, from)| *to = *from);
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_written_for_its_owner_and_never_over_a_file() {
        let name = format!("gt-private-key-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&path);
        let key = PrivateKey::generate().unwrap();
        key.write(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = PrivateKey::read(&path).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(read.sign(b"message"), key.sign(b"message"));
        let other = PrivateKey::generate().unwrap();
        let why = other.write(&path).unwrap_err().to_string();
        assert_eq!(
            why,
            format!("{} exists already and stays as it is", path.display())
        );
        assert_eq!(
            PrivateKey::read(&path).unwrap().public_key(),
            key.public_key()
        );
        fs::write(&path, "no key").unwrap();
        let why = PrivateKey::read(&path).unwrap_err().to_string();
        assert!(why.contains("there is no PEM key in it"), "{why}");
        fs::remove_file(&path).unwrap();
    }
}
