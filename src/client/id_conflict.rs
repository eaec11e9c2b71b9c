//! Detection of another client with the same id that takes turns with this one at a server.

use std::time::{Duration, Instant};

/// Tunnels that the server closes again within this time indicate another client.
const CONFLICT_WINDOW: Duration = Duration::from_secs(180);
/// Minimum time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The recent replacements of this client at one server.
#[derive(Default)]
pub struct IdConflict {
    state: ConflictState,
    warned: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ConflictState {
    #[default]
    Undisturbed,
    /// The server has closed the tunnels, and has not been reached since.
    Closed(Instant),
    /// The server closed the tunnels at this time, and has accepted the client again.
    Accepted(Instant),
}

impl IdConflict {
    /// Notes that the server has accepted the client.
    pub fn connected(&mut self) {
        if let ConflictState::Closed(at) = self.state {
            self.state = ConflictState::Accepted(at);
        }
    }

    /// Notes that the server cannot be reached, or refuses the client for another reason.
    pub fn failed(&mut self) {
        self.state = ConflictState::Undisturbed;
    }

    /// Notes that the server has gracefully closed a tunnel that should exist. Returns whether a
    /// warning is due.
    pub fn closed_by_server(&mut self, now: Instant) -> bool {
        let is_again = match self.state {
            ConflictState::Accepted(at) => now.saturating_duration_since(at) < CONFLICT_WINDOW,
            ConflictState::Undisturbed | ConflictState::Closed(_) => false,
        };
        self.state = ConflictState::Closed(now);
        let quiet = |warned: Instant| now.saturating_duration_since(warned) < WARNING_INTERVAL;
        if !is_again || self.warned.is_some_and(quiet) {
            return false;
        }
        self.warned = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeatedly_closed_tunnels_are_warned_of_once_a_minute() {
        let (mut conflict, start) = (IdConflict::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        conflict.connected();
        assert!(
            !conflict.closed_by_server(at(0)),
            "the server stops, perhaps"
        );
        assert!(!conflict.closed_by_server(at(0)), "it closes every tunnel");
        conflict.connected();
        assert!(conflict.closed_by_server(at(10)));
        conflict.connected();
        assert!(!conflict.closed_by_server(at(20)), "that has been said");
        conflict.connected();
        assert!(conflict.closed_by_server(at(70)));
        conflict.connected();
        assert!(!conflict.closed_by_server(at(300)), "that was long after");
    }

    #[test]
    fn a_server_that_stops_is_not_a_conflict() {
        let (mut conflict, now) = (IdConflict::default(), Instant::now());
        for _ in 0..3 {
            conflict.connected();
            assert!(!conflict.closed_by_server(now));
            conflict.failed();
        }
    }
}
