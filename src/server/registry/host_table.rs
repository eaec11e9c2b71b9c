//! The host prefixes that clients have, indexed by prefix and by client. `requested_hosts` of the
//! registry decides which ones a client may have.

use super::{Key, RegisteredHost};
use crate::collections::HashMap;

/// The host prefixes in use.
#[derive(Default)]
pub struct HostTable {
    by_key: HashMap<Key, RegisteredHost>,
    /// The prefixes of each client: with thousands of clients, a search of all prefixes for those
    /// of one takes too long.
    by_client: HashMap<Box<str>, Vec<Key>>,
}

impl HostTable {
    /// Returns the client and the service that a prefix belongs to.
    pub fn get(&self, key: &Key) -> Option<&RegisteredHost> {
        self.by_key.get(key)
    }

    /// Iterates over all prefixes; too slow for an operation of each client.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &RegisteredHost)> {
        #[cfg(test)]
        SCANS.with(|scans| scans.set(scans.get() + 1));
        self.by_key.iter()
    }

    /// Returns the prefixes of one client.
    pub fn of(&self, client: &str) -> &[Key] {
        self.by_client.get(client).map_or(&[], Vec::as_slice)
    }

    /// Assigns the prefix to the host's client, and takes it from any other.
    pub fn insert(&mut self, key: Key, host: RegisteredHost) {
        let client = host.client.clone();
        if let Some(before) = self.by_key.insert(key.clone(), host) {
            if let Some(keys) = self.by_client.get_mut(&before.client) {
                keys.retain(|other| *other != key);
            }
        }
        let keys = self.by_client.entry(client).or_default();
        if keys.is_empty() {
            // Most clients have one prefix.
            keys.reserve_exact(1);
        }
        keys.push(key);
    }

    /// Gives memory back after many clients have left.
    pub fn shrink(&mut self) {
        let most = self.by_client.len() * 2;
        self.by_client.shrink_to(most);
        let most = self.by_key.len() * 2;
        self.by_key.shrink_to(most);
    }

    /// Removes all prefixes of a client.
    pub fn take(&mut self, client: &str) -> Vec<Key> {
        let keys = self.by_client.remove(client).unwrap_or_default();
        for key in &keys {
            self.by_key.remove(key);
        }
        keys
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
            hosts.insert(key(prefix), RegisteredHost { client, service });
        }
        assert_eq!(hosts.of("one"), [key("b")]);
        assert_eq!(hosts.of("two"), [key("c"), key("a")]);
        assert!(hosts.of("three").is_empty());
        let host = hosts.get(&key("a")).unwrap();
        assert_eq!((&*host.client, host.service), ("two", ServiceIndex(3)));
        assert_eq!(hosts.iter().count(), 3);
        assert_eq!(hosts.take("two"), [key("c"), key("a")]);
        assert!(hosts.take("two").is_empty() && hosts.get(&key("a")).is_none());
        assert_eq!(hosts.iter().count(), 1);
        // Assigning a prefix twice does not list it twice.
        for _ in 0..2 {
            let (client, service) = ("one".into(), ServiceIndex(0));
            hosts.insert(key("b"), RegisteredHost { client, service });
        }
        assert_eq!(hosts.of("one"), [key("b")]);
    }
}
