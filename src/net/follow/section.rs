//! A header section: lines up to an empty one, which are a request's head or the trailers of its
//! body.

use super::HttpRefusal;

/// Maximum length in bytes of a head or of trailers, with the empty line. Common servers accept
/// less.
pub const MAX_HEAD: usize = 32 * 1024;
/// Room in bytes that is made for a section in advance.
const USUAL: usize = 1024;

/// The lines of one section received so far.
#[derive(Debug, Default)]
pub struct HeaderSection {
    bytes: Vec<u8>,
    /// Start of the current line.
    line: usize,
    /// Number of complete lines.
    lines: usize,
}

/// Whether the byte may be within a line.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7E | 0x80..)
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

    /// Adds the bytes up to the end of the current line, or all of them, and returns their number.
    pub fn push_line(&mut self, bytes: &[u8]) -> Result<(usize, Complete), HttpRefusal> {
        let end = bytes.iter().position(|b| *b == b'\n');
        let count = end.map_or(bytes.len(), |end| end.saturating_add(1));
        let line = bytes.get(..count).unwrap_or_default();
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        let fits = self.bytes.len().saturating_add(count) <= MAX_HEAD;
        if fits && self.bytes.last() != Some(&b'\r') && text.iter().copied().all(is_text) {
            if self.bytes.is_empty() {
                self.bytes.reserve(bytes.len().min(USUAL));
            }
            // The rest is at most the end of the line.
            self.bytes.extend_from_slice(text);
            let rest = line.get(text.len()..).unwrap_or_default();
            let mut complete = Complete::Nothing;
            for byte in rest {
                complete = self.push(*byte)?;
            }
            return Ok((count, complete));
        }
        // As it is, some byte of it may be wrong: the same, until that one is found.
        let mut complete = Complete::Nothing;
        for byte in line {
            complete = self.push(*byte)?;
        }
        Ok((count, complete))
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
            b'\r' => {}
            text if is_text(text) => {}
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
