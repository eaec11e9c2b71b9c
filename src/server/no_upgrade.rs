//! The stub of `upgrade` in builds without WebSockets: every request is one of a visitor.

use super::incoming::Incoming;
use crate::config::WsPlace;
use crate::net::Conn;
use crate::wire::Version;
use std::sync::Arc;

/// A request for a tunnel, of which there is none.
pub enum Upgrade {}

/// Returns `None`: no request asks for a tunnel.
pub fn requested(_head: &[u8], _place: Option<&WsPlace>) -> Option<Result<Upgrade, &'static str>> {
    None
}

impl Incoming {
    /// Cannot be called.
    pub async fn upgrade(
        &mut self,
        _conn: Arc<Conn>,
        upgrade: Upgrade,
    ) -> Option<(Arc<Conn>, Version)> {
        match upgrade {}
    }
}
