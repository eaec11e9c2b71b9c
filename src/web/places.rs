//! The places of the page's connections: a number for those that have shown no login, where an address cannot
//! take those of others, and a number for those that have. Not what the connections carry.

use crate::net::{network_of, Shutdown};
use crate::sync::Mutex;
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of concurrent connections that have shown no login; an older one makes way for the next.
const MAX_OPEN: usize = 32;
/// Maximum number of these of one address, for IPv6 of one /64; its oldest makes way for the next.
const MAX_OF_ADDRESS: usize = 16;
/// Maximum number of concurrent connections that have shown a login; further ones are counted as if they had not.
const MAX_SIGNED_IN: usize = 24;

/// The places of a listener. Clones share them.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// The connections that have shown no login, oldest first.
    open: Vec<OpenConnection>,
    /// Number of connections that have shown a login.
    signed_in: usize,
    /// The number of the last connection.
    last: u64,
}

struct OpenConnection {
    number: u64,
    network: IpAddr,
    /// Triggered when it has to end.
    end: Shutdown,
}

/// The place of one connection, returned on drop.
pub struct Place {
    places: Places,
    number: u64,
    /// Triggered when the connection makes way for another one.
    pub end: Shutdown,
}

impl Places {
    /// Returns a place for a connection from an address. If there is none, the oldest connection of the address
    /// that has the most makes way.
    pub fn enter(&self, ip: IpAddr) -> Place {
        let (network, end) = (network_of(ip), Shutdown::default());
        let mut table = self.0.lock();
        let makes_way = match table.count(&network) {
            MAX_OF_ADDRESS.. => Some(network),
            _ if table.open.len() >= MAX_OPEN => table.largest(),
            _ => None,
        };
        let mut open = table.open.iter();
        let at = makes_way.and_then(|network| open.position(|it| it.network == network));
        if let Some(at) = at {
            table.open.remove(at).end.trigger();
        }
        table.last = table.last.wrapping_add(1);
        let number = table.last;
        table.open.push(OpenConnection {
            number,
            network,
            end: end.clone(),
        });
        drop(table);
        Place {
            places: self.clone(),
            number,
            end,
        }
    }
}

impl Table {
    /// Returns the number of open connections of a network.
    fn count(&self, network: &IpAddr) -> usize {
        self.open.iter().filter(|it| it.network == *network).count()
    }

    /// Returns the network with the most open connections; of several the one with the oldest.
    fn largest(&self) -> Option<IpAddr> {
        let networks = self.open.iter().rev().map(|it| it.network);
        networks.max_by_key(|network| self.count(network))
    }
}

impl Place {
    /// Notes that the connection has shown a login: it makes way for no other one from now on.
    pub fn sign_in(&self) {
        let mut table = self.places.0.lock();
        if table.signed_in >= MAX_SIGNED_IN {
            return;
        }
        let mut open = table.open.iter();
        if let Some(at) = open.position(|it| it.number == self.number) {
            table.open.remove(at);
            table.signed_in = table.signed_in.saturating_add(1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.0.lock();
        let mut open = table.open.iter();
        match open.position(|it| it.number == self.number) {
            Some(at) => drop(table.open.remove(at)),
            // One that has made way is not counted any more.
            None if self.end.is_triggered() => {}
            None => table.signed_in = table.signed_in.saturating_sub(1),
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
    fn an_address_takes_no_place_of_another_one() {
        let places = Places::default();
        let of_one: Vec<_> = (0..40).map(|_| places.enter(ip(1))).collect();
        let of_two: Vec<_> = (0..40).map(|_| places.enter(ip(2))).collect();
        let lasts = |all: &[Place]| all.iter().filter(|it| !it.end.is_triggered()).count();
        assert_eq!((lasts(&of_one), lasts(&of_two)), (16, 16));
        assert!(of_one[23].end.is_triggered() && !of_one[24].end.is_triggered());
        let third = places.enter(ip(3));
        assert_eq!((lasts(&of_one), lasts(&of_two)), (15, 16));
        let _more: Vec<_> = (0..40).map(|_| places.enter(ip(2))).collect();
        assert!(!third.end.is_triggered());
        drop((of_one, of_two));
        drop(third);
        assert_eq!(places.0.lock().open.len(), 16);
        assert_eq!(places.0.lock().signed_in, 0);
    }

    #[test]
    fn those_that_have_signed_in_stay_and_are_bounded_too() {
        let places = Places::default();
        let mut signed_in = Vec::new();
        for n in 0..40 {
            let place = places.enter(ip(n));
            place.sign_in();
            place.sign_in();
            signed_in.push(place);
        }
        assert_eq!(places.0.lock().signed_in, 24);
        assert_eq!(places.0.lock().open.len(), 16);
        let _open: Vec<_> = (0..100).map(|n| places.enter(ip(100 + n))).collect();
        let lasts = signed_in.iter().filter(|it| !it.end.is_triggered());
        assert_eq!(lasts.count(), 24);
        assert_eq!(places.0.lock().open.len(), 32);
        drop(signed_in);
        assert_eq!(places.0.lock().signed_in, 0);
    }
}
