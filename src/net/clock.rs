//! A coarse clock in four bytes, for the activity of many streams. Not for waiting.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Tenths of a second since the process first asked. Wraps after 13 years, which
/// differences survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    pub fn now() -> Self {
        Self::at(Instant::now())
    }

    pub fn at(now: Instant) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = now.saturating_duration_since(*START.get_or_init(|| now));
        // Wrapping is meant. No number here is longer than 64 bits: those are slow to divide.
        Self(
            (since.as_secs() as u32)
                .wrapping_mul(10)
                .wrapping_add(since.subsec_millis() / 100),
        )
    }

    /// How long ago `self` was at `now`; zero if it was later.
    pub fn until(self, now: Tick) -> Duration {
        let tenths = now.0.wrapping_sub(self.0);
        if tenths > u32::MAX / 2 {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::from(tenths) * 100)
    }
}

/// Millionths of a second since the process first asked. Wraps after 71 minutes, so it is for
/// short times between things that happen often.
pub fn micros() -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    // Wrapping is meant.
    (since.as_secs() as u32)
        .wrapping_mul(1_000_000)
        .wrapping_add(since.subsec_micros())
}

/// The first moment after `now` of those that are whole steps after the process first asked. Many
/// that wait in the same steps wake the process once.
#[cfg(feature = "p2p")]
pub fn next_step(now: Instant, step: Duration) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*START.get_or_init(|| now));
    let over = since.as_nanos().checked_rem(step.as_nanos()).unwrap_or(0);
    now + step.saturating_sub(Duration::from_nanos(u64::try_from(over).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "p2p")]
    #[test]
    fn steps_are_those_of_all_and_always_to_come() {
        const STEP: Duration = Duration::from_secs(2);
        // Later than what any test beside this one calls now.
        let late = Instant::now() + Duration::from_secs(86_400);
        let first = next_step(late, STEP);
        assert_eq!(next_step(first, STEP), first + STEP);
        for millis in [0, 1, 999, 1999] {
            let now = first + Duration::from_millis(millis);
            assert_eq!(next_step(now, STEP), first + STEP);
        }
    }

    #[test]
    fn differences_survive_the_wrap() {
        let (before, after) = (Tick(u32::MAX - 4), Tick(5));
        assert_eq!(before.until(after), Duration::from_secs(1));
        assert_eq!(after.until(before), Duration::ZERO);
    }
}
