//! How far a way to a server is trusted, by how long its tunnels last: some networks let a hello pass and then cut
//! the tunnel, or drop large packets. Not the ways, see `ways`.

use std::time::{Duration, Instant};

/// Number of tunnels in a row that are lost early, after which a way is avoided.
const MAX_EARLY_LOSSES: u32 = 2;
/// Time for which a way is avoided first.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Maximum time for which a way is avoided: the time doubles each time.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The trust in one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WayTrust {
    /// The tunnels over the way last.
    #[default]
    Trusted,
    /// This number of tunnels in a row was lost early, the last one at this time.
    Doubted(u32, Instant),
    /// The tunnels over the way are lost early: it comes last for the time `pause`. After that it is tried again,
    /// and one more early loss suffices.
    Avoided {
        /// When the last tunnel was lost.
        since: Instant,
        /// For how long the way comes last.
        pause: Duration,
    },
}

impl WayTrust {
    /// Whether the way comes last at present.
    pub fn is_avoided(&self, now: Instant) -> bool {
        match self {
            Self::Trusted | Self::Doubted(..) => false,
            Self::Avoided { since, pause } => now.saturating_duration_since(*since) < *pause,
        }
    }

    /// Notes that a tunnel over the way has ended later than early.
    pub fn note_lasting(&mut self) {
        *self = Self::Trusted;
    }

    /// Notes that a tunnel over the way was lost early. It was open since `begun`: tunnels that are lost together count
    /// once. Returns the time for which the way is avoided from now on.
    pub fn note_early_loss(&mut self, begun: Instant, now: Instant) -> Option<Duration> {
        let (losses, pause) = match *self {
            Self::Trusted => (1, FIRST_PAUSE),
            Self::Doubted(_, last) | Self::Avoided { since: last, .. } if begun < last => {
                return None
            }
            Self::Doubted(losses, _) => (losses.saturating_add(1), FIRST_PAUSE),
            // The way is used all the same if no other one works.
            Self::Avoided { .. } if self.is_avoided(now) => return None,
            Self::Avoided { pause, .. } => (MAX_EARLY_LOSSES, pause.saturating_mul(2)),
        };
        if losses < MAX_EARLY_LOSSES {
            *self = Self::Doubted(losses, now);
            return None;
        }
        let pause = pause.min(MAX_PAUSE);
        *self = Self::Avoided { since: now, pause };
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_way_that_loses_two_tunnels_early_is_avoided_for_ever_longer() {
        let (mut trust, mut now) = (WayTrust::default(), Instant::now());
        assert_eq!(trust.note_early_loss(now, now + SECOND), None);
        assert!(!trust.is_avoided(now + SECOND));
        now += 2 * SECOND;
        for minutes in [5, 10, 20, 40, 60, 60] {
            let pause = minutes * MINUTE;
            assert_eq!(trust.note_early_loss(now, now + SECOND), Some(pause));
            now += SECOND;
            assert!(trust.is_avoided(now) && trust.is_avoided(now + pause - SECOND));
            now += pause;
            assert!(!trust.is_avoided(now));
        }
    }

    #[test]
    fn tunnels_that_are_lost_together_count_once() {
        let (mut trust, now) = (WayTrust::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(trust.note_early_loss(now, now + SECOND), None);
        }
        let later = now + 2 * SECOND;
        assert!(trust.note_early_loss(later, later + SECOND).is_some());
        for _ in 0..10 {
            assert_eq!(trust.note_early_loss(later, later + SECOND), None);
        }
    }

    #[test]
    fn a_way_that_is_used_while_it_is_avoided_is_not_avoided_for_longer() {
        let (mut trust, mut now) = (WayTrust::default(), Instant::now());
        for _ in 0..100 {
            trust.note_early_loss(now, now + SECOND);
            now += 2 * SECOND;
        }
        assert!(!trust.is_avoided(now + 5 * MINUTE));
    }

    #[test]
    fn a_tunnel_that_lasts_restores_trust() {
        let (mut trust, now) = (WayTrust::default(), Instant::now());
        trust.note_early_loss(now, now + SECOND);
        trust.note_lasting();
        let later = now + MINUTE;
        assert_eq!(trust.note_early_loss(later, later + SECOND), None);
        let later = later + MINUTE;
        assert_eq!(trust.note_early_loss(later, later), Some(FIRST_PAUSE));
        trust.note_lasting();
        assert!(!trust.is_avoided(later));
    }
}
