//! Dialling: connects to a host by name or address.

use super::{kernel, resolve, Socket};
use crate::net::{race, Timer};
use futures_lite::future;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "client")]
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

/// Connection attempt delay (RFC 8305, section 5): the pause before the next address is tried
/// while earlier ones have not answered.
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Maximum number of addresses of one name that are tried.
pub(super) const MAX_ADDRESSES: usize = 16;

/// A connection that is being opened.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send + 'a>>;

/// A means of connecting to other hosts: directly, or as a client reaches its servers.
pub trait Dial: Send + Sync {
    /// Connects to `host`; every step may take `timeout`. The error names the step that has failed.
    fn dial<'a>(&'a self, host: &'a str, port: u16, timeout: Duration) -> Dialling<'a>;
}

/// Connects to other hosts directly, as [`dial`] does.
pub struct Direct;

impl Dial for Direct {
    fn dial<'a>(&'a self, host: &'a str, port: u16, timeout: Duration) -> Dialling<'a> {
        Box::pin(dial(host, port, timeout))
    }
}

/// Connects to `host` within `timeout`. The addresses of a name are tried in parallel (RFC 8305).
/// The error names the step that failed: the look-up, or the last address tried.
pub async fn dial(host: &str, port: u16, timeout: Duration) -> io::Result<Socket> {
    dial_by(host, port, timeout, connect_first).await
}

/// Connects to `host` like [`dial`], to each address by `attempt`.
#[cfg(all(
    feature = "client",
    any(feature = "outbound", all(feature = "quic", not(feature = "sim")))
))]
pub(super) async fn dial_with<T, F: Future<Output = io::Result<T>>>(
    host: &str,
    port: u16,
    timeout: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    dial_by(host, port, timeout, |addresses| async {
        let attempts = addresses.into_iter().map(|addr| Box::pin(attempt(addr)));
        let (connected, errors) = race(attempts, ATTEMPT_DELAY).await;
        connected.ok_or_else(|| last_of(errors))
    })
    .await
}

/// Looks up `host` and connects to its addresses by `connect`, within `timeout`.
pub(super) async fn dial_by<T, F: Future<Output = io::Result<T>>>(
    host: &str,
    port: u16,
    timeout: Duration,
    connect: impl FnOnce(Vec<SocketAddr>) -> F,
) -> io::Result<T> {
    let connecting = async {
        // A literal address needs no thread for the resolver.
        if let Ok(ip) = host.parse::<IpAddr>() {
            return connect(vec![(ip, port).into()]).await;
        }
        let found = resolve::look_up(host).await?;
        let addresses = by_turns(&found.addresses).into_iter();
        let addresses = addresses.map(|addr| resolve::with_port(addr, port));
        let connected = connect(addresses.collect()).await;
        match &found.stale {
            Some(why) => connected.map_err(|e| {
                let why = format!("looking up {host}: {why}; its last known address: {e}");
                io::Error::new(e.kind(), why)
            }),
            None => connected,
        }
    };
    future::or(connecting, no_answer(format!("{host}:{port}"), timeout)).await
}

/// Connects to the first of these addresses of `host` that answers, within `timeout`, and to no other one.
/// They are tried in parallel, as by [`dial`]. The error names the last one tried.
#[cfg(all(feature = "client", feature = "proxy"))]
pub async fn dial_first(
    host: &str,
    addresses: &[SocketAddr],
    timeout: Duration,
) -> io::Result<Socket> {
    let connecting = connect_first(by_turns(addresses));
    future::or(connecting, no_answer(host, timeout)).await
}

/// Connects to a Unix socket, a path or `@` and a name, within `timeout`.
#[cfg(feature = "client")]
pub async fn dial_unix(socket: &Path, timeout: Duration) -> io::Result<Socket> {
    /// The kernel does not tell when there is room.
    const PAUSE: Duration = Duration::from_millis(50);
    let shown = format!("unix:{}", socket.display());
    let named = |e: io::Error| io::Error::new(e.kind(), format!("connecting to {shown}: {e}"));
    let connecting = async {
        loop {
            match kernel::connect_unix(socket).map_err(named)? {
                Some(stream) => return Socket::new(stream, false),
                None => Timer::after(PAUSE).await,
            };
        }
    };
    future::or(connecting, no_answer(&shown, timeout)).await
}

async fn no_answer<T>(whom: impl Display, timeout: Duration) -> io::Result<T> {
    Timer::after(timeout).await;
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("connecting to {whom}: no answer within {timeout:?}"),
    ))
}

/// Alternates IPv6 and IPv4, beginning with the family that the system puts first, so that a
/// network without one of them costs one delay (RFC 8305, section 4).
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let of_kind = |kind: bool| addresses.iter().filter(move |addr| addr.is_ipv6() == kind);
    let (mut one, mut other) = (of_kind(first), of_kind(!first));
    let mut mixed = Vec::new();
    while mixed.len() < MAX_ADDRESSES {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            break;
        }
        mixed.extend(pair.into_iter().flatten());
    }
    mixed.truncate(MAX_ADDRESSES);
    mixed
}

/// Connects to the first address that answers. The next one is tried when one has failed, or after
/// [`ATTEMPT_DELAY`] while earlier ones have not answered. Returns the last error if all fail.
async fn connect_first(addresses: Vec<SocketAddr>) -> io::Result<Socket> {
    let attempts = addresses.into_iter().map(|addr| Box::pin(connect(addr)));
    let (connected, errors) = race(attempts, ATTEMPT_DELAY).await;
    connected.ok_or_else(|| last_of(errors))
}

pub(super) fn last_of(mut errors: Vec<io::Error>) -> io::Error {
    let none = || io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    errors.pop().unwrap_or_else(none)
}

async fn connect(addr: SocketAddr) -> io::Result<Socket> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("connecting to {addr}: {e}"));
    begin(addr).await.map_err(named)
}

async fn begin(addr: SocketAddr) -> io::Result<Socket> {
    let (stream, is_connected) = kernel::connect(addr)?;
    established(stream, is_connected).await
}

pub(super) async fn established(
    stream: kernel::TcpStream,
    is_connected: bool,
) -> io::Result<Socket> {
    match is_connected {
        true => Socket::new(stream, false),
        false => Socket::connecting(stream).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_std::task::block_on;
    use socket2::{Domain, Socket as RawSocket, Type};
    use std::net::{TcpListener, TcpStream};

    /// An address that never answers: its accept queue is full, so the kernel drops new
    /// connections.
    struct BlackHole {
        address: SocketAddr,
        _listener: RawSocket,
        _queue: Vec<RawSocket>,
    }

    impl BlackHole {
        fn new() -> Self {
            let listener = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let any: SocketAddr = ([127, 0, 0, 1], 0).into();
            listener.bind(&any.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let connect = |_| {
                let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            };
            let queue: Vec<_> = (0..8).map(connect).collect();
            assert!(queue.iter().any(|socket| socket.peer_addr().is_err()));
            Self {
                address,
                _listener: listener,
                _queue: queue,
            }
        }
    }

    #[test]
    fn a_silent_address_does_not_delay_the_next_beyond_the_attempt_delay() {
        let (hole, more) = (BlackHole::new(), BlackHole::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        // Without the next attempt this test would not end: there is no other limit here.
        block_on(connect_first(vec![hole.address, more.address, good])).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_refusal_tries_the_next_address_at_once_and_the_last_error_is_returned() {
        let refusing = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let (one, other) = (refusing(), refusing());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        block_on(connect_first(vec![one, good])).unwrap();
        let error = block_on(connect_first(vec![one, other])).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&other.to_string()), "{error}");
        assert!(block_on(connect_first(Vec::new())).is_err());
        drop(TcpStream::connect(good));
    }

    #[test]
    fn an_address_with_a_zone_is_dialled_in_that_zone() {
        // No service listens there: the error names the address that was tried, its zone as a
        // number.
        let dialled = block_on(dial("fe80::1%lo", 9, Duration::from_secs(60)));
        let error = dialled.err().unwrap().to_string();
        assert!(error.contains("[fe80::1%"), "{error}");
        assert!(error.contains("]:9"), "{error}");
    }

    #[test]
    fn address_families_alternate() {
        let six = |n: u16| SocketAddr::from(([0x2001, 0xDB8, 0, 0, 0, 0, 0, n], 0));
        let four = |n: u8| SocketAddr::from(([192, 0, 2, n], 0));
        let system = [six(1), six(2), six(3), four(1)];
        assert_eq!(by_turns(&system), [six(1), four(1), six(2), six(3)]);
        assert_eq!(
            by_turns(&[four(1), four(2), six(1)]),
            [four(1), six(1), four(2)]
        );
        assert!(by_turns(&[]).is_empty());
        let many: Vec<SocketAddr> = (0..99).map(four).collect();
        assert_eq!(by_turns(&many).len(), MAX_ADDRESSES);
    }
}
