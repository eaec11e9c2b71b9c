//! Connecting to a host by name or address.

use super::{blocking, listen::KEEPALIVE, Socket};
use async_io::Timer;
use futures_lite::future;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket as RawSocket, TcpKeepalive, Type};
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Connects to the first address of `host` that answers, all within `patience`. The error
/// names what failed: the look-up, or the last address tried.
pub async fn dial(host: &str, port: u16, patience: Duration) -> io::Result<Socket> {
    let connecting = async {
        // A literal address needs no thread for the resolver.
        if let Ok(ip) = host.parse::<IpAddr>() {
            return connect((ip, port).into()).await;
        }
        let name = host.to_owned();
        let addrs = blocking(move || (name, port).to_socket_addrs())
            .await
            .map(Vec::from_iter)
            .map_err(|e| io::Error::new(e.kind(), format!("looking up {host}: {e}")))?;
        let mut last = io::Error::new(
            io::ErrorKind::NotFound,
            format!("looking up {host}: no address"),
        );
        // An address that swallows everything must not keep the others from being tried.
        let share = patience / u32::try_from(addrs.len().clamp(1, 4)).unwrap_or(1);
        for addr in addrs {
            match future::or(connect(addr), no_answer(addr, share)).await {
                Ok(socket) => return Ok(socket),
                Err(e) => last = e,
            }
        }
        Err(last)
    };
    future::or(connecting, no_answer(format!("{host}:{port}"), patience)).await
}

async fn no_answer(whom: impl Display, patience: Duration) -> io::Result<Socket> {
    Timer::after(patience).await;
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("connecting to {whom}: no answer within {patience:?}"),
    ))
}

async fn connect(addr: SocketAddr) -> io::Result<Socket> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("connecting to {addr}: {e}"));
    begin(addr).await.map_err(named)
}

async fn begin(addr: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(addr);
    let raw = RawSocket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    raw.set_tcp_nodelay(true)?;
    if !addr.ip().is_loopback() {
        // This machine does not vanish.
        raw.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    }
    match rustix::net::connect(&raw, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    // To this machine it is done by now.
    match raw.peer_addr() {
        Ok(_) => Socket::new(raw.into(), false),
        Err(_) => Socket::connecting(raw.into()).await,
    }
}
