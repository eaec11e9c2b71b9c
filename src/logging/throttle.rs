//! A rate limit for log lines that a peer can cause as often as it likes.

use crate::net::clock;
use crate::sync::Mutex;
use std::time::{Duration, Instant};

/// Time in which a number of lines is allowed; further ones are only counted.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// A limit of one or more log lines a minute, which counts the suppressed ones.
#[derive(Default)]
pub struct LogThrottle(Mutex<ThrottleState>);

#[derive(Default)]
struct ThrottleState {
    /// When the first line of the present minute was written.
    begun: Option<Instant>,
    /// Number of lines that may follow it within the minute, and of those that may still.
    more: u16,
    left: u16,
    held_back: u32,
}

impl LogThrottle {
    /// Creates a throttle that allows the first line.
    pub const fn new() -> Self {
        Self::with_more(0)
    }

    /// Creates a throttle that allows the first line of a minute and as many more.
    pub const fn with_more(more: u16) -> Self {
        Self(Mutex::new(ThrottleState {
            begun: None,
            more,
            left: 0,
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
        let is_present = |begun: Instant| now.saturating_duration_since(begun) < SUMMARY_INTERVAL;
        if !state.begun.is_some_and(is_present) {
            state.begun = Some(now);
            state.left = state.more;
        } else if let Some(left) = state.left.checked_sub(1) {
            state.left = left;
        } else {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
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
        let throttle = LogThrottle::with_more(2);
        let at = |seconds| throttle.allow_at(start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1), at(59)), (Some(0), Some(0), Some(0)));
        assert_eq!((at(59), at(59)), (None, None));
        assert_eq!(
            (at(60), at(61), at(62), at(63)),
            (Some(2), Some(0), Some(0), None)
        );
    }
}
