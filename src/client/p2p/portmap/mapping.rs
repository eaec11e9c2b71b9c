//! One mapping in the course of time: when it is renewed, and whether its gateway has forgotten it. No
//! sockets and clocks.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Lifetime that is asked for, in seconds.
pub const LIFETIME: u32 = 3600;
/// Bounds of a lifetime in seconds, whatever the gateway says: 0 would be renewed all the time, and a year would
/// never be.
const LIFETIMES: [u32; 2] = [120, 2 * LIFETIME];
/// Interval in which the gateway is asked whether it still has the mapping.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Difference of an epoch in seconds that rounding and delays explain (RFC 6886, section 3.6).
const EPOCH_SLACK: u64 = 2;

/// What a gateway answers to a request for a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The gateway has made or renewed the mapping.
    Mapped {
        /// The external address and port.
        external: SocketAddrV4,
        /// Lifetime in seconds.
        lifetime: u32,
        /// Seconds since the gateway has begun; 0 if the protocol does not tell.
        epoch: u32,
    },
    /// The gateway refuses, with this number of its protocol.
    Refused(u16),
}

/// The time of a gateway, by which its restart shows: with its state, it loses its mappings.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    seconds: u32,
    at: Instant,
}

impl Epoch {
    /// Notes the first time that a gateway has told.
    pub fn new(seconds: u32, now: Instant) -> Self {
        Self { seconds, at: now }
    }

    /// Notes a later one. False if the gateway has begun anew in between: its time has gone back, or has not passed
    /// as here, beyond an eighth of it (RFC 6886, section 3.6; RFC 6887, section 8.5).
    pub fn passes(&mut self, seconds: u32, now: Instant) -> bool {
        let here = now.saturating_duration_since(self.at).as_secs();
        let expected = u64::from(self.seconds) + here * 7 / 8;
        let goes_on = u64::from(seconds) + EPOCH_SLACK >= expected;
        *self = Self::new(seconds, now);
        goes_on
    }
}

/// When a mapping has to be renewed and checked.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    renewal: Instant,
    check: Instant,
}

/// What is to be done about a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Ask for it again.
    Renew,
    /// Ask whether it is still there.
    Check,
    /// Nothing before this time.
    At(Instant),
}

impl Schedule {
    /// Begins with a mapping of this lifetime in seconds.
    pub fn new(lifetime: u32, now: Instant) -> Self {
        let [least, most] = LIFETIMES;
        let half = lifetime.clamp(least, most) / 2;
        Self {
            renewal: now + Duration::from_secs(half.into()),
            check: now + CHECK_INTERVAL,
        }
    }

    /// Returns what is due.
    pub fn due(&self, now: Instant) -> Due {
        if self.renewal <= now {
            Due::Renew
        } else if self.check <= now {
            Due::Check
        } else {
            Due::At(self.renewal.min(self.check))
        }
    }

    /// Notes that the mapping is still there.
    pub fn checked(&mut self, now: Instant) {
        self.check = now + CHECK_INTERVAL;
    }
}

/// The external address that is asked for: the port of this machine, or what it was before.
pub fn suggestion(port: u16, before: Option<SocketAddrV4>) -> SocketAddrV4 {
    before.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gateway_that_has_begun_anew_is_noticed() {
        let now = Instant::now();
        for (before, passed, after, goes_on) in [
            (1000, 60, 1060, true),
            // Clocks that differ by less than an eighth.
            (1000, 80, 1070, true),
            (1000, 80, 1067, false),
            (1000, 60, 0, false),
            (1000, 60, 999, false),
            (0, 0, 0, true),
            (10, 60, 60, true),
            (u32::MAX, 60, u32::MAX, false),
        ] {
            let mut epoch = Epoch::new(before, now);
            let then = now + passed * SECOND;
            assert_eq!(
                epoch.passes(after, then),
                goes_on,
                "{before} {passed} {after}"
            );
            assert!(epoch.passes(after, then));
        }
    }

    #[test]
    fn a_mapping_is_renewed_at_half_of_its_lifetime_and_checked_before() {
        let now = Instant::now();
        let mut schedule = Schedule::new(600, now);
        assert_eq!(schedule.due(now), Due::At(now + 60 * SECOND));
        assert_eq!(schedule.due(now + 60 * SECOND), Due::Check);
        schedule.checked(now + 290 * SECOND);
        assert_eq!(
            schedule.due(now + 299 * SECOND),
            Due::At(now + 300 * SECOND)
        );
        assert_eq!(schedule.due(now + 300 * SECOND), Due::Renew);
        // Neither all the time nor never.
        for (lifetime, renewal) in [(0, 60), (1, 60), (u32::MAX, 3600)] {
            let schedule = Schedule::new(lifetime, now);
            assert_eq!(
                schedule.due(now + renewal * SECOND),
                Due::Renew,
                "{lifetime}"
            );
            let early = now + renewal * SECOND - SECOND;
            assert_ne!(schedule.due(early), Due::Renew, "{lifetime}");
        }
    }
}
