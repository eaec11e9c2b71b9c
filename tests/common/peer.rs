//! The other end of a GT/1 tunnel, written by hand from docs/gt1.md. It does not use the crate's
//! `wire`, so that a mistake there cannot agree with itself.

use super::visitor::{connect, read, set_limits};
use super::{eventually, PATIENCE};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub const PING: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFF];
pub const CLOSE: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFE];
pub const READY: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFD];
pub const ERROR: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFC];
pub const INFO: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFB];
pub const SERVICES: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xFA];
pub const RECONNECT: [u8; 4] = [0xFF, 0xFF, 0xFF, 0xF9];

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
    /// A task's first frame: task, service index, bytes.
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

/// Builds the option of a TCP port.
pub fn port_option(random: bool, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0x01, u8::from(random), high, low]
}

/// Builds the option of an HTTP host prefix.
pub fn prefix_option(prefix: &str) -> Vec<u8> {
    let mut bytes = vec![0x03, u8::try_from(prefix.len()).unwrap()];
    bytes.extend(prefix.as_bytes());
    bytes
}

/// Builds a data frame.
pub fn data(task: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = data_head(task, bytes.len());
    frame.extend(bytes);
    frame
}

/// Builds the header of a data frame.
pub fn data_head(task: u32, length: usize) -> Vec<u8> {
    let mut frame = task.to_be_bytes().to_vec();
    frame.extend([0, 0]);
    frame.extend(u32::try_from(length).unwrap().to_be_bytes());
    frame
}

/// Builds the close of a task.
pub fn closed(task: u32) -> Vec<u8> {
    let mut frame = task.to_be_bytes().to_vec();
    frame.extend([0, 1]);
    frame
}

/// Builds the first frame of a task.
pub fn first(task: u32, service: u16, bytes: &[u8]) -> Vec<u8> {
    let mut frame = task.to_be_bytes().to_vec();
    frame.extend([0, 2]);
    frame.extend(service.to_be_bytes());
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

pub struct Peer {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        let input = BufReader::new(stream.try_clone().expect("clone a socket"));
        Peer { stream, input }
    }

    /// Connects as a client and sends `hello`.
    pub fn client(server: SocketAddr, hello: &[u8]) -> Peer {
        let mut peer = Peer::new(connect(server));
        peer.send(hello);
        peer
    }

    /// Connects as a client whose hello is accepted; skips opened ports.
    pub fn ready_client(server: SocketAddr, hello: &[u8]) -> Peer {
        let mut peer = Peer::client(server, hello);
        loop {
            match peer.frame() {
                Frame::Ready => return peer,
                Frame::PortOpened(..) => {}
                other => panic!("{other:?} instead of ready"),
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send to the tunnel");
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        read(&mut self.input, count)
    }

    /// Returns a second handle for writing.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("clone a socket")
    }

    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.read(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.read(4).try_into().unwrap())
    }

    fn block(&mut self) -> Vec<u8> {
        let length = usize::try_from(self.u32()).unwrap();
        assert!(length <= 16 << 20, "a frame of {length} bytes");
        self.read(length)
    }

    /// Returns the next frame.
    pub fn frame(&mut self) -> Frame {
        self.frame_or_end()
            .expect("a frame, but the tunnel was closed")
    }

    /// Returns the next frame, or `None` at the end of the connection.
    pub fn frame_or_end(&mut self) -> Option<Frame> {
        let mut head = [0; 4];
        match self.input.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return None,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
            Err(e) => panic!("waited {PATIENCE:?} for a frame: {e}"),
        }
        Some(match head {
            PING => Frame::Ping,
            CLOSE => Frame::Close,
            READY => Frame::Ready,
            SERVICES => Frame::Services,
            RECONNECT => Frame::Reconnect,
            ERROR => match self.u16() {
                2 => Frame::PortError(self.u16()),
                code => Frame::Error(code),
            },
            INFO => match self.u16() {
                1 => Frame::PortOpened(self.u16(), self.u16()),
                code => panic!("unknown info {code}"),
            },
            _ => {
                let task = u32::from_be_bytes(head);
                assert!(task < 0xFFFF_FFFF - 3000, "unknown signal {task:08X}");
                match self.u16() {
                    0 => Frame::Data(task, self.block()),
                    1 => Frame::Closed(task),
                    2 => Frame::First(task, self.u16(), self.block()),
                    op => panic!("unknown op {op}"),
                }
            }
        })
    }

    /// Waits until a frame has begun, and consumes nothing of it.
    pub fn wait_for_bytes(&mut self) {
        let begun = self.input.fill_buf().expect("a frame");
        assert!(!begun.is_empty(), "the tunnel was closed");
    }

    pub fn expect(&mut self, frame: Frame) {
        assert_eq!(self.frame(), frame);
    }

    /// Fails unless the connection ends here.
    pub fn expect_end(&mut self) {
        assert_eq!(self.frame_or_end(), None, "after the end");
    }

    /// Waits until the other end has processed all that was sent: it answers a ping.
    pub fn sync(&mut self) {
        self.send(&PING);
        self.expect(Frame::Ping);
    }

    /// Whether nothing comes for `time`.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        assert!(self.input.buffer().is_empty(), "something has come already");
        self.stream
            .set_read_timeout(Some(time))
            .expect("limit reads");
        let quiet = self.stream.peek(&mut [0]).is_err();
        set_limits(&self.stream);
        quiet
    }

    /// Returns the next task's number, service and first bytes.
    pub fn task(&mut self) -> (u32, u16, Vec<u8>) {
        match self.frame() {
            Frame::First(task, service, bytes) => (task, service, bytes),
            other => panic!("{other:?} instead of a task"),
        }
    }

    /// Gathers the data of `task` until there are `count` bytes; other frames are an error.
    pub fn gather(&mut self, task: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.frame() {
                Frame::Data(of, more) if of == task => bytes.extend(more),
                other => panic!("{other:?} after {} bytes of task {task}", bytes.len()),
            }
        }
        bytes
    }

    /// Gathers the data of `task` up to its close; other frames are an error.
    pub fn gather_to_close(&mut self, task: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match self.frame() {
                Frame::Data(of, more) if of == task => bytes.extend(more),
                Frame::Closed(of) if of == task => return bytes,
                other => panic!("{other:?} after {} bytes of task {task}", bytes.len()),
            }
        }
    }
}

/// A hand-written server for the real client.
pub struct PeerServer {
    listener: TcpListener,
    pub addr: SocketAddr,
}

impl PeerServer {
    pub fn start() -> PeerServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        listener.set_nonblocking(true).expect("not wait");
        let addr = listener.local_addr().expect("ask for the address");
        PeerServer { listener, addr }
    }

    /// Accepts the next tunnel, before its hello.
    pub fn accept(&self) -> Peer {
        eventually("a tunnel to come", || {
            let (stream, _) = self.listener.accept().ok()?;
            set_limits(&stream);
            Some(Peer::new(stream))
        })
    }

    /// Accepts the next tunnel, whose hello must be `hello`, and sends ready.
    pub fn accept_ready(&self, hello: &[u8]) -> Peer {
        let mut peer = self.accept();
        assert_eq!(peer.read(hello.len()), hello, "the hello");
        peer.send(&READY);
        peer
    }
}
