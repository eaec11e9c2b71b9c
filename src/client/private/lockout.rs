//! The limits of peers at private services: how often an address may prove a wrong key, and how many connections it
//! may have.

use crate::net::{clock, network_of};
use crate::sync::{Mutex, MutexGuard};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Number of wrong proofs of an address after which it is refused.
const MAX_WRONG: u32 = 5;
/// The same for all peers of unknown addresses together: a server may not tell where they come from.
const MAX_WRONG_OF_UNKNOWN: u32 = 100;
/// Time in which wrong proofs count, and for which an address is refused.
const LOCKOUT: Duration = Duration::from_secs(600);
/// Maximum number of connections of an address to all private services.
const MAX_CONNECTIONS: u32 = 256;
/// Maximum number of addresses that are remembered.
const MAX_RECORDS: usize = 1024;

/// The limits of this process.
static LIMITS: PeerLimits = PeerLimits(Mutex::new(Vec::new()));

struct PeerLimits(Mutex<Vec<PeerRecord>>);

/// What is remembered of an address, or of those that are unknown.
#[derive(Clone, Copy)]
struct PeerRecord {
    network: Option<IpAddr>,
    connections: u32,
    wrong: u32,
    /// When the first of the wrong proofs came.
    since: Instant,
}

impl PeerRecord {
    fn is_locked(&self) -> bool {
        let most = match self.network {
            Some(_) => MAX_WRONG,
            None => MAX_WRONG_OF_UNKNOWN,
        };
        self.wrong >= most
    }
}

/// The permission of a connection.
#[derive(Debug)]
pub struct PeerUse(Option<IpAddr>);

impl PeerLimits {
    fn lock(&self, now: Instant) -> MutexGuard<'_, Vec<PeerRecord>> {
        let mut records = self.0.lock();
        for record in records.iter_mut() {
            if now.saturating_duration_since(record.since) >= LOCKOUT {
                record.wrong = 0;
            }
        }
        records.retain(|record| record.wrong > 0 || record.connections > 0);
        records
    }

    fn acquire(&self, network: Option<IpAddr>, now: Instant) -> bool {
        let mut records = self.lock(now);
        let is_full = records.len() >= MAX_RECORDS;
        match records.iter_mut().find(|it| it.network == network) {
            Some(record) if record.is_locked() => return false,
            Some(record) if network.is_some() && record.connections >= MAX_CONNECTIONS => {
                return false
            }
            Some(record) => record.connections = record.connections.saturating_add(1),
            None if is_full => return false,
            None => records.push(PeerRecord {
                network,
                connections: 1,
                wrong: 0,
                since: now,
            }),
        }
        true
    }

    fn release(&self, network: Option<IpAddr>) {
        let mut records = self.0.lock();
        if let Some(record) = records.iter_mut().find(|it| it.network == network) {
            record.connections = record.connections.saturating_sub(1);
        }
    }

    /// Counts a wrong proof. True if the address is refused from now on.
    fn failed(&self, network: Option<IpAddr>, now: Instant) -> bool {
        let mut records = self.lock(now);
        let Some(record) = records.iter_mut().find(|it| it.network == network) else {
            return false;
        };
        if record.wrong == 0 {
            record.since = now;
        }
        record.wrong = record.wrong.saturating_add(1);
        let most = match network {
            Some(_) => MAX_WRONG,
            None => MAX_WRONG_OF_UNKNOWN,
        };
        record.wrong == most
    }
}

impl PeerUse {
    /// Permits a connection from this address, or an unknown one; `None` if it is refused.
    pub fn acquire(peer: Option<IpAddr>) -> Option<Self> {
        let network = peer.map(network_of);
        let is_admitted = LIMITS.acquire(network, clock::now());
        is_admitted.then_some(Self(network))
    }

    /// Counts a wrong proof of the connection.
    pub fn failed(&self) {
        if LIMITS.failed(self.0, clock::now()) {
            let peer = match self.0 {
                Some(network) => network.to_string(),
                None => "peers of unknown addresses".to_owned(),
            };
            log::warn!(
                "wrong keys for private services came from {peer} too often: refused for {LOCKOUT:?}"
            );
        }
    }
}

impl Drop for PeerUse {
    fn drop(&mut self) {
        LIMITS.release(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_wrong_keys_is_refused_for_a_while_and_others_are_not() {
        let limits = PeerLimits(Mutex::new(Vec::new()));
        let now = clock::now();
        let (wrong, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        for count in 1..=MAX_WRONG {
            assert!(limits.acquire(wrong, now), "{count}");
            assert_eq!(limits.failed(wrong, now), count == MAX_WRONG);
            limits.release(wrong);
        }
        assert!(!limits.acquire(wrong, now));
        assert!(limits.acquire(other, now) && limits.acquire(None, now));
        let later = now + LOCKOUT;
        assert!(limits.acquire(wrong, later));
    }

    #[test]
    fn an_address_has_a_bounded_number_of_connections() {
        let limits = PeerLimits(Mutex::new(Vec::new()));
        let (now, peer) = (clock::now(), "192.0.2.1".parse().ok());
        for _ in 0..MAX_CONNECTIONS {
            assert!(limits.acquire(peer, now));
        }
        assert!(!limits.acquire(peer, now));
        limits.release(peer);
        assert!(limits.acquire(peer, now));
        for n in 0..2 * u32::try_from(MAX_RECORDS).unwrap() {
            limits.acquire(Some(IpAddr::from(n.to_be_bytes())), now);
        }
        assert!(limits.0.lock().len() <= MAX_RECORDS);
    }
}
