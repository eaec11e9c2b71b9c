//! The wire format: encodes and parses, without sockets, clocks or an allocation per frame.
//!
//! [`hello`] is what a client sends first, [`frame`] everything after it. Both are values that are
//! independent of the version; [`codec`] encodes them as `gt1` (docs/gt1.md) or `gt2`
//! (docs/wire.md).

pub mod codec;
pub mod frame;
mod gt1;
mod gt2;
pub mod hello;
pub mod proxy_protocol;
#[cfg(test)]
mod tests;

pub use gt2::origin;
#[cfg(feature = "quic")]
pub use gt2::stream_header;

/// First byte of every tunnel.
pub const MAGIC: u8 = 0xF0;

/// A version of the wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// GT/1, the protocol of the original: no windows, no half-close.
    One,
    /// GT/2, used when both ends support it.
    Two,
}

impl Version {
    /// Returns the byte after [`MAGIC`].
    pub const fn byte(self) -> u8 {
        match self {
            Self::One => 0x01,
            // 0x02 is a GT/1 probe over datagrams, which GT/1 servers close.
            Self::Two => 0x20,
        }
    }

    /// Returns the name of the protocol.
    #[cfg(feature = "web")]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "GT/1",
            Self::Two => "GT/2",
        }
    }

    /// Returns the version for the second byte of a tunnel.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::One, Self::Two]
            .into_iter()
            .find(|version| version.byte() == byte)
    }
}

/// Why received bytes are invalid. The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// An id, secret or prefix of 0 or more than 200 bytes.
    NameLength(u32),
    /// An id, secret or prefix that is not UTF-8.
    NotText,
    /// A hello option that this version does not know.
    UnknownOption(u8),
    /// More options than [`hello::MAX_OPTIONS`].
    TooManyOptions,
    /// A reserved stream id that is not a known signal.
    UnknownSignal(u32),
    /// A stream frame with an unknown operation.
    UnknownOperation(u16),
    /// A hello longer than [`hello::MAX_LENGTH`] or shorter than its fields.
    HelloLength(u32),
    /// A field that exceeds the hello or has a wrong length for its kind.
    FieldLength(u8),
    /// A field that is repeated, or precedes one that it has to follow.
    FieldOrder(u8),
    /// A key of this kind, which is not known.
    KeyKind(u8),
    /// A hello that lacks this field.
    FieldMissing(u8),
    /// A list of services that does not end where its field ends.
    ServicesLength,
    /// Bytes that are not an answer to a hello.
    NotAnAnswer,
    /// An unknown frame that is marked as critical.
    UnknownFrame(u8),
    /// A frame with a wrong length for its kind.
    FrameLength(u8),
    /// An origin that is empty, too long or shorter than its parts.
    OriginLength(u16),
    /// A stream frame with stream id 0.
    NoStream(u8),
    /// A frame that belongs to a stream, in a tunnel whose streams are streams of QUIC.
    NotOverQuic,
    /// A stream that is opened with the number of another one.
    StreamInUse(frame::StreamId),
    /// More bytes than the window of the stream allows.
    Overrun(frame::StreamId),
    /// More credit than a window can hold.
    TooMuchCredit(frame::StreamId),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NameLength(n) => write!(f, "a name has {n} bytes (1 to 200 are allowed)"),
            Self::NotText => f.write_str("a name is not UTF-8"),
            Self::UnknownOption(o) => write!(f, "unknown hello option {o:#04x}"),
            Self::TooManyOptions => f.write_str("too many hello options"),
            Self::UnknownSignal(s) => write!(f, "unknown signal {s:#010x}"),
            Self::UnknownOperation(o) => write!(f, "unknown stream operation {o}"),
            Self::HelloLength(n) => write!(f, "the hello has an invalid length of {n} bytes"),
            Self::FieldLength(k) => write!(f, "hello field {k:#04x} has a wrong length"),
            Self::FieldOrder(k) => write!(f, "hello field {k:#04x} is repeated or comes too early"),
            Self::KeyKind(k) => write!(f, "unknown kind of key {k:#04x}"),
            Self::FieldMissing(k) => write!(f, "the hello lacks field {k:#04x}"),
            Self::ServicesLength => f.write_str("the list of services has a wrong length"),
            Self::NotAnAnswer => {
                f.write_str("the peer's first bytes are not an answer to the hello")
            }
            Self::UnknownFrame(k) => write!(f, "unknown frame {k:#04x}, which is critical"),
            Self::FrameLength(k) => write!(f, "frame {k:#04x} has a wrong length"),
            Self::OriginLength(n) => {
                write!(f, "a visitor's origin has an invalid length of {n} bytes")
            }
            Self::NoStream(k) => write!(f, "frame {k:#04x} has stream id 0"),
            Self::NotOverQuic => f.write_str("a frame of a stream that has a stream of QUIC"),
            Self::StreamInUse(s) => write!(f, "stream {s} is opened twice"),
            Self::Overrun(s) => write!(f, "more bytes for stream {s} than its window allows"),
            Self::TooMuchCredit(s) => write!(f, "more credit for stream {s} than a window holds"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Returns the big-endian `u16` at offset `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Returns the big-endian `u32` at offset `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Splits the first 4 bytes of a GT/2 frame or field into a kind (8 bits) and a length (24 bits).
fn kind_and_length(bytes: &[u8]) -> Option<(u8, u32)> {
    let first = u32_at(bytes, 0)?;
    let [kind, ..] = first.to_be_bytes();
    Some((kind, first & 0x00FF_FFFF))
}
