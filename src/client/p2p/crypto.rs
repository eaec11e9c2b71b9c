//! The cryptography of WebRTC by ring, which TLS uses anyway: the suites that browsers and gt agree
//! on, and no others. The provider of rtc-crypto has every suite of DTLS in software, which would
//! make the program larger (docs/size.md).

use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_ASN1_SIGNING};
use ring::{aead, agreement, digest, hmac, signature};
use rtc_dtls::crypto_provider::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, CryptoAlgorithm, CryptoError, HashAlgorithm,
    HmacAlgorithm, KeyExchangeAlgorithm, Mac, PublicKey, PublicKeyEncoding, RTCCrypto,
    RTCCryptoProvider, RTCRandom, SecretVec, SignatureScheme, SigningKey,
};

type Result<T> = std::result::Result<T, CryptoError>;

/// Length of the authentication tag of each cipher, in bytes.
const TAG: usize = 16;

/// The provider of ring's cryptography.
pub struct Ring;

impl RTCCryptoProvider for Ring {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self
    }

    fn random(&self) -> &dyn RTCRandom {
        self
    }
}

impl RTCRandom for Ring {
    /// Fills `output` from the thread's generator, which the system has seeded: DTLS needs random
    /// bytes for each record, and ring would make a system call each time.
    fn fill(&self, output: &mut [u8]) -> Result<()> {
        rand::fill(output);
        Ok(())
    }
}

impl RTCCrypto for Ring {
    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        use CryptoAlgorithm::*;
        match algorithm {
            Hash(algorithm) => algorithm == HashAlgorithm::Sha256,
            Hmac(algorithm) => hashing(algorithm).is_ok(),
            Aead(algorithm) => cipher(algorithm).is_ok(),
            KeyExchange(algorithm) => agreed(algorithm).is_ok(),
            Signature(scheme) => verification(scheme).is_ok(),
            _ => false,
        }
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>> {
        match algorithm {
            HashAlgorithm::Sha256 => Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec()),
            other => unsupported(CryptoAlgorithm::Hash(other)),
        }
    }

    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>> {
        Ok(Box::new(Hmac(hmac::Key::new(hashing(algorithm)?, key))))
    }

    fn new_aead(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<Box<dyn AeadCipher>> {
        let cipher = cipher(algorithm)?;
        let unbound = aead::UnboundKey::new(cipher, key);
        let unbound = unbound.map_err(|_| CryptoError::InvalidKeyLength {
            expected: cipher.key_len(),
            actual: key.len(),
        })?;
        Ok(Box::new(Cipher(aead::LessSafeKey::new(unbound))))
    }

    fn start_key_exchange(
        &self,
        algorithm: KeyExchangeAlgorithm,
    ) -> Result<Box<dyn ActiveKeyExchange>> {
        let curve = agreed(algorithm)?;
        let private = agreement::EphemeralPrivateKey::generate(curve, &SystemRandom::new());
        let private = private.map_err(|_| CryptoError::RandomnessFailed)?;
        let public = private.compute_public_key();
        let public = public.map_err(|_| CryptoError::InvalidPrivateKey)?;
        Ok(Box::new(KeyExchange {
            algorithm,
            curve,
            private,
            public,
        }))
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let (algorithm, encoding) = verification(scheme)?;
        if key.encoding != encoding {
            return Err(CryptoError::InvalidPublicKey);
        }
        signature::UnparsedPublicKey::new(algorithm, key.bytes)
            .verify(message, signature)
            .map_err(|_| CryptoError::InvalidSignature)
    }
}

fn unsupported<T>(algorithm: CryptoAlgorithm) -> Result<T> {
    Err(CryptoError::UnsupportedAlgorithm(algorithm))
}

/// Returns the algorithm of an HMAC. SHA-1 is for the integrity of STUN messages (RFC 8489, section
/// 14.5).
fn hashing(algorithm: HmacAlgorithm) -> Result<hmac::Algorithm> {
    match algorithm {
        HmacAlgorithm::Sha1 => Ok(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        HmacAlgorithm::Sha256 => Ok(hmac::HMAC_SHA256),
        other => unsupported(CryptoAlgorithm::Hmac(other)),
    }
}

fn cipher(algorithm: AeadAlgorithm) -> Result<&'static aead::Algorithm> {
    match algorithm {
        AeadAlgorithm::Aes128Gcm => Ok(&aead::AES_128_GCM),
        AeadAlgorithm::Aes256Gcm => Ok(&aead::AES_256_GCM),
        AeadAlgorithm::ChaCha20Poly1305 => Ok(&aead::CHACHA20_POLY1305),
        other => unsupported(CryptoAlgorithm::Aead(other)),
    }
}

fn agreed(algorithm: KeyExchangeAlgorithm) -> Result<&'static agreement::Algorithm> {
    match algorithm {
        KeyExchangeAlgorithm::P256 => Ok(&agreement::ECDH_P256),
        KeyExchangeAlgorithm::P384 => Ok(&agreement::ECDH_P384),
        KeyExchangeAlgorithm::X25519 => Ok(&agreement::X25519),
        other => unsupported(CryptoAlgorithm::KeyExchange(other)),
    }
}

type Verification = &'static dyn signature::VerificationAlgorithm;

/// Returns the algorithm of a peer certificate's signature, and the encoding of its key.
fn verification(scheme: SignatureScheme) -> Result<(Verification, PublicKeyEncoding)> {
    use PublicKeyEncoding::*;
    Ok(match scheme {
        SignatureScheme::EcdsaP256Sha256 => {
            (&signature::ECDSA_P256_SHA256_ASN1, EcUncompressedPoint)
        }
        SignatureScheme::EcdsaP384Sha256 => {
            (&signature::ECDSA_P384_SHA256_ASN1, EcUncompressedPoint)
        }
        SignatureScheme::EcdsaP384Sha384 => {
            (&signature::ECDSA_P384_SHA384_ASN1, EcUncompressedPoint)
        }
        SignatureScheme::Ed25519 => (&signature::ED25519, Ed25519Raw),
        SignatureScheme::RsaPkcs1Sha256 => (&signature::RSA_PKCS1_2048_8192_SHA256, RsaPkcs1Der),
        SignatureScheme::RsaPkcs1Sha384 => (&signature::RSA_PKCS1_2048_8192_SHA384, RsaPkcs1Der),
        SignatureScheme::RsaPkcs1Sha512 => (&signature::RSA_PKCS1_2048_8192_SHA512, RsaPkcs1Der),
        other => return unsupported(CryptoAlgorithm::Signature(other)),
    })
}

struct Hmac(hmac::Key);

impl Mac for Hmac {
    fn output_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }

    fn sign(&mut self, input: &[&[u8]], output: &mut [u8]) -> Result<()> {
        if output.len() != self.output_len() {
            return Err(bad_tag(self.output_len(), output.len()));
        }
        let mut context = hmac::Context::with_key(&self.0);
        input.iter().for_each(|part| context.update(part));
        output.copy_from_slice(context.sign().as_ref());
        Ok(())
    }

    fn verify(&mut self, input: &[&[u8]], expected: &[u8]) -> Result<()> {
        // ring compares in constant time, and needs the whole message at once.
        hmac::verify(&self.0, &input.concat(), expected)
            .map_err(|_| CryptoError::AuthenticationFailed)
    }
}

struct Cipher(aead::LessSafeKey);

impl AeadCipher for Cipher {
    fn tag_len(&self) -> usize {
        TAG
    }

    fn seal_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        plaintext_and_ciphertext: &mut [u8],
        tag_out: &mut [u8],
    ) -> Result<()> {
        let nonce = nonce_of(nonce)?;
        if tag_out.len() != TAG {
            return Err(bad_tag(TAG, tag_out.len()));
        }
        let aad = aead::Aad::from(aad);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, aad, plaintext_and_ciphertext)
            .map_err(|_| CryptoError::AuthenticationFailed)?;
        tag_out.copy_from_slice(tag.as_ref());
        Ok(())
    }

    fn open_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        ciphertext_and_plaintext: &mut [u8],
        tag: &[u8],
    ) -> Result<()> {
        let nonce = nonce_of(nonce)?;
        let tag = aead::Tag::try_from(tag).map_err(|_| bad_tag(TAG, tag.len()))?;
        let aad = aead::Aad::from(aad);
        self.0
            .open_in_place_separate_tag(nonce, aad, tag, ciphertext_and_plaintext, 0..)
            .map(drop)
            .map_err(|_| CryptoError::AuthenticationFailed)
    }
}

fn nonce_of(nonce: &[u8]) -> Result<aead::Nonce> {
    aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::InvalidNonceLength {
        expected: aead::NONCE_LEN,
        actual: nonce.len(),
    })
}

fn bad_tag(expected: usize, actual: usize) -> CryptoError {
    CryptoError::InvalidTagLength { expected, actual }
}

struct KeyExchange {
    algorithm: KeyExchangeAlgorithm,
    curve: &'static agreement::Algorithm,
    private: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl ActiveKeyExchange for KeyExchange {
    fn algorithm(&self) -> KeyExchangeAlgorithm {
        self.algorithm
    }

    fn public_key(&self) -> &[u8] {
        self.public.as_ref()
    }

    fn complete(self: Box<Self>, peer_public_key: &[u8]) -> Result<SecretVec> {
        let peer = agreement::UnparsedPublicKey::new(self.curve, peer_public_key);
        agreement::agree_ephemeral(self.private, &peer, |secret| {
            SecretVec::new(secret.to_vec())
        })
        .map_err(|_| CryptoError::InvalidPublicKey)
    }
}

/// A key pair on P-256, which browsers' certificates use too.
pub struct SigningKeyPair(EcdsaKeyPair);

impl SigningKeyPair {
    /// Generates a key pair.
    pub fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| CryptoError::RandomnessFailed)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
            .map(Self)
            .map_err(|_| CryptoError::InvalidPrivateKey)
    }
}

impl SigningKey for SigningKeyPair {
    fn supports(&self, scheme: SignatureScheme) -> bool {
        scheme == SignatureScheme::EcdsaP256Sha256
    }

    fn public_key(&self) -> PublicKey<'_> {
        PublicKey {
            encoding: PublicKeyEncoding::EcUncompressedPoint,
            bytes: self.0.public_key().as_ref(),
        }
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>> {
        if !self.supports(scheme) {
            return unsupported(CryptoAlgorithm::Signature(scheme));
        }
        self.0
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| CryptoError::RandomnessFailed)
    }
}

#[cfg(test)]
mod tests;
