//! Frames: everything that both ends send after the hello.
//!
//! A [`Header`] is a frame without its payload, so that a reader can pass payload bytes on as
//! they arrive and never buffers a whole frame.

use std::fmt;

/// First reserved stream id; in GT/1 the ids from here up are signals.
pub const FIRST_RESERVED: u32 = u32::MAX - 3000;
/// Maximum length in bytes of an encoded header.
pub const MAX_ENCODED: usize = 16;

/// Why a server rejects a tunnel: a `u16` on the wire (docs/gt1.md, "Frames").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectCode {
    /// Code 1: id or secret is wrong.
    BadCredentials,
    /// Code 1 with seconds: after too many failed logins the client's address is locked out for
    /// that long, whatever its secret. GT/1 sends only the code.
    LockedOut(u32),
    /// Code 2, with the index of the service that requested the port.
    PortNotOpened(ServiceIndex),
    /// Code 3: the client has its maximum of tunnels.
    TooManyConnections,
    /// Code 4: the client requests more host prefixes than it may have.
    TooManyHosts,
    /// Code 5: another client has the host prefix.
    HostConflict,
    /// Code 6: the client may not use the host prefix.
    HostNotAllowed,
    /// Code 7: a client with the same id but another configuration is connected.
    OtherClientConnected,
    /// Code 8: the hello has too many options.
    TooManyOptions,
    /// Code 9: the client requests more TCP ports than it may have.
    TooManyPorts,
    /// Code 10: the client may not connect from its address. Code 1 over GT/1.
    AddressNotAllowed,
    /// A code of a later version.
    Other(u16),
}

impl RejectCode {
    /// Returns the variant for a code; `PortNotOpened` gets service 0.
    pub(super) fn from_code(code: u16) -> Self {
        match code {
            1 => Self::BadCredentials,
            2 => Self::PortNotOpened(ServiceIndex(0)),
            3 => Self::TooManyConnections,
            4 => Self::TooManyHosts,
            5 => Self::HostConflict,
            6 => Self::HostNotAllowed,
            7 => Self::OtherClientConnected,
            8 => Self::TooManyOptions,
            9 => Self::TooManyPorts,
            10 => Self::AddressNotAllowed,
            code => Self::Other(code),
        }
    }

    /// Returns the code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::BadCredentials | Self::LockedOut(_) => 1,
            Self::PortNotOpened(_) => 2,
            Self::TooManyConnections => 3,
            Self::TooManyHosts => 4,
            Self::HostConflict => 5,
            Self::HostNotAllowed => 6,
            Self::OtherClientConnected => 7,
            Self::TooManyOptions => 8,
            Self::TooManyPorts => 9,
            Self::AddressNotAllowed => 10,
            Self::Other(code) => code,
        }
    }
}

impl std::fmt::Display for RejectCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadCredentials => f.write_str("invalid id and secret"),
            Self::LockedOut(seconds) => write!(
                f,
                "too many failed logins from this address, which is locked out for {seconds} s more"
            ),
            Self::PortNotOpened(service) => {
                write!(f, "failed to open the port of service {service}")
            }
            Self::TooManyConnections => f.write_str("reached the max connections"),
            Self::TooManyHosts => f.write_str("host number is limited"),
            Self::HostConflict => {
                f.write_str("host conflict: another client has a prefix or a domain, or two services ask for one")
            }
            Self::HostNotAllowed => {
                f.write_str("host regex mismatch: a prefix or a domain is not allowed")
            }
            Self::OtherClientConnected => {
                f.write_str("another client with this id and a different config is connected")
            }
            Self::TooManyOptions => f.write_str("reached the max options"),
            Self::TooManyPorts => f.write_str("reached the max ports (tcpNumber or udpNumber of the server)"),
            Self::AddressNotAllowed => f.write_str("this id may not connect from this address"),
            Self::Other(code) => write!(f, "error code {code}"),
        }
    }
}

/// Why a server could not open a TCP or UDP port while it publishes the client's other services: a `u16`
/// on the wire of GT/2 (docs/wire.md, "The tunnel"). GT/1 cannot express it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortCause {
    /// Code 1: the port is in use.
    InUse,
    /// Code 2: the port is outside of the client's ranges.
    NotAllowed,
    /// Code 3: all ports of the client's ranges are in use.
    NoneFree,
    /// Code 4: the client has its maximum of ports.
    TooMany,
    /// 0, or a code of a later version.
    Other(u16),
}

impl PortCause {
    /// Returns the variant for a code.
    pub(super) fn from_code(code: u16) -> Self {
        match code {
            1 => Self::InUse,
            2 => Self::NotAllowed,
            3 => Self::NoneFree,
            4 => Self::TooMany,
            code => Self::Other(code),
        }
    }

    /// Returns the code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::InUse => 1,
            Self::NotAllowed => 2,
            Self::NoneFree => 3,
            Self::TooMany => 4,
            Self::Other(code) => code,
        }
    }
}

impl std::fmt::Display for PortCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InUse => "the port is in use on the server",
            Self::NotAllowed => "the server does not allow this port",
            Self::NoneFree => "no port that the server allows is free",
            Self::TooMany => "the client has the maximum of ports that the server allows it",
            Self::Other(_) => "see the server's log",
        })
    }
}

/// Why a stream was reset or could not be opened: a `u16` on the wire of GT/2 (docs/wire.md,
/// "Streams"). GT/1 cannot express it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetCode {
    /// Code 1: the connection was aborted.
    Aborted,
    /// Code 2: the service cannot be reached.
    Unreachable,
    /// Code 3: the idle timeout has passed.
    TimedOut,
    /// Code 4: there is no such service.
    UnknownService,
    /// Code 5: the sender has its maximum of streams.
    TooManyStreams,
    /// Code 6: too many bytes are buffered for slow readers.
    Overloaded,
    /// Code 7: the visitor may not use the service.
    NotAllowed,
    /// A code of a later version.
    Other(u16),
}

impl ResetCode {
    /// Returns the variant for a code. 0 is not a reason but a normal close.
    pub fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Aborted,
            2 => Self::Unreachable,
            3 => Self::TimedOut,
            4 => Self::UnknownService,
            5 => Self::TooManyStreams,
            6 => Self::Overloaded,
            7 => Self::NotAllowed,
            code => Self::Other(code),
        }
    }

    /// Returns the code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Aborted => 1,
            Self::Unreachable => 2,
            Self::TimedOut => 3,
            Self::UnknownService => 4,
            Self::TooManyStreams => 5,
            Self::Overloaded => 6,
            Self::NotAllowed => 7,
            Self::Other(code) => code,
        }
    }
}

/// The number of a stream in its tunnel, chosen by the server. A `u32` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Returns the next id: counts up and wraps to 1 before [`FIRST_RESERVED`].
    pub fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(next) if next < FIRST_RESERVED => Self(next),
            _ => Self(1),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The index of a service in the list that the client registered last. A `u16` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceIndex(pub u16);

impl ServiceIndex {
    /// Counts from the first service on.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u16::MAX).map(Self)
    }

    /// The index for a lookup in a list.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ServiceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A frame about the tunnel as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A GT/1 ping, which has no number; GT/2 has [`Header::Ping`].
    Ping,
    /// The sender closes the tunnel once its streams have ended.
    Close,
    /// The server has accepted the client.
    Ready,
    /// The server rejects the tunnel.
    Error(RejectCode),
    /// The server has opened a TCP port for a service. GT/1: info code 1.
    PortOpened {
        /// Index of the service.
        service: ServiceIndex,
        /// The port that was opened.
        port: u16,
    },
    /// GT/2: the server could not open the port of a service. It publishes the other services and
    /// retries.
    PortUnavailable {
        /// Index of the service.
        service: ServiceIndex,
        /// Why the port could not be opened.
        cause: PortCause,
    },
    /// GT/2: a service of the client is down, or up again.
    ServiceState {
        /// Index of the service.
        service: ServiceIndex,
        /// Whether it is up.
        is_up: bool,
    },
    /// A GT/1 info code of a later version, to be ignored.
    OtherInfo(u16),
    /// The services have changed. A GT/1 client sends the registration after it, see
    /// [`super::codec::HelloReader`].
    Services,
    /// The server asks the client to open a new tunnel.
    Reconnect,
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A frame about the tunnel.
    Signal(Signal),
    /// Opens a stream. Payload follows.
    Open {
        /// The new stream.
        stream_id: StreamId,
        /// Index of the service that the stream goes to.
        service: ServiceIndex,
        /// Bytes that the peer may send back before it gets credit; 0 in GT/1.
        window: u32,
        /// Length of the payload in bytes; it may be 0.
        len: u32,
    },
    /// Payload of a stream follows.
    Data {
        /// The stream.
        stream_id: StreamId,
        /// Length of the payload in bytes.
        len: u32,
    },
    /// Ends both directions of a stream, after all bytes sent before.
    Close {
        /// The stream.
        stream_id: StreamId,
    },
    /// Ends one direction of a stream, after all bytes sent before. GT/2.
    Finish {
        /// The stream.
        stream_id: StreamId,
    },
    /// Aborts both directions of a stream. GT/2; encoded as a close in GT/1.
    Reset {
        /// The stream.
        stream_id: StreamId,
        /// Why the stream is reset.
        reason: ResetCode,
    },
    /// Lets the peer send more bytes on a stream. GT/2.
    Credit {
        /// The stream.
        stream_id: StreamId,
        /// How many bytes more the peer may send.
        bytes: u32,
    },
    /// Asks for a [`Header::Pong`] with the same number. GT/1 has [`Signal::Ping`] instead.
    Ping(u64),
    /// The answer to a [`Header::Ping`].
    Pong(u64),
    /// How many streams the server has opened in the connection of QUIC so far. GT/2.
    StreamsOpened(u32),
    /// Changed services of a GT/2 client. A registration follows.
    Registration {
        /// Length of the registration in bytes.
        len: u32,
    },
    /// A frame of a later version of GT/2. Its payload is to be ignored.
    Skip {
        /// Length of the payload in bytes.
        len: u32,
    },
}

impl From<Signal> for Header {
    fn from(signal: Signal) -> Self {
        Self::Signal(signal)
    }
}

/// An encoded header of at most [`MAX_ENCODED`] bytes, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Encoded {
    bytes: [u8; MAX_ENCODED],
    len: u8,
}

impl Encoded {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; MAX_ENCODED],
            len: 0,
        }
    }

    /// Appends bytes. Drops them if they do not fit, which happens with no header.
    pub(super) fn with(mut self, more: &[u8]) -> Self {
        let at = usize::from(self.len);
        if let Some(room) = self.bytes.get_mut(at..at + more.len()) {
            room.copy_from_slice(more);
            // At most MAX_ENCODED.
            self.len += more.len() as u8;
        }
        self
    }

    /// Returns the bytes to send.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_wrap_to_one_before_the_reserved_range() {
        assert_eq!(FIRST_RESERVED, 0xFFFF_F447);
        assert_eq!(StreamId(0).next(), StreamId(1));
        let last = StreamId(FIRST_RESERVED - 1);
        assert_eq!(StreamId(FIRST_RESERVED - 2).next(), last);
        assert_eq!(last.next(), StreamId(1));
        assert_eq!(StreamId(u32::MAX).next(), StreamId(1));
    }

    #[test]
    fn codes_survive_decoding() {
        for code in 1..=10 {
            assert_eq!(RejectCode::from_code(code).code(), code);
            assert_eq!(ResetCode::from_code(code).code(), code);
            assert_eq!(PortCause::from_code(code).code(), code);
        }
    }
}
