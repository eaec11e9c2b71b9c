//! The chunked coding (RFC 9112, section 7.1): parses a body up to its trailers, and writes one.

/// The end of a chunked body: the last chunk, and no trailers.
pub const END: &[u8] = b"0\r\n\r\n";

/// Maximum length of a chunk's extensions, in bytes.
const MAX_EXTENSION: u16 = 1024;
/// Maximum number of hexadecimal digits of a size.
const MAX_DIGITS: u8 = 16;

/// The part of a chunked body that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// The digits of a chunk's size.
    Size {
        /// The size so far, in bytes.
        size: u64,
        /// Number of digits so far.
        digits: u8,
    },
    /// Blanks behind a size, which some programs pad it with.
    Padding {
        /// The chunk's size in bytes.
        size: u64,
        /// Number of blanks so far.
        length: u16,
    },
    /// The extensions behind a size, which are ignored.
    Extension {
        /// The chunk's size in bytes.
        size: u64,
        /// Their length so far, in bytes.
        length: u16,
    },
    /// The LF of a size line.
    SizeLf {
        /// The chunk's size in bytes.
        size: u64,
    },
    /// The data of a chunk.
    Data {
        /// Number of bytes that are left.
        left: u64,
    },
    /// The CR behind the data of a chunk.
    DataCr,
    /// The LF behind the data of a chunk.
    DataLf,
    /// The last chunk's size line has ended; trailers follow.
    Last,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunks {
    /// Returns the state at the start of a body.
    pub fn new() -> Self {
        Self::Size { size: 0, digits: 0 }
    }

    /// Consumes bytes and returns how many: those that belong to the body before its trailers and
    /// are well-formed. Fails if the first byte is malformed.
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
                _ => match self.next(*byte, false) {
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

    /// Returns the next data of the body, and removes it and the bytes before it from `bytes`.
    /// Empty if `bytes` has no data. Accepts blanks behind sizes: only a body that is passed on
    /// must mean the same to every reader.
    pub fn data<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
        while let Some((first, rest)) = bytes.split_first() {
            match self {
                Self::Last => break,
                Self::Data { left } => {
                    let (n, after) = within(*left, bytes.len());
                    let (data, rest) = bytes.split_at(n);
                    *bytes = rest;
                    *self = match after {
                        0 => Self::DataCr,
                        left => Self::Data { left },
                    };
                    return Ok(data);
                }
                _ => {
                    *self = self.next(*first, true)?;
                    *bytes = rest;
                }
            }
        }
        Ok(&[])
    }

    fn next(self, byte: u8, may_pad: bool) -> Result<Self, &'static str> {
        match (self, byte) {
            (Self::Size { size, digits: 1.. }, b' ' | b'\t') if may_pad => {
                Ok(Self::Padding { size, length: 0 })
            }
            (Self::Padding { size, length }, b' ' | b'\t') if length < MAX_EXTENSION => {
                Ok(Self::Padding {
                    size,
                    length: length.saturating_add(1),
                })
            }
            (Self::Padding { size, .. }, b'\r') => Ok(Self::SizeLf { size }),
            (Self::Padding { size, .. }, b';') => Ok(Self::Extension { size, length: 0 }),
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

/// Appends `data` as a chunk. Appends nothing if it is empty, since an empty chunk ends the body.
pub fn write(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Splits `there` bytes that have come at the end of a part with `left` bytes: returns how many of
/// them belong to it, and how many bytes it lacks then.
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
    fn data_is_what_stands_in_the_chunks() {
        let body = b"3 \t\r\nabc\r\nA ;x=\"y\"\r\n0123456789\r\n000\r\nX: y\r\n";
        for cut in 0..body.len() {
            let (mut chunks, mut data) = (Chunks::new(), Vec::new());
            for mut piece in [&body[..cut], &body[cut..]] {
                while !piece.is_empty() && chunks != Chunks::Last {
                    data.extend(chunks.data(&mut piece).unwrap());
                }
            }
            assert_eq!((&data[..], chunks), (&b"abc0123456789"[..], Chunks::Last));
        }
        for body in ["1 1\r\n", "1 \n", " 1\r\n", "1\r\nab"] {
            let (mut chunks, mut bytes) = (Chunks::new(), body.as_bytes());
            while chunks.data(&mut bytes).is_ok() {
                assert!(!bytes.is_empty(), "{body:?}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut body = Vec::new();
        for data in [&b"one"[..], b"", b"0123456789abcdef"] {
            write(data, &mut body);
        }
        body.extend(END);
        let (mut chunks, mut rest, mut data) = (Chunks::new(), body.as_slice(), Vec::new());
        while chunks != Chunks::Last {
            data.extend(chunks.data(&mut rest).unwrap());
        }
        assert_eq!(
            (&data[..], rest),
            (&b"one0123456789abcdef"[..], &b"\r\n"[..])
        );
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
