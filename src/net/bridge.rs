//! A bridge: a TCP connection within this machine. One end can be given to another process; the
//! other end relays a connection whose state cannot be passed on, such as TLS.

use super::kernel::{self, OwnedFd};
use super::{Conn, Socket};
use std::io;

/// Creates a connection over loopback and returns both ends. Fails if another program connects
/// first.
pub fn bridge() -> io::Result<(Conn, OwnedFd)> {
    let (near, far) = kernel::loopback_pair()?;
    Ok((Conn::from(Socket::new(near, false)?), far.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::carry::{carry, carry_with, MAX_PIECES_IN_A_ROW};
    use crate::net::conn::tests::Flood;
    use async_std::channel;
    use futures_lite::future;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::pin::pin;
    use std::time::Duration;

    /// Longer than a test takes.
    const PAUSE: Duration = Duration::from_secs(30);

    #[test]
    fn a_bridge_passes_bytes_ends_and_failures_both_ways() {
        async_std::task::block_on(async {
            let (near, far) = bridge().unwrap();
            let (conn, visitor) = bridge().unwrap();
            let carrying = async_std::task::spawn(async move { carry(&conn, &near, PAUSE).await });
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
            let carrying = async_std::task::spawn(async move { carry(&conn, &near, PAUSE).await });
            Conn::from(Socket::adopt(far).unwrap()).reset_on_close();
            carrying.await;
            let cut = TcpStream::from(visitor).read(&mut [0]).unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn a_relay_that_is_dropped_cuts_both_ends() {
        async_std::task::block_on(async {
            let (near, far) = bridge().unwrap();
            let (conn, visitor) = bridge().unwrap();
            let mut carrying = Box::pin(async move { carry(&conn, &near, PAUSE).await });
            assert!(future::poll_once(&mut carrying).await.is_none());
            drop(carrying);
            for end in [far, visitor] {
                let cut = TcpStream::from(end).read(&mut [0]).unwrap_err();
                assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
            }
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
            carrying.await.unwrap_err();
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
            let mut carrying = pin!(carry(&one_end, &other_end, PAUSE));
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
