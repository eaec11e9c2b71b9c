//! Exponential backoff between attempts to connect.

use crate::net::random;
use std::time::Duration;

/// Maximum delay.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The delay between attempts, which doubles with each failure up to a minute, or stays as long as
/// the first one if that is longer.
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with the delay `first`, or 100 ms if that is longer.
    pub fn new(first: Duration) -> Self {
        let first = first.max(Duration::from_millis(100));
        Self { first, next: first }
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Returns the delay before the next attempt. It is randomised downwards, so that the clients
    /// of a server that was away do not all come back at once.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(MAX_DELAY.max(self.first));
        spread(delay)
    }
}

/// Returns a random time between half of `delay` and all of it.
fn spread(delay: Duration) -> Duration {
    let half = delay / 2;
    // Up to half of the delay in 1/256 steps.
    let part = random() % 256;
    half.saturating_add((half / 256).saturating_mul(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        for seconds in [5, 10, 20, 40, 60, 60] {
            let (delay, most) = (backoff.delay(), Duration::from_secs(seconds));
            assert!(delay >= most / 2 && delay <= most, "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_secs(5));
    }

    #[test]
    fn a_first_delay_above_a_minute_stays() {
        let mut backoff = Backoff::new(Duration::from_secs(120));
        backoff.delay();
        assert!(backoff.delay() >= Duration::from_secs(60));
        assert!(backoff.delay() >= Duration::from_secs(60));
    }
}
