//! A connection, plain, TLS or with a [`ConnLayer`] on it, shared by one reader and one writer. It
//! does not interpret the bytes that it carries.

use super::datagrams::DatagramConn;
use super::quic::QuicStream;
use super::tls::Stream as TlsStream;
use super::{timeout, with_read_buf, Delivery, ShardId, Socket};
use crate::keys::Binding;
use crate::sync::{Mutex, MutexGuard};
use futures_lite::{future, AsyncRead, AsyncWrite};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Reads of discarded bytes in a row before other tasks run.
const MAX_READS_IN_A_ROW: u32 = 4;

/// A connection. One reader and one writer may poll it at the same time through a shared
/// reference.
#[derive(Debug)]
pub enum Conn {
    /// A TCP connection.
    Plain(Socket),
    /// A TLS connection. Both directions share one TLS session, whose lock is held only while one
    /// of them is polled.
    Tls(Box<Mutex<TlsStream>>),
    /// A connection with a layer on it.
    Layered(Box<dyn ConnLayer>),
    /// Datagrams, as records in a stream of bytes.
    Datagrams(Box<DatagramConn>),
    /// The stream of a connection of QUIC.
    Quic(Box<QuicStream>),
}

/// A layer that may change the bytes that pass through a connection. Its methods are those of
/// [`Conn`].
pub trait ConnLayer: fmt::Debug + Send + Sync {
    /// Returns the connection below the layer.
    fn below(&self) -> &Conn;

    /// See [`Conn::poll_read`].
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// See [`Conn::poll_readable`].
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// See [`Conn::poll_write`].
    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;

    /// See [`Conn::holds_back`].
    fn holds_back(&self) -> bool;

    /// See [`Conn::poll_flush`].
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// See [`Conn::poll_shutdown`].
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl From<Socket> for Conn {
    fn from(socket: Socket) -> Self {
        Self::Plain(socket)
    }
}

impl From<TlsStream> for Conn {
    fn from(stream: TlsStream) -> Self {
        Self::Tls(Box::new(Mutex::new(stream)))
    }
}

impl From<Box<dyn ConnLayer>> for Conn {
    fn from(layer: Box<dyn ConnLayer>) -> Self {
        Self::Layered(layer)
    }
}

impl From<DatagramConn> for Conn {
    fn from(conn: DatagramConn) -> Self {
        Self::Datagrams(Box::new(conn))
    }
}

impl From<QuicStream> for Conn {
    fn from(stream: QuicStream) -> Self {
        Self::Quic(Box::new(stream))
    }
}

fn lock(tls: &Mutex<TlsStream>) -> MutexGuard<'_, TlsStream> {
    tls.lock()
}

impl Conn {
    /// Reads available bytes. 0 is the end of the stream, however a TLS peer ended it.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_read(cx, buf),
            Self::Tls(tls) => match Pin::new(&mut *lock(tls)).poll_read(cx, buf) {
                // Many peers close without a TLS close_notify.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(0))
                }
                other => other,
            },
            Self::Layered(layer) => layer.poll_read(cx, buf),
            Self::Datagrams(conn) => conn.flow().poll_read(cx, buf),
            Self::Quic(stream) => stream.poll_read(cx, buf),
        }
    }

    /// Ready when a read may find bytes or the end. TLS is always ready: it cannot know before it
    /// has read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_readable(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
            Self::Layered(layer) => layer.poll_readable(cx),
            Self::Datagrams(conn) => conn.flow().poll_readable(cx),
            Self::Quic(stream) => stream.poll_readable(cx),
        }
    }

    /// Writes as many bytes as fit now; `WouldBlock` if none do. Registers no waker: the rest has
    /// to be written by [`Conn::poll_write`], and TLS has to be flushed.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(buf),
            Self::Datagrams(conn) => Ok(conn.write(buf)),
            Self::Tls(_) | Self::Layered(_) | Self::Quic(_) => {
                match self.poll_write(&mut Context::from_waker(Waker::noop()), buf) {
                    Poll::Ready(result) => result,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Writes consecutive pieces, or only some of them, like [`Conn::try_write`]. `last`: the end
    /// of the stream follows at once.
    pub fn try_write_pieces(&self, pieces: &[IoSlice<'_>], last: bool) -> io::Result<usize> {
        match (self, pieces) {
            (Self::Plain(socket), [_, rest @ ..]) if last || !rest.is_empty() => {
                socket.try_write_pieces(pieces, last)
            }
            (_, [first, ..]) => self.try_write(first),
            (_, []) => Ok(0),
        }
    }

    /// Writes as many bytes as fit now; waits if none do. TLS has to be flushed afterwards.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut *lock(tls)).poll_write(cx, buf),
            Self::Layered(layer) => layer.poll_write(cx, buf),
            Self::Datagrams(conn) => Poll::Ready(Ok(conn.write(buf))),
            Self::Quic(stream) => stream.poll_write(cx, buf),
        }
    }

    /// Whether written bytes still have to be flushed.
    pub fn holds_back(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => lock(tls).get_ref().1.wants_write(),
            Self::Layered(layer) => layer.holds_back(),
            Self::Datagrams(_) | Self::Quic(_) => false,
        }
    }

    /// Passes all written bytes to the kernel.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(&mut *lock(tls)).poll_flush(cx),
            Self::Layered(layer) => layer.poll_flush(cx),
            Self::Datagrams(_) | Self::Quic(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends the end of the stream behind all written bytes; reading goes on.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Poll::Ready(socket.shutdown_write()),
            Self::Tls(tls) => Pin::new(&mut *lock(tls)).poll_close(cx),
            Self::Layered(layer) => layer.poll_shutdown(cx),
            Self::Datagrams(conn) => {
                conn.flow().close();
                Poll::Ready(Ok(()))
            }
            Self::Quic(stream) => Poll::Ready(stream.finish()),
        }
    }

    /// Returns what binds a login with a key to this connection; `None` if nothing can.
    pub fn binding(&self) -> Option<Binding> {
        match self {
            Self::Plain(_) => Some(Binding::Plain),
            Self::Tls(tls) => super::tls::binding(&lock(tls)),
            Self::Quic(stream) => stream.binding(),
            Self::Layered(layer) => layer.below().binding(),
            Self::Datagrams(_) => None,
        }
    }

    /// Whether closing this connection shows the peer a graceful end, provided that nothing is left
    /// to read.
    pub fn ends_by_close(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Turns the coming close into a reset, so that the peer sees that its stream was cut.
    pub fn reset_on_close(&self) {
        match self {
            Self::Plain(socket) => socket.reset_on_close(),
            Self::Tls(tls) => lock(tls).get_ref().0.reset_on_close(),
            Self::Layered(layer) => layer.below().reset_on_close(),
            Self::Datagrams(_) => {}
            Self::Quic(stream) => stream.reset_on_close(true),
        }
    }

    /// Undoes [`Conn::reset_on_close`].
    pub fn end_on_close(&self) {
        match self {
            Self::Plain(socket) => socket.end_on_close(),
            Self::Tls(tls) => lock(tls).get_ref().0.end_on_close(),
            Self::Layered(layer) => layer.below().end_on_close(),
            Self::Datagrams(_) => {}
            Self::Quic(stream) => stream.reset_on_close(false),
        }
    }

    /// Closes a connection over QUIC at once, so that the peer learns of it. One over another transport ends with
    /// its last user.
    pub fn cut(&self) {
        if let Self::Quic(stream) = self {
            stream.cut();
        }
    }

    /// See [`Socket::limit_unsent`].
    pub fn limit_unsent(&self, bytes: u32) {
        match self {
            Self::Plain(socket) => socket.limit_unsent(bytes),
            Self::Tls(tls) => lock(tls).get_ref().0.limit_unsent(bytes),
            Self::Layered(layer) => layer.below().limit_unsent(bytes),
            Self::Datagrams(_) => {}
            Self::Quic(stream) => stream.limit_unsent(bytes),
        }
    }

    /// See [`Socket::has_failed`].
    pub fn has_failed(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.has_failed(),
            Self::Tls(tls) => lock(tls).get_ref().0.has_failed(),
            Self::Layered(layer) => layer.below().has_failed(),
            Self::Datagrams(_) => false,
            Self::Quic(stream) => stream.has_failed(),
        }
    }

    /// Lets the tasks of another executor thread use this connection. Those of this thread must not
    /// wait for it any more.
    pub fn move_to(&self, thread: ShardId) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.move_to(thread),
            Self::Tls(tls) => lock(tls).get_ref().0.move_to(thread),
            Self::Layered(layer) => layer.below().move_to(thread),
            Self::Datagrams(conn) => conn.flow().move_to(thread),
            // Its tasks stay where they are; wakers reach those of other threads.
            Self::Quic(_) => Ok(()),
        }
    }

    /// See [`Socket::delivery`].
    pub fn delivery(&self) -> Option<Delivery> {
        match self {
            Self::Plain(socket) => socket.delivery(),
            Self::Tls(tls) => lock(tls).get_ref().0.delivery(),
            Self::Layered(layer) => layer.below().delivery(),
            Self::Datagrams(_) => None,
            Self::Quic(stream) => stream.delivery(),
        }
    }

    /// See [`Socket::congestion`].
    #[cfg(feature = "server")]
    pub fn congestion(&self) -> Option<String> {
        match self {
            Self::Plain(socket) => socket.congestion(),
            Self::Tls(tls) => lock(tls).get_ref().0.congestion(),
            Self::Layered(layer) => layer.below().congestion(),
            Self::Datagrams(_) => None,
            Self::Quic(stream) => stream.congestion(),
        }
    }

    /// Whether the connection is over QUIC, where no kernel tells the peer that a program has ended.
    pub fn is_quic(&self) -> bool {
        matches!(self, Self::Quic(_))
    }

    /// Returns how many of a thousand packets to the peer are lost; `None` where only the kernel knows.
    #[cfg(feature = "web")]
    pub fn loss_per_mille(&self) -> Option<u64> {
        match self {
            Self::Quic(stream) => Some(stream.loss_per_mille()),
            _ => None,
        }
    }

    /// Returns the name of what carries the connection, as the schemes of `remote`.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Plain(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Layered(layer) => match layer.below() {
                Self::Tls(_) => "wss",
                _ => "ws",
            },
            Self::Datagrams(_) => "udp",
            Self::Quic(_) => "quic",
        }
    }

    /// See [`Socket::probe`].
    pub fn probe(&self, often: bool) {
        match self {
            Self::Plain(socket) => socket.probe(often),
            Self::Tls(tls) => lock(tls).get_ref().0.probe(often),
            Self::Layered(layer) => layer.below().probe(often),
            Self::Datagrams(_) => {}
            Self::Quic(stream) => stream.probe(often),
        }
    }

    /// Returns this end's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.local_addr(),
            Self::Tls(tls) => lock(tls).get_ref().0.local_addr(),
            Self::Layered(layer) => layer.below().local_addr(),
            Self::Datagrams(conn) => conn.flow().local_addr(),
            Self::Quic(stream) => Ok(stream.local_addr()),
        }
    }

    /// Returns the peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.peer_addr(),
            Self::Tls(tls) => lock(tls).get_ref().0.peer_addr(),
            Self::Layered(layer) => layer.below().peer_addr(),
            Self::Datagrams(conn) => conn.flow().peer_addr(),
            Self::Quic(stream) => Ok(stream.peer_addr()),
        }
    }

    /// Returns the server name that the peer's TLS has asked for; `None` without TLS.
    #[cfg(feature = "server")]
    pub fn server_name(&self) -> Option<Box<str>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => match &*lock(tls) {
                TlsStream::Server(stream) => stream.get_ref().1.server_name().map(Into::into),
                TlsStream::Client(_) => None,
            },
            Self::Layered(layer) => layer.below().server_name(),
            Self::Datagrams(_) | Self::Quic(_) => None,
        }
    }

    /// Returns the certificate of a visitor, which an authority of `clientCA` has signed; `None` without
    /// one.
    #[cfg(feature = "server")]
    pub fn client_certificate(&self) -> Option<super::tls::ClientCertificate> {
        match self {
            Self::Plain(_) | Self::Datagrams(_) | Self::Quic(_) => None,
            Self::Tls(tls) => super::tls::client_certificate(&lock(tls)),
            Self::Layered(layer) => layer.below().client_certificate(),
        }
    }

    /// Waits for bytes and reads them, see [`Conn::poll_read`].
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes and flushes all of `buf`.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let n = std::future::poll_fn(|cx| self.poll_write(cx, buf)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buf = buf.get(n..).unwrap_or_default();
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends the end of the stream, then reads until the peer has ended too, for at most `patience`
    /// and 256 KiB. A close with unread bytes would reset the connection and could discard bytes
    /// that the peer has not read yet.
    pub async fn linger(&self, patience: std::time::Duration) {
        self.linger_for(patience, 256 * 1024).await;
    }

    /// Does what [`Conn::linger`] does, but reads at most `most` bytes.
    pub async fn linger_for(&self, patience: std::time::Duration, most: usize) {
        let goodbye = async {
            std::future::poll_fn(|cx| self.poll_shutdown(cx)).await?;
            let mut left = most;
            let mut reads = 0u32;
            while left > 0 {
                reads = reads.wrapping_add(1);
                if reads.is_multiple_of(MAX_READS_IN_A_ROW) {
                    // A peer that floods must not keep other tasks and timers from running.
                    future::yield_now().await;
                }
                let read = |cx: &mut Context<'_>| with_read_buf(|buf| self.poll_read(cx, buf));
                match std::future::poll_fn(read).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            io::Result::Ok(())
        };
        // The peer gets what it takes in time; errors have no receiver any more.
        let _ = timeout(patience, goodbye).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::Arc;
    use std::time::Duration;

    /// A peer that always has something to read and takes all that is written, up to its end.
    #[derive(Debug, Clone)]
    pub struct Flood {
        below: Arc<Conn>,
        reads: Arc<AtomicU32>,
        most: u32,
    }

    impl Flood {
        /// Creates a peer that ends after `most` reads.
        pub fn new(most: u32) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = Socket::adopt(stream.into()).unwrap();
            Self {
                below: Arc::new(Conn::from(socket)),
                reads: Arc::default(),
                most,
            }
        }

        /// Returns a connection that reads the flood.
        pub fn conn(&self) -> Conn {
            let layer: Box<dyn ConnLayer> = Box::new(self.clone());
            Conn::from(layer)
        }

        /// Returns how often it was read, its end included.
        pub fn reads(&self) -> u32 {
            self.reads.load(Ordering::Relaxed)
        }
    }

    /// A waker that counts.
    #[cfg(any(feature = "server", feature = "p2p"))]
    #[derive(Debug, Default)]
    pub struct WakeCount(std::sync::atomic::AtomicUsize);

    #[cfg(any(feature = "server", feature = "p2p"))]
    impl WakeCount {
        /// Returns how often it was woken.
        pub fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[cfg(any(feature = "server", feature = "p2p"))]
    impl std::task::Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl ConnLayer for Flood {
        fn below(&self) -> &Conn {
            &self.below
        }

        fn poll_read(&self, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let before = self.reads.fetch_add(1, Ordering::Relaxed);
            let n = if before < self.most { buf.len() } else { 0 };
            Poll::Ready(Ok(n))
        }

        fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_write(&self, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn holds_back(&self) -> bool {
            false
        }

        fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_flood_during_linger_does_not_starve_other_tasks_or_the_timer() {
        async_std::task::block_on(async {
            let flood = Flood::new(100);
            let conn = flood.conn();
            let mut lingering = pin!(conn.linger_for(Duration::from_secs(600), usize::MAX));
            loop {
                let before = flood.reads();
                let over = future::poll_once(&mut lingering).await.is_some();
                let in_a_row = flood.reads() - before;
                assert!(in_a_row <= MAX_READS_IN_A_ROW, "{in_a_row} reads");
                if over {
                    break;
                }
            }
            assert_eq!(flood.reads(), 101, "up to its end");

            let flood = Flood::new(1_000_000);
            flood.conn().linger_for(Duration::ZERO, usize::MAX).await;
            assert!(
                flood.reads() <= MAX_READS_IN_A_ROW,
                "{} reads",
                flood.reads()
            );
        });
    }
}
