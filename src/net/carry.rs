//! Moving of bytes between two connections. For a connection and a stream, see `tunnel::Relay`.

use super::{timeout, with_read_buf, Conn, Shutdown};
use crate::net::Timer;
use futures_lite::future;
use std::future::{poll_fn, Future};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Maximum bytes moved at a time.
const MAX_READ: usize = 16 * 1024;
/// Pieces moved in a row before other tasks run.
pub(super) const MAX_PIECES_IN_A_ROW: u32 = 4;
/// An end that takes nothing for this long is cut.
const STUCK_TIMEOUT: Duration = Duration::from_secs(90);

/// Moves bytes between two connections in both directions until both have ended. When one fails,
/// the other is cut. When one direction has ended, the other may pause for at most
/// `half_close_timeout`.
pub async fn carry(one: &Conn, other: &Conn, half_close_timeout: Duration) {
    carry_with(one, other, || Timer::after(half_close_timeout)).await;
}

/// Does what [`carry`] does, with any future as the pause: when one direction has ended, the other
/// is cut if it brings nothing during one `pause`.
pub(super) async fn carry_with<P: Future>(one: &Conn, other: &Conn, pause: impl Fn() -> P) {
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
    if future::or(carrying, leaving).await.is_err() {
        one.reset_on_close();
        other.reset_on_close();
    }
}

async fn carry_one_way(from: &Conn, to: &Conn, moved: &AtomicU32) -> io::Result<()> {
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
        let writing = to.write_all(&piece);
        let written = timeout(STUCK_TIMEOUT, writing).await;
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
