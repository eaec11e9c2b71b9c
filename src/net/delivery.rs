//! What became of the bytes that were written to a TCP socket, as far as the kernel knows, or to a connection of QUIC.
//! It does not tell what the peer's program has read.

/// The state of a connection's outgoing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer's kernel has acknowledged everything.
    Acknowledged,
    /// Some bytes are in flight, without unanswered retransmissions so far.
    Moving,
    /// The peer's kernel answers but takes no more: its program does not read.
    Blocked,
    /// Two or more retransmissions or probes are unanswered.
    Lost,
}
