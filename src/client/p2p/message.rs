//! Signaling messages (docs/p2p.md, "Signaling"): a length and JSON, in a request's body with or
//! without chunks of their own, and in a response's without.

use crate::net::http::chunked::Chunks;
use serde::Deserialize;
use serde_json::{json, Value};

/// Maximum length of a message, in bytes.
pub const MAX_MESSAGE: usize = 32 * 1024;

/// A signaling message.
#[derive(Debug, PartialEq, Eq)]
pub enum SignalingMessage {
    /// A session description that offers data channels.
    Offer(String),
    /// A session description that answers an offer.
    Answer(String),
    /// An address of the sender: the candidate attribute (RFC 8839, section 5.1).
    Candidate(String),
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: Option<String>,
    sdp: Option<String>,
    candidate: Option<String>,
}

impl SignalingMessage {
    fn read(json: &[u8]) -> Option<Self> {
        let fields: Fields = serde_json::from_slice(json).ok()?;
        match (fields.kind.as_deref(), fields.sdp, fields.candidate) {
            (Some("offer"), Some(sdp), _) => Some(Self::Offer(sdp)),
            (Some("answer"), Some(sdp), _) => Some(Self::Answer(sdp)),
            (_, _, Some(candidate)) => Some(Self::Candidate(candidate)),
            _ => None,
        }
    }

    /// Encodes the message with its length prefix.
    pub fn write(&self) -> Vec<u8> {
        let json: Value = match self {
            Self::Offer(sdp) => json!({"type": "offer", "sdp": sdp}),
            Self::Answer(sdp) => json!({"type": "answer", "sdp": sdp}),
            Self::Candidate(candidate) => {
                json!({"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0})
            }
        };
        let json = json.to_string();
        // Our messages have a few KiB at most.
        let length = u16::try_from(json.len()).unwrap_or(u16::MAX);
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes
    }
}

/// A parser of messages in a body that arrives in pieces.
#[derive(Debug, Default)]
pub struct MessageReader {
    /// Bytes of messages that are not parsed yet.
    bytes: Vec<u8>,
    layer: Layer,
}

/// The inner chunked coding of a body, if it has one.
#[derive(Debug, Default)]
enum Layer {
    #[default]
    Unknown,
    None,
    Chunked(Chunks),
}

impl MessageReader {
    /// Adds bytes of the body. False if they are malformed.
    pub fn feed(&mut self, mut body: &[u8]) -> bool {
        if let (Layer::Unknown, Some(first)) = (&self.layer, body.first()) {
            // A message length begins with a byte below 0x30, a chunk with a digit.
            self.layer = match first.is_ascii_hexdigit() {
                true => Layer::Chunked(Chunks::new()),
                false => Layer::None,
            };
        }
        if let Layer::Chunked(chunks) = &mut self.layer {
            while !body.is_empty() && *chunks != Chunks::Last {
                match chunks.data(&mut body) {
                    Ok(data) => self.bytes.extend_from_slice(data),
                    Err(_) => return false,
                }
            }
        } else {
            self.bytes.extend_from_slice(body);
        }
        self.bytes.len() <= 2 * MAX_MESSAGE
    }

    /// Returns the next complete message; `Err` if it is malformed.
    pub fn next(&mut self) -> Option<Result<SignalingMessage, ()>> {
        loop {
            let (length, rest) = self.bytes.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            if length > MAX_MESSAGE {
                return Some(Err(()));
            }
            let json = rest.get(..length)?;
            let message = SignalingMessage::read(json);
            // The end of candidates is an empty candidate, or null.
            let is_end = message.is_none() && json.first() == Some(&b'{');
            self.bytes.drain(..2 + length);
            match message {
                Some(message) => return Some(Ok(message)),
                None if is_end => continue,
                None => return Some(Err(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut MessageReader) -> Vec<SignalingMessage> {
        std::iter::from_fn(|| reader.next())
            .map(Result::unwrap)
            .collect()
    }

    fn some() -> Vec<SignalingMessage> {
        vec![
            SignalingMessage::Offer("v=0\r\n".to_owned()),
            SignalingMessage::Candidate("candidate:1".to_owned()),
            SignalingMessage::Answer(String::new()),
        ]
    }

    #[test]
    fn messages_are_parsed_however_they_are_cut_with_and_without_chunks() {
        let plain: Vec<u8> = some().iter().flat_map(SignalingMessage::write).collect();
        let mut chunked = Vec::new();
        for message in some() {
            let bytes = message.write();
            chunked.extend(format!("{:x}\r\n", bytes.len()).bytes());
            chunked.extend(bytes);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        for body in [plain, chunked] {
            for size in 1..=body.len() {
                let mut reader = MessageReader::default();
                let mut messages = Vec::new();
                for piece in body.chunks(size) {
                    assert!(reader.feed(piece));
                    messages.extend(all(&mut reader));
                }
                assert_eq!(messages, some(), "in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_end_of_candidates_is_skipped_and_garbage_is_an_error() {
        let mut reader = MessageReader::default();
        assert!(reader.feed(b"\0\x02{}\0\x12{\"candidate\":null}\0\x03abc"));
        assert_eq!(reader.next(), Some(Err(())));
        assert!(!MessageReader::default().feed(b"1g\r\n"));
        assert!(!MessageReader::default().feed(&[b'1'; 100]));
        let mut reader = MessageReader::default();
        assert!(reader.feed(b"3\r\nabc"));
        assert!(!reader.feed(b"x"));
    }

    #[test]
    fn an_endless_message_is_not_gathered() {
        let mut reader = MessageReader::default();
        let fed = (0..10_000)
            .take_while(|_| reader.feed(&[0x2f; 1024]))
            .count();
        assert!(fed < 100, "{fed}");
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(pieces: Vec<Vec<u8>>) {
            let mut reader = MessageReader::default();
            for piece in pieces {
                if !reader.feed(&piece) {
                    break;
                }
                while let Some(Ok(_)) = reader.next() {}
            }
        }
    }
}
