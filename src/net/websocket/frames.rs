//! WebSocket frames as they arrive (RFC 6455, section 5): decodes the payloads of binary messages in
//! place, however the bytes are cut. Not the writing of frames.

use super::mask::Mask;
use super::Side;
use std::fmt;
use std::io::Cursor;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::FrameHeader;

/// Maximum length of a frame's header.
pub const MAX_HEADER: usize = 14;
/// Maximum payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;

/// How the peer has violated the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set; no extension was agreed on.
    ReservedBits,
    /// An opcode that the protocol does not define.
    UnknownOpcode,
    /// A text message; tunnels have only binary ones.
    Text,
    /// A control frame that is a fragment.
    FragmentedControl,
    /// A control frame with more than [`MAX_CONTROL`] bytes.
    LongControl,
    /// A frame of a client without a mask.
    Unmasked,
    /// A frame of a server with a mask.
    Masked,
    /// A length of 2⁶³ or more.
    TooLong,
    /// A length that is not in its shortest form.
    NotShortest,
    /// A continuation of no message.
    NothingToContinue,
    /// A message that begins within another one.
    Interrupted,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad WebSocket frame: ")?;
        f.write_str(match self {
            Self::ReservedBits => "a reserved bit is set",
            Self::UnknownOpcode => "its opcode is unknown",
            Self::Text => "a text message, and tunnels have only binary ones",
            Self::FragmentedControl => "a control frame that is a fragment",
            Self::LongControl => "a control frame of more than 125 bytes",
            Self::Unmasked => "a client's frame without a mask",
            Self::Masked => "a server's frame with a mask",
            Self::TooLong => "its length is 2^63 or more",
            Self::NotShortest => "its length is not in the shortest form",
            Self::NothingToContinue => "a continuation of no message",
            Self::Interrupted => "a message that begins within another one",
        })
    }
}

/// The end of a stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramesEnd {
    /// By a close frame.
    Closed,
    /// By a violation of the protocol.
    Violated(Violation),
}

/// The result of decoding some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Number of bytes of payload, which are now at the beginning of the buffer.
    pub payload: usize,
    /// The payload of the last ping; earlier ones need no answer (RFC 6455, section 5.5.3).
    pub ping: Option<Vec<u8>>,
    /// The end of the stream, behind the payload; nothing more may be decoded.
    pub end: Option<FramesEnd>,
}

/// The reader of the peer's frames. It holds no payload but that of control frames.
#[derive(Debug)]
pub struct FrameReader {
    /// This end of the WebSocket.
    side: Side,
    /// The beginning of a header whose rest has not come.
    head: [u8; MAX_HEADER],
    /// Number of bytes in `head`.
    held: usize,
    frame: Option<OpenFrame>,
    /// Whether the last frame of the current message has not begun.
    in_message: bool,
    /// The payload of the current control frame.
    control: Vec<u8>,
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct OpenFrame {
    kind: FrameKind,
    /// Bytes of its payload that have not come.
    left: u64,
    mask: Option<Mask>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Data,
    Ping,
    Pong,
    Close,
}

impl FrameReader {
    /// Creates the reader of this end of a WebSocket.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            head: [0; MAX_HEADER],
            held: 0,
            frame: None,
            in_message: false,
            control: Vec::new(),
        }
    }

    /// Decodes bytes that have arrived, and moves the payload in them to the beginning.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Decoded {
        let mut decoded = Decoded::default();
        let mut at = 0;
        while at < bytes.len() && decoded.end.is_none() {
            let arrived = bytes.get(at..).unwrap_or_default();
            let Some(frame) = &mut self.frame else {
                match self.begin(arrived) {
                    Ok(used) => at = at.saturating_add(used),
                    Err(violation) => decoded.end = Some(FramesEnd::Violated(violation)),
                }
                self.finish(&mut decoded);
                continue;
            };
            let length =
                usize::try_from(frame.left).map_or(arrived.len(), |left| left.min(arrived.len()));
            frame.left = frame.left.saturating_sub(length as u64);
            // The payload of control frames stays behind that of messages, and is dropped.
            let to = decoded.payload;
            match &mut frame.mask {
                Some(mask) => mask.apply_moving(bytes, at, length, to),
                // Both ends are within what has arrived.
                None if to < at => bytes.copy_within(at..at.saturating_add(length), to),
                None => {}
            }
            match frame.kind {
                FrameKind::Data => decoded.payload = to.saturating_add(length),
                FrameKind::Ping => {
                    let payload = bytes.get(to..to.saturating_add(length));
                    self.control.extend_from_slice(payload.unwrap_or_default());
                }
                FrameKind::Pong | FrameKind::Close => {}
            }
            at = at.saturating_add(length);
            self.finish(&mut decoded);
        }
        decoded
    }

    /// Reads more of a header. Returns the number of bytes used.
    fn begin(&mut self, arrived: &[u8]) -> Result<usize, Violation> {
        let room = self.head.get_mut(self.held..).unwrap_or_default();
        let taken = room.len().min(arrived.len());
        for (to, from) in room.iter_mut().zip(arrived) {
            *to = *from;
        }
        let known = self.held.saturating_add(taken);
        let mut cursor = Cursor::new(self.head.get(..known).unwrap_or_default());
        // The only errors are unknown opcodes: reading from memory does not fail.
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::UnknownOpcode)?;
        let Some((header, length)) = parsed else {
            self.held = known;
            return Ok(taken);
        };
        // At most `MAX_HEADER`.
        let end = cursor.position() as usize;
        let used = end.saturating_sub(self.held);
        self.held = 0;
        let kind = self.check(&header, length, end)?;
        self.frame = Some(OpenFrame {
            kind,
            left: length,
            mask: header.mask.map(Mask::new),
        });
        Ok(used)
    }

    /// Checks a header of `size` bytes against the protocol. Returns the kind of the frame.
    fn check(
        &mut self,
        header: &FrameHeader,
        length: u64,
        size: usize,
    ) -> Result<FrameKind, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBits);
        }
        match (self.side, header.mask.is_some()) {
            (Side::Server, false) => return Err(Violation::Unmasked),
            (Side::Client, true) => return Err(Violation::Masked),
            _ => {}
        }
        if length > i64::MAX.unsigned_abs() {
            return Err(Violation::TooLong);
        }
        if size != header.len(length) {
            return Err(Violation::NotShortest);
        }
        let kind = match header.opcode {
            OpCode::Data(Data::Binary) if self.in_message => return Err(Violation::Interrupted),
            OpCode::Data(Data::Continue) if !self.in_message => {
                return Err(Violation::NothingToContinue)
            }
            OpCode::Data(Data::Binary | Data::Continue) => FrameKind::Data,
            OpCode::Data(Data::Text) => return Err(Violation::Text),
            OpCode::Control(Control::Ping) => FrameKind::Ping,
            OpCode::Control(Control::Pong) => FrameKind::Pong,
            OpCode::Control(Control::Close) => FrameKind::Close,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(Violation::UnknownOpcode)
            }
        };
        if kind == FrameKind::Data {
            self.in_message = !header.is_final;
        } else if !header.is_final {
            return Err(Violation::FragmentedControl);
        } else if length > MAX_CONTROL {
            return Err(Violation::LongControl);
        }
        Ok(kind)
    }

    /// Ends a frame whose payload is complete.
    fn finish(&mut self, decoded: &mut Decoded) {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else {
            return;
        };
        match frame.kind {
            FrameKind::Data | FrameKind::Pong => {}
            FrameKind::Ping => decoded.ping = Some(std::mem::take(&mut self.control)),
            FrameKind::Close => decoded.end = Some(FramesEnd::Closed),
        }
    }
}
