//! The identity of a server: its certificate and key, from files or made by gt. Not their use in
//! handshakes.

use super::self_signed::self_signed;
use super::verify::public_key;
use super::{fill_random, invalid, pem};
#[cfg(feature = "quic")]
use crate::config::Secret;
use crate::keys::Fingerprint;
use crate::state_dir::{self, StateDir, IDENTITY as FILE};
use async_tls::pki_types::pem::PemObject;
use async_tls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_ASN1_SIGNING};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Time that another process has to make the identity.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The certificate of a server, with those that lead from it to an authority, and its private key.
pub struct ServerIdentity {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// The certificate and the key, for errors.
    pub(super) name: String,
}

impl ServerIdentity {
    /// Reads certificate and key from two PEM files. The error names the file and its fault.
    pub fn from_files(cert_file: &Path, key_file: &Path) -> io::Result<Self> {
        Ok(Self {
            certificates: pem::certificates(cert_file)?,
            key: pem::private_key(key_file)?,
            name: format!(
                "the certificate {} with the key {}",
                cert_file.display(),
                key_file.display()
            ),
        })
    }

    /// Returns the identity that a server has made and keeps in this directory; makes it if there is
    /// none. An unusable file stays as it is. The error names it.
    pub fn in_directory(path: &Path) -> io::Result<Self> {
        let state = StateDir::open(path)?;
        for warning in state_dir::writable_by_others(path) {
            log::warn!("{warning}");
        }
        if let Some(made) = Self::read(&state)? {
            return Ok(made);
        }
        let _lock = state.lock(LOCK_PATIENCE)?;
        // Another process may have made it meanwhile.
        if let Some(made) = Self::read(&state)? {
            return Ok(made);
        }
        let made = Self::new()?;
        state.write(FILE, made.to_text().as_bytes())?;
        Ok(Self {
            name: name_of(&state.file(FILE)),
            ..made
        })
    }

    /// Returns the identity that a server has made before and keeps in this directory; `None` if it
    /// has made none. Changes nothing.
    pub fn made_in(path: &Path) -> io::Result<Option<Self>> {
        match path.exists() {
            true => Self::read(&StateDir::open(path)?),
            false => Ok(None),
        }
    }

    /// Returns the identity that this server uses, and keeps in this directory. Fails if it is not there any
    /// more. Changes nothing.
    pub fn kept_in(path: &Path) -> io::Result<Self> {
        Self::made_in(path)?.ok_or_else(|| {
            let text = format!(
                "{} with the key of this server is missing: restore it (is the directory mounted?), or restart gt \
                 to get another key, which clients with remoteKey refuse until they are told of it",
                path.join(FILE).display()
            );
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    fn read(state: &StateDir) -> io::Result<Option<Self>> {
        let file = state.file(FILE);
        let Some(text) = state.read(FILE)? else {
            return Ok(None);
        };
        let made = Self::from_text(&text, &file).ok_or_else(|| {
            invalid(format!(
                "{} is not what gt has written there; restore it, or delete it to get another \
                 key, which clients with remoteKey refuse until they are told of it",
                file.display()
            ))
        });
        made.map(Some)
    }

    /// Makes a key and a certificate for it, which exist in memory only.
    pub fn new() -> io::Result<Self> {
        let failed = |_| io::Error::other("making a key: the system has no random numbers");
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
            .map_err(|e| io::Error::other(format!("making a key: {e}")))?;
        let mut serial = [0; 16];
        fill_random(&mut serial)?;
        let sign = |signed: &[u8]| {
            let signature = key.sign(&random, signed).map_err(failed)?;
            Ok::<_, io::Error>(signature.as_ref().to_vec())
        };
        let certificate = self_signed(key.public_key().as_ref(), serial, sign)?;
        Ok(Self {
            certificates: vec![certificate.into()],
            key: PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()).into(),
            name: "the certificate that gt has made".to_owned(),
        })
    }

    /// Returns the fingerprint of the key, for `remoteKey`. Fails if the certificate cannot be read.
    pub fn fingerprint(&self) -> io::Result<Fingerprint> {
        let first = self.certificates.first();
        let key = first.and_then(public_key);
        let fingerprint = key.map(|key| Fingerprint::of(key.as_ref()));
        fingerprint.ok_or_else(|| invalid(format!("reading the key of {}", self.name)))
    }

    /// Returns the same identity once more.
    pub fn again(&self) -> Self {
        let (certificates, key) = self.parts();
        Self {
            certificates,
            key,
            name: self.name.clone(),
        }
    }

    /// Returns the certificates, the server's own first, and the key, for another kind of TLS.
    pub fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.certificates.clone(), self.key.clone_key())
    }

    /// Uses a certificate that gt has made before, and its key, both in DER. The error says which is
    /// invalid.
    #[cfg(feature = "quic")]
    pub fn from_der(certificate: &[u8], key: &[u8]) -> io::Result<Self> {
        let name = "the certificate that gt has made".to_owned();
        let key = PrivateKeyDer::try_from(key.to_vec());
        Ok(Self {
            certificates: vec![certificate.to_vec().into()],
            key: key.map_err(|e| invalid(format!("using {name}: {e}")))?,
            name,
        })
    }

    /// Returns the certificate and the key in DER, for [`ServerIdentity::from_der`].
    #[cfg(feature = "quic")]
    pub fn to_der(&self) -> io::Result<(Vec<u8>, Secret)> {
        let none = || invalid(format!("{} is none", self.name));
        let certificate = self.certificates.first().ok_or_else(none)?.to_vec();
        Ok((certificate, Secret::new(self.key.secret_der().to_vec())))
    }

    fn from_text(text: &[u8], file: &Path) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(text).ok()?;
        Some(Self {
            certificates: vec![certificate],
            key: PrivateKeyDer::from_pem_slice(text).ok()?,
            name: name_of(file),
        })
    }

    /// Returns certificate and key as PEM: one file, so that they always belong together.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for certificate in &self.certificates {
            text.push_str(&pem::pem_of("CERTIFICATE", certificate));
        }
        text.push_str(&pem::pem_of("PRIVATE KEY", self.key.secret_der()));
        text
    }
}

fn name_of(file: &Path) -> String {
    format!("the certificate and the key in {}", file.display())
}

#[cfg(test)]
mod tests {
    use super::super::{Acceptor, ClientCertificates, MinVersion};
    use super::*;
    use crate::state_dir::scratch;
    use std::fs;

    #[test]
    fn a_server_keeps_the_identity_that_it_has_made() {
        let path = scratch("identity-kept");
        let made = ServerIdentity::in_directory(&path).unwrap();
        let kept = ServerIdentity::in_directory(&path).unwrap();
        assert_eq!(made.certificates, kept.certificates);
        assert_eq!(made.key, kept.key);
        assert_eq!(made.fingerprint().unwrap(), kept.fingerprint().unwrap());
        let other = ServerIdentity::new().unwrap();
        assert_ne!(made.fingerprint().unwrap(), other.fingerprint().unwrap());
        assert!(Acceptor::new(kept, MinVersion::Tls13, ClientCertificates::Unasked, None).is_ok());
        fs::remove_dir_all(&path).unwrap();
    }

    #[cfg(feature = "quic")]
    #[test]
    fn an_identity_survives_der() {
        let made = ServerIdentity::new().unwrap();
        let (certificate, key) = made.to_der().unwrap();
        let same = ServerIdentity::from_der(&certificate, key.as_bytes()).unwrap();
        assert_eq!(made.fingerprint().unwrap(), same.fingerprint().unwrap());
        assert!(Acceptor::new(same, MinVersion::Tls13, ClientCertificates::Unasked, None).is_ok());
        assert!(ServerIdentity::from_der(&certificate, b"no key").is_err());
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_is_not_replaced() {
        let path = scratch("identity-damaged");
        ServerIdentity::in_directory(&path).unwrap();
        let file = path.join(FILE);
        let whole = fs::read(&file).unwrap();
        for cut in [0, 30, whole.len() / 2, whole.len() - 20] {
            fs::write(&file, &whole[..cut]).unwrap();
            let why = ServerIdentity::in_directory(&path)
                .err()
                .unwrap()
                .to_string();
            assert!(why.contains("delete it to get another key"), "{why}");
            assert_eq!(fs::read(&file).unwrap(), &whole[..cut]);
        }
        fs::remove_dir_all(&path).unwrap();
    }
}
