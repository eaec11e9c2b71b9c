//! Percent-encoding (RFC 3986, section 2.1).

use std::fmt::Write;

/// Appends `bytes` to `out` and escapes all but the unreserved characters (RFC 3986, section 2.3).
pub fn encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte));
            }
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// Appends the decoded `raw` to `out`; `None` if a `%` is not followed by two digits.
pub fn decode(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            byte => *byte,
        });
    }
    Some(())
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    let digit = char::from(*byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(bytes: Vec<u8>) {
            let (mut text, mut again) = (String::new(), Vec::new());
            encode(&bytes, &mut text);
            assert!(text.is_ascii() && decode(text.as_bytes(), &mut again).is_some());
            assert_eq!(again, bytes);
        }
    }

    #[test]
    fn an_escape_has_two_digits() {
        for bad in ["%", "%4", "%4g", "%%41", "%+1"] {
            assert_eq!(decode(bad.as_bytes(), &mut Vec::new()), None, "{bad}");
        }
        let mut out = Vec::new();
        assert!(decode(b"%2f%2F+", &mut out).is_some());
        assert_eq!(out, b"//+");
    }
}
