//! The client's request for a tunnel in a WebSocket. Not the connection below it, see `reach`.

use super::connect::ConnectFailure;
use super::other_protocol::OtherProtocol;
use crate::config::{Remote, Transport};
use crate::net::websocket::{self, ClientHandshake, Side, UpgradeAnswer, UpgradeRefusal};
use crate::net::Conn;
use std::io;
use std::sync::Arc;

/// Describes a refusal. Ports for TLS answer a request without it like this, those of gt, nginx and Caddy at least.
fn explain(refusal: &UpgradeRefusal, transport: Transport) -> String {
    match (refusal, transport) {
        (UpgradeRefusal::Status(400), Transport::Ws) => {
            format!("{refusal}; if the port is for TLS, use wss:// instead of ws://")
        }
        _ => refusal.to_string(),
    }
}

/// Asks the server at the other end of `conn` for a WebSocket, and returns it as a connection.
pub async fn upgrade(conn: Conn, remote: &Remote) -> Result<Conn, ConnectFailure> {
    let handshake = ClientHandshake::new().map_err(ConnectFailure::Unreachable)?;
    let request = handshake.request(&remote.authority(), &remote.path);
    let failed = |e: io::Error| ConnectFailure::NoWebSocket(e.to_string());
    conn.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 512];
        let n = conn.read(&mut piece).await.map_err(failed)?;
        if n == 0 {
            return Err(failed(io::Error::other(
                "the connection was closed without an answer",
            )));
        }
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
        match handshake.answer(&bytes) {
            UpgradeAnswer::More => {}
            UpgradeAnswer::Granted(length) => {
                let early = bytes.split_off(length);
                return Ok(websocket::start(Arc::new(conn), Side::Client, early));
            }
            UpgradeAnswer::Refused(refusal) => {
                return Err(match OtherProtocol::of(&bytes) {
                    Some(tls @ OtherProtocol::Tls) => ConnectFailure::OtherProtocol(tls),
                    _ => ConnectFailure::NoWebSocket(explain(&refusal, remote.transport)),
                })
            }
        }
    }
}
