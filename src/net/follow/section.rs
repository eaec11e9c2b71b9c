//! Lines up to an empty one: a request's head, or the trailers of its body.

use super::HttpRefusal;

/// Longest head, and longest trailers, in bytes with the empty line: more than common servers take.
pub const MAX_HEAD: usize = 32 * 1024;

/// The lines that have come so far.
#[derive(Debug, Default)]
pub struct HeaderSection {
    bytes: Vec<u8>,
    /// Where the present line begins.
    line: usize,
    /// Lines that are complete.
    lines: usize,
}

/// What a byte has completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Complete {
    Nothing,
    Line,
    All,
}

impl HeaderSection {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many lines are complete.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Takes the next byte. Every line ends with CRLF: a CR or LF by itself ends a line for some
    /// readers and not for others.
    pub fn push(&mut self, byte: u8) -> Result<Complete, HttpRefusal> {
        let after_cr = self.bytes.last() == Some(&b'\r');
        match byte {
            b'\n' if after_cr => {}
            _ if after_cr => {
                return Err(HttpRefusal::bad_request("a carriage return within a line"))
            }
            b'\n' => return Err(HttpRefusal::bad_request("a line that ends without CR")),
            b'\r' | b'\t' | b' '..=0x7E | 0x80.. => {}
            _ => return Err(HttpRefusal::bad_request("a control character")),
        }
        if self.bytes.len() >= MAX_HEAD {
            let why = "the head of the request is longer than 32 KiB";
            return Err(HttpRefusal::head_too_large(why));
        }
        self.bytes.push(byte);
        if byte != b'\n' {
            return Ok(Complete::Nothing);
        }
        let length = self.bytes.len().saturating_sub(self.line);
        self.line = self.bytes.len();
        self.lines = self.lines.saturating_add(1);
        Ok(match length {
            2 => Complete::All,
            _ => Complete::Line,
        })
    }
}
