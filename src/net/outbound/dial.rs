//! Connecting over the links of this machine. Not the choice of a link, see `links`.

use super::links::{LinkPath, Links};
use super::LinkUse;
use crate::net::dial::{
    dial, dial_by, dial_with, established, last_of, ATTEMPT_DELAY, MAX_ADDRESSES,
};
use crate::net::{kernel, race, Socket};
use std::future::Future;
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
    let attempt = |addr, path: LinkPath| async move {
        let begun = match path.source() {
            Some(source) => kernel::connect_from(addr, &source)?,
            None => kernel::connect(addr)?,
        };
        let socket = established(begun.0, begun.1).await?;
        Ok((socket, path.link().clone()))
    };
    Box::pin(over_by(links, host, port, timeout, attempt)).await
}

/// Connects to `host` over one of these links like [`over`], by `attempt`.
pub async fn over_by<T, F: Future<Output = io::Result<T>>>(
    links: &Links,
    host: &str,
    port: u16,
    timeout: Duration,
    attempt: impl Fn(SocketAddr, LinkPath) -> F,
) -> io::Result<T> {
    if links.is_empty() {
        let attempt = |addr| attempt(addr, LinkPath::default());
        return dial_with(host, port, timeout, attempt).await;
    }
    let connect = |addresses| first_of(links, addresses, attempt);
    dial_by(host, port, timeout, connect).await
}

/// Connects to the first address that answers, over the first link that leads to it: every address is
/// tried over all links before the next one.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    links: &Links,
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr, LinkPath) -> F,
) -> io::Result<T> {
    let routes = links.routes(&addresses, MAX_ADDRESSES);
    let attempts = routes.list().iter().enumerate().map(|(at, route)| {
        let attempting = attempt(route.addr, links.path(route));
        Box::pin(async move {
            match attempting.await {
                Ok(connected) => Ok((connected, at)),
                // Advice depends on the error inside.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(e),
                Err(e) => {
                    let (addr, source) = (route.addr, route.source());
                    let why = format!("connecting to {addr} from {source}: {e}");
                    Err(io::Error::new(e.kind(), why))
                }
            }
        })
    });
    let (connected, errors) = race(attempts, ATTEMPT_DELAY).await;
    match connected {
        Some((connected, at)) => {
            routes.settle(at);
            Ok(connected)
        }
        None => Err(last_of(errors)),
    }
}
