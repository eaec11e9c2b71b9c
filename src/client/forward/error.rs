//! Why a connection to another client could not be set up.

use crate::client::connect::ConnectFailure;
use crate::client::p2p::signaling::RELAY;
use crate::client::p2p::P2pError;
use crate::client::private::ProofError;
use std::{fmt, io};

/// Why a connection to the other client could not be set up.
#[derive(Debug)]
pub enum ForwardError {
    /// A connection failed.
    Io(io::Error),
    /// The server cannot be reached as a visitor.
    Unreachable(ConnectFailure),
    /// The remoteAPI has not told the server's address yet.
    UnknownServer,
    /// No peer could be created here.
    Peer(P2pError),
    /// The status of the other client's response, or of the server's in its place.
    Status(u16),
    /// The other client's answer or its description breaks the rules.
    BadAnswer(&'static str),
    /// The peer failed before it was connected.
    Unconnected,
    /// The peer did not connect within the time that it has.
    TooLate,
    /// The other client does not support relays.
    CannotRelay,
    /// The other client has ended the way as soon as it was there.
    Ended,
    /// The other end has not proved the key of a private service.
    Unproved(ProofError),
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Unreachable(failure) => failure.fmt(f),
            Self::UnknownServer => f.write_str("the server's address is not known"),
            Self::Peer(e) => e.fmt(f),
            Self::Status(status) => {
                write!(f, "the other client answered {status}")?;
                f.write_str(match status {
                    403 => " (remoteSTUN is not set there, or it has no P2P)",
                    404 => " (no client has that host prefix)",
                    _ => "",
                })
            }
            Self::BadAnswer(why) => f.write_str(why),
            Self::Unconnected => f.write_str("the peer could not be reached"),
            Self::TooLate => f.write_str("the peer did not connect in time"),
            Self::Ended => f.write_str(
                "the other client ended the way at once: it cannot reach the service, as its log tells",
            ),
            Self::Unproved(e) => e.fmt(f),
            Self::CannotRelay => write!(
                f,
                "the other client cannot relay: its answer does not repeat \"{RELAY}\" (it is an \
                 original GT or an older gt; update it, or set tcpForwardFallback to false)"
            ),
        }
    }
}

impl From<ProofError> for ForwardError {
    fn from(e: ProofError) -> Self {
        Self::Unproved(e)
    }
}

impl From<io::Error> for ForwardError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<io::ErrorKind> for ForwardError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}
