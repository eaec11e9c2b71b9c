//! Connecting over the links of this machine. Not the choice of a link, see `links`.

use super::{LinkUse, Links};
use crate::net::dial::{dial, dial_by, established, last_of, ATTEMPT_DELAY, MAX_ADDRESSES};
use crate::net::{kernel, race, Socket};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Connects to `host` like [`dial`], over one of these links.
pub async fn over(
    links: &Links,
    host: &str,
    port: u16,
    timeout: Duration,
) -> io::Result<(Socket, LinkUse)> {
    if links.is_empty() {
        return Ok((dial(host, port, timeout).await?, LinkUse::default()));
    }
    let connect = |addresses| connect(links, addresses);
    Box::pin(dial_by(host, port, timeout, connect)).await
}

/// Connects to the first address that answers, over the first link that leads to it: every address is
/// tried over all links before the next one.
async fn connect(links: &Links, addresses: Vec<SocketAddr>) -> io::Result<(Socket, LinkUse)> {
    let routes = links.routes(&addresses, MAX_ADDRESSES);
    let attempts = routes.list().iter().enumerate().map(|(at, route)| {
        Box::pin(async move {
            let source = route.source();
            let connecting = async {
                let (stream, is_connected) = kernel::connect_from(route.addr, source)?;
                established(stream, is_connected).await
            };
            let socket: io::Result<Socket> = connecting.await;
            let socket = socket.map_err(|e| {
                let why = format!("connecting to {} from {source}: {e}", route.addr);
                io::Error::new(e.kind(), why)
            });
            Ok((socket?, at))
        })
    });
    let (connected, errors) = race(attempts, ATTEMPT_DELAY).await;
    match connected {
        Some((socket, at)) => Ok((socket, routes.settle(at))),
        None => Err(last_of(errors)),
    }
}
