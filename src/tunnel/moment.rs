//! A time in eight bytes. An `Instant` has sixteen, and each tunnel remembers several.

use crate::net::clock;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A time, as exact as an [`Instant`]: one more than the nanoseconds since the first reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(NonZeroU64);

impl Moment {
    /// Returns the present time.
    pub fn now() -> Self {
        Self::at(clock::now())
    }

    /// Converts a time.
    pub fn at(now: Instant) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = now.saturating_duration_since(*START.get_or_init(|| now));
        // A program that runs for less than 584 years.
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Returns the time from `self` to `now`; zero if `self` is later.
    pub fn until(self, now: Moment) -> Duration {
        Duration::from_nanos(now.0.get().saturating_sub(self.0.get()))
    }
}

#[cfg(test)]
impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_nanos().try_into().unwrap()))
    }
}
