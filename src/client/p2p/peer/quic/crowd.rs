//! The time that slow readers have when there is no memory for their bytes, and other channels wait.

use crate::tunnel::STUCK_TIMEOUT;
use std::time::{Duration, Instant};

/// Time for which a reader may take nothing when others have waited for [`STUCK_TIMEOUT`] already. Without it, slow
/// readers of which a few at a time fill the window would hold up others for that time again and again.
const CROWDED_TIME: Duration = Duration::from_millis(500);

/// The times at which slow readers have filled the connection's window without memory for their bytes.
#[derive(Default)]
pub(super) struct Crowd {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Crowd {
    /// Notes that the window is full, and returns the time for which a reader may take nothing.
    pub(super) fn limit(&mut self, now: Instant) -> Duration {
        let time = |since: Option<Instant>| since.map(|it| now.saturating_duration_since(it));
        if time(self.last).is_none_or(|time| time >= STUCK_TIMEOUT) {
            self.since = Some(now);
        }
        self.last = Some(now);
        match time(self.since).is_some_and(|time| time >= STUCK_TIMEOUT) {
            true => CROWDED_TIME,
            false => STUCK_TIMEOUT,
        }
    }
}
