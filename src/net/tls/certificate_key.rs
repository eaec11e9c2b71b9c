//! The key of a server as authorities certify it: requests for certificates (RFC 2986), and the
//! certificates that answer them. Not how requests are sent.

use super::certificate_facts::CertificateFacts;
use super::der::{tlv, BIT_STRING, ECDSA_WITH_SHA256, INTEGER, SEQUENCE, SET};
use super::named::NamedCertificate;
use super::{invalid, provider, rustls, ServerIdentity};
use async_tls::pki_types::pem::PemObject;
use async_tls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::SignatureScheme;
use std::io;
use std::sync::Arc;

/// Object identifiers in DER: extensionRequest, subjectAltName, ecdsa-with-SHA384, sha256WithRSAEncryption.
const EXTENSION_REQUEST: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
pub(super) const SUBJECT_ALT_NAME: &[u8] = &[6, 3, 0x55, 0x1d, 17];
const ECDSA_WITH_SHA384: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const SHA256_WITH_RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];

/// The tag of attributes in a request.
const ATTRIBUTES: u8 = 0xa0;
pub(super) const OCTET_STRING: u8 = 4;
/// The tag of a dNSName in a subjectAltName (RFC 5280, section 4.2.1.6).
pub(super) const DNS_NAME: u8 = 0x82;
const NULL: &[u8] = &[5, 0];

/// Maximum number of certificates from the server's to an authority.
const MAX_CHAIN: usize = 10;

/// The private key of a server.
#[derive(Debug, Clone)]
pub struct CertificateKey(Arc<dyn SigningKey>);

/// A certificate that an authority has issued for the key, with those that lead to the authority.
pub struct IssuedCertificate {
    /// What the certificate tells.
    pub facts: CertificateFacts,
    /// The certificate for handshakes.
    pub named: NamedCertificate,
}

impl CertificateKey {
    /// Takes the key of an identity. The error says why it cannot be used.
    pub fn of(identity: &ServerIdentity) -> io::Result<Self> {
        let loaded = provider().key_provider.load_private_key(identity.parts().1);
        let key = Self(loaded.map_err(|e| invalid(format!("using {}: {e}", identity.name)))?);
        match key.scheme().is_some() && key.public_key().is_some() {
            true => Ok(key),
            false => Err(invalid(format!(
                "{}: authorities certify keys of RSA and of ECDSA on P-256 and P-384, which this is not",
                identity.name
            ))),
        }
    }

    fn scheme(&self) -> Option<Box<dyn rustls::sign::Signer>> {
        self.0.choose_scheme(&[
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PKCS1_SHA256,
        ])
    }

    fn public_key(&self) -> Option<Vec<u8>> {
        Some(self.0.public_key()?.as_ref().to_vec())
    }

    /// Creates a request for a certificate of this key for `name` (RFC 8555, section 7.4), in DER.
    pub fn request(&self, name: &str) -> io::Result<Vec<u8>> {
        let failed = || {
            invalid(format!(
                "requesting a certificate for {name}: the key cannot sign"
            ))
        };
        let signer = self.scheme().ok_or_else(failed)?;
        let algorithm = match signer.scheme() {
            SignatureScheme::ECDSA_NISTP256_SHA256 => tlv(SEQUENCE, &[ECDSA_WITH_SHA256]),
            SignatureScheme::ECDSA_NISTP384_SHA384 => tlv(SEQUENCE, &[ECDSA_WITH_SHA384]),
            _ => tlv(SEQUENCE, &[SHA256_WITH_RSA, NULL]),
        };
        let extensions = tlv(SEQUENCE, &[&alternative_name(name)]);
        let attribute = tlv(SEQUENCE, &[EXTENSION_REQUEST, &tlv(SET, &[&extensions])]);
        let signed = tlv(
            SEQUENCE,
            &[
                &tlv(INTEGER, &[&[0]]),
                // The name is in the extension.
                &tlv(SEQUENCE, &[]),
                &self.public_key().ok_or_else(failed)?,
                &tlv(ATTRIBUTES, &[&attribute]),
            ],
        );
        let signature = signer.sign(&signed).map_err(|_| failed())?;
        let signature = tlv(BIT_STRING, &[&[0], &signature]);
        Ok(tlv(SEQUENCE, &[&signed, &algorithm, &signature]))
    }

    /// Reads the certificates of an answer, in PEM, the one for `name` first. The error says what is wrong
    /// with them; their dates are not checked.
    pub fn accept(&self, name: &str, pem: &[u8]) -> Result<IssuedCertificate, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .take(MAX_CHAIN.saturating_add(1))
            .collect::<Result<_, _>>()
            .map_err(|e| format!("the certificate is not PEM: {e}"))?;
        if chain.len() > MAX_CHAIN {
            return Err(format!("there are more than {MAX_CHAIN} certificates"));
        }
        let first = chain.first().ok_or("there is no PEM certificate in it")?;
        let facts = CertificateFacts::read(first).ok_or("the certificate cannot be read")?;
        if !facts.names.iter().any(|other| other == name) {
            return Err(format!("the certificate is not for {name}"));
        }
        if self.public_key().as_deref() != Some(&facts.public_key) {
            return Err("the certificate is for another key".to_owned());
        }
        let named = NamedCertificate(Arc::new(CertifiedKey::new(chain, self.0.clone())));
        Ok(IssuedCertificate { facts, named })
    }
}

/// Returns the first certificate in PEM, in DER; `None` without one.
pub fn first_certificate(pem: &[u8]) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem).ok()
}

/// Returns the extension subjectAltName with one name.
pub(super) fn alternative_name(name: &str) -> Vec<u8> {
    let names = tlv(SEQUENCE, &[&tlv(DNS_NAME, &[name.as_bytes()])]);
    tlv(SEQUENCE, &[SUBJECT_ALT_NAME, &tlv(OCTET_STRING, &[&names])])
}
