//! Clients whose tunnels stay in the process before this one, which serves their visitors. Not the
//! clients that have tunnels here.

use super::Key;
use crate::server::claims::Claim;
use std::collections::HashMap;

#[derive(Default)]
pub struct Held {
    ids: HashMap<Box<str>, Client>,
    hosts: HashMap<Key, Box<str>>,
}

struct Client {
    hosts: Vec<Key>,
    claim: Option<Claim>,
}

impl Held {
    /// Notes a client, or what has changed of it. Its claim lasts until it is released.
    pub fn hold(&mut self, id: &str, hosts: Vec<Key>, claim: Option<Claim>) {
        let before = self.release(id);
        for host in &hosts {
            self.hosts.insert(host.clone(), id.into());
        }
        let claim = claim.or(before.and_then(|(_, claim)| claim));
        self.ids.insert(id.into(), Client { hosts, claim });
    }

    /// Forgets a client. Returns its prefixes and its claim.
    pub fn release(&mut self, id: &str) -> Option<(Vec<Key>, Option<Claim>)> {
        let Client { hosts, claim } = self.ids.remove(id)?;
        for host in &hosts {
            if self.owner(host) == Some(id) {
                self.hosts.remove(host);
            }
        }
        Some((hosts, claim))
    }

    pub fn has(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    /// The client that has this prefix.
    pub fn owner(&self, host: &Key) -> Option<&str> {
        self.hosts.get(host).map(|id| &**id)
    }

    pub fn hosts_of(&self, id: &str) -> &[Key] {
        self.ids.get(id).map_or(&[], |client| &client.hosts)
    }

    /// Every prefix, and whose it is.
    pub fn hosts(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.hosts.iter().map(|(host, id)| (host, &**id))
    }

    pub fn ids(&self) -> Vec<Box<str>> {
        self.ids.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn a_prefix_is_its_client_s_until_that_is_released_or_has_others() {
        let key = |name: &str| (Kind::Http, Box::from(name));
        let mut held = Held::default();
        held.hold("id1", vec![key("a"), key("b")], None);
        held.hold("id2", vec![key("c")], None);
        assert_eq!(held.owner(&key("a")), Some("id1"));
        held.hold("id1", vec![key("b"), key("d")], None);
        assert!(held.owner(&key("a")).is_none() && held.owner(&key("d")) == Some("id1"));
        assert_eq!(held.hosts_of("id1"), [key("b"), key("d")]);
        held.release("id1");
        assert!(!held.has("id1") && held.has("id2"));
        let left: Vec<_> = held.hosts().collect();
        assert_eq!(left, [(&key("c"), "id2")]);
    }
}
