//! Exponential backoff between attempts to connect.

use crate::net::random;
use std::time::Duration;

/// Maximum delay of the first attempt after a success.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(1);
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

    /// Starts over after a success, and returns the delay before the next attempt: a random one of up
    /// to a second, since a server that goes away may have thousands of clients.
    pub fn restart(&mut self) -> Duration {
        self.next = self.first;
        let most = self.first.min(MAX_FIRST_DELAY);
        (most / 256).saturating_mul(random() % 256)
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
        assert!(backoff.restart() < Duration::from_secs(1));
        assert!(backoff.delay() <= Duration::from_secs(5));
    }

    #[test]
    fn the_first_attempts_of_many_clients_are_spread_over_a_second() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        let delays: Vec<_> = (0..1000).map(|_| backoff.restart()).collect();
        for tenth in 0..10 {
            let from = Duration::from_millis(tenth * 100);
            let its =
                |delay: &&Duration| (from..from + Duration::from_millis(100)).contains(*delay);
            let its = delays.iter().filter(its).count();
            assert!(
                (20..300).contains(&its),
                "{its} of 1000 in the tenth {tenth}"
            );
        }
        // A short reconnectDelay stays short.
        let mut backoff = Backoff::new(Duration::from_millis(200));
        assert!(backoff.restart() < Duration::from_millis(200));
    }

    #[test]
    fn a_first_delay_above_a_minute_stays() {
        let mut backoff = Backoff::new(Duration::from_secs(120));
        backoff.delay();
        assert!(backoff.delay() >= Duration::from_secs(60));
        assert!(backoff.delay() >= Duration::from_secs(60));
    }
}
