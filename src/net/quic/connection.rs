//! A connection of QUIC: its state, which its task, its endpoint and its stream share. Not the task, see
//! `driver`.

use super::congestion::CongestionChoice;
use super::endpoint::EndpointHandle;
use super::setup::MAX_SEND_WINDOW;
use super::stream::QuicStream;
use super::streams::FurtherStreams;
use crate::net::tls;
use crate::sync::{Mutex, MutexGuard};
use bytes::Bytes;
#[cfg(all(test, feature = "server", feature = "client"))]
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{
    ConnectionError, ConnectionEvent, ConnectionHandle, Dir, StreamId, TransportErrorCode, VarInt,
};
use smallvec::SmallVec;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The error code with which a stream or a connection ends when its bytes were cut.
pub const CUT: VarInt = VarInt::from_u32(1);

/// The error code that the code of a TLS alert is added to (RFC 9001, section 4.8).
const CRYPTO_ERROR: u64 = 0x100;
/// Maximum number of characters of an error whose text the peer may have chosen.
const MAX_REASON: usize = 200;

/// A connection. Once it is dropped without a stream, the connection is closed.
#[derive(Debug)]
pub struct Connection(Arc<ConnectionShared>);

/// What the task, the endpoint and the users of a connection share.
pub struct ConnectionShared {
    /// The number of the connection in its endpoint.
    pub handle: ConnectionHandle,
    /// The endpoint of the connection.
    pub endpoint: EndpointHandle,
    /// The congestion control of a server's connection.
    pub choice: Option<CongestionChoice>,
    state: Mutex<ConnectionState>,
}

impl fmt::Debug for ConnectionShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QUIC connection {}", self.handle.0)
    }
}

/// The progress of a connection.
#[derive(Debug, Clone)]
pub enum Phase {
    /// The handshake is not complete.
    Handshaking,
    /// The handshake is complete.
    Established,
    /// The connection has ended for this reason.
    Over(ConnectionError),
}

/// Whether a connection is still used, and how it has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionUse {
    /// The connection has a user.
    Used,
    /// The user has gone at this time; the bytes that it has written still have to arrive.
    Finishing(Instant),
    /// The user has gone and has cut the connection.
    Cut,
}

/// The state of a connection.
pub struct ConnectionState {
    /// The protocol.
    pub proto: quinn_proto::Connection,
    /// The progress of the connection.
    pub phase: Phase,
    /// Whether the connection is used.
    pub is_used: ConnectionUse,
    /// Whether the coming end of the stream is a cut.
    pub resets_on_close: bool,
    /// Bytes that have been taken from the protocol and not been read.
    pub held: Bytes,
    /// Whether the peer has ended its direction of the stream, and all bytes were read.
    pub is_read: bool,
    /// Whether this end has ended its direction of the stream.
    pub is_finished: bool,
    /// Whether all bytes of this end and the end of its direction have arrived, or the peer has stopped reading.
    pub is_delivered: bool,
    /// Number of bytes that may wait to be sent, beside those in flight.
    pub unsent: u64,
    /// Number of bytes that may be in flight or wait, as the protocol knows it.
    pub send_window: u64,
    /// The further streams, with the application protocol `gt/2`.
    pub further: Option<Box<FurtherStreams>>,
    /// The first stream.
    pub stream: Option<StreamId>,
    /// When a packet of the peer came last.
    pub heard: Instant,
    /// When the first probe was sent that no packet of the peer has followed.
    pub probed: Option<Instant>,
    /// Whether the connection is to move to another socket.
    pub is_to_move: bool,
    /// The task of the connection.
    pub driver: Option<Waker>,
    /// The task that waits for the handshake, the stream or a datagram.
    pub user: Option<Waker>,
    /// The reader of the stream.
    pub reader: Option<Waker>,
    /// The writer of the stream.
    pub writer: Option<Waker>,
}

impl ConnectionState {
    /// Wakes the task of the connection.
    pub fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Returns the wakers of all that wait for the connection.
    pub fn take_users(&mut self) -> SmallVec<[Waker; 4]> {
        let further = self.further.as_mut().and_then(|it| it.take_waker());
        let waiting = [
            self.user.take(),
            self.reader.take(),
            self.writer.take(),
            further,
        ];
        waiting.into_iter().flatten().collect()
    }

    /// Returns the error of calls on a connection that has ended.
    pub fn failure(&self) -> Option<io::Error> {
        match &self.phase {
            Phase::Over(why) => Some(error(why)),
            Phase::Handshaking | Phase::Established => None,
        }
    }
}

/// Sets the waker that an event wakes.
pub fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

/// Returns the reason for the end of a connection as an error.
pub fn error(why: &ConnectionError) -> io::Error {
    use io::ErrorKind as Kind;
    let kind = match why {
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed => Kind::ConnectionReset,
        ConnectionError::TimedOut => Kind::TimedOut,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::CidsExhausted => Kind::InvalidData,
    };
    if let ConnectionError::TransportError(e) = why {
        let alert = u64::from(e.code).checked_sub(CRYPTO_ERROR);
        let alert = alert.and_then(|alert| u8::try_from(alert).ok());
        if let Some(e) = alert.and_then(|alert| tls::certificate_error(alert, &e.reason)) {
            return e;
        }
    }
    let text = match why {
        ConnectionError::TimedOut => "the peer is silent".to_owned(),
        ConnectionError::Reset => "the peer does not know the connection any more".to_owned(),
        ConnectionError::LocallyClosed => "the connection was closed".to_owned(),
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".to_owned(),
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            "the peer refuses the connection".to_owned()
        }
        // An error of this end's own verifier, such as a server with another key.
        ConnectionError::TransportError(e) if e.reason.contains("other error: ") => {
            let (_, why) = e.reason.split_once("other error: ").unwrap_or_default();
            why.to_owned()
        }
        // The peer has chosen the text of some.
        why => why.to_string().escape_debug().take(MAX_REASON).collect(),
    };
    io::Error::new(kind, text)
}

impl ConnectionShared {
    /// Creates the state of a connection.
    pub fn new(
        handle: ConnectionHandle,
        endpoint: EndpointHandle,
        choice: Option<CongestionChoice>,
        proto: quinn_proto::Connection,
        now: Instant,
    ) -> Self {
        let state = ConnectionState {
            proto,
            phase: Phase::Handshaking,
            is_used: ConnectionUse::Used,
            resets_on_close: false,
            held: Bytes::new(),
            is_read: false,
            is_finished: false,
            is_delivered: false,
            unsent: u64::MAX,
            send_window: MAX_SEND_WINDOW,
            further: None,
            stream: None,
            heard: now,
            probed: None,
            is_to_move: false,
            driver: None,
            user: None,
            reader: None,
            writer: None,
        };
        Self {
            handle,
            endpoint,
            choice,
            state: Mutex::new(state),
        }
    }

    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock()
    }

    /// Takes packets of the peer. The task of the connection is to be woken afterwards.
    pub fn receive(&self, event: ConnectionEvent, now: Instant) {
        let mut state = self.lock();
        state.heard = now;
        state.probed = None;
        state.proto.handle_event(event);
    }

    /// Lets the task of the connection run.
    pub fn wake_driver(&self) {
        self.lock().wake_driver();
    }

    /// Has the connection move to another socket.
    #[cfg(feature = "client")]
    pub fn move_away(&self) {
        let mut state = self.lock();
        state.is_to_move = true;
        state.wake_driver();
    }

    /// Ends the use of the connection: the bytes that were written still have to arrive, unless it is `cut`.
    pub fn release(&self, cut: bool, now: Instant) {
        let mut state = self.lock();
        if let (Some(id), false) = (state.stream, cut) {
            if !state.is_finished {
                // Fails if the peer has stopped reading.
                state.is_delivered = state.proto.send_stream(id).finish().is_err();
                state.is_finished = true;
            }
        }
        state.is_used = match (cut, state.stream) {
            (false, Some(_)) => ConnectionUse::Finishing(now),
            _ => ConnectionUse::Cut,
        };
        state.wake_driver();
    }

    /// Returns the peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.lock().proto.remote_address()
    }

    /// Returns this end's address.
    pub fn local_addr(&self) -> SocketAddr {
        let bound = self.endpoint.socket().addr();
        let ip: Option<IpAddr> = self.lock().proto.local_ip();
        SocketAddr::new(ip.unwrap_or(bound.ip()), bound.port())
    }
}

impl Connection {
    /// Creates a user of a connection.
    pub fn new(shared: Arc<ConnectionShared>) -> Self {
        Self(shared)
    }

    /// Waits for the end of the handshake.
    pub async fn established(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            wait(&mut state.user, cx);
            match &state.phase {
                Phase::Handshaking => Poll::Pending,
                Phase::Established => Poll::Ready(Ok(())),
                Phase::Over(why) => Poll::Ready(Err(error(why))),
            }
        })
        .await
    }

    /// Opens the first stream.
    #[cfg(feature = "client")]
    pub fn open_stream(self) -> io::Result<QuicStream> {
        let mut state = self.0.lock();
        let opened = state.proto.streams().open(Dir::Bi);
        state.stream = opened;
        let failure = state.failure();
        drop(state);
        match (opened, failure) {
            (_, Some(e)) => Err(e),
            (None, None) => Err(io::Error::other("the server takes no stream")),
            (Some(id), None) => Ok(QuicStream::new(self.0.clone(), id)),
        }
    }

    /// Waits for the stream that the peer opens.
    #[cfg(feature = "server")]
    pub async fn accept_stream(self) -> io::Result<QuicStream> {
        let accepted = std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            wait(&mut state.user, cx);
            match (state.proto.streams().accept(Dir::Bi), state.failure()) {
                (Some(id), _) => {
                    state.stream = Some(id);
                    Poll::Ready(Ok(id))
                }
                (None, Some(e)) => Poll::Ready(Err(e)),
                (None, None) => Poll::Pending,
            }
        });
        let id = accepted.await?;
        Ok(QuicStream::new(self.0.clone(), id))
    }

    /// Returns the application protocol that both ends have agreed on.
    #[cfg(all(test, feature = "server", feature = "client"))]
    pub fn protocol(&self) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let data = state.proto.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let has_stream = self.0.lock().stream.is_some();
        // A stream is a user of its own.
        if !has_stream {
            self.0.release(true, crate::net::clock::now());
        }
    }
}
