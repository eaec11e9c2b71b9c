//! The bytes of GT/1, from docs/gt1.md, and what only its tests need of a peer.

pub const PING: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFF];
pub const CLOSE: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFE];
pub const READY: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFD];
pub const ERROR: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFC];
pub const INFO: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFB];
pub const SERVICES: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFA];
pub const RECONNECT: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xF9];

pub type Peer = super::Peer<Frame>;
pub type PeerServer = super::PeerServer<Frame>;

/// A frame after the hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Ping,
    Close,
    Ready,
    Error(u16),
    /// Error 2 with the index of the service.
    PortError(u16),
    /// Info 1: service index, port.
    PortOpened(u16, u16),
    Services,
    Reconnect,
    Data(u32, Vec<u8>),
    Closed(u32),
    /// A stream's first frame: stream, service index, bytes.
    First(u32, u16, Vec<u8>),
}

/// Builds a hello from its magic on.
pub fn hello(id: &str, secret: &str, services: &[u8]) -> Vec<u8> {
    [&[0xF0, 0x01], &identity(id, secret, services)[..]].concat()
}

/// Builds a hello from idLen on, as in a services signal.
pub fn identity(id: &str, secret: &str, services: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(id.len()).unwrap()];
    bytes.extend(id.as_bytes());
    bytes.push(u8::try_from(secret.len()).unwrap());
    bytes.extend(secret.as_bytes());
    bytes.extend(services);
    bytes
}

/// Builds a data frame.
pub fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = data_head(stream, bytes.len());
    frame.extend(bytes);
    frame
}

/// Builds the header of a data frame.
pub fn data_head(stream: u32, length: usize) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend([0, 0]);
    frame.extend(u32::try_from(length).unwrap().to_be_bytes());
    frame
}

/// Builds the close of a stream.
pub fn closed(stream: u32) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend([0, 1]);
    frame
}

/// Builds the first frame of a stream.
pub fn first(stream: u32, service: u16, bytes: &[u8]) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend([0, 2]);
    frame.extend(service.to_be_bytes());
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

impl super::Frame for Frame {
    const ANSWER: &'static [u8] = &[];
    const READY: Frame = Frame::Ready;
    const READY_BYTES: &'static [u8] = &READY;

    fn read(peer: &mut Peer) -> Option<Frame> {
        let head = peer.read_head()?;
        Some(match head {
            PING => Frame::Ping,
            CLOSE => Frame::Close,
            READY => Frame::Ready,
            SERVICES => Frame::Services,
            RECONNECT => Frame::Reconnect,
            ERROR => match peer.u16() {
                2 => Frame::PortError(peer.u16()),
                code => Frame::Error(code),
            },
            INFO => match peer.u16() {
                1 => Frame::PortOpened(peer.u16(), peer.u16()),
                code => panic!("unknown info {code}"),
            },
            _ => {
                let stream = u32::from_be_bytes(head);
                assert!(stream < 0xFFFF_FFFF - 3000, "unknown signal {stream:08X}");
                match peer.u16() {
                    0 => Frame::Data(stream, peer.block()),
                    1 => Frame::Closed(stream),
                    2 => Frame::First(stream, peer.u16(), peer.block()),
                    op => panic!("unknown op {op}"),
                }
            }
        })
    }

    fn is_port_opened(&self) -> bool {
        matches!(self, Frame::PortOpened(..))
    }

    fn is_credit(&self) -> bool {
        false
    }

    fn into_data(self) -> Result<(u32, Vec<u8>), Frame> {
        match self {
            Frame::Data(stream, bytes) => Ok((stream, bytes)),
            other => Err(other),
        }
    }
}

impl Peer {
    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.read(2).try_into().unwrap())
    }

    fn block(&mut self) -> Vec<u8> {
        let length = u32::from_be_bytes(self.read(4).try_into().unwrap());
        assert!(length <= 16 << 20, "a frame of {length} bytes");
        self.read(usize::try_from(length).unwrap())
    }

    /// Waits until the other end has processed all that was sent: it answers a ping.
    pub fn sync(&mut self) {
        self.send(&PING);
        self.expect(Frame::Ping);
    }

    /// Returns the next stream's number, service and first bytes.
    pub fn opened(&mut self) -> (u32, u16, Vec<u8>) {
        match self.frame() {
            Frame::First(stream, service, bytes) => (stream, service, bytes),
            other => panic!("{other:?} instead of a stream"),
        }
    }

    /// Gathers the data of `stream` up to its close; other frames are an error.
    pub fn gather_to_close(&mut self, stream: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match self.frame() {
                Frame::Data(of, more) if of == stream => bytes.extend(more),
                Frame::Closed(of) if of == stream => return bytes,
                other => panic!("{other:?} after {} bytes of stream {stream}", bytes.len()),
            }
        }
    }
}
