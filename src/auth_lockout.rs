//! The lockout of addresses with too many failed logins, of tunnels or of the web page. Not which of them
//! succeed.

use crate::collections::HashMap;
use crate::net::{clock, network_of};
use crate::sync::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Maximum number of addresses with counted failures.
const MAX_ADDRESSES: usize = 10_000;

/// The failed logins of addresses. After too many, the logins of an address are rejected for a
/// while. Addresses without failures take no memory.
pub struct AuthLockout(Mutex<LockoutTable>);

impl AuthLockout {
    /// Allows `times` failures per address (0 for any number). After more, the address is locked
    /// out for `duration`, which is also how long a failure counts.
    pub fn new(times: u32, duration: Duration) -> Self {
        Self(Mutex::new(LockoutTable {
            times,
            duration,
            ..LockoutTable::default()
        }))
    }

    /// Changes the limits. Counted failures stay. The arguments are those of [`AuthLockout::new`].
    #[cfg(any(feature = "server", test))]
    pub fn set(&self, times: u32, duration: Duration) {
        let mut table = self.lock();
        (table.times, table.duration) = (times, duration);
    }

    fn lock(&self) -> MutexGuard<'_, LockoutTable> {
        self.0.lock()
    }

    /// Returns the time for which logins from this address are still rejected; `None` if they are
    /// not.
    pub fn lockout(&self, ip: IpAddr) -> Option<Duration> {
        self.lock().lockout(&network_of(ip), clock::now())
    }

    /// Counts a failed login from this address. Returns its lockout if that begins with it.
    pub fn failed(&self, ip: IpAddr) -> Option<Lockout> {
        let network = network_of(ip);
        let mut table = self.lock();
        // A login already in progress when the lockout began must not extend it.
        if table.times == 0 || table.refuses(&network) {
            return None;
        }
        let failures = table.count(network, clock::now());
        table.refuses(&network).then(|| Lockout {
            network,
            failures,
            left: table.duration,
        })
    }

    /// Returns all lockouts.
    #[cfg(feature = "web")]
    pub fn list(&self) -> Vec<Lockout> {
        let (table, now) = (self.lock(), clock::now());
        let lockouts = table.entries.iter().filter_map(|(network, entry)| {
            Some(Lockout {
                network: *network,
                failures: entry.failures,
                left: table.lockout(network, now)?,
            })
        });
        lockouts.collect()
    }

    /// Clears the failures of an address after a login with a known id and secret. Returns whether
    /// there were any.
    pub fn succeeded(&self, ip: IpAddr) -> bool {
        self.lock().forget(&network_of(ip)).is_some()
    }
}

/// The lockout of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockout {
    /// The address; for IPv6 the first of its /64.
    pub network: IpAddr,
    /// The number of failed logins.
    pub failures: u32,
    /// The time that is left of it.
    pub left: Duration,
}

impl fmt::Display for Lockout {
    /// Writes what has happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = if self.network.is_ipv6() { "/64" } else { "" };
        let (network, failures) = (self.network, self.failures);
        write!(
            f,
            "{network}{net} has failed to authenticate {failures} times"
        )
    }
}

#[derive(Default)]
struct LockoutTable {
    times: u32,
    duration: Duration,
    entries: HashMap<IpAddr, LockoutEntry>,
    /// The addresses of `entries`, ordered by their last failure.
    order: BTreeMap<u64, IpAddr>,
    /// The last key used in `order`.
    last: u64,
}

struct LockoutEntry {
    failures: u32,
    /// When the last failure was.
    last: Instant,
    /// The key in `order`.
    place: u64,
}

impl LockoutTable {
    /// Returns the remaining time of the network's lockout.
    fn lockout(&self, network: &IpAddr, now: Instant) -> Option<Duration> {
        let entry = self.entries.get(network)?;
        if self.times == 0 || entry.failures <= self.times {
            return None;
        }
        let elapsed = now.saturating_duration_since(entry.last);
        let left = self.duration.checked_sub(elapsed)?;
        Some(left).filter(|left| !left.is_zero())
    }

    fn refuses(&self, network: &IpAddr) -> bool {
        self.lockout(network, clock::now()).is_some()
    }

    /// Counts a failure, and returns the number of failures.
    fn count(&mut self, network: IpAddr, now: Instant) -> u32 {
        let duration = self.duration;
        let expired = |entry: &LockoutEntry| now.saturating_duration_since(entry.last) >= duration;
        while let Some((_, oldest)) = self.order.first_key_value() {
            let oldest = *oldest;
            if !self.entries.get(&oldest).is_none_or(expired) {
                break;
            }
            self.forget_oldest();
        }
        let before = self.forget(&network).map_or(0, |entry| entry.failures);
        if self.entries.len() >= MAX_ADDRESSES {
            self.forget_oldest();
        }
        let failures = before.saturating_add(1);
        self.last = self.last.wrapping_add(1);
        let place = self.last;
        self.order.insert(place, network);
        let last = now;
        self.entries.insert(
            network,
            LockoutEntry {
                failures,
                last,
                place,
            },
        );
        failures
    }

    fn forget(&mut self, network: &IpAddr) -> Option<LockoutEntry> {
        let entry = self.entries.remove(network)?;
        self.order.remove(&entry.place);
        Some(entry)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, network)) = self.order.pop_first() {
            self.entries.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn table() -> LockoutTable {
        LockoutTable {
            times: 1,
            duration: MINUTE,
            ..LockoutTable::default()
        }
    }

    fn is_refused(lockout: &AuthLockout, ip: IpAddr) -> bool {
        lockout.lockout(ip).is_some()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn v4(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn an_address_is_refused_after_more_failures_than_allowed() {
        let lockout = AuthLockout::new(2, MINUTE);
        for _ in 0..2 {
            lockout.failed(v4(1));
            assert!(!is_refused(&lockout, v4(1)));
        }
        lockout.failed(v4(1));
        assert!(is_refused(&lockout, v4(1)));
        assert!(!is_refused(&lockout, v4(2)), "others are not locked out");
    }

    #[test]
    fn a_success_clears_the_count_and_frees_its_memory() {
        let lockout = AuthLockout::new(1, MINUTE);
        lockout.failed(v4(1));
        lockout.succeeded(v4(1));
        lockout.succeeded(v4(2));
        lockout.failed(v4(1));
        assert!(!is_refused(&lockout, v4(1)));
        lockout.succeeded(v4(1));
        let table = lockout.lock();
        assert!(table.entries.is_empty() && table.order.is_empty());
    }

    #[test]
    fn zero_times_or_zero_duration_lock_out_no_address() {
        for lockout in [
            AuthLockout::new(0, MINUTE),
            AuthLockout::new(1, Duration::ZERO),
        ] {
            for _ in 0..9 {
                lockout.failed(v4(1));
            }
            assert!(!is_refused(&lockout, v4(1)));
            assert!(lockout.lock().entries.len() <= 1);
        }
    }

    #[test]
    fn changed_limits_apply_to_failures_counted_before() {
        let lockout = AuthLockout::new(1, MINUTE);
        lockout.failed(v4(1));
        lockout.failed(v4(1));
        assert!(is_refused(&lockout, v4(1)));
        lockout.set(2, MINUTE);
        assert!(!is_refused(&lockout, v4(1)));
        lockout.failed(v4(1));
        assert!(is_refused(&lockout, v4(1)));
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_address() {
        let lockout = AuthLockout::new(1, MINUTE);
        lockout.failed(ip("2001:db8:1:2::1"));
        lockout.failed(ip("2001:db8:1:2:ffff::"));
        assert!(is_refused(&lockout, ip("2001:db8:1:2:3:4:5:6")));
        assert!(!is_refused(&lockout, ip("2001:db8:1:3::1")));
        lockout.failed(ip("192.0.2.1"));
        lockout.failed(ip("::ffff:192.0.2.1"));
        assert!(is_refused(&lockout, ip("192.0.2.1")));
        assert!(!is_refused(&lockout, ip("192.0.2.2")));
        assert!(
            !is_refused(&lockout, ip("::1")),
            "mapped addresses do not share a /64"
        );
    }

    #[test]
    fn a_failure_counts_for_the_duration() {
        let mut table = table();
        let start = Instant::now();
        assert_eq!(table.count(v4(1), start), 1);
        assert_eq!(table.count(v4(2), start + MINUTE / 2), 1);
        assert_eq!(table.count(v4(1), start + MINUTE / 2), 2);
        assert_eq!(table.count(v4(3), start + MINUTE * 3 / 2), 1);
        assert_eq!(table.entries.len(), 1, "the others are forgotten");
        assert_eq!(table.count(v4(1), start + MINUTE * 2), 1);
    }

    #[test]
    fn a_lockout_lasts_from_the_last_failure() {
        let mut table = table();
        let start = Instant::now();
        table.count(v4(1), start);
        assert_eq!(table.lockout(&v4(1), start), None);
        table.count(v4(1), start + MINUTE / 2);
        let left = |after| table.lockout(&v4(1), start + after);
        assert_eq!(left(MINUTE / 2), Some(MINUTE));
        assert_eq!(left(MINUTE), Some(MINUTE / 2));
        assert_eq!(left(MINUTE * 3 / 2), None);
    }

    #[test]
    fn at_most_ten_thousand_addresses_are_held_and_the_oldest_is_evicted() {
        let failures = |table: &LockoutTable, number| {
            table
                .entries
                .get(&v4(number))
                .map_or(0, |entry| entry.failures)
        };
        let mut table = table();
        let now = Instant::now();
        let most = u32::try_from(MAX_ADDRESSES).unwrap();
        for number in 0..most {
            table.count(v4(number), now);
        }
        // The first address is not the oldest any more.
        assert_eq!(table.count(v4(0), now), 2);
        for number in 0..5 {
            table.count(v4(most + number), now);
            assert_eq!(
                (table.entries.len(), table.order.len()),
                (MAX_ADDRESSES, MAX_ADDRESSES)
            );
        }
        for gone in 1..=5 {
            assert_eq!(failures(&table, gone), 0);
        }
        assert_eq!(failures(&table, 0), 2);
        assert_eq!(failures(&table, 6), 1);
    }
}
