//! How much of a busy connection's bytes the kernel is given at a time.
//!
//! What the kernel holds unsent goes before whatever a stream brings next, so it should be
//! little; but on a fast connection little at a time is many system calls. So it goes by what
//! the connection has been taking: about a millisecond's worth.

use std::time::{Duration, Instant};

/// Bytes at a time: where the rate is not known,
pub(super) const DEFAULT_BURST: u32 = 64 * 1024;
/// on the fastest connections,
const MAX_BURST: u32 = 128 * 1024;
/// and on slow ones.
const MIN_BURST: u32 = 8 * 1024;
/// The rate is that of so long a time during which there always was something to send.
const RATE_WINDOW: Duration = Duration::from_millis(50);
/// Bytes a second to bytes at a time.
const PER_SECOND: u64 = 1000;

#[derive(Debug)]
pub(super) struct Pacer {
    burst: u32,
    /// Since when there always was something to send, or the last look at it.
    since: Option<Instant>,
    sent: u32,
}

impl Pacer {
    pub fn new() -> Self {
        Self {
            burst: DEFAULT_BURST,
            since: None,
            sent: 0,
        }
    }

    /// Bytes that the kernel should be given at a time.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// The connection has taken `n` bytes; true if the burst is another one now.
    pub fn sent(&mut self, n: usize, now: Instant) -> bool {
        let Some(since) = self.since else {
            // What it had room for says nothing of its rate.
            self.since = Some(now);
            return false;
        };
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.sent = self.sent.saturating_add(n);
        let time = now.saturating_duration_since(since);
        if time < RATE_WINDOW {
            return false;
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let burst = u64::from(self.sent) * (1_000_000 / PER_SECOND) / micros;
        let burst = u32::try_from(burst)
            .unwrap_or(MAX_BURST)
            .clamp(MIN_BURST, MAX_BURST);
        (self.since, self.sent) = (Some(now), 0);
        std::mem::replace(&mut self.burst, burst) != burst
    }

    /// There is nothing to send; true if the burst is another one now.
    pub fn idle(&mut self, now: Instant) -> bool {
        let since = self.since.take();
        self.sent = 0;
        // Perhaps it could take more. Not so often that a short pause makes it forget.
        let long =
            since.is_some_and(|since| now.saturating_duration_since(since) >= RATE_WINDOW / 2);
        let burst = match long {
            true => self
                .burst
                .saturating_mul(2)
                .min(DEFAULT_BURST)
                .max(self.burst),
            false => self.burst,
        };
        std::mem::replace(&mut self.burst, burst) != burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The burst after half a second in which `rate` bytes a second were taken in `pieces`.
    fn burst_at(pace: &mut Pacer, now: &mut Instant, rate: u32, piece: u32) -> u32 {
        let each = Duration::from_secs_f64(f64::from(piece) / f64::from(rate));
        for _ in 0..(rate / 2).div_ceil(piece) {
            *now += each;
            pace.sent(usize::try_from(piece).unwrap(), *now);
        }
        pace.burst()
    }

    #[test]
    fn a_slow_connection_gets_a_millisecond_at_a_time_and_a_fast_one_all() {
        for piece in [1000, 8192, 20_000] {
            let (mut pace, mut now) = (Pacer::new(), Instant::now());
            assert_eq!(pace.burst(), DEFAULT_BURST);
            let burst = burst_at(&mut pace, &mut now, 12_500_000, piece);
            assert!((12_000..13_000).contains(&burst), "{piece}: {burst}");
            assert_eq!(burst_at(&mut pace, &mut now, 100_000, piece), MIN_BURST);
            assert_eq!(
                burst_at(&mut pace, &mut now, 1_000_000_000, piece),
                MAX_BURST
            );
        }
    }

    #[test]
    fn pauses_make_it_forget_slowly() {
        let (mut pace, mut now) = (Pacer::new(), Instant::now());
        burst_at(&mut pace, &mut now, 1_000_000, 8192);
        assert_eq!(pace.burst(), MIN_BURST);
        (pace.since, pace.sent) = (None, 0);
        pace.sent(1, now);
        assert!(!pace.idle(now + Duration::from_millis(1)));
        assert_eq!(pace.burst(), MIN_BURST);
        for burst in [2 * MIN_BURST, 4 * MIN_BURST, DEFAULT_BURST] {
            pace.sent(1, now);
            assert!(pace.idle(now + RATE_WINDOW - Duration::from_millis(1)));
            assert_eq!(pace.burst(), burst);
        }
    }
}
