//! A server over QUIC that is written by hand, for the protocol `gt/2` of docs/wire.md: quinn-proto on one socket,
//! driven by the test.

use crate::common::certs::Certs;
use crate::common::PATIENCE;
use async_tls::rustls::crypto::ring;
use async_tls::rustls::pki_types::pem::PemObject;
use async_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_tls::rustls::{self, version};
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, ServerConfig, StreamId, TransportConfig, VarInt,
};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answer to any hello, with all capabilities but origins.
const ANSWER: [u8; 10] = [0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 0x1E];
/// The signal *ready*.
const READY: [u8; 8] = [9, 0, 0, 0, 0, 0, 0, 0];

/// A server with at most one connection.
pub struct QuicServer {
    pub addr: SocketAddr,
    socket: UdpSocket,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    /// The first stream of the connection.
    first: Option<StreamId>,
    is_lost: bool,
    /// The code with which the client has closed the connection.
    closed_with: Option<u64>,
}

impl QuicServer {
    /// Listens with a certificate.
    pub fn start(certs: &Certs) -> QuicServer {
        let cert = CertificateDer::from_pem_file(&certs.cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(&certs.key).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        tls.alpn_protocols = vec![b"gt/2".to_vec()];
        let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
        let mut config = ServerConfig::with_crypto(crypto);
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
        config.transport_config(Arc::new(transport));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let endpoint_config = Arc::new(EndpointConfig::default());
        QuicServer {
            addr: socket.local_addr().unwrap(),
            socket,
            endpoint: Endpoint::new(endpoint_config, Some(Arc::new(config)), true, None),
            connection: None,
            first: None,
            is_lost: false,
            closed_with: None,
        }
    }

    /// Waits for a client's hello, and lets the client in.
    pub fn accept_ready(&mut self) {
        let first = self.until("a client's stream", |connection| {
            connection.streams().accept(Dir::Bi)
        });
        self.first = Some(first);
        self.until("a hello", |connection| {
            let mut stream = connection.recv_stream(first);
            let mut chunks = stream.read(true).ok()?;
            let came = matches!(chunks.next(usize::MAX), Ok(Some(_)));
            let _ = chunks.finalize();
            came.then_some(())
        });
        self.signal(&ANSWER);
        self.signal(&READY);
    }

    /// Returns the first stream.
    pub fn first(&self) -> StreamId {
        self.first.expect("a stream")
    }

    /// Sends bytes in the first stream.
    pub fn signal(&mut self, bytes: &[u8]) {
        self.write(self.first(), bytes);
    }

    /// Sends bytes in a stream.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) {
        let mut left = bytes.to_vec();
        self.until("room in a stream", |connection| {
            let n = connection.send_stream(id).write(&left).unwrap_or(0);
            left.drain(..n);
            left.is_empty().then_some(())
        });
    }

    /// Opens a stream that begins with these bytes, once the client allows it.
    pub fn open(&mut self, bytes: &[u8]) -> StreamId {
        let id = self.until("leave to open a stream", |connection| {
            connection.streams().open(Dir::Bi)
        });
        self.write(id, bytes);
        id
    }

    /// Opens a stream like [`Self::open`], and does not mind if the client closes the connection before all bytes are
    /// sent.
    pub fn try_open(&mut self, bytes: &[u8]) {
        let id = self.open(b"");
        let mut left = bytes.to_vec();
        while !left.is_empty() && !self.is_lost {
            let n = self.act(|connection| connection.send_stream(id).write(&left).unwrap_or(0));
            left.drain(..n);
        }
    }

    /// Does something to the connection and sends what follows from it.
    pub fn act<T>(&mut self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let (_, connection) = self.connection.as_mut().expect("a connection");
        let result = act(connection);
        self.turn();
        result
    }

    /// Waits until something is there.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut(&mut Connection) -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.turn();
            if let Some((_, connection)) = &mut self.connection {
                if let Some(found) = find(connection) {
                    self.turn();
                    return found;
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        panic!("there is not {what}");
    }

    /// Waits until the client has closed the connection, and returns the code of the close.
    pub fn wait_for_close(&mut self) -> u64 {
        let begun = Instant::now();
        while !self.is_lost {
            assert!(begun.elapsed() < PATIENCE, "the connection goes on");
            self.turn();
            std::thread::sleep(Duration::from_micros(200));
        }
        (self.connection, self.is_lost) = (None, false);
        self.closed_with.take().expect("a close by the client")
    }

    /// Receives, and sends what is due.
    pub fn turn(&mut self) {
        let (mut buf, now) = (vec![0; 65536], Instant::now());
        while let Ok((n, from)) = self.socket.recv_from(&mut buf) {
            let mut answer = Vec::new();
            let bytes = buf[..n].into();
            let event = self
                .endpoint
                .handle(now, from, None, None, bytes, &mut answer);
            match event {
                Some(DatagramEvent::NewConnection(incoming)) if self.connection.is_none() => {
                    let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                    self.connection = Some(accepted.unwrap());
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
                Some(DatagramEvent::ConnectionEvent(handle, event)) => match &mut self.connection {
                    Some((known, connection)) if *known == handle => connection.handle_event(event),
                    _ => {}
                },
                Some(DatagramEvent::Response(transmit)) => {
                    let _ = self.socket.send_to(&answer[..transmit.size], from);
                }
                None => {}
            }
        }
        let Some((handle, connection)) = &mut self.connection else {
            return;
        };
        if connection.poll_timeout().is_some_and(|due| due <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let Event::ConnectionLost { reason } = event {
                self.is_lost = true;
                self.closed_with = match reason {
                    ConnectionError::ApplicationClosed(close) => Some(close.error_code.into()),
                    _ => None,
                };
            }
        }
        let mut out = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut out) {
            let _ = self
                .socket
                .send_to(&out[..transmit.size], transmit.destination);
            out.clear();
        }
    }
}
