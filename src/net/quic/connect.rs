//! Connects to a server over QUIC. Not the client's use of it, see `client::quic`.

use super::connection::Connection;
use super::endpoint::EndpointShared;
use super::setup::{self, ClientSetup};
use super::socket::QuicSocket;
use crate::net::outbound::LinkPath;
use crate::net::runtime::costly_step;
use crate::net::{timeout, Conn, Dialer, LinkUse, TaskGuard};
use quinn_proto::ConnectError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Time that a server has to answer at one address: less than its 15 s for a handshake, and more than any line takes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to `host`, whose certificate must be for that name, over the links of `dialer`, within `timeout`, and opens
/// the stream. Returns the link, too, which changes when the connection moves to another one. The addresses of a name
/// are tried in parallel (RFC 8305). Each attempt holds a guard of `guard` until its last
/// bytes are sent.
pub async fn connect(
    (dialer, host, port): (&Dialer, &str, u16),
    setup: &ClientSetup,
    guard: impl Fn() -> TaskGuard + Clone + Send + 'static,
    timeout: Duration,
) -> io::Result<(Conn, LinkUse)> {
    let (setup, name) = (setup.clone(), host.to_owned());
    let attempt = move |addr: SocketAddr, path: LinkPath| {
        let (setup, name, guard) = (setup.clone(), name.clone(), guard.clone());
        async move {
            let link = path.link().clone();
            let conn = connect_to((addr, path), &name, &setup, guard()).await?;
            Ok((conn, link))
        }
    };
    dialer.dial_by(host, port, timeout, attempt).await
}

async fn connect_to(
    (addr, path): (SocketAddr, LinkPath),
    name: &str,
    setup: &ClientSetup,
    guard: TaskGuard,
) -> io::Result<Conn> {
    let source = path.source();
    let named = |e: io::Error| match e.kind() {
        // Advice depends on the error inside, and an error about a link names the address.
        _ if source.is_some() => e,
        io::ErrorKind::InvalidData => e,
        kind => io::Error::new(kind, format!("connecting to {addr}: {e}")),
    };
    let socket = QuicSocket::for_peer(addr, source.as_ref()).map_err(named)?;
    let mut key = [0; 8];
    crate::net::tls::fill_random(&mut key)?;
    let key = u64::from_ne_bytes(key);
    let config = setup::endpoint(key).map_err(named)?;
    let endpoint = EndpointShared::start(socket, (key, config), None, None);
    costly_step().await;
    let connection = endpoint
        .connect(setup.config(), (addr, path), name, guard)
        .map_err(|e| match e {
            ConnectError::InvalidServerName(_) => {
                let text = format!("{name} is no name for a certificate");
                io::Error::new(io::ErrorKind::InvalidInput, text)
            }
            e => io::Error::other(e),
        })?;
    let connection: Connection = connection;
    let established = timeout(HANDSHAKE_TIMEOUT, connection.established()).await;
    established
        .unwrap_or_else(|| Err(silent()))
        .map_err(named)?;
    Ok(Conn::from(connection.open_stream().map_err(named)?))
}

fn silent() -> io::Error {
    let text = format!("no answer within {HANDSHAKE_TIMEOUT:?}");
    io::Error::new(io::ErrorKind::TimedOut, text)
}
