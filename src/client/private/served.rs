//! The end with a private service: checks what peers prove, and carries the connections that the server relays.

use super::exchange::{self, ProofError};
use super::lockout::{PeerRefusal, PeerUse};
use super::proof::{Carried, ChannelBinding};
use crate::client::p2p::ChannelConn;
use crate::client::services::Services;
use crate::client::visitor_conn::VisitorConn;
use crate::net::{timeout, tls, with_read_buf, Conn, Timer};
use crate::tunnel::Stream;
use crate::wire::frame::ServiceIndex;
use futures_lite::{future, io::split, AsyncRead, AsyncWrite, AsyncWriteExt};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Time that the handshake of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes moved at a time.
const MAX_READ: usize = 16 * 1024;
/// Time that one direction may pause when the other has ended.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(600);

/// The stream of a relayed connection to a private service, encrypted from end to end.
pub struct PrivateStream(tls::peer::Accepted<Stream>);

/// Finds the private service whose key the peer at the other end of a channel proves.
pub async fn serve_peer(
    channel: &mut ChannelConn,
    services: &Services,
    carried: Carried,
) -> Result<(ServiceIndex, PeerUse), ProofError> {
    let binding = channel.binding().ok_or(ProofError::Refused)?;
    let peer = match PeerUse::acquire(channel.peer().map(|addr| addr.ip())) {
        Ok(peer) => peer,
        Err(refusal) => {
            if let PeerRefusal::LockedOut(left) = refusal {
                exchange::refuse_locked_out(channel, left).await;
            }
            return Err(ProofError::Refused);
        }
    };
    match exchange::serve(channel, services.private(carried), carried, &binding).await {
        Ok(index) => Ok((index, peer)),
        Err(e) => {
            if matches!(e, ProofError::Wrong) {
                peer.failed();
            }
            Err(e)
        }
    }
}

/// Encrypts the stream of a relayed connection from end to end, and finds the private service whose key the other
/// end proves. `visitor` is where the connection comes from, as the server tells.
pub async fn serve_relay(
    mut stream: Stream,
    services: &Services,
    carried: Carried,
    visitor: Option<IpAddr>,
) -> Result<(PrivateStream, ServiceIndex, PeerUse), ProofError> {
    let peer = match PeerUse::acquire(visitor) {
        Ok(peer) => peer,
        Err(refusal) => {
            if let PeerRefusal::LockedOut(_) = refusal {
                // No handshake, which costs, for an end that is not heard.
                stream.write_all(&tls::peer::ACCESS_DENIED).await?;
                stream.close().await?;
            }
            return Err(ProofError::Refused);
        }
    };
    let accepting = timeout(HANDSHAKE_TIMEOUT, tls::peer::accept(stream)).await;
    let (mut tls, exported) = accepting.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    let binding = ChannelBinding::of_session(exported);
    match exchange::serve(&mut tls, services.private(carried), carried, &binding).await {
        Ok(index) => Ok((PrivateStream(tls), index, peer)),
        Err(e) => {
            if matches!(e, ProofError::Wrong) {
                peer.failed();
            }
            Err(e)
        }
    }
}

/// Moves bytes between a relayed connection and one to its service until both directions have ended. A failure cuts
/// both.
pub async fn carry(stream: PrivateStream, conn: &Conn) -> io::Result<()> {
    let (mut reader, mut writer) = split(stream);
    let there = async {
        loop {
            let piece = read_piece(|cx, buf| Pin::new(&mut reader).poll_read(cx, buf)).await?;
            if piece.is_empty() {
                return poll_fn(|cx| conn.poll_shutdown(cx)).await;
            }
            conn.write_all(&piece).await?;
            future::yield_now().await;
        }
    };
    let back = async {
        loop {
            let piece = read_piece(|cx, buf| conn.poll_read(cx, buf)).await?;
            if piece.is_empty() {
                return writer.close().await;
            }
            writer.write_all(&piece).await?;
            writer.flush().await?;
            future::yield_now().await;
        }
    };
    let carried = both(there, back).await;
    if carried.is_err() {
        conn.reset_on_close();
    }
    carried
}

/// Waits for both directions. When one has ended, the other may go on for a while.
async fn both(
    there: impl std::future::Future<Output = io::Result<()>>,
    back: impl std::future::Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut there = std::pin::pin!(there);
    let mut back = std::pin::pin!(back);
    let first = poll_fn(|cx| {
        if let Poll::Ready(result) = there.as_mut().poll(cx) {
            return Poll::Ready((true, result));
        }
        back.as_mut().poll(cx).map(|result| (false, result))
    });
    let (is_there, result) = first.await;
    result?;
    let rest = async {
        match is_there {
            true => back.await,
            false => there.await,
        }
    };
    let late = async {
        Timer::after(HALF_CLOSE_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future::or(rest, late).await
}

/// Reads some bytes; none at the end. Waiting takes no buffer.
async fn read_piece(
    mut poll_read: impl FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        with_read_buf(|buf| {
            let buf = buf.get_mut(..MAX_READ).unwrap_or_default();
            let read = poll_read(cx, buf);
            read.map_ok(|n| buf.get(..n).unwrap_or_default().to_vec())
        })
    })
    .await
}

impl AsyncRead for PrivateStream {
    /// An end without TLS's own is an error: the server could cut the connection anywhere.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PrivateStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

impl VisitorConn for PrivateStream {
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_ref().0.poll_over(cx)
    }

    fn set_idle_limit(&self, limit: Option<Duration>) {
        self.0.get_ref().0.limit_idle(limit, false);
    }
}
