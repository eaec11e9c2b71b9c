//! Self-signed certificates for keys on P-256: those of P2P ends, and of servers without another
//! certificate. Only key and serial number differ; peers check a fingerprint alone (RFC 8827, section
//! 6.5, and docs/trust.md).

use super::der::{
    tlv, BIT_STRING, COMMON_NAME, ECDSA_WITH_SHA256, EC_PUBLIC_KEY, GENERALIZED_TIME, INTEGER,
    PRIME256V1, SEQUENCE, SET, UTC_TIME, UTF8_STRING, VERSION,
};

/// Creates an X.509 version 3 certificate (RFC 5280, section 4.1) without a validity limit: a
/// router's clock may be at 1970. `point` is the uncompressed public key, and `sign` signs with
/// ECDSA and SHA-256, in ASN.1.
pub fn self_signed<E>(
    point: &[u8],
    serial: [u8; 16],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    self_signed_with(point, serial, &[], sign)
}

/// Creates such a certificate with these extensions, a whole element of its signed part;
/// none if it is empty.
pub(super) fn self_signed_with<E>(
    point: &[u8],
    serial: [u8; 16],
    extensions: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    // The serial number has to be positive and of constant length.
    let mut number = serial;
    number[0] = number[0] & 0x7f | 0x40;
    let algorithm = tlv(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let name = tlv(UTF8_STRING, &[b"gt"]);
    let name = tlv(SEQUENCE, &[COMMON_NAME, &name]);
    let name = tlv(SEQUENCE, &[&tlv(SET, &[&name])]);
    let validity = tlv(
        SEQUENCE,
        &[
            &tlv(UTC_TIME, &[b"700101000000Z"]),
            // No expiry (RFC 5280, section 4.1.2.5).
            &tlv(GENERALIZED_TIME, &[b"99991231235959Z"]),
        ],
    );
    let public = tlv(
        SEQUENCE,
        &[
            &tlv(SEQUENCE, &[EC_PUBLIC_KEY, PRIME256V1]),
            &tlv(BIT_STRING, &[&[0], point]),
        ],
    );
    let signed = tlv(
        SEQUENCE,
        &[
            &tlv(VERSION, &[&tlv(INTEGER, &[&[2]])]),
            &tlv(INTEGER, &[&number]),
            &algorithm,
            &name,
            &validity,
            &name,
            &public,
            extensions,
        ],
    );
    let signature = sign(&signed)?;
    let signature = tlv(BIT_STRING, &[&[0], &signature]);
    Ok(tlv(SEQUENCE, &[&signed, &algorithm, &signature]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_tls::pki_types::CertificateDer;
    use async_tls::rustls::server::ParsedCertificate;
    use ring::rand::SystemRandom;
    use ring::signature::{self, EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_ASN1_SIGNING as SIGNING};

    #[test]
    fn a_certificate_is_readable_by_other_implementations() {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&SIGNING, key.as_ref(), &random).unwrap();
        let point = key.public_key().as_ref();
        for serial in [[0; 16], [0xff; 16]] {
            let sign = |signed: &[u8]| {
                let signature = key.sign(&random, signed)?;
                Ok::<_, ring::error::Unspecified>(signature.as_ref().to_vec())
            };
            let der = self_signed(point, serial, sign).unwrap();
            ParsedCertificate::try_from(&CertificateDer::from(der.clone())).unwrap();
            // The parts, by their lengths: the signed part, the algorithm, the signature.
            assert_eq!(der[..2], [SEQUENCE, 0x82]);
            let signed = &der[4..];
            let length = match signed[1] {
                0x81 => 3 + usize::from(signed[2]),
                0x82 => 4 + usize::from(signed[2]) * 256 + usize::from(signed[3]),
                short => panic!("a length of {short}"),
            };
            let (signed, rest) = signed.split_at(length);
            let (algorithm, signature) = rest.split_at(12);
            assert_eq!(algorithm, tlv(SEQUENCE, &[ECDSA_WITH_SHA256]));
            assert_eq!((signature[0], signature[2]), (BIT_STRING, 0));
            signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point)
                .verify(signed, &signature[3..])
                .unwrap();
        }
    }
}
