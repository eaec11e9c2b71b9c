//! A TCP socket on the reactor that spends as few system calls as it can.
//!
//! Waiting for data by reading costs two reads that find nothing. So a read that came back
//! short is taken for what it says, that the socket is empty, and the next one first waits
//! to be told of more.

use async_io::Async;
use futures_lite::{AsyncRead, AsyncWrite};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{ready, Context, Poll};

/// What the kernel may gather before it sends.
const SEGMENT: u32 = 64 * 1024;

/// One reader and one writer may poll it at the same time, through a shared reference.
#[derive(Debug)]
pub struct Socket {
    io: Async<TcpStream>,
    /// The last read emptied the receive queue.
    drained: AtomicBool,
    /// Bytes that are written before it is asked again whether it takes more; 0 if it is not
    /// asked before it refuses some.
    burst: AtomicU32,
    /// Bytes of the present burst that have been written.
    written: AtomicU32,
}

impl Socket {
    pub fn new(io: Async<TcpStream>) -> Self {
        Self {
            io,
            drained: AtomicBool::new(false),
            burst: AtomicU32::new(0),
            written: AtomicU32::new(0),
        }
    }

    /// Reads what is there. 0 is the end of the stream.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            match self.io.get_ref().read(buf) {
                Ok(n) => {
                    self.drained.store(n < buf.len(), Ordering::Relaxed);
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.drained.store(true, Ordering::Relaxed);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Ready when a read is likely to find something.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.drained.load(Ordering::Relaxed) {
            ready!(self.io.poll_readable(cx))?;
            self.drained.store(false, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what fits now; `WouldBlock` if nothing does. Arms nothing.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        loop {
            match self.io.get_ref().write(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let burst = self.burst.load(Ordering::Relaxed);
        loop {
            let written = self.written.load(Ordering::Relaxed);
            let left = burst.saturating_sub(written) as usize;
            if burst > 0 && left == 0 {
                ready!(self.poll_writable(cx))?;
                continue;
            }
            let most = if burst > 0 { left } else { usize::MAX };
            match self.try_write(buf.get(..most).unwrap_or(buf)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_writable(cx))?;
                }
                Ok(n) => {
                    if burst > 0 {
                        // At most what was left.
                        self.written.store(written + n as u32, Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.io.poll_writable(cx))?;
        self.written.store(0, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Sends the end of the stream; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self.io.get_ref().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Makes the close that follows a reset, so that the peer sees that its stream was cut.
    pub fn reset_on_close(&self) {
        // A socket that is gone already needs no reset.
        let _ =
            socket2::SockRef::from(self.io.get_ref()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Keeps what has not been sent yet out of the kernel, but for about `bytes`: who decides
    /// what is sent next decides late. Where the system cannot, it stays as it is.
    ///
    /// The kernel's own limit lets it fill a segment of up to 64 KiB, so below that it is given
    /// `bytes` each time it says that it has room.
    pub fn limit_unsent(&self, bytes: u32) {
        let burst = if bytes < SEGMENT { bytes } else { 0 };
        self.burst.store(burst, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(self.io.get_ref()).set_tcp_notsent_lowat(bytes);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = bytes;
    }

    /// Whether the connection is known to be broken. It is known once.
    pub fn has_failed(&self) -> bool {
        !matches!(self.io.get_ref().take_error(), Ok(None))
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().peer_addr()
    }
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
