//! The beginning of a stream: the label that its opener sends, and the answer (docs/p2p.md, "QUIC"). Parsing and
//! writing only.

use bytes::{Buf, Bytes};

/// Maximum number of streams that a peer may have open.
pub const CHANNELS: u32 = 256;
/// Maximum length of a label in bytes.
pub const MAX_LABEL: usize = 4096;
/// Length in bytes of a label's length.
const LENGTH: usize = 2;
/// The answer to a header that was understood.
pub const ACCEPTED: u8 = 0;

/// Writes the beginning of a stream; `None` if the label is too long.
pub fn write(label: &str) -> Option<Vec<u8>> {
    let length = u16::try_from(label.len()).ok();
    let length = length.filter(|_| label.len() <= MAX_LABEL)?;
    Some([&length.to_be_bytes(), label.as_bytes()].concat())
}

/// Reads the beginning of a stream, whatever pieces it comes in.
#[derive(Debug, Default)]
pub struct HeaderReader {
    bytes: Vec<u8>,
}

/// The result of reading a piece of a header.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderRead {
    /// The label is not complete.
    More,
    /// The label. What is left of the piece is behind the header.
    Label(String),
    /// The bytes are no header.
    Malformed,
}

impl HeaderReader {
    /// Takes the header's part of a piece of a stream.
    pub fn read(&mut self, piece: &mut Bytes) -> HeaderRead {
        loop {
            let wanted = match self.bytes.first_chunk::<LENGTH>() {
                None => LENGTH,
                Some(length) => match usize::from(u16::from_be_bytes(*length)) {
                    length if length > MAX_LABEL => return HeaderRead::Malformed,
                    length => LENGTH + length,
                },
            };
            let missing = wanted.saturating_sub(self.bytes.len());
            if missing == 0 && wanted >= LENGTH && self.bytes.len() >= LENGTH {
                let label = self.bytes.split_off(LENGTH);
                return match String::from_utf8(label) {
                    Ok(label) => HeaderRead::Label(label),
                    Err(_) => HeaderRead::Malformed,
                };
            }
            if piece.is_empty() {
                return HeaderRead::More;
            }
            let count = missing.min(piece.len());
            self.bytes
                .extend_from_slice(piece.get(..count).unwrap_or_default());
            piece.advance(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (HeaderRead, Vec<u8>) {
        let mut reader = HeaderReader::default();
        let mut pieces = pieces.iter();
        loop {
            let Some(piece) = pieces.next() else {
                return (HeaderRead::More, Vec::new());
            };
            let mut piece = Bytes::copy_from_slice(piece);
            match reader.read(&mut piece) {
                HeaderRead::More => assert!(piece.is_empty()),
                done => return (done, piece.to_vec()),
            }
        }
    }

    #[test]
    fn a_label_is_read_in_any_pieces() {
        let header = write("gt:ab").unwrap();
        assert_eq!(header, b"\0\x05gt:ab");
        let label = HeaderRead::Label("gt:ab".to_owned());
        let all = [&header[..], b"more"].concat();
        assert_eq!(read(&[&all]), (label, b"more".to_vec()));
        for at in 1..header.len() {
            let (one, other) = header.split_at(at);
            let label = HeaderRead::Label("gt:ab".to_owned());
            assert_eq!(read(&[one, b"", other]), (label, Vec::new()), "{at}");
            assert_eq!(read(&[one]).0, HeaderRead::More);
        }
    }

    #[test]
    fn labels_are_text_of_limited_length() {
        assert_eq!(
            read(&[b"\0\0x"]),
            (HeaderRead::Label(String::new()), b"x".to_vec())
        );
        assert_eq!(read(&[b"\0\x02\xff\xfe"]).0, HeaderRead::Malformed);
        assert_eq!(read(&[b"\x10\x01"]).0, HeaderRead::Malformed);
        let long = "a".repeat(MAX_LABEL);
        let header = write(&long).unwrap();
        assert_eq!(read(&[&header]).0, HeaderRead::Label(long.clone()));
        assert_eq!(write(&(long + "a")), None);
    }
}
