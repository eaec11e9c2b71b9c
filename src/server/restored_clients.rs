//! What the clients of a server had when another process took its place, for as long as it
//! takes them to come back: ports stay open for them, visitors wait, ids stay theirs.

use super::ports::{InheritedPort, PortRequest};
use super::registry::{HostKind, Key};
use super::ServerState;
use crate::config::Secret;
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::Listener;
use async_io::Timer;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Who has not come back by then has lost its ports, and its id.
const RETENTION: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct RestoredClients {
    ports: Vec<(Box<str>, InheritedPort)>,
    hosts: Vec<(Key, Option<Box<str>>)>,
    claims: Vec<(String, Secret)>,
}

/// Everything of the kind that there is now.
pub fn of(state: &ServerState) -> Vec<Outgoing> {
    let mut pieces: Vec<Outgoing> = Vec::new();
    for (id, port) in state.registry.share_ports() {
        let piece = Item::Port {
            id: id.into(),
            random: port.asked.random,
            requested: port.asked.port,
            port: port.port,
        };
        let socket = port.listener.map(|listener| listener as _);
        pieces.push((piece, socket));
    }
    for ((kind, prefix), id) in state.registry.hosts() {
        let piece = Item::Host {
            tls: kind == HostKind::Tls,
            prefix: prefix.into(),
            id: id.map(Into::into),
        };
        pieces.push((piece, None));
    }
    for (id, secret) in state.claims.held() {
        let id = id.into();
        pieces.push((Item::FirstSecret { id, secret }, None));
    }
    pieces
}

impl RestoredClients {
    /// Takes what the server of this file has left.
    pub fn take(legacy: &mut Inherited, file: &Option<PathBuf>) -> Self {
        let mut estate = Self::default();
        for (piece, socket) in legacy.of_clients(file) {
            match piece {
                Item::Port {
                    id,
                    random,
                    requested: asked,
                    port,
                } => {
                    // Of one that was closed meanwhile the number is left.
                    let listener = socket.and_then(|socket| Listener::adopt(socket).ok());
                    let asked = PortRequest {
                        random,
                        port: asked,
                    };
                    let port = InheritedPort {
                        asked,
                        port,
                        listener: listener.map(Arc::new),
                        older: None,
                    };
                    estate.ports.push((id.into(), port));
                }
                Item::Host { tls, prefix, id } => {
                    let kind = if tls { HostKind::Tls } else { HostKind::Http };
                    let id = id.map(Into::into);
                    estate.hosts.push(((kind, prefix.into()), id));
                }
                Item::FirstSecret { id, secret } => estate.claims.push((id, secret)),
                Item::Role(_)
                | Item::Listener { .. }
                | Item::Stun { .. }
                | Item::Secret { .. }
                | Item::End => {}
            }
        }
        estate
    }

    /// Whether no client is expected back.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.hosts.is_empty() && self.claims.is_empty()
    }

    /// Keeps it for those who come back.
    pub fn restore(mut self, state: &Arc<ServerState>) {
        if self.is_empty() {
            return;
        }
        // The older process goes on accepting on the ports of clients whose tunnels stay there.
        for (_, port) in &mut self.ports {
            port.older = Some(state.transfer.parent_gone());
        }
        state.registry.expect(self.hosts, self.ports);
        let claim = |(id, secret): (String, Secret)| state.claims.claim(&id, secret.as_bytes());
        let claims: Vec<_> = self.claims.into_iter().filter_map(claim).collect();
        let state = state.clone();
        crate::spawn(async move {
            state.stop.or(Timer::after(RETENTION)).await;
            state.registry.expect_no_more();
            drop(claims);
        });
    }
}
