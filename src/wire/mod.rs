//! Bytes ↔ values of GT/1 (WIRE.md). No sockets, no clocks, no allocation per frame.
//!
//! [`hello`] is what a client says first; [`frame`] is everything after it.

pub mod frame;
pub mod hello;

/// First byte of every tunnel, on every listener (WIRE.md, "Hello").
pub const MAGIC: u8 = 0xF0;
/// Second byte: this version of the wire.
pub const VERSION: u8 = 0x01;

/// What makes a peer's bytes unusable. The connection they came from is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// An id, secret or prefix of zero or more than 200 bytes.
    NameLength(u8),
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
        }
    }
}

impl std::error::Error for Malformed {}
