//! Frames: what both ends say once the hello is accepted.
//!
//! A [`Head`] is everything of a frame but its payload, so that a reader can pass payload
//! bytes on as they come and never has to hold a frame whole.

use super::{gt1, gt2, Malformed, Version};

/// Task ids end below here; what is above is a signal in GT/1.
pub const FIRST_RESERVED: u32 = u32::MAX - 3000;
/// Longest head there is to be read: a frame of GT/2 with what later versions may add.
pub const MAX_HEAD: usize = gt2::frame::MAX_HEAD;
/// Longest head there is to be written.
pub const MAX_ENCODED: usize = 16;

/// Why a server refuses a tunnel. `u16` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectCode {
    /// Code 1.
    BadCredentials,
    /// Code 1: the address has failed to log in too often, and is refused for this many seconds
    /// more, whatever its secret. GT/1 says the code alone.
    LockedOut(u32),
    /// Code 2, with the index of the service that wanted the port.
    PortNotOpened(u16),
    /// Code 3.
    TooManyConnections,
    /// Code 4.
    TooManyHosts,
    /// Code 5.
    HostConflict,
    /// Code 6.
    HostNotAllowed,
    /// Code 7.
    OtherClientConnected,
    /// Code 8.
    TooManyOptions,
    /// Code 9.
    TooManyPorts,
    /// A code of a later peer.
    Other(u16),
}

impl RejectCode {
    /// The one with this code; a port that was not opened is service 0's.
    pub(super) fn of(code: u16) -> Self {
        match code {
            1 => Self::BadCredentials,
            2 => Self::PortNotOpened(0),
            3 => Self::TooManyConnections,
            4 => Self::TooManyHosts,
            5 => Self::HostConflict,
            6 => Self::HostNotAllowed,
            7 => Self::OtherClientConnected,
            8 => Self::TooManyOptions,
            9 => Self::TooManyPorts,
            code => Self::Other(code),
        }
    }

    /// The code on the wire.
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
                write!(f, "failed to open the TCP port of service {service}")
            }
            Self::TooManyConnections => f.write_str("reached the max connections"),
            Self::TooManyHosts => f.write_str("host number is limited"),
            Self::HostConflict => {
                f.write_str("host conflict: the prefix belongs to another client")
            }
            Self::HostNotAllowed => f.write_str("host regex mismatch: the prefix is not allowed"),
            Self::OtherClientConnected => {
                f.write_str("another client with this id and a different config is connected")
            }
            Self::TooManyOptions => f.write_str("reached the max options"),
            Self::TooManyPorts => f.write_str("TCP number is limited"),
            Self::Other(code) => write!(f, "error code {code}"),
        }
    }
}

/// Why a server has not opened a TCP port while it publishes the client's other services. `u16`
/// on the wire of GT/2; GT/1 cannot say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortCause {
    /// Code 1: something else has it.
    InUse,
    /// Code 2: it is outside of the client's ranges.
    NotAllowed,
    /// Code 3: every port of the client's ranges is in use.
    NoneFree,
    /// 0, or a code of a later peer.
    Other(u16),
}

impl PortCause {
    pub(super) fn of(code: u16) -> Self {
        match code {
            1 => Self::InUse,
            2 => Self::NotAllowed,
            3 => Self::NoneFree,
            code => Self::Other(code),
        }
    }

    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::InUse => 1,
            Self::NotAllowed => 2,
            Self::NoneFree => 3,
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
            Self::Other(_) => "see the server's log",
        })
    }
}

/// Why a stream ends before its time, or never began. `u16` on the wire of GT/2; GT/1 cannot
/// say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetCode {
    /// Code 1: its connection was cut.
    Aborted,
    /// Code 2: the service cannot be reached.
    Unreachable,
    /// Code 3: nothing has moved for the time allowed.
    TimedOut,
    /// Code 4: there is no such service.
    UnknownService,
    /// Code 5: the end that refuses has as many streams as it may.
    TooManyStreams,
    /// Code 6: too many bytes wait for readers that do not take them.
    Overloaded,
    /// A code of a later peer.
    Other(u16),
}

impl ResetCode {
    /// 0 is no reason: it is the end in good order.
    pub(super) fn of(code: u16) -> Self {
        match code {
            1 => Self::Aborted,
            2 => Self::Unreachable,
            3 => Self::TimedOut,
            4 => Self::UnknownService,
            5 => Self::TooManyStreams,
            6 => Self::Overloaded,
            code => Self::Other(code),
        }
    }

    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Aborted => 1,
            Self::Unreachable => 2,
            Self::TimedOut => 3,
            Self::UnknownService => 4,
            Self::TooManyStreams => 5,
            Self::Overloaded => 6,
            Self::Other(code) => code,
        }
    }
}

/// A frame that is about the tunnel, not about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// GT/1's; see [`Head::Ping`].
    Ping,
    Close,
    Ready,
    Error(RejectCode),
    /// Info code 1: the server has opened `port` for the service with this index.
    PortOpened {
        service: u16,
        port: u16,
    },
    /// GT/2's: the server could not open the port of the service with this index. It publishes
    /// the others and tries again by itself.
    PortUnavailable {
        service: u16,
        cause: PortCause,
    },
    /// An info of a later peer, which must not end the tunnel.
    OtherInfo(u16),
    /// From a client of GT/1 the registration follows, see [`super::hello::Reader`].
    Services,
    Reconnect,
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Signal(Signal),
    /// The task's first frame; `len` bytes follow. `window` is how many the peer may send
    /// back before it is given credit; nothing in GT/1.
    Open {
        task: u32,
        service: u16,
        window: u32,
        len: u32,
    },
    /// `len` bytes for the task follow.
    Data {
        task: u32,
        len: u32,
    },
    /// Both directions end, behind all bytes sent before.
    Close {
        task: u32,
    },
    /// One direction ends, behind all bytes sent before. GT/2.
    Finish {
        task: u32,
    },
    /// Both directions are cut. GT/2; a close in GT/1.
    Reset {
        task: u32,
        reason: ResetCode,
    },
    /// The peer may send so many bytes more. GT/2.
    Credit {
        task: u32,
        bytes: u32,
    },
    /// To be answered with the same number. GT/1's has none, see [`Signal::Ping`].
    Ping(u64),
    Pong(u64),
    /// From a client of GT/2: `len` bytes of registration follow.
    Registration {
        len: u32,
    },
    /// `len` bytes follow that are for a later version of GT/2.
    Skip {
        len: u32,
    },
}

impl From<Signal> for Header {
    fn from(signal: Signal) -> Self {
        Self::Signal(signal)
    }
}

impl Version {
    /// Reads a head from the start of `bytes`. `None` while bytes are missing; else the head
    /// and its length, at most [`MAX_HEAD`].
    pub fn parse(self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
        match self {
            Self::One => gt1::frame::parse(bytes),
            Self::Two => gt2::frame::parse(bytes),
        }
    }

    /// The bytes of a head; none of what this version cannot say.
    pub fn encode(self, head: impl Into<Header>) -> Encoded {
        match self {
            Self::One => gt1::frame::encode(head.into()),
            Self::Two => gt2::frame::encode(head.into()),
        }
    }
}

/// An encoded head: at most [`MAX_ENCODED`] bytes on the stack.
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

    /// Appends; what does not fit is left out, and no head is longer than [`MAX_ENCODED`].
    pub(super) fn with(mut self, more: &[u8]) -> Self {
        let at = usize::from(self.len);
        if let Some(room) = self.bytes.get_mut(at..at + more.len()) {
            room.copy_from_slice(more);
            // At most MAX_ENCODED.
            self.len += more.len() as u8;
        }
        self
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The task id that follows `id`: counts up and wraps to 1 before the reserved range.
pub fn next_task(id: u32) -> u32 {
    if id.saturating_add(1) >= FIRST_RESERVED {
        1
    } else {
        id + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_wrap_to_one_before_the_reserved_range() {
        assert_eq!(FIRST_RESERVED, 0xFFFF_F447);
        assert_eq!(next_task(0), 1);
        assert_eq!(next_task(FIRST_RESERVED - 2), FIRST_RESERVED - 1);
        assert_eq!(next_task(FIRST_RESERVED - 1), 1);
    }

    #[test]
    fn codes_are_what_they_are_read_as() {
        for code in 1..=10 {
            assert_eq!(RejectCode::of(code).code(), code);
            assert_eq!(ResetCode::of(code).code(), code);
            assert_eq!(PortCause::of(code).code(), code);
        }
    }
}
