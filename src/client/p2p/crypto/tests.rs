use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// RFC 2202, section 3, and RFC 4231, section 4.3.
#[test]
fn hmac_matches_the_rfcs() {
    let message: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
    for (algorithm, tag) in [
        (
            HmacAlgorithm::Sha1,
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        ),
        (
            HmacAlgorithm::Sha256,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
    ] {
        let mut mac = Ring.new_hmac(algorithm, b"Jefe").unwrap();
        let mut out = vec![0; mac.output_len()];
        mac.sign(&message, &mut out).unwrap();
        assert_eq!(out, hex(tag));
        mac.verify(&message, &out).unwrap();
        out[3] ^= 1;
        mac.verify(&message, &out).unwrap_err();
        mac.verify(&message, &out[..10]).unwrap_err();
        mac.sign(&message, &mut out[..10]).unwrap_err();
    }
}

#[test]
fn a_hash_is_sha_256() {
    assert_eq!(
        Ring.hash(HashAlgorithm::Sha256, b"abc").unwrap(),
        hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
    Ring.hash(HashAlgorithm::Md5, b"abc").unwrap_err();
}

#[test]
fn only_sealed_messages_open() {
    for (algorithm, key) in [
        (AeadAlgorithm::Aes128Gcm, 16),
        (AeadAlgorithm::Aes256Gcm, 32),
        (AeadAlgorithm::ChaCha20Poly1305, 32),
    ] {
        let mut cipher = Ring.new_aead(algorithm, &vec![1; key]).unwrap();
        assert!(Ring.new_aead(algorithm, &vec![1; key - 1]).is_err());
        let mut tag = [0; TAG];
        let mut text = *b"some words";
        cipher
            .seal_in_place(&[2; 12], b"head", &mut text, &mut tag)
            .unwrap();
        assert_ne!(&text, b"some words");
        let sealed = text;
        cipher
            .open_in_place(&[2; 12], b"head", &mut text, &tag)
            .unwrap();
        assert_eq!(&text, b"some words");
        for (nonce, aad, tag) in [
            (&[3; 12][..], b"head", &tag[..]),
            (&[2; 12], b"hea!", &tag),
            (&[2; 12], b"head", &[0; TAG]),
            (&[2; 12], b"head", &tag[1..]),
            (&[2; 11], b"head", &tag),
        ] {
            cipher
                .open_in_place(nonce, aad, &mut sealed.clone(), tag)
                .unwrap_err();
        }
        cipher
            .seal_in_place(&[2; 11], b"", &mut text, &mut tag)
            .unwrap_err();
        cipher
            .seal_in_place(&[2; 12], b"", &mut text, &mut tag[1..])
            .unwrap_err();
    }
    assert!(Ring.new_aead(AeadAlgorithm::Aes128Ccm, &[1; 16]).is_err());
}

#[test]
fn key_exchange_agrees_on_a_secret() {
    for algorithm in [
        KeyExchangeAlgorithm::P256,
        KeyExchangeAlgorithm::P384,
        KeyExchangeAlgorithm::X25519,
    ] {
        let [one, other] = [(); 2].map(|()| Ring.start_key_exchange(algorithm).unwrap());
        assert_eq!(one.algorithm(), algorithm);
        let [of_one, of_other] = [&one, &other].map(|it| it.public_key().to_vec());
        let secret = one.complete(&of_other).unwrap();
        assert_eq!(secret.as_ref(), other.complete(&of_one).unwrap().as_ref());
        let third = Ring.start_key_exchange(algorithm).unwrap();
        assert!(third.complete(&of_one[1..]).is_err());
    }
}

#[test]
fn a_signature_verifies_only_for_its_key_and_message() {
    let key = SigningKeyPair::new().unwrap();
    let scheme = SignatureScheme::EcdsaP256Sha256;
    let signature = key.sign(scheme, b"words").unwrap();
    let verify =
        |key: PublicKey<'_>, words: &[u8]| Ring.verify_signature(scheme, key, words, &signature);
    verify(key.public_key(), b"words").unwrap();
    verify(key.public_key(), b"other").unwrap_err();
    verify(SigningKeyPair::new().unwrap().public_key(), b"words").unwrap_err();
    let raw = PublicKey {
        encoding: PublicKeyEncoding::Ed25519Raw,
        ..key.public_key()
    };
    verify(raw, b"words").unwrap_err();
    key.sign(SignatureScheme::Ed25519, b"words").unwrap_err();
}

#[test]
fn the_provider_supports_exactly_what_it_lists() {
    use CryptoAlgorithm::*;
    for algorithm in [
        Hash(HashAlgorithm::Sha256),
        Hmac(HmacAlgorithm::Sha1),
        Aead(AeadAlgorithm::Aes128Gcm),
        Aead(AeadAlgorithm::ChaCha20Poly1305),
        KeyExchange(KeyExchangeAlgorithm::X25519),
        Signature(SignatureScheme::EcdsaP256Sha256),
        Signature(SignatureScheme::RsaPkcs1Sha256),
    ] {
        assert!(Ring.supports(algorithm), "{algorithm:?}");
    }
    for algorithm in [
        Hash(HashAlgorithm::Md5),
        Aead(AeadAlgorithm::Aes128Ccm8),
        Signature(SignatureScheme::RsaPkcs1Sha1),
        SigningKeyGeneration(SignatureScheme::EcdsaP256Sha256),
    ] {
        assert!(!Ring.supports(algorithm), "{algorithm:?}");
    }
}
