//! The end with a private service: checks what peers prove, and carries the connections that the server relays.

use super::exchange::{self, ProofError};
use super::lockout::{PeerRefusal, PeerUse};
use super::proof::{Carried, ChannelBinding};
use crate::client::p2p::ChannelConn;
use crate::client::services::Services;
use crate::client::visitor_conn::VisitorConn;
use crate::net::{self, timeout, tls, CarriedEnd, Conn};
use crate::sync::Mutex;
use crate::tunnel::Stream;
use crate::wire::frame::{ResetCode, ServiceIndex};
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Time that the handshake of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that one direction may pause when the other has ended.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(600);

/// The stream of a relayed connection to a private service, encrypted from end to end.
pub struct PrivateStream(tls::peer::Accepted<Stream>);

/// Finds the private service whose key the peer at the other end of a channel proves, and returns what `admit` makes of
/// it, or refuses the peer.
pub async fn serve_peer<A>(
    channel: &mut ChannelConn,
    services: &Services,
    carried: Carried,
    admit: impl FnOnce(ServiceIndex) -> Option<A>,
) -> Result<(A, PeerUse), ProofError> {
    let binding = channel.binding().ok_or(ProofError::Refused)?;
    let peer = match PeerUse::acquire(channel.peer().map(|addr| addr.ip())) {
        Ok(peer) => peer,
        Err(refusal) => {
            exchange::refuse_unheard(channel, refusal).await;
            return Err(ProofError::Refused);
        }
    };
    let keys = services.private(carried);
    match exchange::serve(channel, keys, carried, &binding, admit).await {
        Ok(admitted) => Ok((admitted, peer)),
        Err(e) => {
            if matches!(e, ProofError::Wrong) {
                peer.failed();
            }
            Err(e)
        }
    }
}

/// Encrypts the stream of a relayed connection from end to end, and finds the private service whose key the other
/// end proves. Returns what `admit` makes of it, or refuses the other end. `visitor` is where the connection comes
/// from, as the server tells.
pub async fn serve_relay<A>(
    mut stream: Stream,
    services: &Services,
    carried: Carried,
    visitor: Option<IpAddr>,
    admit: impl FnOnce(ServiceIndex) -> Option<A>,
) -> Result<(PrivateStream, A, PeerUse), ProofError> {
    let peer = match PeerUse::acquire(visitor) {
        Ok(peer) => peer,
        Err(refusal) => {
            let alert = match refusal {
                PeerRefusal::LockedOut(_) => tls::peer::ACCESS_DENIED,
                PeerRefusal::TooMany => tls::peer::INTERNAL_ERROR,
            };
            // No handshake, which costs, for an end that is not heard.
            stream.write_all(&alert).await?;
            stream.close().await?;
            return Err(ProofError::Refused);
        }
    };
    let accepting = timeout(HANDSHAKE_TIMEOUT, tls::peer::accept(stream)).await;
    let (mut tls, exported) = accepting.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    let binding = ChannelBinding::of_session(exported);
    let keys = services.private(carried);
    match exchange::serve(&mut tls, keys, carried, &binding, admit).await {
        Ok(admitted) => Ok((PrivateStream(tls), admitted, peer)),
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
pub async fn carry(stream: PrivateStream, conn: &Conn) {
    let stream = SharedStream(Mutex::new(stream));
    net::carry(&stream, conn, HALF_CLOSE_TIMEOUT).await;
}

/// A private stream that both directions of a relay use.
struct SharedStream(Mutex<PrivateStream>);

impl CarriedEnd for SharedStream {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, buf)
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_close(cx)
    }

    fn reset_on_close(&self) {
        // The other end misses the end of TLS.
        self.0.lock().0.get_mut().0.fail(ResetCode::Aborted);
    }
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
