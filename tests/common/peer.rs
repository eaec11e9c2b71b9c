//! The other end of a tunnel, written by hand: a client for the real server, and a server for the
//! real client. Each version of the wire has a file, `gt1` from docs/gt1.md and `gt2` from
//! docs/wire.md. None of this uses the crate's `wire`, so that a mistake there cannot agree with
//! itself.

pub mod gt1;
pub mod gt2;
#[cfg(feature = "quic")]
pub mod quic;

use super::visitor::{connect, read, set_limits};
use super::{eventually, PATIENCE};
use std::fmt::Debug;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// The only service of most tests: HTTP at the host prefix that is the client's id.
pub const ID_ALONE: [u8; 1] = [0x00];

/// Ids and secrets that a server of the user id1 with secret1 refuses.
pub const WRONG_LOGINS: [(&str, &str); 4] = [
    ("id1", "secret2"),
    ("id1", "secret"),
    ("id1", "secret11"),
    ("id2", "secret1"),
];

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

/// A frame after the hello, in one version of the wire.
pub trait Frame: Debug + PartialEq + Sized {
    /// The server's bytes between a hello and the first frame.
    const ANSWER: &'static [u8];
    /// The server's frame that accepts a client.
    const READY: Self;
    /// `READY` as bytes.
    const READY_BYTES: &'static [u8];

    /// Reads the next frame, or `None` at the end of the connection.
    fn read(peer: &mut Peer<Self>) -> Option<Self>;

    /// Whether the server announces a port.
    fn is_port_opened(&self) -> bool;

    /// Whether the frame gives credit.
    fn is_credit(&self) -> bool;

    /// Returns the stream and the bytes of a data frame, or another frame itself.
    fn into_data(self) -> Result<(u32, Vec<u8>), Self>;
}

/// One tunnel of a hand-written end.
pub struct Peer<F> {
    stream: TcpStream,
    input: BufReader<TcpStream>,
    version: PhantomData<F>,
}

impl<F: Frame> Peer<F> {
    /// Takes a tunnel whose hello has been exchanged.
    pub fn new(stream: TcpStream) -> Peer<F> {
        let input = BufReader::new(stream.try_clone().expect("clone a socket"));
        Peer {
            stream,
            input,
            version: PhantomData,
        }
    }

    /// Connects as a client, sends `hello` and reads what precedes the server's first frame.
    pub fn client(server: SocketAddr, hello: &[u8]) -> Peer<F> {
        let mut peer = Peer::new(connect(server));
        peer.send(hello);
        assert_eq!(peer.read(F::ANSWER.len()), F::ANSWER);
        peer
    }

    /// Connects as a client whose hello is accepted; skips opened ports.
    pub fn ready_client(server: SocketAddr, hello: &[u8]) -> Peer<F> {
        let mut peer = Self::client(server, hello);
        let mut frame = peer.frame();
        while frame.is_port_opened() {
            frame = peer.frame();
        }
        assert_eq!(frame, F::READY);
        peer
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send to the tunnel");
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        read(&mut self.input, count)
    }

    /// Reads the first bytes of a frame, or returns `None` at the end of the connection.
    fn read_head<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let mut head = [0; COUNT];
        match self.input.read_exact(&mut head) {
            Ok(()) => Some(head),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => None,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
            Err(e) => panic!("waited {PATIENCE:?} for a frame: {e}"),
        }
    }

    /// Returns a second handle for writing.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("clone a socket")
    }

    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Returns the next frame.
    pub fn frame(&mut self) -> F {
        self.frame_or_end()
            .expect("a frame, but the tunnel was closed")
    }

    /// Returns the next frame, or `None` at the end of the connection.
    pub fn frame_or_end(&mut self) -> Option<F> {
        F::read(self)
    }

    /// Waits until a frame has begun, and consumes nothing of it.
    pub fn wait_for_bytes(&mut self) {
        let begun = self.input.fill_buf().expect("a frame");
        assert!(!begun.is_empty(), "the tunnel was closed");
    }

    pub fn expect(&mut self, frame: F) {
        assert_eq!(self.frame(), frame);
    }

    /// Fails unless the connection ends here.
    pub fn expect_end(&mut self) {
        assert_eq!(self.frame_or_end(), None, "after the end");
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

    /// Gathers the data of `stream` until there are `count` bytes. Credit is skipped; other frames
    /// are an error.
    pub fn gather(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.frame().into_data() {
                Ok((of, more)) if of == stream => bytes.extend(more),
                Err(frame) if frame.is_credit() => {}
                other => panic!("{other:?} after {} bytes of {stream}", bytes.len()),
            }
        }
        bytes
    }
}

/// A hand-written server for the real client.
pub struct PeerServer<F> {
    listener: TcpListener,
    pub addr: SocketAddr,
    version: PhantomData<F>,
}

impl<F: Frame> PeerServer<F> {
    pub fn start() -> PeerServer<F> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        listener.set_nonblocking(true).expect("not wait");
        let addr = listener.local_addr().expect("ask for the address");
        PeerServer {
            listener,
            addr,
            version: PhantomData,
        }
    }

    /// Accepts the next tunnel, before its hello.
    pub fn accept(&self) -> Peer<F> {
        eventually("a tunnel to come", || {
            let (stream, _) = self.listener.accept().ok()?;
            set_limits(&stream);
            Some(Peer::new(stream))
        })
    }

    /// Accepts the next tunnel, whose hello must be `hello`, and sends ready.
    pub fn accept_ready(&self, hello: &[u8]) -> Peer<F> {
        let mut peer = self.accept();
        assert_eq!(peer.read(hello.len()), hello, "the hello");
        peer.send(&[F::ANSWER, F::READY_BYTES].concat());
        peer
    }
}
