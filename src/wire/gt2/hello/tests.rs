//! Hellos of GT/2, and what is wrong with others.

use super::*;
use crate::wire::hello::{GroupSpec, MAX_DOMAIN, MAX_GROUP};
use proptest::prelude::*;

fn hello(services: Vec<ServiceSpec>) -> Hello {
    Hello {
        id: "id1".into(),
        proof: Proof::Secret((*b"secret1").into()),
        services,
        window: 32 * 1024,
        origins: false,
        bbr: false,
        instance: None,
    }
}

fn id_alone() -> Vec<ServiceSpec> {
    vec![ServiceSpec::Host {
        tls: false,
        prefix: None,
    }]
}

/// Reads in pieces of `step`, starting after magic and version. Returns the hello and its
/// length.
fn decode(
    mut reader: Gt2HelloReader,
    bytes: &[u8],
    step: usize,
) -> Result<(Hello, usize), Malformed> {
    let mut used = 0;
    loop {
        let piece = &bytes[used..bytes.len().min(used + step)];
        assert!(!piece.is_empty(), "the hello does not end");
        used += reader.feed(piece)?;
        let most = MAX_GROUP + 3 * MAX_NAME + 10 * MAX_DOMAIN;
        assert!(reader.held.len() <= most, "it holds too much");
        reader = match reader.finish() {
            Ok(hello) => return Ok((hello, used)),
            Err(unfinished) => unfinished,
        };
    }
}

/// Returns the error for a hello with these fields.
fn refused(fields: &[(u8, &[u8])]) -> Malformed {
    let mut bytes = Vec::new();
    for (kind, value) in fields {
        field(&mut bytes, *kind, value);
    }
    decode(Gt2HelloReader::new(), &begin(0, &bytes)[2..], 1000).unwrap_err()
}

const CREDENTIALS: [(u8, &[u8]); 2] = [(ID, b"i"), (SECRET, b"s")];

#[test]
fn unknown_fields_and_capabilities_are_ignored() {
    let mut fields = Vec::new();
    field(&mut fields, 0x77, &[1; 300]);
    fields.extend(encode_registration(&hello(id_alone())));
    field(&mut fields, 0xFF, &[]);
    let mut bytes = begin(0, &fields);
    bytes[6..10].copy_from_slice(&[0xFF; 4]);
    for step in [1, 7, 1000] {
        let (read, used) = decode(Gt2HelloReader::new(), &bytes[2..], step).unwrap();
        assert_eq!((&*read.id, read.window), ("id1", 0));
        assert_eq!(used, bytes.len() - 2);
    }
}

#[test]
fn a_hello_ends_like_an_http_request_head() {
    assert!(encode(&hello(id_alone())).ends_with(b"\r\n\r\n"));
}

#[test]
fn credentials_can_be_checked_before_the_services_are_read() {
    let bytes = encode(&hello(id_alone()));
    let mut reader = Gt2HelloReader::new();
    let used = reader.feed(&bytes[2..]).unwrap();
    assert_eq!(used, 8 + 4 + 3 + 4 + 7);
    let proof = reader.credentials().unwrap().proof;
    assert_eq!(proof.secret(), Some(&b"secret1"[..]));
    assert!(reader.finish().is_err());
}

#[test]
fn errors_name_what_is_wrong_with_a_hello() {
    let [id, secret] = CREDENTIALS;
    let services: (u8, &[u8]) = (SERVICES, &[0x00]);
    let long = [b'x'; MAX_NAME + 1];
    for (fields, wanted) in [
        (&[][..], Malformed::FieldMissing(ID)),
        (&[id], Malformed::FieldMissing(SECRET)),
        (
            &[id, secret, (0x77, &[])],
            Malformed::FieldMissing(SERVICES),
        ),
        (&[id, services], Malformed::FieldOrder(SERVICES)),
        (&[id, id], Malformed::FieldOrder(ID)),
        (
            &[id, secret, services, services],
            Malformed::FieldOrder(SERVICES),
        ),
        (&[(ID, &[])], Malformed::NameLength(0)),
        (&[(SECRET, &long)], Malformed::NameLength(201)),
        (&[(ID, &[0xFF])], Malformed::NotText),
        (&[(WINDOW, &[0; 3])], Malformed::FieldLength(WINDOW)),
        (&[id, secret, (SERVICES, &[])], Malformed::ServicesLength),
        (
            &[id, secret, (SERVICES, &[0x01, 0])],
            Malformed::ServicesLength,
        ),
        (
            &[id, secret, (SERVICES, &[0x00, 0x00])],
            Malformed::ServicesLength,
        ),
        (
            &[id, secret, (SERVICES, &[0x02, 0x00])],
            Malformed::ServicesLength,
        ),
        (
            &[id, secret, (SERVICES, &[0x40])],
            Malformed::UnknownOption(0x40),
        ),
        (
            &[id, secret, (SERVICES, &[0x06, 0, 1, 1])],
            Malformed::ServicesLength,
        ),
        (
            &[id, secret, (SERVICES, &[0x06, 0, 0])],
            Malformed::NameLength(0),
        ),
        (
            &[id, secret, (SERVICES, &[0x07, 0, 2, 1, b'a', 0])],
            Malformed::NameLength(0),
        ),
        (
            &[id, secret, (SERVICES, &[0x06, 201])],
            Malformed::NameLength(201),
        ),
        (
            &[id, secret, (SERVICES, &[0x06, 0, 1, 254])],
            Malformed::NameLength(254),
        ),
        (
            &[id, secret, (SERVICES, &[0x06, 0, 1, 1, 0xFF])],
            Malformed::NotText,
        ),
    ] {
        assert_eq!(refused(fields), wanted, "{fields:?}");
    }
    let most = [[0x02, 0x00].repeat(MAX_OPTIONS), vec![0x00]].concat();
    assert_eq!(
        refused(&[id, secret, (SERVICES, &most)]),
        Malformed::TooManyOptions
    );
}

#[test]
fn a_key_is_signed_in_a_hello_and_not_in_a_registration() {
    let key = |rest: usize| [&[ED25519][..], &[7; PUBLIC_KEY], &vec![8; rest]].concat();
    let signed = key(SIGNATURE);
    let id = CREDENTIALS[0];
    let services: (u8, &[u8]) = (SERVICES, &[0x00]);
    for (value, wanted) in [
        (&key(0)[..], Malformed::FieldLength(KEY)),
        (&key(SIGNATURE + 1), Malformed::FieldLength(KEY)),
        (&[], Malformed::FieldLength(KEY)),
        (&[&[2], &signed[1..]].concat(), Malformed::KeyKind(2)),
    ] {
        assert_eq!(refused(&[id, (KEY, value), services]), wanted);
    }
    let both = [id, CREDENTIALS[1], (KEY, &signed), services];
    assert_eq!(refused(&both), Malformed::FieldOrder(KEY));
    let both = [id, (KEY, &signed), CREDENTIALS[1], services];
    assert_eq!(refused(&both), Malformed::FieldOrder(SECRET));
    let mut fields = Vec::new();
    for (kind, value) in [id, (KEY, &signed), services] {
        field(&mut fields, kind, value);
    }
    let len = u32::try_from(fields.len()).unwrap();
    let refused = decode(Gt2HelloReader::registration(len), &fields, 7);
    assert_eq!(refused.unwrap_err(), Malformed::FieldLength(KEY));
}

#[test]
fn a_challenge_is_a_field_of_the_answer() {
    let challenge = Challenge([7; CHALLENGE_LENGTH]);
    let bytes = answer(Some(&challenge));
    assert_eq!(bytes[..10], [0xF0, 0x20, 0, 0, 0, 40, 0, 0, 0, 0x1F]);
    for cut in 0..bytes.len() {
        assert_eq!(parse_answer(&bytes[..cut]), Ok(None));
    }
    let parsed = parse_answer(&bytes).unwrap().unwrap();
    assert_eq!(
        (parsed.challenge, parsed.length),
        (Some(challenge), bytes.len())
    );
    let of = |fields: &[(u8, &[u8])]| {
        let mut bytes = Vec::new();
        fields
            .iter()
            .for_each(|(kind, value)| field(&mut bytes, *kind, value));
        parse_answer(&begin(0, &bytes)).map(|answer| answer.unwrap().challenge)
    };
    assert_eq!(
        of(&[(0x77, &[1, 2]), (CHALLENGE, &[7; 32])]),
        Ok(Some(challenge))
    );
    let wrong = Err(Malformed::FieldLength(CHALLENGE));
    assert_eq!(of(&[(CHALLENGE, &[7; 31])]), wrong);
    let twice = of(&[(CHALLENGE, &[7; 32]), (CHALLENGE, &[7; 32])]);
    assert_eq!(twice, Err(Malformed::FieldOrder(CHALLENGE)));
    let cut = parse_answer(&begin(0, &[CHALLENGE, 0, 0, 32, 7]));
    assert_eq!(cut, Err(Malformed::FieldLength(CHALLENGE)));
}

#[test]
fn lengths_are_checked_before_anything_is_buffered() {
    for len in [0u32, 3, MAX_LENGTH + 1, u32::MAX] {
        let bytes = [len.to_be_bytes(), [0; 4]].concat();
        let refused = decode(Gt2HelloReader::new(), &bytes, 8);
        assert_eq!(refused.unwrap_err(), Malformed::HelloLength(len));
    }
    // The length of this field exceeds the hello.
    let bytes = [0, 0, 0, 9, 0, 0, 0, 0, ID, 0, 0, 2, 0];
    let refused = decode(Gt2HelloReader::new(), &bytes, 13);
    assert_eq!(refused.unwrap_err(), Malformed::FieldLength(ID));
}

#[test]
fn an_answer_is_recognized_by_its_first_bytes_and_skipped() {
    let mut bytes = answer(None);
    assert_eq!(bytes, [0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 0x1F]);
    bytes.extend([0xAA; 9]);
    for cut in 0..10 {
        assert_eq!(parse_answer(&bytes[..cut]), Ok(None));
    }
    let answer = |all| {
        let length = 10;
        Ok(Some(HelloAnswer {
            length,
            origins: all,
            kinds: match all {
                true => ServiceKinds::ALL,
                false => ServiceKinds::NONE,
            },
            health: all,
            challenge: None,
        }))
    };
    assert_eq!(parse_answer(&bytes), answer(true));
    bytes[9] = 0xE0;
    assert_eq!(parse_answer(&bytes), answer(false), "unknown capabilities");
    for other in [&b"HTTP/1.1 400"[..], &[0x15, 3, 1], &[0xF0, 1]] {
        assert_eq!(parse_answer(other), Err(Malformed::NotAnAnswer));
    }
    let long = [0xF0, 0x20, 0, 1, 0, 0];
    assert_eq!(parse_answer(&long), Err(Malformed::HelloLength(0x1_0000)));
}

fn any_service() -> impl Strategy<Value = ServiceSpec> {
    let group = (
        "[a-zé]{1,20}",
        proptest::collection::vec(any::<u8>(), 1..=MAX_NAME),
        any::<bool>(),
    );
    (proptest::option::of(group), any_ungrouped()).prop_map(|(group, service)| match group {
        Some((name, key, sticky)) => ServiceSpec::Grouped {
            group: Box::new(GroupSpec {
                name: name.into(),
                key: key.into(),
                sticky,
            }),
            service: Box::new(service),
        },
        None => service,
    })
}

fn any_ungrouped() -> impl Strategy<Value = ServiceSpec> {
    prop_oneof![
        (any::<bool>(), proptest::option::of("[a-z0-9é]{1,60}")).prop_map(|(tls, prefix)| {
            ServiceSpec::Host {
                tls,
                prefix: prefix.map(Into::into),
            }
        }),
        (
            any::<bool>(),
            proptest::option::of("[a-z0-9é]{1,60}"),
            proptest::collection::vec("[a-z0-9.*é]{1,60}", 1..10)
        )
            .prop_map(|(tls, prefix, domains)| ServiceSpec::Domains {
                tls,
                prefix: prefix.map(Into::into),
                domains: domains.into_iter().map(Into::into).collect(),
            }),
        (any::<bool>(), any::<u16>()).prop_map(|(random, port)| ServiceSpec::Tcp { random, port }),
        (any::<bool>(), any::<u16>()).prop_map(|(random, port)| ServiceSpec::Udp { random, port }),
    ]
}

proptest! {
    #[test]
    fn a_hello_survives_encoding_in_pieces_of_any_size(
        id in "\\PC{1,50}",
        secret in proptest::collection::vec(any::<u8>(), 1..=MAX_NAME),
        services in proptest::collection::vec(any_service(), 1..40),
        window in any::<u32>(),
        (origins, bbr) in any::<(bool, bool)>(),
        instance in any::<Option<[u8; INSTANCE_LENGTH]>>(),
        key in proptest::option::of(
            (any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), SIGNATURE))
        ),
        step in 1usize..40,
    ) {
        let proof = match key {
            None => Proof::Secret(secret.into()),
            Some((key, signature)) => Proof::Key(Box::new(SignedKey {
                key: PublicKey(key),
                signature: signature.try_into().ok(),
            })),
        };
        let hello = Hello { id: id.into(), proof, services, window, origins, bbr, instance };
        let mut bytes = encode(&hello);
        let len = bytes.len() - 2;
        bytes.extend_from_slice(&[0xAA; 50]);
        let (read, used) = decode(Gt2HelloReader::new(), &bytes[2..], step).unwrap();
        prop_assert_eq!(&read, &hello);
        prop_assert_eq!(used, len);

        let mut hello = hello;
        if let Proof::Key(key) = &mut hello.proof {
            key.signature = None;
        }
        let mut bytes = encode_registration(&hello);
        let len = bytes.len();
        bytes.extend_from_slice(&[0xAA; 50]);
        let reader = Gt2HelloReader::registration(u32::try_from(len).unwrap());
        let (read, used) = decode(reader, &bytes, step).unwrap();
        prop_assert_eq!(read, Hello { window: 0, origins: false, bbr: false, instance: None, ..hello });
        prop_assert_eq!(used, len);
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(
        len in 0..600u16, bytes in proptest::collection::vec(any::<u8>(), 0..900),
    ) {
        let [high, low] = len.to_be_bytes();
        let bytes = [&[0, 0, high, low], &bytes[..]].concat();
        let mut reader = Gt2HelloReader::new();
        let mut at = 0;
        while at < bytes.len() && reader.stage != HelloStage::Complete {
            let piece = &bytes[at..bytes.len().min(at + 9)];
            let Ok(used) = reader.feed(piece) else { break };
            prop_assert!(used <= piece.len() && reader.held.len() <= 2 * MAX_NAME);
            at += used;
        }
    }
}
