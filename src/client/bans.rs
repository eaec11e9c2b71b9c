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
/// Number of addresses that are forgotten at once when there are too many.
const FORGOTTEN: usize = MAX_ADDRESSES / 8;

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
    /// By service and by [`network_of`] the address.
    services: HashMap<ServiceKey, HashMap<IpAddr, Entry>>,
    /// The number of entries.
    addresses: usize,
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
            services: HashMap::default(),
            addresses: 0,
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
        table.services.retain(|service, entries| match of(service) {
            RateChange::Unchanged => true,
            RateChange::Changed => {
                entries.retain(|_, entry| entry.banned > now);
                entries.values_mut().for_each(|entry| entry.rested = now);
                true
            }
            RateChange::Removed => false,
        });
        table.addresses = table.services.values().map(HashMap::len).sum();
    }

    /// Returns all bans.
    pub fn list(&self) -> Vec<Ban> {
        let table = self.lock();
        let now = table.now(clock::now());
        let entries = table.services.iter().flat_map(|(service, entries)| {
            entries.iter().map(move |(network, entry)| Ban {
                service: service.clone(),
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
        let mut lifted = 0;
        for entries in table.services.values_mut() {
            entries.retain(|its, entry| {
                let is_meant = network.is_none_or(|network| network == *its);
                let goes = is_meant && entry.banned > now;
                lifted += usize::from(goes);
                !goes
            });
        }
        table.addresses = table.addresses.saturating_sub(lifted);
        lifted
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
        let is_known = |entries: &HashMap<_, _>| entries.contains_key(&network);
        if !self.services.get(service).is_some_and(is_known) {
            if self.addresses >= MAX_ADDRESSES {
                self.forget(now);
            }
            self.addresses = self.addresses.saturating_add(1);
        }
        if !self.services.contains_key(service) {
            self.services.insert(service.clone(), HashMap::default());
        }
        let Some(entries) = self.services.get_mut(service) else {
            return RateVerdict::Admitted;
        };
        let entry = entries.entry(network).or_insert(Entry {
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

    /// Makes room: forgets the addresses about which there is nothing to know any more, and if these
    /// are few, those about which there will be nothing first.
    fn forget(&mut self, now: u64) {
        let all = self.services.values().flat_map(HashMap::values);
        let mut ends: Vec<u64> = all.map(Entry::end).collect();
        let last = FORGOTTEN.min(ends.len().saturating_sub(1));
        let until = if ends.is_empty() {
            now
        } else {
            let (_, end, _) = ends.select_nth_unstable(last);
            (*end).max(now)
        };
        for entries in self.services.values_mut() {
            entries.retain(|_, entry| entry.end() > until);
        }
        self.services.retain(|_, entries| !entries.is_empty());
        self.addresses = self.services.values().map(HashMap::len).sum();
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
        assert_eq!(bans.lock().addresses, 1, "the one that is not banned");
        assert_eq!(bans.count(&one, addr(1), &RATE), RateVerdict::Admitted);
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_bans_are_forgotten_last() {
        let mut table = BanTable {
            begun: clock::now(),
            services: HashMap::default(),
            addresses: 0,
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
            let real: usize = table.services.values().map(HashMap::len).sum();
            assert!(table.addresses <= MAX_ADDRESSES && (n % 1000 != 0 || real == table.addresses));
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(
            table.count(&one, addr(1), &RATE, later),
            RateVerdict::Banned
        );
    }
}
