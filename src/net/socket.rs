//! A TCP socket on the reactor that spends as few system calls as it can.
//!
//! Waiting for data by reading costs two reads that find nothing. So a read that came back
//! short is taken for what it says, that the socket is empty, and the next one first waits
//! to be told of more. The same goes for writes that did not fit.

use super::reactor::{Left, Source, Way};
use futures_lite::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{ready, Context, Poll};

/// One reader and one writer may poll it at the same time, through a shared reference.
#[derive(Debug)]
pub struct Socket(Source<TcpStream>);

fn left(done: usize, of: usize) -> Left {
    if done < of {
        Left::Nothing
    } else {
        Left::More
    }
}

impl Socket {
    /// A connected socket that does not block, and that has likely been `sent` something.
    pub fn new(stream: TcpStream, sent: bool) -> io::Result<Self> {
        let ready = [Way::Write, Way::Read];
        let ready = ready.get(..1 + usize::from(sent)).unwrap_or_default();
        Source::new(stream, ready).map(Self)
    }

    /// The same for one that is to be connected, once it is.
    pub async fn connecting(stream: TcpStream) -> io::Result<Self> {
        let source = Source::new(stream, &[])?;
        std::future::poll_fn(|cx| source.poll_ready(Way::Write, cx)).await?;
        match source.get_ref().take_error()? {
            Some(e) => Err(e),
            None => Ok(Self(source)),
        }
    }

    /// Reads what is there. 0 is the end of the stream.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            let read = self.0.attempt(Way::Read, |mut stream| {
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
        self.0.poll_ready(Way::Read, cx)
    }

    /// Writes what fits now; `WouldBlock` if nothing does. Arms nothing.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        loop {
            let written = self.0.attempt(Way::Write, |mut stream| {
                stream.write(buf).map(|n| (n, left(n, buf.len())))
            });
            match written {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// The same for pieces that follow each other.
    pub fn try_write_pieces(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            let written = self.0.attempt(Way::Write, |mut stream| {
                stream.write_vectored(pieces).map(|n| (n, left(n, all)))
            });
            match written {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.poll_ready(Way::Write, cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sends the end of the stream; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self.0.get_ref().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Makes the close that follows a reset, so that the peer sees that its stream was cut.
    pub fn reset_on_close(&self) {
        // A socket that is gone already needs no reset.
        let _ =
            socket2::SockRef::from(self.0.get_ref()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Keeps what has not been sent yet out of the kernel, but for `bytes`: who decides what
    /// is sent next decides late. Where the system cannot, it stays as it is.
    pub fn limit_unsent(&self, bytes: u32) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(self.0.get_ref()).set_tcp_notsent_lowat(bytes);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = bytes;
    }

    /// Whether the connection is known to be broken. It is known once.
    pub fn has_failed(&self) -> bool {
        !matches!(self.0.get_ref().take_error(), Ok(None))
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().peer_addr()
    }
}

/// Nothing was there, or a signal came between.
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
