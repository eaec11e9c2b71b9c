//! The subject of a certificate as text (RFC 4514), for services. Not the check of the certificate.

use async_tls::pki_types::CertificateDer;
use async_tls::rustls::RootCertStore;

use super::der::{SEQUENCE, SET};
use super::der_reader::{any_element, element, OBJECT_IDENTIFIER};
use crate::wire::origin::MAX_SUBJECT;

/// The tags of UTF8String, PrintableString and IA5String, whose bytes are text.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// The names of attributes (RFC 4514, section 3) and their object identifiers in DER.
const ATTRIBUTES: [(&str, &[u8]); 9] = [
    ("CN", &[0x55, 4, 3]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
    ("C", &[0x55, 4, 6]),
    ("STREET", &[0x55, 4, 9]),
    (
        "DC",
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
    ),
    (
        "UID",
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
    ),
];

/// Returns the subject of a certificate that has been verified; `None` if it is empty, longer than
/// [`MAX_SUBJECT`] or not understood. It consists of printable ASCII characters.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).ok()?;
    text(&roots.roots.first()?.subject)
}

/// Writes the content of a Name (RFC 5280, section 4.1.2.4) as text, its last part first.
pub fn text(mut name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while !name.is_empty() {
        let (mut set, rest) = element(SET, name)?;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (attribute, rest) = element(SEQUENCE, set)?;
            attributes.push(attribute_text(attribute)?);
            set = rest;
        }
        parts.push(attributes.join("+"));
        name = rest;
    }
    parts.reverse();
    let text = parts.join(",");
    Some(text).filter(|text| (1..=MAX_SUBJECT).contains(&text.len()))
}

fn attribute_text(attribute: &[u8]) -> Option<String> {
    let (identifier, value) = element(OBJECT_IDENTIFIER, attribute)?;
    let known = ATTRIBUTES.iter().find(|(_, bytes)| *bytes == identifier);
    let name = known.map_or_else(|| dotted(identifier), |(name, _)| Some((*name).to_owned()))?;
    let (tag, value, rest) = any_element(value)?;
    if !rest.is_empty() {
        return None;
    }
    Some(match TEXTS.contains(&tag) {
        true => format!("{name}={}", escaped(value)),
        // In another encoding: shown as bytes, so that it is no other text.
        false => format!("{name}=#{tag:02x}{}", hex(value)),
    })
}

/// Escapes what has a meaning in the text, and all bytes that are not printable ASCII.
fn escaped(value: &[u8]) -> String {
    let mut text = String::new();
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.iter().enumerate() {
        let at_edge = (at == 0 || at == last) && *byte == b' ';
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b'#' if at == 0 => text.push_str("\\#"),
            b' '..=b'~' if !at_edge => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:02x}")),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes an object identifier with dots (X.690, section 8.19).
fn dotted(bytes: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number = 0u32;
    for byte in bytes {
        number = number
            .checked_mul(128)?
            .checked_add(u32::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let (first, rest) = numbers.split_first()?;
    let class = (first / 40).min(2);
    let begin = format!("{class}.{}", first.checked_sub(class.checked_mul(40)?)?);
    let rest = rest.iter().map(|number| format!(".{number}"));
    Some(rest.fold(begin, |text, number| text + &number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let length = match length {
            0..=0x7f => vec![length],
            _ => vec![0x81, length],
        };
        [&[tag][..], &length, content].concat()
    }

    fn attribute(identifier: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        let both = [tlv(OBJECT_IDENTIFIER, identifier), tlv(tag, value)].concat();
        tlv(SEQUENCE, &both)
    }

    #[test]
    fn a_subject_is_written_from_its_last_part_to_its_first() {
        let [cn, o]: [&[u8]; 2] = [&[0x55, 4, 3], &[0x55, 4, 10]];
        let one = |it: Vec<u8>| tlv(SET, &it);
        for (name, wanted) in [
            (one(attribute(cn, 0x0c, b"alice")), "CN=alice"),
            (
                [
                    one(attribute(o, 0x13, b"Home")),
                    one(attribute(cn, 0x0c, b"alice")),
                ]
                .concat(),
                "CN=alice,O=Home",
            ),
            (
                one([attribute(cn, 0x0c, b"a"), attribute(o, 0x0c, b"b")].concat()),
                "CN=a+O=b",
            ),
            (
                one(attribute(cn, 0x0c, b" a,O=b\\\r\n\"#")),
                "CN=\\20a\\,O=b\\\\\\0d\\0a\\\"#",
            ),
            (
                one(attribute(cn, 0x0c, "#\u{e9}".as_bytes())),
                "CN=\\#\\c3\\a9",
            ),
            (one(attribute(cn, 0x1e, &[0, b'a'])), "CN=#1e0061"),
            (
                one(attribute(&[0x2a, 0x86, 0x48, 1], 0x0c, b"x")),
                "1.2.840.1=x",
            ),
        ] {
            assert_eq!(text(&name).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn what_is_cut_or_too_long_has_no_text() {
        let name = tlv(SET, &attribute(&[0x55, 4, 3], 0x0c, b"alice"));
        for cut in 1..name.len() {
            assert_eq!(text(&name[..cut]), None, "{cut}");
        }
        assert_eq!(text(&[]), None);
        for (length, is_text) in [(197, true), (198, false)] {
            let value = attribute(&[0x55, 4, 3], 0x0c, &vec![b'a'; length]);
            assert_eq!(text(&tlv(SET, &value)).is_some(), is_text, "{length}");
        }
    }
}
