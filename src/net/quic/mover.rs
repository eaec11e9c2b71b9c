//! Moves a client's connection to another socket, when its path is silent or its address is another one (RFC 9000,
//! section 9).

use super::connection::{ConnectionShared, ConnectionState, Phase};
use super::path::{PathCounts, PathVerdict, PathWatch};
use std::sync::Arc;
use std::time::Instant;

/// The result of a check.
#[derive(Debug, Default)]
pub struct PathCheck {
    /// When to check again, at the latest.
    pub deadline: Option<Instant>,
    /// Whether the connection has something to send now.
    pub speaks: bool,
}

/// Watches the path of a connection, and moves the connection to another socket.
pub struct Mover {
    is_client: bool,
    /// The watch on the path; `None` until the handshake is complete.
    watch: Option<PathWatch>,
    /// When the connection has moved, if the server has not answered since.
    moved: Option<Instant>,
}

impl Mover {
    /// Creates the mover of a connection. Servers' connections do not move.
    pub fn new(is_client: bool) -> Self {
        Self {
            is_client,
            watch: None,
            moved: None,
        }
    }

    /// Moves the connection if its path does not work.
    pub fn check(
        &mut self,
        shared: &Arc<ConnectionShared>,
        state: &mut ConnectionState,
        now: Instant,
    ) -> PathCheck {
        if !self.is_client || !matches!(state.phase, Phase::Established) {
            return PathCheck::default();
        }
        let watch = self.watch.get_or_insert_with(|| PathWatch::new(now));
        let counts = PathCounts::of(&state.proto.stats());
        let verdict = watch.check(now, state.heard, counts);
        if verdict == PathVerdict::Ask {
            state.proto.ping();
        }
        if self.moved.is_some_and(|moved| state.heard > moved) {
            self.moved = None;
            if let Some(path) = shared.endpoint.path() {
                path.note_success();
            }
        }
        let mut speaks = verdict != PathVerdict::Fine;
        let is_silent = verdict == PathVerdict::Move;
        if std::mem::take(&mut state.is_to_move) || is_silent {
            speaks = true;
            let peer = state.proto.remote_address();
            match shared.endpoint.change_socket(peer, is_silent) {
                Ok(()) => {
                    let link = shared.endpoint.path().and_then(|path| path.source());
                    let link = link.map_or(String::new(), |link| format!(" of {link}"));
                    log::info!(
                        "the connection to {peer} goes on from UDP port {}{link}",
                        shared.endpoint.socket().addr().port()
                    );
                    self.moved = Some(now);
                    state.proto.local_address_changed();
                }
                Err(e) => log::warn!("the connection to {peer} cannot move: {e}"),
            }
        }
        PathCheck {
            deadline: watch.deadline(),
            speaks,
        }
    }
}
