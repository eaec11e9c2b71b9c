//! The host prefixes that clients have, and the ports that they share, indexed by name and by client.
//! `requested_hosts` and `sort_ports` of the registry decide which ones a client may have.

use super::{Key, RegisteredHost};
use crate::collections::HashMap;
use crate::wire::frame::ServiceIndex;
use crate::wire::hello::GroupSpec;
use std::hash::Hash;

/// The group that shares a name.
pub struct HostGroup {
    /// The group of the first member.
    pub spec: GroupSpec,
    /// The members besides the host's own client.
    others: Vec<HostMember>,
    /// The clients to which visitors have come, with the number of the last one.
    turns: Vec<(Box<str>, u32)>,
    /// The number of the last visitor.
    turn: u32,
}

/// A client that has a name, and its service.
pub struct HostMember {
    /// The key of the client.
    pub client: Box<str>,
    /// The service.
    pub service: ServiceIndex,
}

impl HostGroup {
    /// Returns why a client cannot share the name with a service of another group, or of none, or why there
    /// is no room for it in this one.
    pub fn why_not(&self, group: Option<&GroupSpec>) -> &'static str {
        match group {
            None => "clients of a serviceGroup share it, to which this service does not belong",
            Some(group) if self.spec.is(group) => {
                "its serviceGroup has the maximum of members, 100"
            }
            Some(group) if self.spec.name == group.name => {
                "the serviceGroup of this name that has it has another groupKey"
            }
            Some(_) => "clients of another serviceGroup share it",
        }
    }

    /// Returns when a visitor last came to a member.
    pub fn turn_of(&self, client: &str) -> u32 {
        let turn = self.turns.iter().find(|(other, _)| **other == *client);
        turn.map_or(0, |(_, turn)| *turn)
    }
}

impl RegisteredHost {
    /// Returns the clients that have the name, with their services.
    pub fn all(&self) -> impl Iterator<Item = &HostMember> {
        let others = self.group.iter().flat_map(|group| &group.others);
        std::iter::once(&self.member).chain(others)
    }

    /// Returns the service of a client that has the name.
    pub fn service_of(&self, client: &str) -> Option<ServiceIndex> {
        let mut all = self.all();
        let its = all.find(|member| *member.client == *client)?;
        Some(its.service)
    }

    /// Returns the other clients that have the name.
    pub fn others<'a>(&'a self, client: &'a str) -> impl Iterator<Item = &'a HostMember> {
        self.all().filter(move |member| *member.client != *client)
    }

    /// Returns a client that prevents another one from having the name: all others do, unless they share
    /// it with this group and there is room for one more.
    pub fn rival(&self, client: &str, group: Option<&GroupSpec>, most: usize) -> Option<&str> {
        let mut others = self.all().filter(|member| *member.client != *client);
        let first = others.next()?;
        let shares = match (&self.group, group) {
            (Some(its), Some(group)) => its.spec.is(group),
            _ => false,
        };
        let has_room = others.count().saturating_add(1) < most;
        (!shares || !has_room).then_some(&first.client)
    }
}

/// The host prefixes in use, or the ports that groups share.
pub struct HostTable<K = Key> {
    by_key: HashMap<K, RegisteredHost>,
    /// The prefixes of each client: with thousands of clients, a search of all prefixes for those
    /// of one takes too long.
    by_client: HashMap<Box<str>, Vec<K>>,
}

impl<K> Default for HostTable<K> {
    fn default() -> Self {
        Self {
            by_key: HashMap::default(),
            by_client: HashMap::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> HostTable<K> {
    /// Returns the client and the service that a prefix belongs to.
    pub fn get(&self, key: &K) -> Option<&RegisteredHost> {
        self.by_key.get(key)
    }

    /// Iterates over all prefixes; too slow for an operation of each client.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &RegisteredHost)> {
        #[cfg(test)]
        SCANS.with(|scans| scans.set(scans.get() + 1));
        self.by_key.iter()
    }

    /// Returns the prefixes of one client.
    pub fn of(&self, client: &str) -> &[K] {
        self.by_client.get(client).map_or(&[], Vec::as_slice)
    }

    /// Assigns the prefix to a client, beside the others of its group, or else taking it from any other.
    pub fn insert(&mut self, key: K, member: HostMember, group: Option<&GroupSpec>) {
        let client = member.client.clone();
        let shared = self.by_key.get_mut(&key).and_then(|host| {
            let shared = host.group.as_mut()?;
            let is_other = *host.member.client != *client;
            (is_other && group.is_some_and(|group| shared.spec.is(group))).then_some(shared)
        });
        if let Some(shared) = shared {
            shared.others.retain(|other| *other.client != *client);
            shared.others.push(member);
        } else {
            let group = group.map(|spec| {
                Box::new(HostGroup {
                    spec: spec.clone(),
                    others: Vec::new(),
                    turns: Vec::new(),
                    turn: 0,
                })
            });
            let host = RegisteredHost { member, group };
            if let Some(before) = self.by_key.insert(key.clone(), host) {
                for member in before.all() {
                    if let Some(keys) = self.by_client.get_mut(&member.client) {
                        keys.retain(|other| *other != key);
                    }
                }
            }
        }
        let keys = self.by_client.entry(client).or_default();
        if keys.is_empty() {
            // Most clients have one prefix.
            keys.reserve_exact(1);
        }
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Returns the group that shares a name, and its members; `None` if it is not shared.
    pub fn group(&self, key: &K) -> Option<(&HostGroup, impl Iterator<Item = &HostMember>)> {
        let host = self.by_key.get(key)?;
        Some((host.group.as_ref()?, host.all()))
    }

    /// Notes that a visitor has come to a member of the group that shares a name.
    pub fn take_turn(&mut self, key: &K, client: &str) {
        let host = self.by_key.get_mut(key);
        let Some(group) = host.and_then(|host| host.group.as_mut()) else {
            return;
        };
        group.turn = group.turn.wrapping_add(1);
        let turn = group.turn;
        match group.turns.iter_mut().find(|(other, _)| **other == *client) {
            Some((_, last)) => *last = turn,
            None => group.turns.push((client.into(), turn)),
        }
    }

    /// Gives memory back after many clients have left.
    pub fn shrink(&mut self) {
        let most = self.by_client.len() * 2;
        self.by_client.shrink_to(most);
        let most = self.by_key.len() * 2;
        self.by_key.shrink_to(most);
    }

    /// Removes all prefixes of a client. Returns those that no other client has, with their groups.
    pub fn take(&mut self, client: &str) -> Vec<(K, Option<GroupSpec>)> {
        let keys = self.by_client.remove(client).unwrap_or_default();
        let mut free = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(host) = self.by_key.get_mut(&key) else {
                continue;
            };
            if let Some(group) = &mut host.group {
                group.turns.retain(|(other, _)| **other != *client);
                if *host.member.client != *client {
                    group.others.retain(|other| *other.client != *client);
                    continue;
                }
                if !group.others.is_empty() {
                    host.member = group.others.remove(0);
                    continue;
                }
            }
            let host = self.by_key.remove(&key);
            let group = host.and_then(|host| host.group).map(|group| group.spec);
            free.push((key, group));
        }
        free
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread has iterated over all prefixes.
    pub static SCANS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::super::HostKind;
    use super::*;
    use crate::wire::frame::ServiceIndex;

    fn key(prefix: &str) -> Key {
        (HostKind::Http, prefix.into())
    }

    #[test]
    fn a_client_has_the_prefixes_last_assigned_to_it() {
        let mut hosts = HostTable::default();
        let list = [("one", "a"), ("one", "b"), ("two", "c"), ("two", "a")];
        for (service, (client, prefix)) in ServiceIndex::all().zip(list) {
            let client = client.into();
            hosts.insert(key(prefix), HostMember { client, service }, None);
        }
        assert_eq!(hosts.of("one"), [key("b")]);
        assert_eq!(hosts.of("two"), [key("c"), key("a")]);
        assert!(hosts.of("three").is_empty());
        let host = hosts.get(&key("a")).unwrap();
        assert_eq!(host.service_of("two"), Some(ServiceIndex(3)));
        assert_eq!(host.service_of("one"), None);
        assert_eq!(hosts.iter().count(), 3);
        assert_eq!(hosts.take("two"), [(key("c"), None), (key("a"), None)]);
        assert!(hosts.take("two").is_empty() && hosts.get(&key("a")).is_none());
        assert_eq!(hosts.iter().count(), 1);
        // Assigning a prefix twice does not list it twice.
        for _ in 0..2 {
            let (client, service) = ("one".into(), ServiceIndex(0));
            hosts.insert(key("b"), HostMember { client, service }, None);
        }
        assert_eq!(hosts.of("one"), [key("b")]);
    }
    #[test]
    fn a_shared_name_stays_with_its_group_until_the_last_member_has_gone() {
        let group = |name: &str, text: &str| GroupSpec {
            name: name.into(),
            key: text.as_bytes().into(),
            sticky: false,
        };
        let (one, other_key, other_name) = (group("g", "k1"), group("g", "k2"), group("h", "k1"));
        let mut hosts = HostTable::default();
        let mut insert = |client: &str, service, group: &GroupSpec| {
            let (client, service) = (client.into(), ServiceIndex(service));
            hosts.insert(key("web"), HostMember { client, service }, Some(group));
        };
        insert("a", 0, &one);
        insert("b", 5, &one);
        insert("b", 6, &one);
        let host = hosts.get(&key("web")).unwrap();
        assert_eq!(host.service_of("b"), Some(ServiceIndex(6)));
        assert_eq!(host.rival("c", Some(&one), 10), None);
        assert_eq!(
            host.rival("c", Some(&one), 2),
            Some("a"),
            "there is no room"
        );
        assert_eq!(
            host.rival("b", Some(&one), 2),
            None,
            "it is a member already"
        );
        for stranger in [Some(&other_key), Some(&other_name), None] {
            assert_eq!(host.rival("c", stranger, 10), Some("a"));
            assert_eq!(
                host.rival("b", stranger, 10),
                Some("a"),
                "it shares the name"
            );
        }
        assert_eq!(hosts.take("a"), []);
        let host = hosts.get(&key("web")).unwrap();
        assert_eq!(host.rival("b", None, 10), None, "it is alone");
        assert_eq!(hosts.of("b"), [key("web")]);
        assert_eq!(hosts.take("b"), [(key("web"), Some(one))]);
        assert!(hosts.get(&key("web")).is_none());
    }
}
