//! Builds without WebSockets: no tunnel can be in one. The configuration refuses their addresses.

use super::connect::ConnectFailure;
use crate::config::Remote;
use crate::net::Conn;

/// Fails.
pub async fn upgrade(_conn: Conn, _remote: &Remote) -> Result<Conn, ConnectFailure> {
    Err(ConnectFailure::NoWebSocket(
        "this gt has no WebSockets".to_owned(),
    ))
}
