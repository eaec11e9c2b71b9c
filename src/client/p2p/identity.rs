//! The identity of this process for its peers: one self-signed certificate, created on first use.

use super::crypto::{Ring, SigningKeyPair};
use super::P2pError;
use crate::net::tls::self_signed;
use ring::digest;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme, SigningKey};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use std::sync::Arc;

/// A certificate with its key, and the cryptography that uses them.
pub struct Identity {
    /// The certificate and its key.
    pub certificate: Certificate,
    /// The cryptography of ICE and DTLS.
    pub provider: Arc<dyn RTCCryptoProvider>,
    /// The certificate's fingerprint, as in a session description.
    pub fingerprint: String,
}

/// The side of an end in the DTLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtlsRole {
    /// Starts the handshake.
    Client,
    /// Waits for the handshake.
    Server,
}

impl Identity {
    /// Creates a key and a certificate for it.
    pub fn new() -> Result<Self, P2pError> {
        let key = SigningKeyPair::new().map_err(|e| P2pError::new("a key", e))?;
        let mut serial = [0; 16];
        rand::fill(&mut serial);
        let sign = |signed: &[u8]| key.sign(SignatureScheme::EcdsaP256Sha256, signed);
        let der = self_signed(key.public_key().bytes, serial, sign);
        let der = der.map_err(|e| P2pError::new("a certificate", e))?;
        let fingerprint = fingerprint(&der);
        let certificate = Certificate::from_signing_key(vec![der.into()], Arc::new(key));
        Ok(Self {
            certificate,
            provider: Arc::new(Ring),
            fingerprint,
        })
    }

    /// Creates the configuration of a handshake with the peer whose certificate has this
    /// fingerprint.
    pub fn handshake(
        &self,
        side: DtlsRole,
        fingerprint_of_peer: &str,
    ) -> Result<HandshakeConfig, P2pError> {
        let expected = fingerprint_of_peer.to_ascii_uppercase();
        let is_peer = move |chain: &[Vec<u8>], _: &[_]| match chain.first() {
            Some(der) if fingerprint(der) == expected => Ok(()),
            _ => Err(rtc_shared::error::Error::ErrNoMatchingCertificateFingerprint),
        };
        ConfigBuilder::default()
            .with_crypto_provider(self.provider.clone())
            .with_certificates(vec![self.certificate.clone()])
            // No media is sent, but browsers abort a handshake without a profile for it.
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // WebRTC certificates are signed by no authority: only the fingerprint counts.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(is_peer)))
            .build(side == DtlsRole::Client, None)
            .map_err(|e| P2pError::new("a DTLS handshake", e))
    }
}

/// Returns the SHA-256 fingerprint in upper-case hexadecimal with colons (RFC 8122, section 5).
pub fn fingerprint(der: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, der);
    let bytes: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}
