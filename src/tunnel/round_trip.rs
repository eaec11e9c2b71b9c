//! The round-trip time of a tunnel, measured by numbered pings. GT/2 only: pings of GT/1 have no
//! number.

use super::moment::Moment;
use std::num::NonZeroU32;
use std::time::Duration;

/// A ping that is unanswered for this long counts as lost.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// The measurements of one tunnel.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// When the ping that is still unanswered was sent.
    asked: Option<Moment>,
    /// Number of the last ping.
    number: u64,
    /// Microseconds.
    smoothed: Option<NonZeroU32>,
    /// Recent minimum: queues on the path lengthen the other samples.
    /// Microseconds; 0 before the first answer.
    minimum: u32,
    /// When the last answer came.
    answered: Option<Moment>,
}

impl RoundTrip {
    /// Starts a measurement and returns the number of its ping. An earlier ping is given up.
    pub fn ping(&mut self, now: Moment) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.asked = Some(now);
        self.number
    }

    /// Whether no ping is outstanding and the last answer is at least `age` old.
    pub fn is_due(&self, now: Moment, age: Duration) -> bool {
        let old = |at: Option<Moment>, age| at.is_none_or(|at| at.until(now) >= age);
        old(self.asked, PING_TIMEOUT) && old(self.answered, age)
    }

    /// Takes an answer. Answers to earlier pings are ignored.
    pub fn pong(&mut self, number: u64, now: Moment) {
        if number != self.number {
            return;
        }
        let Some(asked) = self.asked.take() else {
            return;
        };
        let took = micros(asked.until(now));
        self.answered = Some(now);
        self.smoothed = Some(match self.smoothed {
            Some(before) => {
                let sum = u64::from(before.get()) * 7 + u64::from(took.get());
                // The mean of numbers that fit.
                u32::try_from(sum / 8)
                    .ok()
                    .and_then(NonZeroU32::new)
                    .unwrap_or(took)
            }
            None => took,
        });
        self.minimum = match self.minimum {
            0 => took.get(),
            // Rises slowly: a bulk stream keeps a queue on the path, and windows must not grow
            // because of it.
            least => took.get().min(least.saturating_add(least / 64 + 1)),
        };
    }

    /// Returns the smoothed time; `None` before the first answer.
    pub fn get(&self) -> Option<Duration> {
        self.smoothed
            .map(|time| Duration::from_micros(time.get().into()))
    }

    /// Returns the recent minimum; zero before the first answer.
    pub fn minimum(&self) -> Duration {
        Duration::from_micros(self.minimum.into())
    }
}

/// Converts a time to microseconds, 1 or more; an answer that takes longer than 71 minutes counts
/// as one of 71 minutes.
fn micros(time: Duration) -> NonZeroU32 {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_known_after_the_answer_to_the_last_ping() {
        let mut trip = RoundTrip::default();
        let begin = Moment::now();
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
    fn the_minimum_falls_at_once_and_rises_slowly() {
        let mut trip = RoundTrip::default();
        let begin = Moment::now();
        let mut sample = |millis| {
            let number = trip.ping(begin);
            trip.pong(number, begin + Duration::from_millis(millis));
            trip.minimum().as_millis()
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
    fn a_lost_ping_does_not_stop_the_measurements() {
        let mut trip = RoundTrip::default();
        let begin = Moment::now();
        trip.ping(begin);
        assert!(trip.is_due(begin + PING_TIMEOUT, Duration::ZERO));
    }
}
