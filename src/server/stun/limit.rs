//! A limit of STUN requests per source address. Source addresses can be forged, so the memory for
//! them is fixed.

use crate::collections::Hashing;
use crate::net::network_of;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

/// Number of buckets. Sources are assigned by a keyed hash, so that outsiders cannot find out which
/// sources share a bucket and its limit.
const BUCKETS: usize = 4096;
/// Number of requests that a source may send at once. Many clients may share a NAT's address, and
/// each sends a few when it starts.
const BURST: u16 = 500;
/// Number of requests per tenth of a second that a source may send after [`BURST`].
const RATE: u16 = 10;

/// The request limit of all sources.
pub struct StunLimit {
    hash: Hashing,
    start: Instant,
    buckets: Box<[StunBucket]>,
}

#[derive(Clone, Copy)]
struct StunBucket {
    /// When `left` was updated, in tenths of a second since the start; wraps.
    at: u32,
    /// Number of requests left at `at`.
    left: u16,
}

impl StunLimit {
    pub fn new(now: Instant) -> Self {
        let bucket = StunBucket { at: 0, left: BURST };
        Self {
            hash: Hashing::default(),
            start: now,
            buckets: vec![bucket; BUCKETS].into(),
        }
    }

    /// Whether a request from this address may be answered.
    pub fn allows(&mut self, from: IpAddr, now: Instant) -> bool {
        let tenths = now.saturating_duration_since(self.start).as_millis() / 100;
        // Wrapping is intended.
        let tenths = tenths as u32;
        let at = self.hash.hash_one(network_of(from)) % BUCKETS as u64;
        let bucket = usize::try_from(at)
            .ok()
            .and_then(|at| self.buckets.get_mut(at));
        bucket.is_some_and(|bucket| bucket.take(tenths))
    }
}

impl StunBucket {
    fn take(&mut self, tenths: u32) -> bool {
        let since = u16::try_from(tenths.wrapping_sub(self.at)).unwrap_or(u16::MAX);
        let more = since.saturating_mul(RATE);
        self.left = self.left.saturating_add(more).min(BURST);
        self.at = tenths;
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or_default();
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Returns how many of twice the burst are allowed.
    fn allowed(limit: &mut StunLimit, from: IpAddr, now: Instant) -> u16 {
        let all = 0..2 * BURST;
        let count = all.filter(|_| limit.allows(from, now)).count();
        u16::try_from(count).unwrap()
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let mut limit = StunLimit::new(now);
        let from = ip("192.0.2.1");
        assert_eq!(allowed(&mut limit, from, now), BURST);
        for tenths in [1, 3, 4] {
            let later = now + Duration::from_millis(100 * tenths);
            let more = if tenths == 3 { 2 * RATE } else { RATE };
            assert_eq!(allowed(&mut limit, from, later), more, "{tenths}");
        }
        let later = now + Duration::from_secs(3600);
        assert_eq!(allowed(&mut limit, from, later), BURST);
        // A clock that stands still adds nothing.
        assert_eq!(allowed(&mut limit, from, later), 0);
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_64() {
        let now = Instant::now();
        for (one, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ] {
            let mut limit = StunLimit::new(now);
            assert_eq!(allowed(&mut limit, ip(one), now), BURST);
            assert_eq!(allowed(&mut limit, ip(other), now), 0, "{other}");
        }
    }

    #[test]
    fn other_sources_are_answered_while_one_exceeds_its_limit() {
        let now = Instant::now();
        let mut limit = StunLimit::new(now);
        assert_eq!(allowed(&mut limit, ip("192.0.2.1"), now), BURST);
        let others = (0..256).filter(|n| limit.allows(ip(&format!("198.51.100.{n}")), now));
        // One or two of them may share its bucket by chance, nine do not.
        assert!(others.count() >= 248);
    }

    #[test]
    fn forged_sources_take_no_memory() {
        let now = Instant::now();
        let mut limit = StunLimit::new(now);
        for n in 0..100_000_u32 {
            limit.allows(std::net::Ipv4Addr::from(n).into(), now);
        }
        assert_eq!(limit.buckets.len(), BUCKETS);
        assert!(std::mem::size_of_val(&*limit.buckets) <= 32 * 1024);
    }
}
