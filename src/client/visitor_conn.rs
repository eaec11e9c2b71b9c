//! What a visitor of a service that gt itself provides has come by.

use crate::tunnel::Stream;
use futures_lite::{AsyncRead, AsyncWrite};
use std::task::{Context, Poll};
use std::time::Duration;

/// The connection of a visitor: a stream, or the data channel of a peer.
pub trait VisitorConn: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ready when nothing can be sent to the visitor any more.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends the connection when nothing has moved in it for `limit`; `None` for never.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    fn set_idle_limit(&self, limit: Option<Duration>);
}

impl VisitorConn for Stream {
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_over(cx)
    }

    fn set_idle_limit(&self, limit: Option<Duration>) {
        self.limit_idle(limit, false);
    }
}
