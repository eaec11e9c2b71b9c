//! A TCP socket of the runtime that makes few system calls.
//!
//! Waiting for data by reading costs two reads that find nothing. A short read therefore counts as
//! having emptied the socket, and the next read first waits for an event. The same applies to short
//! writes.

#[cfg(feature = "client")]
use super::congestion;
#[cfg(feature = "server")]
use super::kernel::AsFd;
#[cfg(any(feature = "server", test))]
use super::kernel::OwnedFd;
use super::kernel::{self, TcpStream};
use super::runtime::{Interest, PollSource, Readiness, ShardId};
use super::Delivery;
use futures_lite::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// A TCP socket. One reader and one writer may poll it at the same time through a shared reference.
#[derive(Debug)]
pub struct Socket {
    source: PollSource<TcpStream>,
    /// Bytes written before the kernel is asked for room; 0 to write until it refuses some.
    burst: AtomicU32,
    /// Bytes of the current burst that have been written.
    written: AtomicU32,
}

/// Bytes that the kernel may gather in one segment, below its own limit for unsent bytes.
const SEGMENT: u32 = 64 * 1024;

fn left(done: usize, of: usize) -> Readiness {
    if done < of {
        Readiness::Nothing
    } else {
        Readiness::More
    }
}

impl Socket {
    fn with(source: PollSource<TcpStream>) -> Self {
        Self {
            source,
            burst: AtomicU32::new(0),
            written: AtomicU32::new(0),
        }
    }

    /// Wraps a connected, non-blocking socket. `sent`: the peer has likely sent bytes.
    pub fn new(stream: TcpStream, sent: bool) -> io::Result<Self> {
        let ready = [Interest::Write, Interest::Read];
        let ready = ready.get(..1 + usize::from(sent)).unwrap_or_default();
        PollSource::new(stream, ready).map(Self::with)
    }

    /// Wraps a socket that is being connected, and waits until it is connected.
    pub async fn connecting(stream: TcpStream) -> io::Result<Self> {
        let source = PollSource::new(stream, &[])?;
        std::future::poll_fn(|cx| source.poll_ready(Interest::Write, cx)).await?;
        match source.get_ref().take_error()? {
            Some(e) => Err(e),
            None => Ok(Self::with(source)),
        }
    }

    /// Adopts a connected socket of another process.
    #[cfg(any(feature = "server", test))]
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        Self::new(stream, true)
    }

    /// See [`Conn::move_to`](super::Conn::move_to).
    pub fn move_to(&self, thread: ShardId) -> io::Result<()> {
        self.source.move_to(thread)
    }

    /// Duplicates the socket for another process. This one must not be used any more; dropping it
    /// keeps the connection open.
    #[cfg(feature = "server")]
    pub fn give_away(&self) -> io::Result<OwnedFd> {
        self.source.withdraw();
        self.source.get_ref().as_fd().try_clone_to_owned()
    }

    /// Reads available bytes. 0 is the end of the stream.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            let read = self.source.try_io(Interest::Read, |mut stream| {
                stream.read(buf).map(|n| (n, left(n, buf.len())))
            });
            match read {
                Err(e) if is_passing(&e) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready when a read is likely to find something.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.poll_ready(Interest::Read, cx)
    }

    /// Ready when `is_enough` accepts the received bytes, which stay in the socket. Tries again
    /// when more bytes or the end come.
    #[cfg(any(feature = "server", feature = "web"))]
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        is_enough: &mut impl FnMut(&[u8]) -> bool,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_readable(cx))?;
            let peeked = self.source.try_io(Interest::Read, |stream| {
                let n = stream.peek(buf)?;
                let enough = is_enough(buf.get(..n).unwrap_or_default());
                Ok((
                    enough,
                    if enough {
                        Readiness::More
                    } else {
                        Readiness::Nothing
                    },
                ))
            });
            match peeked {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(e) if is_passing(&e) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Writes as many bytes as fit now; `WouldBlock` if none do. Registers no waker.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        loop {
            let written = self.source.try_io(Interest::Write, |mut stream| {
                stream.write(buf).map(|n| (n, left(n, buf.len())))
            });
            match written {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes consecutive pieces like [`Socket::try_write`]. If the end of the stream follows at
    /// once (`last`), the system may wait for it and send both in one packet.
    pub fn try_write_pieces(&self, pieces: &[IoSlice<'_>], last: bool) -> io::Result<usize> {
        let all = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            let written = self.source.try_io(Interest::Write, |mut stream| {
                let written = match last {
                    true => kernel::write_and_hold(stream, pieces),
                    false => stream.write_vectored(pieces),
                };
                written.map(|n| (n, left(n, all)))
            });
            match written {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes as many bytes as fit now; waits if none do.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let burst = self.burst.load(Ordering::Relaxed);
        loop {
            let written = self.written.load(Ordering::Relaxed);
            let left = usize::try_from(burst.saturating_sub(written)).unwrap_or(usize::MAX);
            let result = match burst {
                0 => self.try_write(buf),
                _ if left == 0 => match self.ask_for_room() {
                    Ok(()) => continue,
                    Err(e) => Err(e),
                },
                _ => self.try_write(buf.get(..left).unwrap_or(buf)),
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.source.poll_ready(Interest::Write, cx))?;
                }
                Ok(n) if burst > 0 => {
                    // At most the rest of the burst.
                    self.written.store(written + n as u32, Ordering::Relaxed);
                    return Poll::Ready(Ok(n));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Asks whether the kernel has room for another burst. If not, an event will follow.
    fn ask_for_room(&self) -> io::Result<()> {
        self.source.try_io(Interest::Write, |stream| {
            if !kernel::has_room(stream)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.written.store(0, Ordering::Relaxed);
            Ok(((), Readiness::More))
        })
    }

    /// Sends the end of the stream; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self.source.get_ref().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Turns the coming close into a reset, so that the peer sees that its stream was cut.
    pub fn reset_on_close(&self) {
        kernel::set_linger(self.source.get_ref(), Some(Duration::ZERO));
    }

    /// Undoes [`Socket::reset_on_close`].
    pub fn end_on_close(&self) {
        kernel::set_linger(self.source.get_ref(), None);
    }

    /// Limits the unsent bytes in the kernel to about `bytes`, so that bytes written later wait for
    /// few others. Has no effect on systems other than Linux.
    ///
    /// The kernel's own limit lets it fill a segment of up to 64 KiB, so below that it is given
    /// `bytes` each time it reports room.
    pub fn limit_unsent(&self, bytes: u32) {
        let burst = if bytes < SEGMENT { bytes } else { 0 };
        self.burst.store(burst, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        kernel::limit_unsent(self.source.get_ref(), bytes);
    }

    /// Whether the connection has failed. True once for each failure.
    pub fn has_failed(&self) -> bool {
        !matches!(self.source.get_ref().take_error(), Ok(None))
    }

    /// Returns this end's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.get_ref().local_addr()
    }

    /// Returns the peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.get_ref().peer_addr()
    }

    /// Returns what the kernel knows of the delivery of written bytes, where it can be asked.
    pub fn delivery(&self) -> Option<Delivery> {
        kernel::delivery(self.source.get_ref())
    }

    /// Lets the connection use the congestion control BBR where the kernel has it.
    #[cfg(feature = "client")]
    pub fn use_bbr(&self) {
        congestion::use_bbr(self.source.get_ref());
    }

    /// Returns the congestion control of the connection, where the kernel can be asked.
    #[cfg(feature = "server")]
    pub fn congestion(&self) -> Option<String> {
        kernel::congestion(self.source.get_ref())
    }

    /// Sets whether the kernel probes an idle peer every second (`often`) or at the usual interval.
    pub fn probe(&self, often: bool) {
        kernel::probe(self.source.get_ref(), often);
    }
}

/// Whether the call found nothing or was interrupted by a signal.
fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Socket::poll_read(&self, cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Socket::poll_write(&self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}
