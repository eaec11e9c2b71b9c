//! Reaching a server: the connection that carries a tunnel, by the transport of the server's address.
//! Not what is said on it, see `connect`.

use super::connect::ConnectFailure;
use super::context::ClientContext;
use super::quic;
use super::websocket;
use crate::config::{Remote, Transport};
use crate::net::{Conn, LinkUse, Socket, Timer};
use crate::wire::Version;
use futures_lite::future;
use std::time::Duration;

/// A connection to a server.
pub struct Reached {
    /// The connection.
    pub conn: Conn,
    /// The link of this machine that the connection is over.
    pub link: LinkUse,
}

/// Opens a connection for a tunnel of this version to a server. Each step may take `patience`.
pub async fn reach(
    context: &ClientContext,
    remote: &Remote,
    version: Version,
    patience: Duration,
) -> Result<Reached, ConnectFailure> {
    if remote.transport == Transport::Quic {
        return quic::reach(context, remote, version, patience).await;
    }
    let Reached { conn, link } = reach_as_visitor(context, remote, patience).await?;
    let conn = match remote.transport.is_websocket() {
        false => conn,
        true => {
            let upgrade = websocket::upgrade(conn, remote);
            future::or(upgrade, silence(patience)).await?
        }
    };
    Ok(Reached { conn, link })
}

/// Opens a connection to a server as its visitors do: without a WebSocket, and over TLS at the same port for a
/// server over QUIC.
pub async fn reach_as_visitor(
    context: &ClientContext,
    remote: &Remote,
    patience: Duration,
) -> Result<Reached, ConnectFailure> {
    context.tls.check(remote).map_err(ConnectFailure::Tls)?;
    let dialling = context.dialer.dial(&remote.host, remote.port, patience);
    let (socket, link) = dialling.await.map_err(ConnectFailure::Unreachable)?;
    if context.bbr {
        socket.use_bbr();
    }
    let conn = match remote.transport.is_secure() {
        false => Conn::from(socket),
        true => tls(context, remote, socket, patience).await?,
    };
    Ok(Reached { conn, link })
}

/// Performs the handshake of TLS.
async fn tls(
    context: &ClientContext,
    remote: &Remote,
    socket: Socket,
    patience: Duration,
) -> Result<Conn, ConnectFailure> {
    let handshake = async {
        let connecting = context.tls.connector().map_err(ConnectFailure::Tls)?;
        let connecting = connecting.connect(&remote.host, socket);
        connecting.await.map_err(ConnectFailure::Tls)
    };
    future::or(handshake, silence(patience)).await
}

/// Fails when a server that was asked has been silent for `patience`.
pub async fn silence<T>(patience: Duration) -> Result<T, ConnectFailure> {
    Timer::after(patience).await;
    Err(ConnectFailure::Silent(patience))
}
