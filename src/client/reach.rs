//! Reaching a server: the connection that carries a tunnel, by the transport of the server's address.
//! Not what is said on it, see `connect`.

use super::connect::ConnectFailure;
use super::context::ClientContext;
use crate::config::{Remote, Transport};
use crate::net::{self, Conn, Timer};
use futures_lite::future;
use std::time::Duration;

/// Opens a connection to a server. Each step may take `patience`.
pub async fn reach(
    context: &ClientContext,
    remote: &Remote,
    patience: Duration,
) -> Result<Conn, ConnectFailure> {
    let socket = net::dial(&remote.host, remote.port, patience)
        .await
        .map_err(ConnectFailure::Unreachable)?;
    match remote.transport {
        Transport::Tcp => Ok(Conn::from(socket)),
        Transport::Tls => {
            let handshake = async {
                let connecting = context.tls.connector().map_err(ConnectFailure::Tls)?;
                let connecting = connecting.connect(&remote.host, socket);
                connecting.await.map_err(ConnectFailure::Tls)
            };
            future::or(handshake, silence(patience)).await
        }
    }
}

/// Fails when a server that was asked has been silent for `patience`.
pub async fn silence<T>(patience: Duration) -> Result<T, ConnectFailure> {
    Timer::after(patience).await;
    Err(ConnectFailure::Silent(patience))
}
