//! Host prefixes and ports reserved for the ids of clients whose last tunnel has ended, or that were
//! in the process before a restart.

use super::{KeptHost, Key};
use crate::collections::HashMap;
use crate::server::ports::{InheritedPort, PortId};
use crate::server::users::LoginProof;
use crate::wire::hello::GroupSpec;
use std::time::{Duration, Instant};

/// Time that host prefixes and TCP ports are reserved.
const RESERVATION_TIME: Duration = Duration::from_secs(60);
/// Minimum time between two removals of expired reservations, each of which visits all of them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of prefixes reserved for all strangers. Reservations of known clients are
/// bounded by their limits.
const MAX_STRANGER_PREFIXES: usize = 4096;
/// Maximum number of prefixes reserved for one stranger.
const MAX_PREFIXES_PER_STRANGER: usize = 64;

/// The reserved host prefixes and ports.
#[derive(Default)]
pub struct Reservations {
    hosts: HashMap<Key, ReservedHost>,
    /// The prefixes of each id; may include prefixes that are no longer reserved.
    keys: HashMap<Box<str>, Vec<Key>>,
    /// The ports of each id, in the order of its services, with their expiry.
    ports: HashMap<Box<str>, Vec<(InheritedPort, Instant)>>,
    /// The last client of each port; may include ports that are no longer reserved.
    owners: HashMap<PortId, Box<str>>,
    /// The groups that have shared ports; may include ports that are no longer reserved.
    groups: HashMap<PortId, GroupSpec>,
    /// When expired reservations were last removed.
    swept: Option<Instant>,
}

struct ReservedHost {
    /// `None` for a prefix handed over by an older version of gt, which leaves the id out.
    id: Option<Box<str>>,
    reservation: Reservation,
    /// The group that has shared the prefix, whose other members may have it, too.
    group: Option<GroupSpec>,
    until: Instant,
    stranger: bool,
}

/// The effect of a reservation on other clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// Only the client with this id may have the prefix.
    Claimed,
    /// Any client may take the prefix; visitors wait for one.
    GivenUp,
}

impl ReservedHost {
    /// Returns the only id that may have the prefix.
    fn owner(&self) -> Option<&str> {
        match self.reservation {
            Reservation::Claimed => self.id.as_deref(),
            Reservation::GivenUp => None,
        }
    }
}

impl Reservations {
    /// Reserves prefixes that the client had. Beyond the maximum for strangers it drops the new
    /// prefixes rather than another client's.
    pub fn reserve_hosts(
        &mut self,
        (id, trust): (&str, LoginProof),
        keys: Vec<(Key, Option<GroupSpec>)>,
        reservation: Reservation,
        now: Instant,
    ) {
        self.forget_expired(now);
        let stranger = match trust {
            LoginProof::SelfTest => return,
            LoginProof::Stranger => true,
            LoginProof::Known => false,
        };
        let mut room = usize::MAX;
        if stranger {
            let kept = self.hosts.values().filter(|host| now < host.until);
            let all = kept.filter(|host| host.stranger).count();
            let its = self.keys.get(id).map_or(0, Vec::len);
            room = MAX_STRANGER_PREFIXES.saturating_sub(all);
            room = room.min(MAX_PREFIXES_PER_STRANGER.saturating_sub(its));
        }
        for (key, group) in keys.into_iter().take(room) {
            self.note_key(id, &key);
            let host = ReservedHost {
                id: Some(id.into()),
                reservation,
                group,
                until: now + RESERVATION_TIME,
                stranger,
            };
            self.hosts.insert(key, host);
        }
    }

    /// Reserves a prefix handed over by another process, for its id if known.
    pub fn restore_host(&mut self, host: KeptHost, now: Instant) {
        let KeptHost { key, id, group } = host;
        if let Some(id) = &id {
            self.note_key(id, &key);
        }
        let host = ReservedHost {
            id,
            reservation: Reservation::Claimed,
            group,
            until: now + RESERVATION_TIME,
            stranger: false,
        };
        self.hosts.insert(key, host);
    }

    fn note_key(&mut self, id: &str, key: &Key) {
        match self.keys.get_mut(id) {
            Some(keys) => keys.push(key.clone()),
            None => {
                self.keys.insert(id.into(), vec![key.clone()]);
            }
        }
    }

    /// Reserves a port for the client that had it, and for the group that has shared it.
    pub fn reserve_port(
        &mut self,
        id: &str,
        port: InheritedPort,
        group: Option<GroupSpec>,
        now: Instant,
    ) {
        match group {
            Some(group) => drop(self.groups.insert(port.id(), group)),
            None => drop(self.groups.remove(&port.id())),
        }
        self.owners.insert(port.id(), id.into());
        let ports = self.ports.entry(id.into()).or_default();
        ports.push((port, now + RESERVATION_TIME));
    }

    /// Whether the prefix is reserved, so that visitors wait.
    pub fn is_host(&self, key: &Key, now: Instant) -> bool {
        self.hosts.get(key).is_some_and(|host| now < host.until)
    }

    /// Returns the id of the client that has had a reserved prefix.
    pub fn last_owner(&self, key: &Key, now: Instant) -> Option<&str> {
        let host = self.hosts.get(key).filter(|host| now < host.until)?;
        host.id.as_deref()
    }

    /// Whether the prefix is reserved for a client, so that no other may have it.
    pub fn is_claimed(&self, key: &Key, now: Instant) -> bool {
        let host = self.hosts.get(key).filter(|host| now < host.until);
        host.is_some_and(|host| host.reservation == Reservation::Claimed)
    }

    /// Returns the id that the prefix is reserved for, unless it is `id`, or the prefix is one of `group`.
    pub fn other_owner(
        &self,
        key: &Key,
        id: &str,
        group: Option<&GroupSpec>,
        now: Instant,
    ) -> Option<&str> {
        let host = self.hosts.get(key).filter(|host| now < host.until)?;
        let shares = match (&host.group, group) {
            (Some(its), Some(group)) => its.is(group),
            _ => false,
        };
        host.owner().filter(|owner| *owner != id && !shares)
    }

    /// Whether a port is reserved for another id.
    pub fn is_others_port(&self, number: PortId, id: &str, now: Instant) -> bool {
        let owner = self.owners.get(&number).filter(|owner| ***owner != *id);
        let ports = owner.and_then(|owner| self.ports.get(owner));
        let is_it = |(port, until): &(InheritedPort, Instant)| port.id() == number && now < *until;
        ports.is_some_and(|ports| ports.iter().any(is_it))
    }

    /// Whether a reserved port is one of this group.
    pub fn is_port_of(&self, port: PortId, group: &GroupSpec) -> bool {
        self.groups.get(&port).is_some_and(|its| its.is(group))
    }

    /// Returns these reserved ports.
    pub fn ports_with(&self, ids: &[PortId]) -> Vec<InheritedPort> {
        let ports = ids.iter().filter_map(|id| {
            let its = self.ports.get(self.owners.get(id)?)?;
            let found = its.iter().find(|(port, _)| port.id() == *id)?;
            Some(found.0.clone())
        });
        ports.collect()
    }

    /// Removes the reservation of a port, for any client.
    pub fn release_port_of_all(&mut self, port: PortId) {
        if let Some(owner) = self.owners.get(&port).cloned() {
            self.release_port(&owner, port);
        }
    }

    /// Returns the groups of reserved ports.
    pub fn groups_of_ports(&self, now: Instant) -> impl Iterator<Item = (PortId, GroupSpec)> + '_ {
        self.ports(now).filter_map(|(_, port)| {
            let group = self.groups.get(&port.id())?;
            Some((port.id(), group.clone()))
        })
    }

    /// Returns the ports reserved for this id.
    pub fn ports_of(&self, id: &str, now: Instant) -> Vec<InheritedPort> {
        let ports = self.ports.get(id).into_iter().flatten();
        let kept = ports.filter(|(_, until)| now < *until);
        kept.map(|(port, _)| port.clone()).collect()
    }

    /// Removes the reservations of a client that has registered.
    pub fn release(&mut self, id: &str) {
        for key in self.keys.remove(id).unwrap_or_default() {
            let host = self.hosts.get(&key);
            if host.is_some_and(|host| host.id.as_deref() == Some(id)) {
                self.hosts.remove(&key);
            }
        }
        self.ports.remove(id);
    }

    /// Removes the oldest reservations of an id beyond these numbers of names and of ports.
    pub fn limit(&mut self, id: &str, names: usize, ports: usize) {
        if let Some(keys) = self.keys.get_mut(id) {
            let hosts = &mut self.hosts;
            keys.retain(|key| {
                let host = hosts.get(key);
                host.is_some_and(|host| host.id.as_deref() == Some(id))
            });
            for key in keys.drain(..keys.len().saturating_sub(names)) {
                hosts.remove(&key);
            }
        }
        if let Some(its) = self.ports.get_mut(id) {
            its.drain(..its.len().saturating_sub(ports));
        }
    }

    /// Removes the reservation of a prefix that a client has now.
    pub fn release_host(&mut self, key: &Key) {
        self.hosts.remove(key);
    }

    /// Closes all reserved ports; only those without a socket stay reserved.
    pub fn close_ports(&mut self) {
        self.ports.retain(|_, ports| {
            ports.retain(|(port, _)| port.listener.is_none());
            !ports.is_empty()
        });
    }

    /// Closes the reserved ports that have expired.
    pub fn close_expired_ports(&mut self, now: Instant) {
        self.ports.retain(|_, ports| {
            ports.retain(|port| is_in_time(port, now));
            !ports.is_empty()
        });
    }

    /// Closes the reserved ports of one client that have expired.
    pub fn close_expired_ports_of(&mut self, id: &str, now: Instant) {
        if let Some(ports) = self.ports.get_mut(id) {
            ports.retain(|port| is_in_time(port, now));
        }
    }

    /// Removes the reservation of one port of a client.
    pub fn release_port(&mut self, id: &str, number: PortId) {
        if let Some(ports) = self.ports.get_mut(id) {
            ports.retain(|(port, _)| port.id() != number);
        }
    }

    /// Returns all reserved prefixes with their ids.
    pub fn hosts(&self, now: Instant) -> impl Iterator<Item = KeptHost> + '_ {
        let kept = self.hosts.iter().filter(move |(_, host)| now < host.until);
        kept.map(|(key, host)| KeptHost {
            key: key.clone(),
            id: host.owner().map(Into::into),
            group: host.group.clone().filter(|_| host.owner().is_some()),
        })
    }

    /// Returns all reserved ports with their ids.
    pub fn ports(&self, now: Instant) -> impl Iterator<Item = (&str, &InheritedPort)> {
        let ports = self.ports.iter();
        let ports = ports.flat_map(|(id, ports)| ports.iter().map(move |port| (&**id, port)));
        let kept = ports.filter(move |(_, (_, until))| now < *until);
        kept.map(|(id, (port, _))| (id, port))
    }

    /// Removes what has expired, at most once a second.
    pub fn forget_expired(&mut self, now: Instant) {
        let is_early = |swept: Instant| now.saturating_duration_since(swept) < SWEEP_INTERVAL;
        if self.swept.is_some_and(is_early) {
            return;
        }
        self.swept = Some(now);
        self.hosts.retain(|_, host| now < host.until);
        let hosts = &self.hosts;
        self.keys.retain(|id, keys| {
            keys.retain(|key| {
                let host = hosts.get(key);
                host.is_some_and(|host| host.id.as_deref() == Some(id))
            });
            !keys.is_empty()
        });
        self.close_expired_ports(now);
        let ports = &self.ports;
        self.owners.retain(|number, owner| {
            let mut its = ports.get(owner).into_iter().flatten();
            its.any(|(port, _)| port.id() == *number)
        });
        let owners = &self.owners;
        self.groups.retain(|number, _| owners.contains_key(number));
        if self.is_empty() {
            (self.hosts, self.keys) = Default::default();
            (self.ports, self.owners, self.groups) = Default::default();
        }
    }

    /// Whether nothing is reserved.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.keys.is_empty() && self.ports.is_empty()
    }
}

fn is_in_time((_, until): &(InheritedPort, Instant), now: Instant) -> bool {
    now < *until
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net;
    use crate::server::ports::{PortRequest, PortSocket, Protocol};
    use crate::server::registry::HostKind;
    use std::sync::Arc;

    fn key(name: &str) -> Key {
        (HostKind::Http, name.into())
    }

    /// Returns prefixes that no group shares.
    fn alone(names: &[&str]) -> Vec<(Key, Option<GroupSpec>)> {
        names.iter().map(|name| (key(name), None)).collect()
    }

    fn names(range: std::ops::Range<usize>) -> Vec<(Key, Option<GroupSpec>)> {
        range.map(|n| (key(&format!("p{n}")), None)).collect()
    }

    fn port(port: u16) -> InheritedPort {
        let request = PortRequest {
            protocol: Protocol::Tcp,
            random: true,
            port: 0,
        };
        InheritedPort {
            request,
            port,
            listener: None,
            older: None,
        }
    }

    #[test]
    fn prefixes_and_ports_are_reserved_for_their_id_for_a_minute() {
        let (mut kept, start) = (Reservations::default(), Instant::now());
        kept.reserve_hosts(
            ("id1", LoginProof::Known),
            alone(&["web"]),
            Reservation::Claimed,
            start,
        );
        kept.reserve_port("id1", port(2222), None, start);
        let just = start + RESERVATION_TIME - Duration::from_millis(1);
        assert!(kept.is_host(&key("web"), just));
        assert!(kept.other_owner(&key("web"), "id2", None, just).is_some());
        assert!(kept.other_owner(&key("web"), "id1", None, just).is_none());
        assert!(
            !kept.is_host(&(HostKind::Tls, "web".into()), just),
            "another kind"
        );
        assert!(kept.is_others_port((Protocol::Tcp, 2222), "id2", just));
        assert!(!kept.is_others_port((Protocol::Tcp, 2222), "id1", just));
        assert!(
            !kept.is_others_port((Protocol::Udp, 2222), "id2", just),
            "another protocol"
        );
        assert_eq!(kept.ports_of("id1", just).len(), 1);
        let over = start + RESERVATION_TIME;
        assert!(!kept.is_host(&key("web"), over));
        assert!(kept.other_owner(&key("web"), "id2", None, over).is_none());
        assert!(!kept.is_others_port((Protocol::Tcp, 2222), "id2", over));
        assert!(kept.ports_of("id1", over).is_empty());
        assert_eq!((kept.hosts(over).count(), kept.ports(over).count()), (0, 0));
        kept.reserve_hosts(
            ("id2", LoginProof::Known),
            Vec::new(),
            Reservation::Claimed,
            over,
        );
        assert!(kept.keys.is_empty() && kept.owners.is_empty());
        assert!(
            kept.hosts.is_empty() && kept.ports.is_empty(),
            "nothing is left of it"
        );
    }

    #[test]
    fn the_oldest_reservations_of_an_id_beyond_its_limits_are_removed() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        for (id, prefix, number) in [("id1", "a", 1), ("id1", "b", 2), ("id2", "c", 3)] {
            let its = vec![(key(prefix), None)];
            kept.reserve_hosts((id, LoginProof::Known), its, Reservation::Claimed, now);
            kept.reserve_port(id, port(number), None, now);
        }
        kept.limit("id1", 1, 1);
        let is_kept = |prefix| kept.is_host(&key(prefix), now);
        assert!(!is_kept("a") && is_kept("b") && is_kept("c"));
        let is_reserved = |number| kept.is_others_port((Protocol::Tcp, number), "other", now);
        assert!(!is_reserved(1) && is_reserved(2) && is_reserved(3));
    }

    #[test]
    fn a_port_handed_over_late_is_reserved_for_a_full_minute() {
        let (mut kept, start) = (Reservations::default(), Instant::now());
        let late = start + RESERVATION_TIME - Duration::from_millis(1);
        let open = |number| InheritedPort {
            listener: Some(PortSocket::Tcp(Arc::new(
                net::listen(None, 0).expect("listen"),
            ))),
            ..port(number)
        };
        for (id, number, now) in [
            ("id1", 1, start),
            ("id1", 2, late),
            ("id2", 3, start),
            ("id2", 4, late),
        ] {
            kept.reserve_port(id, open(number), None, now);
        }
        let numbers = |kept: &Reservations, id: &str| {
            let ports = kept.ports_of(id, start);
            ports.iter().map(|port| port.port).collect::<Vec<_>>()
        };
        kept.close_expired_ports_of("id1", start + RESERVATION_TIME);
        assert_eq!(numbers(&kept, "id1"), [2]);
        assert_eq!(numbers(&kept, "id2"), [3, 4]);
        kept.close_expired_ports(start + RESERVATION_TIME);
        assert_eq!(numbers(&kept, "id1"), [2]);
        assert_eq!(numbers(&kept, "id2"), [4]);
        kept.close_expired_ports(late + RESERVATION_TIME);
        assert!(kept.ports.is_empty(), "nothing is left open");
    }

    #[test]
    fn a_returning_client_releases_what_it_does_not_request() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        kept.reserve_hosts(
            ("id1", LoginProof::Known),
            names(0..2),
            Reservation::Claimed,
            now,
        );
        kept.reserve_hosts(
            ("id2", LoginProof::Known),
            alone(&["other"]),
            Reservation::Claimed,
            now,
        );
        kept.reserve_port("id1", port(2222), None, now);
        kept.release("id1");
        assert_eq!(kept.hosts(now).count(), 1);
        assert_eq!(kept.ports(now).count(), 0);
    }

    #[test]
    fn a_prefix_given_up_is_free_but_visitors_wait() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        kept.reserve_hosts(
            ("id1", LoginProof::Known),
            alone(&["web"]),
            Reservation::GivenUp,
            now,
        );
        assert!(kept.is_host(&key("web"), now));
        assert!(kept.other_owner(&key("web"), "id2", None, now).is_none());
        let host = kept.hosts(now).next().unwrap();
        assert_eq!((host.key, host.id), (key("web"), None));
        kept.release("id1");
        assert_eq!(
            kept.hosts(now).count(),
            0,
            "it was given up in an earlier registration"
        );
    }

    #[test]
    fn strangers_cannot_evict_reservations_of_others() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        kept.reserve_hosts(
            ("user", LoginProof::Known),
            alone(&["user"]),
            Reservation::Claimed,
            now,
        );
        kept.reserve_hosts(
            ("first", LoginProof::Stranger),
            alone(&["first"]),
            Reservation::Claimed,
            now,
        );
        kept.reserve_hosts(
            ("greedy", LoginProof::Stranger),
            names(0..600),
            Reservation::Claimed,
            now,
        );
        let of_greedy = kept
            .hosts(now)
            .filter(|host| host.id.as_deref() == Some("greedy"));
        assert_eq!(of_greedy.count(), MAX_PREFIXES_PER_STRANGER);
        for n in 0..100 {
            let keys = names(n * 600..n * 600 + 600);
            kept.reserve_hosts(
                (&format!("more{n}"), LoginProof::Stranger),
                keys,
                Reservation::Claimed,
                now,
            );
        }
        assert_eq!(kept.hosts(now).count(), MAX_STRANGER_PREFIXES + 1);
        for name in ["user", "first"] {
            assert!(
                kept.other_owner(&key(name), "greedy", None, now).is_some(),
                "{name}"
            );
        }
        kept.reserve_hosts(
            ("late", LoginProof::Known),
            alone(&["late"]),
            Reservation::Claimed,
            now,
        );
        assert!(kept
            .other_owner(&key("late"), "greedy", None, now)
            .is_some());
    }

    #[test]
    fn a_prefix_handed_over_without_an_id_is_reserved_for_anyone() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        let restored = |name, id: Option<&str>| KeptHost {
            key: key(name),
            id: id.map(Into::into),
            group: None,
        };
        kept.restore_host(restored("old", None), now);
        kept.restore_host(restored("new", Some("id1")), now);
        assert!(kept.is_host(&key("old"), now) && kept.is_host(&key("new"), now));
        assert!(kept.other_owner(&key("old"), "id2", None, now).is_none());
        assert!(kept.other_owner(&key("new"), "id2", None, now).is_some());
    }
    #[test]
    fn a_prefix_of_a_group_is_reserved_for_all_of_its_members() {
        let group = |text: &str| GroupSpec {
            name: "g".into(),
            key: text.as_bytes().into(),
            sticky: false,
        };
        let (mut kept, now) = (Reservations::default(), Instant::now());
        let shared = vec![(key("web"), Some(group("k1")))];
        kept.reserve_hosts(
            ("id1", LoginProof::Known),
            shared,
            Reservation::Claimed,
            now,
        );
        let (same, another) = (group("k1"), group("k2"));
        let other = |id, group| kept.other_owner(&key("web"), id, group, now);
        assert_eq!(other("id1", None), None);
        assert_eq!(other("id2", Some(&same)), None);
        assert_eq!(other("id2", Some(&another)), Some("id1"));
        assert_eq!(other("id2", None), Some("id1"));
        let handed_over = kept.hosts(now).next().unwrap();
        assert_eq!(handed_over.group, Some(group("k1")));
    }
}
