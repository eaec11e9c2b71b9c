//! Requests for tunnels in WebSockets, up to the tunnel's hello.
//! Not the frames, see `net::websocket`.

use super::forwarded_for::{self, ToldVisitor};
use super::incoming::{read_more, Incoming};
use super::sniff::tunnel_version;
use crate::config::WsPlace;
use crate::net::websocket::{self, Side, UpgradeRequest};
use crate::net::{timeout_at, Conn};
use crate::wire::Version;
use std::net::SocketAddr;
use std::sync::Arc;

/// Returns the tunnel that a complete head of an HTTP request asks for; the error says what is wrong with
/// the request. `None` if it asks for no tunnel.
pub fn requested(head: &[u8], place: Option<&WsPlace>) -> Option<Result<Upgrade, &'static str>> {
    let place = place?;
    let request = UpgradeRequest::parse(head, &place.path, place.host.as_deref())?;
    Some(request.map(Upgrade))
}

/// A request for a tunnel in a WebSocket.
pub struct Upgrade(UpgradeRequest);

impl Incoming {
    /// Grants a request for a tunnel in a WebSocket. Returns the connection in it and the version of the
    /// tunnel; `None` if no tunnel has begun in time.
    pub async fn upgrade(
        &mut self,
        conn: Arc<Conn>,
        Upgrade(request): Upgrade,
    ) -> Option<(Arc<Conn>, Version)> {
        self.believe_front_about_client();
        let early = self.head.split_off(request.length.min(self.head.len()));
        self.head = Vec::new();
        let response = websocket::response(&request.accept);
        let upgrading = async {
            conn.write_all(response.as_bytes()).await.ok()?;
            let conn = Arc::new(websocket::start(conn, Side::Server, early));
            loop {
                match read_more(&conn, &mut self.head, 2).await {
                    Ok(1..) => {}
                    _ => return None,
                }
                if let Some(version) = tunnel_version(&self.head, &self.settings) {
                    return version.map(|version| (conn, version));
                }
            }
        };
        let tunnel = timeout_at(self.deadline, upgrading).await.flatten();
        if tunnel.is_none() {
            log::debug!("{}: no tunnel began in its WebSocket", self.peer);
        }
        tunnel
    }

    /// Takes the client's address from the request of a proxy that the server trusts, so that failed
    /// logins lock out the client and not the proxy.
    fn believe_front_about_client(&mut self) {
        if !self.is_of_front() {
            return;
        }
        if let ToldVisitor::Address(addr) =
            forwarded_for::visitor(&self.head, &self.settings.front_proxies)
        {
            self.peer = SocketAddr::new(addr, 0);
        }
    }
}
