//! Bytes ↔ values. No sockets, no clocks, no allocation per frame.
//!
//! [`hello`] is what a client says first; [`frame`] is everything after it. What both
//! versions say is the same; [`Version`] gives it its form: `gt1` (WIRE.md) or `gt2`
//! (docs/wire.md).

pub mod frame;
mod gt1;
mod gt2;
pub mod hello;
#[cfg(test)]
mod tests;

/// First byte of every tunnel, on every listener.
pub const MAGIC: u8 = 0xF0;

/// A version of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// GT/1: no windows, no half-close.
    One,
    /// GT/2, which ends of ours agree on.
    Two,
}

impl Version {
    /// The byte behind [`MAGIC`].
    pub const fn byte(self) -> u8 {
        match self {
            Self::One => 0x01,
            // 02 is a probe of GT/1's over datagrams, which its servers close.
            Self::Two => 0x20,
        }
    }

    /// The version that a tunnel's second byte names.
    pub fn of(byte: u8) -> Option<Self> {
        [Self::One, Self::Two]
            .into_iter()
            .find(|version| version.byte() == byte)
    }
}

/// What makes a peer's bytes unusable. The connection they came from is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// An id, secret or prefix of zero or more than 200 bytes.
    NameLength(u32),
    /// An id, secret or prefix that is not UTF-8.
    NotText,
    /// An option this version does not know.
    UnknownOption(u8),
    /// More options than [`hello::MAX_OPTIONS`].
    TooManyOptions,
    /// A signal in the reserved range that this version does not know.
    UnknownSignal(u32),
    /// A task frame with an operation that this version does not know.
    UnknownOperation(u16),
    /// A hello longer than [`hello::MAX_LENGTH`], or too short for what it has to hold.
    HelloLength(u32),
    /// A field that is longer than the hello, or not as long as its kind has to be.
    FieldLength(u8),
    /// A field that came twice, or before one that it has to follow.
    FieldOrder(u8),
    /// A hello without this field.
    FieldMissing(u8),
    /// The list of services does not end where its field does.
    ServicesLength,
    /// Not the answer to a hello.
    NotAnAnswer,
    /// A frame that must be understood, and is not.
    UnknownFrame(u8),
    /// A frame that is not as long as its kind has to be.
    FrameLength(u8),
    /// A frame for a stream, without one.
    NoStream(u8),
    /// More bytes than the window allows.
    Overrun(u32),
    /// More credit than a window can hold.
    TooMuchCredit(u32),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NameLength(n) => write!(f, "a name of {n} bytes, 1 to 200 are allowed"),
            Self::NotText => f.write_str("a name that is not UTF-8"),
            Self::UnknownOption(o) => write!(f, "unknown hello option {o:#04x}"),
            Self::TooManyOptions => f.write_str("too many hello options"),
            Self::UnknownSignal(s) => write!(f, "unknown signal {s:#010x}"),
            Self::UnknownOperation(o) => write!(f, "unknown task operation {o}"),
            Self::HelloLength(n) => write!(f, "a hello of {n} bytes"),
            Self::FieldLength(k) => write!(f, "hello field {k:#04x} has a wrong length"),
            Self::FieldOrder(k) => write!(f, "hello field {k:#04x} comes twice or too early"),
            Self::FieldMissing(k) => write!(f, "a hello without field {k:#04x}"),
            Self::ServicesLength => f.write_str("a list of services with a wrong length"),
            Self::NotAnAnswer => f.write_str("this is no answer to the hello"),
            Self::UnknownFrame(k) => write!(f, "unknown frame {k:#04x}, which must be known"),
            Self::FrameLength(k) => write!(f, "frame {k:#04x} has a wrong length"),
            Self::NoStream(k) => write!(f, "frame {k:#04x} for no stream"),
            Self::Overrun(s) => write!(f, "more bytes for stream {s} than its window allows"),
            Self::TooMuchCredit(s) => write!(f, "more credit for stream {s} than there can be"),
        }
    }
}

impl std::error::Error for Malformed {}

/// The number that stands at a place, in network order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

/// A kind and a length as GT/2 writes them: a u8 and 24 bits.
fn kind_and_length(bytes: &[u8]) -> Option<(u8, u32)> {
    let first = u32_at(bytes, 0)?;
    let [kind, ..] = first.to_be_bytes();
    Some((kind, first & 0x00FF_FFFF))
}
