//! The end that dials a private service of another client.

use super::exchange::{self, ProofError};
use super::proof::{Carried, ChannelBinding};
use crate::client::p2p::ChannelConn;
use crate::config::Secret;
use crate::net::tls::peer::RefusedHandshake;
use crate::net::{tls, Conn, ConnLayer};
use crate::sync::{Mutex, MutexGuard};
use futures_lite::{AsyncRead, AsyncWrite};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

/// Proves the key over the channel of a peer, which is encrypted already.
pub async fn over_peer(
    channel: &mut ChannelConn,
    key: &Secret,
    carried: Carried,
) -> Result<(), ProofError> {
    let binding = channel.binding().ok_or(ProofError::Refused)?;
    exchange::dial(channel, key, carried, &binding).await
}

/// Encrypts a relayed connection from end to end, and proves the key. `come` are bytes of it that were read already.
pub async fn over_relay(
    conn: Conn,
    come: Vec<u8>,
    key: &Secret,
    carried: Carried,
) -> Result<Conn, ProofError> {
    let conn = Arc::new(conn);
    let relayed = RelayedBytes {
        conn: conn.clone(),
        come,
    };
    let dialled = Box::pin(tls::peer::dial(relayed)).await;
    let (mut tls, exported) = dialled.map_err(|e| match tls::peer::refused(&e) {
        Some(RefusedHandshake::AccessDenied) => ProofError::LockedOut(None),
        Some(RefusedHandshake::InternalError) => ProofError::TooMany,
        None => e.into(),
    })?;
    let binding = ChannelBinding::of_session(exported);
    exchange::dial(&mut tls, key, carried, &binding).await?;
    let layer: Box<dyn ConnLayer> = Box::new(PrivateConn {
        below: conn,
        tls: Mutex::new(tls),
    });
    Ok(layer.into())
}

/// The bytes of a relayed connection, for TLS.
struct RelayedBytes {
    conn: Arc<Conn>,
    come: Vec<u8>,
}

impl AsyncRead for RelayedBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.come.is_empty() {
            return self.conn.poll_read(cx, buf);
        }
        let n = self.come.len().min(buf.len());
        if let Some(to) = buf.get_mut(..n) {
            let taken: Vec<u8> = self.come.drain(..n).collect();
            to.copy_from_slice(&taken);
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for RelayedBytes {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.conn.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.conn.poll_flush(cx))?;
        self.conn.poll_shutdown(cx)
    }
}

/// A relayed connection to a private service. Both directions share the session, whose lock is held only while one
/// of them is polled.
struct PrivateConn {
    below: Arc<Conn>,
    tls: Mutex<tls::peer::Dialled<RelayedBytes>>,
}

impl PrivateConn {
    fn lock(&self) -> MutexGuard<'_, tls::peer::Dialled<RelayedBytes>> {
        self.tls.lock()
    }
}

impl fmt::Debug for PrivateConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Private")
            .field("below", &self.below)
            .finish_non_exhaustive()
    }
}

impl ConnLayer for PrivateConn {
    fn below(&self) -> &Conn {
        &self.below
    }

    /// An end without TLS's own is an error: whatever relays the connection could cut it anywhere.
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }

    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It cannot know before it has read.
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn holds_back(&self) -> bool {
        self.lock().get_ref().1.wants_write() || self.below.holds_back()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_close(cx)
    }
}
