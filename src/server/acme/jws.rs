//! The key of an account and what it signs (RFC 7515, RFC 7517, RFC 8555 section 6.2). Not the requests.

use base64::prelude::{Engine, BASE64_URL_SAFE_NO_PAD};
use ring::digest::{digest, SHA256};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_FIXED_SIGNING};
use serde_json::json;
use std::io;

/// Encodes bytes as base64url without padding (RFC 7515, section 2).
pub fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key on P-256. Does not print.
pub struct AccountKey {
    pair: EcdsaKeyPair,
    /// The key in PKCS #8.
    der: Vec<u8>,
}

/// How the authority finds the key that has signed a request.
#[derive(Clone, Copy)]
pub enum Signer<'a> {
    /// The key is in the request.
    Key,
    /// The key is that of the account with this URL.
    Account(&'a str),
}

impl AccountKey {
    /// Makes a key. Fails if the system has no random numbers.
    pub fn generate() -> io::Result<Self> {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| io::Error::other("making a key: the system has no random numbers"))?;
        Self::from_der(der.as_ref()).ok_or_else(|| io::Error::other("making a key: it is invalid"))
    }

    /// Reads a key in PKCS #8.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).ok()?;
        let der = der.to_vec();
        Some(Self { pair, der })
    }

    /// Returns the key in PKCS #8.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the coordinates of the public key.
    fn coordinates(&self) -> (String, String) {
        // 4 for an uncompressed point, and 32 bytes each.
        let point = self.pair.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        (base64url(x), base64url(y))
    }

    /// Returns the digest that names the key (RFC 7638).
    fn thumbprint(&self) -> String {
        let (x, y) = self.coordinates();
        // The order of the members and the absence of blanks matter.
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        base64url(digest(&SHA256, text.as_bytes()).as_ref())
    }

    /// Returns the key authorization of a challenge (RFC 8555, section 8.1).
    pub fn authorization(&self, token: &str) -> String {
        format!("{token}.{}", self.thumbprint())
    }

    /// Signs the body of a request to `url`; an empty payload asks for what is there.
    pub fn sign(
        &self,
        signer: Signer<'_>,
        nonce: &str,
        url: &str,
        payload: &str,
    ) -> io::Result<Vec<u8>> {
        let protected = match signer {
            Signer::Account(account) => {
                json!({"alg": "ES256", "kid": account, "nonce": nonce, "url": url})
            }
            Signer::Key => {
                let (x, y) = self.coordinates();
                let key = json!({"crv": "P-256", "kty": "EC", "x": x, "y": y});
                json!({"alg": "ES256", "jwk": key, "nonce": nonce, "url": url})
            }
        };
        let protected = base64url(protected.to_string().as_bytes());
        let payload = base64url(payload.as_bytes());
        let signed = format!("{protected}.{payload}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature =
            signature.map_err(|_| io::Error::other("signing: the system has no random numbers"))?;
        let signature = base64url(signature.as_ref());
        let body = json!({"protected": protected, "payload": payload, "signature": signature});
        Ok(body.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{UnparsedPublicKey, ECDSA_P256_SHA256_FIXED};
    use serde_json::Value;

    #[test]
    fn a_request_is_signed_by_the_key_that_it_names() {
        let key = AccountKey::generate().unwrap();
        let again = AccountKey::from_der(key.der()).unwrap();
        let body = again.sign(Signer::Key, "n1", "https://h/a", "{}").unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let part = |name: &str| body[name].as_str().unwrap().to_owned();
        let read = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let head: Value = serde_json::from_slice(&read(&part("protected"))).unwrap();
        assert_eq!(
            (&head["alg"], &head["nonce"], &head["url"]),
            (&json!("ES256"), &json!("n1"), &json!("https://h/a"))
        );
        let coordinate = |name: &str| read(head["jwk"][name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let signed = format!("{}.{}", part("protected"), part("payload"));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &read(&part("signature")))
            .unwrap();
        let body = key.sign(Signer::Account("https://h/1"), "n", "u", "");
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        assert_eq!(body["payload"], "");
        let head = read(body["protected"].as_str().unwrap());
        let head: Value = serde_json::from_slice(&head).unwrap();
        assert_eq!(head["kid"], "https://h/1");
        assert!(head.get("jwk").is_none());
    }

    #[test]
    fn an_authorization_names_token_and_key() {
        let key = AccountKey::generate().unwrap();
        let text = key.authorization("abc");
        let (token, digest) = text.split_once('.').unwrap();
        assert_eq!((token, digest.len()), ("abc", 43));
        assert!(AccountKey::from_der(b"none").is_none());
    }
}
