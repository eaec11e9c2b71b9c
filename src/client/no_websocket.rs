//! The stub of `websocket` in builds without WebSockets. The configuration refuses their addresses, but a
//! remoteAPI may name one.

use super::connect::ConnectFailure;
use crate::config::Remote;
use crate::net::Conn;

/// Fails: this build has no WebSockets.
pub async fn upgrade(_conn: Conn, _remote: &Remote) -> Result<Conn, ConnectFailure> {
    Err(ConnectFailure::NoWebSocket(
        "this gt has no WebSockets".to_owned(),
    ))
}
