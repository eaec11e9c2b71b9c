//! The TLS of a validation by TLS-ALPN-01 (RFC 8737). Not which validations are awaited.

use super::certificate_facts::EXTENSIONS;
use super::certificate_key::{alternative_name, OCTET_STRING};
use super::der::{tlv, SEQUENCE};
use super::self_signed::self_signed_with;
use super::{fill_random, invalid, provider, rustls, Acceptor};
use async_tls::pki_types::PrivatePkcs8KeyDer;
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_ASN1_SIGNING};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version;
use std::io;
use std::sync::Arc;

/// The application protocol of validations.
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// The object identifier of the extension acmeIdentifier, in DER.
const ACME_IDENTIFIER: &[u8] = &[6, 8, 0x2b, 6, 1, 5, 5, 7, 1, 31];
/// The content true of a BOOLEAN, as an element.
const TRUE: &[u8] = &[1, 1, 0xff];

impl Acceptor {
    /// Creates the configuration that answers a validation of `name`. `digest` is that of the key
    /// authorization (RFC 8737, section 3).
    pub fn for_challenge(name: &str, digest: &[u8; 32]) -> io::Result<Self> {
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
        let digest = tlv(OCTET_STRING, &[&tlv(OCTET_STRING, &[digest])]);
        let identifier = tlv(SEQUENCE, &[ACME_IDENTIFIER, TRUE, &digest]);
        let list = tlv(SEQUENCE, &[&alternative_name(name), &identifier]);
        let extensions = tlv(EXTENSIONS, &[&list]);
        let point = key.public_key().as_ref();
        let certificate = self_signed_with(point, serial, &extensions, sign)?;
        let explain = |e| invalid(format!("answering a validation of {name}: {e}"));
        let key = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
        let key = provider().key_provider.load_private_key(key.into());
        // rustls would not take a certificate with this critical extension by itself.
        let both = CertifiedKey::new(vec![certificate.into()], key.map_err(explain)?);
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(explain)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(both)));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self::from(config))
    }
}
