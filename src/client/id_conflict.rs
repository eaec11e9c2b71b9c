//! Finds out whether another client with the same id takes turns with this one at a server.

use std::time::{Duration, Instant};

/// A tunnel that is closed so soon after the one before it is closed for another client.
const CONFLICT_WINDOW: Duration = Duration::from_secs(180);
/// One warning in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

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
    Dismissed(Instant),
    /// It had closed them at this time, and has let the client in again.
    Back(Instant),
}

impl IdConflict {
    /// The server has let the client in.
    pub fn connected(&mut self) {
        if let ConflictState::Dismissed(at) = self.state {
            self.state = ConflictState::Back(at);
        }
    }

    /// The server cannot be reached, or refuses the client for what it is.
    pub fn failed(&mut self) {
        self.state = ConflictState::Undisturbed;
    }

    /// The server has closed a tunnel in good order, although it needs to be there. Returns
    /// whether a warning is due.
    pub fn dismissed(&mut self, now: Instant) -> bool {
        let is_again = match self.state {
            ConflictState::Back(at) => now.saturating_duration_since(at) < CONFLICT_WINDOW,
            ConflictState::Undisturbed | ConflictState::Dismissed(_) => false,
        };
        self.state = ConflictState::Dismissed(now);
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
    fn tunnels_that_are_closed_again_and_again_are_warned_of_once_a_minute() {
        let (mut rivalry, start) = (IdConflict::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        rivalry.connected();
        assert!(!rivalry.dismissed(at(0)), "the server stops, perhaps");
        assert!(!rivalry.dismissed(at(0)), "it closes every tunnel");
        rivalry.connected();
        assert!(rivalry.dismissed(at(10)));
        rivalry.connected();
        assert!(!rivalry.dismissed(at(20)), "that has been said");
        rivalry.connected();
        assert!(rivalry.dismissed(at(70)));
        rivalry.connected();
        assert!(!rivalry.dismissed(at(300)), "that was long after");
    }

    #[test]
    fn a_server_that_stops_is_no_rival() {
        let (mut rivalry, now) = (IdConflict::default(), Instant::now());
        for _ in 0..3 {
            rivalry.connected();
            assert!(!rivalry.dismissed(now));
            rivalry.failed();
        }
    }
}
