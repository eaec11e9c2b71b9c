//! The limits of peers at private services: how often an address may prove a wrong key, and how many connections it
//! may have.

use crate::client::private_access::key_changes;
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
static LIMITS: PeerLimits = PeerLimits::new();

#[derive(Debug)]
struct PeerLimits(Mutex<PeerRecords>);

/// What is remembered of addresses.
#[derive(Debug)]
struct PeerRecords {
    list: Vec<PeerRecord>,
    /// The number of the next record. May wrap.
    next: u32,
    /// The changes of keys that had been at the last look, see [`key_changes`].
    key_changes: u32,
}

/// What is remembered of an address, or of those that are unknown.
#[derive(Debug, Clone, Copy)]
struct PeerRecord {
    number: u32,
    network: Option<IpAddr>,
    connections: u32,
    wrong: u32,
    /// When the first of the wrong proofs came, or the record was made.
    since: Instant,
}

impl PeerRecord {
    fn is_locked(&self) -> bool {
        self.wrong >= most_wrong(self.network)
    }
}

/// Returns the number of wrong proofs after which an address is refused.
fn most_wrong(network: Option<IpAddr>) -> u32 {
    match network {
        Some(_) => MAX_WRONG,
        None => MAX_WRONG_OF_UNKNOWN,
    }
}

/// Why a connection is refused before it has proved anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRefusal {
    /// Wrong proofs came from its address too often; with the time for which it is refused.
    LockedOut(Duration),
    /// Its address has too many connections.
    TooMany,
}

/// The permission of a connection.
#[derive(Debug)]
pub struct PeerUse {
    limits: &'static PeerLimits,
    network: Option<IpAddr>,
    /// The number of its record.
    record: u32,
}

impl PeerRecords {
    const fn new() -> Self {
        Self {
            list: Vec::new(),
            next: 0,
            key_changes: 0,
        }
    }

    /// Returns the record of an address. A new one takes the place of another one if there are too many: strangers
    /// must not keep those with a key out.
    fn of(&mut self, network: Option<IpAddr>, now: Instant) -> Option<&mut PeerRecord> {
        if self.list.iter().all(|it| it.network != network) {
            if self.list.len() >= MAX_RECORDS {
                self.evict();
            }
            self.next = self.next.wrapping_add(1);
            self.list.push(PeerRecord {
                number: self.next,
                network,
                connections: 0,
                wrong: 0,
                since: now,
            });
        }
        self.list.iter_mut().find(|it| it.network == network)
    }

    /// Forgets the record that matters least: without connections, with the fewest wrong proofs, the oldest.
    fn evict(&mut self) {
        let records = self.list.iter().enumerate();
        let least = records.min_by_key(|(_, it)| (it.connections, it.wrong, it.since));
        if let Some((at, _)) = least {
            self.list.swap_remove(at);
        }
    }
}

impl PeerLimits {
    const fn new() -> Self {
        Self(Mutex::new(PeerRecords::new()))
    }

    fn lock(&self, key_changes: u32, now: Instant) -> MutexGuard<'_, PeerRecords> {
        let mut records = self.0.lock();
        // Wrong proofs of a key that has changed say nothing about the present one.
        let is_changed = std::mem::replace(&mut records.key_changes, key_changes) != key_changes;
        for record in &mut records.list {
            if is_changed || now.saturating_duration_since(record.since) >= LOCKOUT {
                record.wrong = 0;
            }
        }
        let is_used = |record: &PeerRecord| record.wrong > 0 || record.connections > 0;
        records.list.retain(is_used);
        records
    }

    fn acquire(
        &'static self,
        network: Option<IpAddr>,
        key_changes: u32,
        now: Instant,
    ) -> Result<PeerUse, PeerRefusal> {
        let mut records = self.lock(key_changes, now);
        let record = records.of(network, now).ok_or(PeerRefusal::TooMany)?;
        if record.is_locked() {
            let left = (record.since + LOCKOUT).saturating_duration_since(now);
            return Err(PeerRefusal::LockedOut(left));
        }
        if network.is_some() && record.connections >= MAX_CONNECTIONS {
            return Err(PeerRefusal::TooMany);
        }
        record.connections = record.connections.saturating_add(1);
        let record = record.number;
        Ok(PeerUse {
            limits: self,
            network,
            record,
        })
    }

    fn release(&self, peer: &PeerUse) {
        let mut records = self.0.lock();
        let mut list = records.list.iter_mut();
        // It may have been forgotten meanwhile, and made anew.
        if let Some(record) = list.find(|it| it.number == peer.record) {
            record.connections = record.connections.saturating_sub(1);
        }
    }

    /// Counts a wrong proof. True if the address is refused from now on.
    fn failed(&self, network: Option<IpAddr>, key_changes: u32, now: Instant) -> bool {
        let mut records = self.lock(key_changes, now);
        let Some(record) = records.of(network, now) else {
            return false;
        };
        if record.wrong == 0 {
            record.since = now;
        }
        record.wrong = record.wrong.saturating_add(1);
        record.wrong == most_wrong(network)
    }
}

impl PeerUse {
    /// Permits a connection from this address, or an unknown one.
    pub fn acquire(peer: Option<IpAddr>) -> Result<Self, PeerRefusal> {
        LIMITS.acquire(peer.map(network_of), key_changes(), clock::now())
    }

    /// Counts a wrong proof of the connection.
    pub fn failed(&self) {
        if self
            .limits
            .failed(self.network, key_changes(), clock::now())
        {
            let peer = match self.network {
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
        self.limits.release(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_limits() -> &'static PeerLimits {
        Box::leak(Box::new(PeerLimits::new()))
    }

    /// Permits a connection of an address that is never released.
    fn admits(limits: &'static PeerLimits, network: Option<IpAddr>, now: Instant) -> bool {
        limits
            .acquire(network, 0, now)
            .map(std::mem::forget)
            .is_ok()
    }

    /// Counts a connection with a wrong proof, which ends.
    fn fail(limits: &'static PeerLimits, network: Option<IpAddr>, now: Instant) -> bool {
        let _peer = limits.acquire(network, 0, now).expect("a permission");
        limits.failed(network, 0, now)
    }

    fn stranger(number: u32) -> Option<IpAddr> {
        Some(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn an_address_with_wrong_keys_is_refused_for_a_while_and_others_are_not() {
        let limits = new_limits();
        let now = clock::now();
        let (wrong, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        for count in 1..=MAX_WRONG {
            assert_eq!(fail(limits, wrong, now), count == MAX_WRONG, "{count}");
        }
        let refused = limits.acquire(wrong, 0, now + LOCKOUT / 2);
        let left = PeerRefusal::LockedOut(LOCKOUT / 2);
        assert_eq!(refused.expect_err("a refusal"), left);
        assert!(admits(limits, other, now) && admits(limits, None, now));
        // Another key makes a new start.
        assert!(limits.acquire(wrong, 1, now).map(std::mem::forget).is_ok());
        for _ in 0..MAX_WRONG {
            limits.failed(wrong, 1, now);
        }
        assert!(limits.acquire(wrong, 1, now).is_err());
        assert!(limits
            .acquire(wrong, 1, now + LOCKOUT)
            .map(std::mem::forget)
            .is_ok());
    }

    #[test]
    fn an_address_has_a_bounded_number_of_connections() {
        let limits = new_limits();
        let (now, peer) = (clock::now(), "192.0.2.1".parse().ok());
        let first = limits.acquire(peer, 0, now).expect("a permission");
        for _ in 1..MAX_CONNECTIONS {
            assert!(admits(limits, peer, now));
        }
        let refused = limits.acquire(peer, 0, now);
        assert_eq!(refused.expect_err("a refusal"), PeerRefusal::TooMany);
        drop(first);
        assert!(admits(limits, peer, now));
    }

    #[test]
    fn strangers_do_not_keep_others_out() {
        let many = 2 * u32::try_from(MAX_RECORDS).unwrap();
        let now = clock::now();
        let limits = new_limits();
        let locked = stranger(many);
        while !fail(limits, locked, now) {}
        // They stay and prove nothing, or prove wrong keys and come again.
        for number in 0..many {
            assert!(admits(limits, stranger(number), now));
            fail(limits, stranger(number), now);
            assert!(limits.0.lock().list.len() <= MAX_RECORDS);
        }
        assert!(admits(limits, "192.0.2.1".parse().ok(), now));
        // Those that have gone make way first.
        let limits = new_limits();
        while !fail(limits, locked, now) {}
        let stays = limits.acquire(stranger(many + 1), 0, now).expect("one");
        for number in 0..many {
            fail(limits, stranger(number), now);
        }
        assert!(!admits(limits, locked, now), "it is locked out still");
        let records = limits.0.lock().list.clone();
        assert!(records.iter().any(|it| it.number == stays.record));
    }
}
