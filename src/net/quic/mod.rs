//! QUIC (RFC 9000): connections whose first stream is a [`Conn`](super::Conn), on UDP sockets. The protocol
//! is quinn-proto, a state machine; sockets, timers and tasks are those of gt. Not the tunnel in the stream.
//!
//! An [`Endpoint`] has one socket. Its task receives datagrams for all connections; each connection has a
//! task that sends its datagrams and waits for its deadlines (`driver`). A connection is locked only while
//! one of them, or a reader or writer of its stream, is polled. With a connection locked its endpoint may
//! be locked, not the other way round.

pub(crate) mod congestion;
#[cfg(feature = "client")]
mod connect;
mod connection;
mod driver;
mod endpoint;
#[cfg_attr(not(feature = "server"), path = "no_link.rs")]
pub(crate) mod link;
#[cfg_attr(not(feature = "client"), path = "no_mover.rs")]
mod mover;
#[cfg(feature = "client")]
mod path;
mod pending;
mod resets;
pub(crate) mod setup;
mod socket;
#[cfg(feature = "client")]
mod source;
mod stream;
mod streams;

#[cfg(feature = "client")]
pub use connect::connect;
#[cfg(feature = "server")]
pub use connection::Connection;
#[cfg(feature = "server")]
pub use endpoint::{Attempt, ClosedEndpoint, Endpoint, EndpointHandle};
#[cfg(feature = "server")]
pub use link::{link, PacketLink};
#[cfg(feature = "client")]
pub use setup::ClientSetup;
#[cfg(feature = "server")]
pub use setup::ServerSetup;
#[cfg(feature = "server")]
pub use socket::QuicSocket;
pub use stream::QuicStream;
pub use streams::{QuicStreamId, QuicStreams, ReadEnd, StreamNews, Urgency};

#[cfg(test)]
#[cfg(all(feature = "server", feature = "client"))]
pub mod tests;
