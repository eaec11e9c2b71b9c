//! The verification of a server's certificate by a client.

use super::{invalid, rustls};
use async_tls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
    CryptoProvider,
};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::sync::Arc;

/// A verifier that checks that the peer holds the key of its certificate, and the certificate
/// itself.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    accepts: AcceptedCerts,
}

#[derive(Debug)]
enum AcceptedCerts {
    Anybody,
    /// Known certificates, and others that they have signed. An exact match needs no name and no
    /// valid date: the user has named this server's certificate. Self-signed certificates are often
    /// authorities too, which the chain check alone refuses.
    Known {
        exact: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
    },
}

pub(super) fn anybody(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier {
        provider: provider.clone(),
        accepts: AcceptedCerts::Anybody,
    })
}

/// Creates a verifier that accepts certificates signed by these system authorities. Unreadable
/// authorities are skipped: system stores contain some.
pub(super) fn authorities(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    known(Vec::new(), &authorities, provider)
}

/// Creates a verifier that accepts these certificates, whatever they contain, and certificates
/// signed by them.
pub(super) fn these(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    let authorities = certificates.clone();
    known(certificates, &authorities, provider)
}

fn known(
    exact: Vec<CertificateDer<'static>>,
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    if roots.is_empty() {
        let why = "using the trusted certificates: none of them can be read";
        return Err(invalid(why.to_owned()));
    }
    Ok(Arc::new(Verifier {
        provider: provider.clone(),
        accepts: AcceptedCerts::Known { exact, roots },
    }))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.accepts {
            AcceptedCerts::Anybody => Ok(ServerCertVerified::assertion()),
            AcceptedCerts::Known { exact, .. } if exact.contains(end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            // Does what rustls's own verifier does, except for revocation lists, of which there are
            // none.
            AcceptedCerts::Known { roots, .. } => {
                let cert = ParsedCertificate::try_from(end_entity)?;
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &cert,
                    roots,
                    intermediates,
                    now,
                    algorithms,
                )?;
                verify_server_name(&cert, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match version1_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, algorithms),
            None => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Returns the public key of a certificate of any version; `None` if it cannot be read.
pub(super) fn public_key(cert: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    match ParsedCertificate::try_from(cert) {
        Ok(parsed) => Some(parsed.subject_public_key_info()),
        Err(_) => version1_key(cert),
    }
}

/// Returns the public key of an X.509 version 1 certificate, of which rustls reads only the name
/// and the key; `None` for other versions. Scripts with `openssl x509 -req` create such
/// certificates.
pub(super) fn version1_key(cert: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    // The certificate and its signed part are sequences; an integer, the serial number, comes first
    // only where there is no version (RFC 5280, section 4.1).
    let (0x30, rest) = element(cert.as_ref())? else {
        return None;
    };
    let (0x30, rest) = element(rest)? else {
        return None;
    };
    let (0x02, _) = element(rest)? else {
        return None;
    };
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone().into_owned()).ok()?;
    let key = &roots.roots.first()?.subject_public_key_info;
    Some(sequence(key).into())
}

/// Returns the tag of the DER element that `der` begins with, and the bytes behind its length.
fn element(der: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let more = match length {
        0x81..=0x84 => usize::from(length & 0x7F),
        _ => 0,
    };
    Some((*tag, rest.get(more..)?))
}

/// Encodes `content` as a DER sequence.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let leading = length.iter().take_while(|byte| **byte == 0).count();
    let length = length.get(leading..).unwrap_or_default();
    let mut der = vec![0x30];
    if content.len() > 0x7F {
        // At most eight bytes.
        der.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
    }
    der.extend_from_slice(length);
    der.extend_from_slice(content);
    der
}
