//! Certificates and private keys from PEM files, read without being checked.
//!
//! An error says what the file is instead, and the command that converts it.

use super::invalid;
use crate::small_file;
use async_tls::pki_types::pem::{self, PemObject};
use async_tls::pki_types::CertificateDer;
use base64::prelude::{Engine, BASE64_STANDARD};
use std::io;
use std::path::Path;

/// UTF-8 byte order mark, which Windows editors put first.
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Number of characters in a line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// Maximum length of a file of certificates in bytes. That of all authorities of the web has 220 KiB.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;

/// What a file should contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemContent {
    Certificate,
    Key,
}

/// Reads every certificate in the file.
pub(super) fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = read(path, PemContent::Certificate)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| not_usable(path, PemContent::Certificate, &text, wrong(&e)))?;
    if found.is_empty() {
        let why = "there is no PEM certificate in it";
        return Err(not_usable(path, PemContent::Certificate, &text, why));
    }
    Ok(found)
}

/// Encodes a PEM section (RFC 7468).
pub(crate) fn pem_of(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(PEM_LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Reads the first private key in the file.
pub(super) fn private_key(path: &Path) -> io::Result<async_tls::pki_types::PrivateKeyDer<'static>> {
    use async_tls::pki_types::PrivateKeyDer;
    let text = read(path, PemContent::Key)?;
    if contains(&text, "Proc-Type: 4,ENCRYPTED") {
        return Err(not_usable(path, PemContent::Key, &text, "it is encrypted"));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| match e {
        pem::Error::NoItemsFound => {
            not_usable(path, PemContent::Key, &text, "there is no PEM key in it")
        }
        e => not_usable(path, PemContent::Key, &text, wrong(&e)),
    })
}

/// Returns what is wrong with a PEM file. The error of the crate quotes the file, which may have a secret in it, or be
/// none that is meant for gt.
fn wrong(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no line with END",
        pem::Error::IllegalSectionStart { .. } => "a line with BEGIN is damaged",
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is not base64",
        _ => "it is not PEM",
    }
}

fn read(path: &Path, wanted: PemContent) -> io::Result<Vec<u8>> {
    let bytes = match wanted {
        PemContent::Certificate => small_file::read_up_to(path, MAX_CERTIFICATES),
        PemContent::Key => small_file::read(path),
    };
    let mut text =
        bytes.map_err(|e| io::Error::new(e.kind(), reading(path, wanted, &e.to_string())))?;
    if text.starts_with(UTF8_MARK) {
        text.drain(..UTF8_MARK.len());
    }
    Ok(text)
}

fn reading(path: &Path, wanted: PemContent, why: &str) -> String {
    let what = match wanted {
        PemContent::Certificate => "certificates",
        PemContent::Key => "the private key",
    };
    format!("reading {what} from {}: {why}", path.display())
}

fn not_usable(path: &Path, wanted: PemContent, text: &[u8], why: &str) -> io::Error {
    let advice = advice(wanted, text).replace("FILE", &path.display().to_string());
    let advice = if advice.is_empty() {
        advice
    } else {
        format!("; {advice}")
    };
    invalid(format!("{}{advice}", reading(path, wanted, why)))
}

fn contains(text: &[u8], words: &str) -> bool {
    text.windows(words.len())
        .any(|part| part == words.as_bytes())
}

/// Returns advice about a file with other content; `FILE` stands for its name. Empty if the content
/// is unknown.
fn advice(wanted: PemContent, text: &[u8]) -> &'static str {
    // Labels of RFC 7468 and OpenSSL, in the order of the search.
    const LABELS: [(&str, &str); 9] = [
        (
            "BEGIN ENCRYPTED PRIVATE KEY",
            "gt cannot ask for a password: openssl pkey -in FILE -out plain.pem",
        ),
        (
            "Proc-Type: 4,ENCRYPTED",
            "gt cannot ask for a password: openssl pkey -in FILE -out plain.pem",
        ),
        (
            "BEGIN OPENSSH PRIVATE KEY",
            "it is an SSH key; create one for TLS: openssl genpkey -algorithm EC -pkeyopt \
             ec_paramgen_curve:P-256 -out key.pem",
        ),
        (
            "BEGIN DSA PRIVATE KEY",
            "TLS no longer supports DSA; create another key: openssl genpkey -algorithm EC \
             -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
        ),
        (
            "BEGIN TRUSTED CERTIFICATE",
            "convert it: openssl x509 -in FILE -out cert.pem",
        ),
        (
            "BEGIN PKCS7",
            "convert it: openssl pkcs7 -print_certs -in FILE -out cert.pem",
        ),
        (
            "CERTIFICATE REQUEST",
            "it is a request that an authority has to sign first",
        ),
        ("BEGIN PUBLIC KEY", "it is a public key"),
        (
            "PRIVATE KEY",
            "it is a private key; the certificate is another file",
        ),
    ];
    let is_key = wanted == PemContent::Key;
    match text {
        [] => return "it is empty",
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            return "it is UTF-16: iconv -f UTF-16 -t ASCII FILE >converted.pem"
        }
        // PKCS #12: a sequence that begins with version 3 (RFC 7292, section 4).
        [0x30, 0x82, _, _, 2, 1, 3, ..] | [0x30, 0x80, 2, 1, 3, ..] => {
            return "it is PKCS #12: openssl pkcs12 -in FILE -nodes -out converted.pem"
        }
        // A DER sequence; text may also begin with a zero.
        [0x30, rest @ ..] if !rest.iter().take(32).all(|byte| is_text(*byte)) => {
            return if is_key {
                "it is DER: openssl pkey -inform der -in FILE -out key.pem"
            } else {
                "it is DER: openssl x509 -inform der -in FILE -out cert.pem"
            }
        }
        _ => {}
    }
    let known = LABELS.iter().find(|(label, _)| contains(text, label));
    match known {
        Some((_, advice)) => advice,
        None if is_key && contains(text, "BEGIN CERTIFICATE") => {
            "it is a certificate; the key is another file"
        }
        None => "",
    }
}

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_non_pem_certificate_says_what_the_file_is() {
        for (text, word) in [
            (&b""[..], "empty"),
            (b"\xFF\xFE-\0-\0", "iconv"),
            (&[0x30, 0x82, 4, 0, 2, 1, 3, 0x30], "openssl pkcs12"),
            (
                &[0x30, 0x82, 4, 0, 0x30, 0x82, 3],
                "openssl x509 -inform der",
            ),
            (
                b"-----BEGIN TRUSTED CERTIFICATE-----",
                "openssl x509 -in FILE",
            ),
            (b"-----BEGIN PKCS7-----", "openssl pkcs7"),
            (
                b"-----BEGIN CERTIFICATE REQUEST-----",
                "authority has to sign",
            ),
            (b"-----BEGIN RSA PRIVATE KEY-----", "another file"),
        ] {
            let advice = advice(PemContent::Certificate, text);
            assert!(advice.contains(word), "{:?}: {advice}", text.escape_ascii());
        }
        assert_eq!(advice(PemContent::Certificate, b"something else"), "");
    }

    #[test]
    fn the_error_for_a_non_pem_key_says_what_the_file_is() {
        for (text, word) in [
            (
                &b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..],
                "openssl pkey -in",
            ),
            (b"Proc-Type: 4,ENCRYPTED", "openssl pkey -in"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----", "SSH"),
            (b"-----BEGIN DSA PRIVATE KEY-----", "DSA"),
            (b"-----BEGIN CERTIFICATE-----", "another file"),
            (b"-----BEGIN PUBLIC KEY-----", "public key"),
            (
                &[0x30, 0x82, 4, 0, 2, 1, 0, 0x30],
                "openssl pkey -inform der",
            ),
        ] {
            let advice = advice(PemContent::Key, text);
            assert!(advice.contains(word), "{:?}: {advice}", text.escape_ascii());
        }
    }
}
