use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Cookie and transaction id as in RFC 5769.
const ID: [u8; 16] = [
    0x21, 0x12, 0xA4, 0x42, 0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE,
];

/// RFC 5769, section 2.1: an ICE connectivity check with a fingerprint.
const REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xA4, 0x42, 0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86,
    0xFA, 0x87, 0xDF, 0xAE, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4E, 0x20, 0x74, 0x65, 0x73,
    0x74, 0x20, 0x63, 0x6C, 0x69, 0x65, 0x6E, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6E, 0x00, 0x01, 0xFF,
    0x80, 0x29, 0x00, 0x08, 0x93, 0x2F, 0xF9, 0xB1, 0x51, 0x26, 0x3B, 0x36, 0x00, 0x06, 0x00, 0x09,
    0x65, 0x76, 0x74, 0x6A, 0x3A, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14,
    0x9A, 0xEA, 0xA7, 0x0C, 0xBF, 0xD8, 0xCB, 0x56, 0x78, 0x1E, 0xF2, 0xB5, 0xB2, 0xD3, 0xF2, 0x49,
    0xC1, 0xB5, 0x71, 0xA2, 0x80, 0x28, 0x00, 0x04, 0xE5, 0x7A, 0x3B, 0xCF,
];

/// RFC 5769, section 2.2: the attribute for 192.0.2.1:32853.
const MAPPED_V4: [u8; 12] = [
    0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xA1, 0x47, 0xE1, 0x12, 0xA6, 0x43,
];

/// RFC 5769, section 2.3: the attribute for [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const MAPPED_V6: [u8; 24] = [
    0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xA1, 0x47, 0x01, 0x13, 0xA9, 0xFA, 0xA5, 0xD3, 0xF1, 0x79,
    0xBC, 0x25, 0xF4, 0xB5, 0xBE, 0xD2, 0xB9, 0xD9,
];

fn v4() -> SocketAddr {
    "192.0.2.1:32853".parse().unwrap()
}

fn v6() -> SocketAddr {
    let text = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
    text.parse().unwrap()
}

fn answer(datagram: &[u8], from: SocketAddr) -> Result<StunResponse, &'static str> {
    could_be_request(datagram)?;
    to(datagram, from)
}

/// Encodes a message with these attributes; the padding is arbitrary.
fn message(typ: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (typ, value) in attributes {
        body.extend(typ.to_be_bytes());
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0x20);
    }
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&typ.to_be_bytes(), &length[..], &ID, &body].concat()
}

fn request(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    message(0x0001, attributes)
}

/// Appends a valid fingerprint to a message.
fn with_fingerprint(mut message: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(message.len() - 20 + 8).unwrap();
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = fingerprint(&message);
    [&message, &[0x80, 0x28, 0x00, 0x04][..], &sum.to_be_bytes()].concat()
}

/// Computes CRC-32 bit by bit from its definition.
fn fingerprint(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !sum ^ 0x5354_554E
}

#[test]
fn addresses_are_encoded_as_in_the_rfc() {
    let mapped = "[::ffff:192.0.2.1]:32853".parse().unwrap();
    for (from, attribute) in [
        (v4(), &MAPPED_V4[..]),
        (mapped, &MAPPED_V4),
        (v6(), &MAPPED_V6),
    ] {
        let answer = answer(&request(&[]), from).unwrap();
        let length = u8::try_from(attribute.len()).unwrap();
        let right = [&[0x01, 0x01, 0x00, length], &ID[..], attribute].concat();
        assert_eq!(answer.bytes, right, "{from}");
        assert!(!answer.is_error);
    }
}

#[test]
fn a_request_with_a_fingerprint_gets_one() {
    let answer = answer(&with_fingerprint(request(&[])), v4()).unwrap();
    let right = [&[0x01, 0x01, 0x00, 0x0C], &ID[..], &MAPPED_V4].concat();
    assert_eq!(answer.bytes, with_fingerprint(right));
}

#[test]
fn unknown_required_attributes_are_listed_in_an_error() {
    // PRIORITY (0x0024) is for ICE agents only.
    let error = answer(&REQUEST, v4()).unwrap();
    let code = (0x0009, vec![0, 0, 4, 20]);
    let named = |bytes: &[u8]| (0x000A, bytes.to_vec());
    let mut right = message(0x0111, &[code.clone(), named(&[0x00, 0x24])]);
    // rtc-stun pads with zeros.
    right.truncate(right.len() - 2);
    right.extend([0, 0]);
    assert_eq!(error.bytes, with_fingerprint(right));
    assert!(error.is_error);

    // CHANGE-REQUEST and an unknown attribute, each listed once; none after the integrity.
    let attributes = [0x7FFF, 0x0003, 0x7FFF, 0x8022, 0x0008, 0x0024];
    let error = answer(&request(&attributes.map(|typ| (typ, Vec::new()))), v6()).unwrap();
    let right = message(0x0111, &[code, named(&[0x00, 0x03, 0x7F, 0xFF])]);
    assert_eq!(error.bytes, right);
}

#[test]
fn known_but_unexpected_attributes_are_ignored() {
    let known = [
        0x0001, 0x0006, 0x0009, 0x000A, 0x0014, 0x0015, 0x001D, 0x001E, 0x0020, 0x001C, 0x0008,
        0x8000, 0x8020, 0x8022, 0x8029, 0xFFFF,
    ];
    for typ in known {
        let answer = answer(&request(&[(typ, vec![1, 2, 3])]), v4()).unwrap();
        assert!(!answer.is_error, "{typ:#06x}");
        assert!(answer.bytes.ends_with(&MAPPED_V4));
    }
}

#[test]
fn a_wrong_fingerprint_is_not_answered() {
    assert!(answer(&REQUEST, v4()).is_ok());
    let (id, software, sum) = (8..20, 24..40, 104..108);
    for at in id.chain(software).chain(sum) {
        for bit in 0..8 {
            let mut wrong = REQUEST;
            wrong[at] ^= 1 << bit;
            assert_eq!(
                answer(&wrong, v4()).unwrap_err(),
                "wrong fingerprint",
                "{at}"
            );
        }
    }
    // It has to be the last attribute.
    let last = (0x8022, b"more".to_vec());
    let fingerprint = |value: &[u8]| (0x8028, value.to_vec());
    for attributes in [
        &[fingerprint(&[0xE5, 0x7A, 0x3B, 0xCF]), last][..],
        &[fingerprint(&[])],
        &[fingerprint(&[0; 8])],
    ] {
        assert!(answer(&request(attributes), v4()).is_err());
    }
}

#[test]
fn only_binding_requests_are_answered() {
    let mut no_cookie = request(&[]);
    no_cookie[4] = 0;
    let mut longer = request(&[]);
    longer[3] = 4;
    let mut odd = request(&[]);
    odd[3] = 2;
    odd.extend([0, 0]);
    let cut = REQUEST[..104].to_vec();
    let trailing = [&REQUEST[..], &[0; 4]].concat();
    let not_stun = "not a STUN message";
    let no_request = "not a binding request";
    let length = "the length field does not match the datagram";
    for (datagram, why) in [
        (Vec::new(), not_stun),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), not_stun),
        (request(&[])[..19].to_vec(), not_stun),
        (no_cookie, not_stun),
        // An indication, both kinds of answer, and a TURN request.
        (message(0x0011, &[]), no_request),
        (message(0x0101, &[]), no_request),
        (message(0x0111, &[]), no_request),
        (message(0x0003, &[]), no_request),
        (message(0xC001, &[]), no_request),
        (longer, length),
        (odd, length),
        (cut, length),
        (trailing, length),
    ] {
        assert_eq!(answer(&datagram, v4()).unwrap_err(), why, "{datagram:?}");
    }
    // An attribute longer than the message.
    let mut malformed = request(&[(0x8022, vec![0; 4])]);
    malformed[23] = 5;
    assert!(answer(&malformed, v4()).is_err());
}

/// Fails if an answer to a forged source amplifies its request.
fn assert_no_amplification(request: &[u8], answer: &StunResponse, from: SocketAddr) {
    let address = if from.is_ipv4() { 12 } else { 24 };
    let (sent, got) = (answer.bytes.len(), request.len());
    if answer.is_error {
        assert!(2 * sent <= 3 * got, "{sent} bytes for {got}");
    } else {
        assert!(sent <= got + address, "{sent} bytes for {got}");
    }
}

fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    // Known attributes, and any others.
    let typ = prop_oneof![0x0000_u16..0x0030, 0x8020_u16..0x8030, any::<u16>()];
    let typ = typ.prop_filter("is generated separately", |typ| *typ != 0x8028);
    vec((typ, vec(any::<u8>(), 0..40)), 0..20)
}

proptest! {
    #[test]
    fn every_request_is_answered_and_none_amplified(
        attributes in attributes(),
        fingerprint in any::<bool>(),
        v4_or_v6 in any::<bool>(),
    ) {
        let from = if v4_or_v6 { v4() } else { v6() };
        let mut request = request(&attributes);
        if fingerprint {
            request = with_fingerprint(request);
        }
        let answer = answer(&request, from).unwrap();
        assert_no_amplification(&request, &answer, from);
        prop_assert_eq!(&answer.bytes[4..20], &ID);
        prop_assert_eq!(answer.bytes.len() % 4, 0);
        // An answer is never answered, so that two servers cannot loop.
        prop_assert!(could_be_request(&answer.bytes).is_err());
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(
        typ in option::of(any::<u16>()),
        mut body in vec(any::<u8>(), 0..200),
    ) {
        body.truncate(body.len() / 4 * 4);
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let typ = typ.unwrap_or(0x0001).to_be_bytes();
        let datagram = [&typ, &length[..], &ID, &body].concat();
        if let Ok(answer) = to(&datagram, v6()) {
            assert_no_amplification(&datagram, &answer, v6());
        }
        let _ = to(&body, v6());
        let _ = could_be_request(&body);
    }
}
