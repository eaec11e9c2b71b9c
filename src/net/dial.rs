//! Connecting to a host by name or address.

use super::{listen::KEEPALIVE, Socket};
use async_io::{Async, Timer};
use async_std::task::spawn_blocking;
use futures_lite::future;
use socket2::{SockRef, TcpKeepalive};
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
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
        let addrs = spawn_blocking(move || (name, port).to_socket_addrs())
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
    let io = Async::<TcpStream>::connect(addr).await.map_err(named)?;
    io.get_ref().set_nodelay(true).map_err(named)?;
    SockRef::from(io.get_ref())
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
        .map_err(named)?;
    Ok(Socket::new(io))
}
