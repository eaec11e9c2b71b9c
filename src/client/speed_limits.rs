//! The speed limits of a service (`speed`, `visitorSpeed`), as a layer of each connection to it.

use crate::config::ServiceConfig;
use crate::net::{Conn, ConnLayer, Throttle, TokenBucket};
use crate::sync::{Mutex, MutexGuard};
use futures_lite::{AsyncRead, AsyncWrite};
use smallvec::SmallVec;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

/// The limit that all connections to a service share, in each direction; `None` without one.
#[derive(Clone)]
pub struct SharedLimit(Option<[Arc<TokenBucket>; 2]>);

/// The limits of one visitor's connection.
pub struct SpeedLimits {
    /// From the visitor to the service.
    up: Throttles,
    /// From the service to the visitor.
    down: Throttles,
}

/// What one direction waits for: the service's bucket, and the visitor's.
struct Throttles(SmallVec<[Throttle; 2]>);

impl SharedLimit {
    /// Creates the limit of a service.
    pub fn new(service: &ServiceConfig) -> Self {
        let is_limited = service.speed > 0;
        Self(is_limited.then(|| buckets(service.speed)))
    }

    /// Returns the limits of a new connection to the service; `None` if there are none. What comes from
    /// the visitor is limited only if it has a window of its own (`has_window`): over GT/1, a visitor
    /// that has to wait would stop the others of its tunnel.
    pub fn of_visitor(&self, service: &ServiceConfig, has_window: bool) -> Option<SpeedLimits> {
        let own = (service.visitor_speed > 0).then(|| buckets(service.visitor_speed));
        if self.0.is_none() && own.is_none() {
            return None;
        }
        let mut limits = SpeedLimits {
            up: Throttles(SmallVec::new()),
            down: Throttles(SmallVec::new()),
        };
        for [up, down] in self.0.iter().chain(&own) {
            if has_window {
                limits.up.0.push(Throttle::new(up.clone()));
            }
            limits.down.0.push(Throttle::new(down.clone()));
        }
        Some(limits)
    }
}

/// Creates the buckets of both directions.
fn buckets(speed: u64) -> [Arc<TokenBucket>; 2] {
    [(); 2].map(|()| Arc::new(TokenBucket::new(speed)))
}

impl Throttles {
    /// Returns how many of `wanted` bytes may move now.
    fn poll_grant(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let mut granted = wanted;
        for throttle in &mut self.0 {
            granted = granted.min(ready!(throttle.poll_grant(cx, granted)));
        }
        Poll::Ready(granted)
    }

    fn take(&mut self, n: usize) {
        self.0.iter_mut().for_each(|throttle| throttle.take(n));
    }
}

/// A connection to a service whose speed is limited.
pub struct LimitedConn {
    conn: Conn,
    limits: Mutex<SpeedLimits>,
}

impl LimitedConn {
    /// Limits a connection, if there are limits.
    pub fn start(conn: Conn, limits: Option<SpeedLimits>) -> Conn {
        let Some(limits) = limits else { return conn };
        let limits = Mutex::new(limits);
        let layer: Box<dyn ConnLayer> = Box::new(Self { conn, limits });
        Conn::from(layer)
    }

    fn lock(&self) -> MutexGuard<'_, SpeedLimits> {
        self.limits.lock()
    }
}

impl fmt::Debug for LimitedConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedConn")
            .field("conn", &self.conn)
            .finish_non_exhaustive()
    }
}

impl ConnLayer for LimitedConn {
    fn below(&self) -> &Conn {
        &self.conn
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut limits = self.lock();
        let granted = ready!(limits.down.poll_grant(cx, buf.len()));
        let n = ready!(self
            .conn
            .poll_read(cx, buf.get_mut(..granted).unwrap_or_default()))?;
        limits.down.take(n);
        Poll::Ready(Ok(n))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.lock().down.poll_grant(cx, 1));
        self.conn.poll_readable(cx)
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return self.conn.poll_write(cx, buf);
        }
        let mut limits = self.lock();
        let granted = ready!(limits.up.poll_grant(cx, buf.len()));
        let n = ready!(self
            .conn
            .poll_write(cx, buf.get(..granted).unwrap_or_default()))?;
        limits.up.take(n);
        Poll::Ready(Ok(n))
    }

    fn holds_back(&self) -> bool {
        self.conn.holds_back()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_flush(cx)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_shutdown(cx)
    }
}

/// A visitor of a service that gt itself provides, and the speed limits of the service.
pub struct LimitedVisitor<C> {
    visitor: C,
    limits: Option<SpeedLimits>,
}

impl<C> LimitedVisitor<C> {
    /// Limits a visitor's connection, if there are limits.
    pub fn new(visitor: C, limits: Option<SpeedLimits>) -> Self {
        Self { visitor, limits }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for LimitedVisitor<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { visitor, limits } = &mut *self;
        let Some(SpeedLimits { up, .. }) = limits else {
            return Pin::new(visitor).poll_read(cx, buf);
        };
        let granted = ready!(up.poll_grant(cx, buf.len()));
        let buf = buf.get_mut(..granted).unwrap_or_default();
        let n = ready!(Pin::new(visitor).poll_read(cx, buf))?;
        up.take(n);
        Poll::Ready(Ok(n))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for LimitedVisitor<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { visitor, limits } = &mut *self;
        let Some(SpeedLimits { down, .. }) = limits.as_mut().filter(|_| !buf.is_empty()) else {
            return Pin::new(visitor).poll_write(cx, buf);
        };
        let granted = ready!(down.poll_grant(cx, buf.len()));
        let buf = buf.get(..granted).unwrap_or_default();
        let n = ready!(Pin::new(visitor).poll_write(cx, buf))?;
        down.take(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.visitor).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.visitor).poll_close(cx)
    }
}
