//! A rate limit for log lines that a peer can cause as often as it likes.

use crate::net::clock;
use crate::sync::Mutex;
use std::time::{Duration, Instant};

/// Minimum time between two lines; those in between are only counted.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// A limit of one log line a minute, which counts the suppressed ones.
#[derive(Default)]
pub struct LogThrottle(Mutex<ThrottleState>);

#[derive(Default)]
struct ThrottleState {
    written: Option<Instant>,
    held_back: u32,
}

impl LogThrottle {
    /// Creates a throttle that allows the first line.
    pub const fn new() -> Self {
        Self(Mutex::new(ThrottleState {
            written: None,
            held_back: 0,
        }))
    }

    /// Returns the number of lines suppressed since the last one if a line may be written now;
    /// otherwise counts it and returns `None`.
    pub fn allow(&self) -> Option<u32> {
        self.allow_at(clock::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u32> {
        let mut state = self.0.lock();
        let quiet = |written: Instant| now.saturating_duration_since(written) < SUMMARY_INTERVAL;
        if state.written.is_some_and(quiet) {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

/// Formats the number of suppressed lines for the end of a log line; empty for none.
pub fn held_back(lines: u32) -> String {
    match lines {
        0 => String::new(),
        1 => " (and one more like it since the last)".to_owned(),
        _ => format!(" (and {lines} more like it since the last)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_is_allowed_with_the_number_of_suppressed_ones() {
        let throttle = LogThrottle::new();
        let start = Instant::now();
        let at = |seconds| throttle.allow_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(59)), (None, None));
        assert_eq!(at(60), Some(2));
        assert_eq!(at(61), None);
        assert_eq!(at(200), Some(1));
    }
}
