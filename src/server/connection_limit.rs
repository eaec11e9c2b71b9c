//! The limit of concurrent connections, per address and in total. `registry` limits the tunnels of
//! a client.
//!
//! During a restart each process counts the connections it holds. A visitor that moves to the
//! other process counts there from then on.

use crate::collections::HashMap;
use crate::logging::{held_back, LogThrottle};
use crate::net::network_of;
use crate::sync::{Mutex, MutexGuard};
use std::net::IpAddr;
use std::sync::Arc;

/// The limits of connections, and the counts of them. Clones share the counts.
#[derive(Clone, Default)]
pub struct ConnectionLimit(Arc<Mutex<ConnectionCounts>>);

/// The permit of one connection, returned on drop. Empty if there is no limit.
pub struct Permit {
    _taken: Option<Box<CountedConnection>>,
}

struct CountedConnection {
    limit: ConnectionLimit,
    network: IpAddr,
}

#[derive(Default)]
struct ConnectionCounts {
    /// Maximum number of connections of one address; 0 for no limit.
    of_address: u32,
    /// Maximum number of all connections; 0 for no limit.
    of_all: u32,
    taken: u32,
    by_network: HashMap<IpAddr, u32>,
    warnings: LogThrottle,
}

impl ConnectionLimit {
    /// Sets the limits per address and in total; 0 for none. Connections accepted without a limit
    /// are not counted.
    pub fn set(&self, of_address: u32, of_all: u32) {
        let mut counts = self.lock();
        (counts.of_address, counts.of_all) = (of_address, of_all);
    }

    /// Returns a permit for a connection from this address unless a limit is reached.
    pub fn take(&self, ip: IpAddr) -> Option<Permit> {
        self.take_of(ip, |most| most)
    }

    /// Returns a permit for a flow of datagrams, whose address may be invented: a quarter of each limit is
    /// left for connections, at least one.
    pub fn take_for_flow(&self, ip: IpAddr) -> Option<Permit> {
        self.take_of(ip, share_of_flows)
    }

    /// Whether a connection from this address would get a permit, and a flow would not.
    #[cfg(feature = "quic")]
    pub fn has_room_for_connections_alone(&self, ip: IpAddr) -> bool {
        let (counts, network) = (self.lock(), network_of(ip));
        counts.reached(&network, share_of_flows).is_some()
            && counts.reached(&network, |most| most).is_none()
    }

    fn take_of(&self, ip: IpAddr, share: impl Fn(u32) -> u32) -> Option<Permit> {
        let mut counts = self.lock();
        if counts.of_address == 0 && counts.of_all == 0 {
            return Some(Permit::UNCOUNTED);
        }
        let network = network_of(ip);
        let Some(option) = counts.reached(&network, share) else {
            counts.taken = counts.taken.saturating_add(1);
            let of_this = counts.by_network.entry(network).or_default();
            *of_this = of_this.saturating_add(1);
            let limit = self.clone();
            let taken = Some(Box::new(CountedConnection { limit, network }));
            return Some(Permit { _taken: taken });
        };
        if let Some(lines) = counts.warnings.allow() {
            drop(counts);
            let more = held_back(lines);
            log::warn!(
                "connections are refused, among them one from {ip}: {option} is reached{more}"
            );
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.0.lock()
    }
}

/// Returns the share of a limit that flows may take.
fn share_of_flows(most: u32) -> u32 {
    most.saturating_sub((most / 4).max(1))
}

impl ConnectionCounts {
    /// Returns the option whose limit a network has reached, if only a share of each limit may be taken.
    fn reached(&self, network: &IpAddr, share: impl Fn(u32) -> u32) -> Option<&'static str> {
        let of_this = self.by_network.get(network).copied().unwrap_or_default();
        let full = |most: u32, taken: u32| most > 0 && taken >= share(most);
        if full(self.of_address, of_this) {
            Some("addressConnections")
        } else if full(self.of_all, self.taken) {
            Some("totalConnections")
        } else {
            None
        }
    }
}

impl Permit {
    /// The permit of a connection that is not counted.
    pub const UNCOUNTED: Self = Self { _taken: None };
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut counts = self.limit.lock();
        counts.taken = counts.taken.saturating_sub(1);
        if let Some(of_this) = counts.by_network.get_mut(&self.network) {
            *of_this = of_this.saturating_sub(1);
            if *of_this == 0 {
                counts.by_network.remove(&self.network);
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
    fn flows_leave_a_quarter_of_the_limits_for_connections() {
        let limit = ConnectionLimit::default();
        limit.set(4, 8);
        let flows: Vec<_> = (0..3).map(|_| limit.take_for_flow(ip(1))).collect();
        assert!(flows.iter().all(Option::is_some));
        assert!(limit.take_for_flow(ip(1)).is_none(), "one address");
        #[cfg(feature = "quic")]
        assert!(limit.has_room_for_connections_alone(ip(1)));
        #[cfg(feature = "quic")]
        assert!(!limit.has_room_for_connections_alone(ip(2)));
        let others: Vec<_> = (2..5).map(|n| limit.take_for_flow(ip(n))).collect();
        assert!(others.iter().all(Option::is_some));
        assert!(limit.take_for_flow(ip(5)).is_none(), "all addresses");
        let mine = limit.take(ip(1));
        assert!(mine.is_some() && limit.take(ip(5)).is_some());
        assert!(limit.take(ip(1)).is_none());
    }

    #[test]
    fn addresses_and_total_are_limited_separately() {
        let limit = ConnectionLimit::default();
        limit.set(2, 3);
        let first = limit.take(ip(1));
        let second = limit.take(ip(1));
        assert!(first.is_some() && second.is_some());
        assert!(limit.take(ip(1)).is_none(), "one address");
        let third = limit.take(ip(2));
        assert!(third.is_some());
        assert!(limit.take(ip(3)).is_none(), "all addresses");
        drop(first);
        assert!(limit.take(ip(3)).is_some());
        drop((second, third));
        let counts = limit.lock();
        assert!(counts.taken == 0 && counts.by_network.is_empty());
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let limit = ConnectionLimit::default();
        let before = limit.take(ip(1));
        assert!(matches!(before, Some(Permit { _taken: None })));
        limit.set(1, 0);
        let counted = limit.take(ip(1));
        assert!(counted.is_some() && limit.take(ip(1)).is_none());
        drop(before);
        assert!(limit.take(ip(1)).is_none(), "it was not counted");
    }
}
