//! The bytes of GT/2, from docs/wire.md, and what only its tests need of a peer.

use std::io::Write;

/// A server's answer to a hello: it can tell the origin of visitors, has domains, UDP ports and groups, and
/// takes states of services.
const ANSWER: [u8; 10] = [0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 0x1F];

pub type Peer = super::Peer<Frame>;
pub type PeerServer = super::PeerServer<Frame>;

/// A frame after the hello. Pings are answered and skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Data(u32, Vec<u8>),
    /// Stream, service, window, first bytes.
    Open(u32, u16, u32, Vec<u8>),
    Finish(u32),
    /// Stream and reason; 0 is a graceful end.
    Reset(u32, u16),
    Credit(u32, u32),
    Pong(u64),
    Close,
    Ready,
    Error(Vec<u8>),
    PortOpened(u16, u16),
    /// Service and cause.
    PortUnavailable(u16, u16),
    Services(Vec<u8>),
    Reconnect,
}

/// Builds the hello of a client that gives `window` bytes of credit to a new stream.
pub fn hello(id: &str, secret: &str, services: &[u8], window: u32) -> Vec<u8> {
    let fields = [
        identity(id, secret, services),
        field(4, &window.to_be_bytes()),
        field(0, b"\r\n\r\n"),
    ];
    hello_with(&fields.concat())
}

/// Builds a hello with these fields.
pub fn hello_with(fields: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [&[0xF0, 0x20], &length[..], &[0; 4], fields].concat()
}

/// Builds the fields with a client's identity and its services, as in a services frame.
pub fn identity(id: &str, secret: &str, services: &[u8]) -> Vec<u8> {
    let fields = [
        field(1, id.as_bytes()),
        field(2, secret.as_bytes()),
        field(3, services),
    ];
    fields.concat()
}

/// Builds a field of a hello.
pub fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// Builds any frame.
pub fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], &stream.to_be_bytes(), payload].concat()
}

pub fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(1, stream, bytes)
}

pub fn open(stream: u32, service: u16, window: u32, bytes: &[u8]) -> Vec<u8> {
    let payload = [&service.to_be_bytes()[..], &window.to_be_bytes(), bytes].concat();
    frame(2, stream, &payload)
}

pub fn finish(stream: u32) -> Vec<u8> {
    frame(3, stream, &[])
}

pub fn reset(stream: u32, reason: u16) -> Vec<u8> {
    frame(4, stream, &reason.to_be_bytes())
}

pub fn credit(stream: u32, bytes: u32) -> Vec<u8> {
    frame(5, stream, &bytes.to_be_bytes())
}

pub fn ping(number: u64) -> Vec<u8> {
    frame(6, 0, &number.to_be_bytes())
}

impl super::Frame for Frame {
    const ANSWER: &'static [u8] = &ANSWER;
    const READY: Frame = Frame::Ready;
    const READY_BYTES: &'static [u8] = &[9, 0, 0, 0, 0, 0, 0, 0];

    fn read(peer: &mut Peer) -> Option<Frame> {
        loop {
            let [kind, a, b, c, stream @ ..]: [u8; 8] = peer.read_head()?;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
            let stream = u32::from_be_bytes(stream);
            let payload = peer.read(length);
            let u16_at = |at: usize| u16::from_be_bytes(payload[at..at + 2].try_into().unwrap());
            let u32_at = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            return Some(match (kind, length) {
                (0x01, _) => Frame::Data(stream, payload),
                (0x02, 6..) => Frame::Open(stream, u16_at(0), u32_at(2), payload[6..].to_vec()),
                (0x03, 0) => Frame::Finish(stream),
                (0x04, 2) => Frame::Reset(stream, u16_at(0)),
                (0x05, 4) => Frame::Credit(stream, u32_at(0)),
                (0x06, 8) => {
                    // The other end may have gone meanwhile.
                    let _ = peer.stream.write_all(&frame(0x07, 0, &payload));
                    continue;
                }
                (0x07, 8) => Frame::Pong(u64::from_be_bytes(payload.try_into().unwrap())),
                (0x08, 0) => Frame::Close,
                (0x09, 0) => Frame::Ready,
                (0x0A, 2 | 4 | 6) => Frame::Error(payload),
                (0x0B, 4) => Frame::PortOpened(u16_at(0), u16_at(2)),
                (0x0E, 4) => Frame::PortUnavailable(u16_at(0), u16_at(2)),
                (0x0C, _) => Frame::Services(payload),
                (0x0D, 0) => Frame::Reconnect,
                _ => panic!("a frame {kind:#04x} of {length} bytes"),
            });
        }
    }

    fn is_port_opened(&self) -> bool {
        matches!(self, Frame::PortOpened(..))
    }

    fn is_credit(&self) -> bool {
        matches!(self, Frame::Credit(..))
    }

    fn into_data(self) -> Result<(u32, Vec<u8>), Frame> {
        match self {
            Frame::Data(stream, bytes) => Ok((stream, bytes)),
            other => Err(other),
        }
    }
}

impl Peer {
    /// Waits until the other end has processed all that was sent: it answers a ping.
    pub fn sync(&mut self) {
        self.send(&ping(7));
        self.expect(Frame::Pong(7));
    }

    /// Returns the next stream, which must be for service 0: number, window, first bytes.
    pub fn opened(&mut self) -> (u32, u32, Vec<u8>) {
        match self.frame() {
            Frame::Open(stream, 0, window, bytes) => (stream, window, bytes),
            other => panic!("{other:?} instead of a stream"),
        }
    }
}
