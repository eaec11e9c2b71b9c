//! What a certificate tells: its names, dates, key and number (RFC 5280). Not whether it can be trusted.

use super::certificate_key::{DNS_NAME, OCTET_STRING, SUBJECT_ALT_NAME};
use super::der::{GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, VERSION};
use super::der_reader::{any_element, element};

/// The object identifier of the extension authorityKeyIdentifier, in DER.
const AUTHORITY_KEY: &[u8] = &[6, 3, 0x55, 0x1d, 35];
/// The tag of extensions in a certificate.
pub(super) const EXTENSIONS: u8 = 0xa3;
/// The tag of the identifier in an authorityKeyIdentifier.
const KEY_IDENTIFIER: u8 = 0x80;
const BOOLEAN: u8 = 1;
/// Maximum number of names that are read.
const MAX_NAMES: usize = 100;

/// The content of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The names that the certificate is for, in lower case.
    pub names: Vec<String>,
    /// The beginning of its validity, in seconds since 1970.
    pub not_before: i64,
    /// The end of its validity, in seconds since 1970.
    pub not_after: i64,
    /// The serial number, as the content of an INTEGER.
    pub serial: Vec<u8>,
    /// The identifier of the authority's key, if there is one.
    pub authority: Option<Vec<u8>>,
    /// The public key, in DER.
    pub public_key: Vec<u8>,
}

impl CertificateFacts {
    /// Reads a certificate of version 3 in DER; `None` if it is malformed.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (certificate, _) = element(SEQUENCE, der)?;
        let (signed, _) = element(SEQUENCE, certificate)?;
        let (_, rest) = element(VERSION, signed)?;
        let (serial, rest) = element(INTEGER, rest)?;
        let (_algorithm, rest) = element(SEQUENCE, rest)?;
        let (_issuer, rest) = element(SEQUENCE, rest)?;
        let (validity, rest) = element(SEQUENCE, rest)?;
        let (_subject, rest) = element(SEQUENCE, rest)?;
        let (_, after_key) = element(SEQUENCE, rest)?;
        let key_length = rest.len().checked_sub(after_key.len())?;
        let public_key = rest.get(..key_length)?.to_vec();
        let (not_before, validity) = time(validity)?;
        let (not_after, _) = time(validity)?;
        let mut facts = Self {
            names: Vec::new(),
            not_before,
            not_after,
            serial: serial.to_vec(),
            authority: None,
            public_key,
        };
        facts.read_extensions(after_key)?;
        Some(facts)
    }

    fn read_extensions(&mut self, mut rest: &[u8]) -> Option<()> {
        // The unique identifiers of version 2 may precede them.
        let extensions = loop {
            if rest.is_empty() {
                return Some(());
            }
            let (tag, content, after) = any_element(rest)?;
            if tag == EXTENSIONS {
                break content;
            }
            rest = after;
        };
        let (mut list, _) = element(SEQUENCE, extensions)?;
        while !list.is_empty() {
            let (extension, after) = element(SEQUENCE, list)?;
            list = after;
            if let Some(value) = value_of(extension, SUBJECT_ALT_NAME) {
                self.names = names(value?)?;
            } else if let Some(value) = value_of(extension, AUTHORITY_KEY) {
                let (identifier, _) = element(SEQUENCE, value?)?;
                let identifier = element(KEY_IDENTIFIER, identifier);
                self.authority = identifier.map(|(identifier, _)| identifier.to_vec());
            }
        }
        Some(())
    }
}

/// Returns the value of an extension if it is the wanted one; `Some(None)` if it is malformed.
fn value_of<'a>(extension: &'a [u8], wanted: &[u8]) -> Option<Option<&'a [u8]>> {
    let rest = extension.strip_prefix(wanted)?;
    let rest = match any_element(rest) {
        Some((BOOLEAN, _, rest)) => rest,
        _ => rest,
    };
    Some(element(OCTET_STRING, rest).map(|(value, _)| value))
}

fn names(value: &[u8]) -> Option<Vec<String>> {
    let (mut list, _) = element(SEQUENCE, value)?;
    let mut names = Vec::new();
    while !list.is_empty() && names.len() < MAX_NAMES {
        let (tag, name, after) = any_element(list)?;
        list = after;
        if tag == DNS_NAME {
            names.push(std::str::from_utf8(name).ok()?.to_ascii_lowercase());
        }
    }
    Some(names)
}

/// Reads a time (RFC 5280, section 4.1.2.5), in seconds since 1970; returns also the bytes behind it.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, text, rest) = any_element(der)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, text) = match tag {
        UTC_TIME => {
            let (year, text) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 } else { 1900 } + year, text)
        }
        GENERALIZED_TIME => {
            let (year, text) = text.split_at_checked(4)?;
            (year.parse().ok()?, text)
        }
        _ => return None,
    };
    let mut parts = [0; 5];
    if text.len() != 10 {
        return None;
    }
    for (part, at) in parts.iter_mut().zip((0..).step_by(2)) {
        *part = text.get(at..at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    Some((seconds(year, month, day, hour, minute, second)?, rest))
}

/// Returns the seconds from 1970 to a time (UTC) in the years 1 to 9999; `None` if there is no such time.
pub(crate) fn seconds(
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
) -> Option<i64> {
    let is_time = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        // A leap second.
        && (0..=60).contains(&second);
    if !is_time {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // From March of the year 0 to 1970.
    let days = days - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::super::{pem, ServerIdentity};
    use super::*;
    use std::path::Path;

    #[test]
    fn the_dates_and_names_of_a_certificate_are_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/tls.crt");
        let der = pem::certificates(&file).unwrap().remove(0);
        let facts = CertificateFacts::read(&der).unwrap();
        assert!(facts.not_before < facts.not_after, "{facts:?}");
        for cut in 0..der.len() {
            assert_eq!(CertificateFacts::read(&der[..cut]), None, "cut at {cut}");
        }
        let made = ServerIdentity::new().unwrap();
        let facts = CertificateFacts::read(&made.parts().0[0]).unwrap();
        assert_eq!(facts.not_before, 0);
        assert_eq!(facts.not_after, 253_402_300_799);
        assert!(facts.names.is_empty() && facts.authority.is_none());
    }

    #[test]
    fn a_time_is_counted_from_1970() {
        for ((year, month, day), expected) in [
            ((1970, 1, 1), Some(0)),
            ((2000, 2, 29), Some(951_782_400)),
            ((2000, 3, 1), Some(951_868_800)),
            ((2026, 12, 1), Some(1_796_083_200)),
            ((1969, 12, 31), Some(-86_400)),
            ((2026, 13, 1), None),
            ((2026, 0, 1), None),
            ((0, 1, 1), None),
        ] {
            assert_eq!(
                seconds(year, month, day, 0, 0, 0),
                expected,
                "{year}-{month}-{day}"
            );
        }
        assert_eq!(seconds(1970, 1, 2, 1, 2, 3), Some(86_400 + 3_723));
        let utc = [&[UTC_TIME, 13][..], b"490101000000Z"].concat();
        assert_eq!(time(&utc).map(|(it, _)| it), seconds(2049, 1, 1, 0, 0, 0));
        let utc = [&[UTC_TIME, 13][..], b"500101000000Z"].concat();
        assert_eq!(time(&utc).map(|(it, _)| it), seconds(1950, 1, 1, 0, 0, 0));
        for wrong in ["4901010000Z", "490101000000", "49010100000xZ", "Z", ""] {
            let length = u8::try_from(wrong.len()).unwrap();
            let der = [&[UTC_TIME, length][..], wrong.as_bytes()].concat();
            assert_eq!(time(&der), None, "{wrong}");
        }
    }
}
