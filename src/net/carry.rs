//! Moving of bytes between two connections. For a connection and a stream, see `tunnel::Relay`.

use super::{timeout, with_read_buf, Conn, Shutdown};
use crate::net::Timer;
use futures_lite::future;
use std::future::{poll_fn, Future};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Maximum bytes moved at a time.
const MAX_READ: usize = 16 * 1024;
/// Pieces moved in a row before other tasks run.
pub(super) const MAX_PIECES_IN_A_ROW: u32 = 4;
/// An end that takes nothing for this long is cut.
const STUCK_TIMEOUT: Duration = Duration::from_secs(90);

/// An end of a relay. Its methods are those of [`Conn`].
pub trait CarriedEnd: Sync {
    /// See [`Conn::poll_read`].
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// See [`Conn::poll_write`].
    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;

    /// See [`Conn::poll_flush`].
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// See [`Conn::poll_shutdown`].
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// See [`Conn::reset_on_close`].
    fn reset_on_close(&self);
}

impl CarriedEnd for Conn {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read(cx, buf)
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, buf)
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown(cx)
    }

    fn reset_on_close(&self) {
        self.reset_on_close();
    }
}

/// Cuts both ends of a relay that is dropped before both directions have ended.
struct CutOnDrop<'a>(Option<[&'a dyn CarriedEnd; 2]>);

impl Drop for CutOnDrop<'_> {
    fn drop(&mut self) {
        for end in self.0.into_iter().flatten() {
            end.reset_on_close();
        }
    }
}

/// Moves bytes between two connections in both directions until both have ended. When one fails, or the task is
/// dropped, both are cut. When one direction has ended, the other may pause for at most `half_close_timeout`.
pub async fn carry(one: &dyn CarriedEnd, other: &dyn CarriedEnd, half_close_timeout: Duration) {
    let carried = carry_with(one, other, || Timer::after(half_close_timeout)).await;
    if let Err(e) = carried {
        log::debug!("a relay has been cut: {e}");
    }
}

/// Does what [`carry`] does, with any future as the pause: when one direction has ended, the other
/// is cut if it brings nothing during one `pause`.
pub(super) async fn carry_with<P: Future>(
    one: &dyn CarriedEnd,
    other: &dyn CarriedEnd,
    pause: impl Fn() -> P,
) -> io::Result<()> {
    let mut cut = CutOnDrop(Some([one, other]));
    let one_way_over = Shutdown::default();
    // Pieces that have moved; may wrap.
    let moved = AtomicU32::new(0);
    let carry_one_way = |from, to| {
        let (over, moved) = (&one_way_over, &moved);
        async move {
            carry_one_way(from, to, moved).await?;
            over.trigger();
            io::Result::Ok(())
        }
    };
    let both = future::try_zip(carry_one_way(one, other), carry_one_way(other, one));
    let carrying = async { both.await.map(drop) };
    let leaving = async {
        one_way_over.wait().await;
        loop {
            let before = moved.load(Ordering::Relaxed);
            pause().await;
            if moved.load(Ordering::Relaxed) == before {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    future::or(carrying, leaving).await?;
    cut.0 = None;
    Ok(())
}

async fn carry_one_way(
    from: &dyn CarriedEnd,
    to: &dyn CarriedEnd,
    moved: &AtomicU32,
) -> io::Result<()> {
    loop {
        // A connection that waits for bytes has no buffer.
        let reading = poll_fn(|cx| {
            with_read_buf(|buf| {
                let buf = buf.get_mut(..MAX_READ).unwrap_or_default();
                let read = from.poll_read(cx, buf);
                read.map_ok(|n| buf.get(..n).unwrap_or_default().to_vec())
            })
        });
        let piece = reading.await?;
        if piece.is_empty() {
            return poll_fn(|cx| to.poll_shutdown(cx)).await;
        }
        let written = timeout(STUCK_TIMEOUT, write_all(to, &piece)).await;
        written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        if moved
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(MAX_PIECES_IN_A_ROW)
        {
            // Ends that are always ready must not keep other tasks from running.
            future::yield_now().await;
        }
    }
}

/// See [`Conn::write_all`].
async fn write_all(to: &dyn CarriedEnd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| to.poll_write(cx, bytes)).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(n..).unwrap_or_default();
    }
    poll_fn(|cx| to.poll_flush(cx)).await
}
