//! Which server certificates a client accepts.

use super::{invalid, rustls};
use async_tls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::sync::Arc;

/// Checks that the peer holds the key of its certificate, and then the certificate.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    accepts: Accepts,
}

#[derive(Debug)]
enum Accepts {
    Anybody,
    /// One of these very certificates, or one that these have signed. An exact match needs
    /// no name and no date: the user has said that this is the server. Self-signed
    /// certificates are mostly authorities too, which the chain check alone refuses.
    Known {
        exact: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
    },
}

pub(super) fn anybody(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier {
        provider: provider.clone(),
        accepts: Accepts::Anybody,
    })
}

/// Accepts what `certificates` vouch for. Those that cannot be read are passed over: system
/// stores have some.
pub(super) fn authorities(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        let why = "using the trusted certificates: none of them can be read";
        return Err(invalid(why.to_owned()));
    }
    // A store of the system is authorities only, and large.
    let exact = if certificates.len() <= 16 {
        certificates
    } else {
        Vec::new()
    };
    Ok(Arc::new(Verifier {
        provider: provider.clone(),
        accepts: Accepts::Known { exact, roots },
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
            Accepts::Anybody => Ok(ServerCertVerified::assertion()),
            Accepts::Known { exact, .. } if exact.contains(end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            // What rustls's own verifier does but for revocation lists, which there are none of.
            Accepts::Known { roots, .. } => {
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
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
