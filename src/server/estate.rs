//! What the clients of a server had when another process took its place, for as long as it
//! takes them to come back: ports stay open for them, visitors wait, ids stay theirs.

use super::ports::{Asked, Shared};
use super::registry::{Key, Kind};
use super::State;
use crate::config::Secret;
use crate::handover::{Given, Legacy, Piece};
use crate::net::Listener;
use async_io::Timer;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Who has not come back by then has lost its ports, and its id.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Estate {
    ports: Vec<(Box<str>, Shared)>,
    hosts: Vec<(Key, Option<Box<str>>)>,
    claims: Vec<(String, Secret)>,
}

/// Everything of the kind that there is now.
pub fn of(state: &State) -> Vec<Given> {
    let mut pieces: Vec<Given> = Vec::new();
    for (id, port) in state.registry.share_ports() {
        let piece = Piece::Port {
            id: id.into(),
            random: port.asked.random,
            asked: port.asked.port,
            port: port.port,
        };
        let socket = port.listener.map(|listener| listener as _);
        pieces.push((piece, socket));
    }
    for ((kind, prefix), id) in state.registry.hosts() {
        let piece = Piece::Host {
            tls: kind == Kind::Tls,
            prefix: prefix.into(),
            id: id.map(Into::into),
        };
        pieces.push((piece, None));
    }
    for (id, secret) in state.claims.held() {
        let id = id.into();
        pieces.push((Piece::Claim { id, secret }, None));
    }
    pieces
}

impl Estate {
    /// Takes what the server of this file has left.
    pub fn take(legacy: &mut Legacy, file: &Option<PathBuf>) -> Self {
        let mut estate = Self::default();
        for (piece, socket) in legacy.of_clients(file) {
            match piece {
                Piece::Port {
                    id,
                    random,
                    asked,
                    port,
                } => {
                    // Of one that was closed meanwhile the number is left.
                    let listener = socket.and_then(|socket| Listener::adopt(socket).ok());
                    let asked = Asked {
                        random,
                        port: asked,
                    };
                    let port = Shared {
                        asked,
                        port,
                        listener: listener.map(Arc::new),
                        older: None,
                    };
                    estate.ports.push((id.into(), port));
                }
                Piece::Host { tls, prefix, id } => {
                    let kind = if tls { Kind::Tls } else { Kind::Http };
                    let id = id.map(Into::into);
                    estate.hosts.push(((kind, prefix.into()), id));
                }
                Piece::Claim { id, secret } => estate.claims.push((id, secret)),
                Piece::Role(_)
                | Piece::Listener { .. }
                | Piece::Stun { .. }
                | Piece::Secret { .. }
                | Piece::End => {}
            }
        }
        estate
    }

    /// Whether no client is expected back.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.hosts.is_empty() && self.claims.is_empty()
    }

    /// Keeps it for those who come back.
    pub fn settle(mut self, state: &Arc<State>) {
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
            state.stop.or(Timer::after(KEPT)).await;
            state.registry.expect_no_more();
            drop(claims);
        });
    }
}
