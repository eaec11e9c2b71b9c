//! A header section: lines up to an empty one, which are a request's head or the trailers of its
//! body.

use super::HttpRefusal;

/// Maximum length in bytes of a head or of trailers, with the empty line. Common servers accept
/// less.
pub const MAX_HEAD: usize = 32 * 1024;

/// The lines of one section received so far.
#[derive(Debug, Default)]
pub struct HeaderSection {
    bytes: Vec<u8>,
    /// Start of the current line.
    line: usize,
    /// Number of complete lines.
    lines: usize,
}

/// What a byte has completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Complete {
    /// The current line goes on.
    Nothing,
    /// A line.
    Line,
    /// The empty line, and with it the section.
    All,
}

impl HeaderSection {
    /// Whether no byte has come.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns all bytes so far, line ends included.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of complete lines.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Takes back the last byte of a complete section.
    pub fn reopen(&mut self) {
        self.bytes.pop();
        // The CR of the empty line.
        self.line = self.bytes.len().saturating_sub(1);
        self.lines = self.lines.saturating_sub(1);
    }

    /// Adds the next byte. Every line must end with CRLF: a lone CR or LF ends a line for some
    /// readers only.
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
