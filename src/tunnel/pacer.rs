//! The burst: how many bytes of a busy connection the kernel is given at a time.
//!
//! Bytes that the kernel holds unsent go before anything that a stream brings next, so they should
//! be few; but on a fast connection small writes mean many system calls. The burst is therefore
//! what the connection has been taking in about a millisecond.

use std::time::{Duration, Instant};

/// Burst in bytes while the connection's rate is not known.
pub(super) const DEFAULT_BURST: u32 = 64 * 1024;
/// Largest burst in bytes, on the fastest connections.
const MAX_BURST: u32 = 128 * 1024;
/// Smallest burst in bytes, on slow connections.
const MIN_BURST: u32 = 8 * 1024;
/// Time without an idle moment over which the rate is measured.
const RATE_WINDOW: Duration = Duration::from_millis(50);
/// Bursts a second at the measured rate.
const PER_SECOND: u64 = 1000;

/// The measured rate of one connection, as a burst in bytes.
#[derive(Debug)]
pub(super) struct Pacer {
    burst: u32,
    /// Start of the present measurement; `None` while there is nothing to send.
    since: Option<Instant>,
    sent: u32,
}

impl Pacer {
    /// Creates the measurement of a connection that takes `burst` bytes at a time as far as known.
    pub fn new(burst: u32) -> Self {
        Self {
            burst,
            since: None,
            sent: 0,
        }
    }

    /// Returns the number of bytes that the kernel should be given at a time.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Notes that the connection has taken `n` bytes. True if the burst has changed.
    pub fn sent(&mut self, n: usize, now: Instant) -> bool {
        let Some(since) = self.since else {
            // The first write after a pause shows the free buffer, not the rate.
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

    /// Notes that there is nothing to send. True if the burst has changed.
    pub fn idle(&mut self, now: Instant) -> bool {
        let since = self.since.take();
        self.sent = 0;
        // The connection may be faster than measured. A short pause must not discard the
        // measurement.
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

    /// Returns the burst after half a second at `rate` bytes a second in writes of `piece` bytes.
    fn burst_at(pace: &mut Pacer, now: &mut Instant, rate: u32, piece: u32) -> u32 {
        let each = Duration::from_secs_f64(f64::from(piece) / f64::from(rate));
        for _ in 0..(rate / 2).div_ceil(piece) {
            *now += each;
            pace.sent(usize::try_from(piece).unwrap(), *now);
        }
        pace.burst()
    }

    #[test]
    fn the_burst_is_a_millisecond_at_the_measured_rate_within_its_bounds() {
        for piece in [1000, 8192, 20_000] {
            let (mut pace, mut now) = (Pacer::new(DEFAULT_BURST), Instant::now());
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
    fn idle_time_raises_a_small_burst_step_by_step() {
        let (mut pace, mut now) = (Pacer::new(DEFAULT_BURST), Instant::now());
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
