//! The verification of a server's certificate by a client.

use super::known_servers::KnownServers;
use super::{invalid, rustls};
use crate::keys::Fingerprint;
use async_tls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
    CryptoProvider,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

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
    /// Certificates of these keys, whatever their names and dates.
    Keys(Vec<Fingerprint>),
    /// Certificates of the keys that are known for the host, and of any for one that is not known.
    FirstKey(KnownServers),
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

/// Creates a verifier that accepts certificates of these keys, whatever else they contain.
pub(super) fn keys(
    keys: &[Fingerprint],
    provider: &Arc<CryptoProvider>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier {
        provider: provider.clone(),
        accepts: AcceptedCerts::Keys(keys.to_vec()),
    })
}

/// Creates a verifier that accepts any key of a host at the first connection to it, and remembers it
/// in this directory.
pub(super) fn first_key(
    directory: &Path,
    provider: &Arc<CryptoProvider>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier {
        provider: provider.clone(),
        accepts: AcceptedCerts::FirstKey(KnownServers::new(directory)),
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
            AcceptedCerts::Keys(keys) => {
                let key = fingerprint(end_entity)?;
                match keys.contains(&key) {
                    true => Ok(ServerCertVerified::assertion()),
                    false => Err(refusal(wrong_key(key, keys))),
                }
            }
            // The signature is checked next, and then the key is remembered.
            AcceptedCerts::FirstKey(known) => {
                let key = fingerprint(end_entity)?;
                let host = server_name.to_str();
                known.check(&host, key).map_err(refusal)?;
                Ok(ServerCertVerified::assertion())
            }
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
        let valid = verify_tls12_signature(message, cert, dss, algorithms)?;
        self.signed_by(cert)?;
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = match version1_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, algorithms),
            None => verify_tls13_signature(message, cert, dss, algorithms),
        }?;
        self.signed_by(cert)?;
        Ok(valid)
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

impl Verifier {
    /// Remembers the key of a certificate with which the server has signed the handshake, so that it
    /// has the key.
    fn signed_by(&self, cert: &CertificateDer<'_>) -> Result<(), Error> {
        match &self.accepts {
            AcceptedCerts::FirstKey(known) => known.remember(fingerprint(cert)?).map_err(refusal),
            _ => Ok(()),
        }
    }
}

/// A refusal of gt's own, in words for the user.
#[derive(Debug)]
struct VerifierRefusal(String);

impl fmt::Display for VerifierRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for VerifierRefusal {}

fn refusal(why: String) -> Error {
    Error::Other(OtherError(Arc::new(VerifierRefusal(why))))
}

fn wrong_key(key: Fingerprint, keys: &[Fingerprint]) -> String {
    let keys: Vec<String> = keys.iter().map(Fingerprint::to_string).collect();
    format!(
        "the server has the key {key}, and remoteKey is {}; if the server has got another key, set \
         remoteKey to what gt fingerprint prints there; otherwise this is another server",
        keys.join(", ")
    )
}

fn fingerprint(cert: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    let key = public_key(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(Fingerprint::of(key.as_ref()))
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

#[cfg(test)]
#[cfg(any(feature = "server", feature = "web"))]
mod tests {
    use super::super::{provider, ServerIdentity};
    use super::*;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{version, ClientConfig, ClientConnection, ServerConfig, ServerConnection};
    use rustls::{ConnectionCommon, SideData, SupportedProtocolVersion};

    /// A server with the certificate of `shown`, which signs with the key of `signing`.
    fn server(
        shown: &ServerIdentity,
        signing: &ServerIdentity,
        version: &'static SupportedProtocolVersion,
    ) -> ServerConnection {
        let key = provider().key_provider.load_private_key(signing.parts().1);
        let both = CertifiedKey::new(shown.parts().0, key.unwrap());
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(both)));
        ServerConnection::new(Arc::new(config)).unwrap()
    }

    fn client(verifier: Arc<dyn ServerCertVerifier>) -> ClientConnection {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name = ServerName::try_from("gt.example.com").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    fn pass<A: SideData, B: SideData>(
        from: &mut ConnectionCommon<A>,
        to: &mut ConnectionCommon<B>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            to.read_tls(&mut bytes).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    /// Performs a handshake; returns the client's error.
    fn handshake(mut server: ServerConnection, mut client: ClientConnection) -> Result<(), Error> {
        for _ in 0..4 {
            pass(&mut client, &mut server).unwrap();
            pass(&mut server, &mut client)?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

    #[test]
    fn a_pinned_key_is_trusted_only_from_a_server_that_has_it() {
        let [right, other] = [
            ServerIdentity::new().unwrap(),
            ServerIdentity::new().unwrap(),
        ];
        let pin = right.fingerprint().unwrap();
        for version in VERSIONS {
            let ask = |server| handshake(server, client(keys(&[pin], &provider())));
            ask(server(&right, &right, version)).unwrap();
            let why = ask(server(&other, &other, version))
                .unwrap_err()
                .to_string();
            assert!(why.contains(&pin.to_string()), "{why}");
            assert!(
                why.contains(&other.fingerprint().unwrap().to_string()),
                "{why}"
            );
            let why = ask(server(&right, &other, version)).unwrap_err();
            let signature = CertificateError::BadSignature;
            assert_eq!(why, Error::InvalidCertificate(signature), "{version:?}");
        }
    }

    #[test]
    fn a_server_without_the_key_of_its_certificate_is_not_remembered() {
        let [right, other] = [
            ServerIdentity::new().unwrap(),
            ServerIdentity::new().unwrap(),
        ];
        let name = format!("gt-first-key-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for version in VERSIONS {
            let _ = std::fs::remove_dir_all(&path);
            let verifier = first_key(&path, &provider());
            let ask = |server| handshake(server, client(verifier.clone()));
            ask(server(&right, &other, version)).unwrap_err();
            assert!(!path.exists());
            ask(server(&other, &other, version)).unwrap();
            ask(server(&other, &other, version)).unwrap();
            ask(server(&right, &right, version)).unwrap_err();
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
}
