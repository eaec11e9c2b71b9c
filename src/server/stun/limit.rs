//! How many requests a source may send. The sender of a datagram can be forged, so what is
//! remembered of senders must not grow with them.

use crate::server::auth_lockout::network_of;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

/// Senders have a place by their hash; those who share one share its requests. Nobody outside can
/// know who shares it with whom.
const PLACES: usize = 4096;
/// Requests that a source may send at once. Many clients may be behind one NAT, and each asks a few
/// times when it begins.
const BURST: u16 = 500;
/// Requests it may send in a tenth of a second after that.
const RATE: u16 = 10;

pub struct StunLimit {
    hash: RandomState,
    start: Instant,
    places: Box<[StunBucket]>,
}

#[derive(Clone, Copy)]
struct StunBucket {
    /// Tenths of a second from the start, wrapping.
    at: u32,
    /// Requests that were left then.
    left: u16,
}

impl StunLimit {
    pub fn new(now: Instant) -> Self {
        let place = StunBucket { at: 0, left: BURST };
        Self {
            hash: RandomState::new(),
            start: now,
            places: vec![place; PLACES].into(),
        }
    }

    /// Whether a request from there may be answered. Who sends too many has the later ones
    /// answered at the rate above.
    pub fn allows(&mut self, from: IpAddr, now: Instant) -> bool {
        let tenths = now.saturating_duration_since(self.start).as_millis() / 100;
        // Wrapping is meant.
        let tenths = tenths as u32;
        let at = self.hash.hash_one(network_of(from)) % PLACES as u64;
        let place = usize::try_from(at)
            .ok()
            .and_then(|at| self.places.get_mut(at));
        place.is_some_and(|place| place.take(tenths))
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

    /// How many of many requests are allowed.
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
        // What a clock that does not go says, must not matter.
        assert_eq!(allowed(&mut limit, from, later), 0);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
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
    fn others_are_answered_while_one_sends_too_many() {
        let now = Instant::now();
        let mut limit = StunLimit::new(now);
        assert_eq!(allowed(&mut limit, ip("192.0.2.1"), now), BURST);
        let others = (0..256).filter(|n| limit.allows(ip(&format!("198.51.100.{n}")), now));
        // One or two of them may share its place by chance, nine never do.
        assert!(others.count() >= 248);
    }

    #[test]
    fn forged_senders_take_no_more_memory() {
        let now = Instant::now();
        let mut limit = StunLimit::new(now);
        for n in 0..100_000_u32 {
            limit.allows(std::net::Ipv4Addr::from(n).into(), now);
        }
        assert_eq!(limit.places.len(), PLACES);
        assert!(std::mem::size_of_val(&*limit.places) <= 32 * 1024);
    }
}
