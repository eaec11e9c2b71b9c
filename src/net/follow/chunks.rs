//! A chunked body (RFC 9112, section 7.1), up to its trailers.

/// Maximum length of a chunk's extensions, in bytes.
const MAX_EXTENSION: u16 = 1024;
/// Digits of the largest size.
const MAX_DIGITS: u8 = 16;

/// The part of a chunked body that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        length: u16,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The last chunk's size line has ended; trailers follow.
    Last,
}

impl Chunks {
    pub fn new() -> Self {
        Self::Size { size: 0, digits: 0 }
    }

    /// Consumes the bytes that belong to the body before its trailers and are well-formed; fails if
    /// the first byte is not.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut at = 0usize;
        while let Some(byte) = bytes.get(at) {
            match self {
                Self::Last => break,
                Self::Data { left } => {
                    let (n, rest) = within(*left, bytes.len().saturating_sub(at));
                    at = at.saturating_add(n);
                    *self = match rest {
                        0 => Self::DataCr,
                        left => Self::Data { left },
                    };
                }
                _ => match self.next(*byte) {
                    Ok(next) => {
                        *self = next;
                        at = at.saturating_add(1);
                    }
                    Err(why) if at == 0 => return Err(why),
                    Err(_) => break,
                },
            }
        }
        Ok(at)
    }

    fn next(self, byte: u8) -> Result<Self, &'static str> {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits >= MAX_DIGITS {
                    return Err("a chunk is too large");
                }
                Ok(Self::Size {
                    // At most 16 digits: nothing is shifted out.
                    size: size << 4 | u64::from(digit),
                    digits: digits.saturating_add(1),
                })
            }
            (Self::Size { size, digits: 1.. }, b'\r') => Ok(Self::SizeLf { size }),
            (Self::Size { size, digits: 1.. }, b';') => Ok(Self::Extension { size, length: 0 }),
            (Self::Extension { size, .. }, b'\r') => Ok(Self::SizeLf { size }),
            (Self::Extension { length, .. }, _) if length >= MAX_EXTENSION => {
                Err("the line of a chunk is too long")
            }
            (Self::Extension { size, length }, b'\t' | b' '..=0x7E | 0x80..) => {
                Ok(Self::Extension {
                    size,
                    length: length.saturating_add(1),
                })
            }
            (Self::SizeLf { size: 0 }, b'\n') => Ok(Self::Last),
            (Self::SizeLf { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::new()),
            _ => Err("a chunk is malformed"),
        }
    }
}

/// Returns how many of `there` bytes belong to the `left` ones, and how many are left after them.
pub fn within(left: u64, there: usize) -> (usize, u64) {
    let n = usize::try_from(left).unwrap_or(usize::MAX).min(there);
    // A slice length fits.
    (n, left.saturating_sub(n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a byte is malformed.
    fn is_bad(bytes: &str) -> bool {
        let mut chunks = Chunks::new();
        let n = chunks.take(bytes.as_bytes()).unwrap_or_default();
        n < bytes.len() && chunks.take(&bytes.as_bytes()[n..]).is_err()
    }

    #[test]
    fn ambiguous_chunk_sizes_are_refused() {
        for line in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r1",
            "1;a\n",
            "1;a\rb",
            "1;\0",
            "10000000000000000\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
        ] {
            assert!(is_bad(line), "{line:?}");
        }
        assert!(!is_bad(&format!("1;{}\r\n", "a".repeat(1024))));
        assert!(is_bad(&format!("1;{}", "a".repeat(1025))));
    }

    #[test]
    fn a_body_ends_with_its_last_chunk() {
        let body = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000\r\nX: y\r\n";
        for cut in 0..body.len() {
            let mut chunks = Chunks::new();
            let first = chunks.take(&body[..cut]).unwrap();
            let then = chunks.take(&body[first..]).unwrap();
            assert_eq!((first + then, chunks), (body.len() - 6, Chunks::Last));
        }
    }
}
