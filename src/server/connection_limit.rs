//! How many connections there may be at a time, of one address and of all. Not how many tunnels a
//! client may have: see `registry`.
//!
//! After a restart each process counts the connections that it holds. A visitor that one gives to the
//! other has a place there from then on, whichever has accepted it.

use super::auth_lockout::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that are refused are logged once in so long.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The places for connections. Clones are the same.
#[derive(Clone, Default)]
pub struct ConnectionLimit(Arc<Mutex<ConnectionCounts>>);

/// A connection's place, until it is dropped. Nothing where there is no limit.
pub struct Permit {
    _taken: Option<Box<CountedConnection>>,
}

struct CountedConnection {
    places: ConnectionLimit,
    network: IpAddr,
}

#[derive(Default)]
struct ConnectionCounts {
    /// Most of one address, and most of all; 0 for any number.
    of_address: u32,
    of_all: u32,
    taken: u32,
    by_network: HashMap<IpAddr, u32>,
    /// When it was last logged that there was none.
    said: Option<Instant>,
}

impl ConnectionLimit {
    /// At most so many of one address and of all, 0 for any number. Those that came while there
    /// was no limit are not counted.
    pub fn set(&self, of_address: u32, of_all: u32) {
        let mut table = self.lock();
        (table.of_address, table.of_all) = (of_address, of_all);
    }

    /// A place for a connection from there, if there is one left.
    pub fn take(&self, ip: IpAddr) -> Option<Permit> {
        let mut table = self.lock();
        if table.of_address == 0 && table.of_all == 0 {
            return Some(Permit { _taken: None });
        }
        let network = network_of(ip);
        let of_this = table.by_network.get(&network).copied().unwrap_or_default();
        let full = |most: u32, taken: u32| most > 0 && taken >= most;
        let option = if full(table.of_address, of_this) {
            "addressConnections"
        } else if full(table.of_all, table.taken) {
            "totalConnections"
        } else {
            table.taken = table.taken.saturating_add(1);
            table.by_network.insert(network, of_this.saturating_add(1));
            let places = self.clone();
            let taken = Some(Box::new(CountedConnection { places, network }));
            return Some(Permit { _taken: taken });
        };
        if table
            .said
            .is_none_or(|said| said.elapsed() >= WARNING_INTERVAL)
        {
            table.said = Some(Instant::now());
            drop(table);
            log::warn!("connections are refused, {ip} has one of them: there are as many as {option} allows");
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut table = self.places.lock();
        table.taken = table.taken.saturating_sub(1);
        if let Some(of_this) = table.by_network.get_mut(&self.network) {
            *of_this = of_this.saturating_sub(1);
            if *of_this == 0 {
                table.by_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn an_address_has_its_places_and_all_have_theirs() {
        let places = ConnectionLimit::default();
        places.set(2, 3);
        let first = places.take(ip(1));
        let second = places.take(ip(1));
        assert!(first.is_some() && second.is_some());
        assert!(places.take(ip(1)).is_none(), "one address");
        let third = places.take(ip(2));
        assert!(third.is_some());
        assert!(places.take(ip(3)).is_none(), "all addresses");
        drop(first);
        assert!(places.take(ip(3)).is_some());
        drop((second, third));
        let table = places.lock();
        assert!(table.taken == 0 && table.by_network.is_empty());
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let places = ConnectionLimit::default();
        let before = places.take(ip(1));
        assert!(matches!(before, Some(Permit { _taken: None })));
        places.set(1, 0);
        let counted = places.take(ip(1));
        assert!(counted.is_some() && places.take(ip(1)).is_none());
        drop(before);
        assert!(places.take(ip(1)).is_none(), "it had no place to give back");
    }
}
