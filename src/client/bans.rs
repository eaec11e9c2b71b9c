//! Counts the connections of each address to a service (`visitorRate`), and bans those that open too
//! many (`banFor`).

use super::visitor_rules::ServiceKey;
use crate::collections::HashMap;
use crate::config::VisitorRate;
use crate::net::{clock, network_of};
use crate::sync::{Mutex, MutexGuard};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Maximum number of addresses that are counted, of all services together.
const MAX_ADDRESSES: usize = 10_000;

/// The addresses that have connected lately, and those that are banned.
pub struct Bans(Mutex<BanTable>);

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateVerdict {
    /// It is one of those that the address may have.
    Admitted,
    /// It is one too many; the address is banned from now on for this long, which may be zero.
    TooMany(Duration),
    /// The address is banned.
    Banned,
}

/// What has become of the rate of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateChange {
    Unchanged,
    /// What was counted says nothing any more, but bans stay.
    Changed,
    /// There is none any more, and there are no bans.
    Removed,
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The service that the ban is for.
    pub service: ServiceKey,
    /// The address; for IPv6 the first of its /64.
    pub network: IpAddr,
    /// The time that is left of it.
    pub left: Duration,
}

struct BanTable {
    begun: Instant,
    /// The services that have been visited. Their places are their numbers.
    services: Vec<ServiceKey>,
    /// By the number of the service, and by [`network_of`] the address.
    entries: HashMap<(usize, IpAddr), Entry>,
}

/// An address. The times are microseconds since the table was created.
struct Entry {
    /// When the address has used up none of its connections: each moves this by the time in which
    /// another one is allowed (the generic cell rate algorithm, ITU-T I.371).
    rested: u64,
    /// The end of its ban, or a time that has passed.
    banned: u64,
}

impl Entry {
    /// When the entry says nothing any more.
    fn end(&self) -> u64 {
        self.rested.max(self.banned)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Default for Bans {
    fn default() -> Self {
        Self(Mutex::new(BanTable {
            begun: clock::now(),
            services: Vec::new(),
            entries: HashMap::default(),
        }))
    }
}

impl Bans {
    fn lock(&self) -> MutexGuard<'_, BanTable> {
        self.0.lock()
    }

    /// Counts a new connection to a service.
    pub fn count(&self, service: &ServiceKey, visitor: IpAddr, rate: &VisitorRate) -> RateVerdict {
        self.lock()
            .count(service, network_of(visitor), rate, clock::now())
    }

    /// Forgets what no longer holds after the rates of services have changed.
    pub fn change(&self, of: impl Fn(&ServiceKey) -> RateChange) {
        let mut table = self.lock();
        let now = table.now(clock::now());
        let BanTable {
            services, entries, ..
        } = &mut *table;
        entries.retain(|(service, _), entry| {
            match services.get(*service).map_or(RateChange::Removed, &of) {
                RateChange::Unchanged => true,
                RateChange::Changed => {
                    entry.rested = now;
                    entry.banned > now
                }
                RateChange::Removed => false,
            }
        });
        if entries.is_empty() {
            services.clear();
        }
    }

    /// Returns all bans.
    pub fn list(&self) -> Vec<Ban> {
        let table = self.lock();
        let now = table.now(clock::now());
        let entries = table
            .entries
            .iter()
            .filter_map(|((service, network), entry)| {
                Some(Ban {
                    service: table.services.get(*service)?.clone(),
                    network: *network,
                    left: Duration::from_micros(entry.banned.saturating_sub(now)),
                })
            });
        entries.filter(|ban| !ban.left.is_zero()).collect()
    }

    /// Lifts the bans of an address, or all for `None`. Returns their number.
    pub fn lift(&self, address: Option<IpAddr>) -> usize {
        let network = address.map(network_of);
        let mut table = self.lock();
        let now = table.now(clock::now());
        let before = table.entries.len();
        table.entries.retain(|(_, its), entry| {
            let is_meant = network.is_none_or(|network| network == *its);
            !(is_meant && entry.banned > now)
        });
        before.saturating_sub(table.entries.len())
    }
}

impl BanTable {
    fn now(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.begun))
    }

    fn count(
        &mut self,
        service: &ServiceKey,
        network: IpAddr,
        rate: &VisitorRate,
        now: Instant,
    ) -> RateVerdict {
        let now = self.now(now);
        let known = self.services.iter().position(|known| known == service);
        let number = known.unwrap_or(self.services.len());
        if known.is_none() {
            self.services.push(service.clone());
        }
        let key = (number, network);
        if self.entries.len() >= MAX_ADDRESSES && !self.entries.contains_key(&key) {
            self.forget(now);
        }
        let entry = self.entries.entry(key).or_insert(Entry {
            rested: now,
            banned: now,
        });
        if entry.banned > now {
            return RateVerdict::Banned;
        }
        let period = micros(rate.period);
        let each = period / u64::from(rate.count.max(1));
        let rested = entry.rested.max(now).saturating_add(each);
        if rested.saturating_sub(now) <= period {
            entry.rested = rested;
            return RateVerdict::Admitted;
        }
        entry.banned = now.saturating_add(micros(rate.ban));
        RateVerdict::TooMany(rate.ban)
    }

    /// Makes room: forgets the addresses about which there is nothing to know any more, and those about
    /// which there will be nothing sooner than on average. There may be 10 000 of them, and then this is
    /// not due again soon.
    fn forget(&mut self, now: u64) {
        let left = |entry: &Entry| entry.end().saturating_sub(now);
        let all = self.entries.values();
        let sum: u128 = all.map(|entry| u128::from(left(entry))).sum();
        let count = u128::try_from(self.entries.len()).unwrap_or(u128::MAX);
        let average = u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX);
        self.entries.retain(|_, entry| left(entry) > average);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;

    fn service(prefix: &str) -> ServiceKey {
        ServiceKey::new(&ServiceConfig::of_test(80, prefix))
    }

    fn addr(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    const RATE: VisitorRate = VisitorRate {
        count: 3,
        period: Duration::from_secs(60),
        ban: Duration::from_secs(600),
    };

    #[test]
    fn an_address_is_banned_after_too_many_connections_and_may_come_again_later() {
        let bans = Bans::default();
        let (one, other) = (service("one"), service("other"));
        let begin = clock::now();
        let count = |service: &ServiceKey, n, seconds| {
            let now = begin + Duration::from_secs(seconds);
            bans.lock().count(service, addr(n), &RATE, now)
        };
        for _ in 0..3 {
            assert_eq!(count(&one, 1, 0), RateVerdict::Admitted);
        }
        // Each third of a minute another one is allowed.
        assert_eq!(count(&one, 1, 21), RateVerdict::Admitted);
        assert_eq!(count(&one, 1, 21), RateVerdict::TooMany(RATE.ban));
        assert_eq!(count(&one, 1, 600), RateVerdict::Banned);
        assert_eq!(count(&one, 2, 600), RateVerdict::Admitted);
        assert_eq!(count(&other, 1, 600), RateVerdict::Admitted);
        assert_eq!(count(&one, 1, 622), RateVerdict::Admitted);
    }

    #[test]
    fn a_rate_without_a_ban_refuses_what_is_too_much_and_nothing_more() {
        let bans = Bans::default();
        let rate = VisitorRate {
            ban: Duration::ZERO,
            ..RATE
        };
        let (one, begin) = (service("one"), clock::now());
        let count = |seconds| {
            let now = begin + Duration::from_secs(seconds);
            bans.lock().count(&one, addr(1), &rate, now)
        };
        for _ in 0..3 {
            assert_eq!(count(0), RateVerdict::Admitted);
        }
        assert_eq!(count(1), RateVerdict::TooMany(Duration::ZERO));
        assert_eq!(count(21), RateVerdict::Admitted);
        assert_eq!(count(22), RateVerdict::TooMany(Duration::ZERO));
    }

    #[test]
    fn bans_are_listed_and_lifted_and_those_of_other_services_forgotten() {
        let bans = Bans::default();
        let (one, other) = (service("one"), service("other"));
        let v6 = ["2001:db8::1", "2001:db8::ffff"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for _ in 0..4 {
            bans.count(&one, addr(1), &RATE);
            bans.count(&other, addr(1), &RATE);
        }
        // They are of one /64.
        for n in 0..4 {
            bans.count(&one, v6[n % 2], &RATE);
        }
        bans.count(&one, addr(2), &RATE);
        let listed = |bans: &Bans| {
            let mut list = bans.list();
            list.sort_by_key(|ban| ban.network);
            let named = list.iter().map(|ban| (ban.service == one, ban.network));
            named.collect::<Vec<_>>()
        };
        let network = "2001:db8::".parse().unwrap();
        assert_eq!(bans.list().len(), 3);
        bans.change(|service| match *service == one {
            true => RateChange::Unchanged,
            false => RateChange::Removed,
        });
        assert_eq!(listed(&bans), [(true, addr(1)), (true, network)]);
        assert!(bans.list().iter().all(|ban| ban.left <= RATE.ban));
        assert_eq!(bans.lift(Some(v6[1])), 1);
        assert_eq!(bans.lift(Some(addr(2))), 0, "it is not banned");
        assert_eq!(listed(&bans), [(true, addr(1))]);
        assert_eq!(bans.lift(None), 1);
        assert_eq!(bans.lock().entries.len(), 1, "the one that is not banned");
        assert_eq!(bans.count(&one, addr(1), &RATE), RateVerdict::Admitted);
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_bans_are_forgotten_last() {
        let mut table = BanTable {
            begun: clock::now(),
            services: Vec::new(),
            entries: HashMap::default(),
        };
        let (one, now) = (service("one"), table.begun);
        for _ in 0..4 {
            table.count(&one, addr(1), &RATE, now);
        }
        for n in 0..50_000 {
            table.count(
                &one,
                addr(1000 + n),
                &RATE,
                now + Duration::from_millis(n.into()),
            );
            assert!(table.entries.len() <= MAX_ADDRESSES);
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(
            table.count(&one, addr(1), &RATE, later),
            RateVerdict::Banned
        );
    }
}
