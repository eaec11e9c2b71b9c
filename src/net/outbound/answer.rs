//! The result of parsing what has come of a proxy's answer. Not the protocols.

/// A proxy's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyAnswer<T> {
    /// At least this number of bytes is missing.
    Part(usize),
    /// The whole answer, and its length in bytes.
    Whole(T, usize),
    /// The answer is not one of this protocol.
    Wrong(&'static str),
}
