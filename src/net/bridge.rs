//! A TCP connection within this machine. One end can be given to another process; the other end
//! relays a connection whose state cannot be passed on, such as TLS.

use super::{timeout, Conn, Shutdown, Socket};
use async_io::Timer;
use futures_lite::future;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Maximum bytes moved at a time.
const MAX_READ: usize = 16 * 1024;
/// Pieces moved in a row before other tasks run.
const MAX_PIECES_IN_A_ROW: u32 = 4;
/// An end that takes nothing for this long is cut.
const STUCK_TIMEOUT: Duration = Duration::from_secs(90);
/// How long one direction may pause when the other has ended.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Creates a connection and returns both ends.
pub fn bridge() -> io::Result<(Conn, OwnedFd)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, peer) = listener.accept()?;
    if peer != near.local_addr()? {
        // Another program connected first.
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((Conn::from(Socket::adopt(near.into())?), far.into()))
}

/// Moves bytes between the two connections in both directions until both have ended. When one
/// fails, so does the other.
pub async fn carry(one: &Conn, other: &Conn) {
    carry_with(one, other, || Timer::after(HALF_CLOSE_TIMEOUT)).await;
}

/// [`carry`] with a settable pause: when one direction has ended, the other is cut if it brings
/// nothing during one `pause`.
async fn carry_with<P: Future>(one: &Conn, other: &Conn, pause: impl Fn() -> P) {
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
    let mut piece = vec![0; MAX_READ];
    loop {
        let n = from.read(&mut piece).await?;
        if n == 0 {
            return std::future::poll_fn(|cx| to.poll_shutdown(cx)).await;
        }
        let writing = to.write_all(piece.get(..n).unwrap_or_default());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::conn::tests::Flood;
    use async_std::channel;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::pin::pin;

    #[test]
    fn a_bridge_passes_bytes_ends_and_failures_both_ways() {
        async_std::task::block_on(async {
            let (near, far) = bridge().unwrap();
            let (conn, visitor) = bridge().unwrap();
            let carrying = async_std::task::spawn(async move { carry(&conn, &near).await });
            let (mut far, mut visitor) = (TcpStream::from(far), TcpStream::from(visitor));
            let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
            let expected = sent.clone();
            let asking = async_std::task::spawn_blocking(move || {
                visitor.write_all(&sent).unwrap();
                visitor.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                visitor.read_to_end(&mut answer).unwrap();
                answer
            });
            async_std::task::spawn_blocking(move || {
                let mut request = Vec::new();
                far.read_to_end(&mut request).unwrap();
                assert!(request == expected);
                far.write_all(b"fine").unwrap();
            })
            .await;
            assert_eq!(asking.await, b"fine");
            carrying.await;

            let (near, far) = bridge().unwrap();
            let (conn, visitor) = bridge().unwrap();
            let carrying = async_std::task::spawn(async move { carry(&conn, &near).await });
            Conn::from(Socket::adopt(far).unwrap()).reset_on_close();
            carrying.await;
            let cut = TcpStream::from(visitor).read(&mut [0]).unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn a_half_closed_bridge_is_reset_when_the_other_direction_pauses() {
        async_std::task::block_on(async {
            let (near, far) = bridge().unwrap();
            let (conn, visitor) = bridge().unwrap();
            let [far, visitor] = [far, visitor].map(|end| Conn::from(Socket::adopt(end).unwrap()));
            // Each pause lasts until the test drops its end.
            let (begin, pauses) = channel::unbounded();
            let pause = move || {
                let (end, ended) = channel::bounded::<()>(1);
                begin.try_send(end).unwrap();
                async move { ended.recv().await }
            };
            let carrying =
                async_std::task::spawn(async move { carry_with(&conn, &near, pause).await });
            std::future::poll_fn(|cx| visitor.poll_shutdown(cx))
                .await
                .unwrap();
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            for n in 0..5 {
                let end = pauses.recv().await.unwrap();
                far.write_all(&[n]).await.unwrap();
                let mut byte = [9];
                assert_eq!(
                    visitor.read(&mut byte).await.unwrap(),
                    1,
                    "after {n} pauses"
                );
                assert_eq!(byte, [n]);
                drop(end);
            }
            drop(pauses.recv().await.unwrap());
            carrying.await;
            // A graceful end would tell the visitor that it has everything.
            let cut = visitor.read(&mut [0]).await.unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn connections_that_are_always_ready_do_not_starve_other_tasks() {
        async_std::task::block_on(async {
            let (one, other) = (Flood::new(100), Flood::new(100));
            let reads = || one.reads() + other.reads();
            let (one_end, other_end) = (one.conn(), other.conn());
            let mut carrying = pin!(carry(&one_end, &other_end));
            loop {
                let before = reads();
                let over = future::poll_once(&mut carrying).await.is_some();
                let in_a_row = reads() - before;
                assert!(in_a_row <= 2 * MAX_PIECES_IN_A_ROW, "{in_a_row} pieces");
                if over {
                    break;
                }
            }
            assert_eq!(reads(), 2 * 101, "the pieces and both ends");
        });
    }
}
