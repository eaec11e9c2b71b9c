//! The round-trip time of a tunnel, by pings that are numbered. GT/2 alone.

use std::time::{Duration, Instant};

/// A ping that was not answered for so long is not waited for any more.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// The last ping that has no answer yet.
    asked: Option<Instant>,
    /// Its number.
    number: u64,
    smoothed: Option<Duration>,
    /// The shortest lately: queues on the way lengthen the others.
    least: Duration,
    /// When the last answer came.
    answered: Option<Instant>,
}

impl RoundTrip {
    /// The number of a new ping. The one before is not waited for.
    pub fn ping(&mut self, now: Instant) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.asked = Some(now);
        self.number
    }

    /// Whether there is none on its way and the last answer is at least so old.
    pub fn is_due(&self, now: Instant, age: Duration) -> bool {
        let old = |at: Option<Instant>, age| at.is_none_or(|at| now.duration_since(at) >= age);
        old(self.asked, PING_TIMEOUT) && old(self.answered, age)
    }

    pub fn pong(&mut self, number: u64, now: Instant) {
        if number != self.number {
            return;
        }
        let Some(asked) = self.asked.take() else {
            return;
        };
        let took = now.duration_since(asked);
        self.answered = Some(now);
        self.smoothed = Some(match self.smoothed {
            Some(before) => (before * 7 + took) / 8,
            None => took,
        });
        self.least = match self.least {
            Duration::ZERO => took,
            // Slowly: a queue of our own making is on the way for as long as somebody sends
            // much, and windows must not grow because of it.
            least => took.min(least + least / 64),
        };
    }

    /// Smoothed, as soon as it is known.
    pub fn get(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The shortest lately; zero while it is not known.
    pub fn least(&self) -> Duration {
        self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_known_after_the_answer_to_the_last_ping() {
        let mut trip = RoundTrip::default();
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert!(trip.is_due(at(0), Duration::ZERO));
        let first = trip.ping(at(0));
        assert!(!trip.is_due(at(1), Duration::ZERO), "one is on its way");
        let second = trip.ping(at(10));
        trip.pong(first, at(20));
        assert_eq!(trip.get(), None, "nobody waits for that one");
        trip.pong(second, at(30));
        trip.pong(second, at(500));
        assert_eq!(trip.get(), Some(Duration::from_millis(20)));
        assert!(!trip.is_due(at(40), Duration::from_secs(1)));
        assert!(trip.is_due(at(1030), Duration::from_secs(1)));
    }

    #[test]
    fn the_least_follows_a_shorter_way_at_once_and_a_longer_one_slowly() {
        let mut trip = RoundTrip::default();
        let begin = Instant::now();
        let mut sample = |millis| {
            let number = trip.ping(begin);
            trip.pong(number, begin + Duration::from_millis(millis));
            trip.least().as_millis()
        };
        assert_eq!(sample(80), 80);
        assert_eq!(sample(40), 40);
        assert_eq!(sample(400), 40);
        for _ in 0..200 {
            sample(400);
        }
        assert_eq!(sample(400), 400);
    }

    #[test]
    fn a_ping_without_an_answer_does_not_end_the_measuring() {
        let mut trip = RoundTrip::default();
        let begin = Instant::now();
        trip.ping(begin);
        assert!(trip.is_due(begin + PING_TIMEOUT, Duration::ZERO));
    }
}
