//! The clock, and coarse clocks in four bytes for the activity of many streams. All of gt reads the
//! time here, so that a simulation can have a time of its own.

use super::kernel;
pub use super::kernel::{now, time_of_day};
use std::time::{Duration, Instant};

/// Returns the time that has passed since then; zero if it is still ahead.
pub fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// The resolution of [`Tick`].
pub const CLOCK_STEP: Duration = Duration::from_millis(100);

/// A time in tenths of a second since the clock was first read. Wraps after 13 years; differences
/// stay right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// Returns the present time.
    pub fn now() -> Self {
        Self::at(now())
    }

    /// Converts a time.
    pub fn at(now: Instant) -> Self {
        let since = now.saturating_duration_since(kernel::start());
        // Wraps by design. No value here exceeds 64 bits, since longer ones are slow to divide.
        Self(
            (since.as_secs() as u32)
                .wrapping_mul(10)
                .wrapping_add(since.subsec_millis() / 100),
        )
    }

    /// Returns the time from `self` to `now`; zero if `self` is later.
    pub fn until(self, now: Tick) -> Duration {
        let tenths = now.0.wrapping_sub(self.0);
        if tenths > u32::MAX / 2 {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::from(tenths) * 100)
    }
}

/// Returns the microseconds since the clock was first read. They wrap after 71 minutes, so they
/// serve only for short times between frequent events.
pub fn micros() -> u32 {
    let since = since(kernel::start());
    // Wraps by design.
    (since.as_secs() as u32)
        .wrapping_mul(1_000_000)
        .wrapping_add(since.subsec_micros())
}

/// Returns the first multiple of `step` (counted from the clock's first reading) after `now`. Many
/// timers with the same step wake the process once.
#[cfg(feature = "p2p")]
pub fn next_step(now: Instant, step: Duration) -> Instant {
    let since = now.saturating_duration_since(kernel::start());
    let over = since.as_nanos().checked_rem(step.as_nanos()).unwrap_or(0);
    now + step.saturating_sub(Duration::from_nanos(u64::try_from(over).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "p2p")]
    #[test]
    fn steps_are_common_to_all_callers_and_always_in_the_future() {
        const STEP: Duration = Duration::from_secs(2);
        // Later than any time that other tests pass.
        let late = Instant::now() + Duration::from_secs(86_400);
        let first = next_step(late, STEP);
        assert_eq!(next_step(first, STEP), first + STEP);
        for millis in [0, 1, 999, 1999] {
            let now = first + Duration::from_millis(millis);
            assert_eq!(next_step(now, STEP), first + STEP);
        }
    }

    #[test]
    fn differences_are_right_across_the_wrap() {
        let (before, after) = (Tick(u32::MAX - 4), Tick(5));
        assert_eq!(before.until(after), Duration::from_secs(1));
        assert_eq!(after.until(before), Duration::ZERO);
    }
}
