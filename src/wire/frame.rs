//! Frames: what both ends say once the hello is accepted (WIRE.md, "Frames").
//!
//! A [`Head`] is everything of a frame but its payload, so that a reader can pass payload
//! bytes on as they come and never has to hold a frame whole.

use super::Malformed;

/// Task ids end below here; what is above is a signal.
pub const FIRST_RESERVED: u32 = u32::MAX - 3000;
/// Longest head there is: services data.
pub const MAX_HEAD: usize = 12;

const PING: u32 = 0xFFFF_FFFF;
const CLOSE: u32 = 0xFFFF_FFFE;
const READY: u32 = 0xFFFF_FFFD;
const ERROR: u32 = 0xFFFF_FFFC;
const INFO: u32 = 0xFFFF_FFFB;
const SERVICES: u32 = 0xFFFF_FFFA;
const RECONNECT: u32 = 0xFFFF_FFF9;

const OP_DATA: u16 = 0;
const OP_CLOSE: u16 = 1;
const OP_SERVICES_DATA: u16 = 2;

const INFO_PORT_OPENED: u16 = 1;

/// Why a server refuses a tunnel. `u16` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Code 1.
    BadCredentials,
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

impl Refusal {
    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::BadCredentials => 1,
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

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadCredentials => f.write_str("invalid id and secret"),
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

/// A frame that is about the tunnel, not about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Ping,
    Close,
    Ready,
    Error(Refusal),
    /// Info code 1: the server has opened `port` for the service with this index.
    PortOpened {
        service: u16,
        port: u16,
    },
    /// An info of a later peer, which must not end the tunnel.
    OtherInfo(u16),
    /// From a client the registration follows, see [`super::hello::credentials`].
    Services,
    Reconnect,
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Signal(Signal),
    /// `len` bytes for the task follow.
    Data {
        task: u32,
        len: u32,
    },
    Close {
        task: u32,
    },
    /// The task's first frame; `len` bytes follow.
    ServicesData {
        task: u32,
        service: u16,
        len: u32,
    },
}

/// Reads a head from the start of `bytes`. `None` while bytes are missing; else the head
/// and its length, at most [`MAX_HEAD`].
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let Some(first) = u32_at(bytes, 0) else {
        return Ok(None);
    };
    if first >= FIRST_RESERVED {
        return parse_signal(first, bytes);
    }
    let task = first;
    let Some(op) = u16_at(bytes, 4) else {
        return Ok(None);
    };
    let head = match op {
        OP_DATA => u32_at(bytes, 6).map(|len| (Head::Data { task, len }, 10)),
        OP_CLOSE => Some((Head::Close { task }, 6)),
        OP_SERVICES_DATA => match (u16_at(bytes, 6), u32_at(bytes, 8)) {
            (Some(service), Some(len)) => Some((Head::ServicesData { task, service, len }, 12)),
            _ => None,
        },
        unknown => return Err(Malformed::UnknownOperation(unknown)),
    };
    Ok(head)
}

fn parse_signal(first: u32, bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let plain = |signal| Some((signal, 4));
    let found = match first {
        PING => plain(Signal::Ping),
        CLOSE => plain(Signal::Close),
        READY => plain(Signal::Ready),
        SERVICES => plain(Signal::Services),
        RECONNECT => plain(Signal::Reconnect),
        ERROR => match u16_at(bytes, 4) {
            Some(2) => {
                u16_at(bytes, 6).map(|service| (Signal::Error(Refusal::PortNotOpened(service)), 8))
            }
            Some(code) => Some((Signal::Error(refusal(code)), 6)),
            None => None,
        },
        INFO => match u16_at(bytes, 4) {
            Some(INFO_PORT_OPENED) => match (u16_at(bytes, 6), u16_at(bytes, 8)) {
                (Some(service), Some(port)) => Some((Signal::PortOpened { service, port }, 10)),
                _ => None,
            },
            Some(code) => Some((Signal::OtherInfo(code), 6)),
            None => None,
        },
        unknown => return Err(Malformed::UnknownSignal(unknown)),
    };
    Ok(found.map(|(signal, len)| (Head::Signal(signal), len)))
}

fn refusal(code: u16) -> Refusal {
    match code {
        1 => Refusal::BadCredentials,
        3 => Refusal::TooManyConnections,
        4 => Refusal::TooManyHosts,
        5 => Refusal::HostConflict,
        6 => Refusal::HostNotAllowed,
        7 => Refusal::OtherClientConnected,
        8 => Refusal::TooManyOptions,
        9 => Refusal::TooManyPorts,
        code => Refusal::Other(code),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

/// An encoded head: at most [`MAX_HEAD`] bytes on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Encoded {
    bytes: [u8; MAX_HEAD],
    len: u8,
}

impl Encoded {
    fn new() -> Self {
        Self {
            bytes: [0; MAX_HEAD],
            len: 0,
        }
    }

    /// Appends; what does not fit is left out, and no head is longer than [`MAX_HEAD`].
    fn with(mut self, more: &[u8]) -> Self {
        let at = usize::from(self.len);
        if let Some(room) = self.bytes.get_mut(at..at + more.len()) {
            room.copy_from_slice(more);
            // At most MAX_HEAD.
            self.len += more.len() as u8;
        }
        self
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Head {
    /// The bytes of this head.
    pub fn encode(&self) -> Encoded {
        let out = Encoded::new();
        match *self {
            Head::Signal(signal) => signal.encode(),
            Head::Data { task, len } => out
                .with(&task.to_be_bytes())
                .with(&OP_DATA.to_be_bytes())
                .with(&len.to_be_bytes()),
            Head::Close { task } => out.with(&task.to_be_bytes()).with(&OP_CLOSE.to_be_bytes()),
            Head::ServicesData { task, service, len } => out
                .with(&task.to_be_bytes())
                .with(&OP_SERVICES_DATA.to_be_bytes())
                .with(&service.to_be_bytes())
                .with(&len.to_be_bytes()),
        }
    }
}

impl Signal {
    /// The bytes of this signal.
    pub fn encode(&self) -> Encoded {
        let out = Encoded::new();
        match *self {
            Signal::Ping => out.with(&PING.to_be_bytes()),
            Signal::Close => out.with(&CLOSE.to_be_bytes()),
            Signal::Ready => out.with(&READY.to_be_bytes()),
            Signal::Services => out.with(&SERVICES.to_be_bytes()),
            Signal::Reconnect => out.with(&RECONNECT.to_be_bytes()),
            Signal::Error(refusal) => {
                let out = out
                    .with(&ERROR.to_be_bytes())
                    .with(&refusal.code().to_be_bytes());
                match refusal {
                    Refusal::PortNotOpened(service) => out.with(&service.to_be_bytes()),
                    _ => out,
                }
            }
            Signal::PortOpened { service, port } => out
                .with(&INFO.to_be_bytes())
                .with(&INFO_PORT_OPENED.to_be_bytes())
                .with(&service.to_be_bytes())
                .with(&port.to_be_bytes()),
            Signal::OtherInfo(code) => out.with(&INFO.to_be_bytes()).with(&code.to_be_bytes()),
        }
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
    use proptest::prelude::*;

    /// Every head there is, beside the bytes of WIRE.md's tables, written by hand.
    const GOLDEN: &[(Head, &[u8])] = &[
        (Head::Signal(Signal::Ping), &[0xFF, 0xFF, 0xFF, 0xFF]),
        (Head::Signal(Signal::Close), &[0xFF, 0xFF, 0xFF, 0xFE]),
        (Head::Signal(Signal::Ready), &[0xFF, 0xFF, 0xFF, 0xFD]),
        (
            Head::Signal(Signal::Error(Refusal::BadCredentials)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 1],
        ),
        (
            Head::Signal(Signal::Error(Refusal::PortNotOpened(0x0102))),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 2, 1, 2],
        ),
        (
            Head::Signal(Signal::Error(Refusal::TooManyConnections)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 3],
        ),
        (
            Head::Signal(Signal::Error(Refusal::TooManyHosts)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 4],
        ),
        (
            Head::Signal(Signal::Error(Refusal::HostConflict)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 5],
        ),
        (
            Head::Signal(Signal::Error(Refusal::HostNotAllowed)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 6],
        ),
        (
            Head::Signal(Signal::Error(Refusal::OtherClientConnected)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 7],
        ),
        (
            Head::Signal(Signal::Error(Refusal::TooManyOptions)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 8],
        ),
        (
            Head::Signal(Signal::Error(Refusal::TooManyPorts)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 9],
        ),
        (
            Head::Signal(Signal::Error(Refusal::Other(10))),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 10],
        ),
        (
            Head::Signal(Signal::PortOpened {
                service: 3,
                port: 2222,
            }),
            &[0xFF, 0xFF, 0xFF, 0xFB, 0, 1, 0, 3, 0x08, 0xAE],
        ),
        (
            Head::Signal(Signal::OtherInfo(0)),
            &[0xFF, 0xFF, 0xFF, 0xFB, 0, 0],
        ),
        (Head::Signal(Signal::Services), &[0xFF, 0xFF, 0xFF, 0xFA]),
        (Head::Signal(Signal::Reconnect), &[0xFF, 0xFF, 0xFF, 0xF9]),
        (
            Head::Data { task: 1, len: 4096 },
            &[0, 0, 0, 1, 0, 0, 0, 0, 0x10, 0],
        ),
        (Head::Close { task: 0x0102_0304 }, &[1, 2, 3, 4, 0, 1]),
        (
            Head::ServicesData {
                task: 7,
                service: 1,
                len: 0,
            },
            &[0, 0, 0, 7, 0, 2, 0, 1, 0, 0, 0, 0],
        ),
    ];

    #[test]
    fn every_head_is_the_bytes_of_the_wire_page() {
        for (head, bytes) in GOLDEN {
            assert_eq!(head.encode().as_slice(), *bytes, "{head:?}");
            assert_eq!(parse(bytes), Ok(Some((*head, bytes.len()))), "{head:?}");
        }
    }

    #[test]
    fn a_head_is_not_read_before_its_last_byte() {
        for (head, bytes) in GOLDEN {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn bytes_behind_a_head_are_left_alone() {
        for (head, bytes) in GOLDEN {
            let longer = [bytes, &[0xAA; 9][..]].concat();
            assert_eq!(parse(&longer), Ok(Some((*head, bytes.len()))));
        }
    }

    #[test]
    fn unknown_signals_and_operations_are_named() {
        assert_eq!(
            parse(&0xFFFF_FFF8u32.to_be_bytes()),
            Err(Malformed::UnknownSignal(0xFFFF_FFF8))
        );
        assert_eq!(
            parse(&FIRST_RESERVED.to_be_bytes()),
            Err(Malformed::UnknownSignal(FIRST_RESERVED))
        );
        assert_eq!(
            parse(&[0, 0, 0, 1, 0, 3]),
            Err(Malformed::UnknownOperation(3))
        );
    }

    #[test]
    fn task_ids_wrap_to_one_before_the_reserved_range() {
        assert_eq!(FIRST_RESERVED, 0xFFFF_F447);
        assert_eq!(next_task(0), 1);
        assert_eq!(next_task(FIRST_RESERVED - 2), FIRST_RESERVED - 1);
        assert_eq!(next_task(FIRST_RESERVED - 1), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            task in 0..FIRST_RESERVED, service in any::<u16>(), len in any::<u32>(), op in 0..3u8,
        ) {
            let head = match op {
                0 => Head::Data { task, len },
                1 => Head::Close { task },
                _ => Head::ServicesData { task, service, len },
            };
            let bytes = head.encode();
            prop_assert_eq!(parse(bytes.as_slice()), Ok(Some((head, bytes.as_slice().len()))));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some((head, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len() && used <= MAX_HEAD);
                let again = head.encode();
                prop_assert_eq!(again.as_slice(), &bytes[..used]);
            }
        }
    }
}
