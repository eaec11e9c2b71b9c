//! The stream of a connection, with the interface of [`Conn`](crate::net::Conn).

use super::connection::{wait, ConnectionShared, ConnectionState, Phase, CUT};
use super::streams::QuicStreams;

use crate::keys::Binding;
use crate::net::{clock, tls, Delivery};
use bytes::{Buf, Bytes};
use quinn_proto::{ConnectionError, ReadError, ReadableError, StreamId, WriteError};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
#[cfg(feature = "server")]
use {super::setup::WINDOW, quinn_proto::VarInt, std::future::poll_fn};

/// Bytes of signals that may wait or be in flight, beside those of visitors.
const SIGNALS: u64 = 256 * 1024;

/// Time after which an unanswered probe counts as lost, with those that the protocol has sent after it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The first bidirectional stream of a connection. Dropping it closes the connection, once all bytes that were
/// written have arrived.
pub struct QuicStream {
    shared: Arc<ConnectionShared>,
    id: StreamId,
}

impl fmt::Debug for QuicStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl QuicStream {
    /// Creates the stream `id`.
    pub fn new(shared: Arc<ConnectionShared>, id: StreamId) -> Self {
        Self { shared, id }
    }

    /// Fills `held` if it is empty. Ready with `false` at the end of the stream.
    fn poll_fill(&self, state: &mut ConnectionState, cx: &Context<'_>) -> Poll<io::Result<bool>> {
        if !state.held.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if state.is_read {
            return Poll::Ready(Ok(false));
        }
        let mut stream = state.proto.recv_stream(self.id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            // It was read to its end, or stopped.
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return Poll::Ready(Ok(false));
            }
        };
        let next = chunks.next(usize::MAX);
        let speaks = chunks.finalize().should_transmit();
        if speaks {
            state.wake_driver();
        }
        match next {
            Ok(Some(chunk)) => {
                state.held = chunk.bytes;
                Poll::Ready(Ok(true))
            }
            Ok(None) => {
                state.is_read = true;
                Poll::Ready(Ok(false))
            }
            Err(ReadError::Blocked) => match state.failure() {
                Some(e) => Poll::Ready(Err(e)),
                None => {
                    wait(&mut state.reader, cx);
                    Poll::Pending
                }
            },
            Err(ReadError::Reset(_)) => Poll::Ready(Err(cut())),
        }
    }

    /// See [`Conn::poll_read`](crate::net::Conn::poll_read).
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let mut count = 0;
        while let Some(room) = buf.get_mut(count..).filter(|room| !room.is_empty()) {
            match self.poll_fill(&mut state, cx) {
                Poll::Ready(Ok(true)) => {
                    let take = room.len().min(state.held.len());
                    state
                        .held
                        .copy_to_slice(room.get_mut(..take).unwrap_or_default());
                    count += take;
                    if state.held.is_empty() {
                        // Frees the memory of the packet.
                        state.held = Bytes::new();
                    }
                }
                // What was read comes first; the next read finds the same.
                _ if count > 0 => break,
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(count))
    }

    /// See [`Conn::poll_readable`](crate::net::Conn::poll_readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        self.poll_fill(&mut state, cx).map_ok(drop)
    }

    /// See [`Conn::poll_write`](crate::net::Conn::poll_write).
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if let Some(e) = state.failure() {
            return Poll::Ready(Err(e));
        }
        let window = state.send_window;
        if state.further.is_some() {
            // Signals do not wait for visitors' bytes.
            state.proto.set_send_window(window.saturating_add(SIGNALS));
        }
        let written = state.proto.send_stream(self.id).write(buf);
        state.proto.set_send_window(window);
        match written {
            Ok(count) => {
                state.wake_driver();
                Poll::Ready(Ok(count))
            }
            Err(WriteError::Blocked) => {
                wait(&mut state.writer, cx);
                Poll::Pending
            }
            Err(WriteError::Stopped(_)) => Poll::Ready(Err(cut())),
            Err(WriteError::ClosedStream) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// See [`Conn::poll_shutdown`](crate::net::Conn::poll_shutdown).
    pub fn finish(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.is_finished {
            return Ok(());
        }
        if let Some(e) = state.failure() {
            return Err(e);
        }
        state.is_finished = true;
        // Fails if the peer has stopped reading.
        state.is_delivered = state.proto.send_stream(self.id).finish().is_err();
        state.wake_driver();
        Ok(())
    }

    /// See [`Conn::reset_on_close`](crate::net::Conn::reset_on_close).
    pub fn reset_on_close(&self, resets: bool) {
        self.shared.lock().resets_on_close = resets;
    }

    /// Closes the connection at once with the code of a cut. What has not arrived yet is lost.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        if state.failure().is_some() {
            return;
        }
        state.proto.close(clock::now(), CUT, Bytes::new());
        state.phase = Phase::Over(ConnectionError::LocallyClosed);
        state.wake_driver();
        let users = state.take_users();
        drop(state);
        users.into_iter().for_each(Waker::wake);
    }

    /// See [`Socket::limit_unsent`](crate::net::Socket::limit_unsent).
    pub fn limit_unsent(&self, bytes: u32) {
        let mut state = self.shared.lock();
        // Visitors' bytes are not in this stream if there are further ones.
        if state.further.is_none() {
            state.unsent = u64::from(bytes);
            state.wake_driver();
        }
    }

    /// See [`Socket::has_failed`](crate::net::Socket::has_failed).
    pub fn has_failed(&self) -> bool {
        self.shared.lock().failure().is_some()
    }

    /// Sends a packet that the peer has to answer, unless one is unanswered.
    pub fn probe(&self, yes: bool) {
        let mut state = self.shared.lock();
        if yes && state.probed.is_none() {
            state.probed = Some(clock::now());
            state.proto.ping();
            state.wake_driver();
        }
    }

    /// Returns what became of [the last probe](Self::probe): the peer's end of the connection answers it at once.
    pub fn delivery(&self) -> Option<Delivery> {
        let probed = self.shared.lock().probed;
        Some(match probed {
            None => Delivery::Acknowledged,
            Some(at) if clock::since(at) < PROBE_TIMEOUT => Delivery::Moving,
            Some(_) => Delivery::Lost,
        })
    }

    /// Returns the further streams of the connection; `None` if its application protocol has none.
    pub fn streams(&self) -> Option<QuicStreams> {
        let has_them = self.shared.lock().further.is_some();
        has_them.then(|| QuicStreams::new(self.shared.clone()))
    }

    /// Whether each visitor has a stream of its own.
    pub fn has_streams(&self) -> bool {
        self.shared.lock().further.is_some()
    }

    /// Makes BBR the congestion control of a server's connection.
    #[cfg(feature = "server")]
    pub fn use_bbr(&self) {
        if let Some(choice) = &self.shared.choice {
            choice.set_bbr();
        }
    }

    /// Returns what binds a login with a key to the connection: the exported keying material of its TLS 1.3.
    pub fn binding(&self) -> Option<Binding> {
        let mut exported = [0; 32];
        let state = self.shared.lock();
        let session = state.proto.crypto_session();
        let result = session.export_keying_material(&mut exported, tls::BINDING, b"");
        result.ok().map(|()| Binding::TlsExporter(exported))
    }

    /// Returns the name of the congestion control of a server's connection.
    #[cfg(feature = "server")]
    pub fn congestion(&self) -> Option<String> {
        let choice = self.shared.choice.as_ref();
        choice.map(|choice| choice.name().to_owned())
    }

    /// Returns how many of a thousand packets to the peer are lost.
    #[cfg(feature = "web")]
    pub fn loss_per_mille(&self) -> u64 {
        let path = self.shared.lock().proto.stats().path;
        let lost = path.lost_packets.saturating_mul(1000);
        lost.checked_div(path.sent_packets).unwrap_or(0)
    }

    /// Returns this end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr()
    }

    /// Returns the peer's address, which may change.
    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.peer_addr()
    }

    /// Lets the peer, which has logged in, send more before it is read.
    #[cfg(feature = "server")]
    pub fn raise_window(&self) {
        let mut state = self.shared.lock();
        let window = VarInt::from_u32(WINDOW);
        state.proto.set_receive_window(window);
        state.wake_driver();
    }

    /// Sends datagrams (RFC 9221) back, at most `most`, until one of them is `last`, or the connection ends.
    #[cfg(feature = "server")]
    pub async fn echo_datagrams(&self, most: u32, last: &[u8]) {
        for _ in 0..most {
            let Some(bytes) = self.datagram().await.filter(|bytes| bytes != last) else {
                return;
            };
            let mut state = self.shared.lock();
            // One that does not fit is lost, as any datagram may be.
            let _ = state.proto.datagrams().send(bytes, true);
            state.wake_driver();
        }
    }

    /// Waits for a datagram; `None` once the connection has ended.
    #[cfg(feature = "server")]
    pub(super) async fn datagram(&self) -> Option<Bytes> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            wait(&mut state.user, cx);
            match (state.proto.datagrams().recv(), &state.phase) {
                (Some(bytes), _) => Poll::Ready(Some(bytes)),
                (None, Phase::Over(_)) => Poll::Ready(None),
                (None, _) => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(all(test, feature = "client", feature = "server"))]
impl QuicStream {
    /// Has the connection move to another socket.
    pub(super) fn move_away(&self) {
        self.shared.move_away();
    }

    /// Sends a datagram.
    pub(super) fn send_datagram(&self, bytes: &[u8]) -> Result<(), quinn_proto::SendDatagramError> {
        let mut state = self.shared.lock();
        let bytes = Bytes::copy_from_slice(bytes);
        state.proto.datagrams().send(bytes, true)?;
        state.wake_driver();
        Ok(())
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let cut = state.resets_on_close && state.failure().is_none();
        if cut {
            // Both fail if the stream has ended already.
            let _ = state.proto.send_stream(self.id).reset(CUT);
            let _ = state.proto.recv_stream(self.id).stop(CUT);
        }
        drop(state);
        self.shared.release(cut, clock::now());
    }
}
