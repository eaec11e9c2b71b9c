//! A token bucket: a rate in bytes a second, granted in small steps. Tunnels that share a bucket
//! share its rate.

use crate::net::clock;
use crate::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time whose tokens a full bucket holds: the longest burst.
const BURST: Duration = Duration::from_millis(100);
/// Minimum grant in bytes, unless the bucket holds less: smaller moves are not worth a system call.
const MIN_GRANT: u64 = 8 * 1024;

/// A token bucket. Tokens are taken after bytes have moved; at most the granted number may move.
pub struct TokenBucket {
    /// Whether there is a rate. Without one, a grant must not cost a lock and a clock reading.
    limited: AtomicBool,
    /// Present once there was a rate: most tunnels never have one.
    inner: Mutex<Option<Box<BucketState>>>,
}

struct BucketState {
    /// Rate in bytes a second.
    rate: u64,
    /// Billionths of bytes that may move now, so that no rate loses its fractions. Negative after
    /// several threads have each moved a grant of the same tokens.
    tokens: i128,
    at: Instant,
}

const NANO: i128 = 1_000_000_000;

impl TokenBucket {
    /// Creates a bucket with a rate in bytes a second; 0 is no limit.
    pub fn new(rate: u64) -> Self {
        let bucket = Self {
            limited: AtomicBool::new(false),
            inner: Mutex::default(),
        };
        if rate > 0 {
            bucket.set_rate(rate);
        }
        bucket
    }

    /// Sets the rate in bytes a second; 0 is no limit. Tunnels that wait ask again at the time that
    /// they were given before.
    pub fn set_rate(&self, rate: u64) {
        let mut inner = self.inner.lock();
        if rate == 0 && inner.is_none() {
            return;
        }
        let now = clock::now();
        let inner = inner.get_or_insert_with(|| Box::new(BucketState::new(now)));
        if self.is_limited() {
            inner.fill(now);
        } else {
            (inner.tokens, inner.at) = (0, now);
        }
        inner.rate = rate.max(1);
        inner.tokens = inner.tokens.min(i128::from(inner.most()) * NANO);
        self.limited.store(rate > 0, Ordering::Relaxed);
    }

    /// Whether there is a rate.
    pub fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that a sufficiently large request is granted at once; `None`
    /// without a rate.
    pub fn guaranteed(&self) -> Option<usize> {
        if !self.is_limited() {
            return None;
        }
        let inner = self.inner.lock();
        let piece = inner.as_ref()?.most().min(MIN_GRANT);
        Some(usize::try_from(piece).unwrap_or(usize::MAX))
    }

    /// Returns how many of `wanted` bytes may move now, or when to ask again.
    pub fn grant(&self, wanted: usize) -> Result<usize, Instant> {
        if !self.is_limited() {
            return Ok(wanted);
        }
        match &mut *self.inner.lock() {
            Some(inner) => inner.grant(wanted, clock::now()),
            None => Ok(wanted),
        }
    }

    /// Takes the tokens for bytes that have moved.
    pub fn take(&self, n: usize) {
        if !self.is_limited() {
            return;
        }
        // A `usize` has at most 64 bits on every supported target.
        let spent = (n as i128) * NANO;
        if let Some(inner) = &mut *self.inner.lock() {
            inner.tokens = inner.tokens.saturating_sub(spent);
        }
    }
}

impl BucketState {
    fn new(now: Instant) -> Self {
        Self {
            rate: 1,
            tokens: 0,
            at: now,
        }
    }

    /// Returns the capacity in bytes.
    fn most(&self) -> u64 {
        let most = u128::from(self.rate) * BURST.as_nanos() / Duration::from_secs(1).as_nanos();
        // Less than the rate, which fits.
        u64::try_from(most).unwrap_or(u64::MAX).max(1)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let passed = i128::try_from(passed).unwrap_or(i128::MAX);
        let earned = i128::from(self.rate).saturating_mul(passed);
        let most = i128::from(self.most()) * NANO;
        self.tokens = self.tokens.saturating_add(earned).min(most);
        self.at = now;
    }

    fn grant(&mut self, wanted: usize, now: Instant) -> Result<usize, Instant> {
        self.fill(now);
        let held = u64::try_from((self.tokens / NANO).max(0)).unwrap_or(u64::MAX);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let worthwhile = wanted.min(MIN_GRANT).min(self.most()).max(1);
        if held >= worthwhile {
            return Ok(usize::try_from(held.min(wanted)).unwrap_or(usize::MAX));
        }
        let missing = (i128::from(worthwhile) * NANO).saturating_sub(self.tokens);
        let missing = u128::try_from(missing).unwrap_or_default();
        let nanos = missing.div_ceil(u128::from(self.rate));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // A little later, so that the tokens are there by then.
        Err(now + wait + Duration::from_micros(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::MutexGuard;
    use proptest::prelude::*;

    fn state(bucket: &TokenBucket) -> MutexGuard<'_, Option<Box<BucketState>>> {
        bucket.inner.lock()
    }

    /// Moves as much as is granted, on a clock of its own, and returns how much that was.
    fn moved_in(rate: u64, piece: usize, time: Duration) -> u128 {
        let bucket = TokenBucket::new(rate);
        let begin = state(&bucket).as_ref().unwrap().at;
        let mut now = begin;
        let mut moved = 0;
        while now < begin + time {
            let granted = state(&bucket).as_mut().unwrap().grant(piece, now);
            match granted {
                Ok(n) => {
                    assert!(n > 0 && n <= piece);
                    moved += n as u128;
                    let mut inner = state(&bucket);
                    let inner = inner.as_mut().unwrap();
                    inner.tokens -= (n as i128) * NANO;
                }
                Err(later) => {
                    assert!(later > now && later - now <= Duration::from_secs(2));
                    now = later;
                }
            }
        }
        moved
    }

    proptest! {
        #[test]
        fn the_rate_is_kept_whatever_the_pieces(
            rate in 1u64..200_000_000, piece in 1usize..70_000,
        ) {
            let moved = moved_in(rate, piece.max(rate as usize / 10_000), Duration::from_secs(20));
            let right = u128::from(rate) * 20;
            prop_assert!(moved <= right + right / 100 + 1, "{moved} instead of {right}");
            prop_assert!(moved >= right - right / 50 - 1, "{moved} instead of {right}");
        }
    }

    #[test]
    fn unused_tokens_are_kept_for_100_ms_only() {
        let bucket = TokenBucket::new(1_000_000);
        let later = state(&bucket).as_ref().unwrap().at + Duration::from_secs(60);
        assert_eq!(
            state(&bucket).as_mut().unwrap().grant(usize::MAX, later),
            Ok(100_000)
        );
    }

    #[test]
    fn an_overdraft_of_several_threads_is_paid_back() {
        let bucket = TokenBucket::new(1_000_000);
        let full = state(&bucket).as_ref().unwrap().at + BURST;
        // Three threads are granted the full bucket before one of them takes its tokens.
        for _ in 0..3 {
            assert_eq!(
                state(&bucket).as_mut().unwrap().grant(usize::MAX, full),
                Ok(100_000)
            );
        }
        (0..3).for_each(|_| bucket.take(100_000));
        let again = state(&bucket)
            .as_mut()
            .unwrap()
            .grant(1000, full)
            .unwrap_err()
            - full;
        let right = Duration::from_millis(201);
        assert!(again >= right && again < right + BURST / 10, "{again:?}");
    }

    #[test]
    fn the_largest_rate_does_not_overflow() {
        let bucket = TokenBucket::new(u64::MAX);
        let later = state(&bucket).as_ref().unwrap().at + Duration::from_secs(60);
        assert!(state(&bucket).as_mut().unwrap().grant(65536, later).is_ok());
        bucket.take(usize::MAX);
        let bucket = TokenBucket::new(1);
        (0..9).for_each(|_| bucket.take(usize::MAX));
        assert!(state(&bucket).as_mut().unwrap().grant(1, later).is_err());
    }
}
