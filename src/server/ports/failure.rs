//! Why a port could not be opened.

use crate::wire::frame::PortCause;
use std::{fmt, io};

/// Why a port could not be opened.
#[derive(Debug)]
pub enum PortFailure {
    /// The client has its maximum of ports.
    TooMany,
    /// The port is outside of the client's ranges.
    NotAllowed,
    /// All ports that were tried are in use.
    NoneFree,
    /// The port could not be opened early, and too many others have been tried under the lock.
    Later,
    /// The system refuses to open the port.
    System(io::Error),
}

impl PortFailure {
    /// Returns the cause that the client is told.
    pub fn cause(&self) -> PortCause {
        match self {
            Self::NotAllowed => PortCause::NotAllowed,
            Self::NoneFree => PortCause::NoneFree,
            Self::Later => PortCause::InUse,
            Self::System(e) if e.kind() == io::ErrorKind::AddrInUse => PortCause::InUse,
            Self::TooMany => PortCause::TooMany,
            Self::System(_) => PortCause::Other(0),
        }
    }
}

impl fmt::Display for PortFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => {
                f.write_str("the client has its maximum of ports (tcpNumber or udpNumber)")
            }
            Self::NotAllowed => {
                f.write_str("it is outside of the client's ranges (tcpRange or udpRange)")
            }
            Self::NoneFree => {
                f.write_str("all ports that were tried are in use (tcpRange or udpRange)")
            }
            Self::Later => f.write_str("it seems to be in use, like many others; it is retried"),
            Self::System(e) => e.fmt(f),
        }
    }
}
