//! Clients whose tunnels stay in the process before this one, which serves their visitors. Not the
//! clients that have tunnels here.

use super::Key;
use crate::config::Secret;
use crate::server::users::Admission;
use std::collections::HashMap;

#[derive(Default)]
pub struct HeldClients {
    ids: HashMap<Box<str>, HeldClient>,
    hosts: HashMap<Key, Box<str>>,
}

/// How a client has shown that it may come in. If that is a claim to its id, it lasts as long as
/// this.
pub struct LoginRight {
    secret: Secret,
    _admission: Option<Admission>,
}

impl LoginRight {
    /// There is no `admission` if the authAPI decides about the client.
    pub fn new(secret: Secret, admission: Option<Admission>) -> Self {
        Self {
            secret,
            _admission: admission,
        }
    }
}

struct HeldClient {
    hosts: Vec<Key>,
    right: LoginRight,
}

impl HeldClients {
    /// Notes a client, or what has changed of it.
    pub fn hold(&mut self, id: &str, hosts: Vec<Key>, right: LoginRight) {
        self.release(id);
        for host in &hosts {
            self.hosts.insert(host.clone(), id.into());
        }
        self.ids.insert(id.into(), HeldClient { hosts, right });
    }

    /// Forgets a client. Returns its prefixes and its right.
    pub fn release(&mut self, id: &str) -> Option<(Vec<Key>, LoginRight)> {
        let HeldClient { hosts, right } = self.ids.remove(id)?;
        for host in &hosts {
            if self.owner(host) == Some(id) {
                self.hosts.remove(host);
            }
        }
        Some((hosts, right))
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

    /// Every client, with its secret.
    pub fn clients(&self) -> Vec<(Box<str>, Secret)> {
        let clients = self.ids.iter();
        clients
            .map(|(id, client)| (id.clone(), client.right.secret.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::HostKind;
    use super::*;

    #[test]
    fn a_prefix_is_its_client_s_until_that_is_released_or_has_others() {
        let key = |name: &str| (HostKind::Http, Box::from(name));
        let right = || LoginRight::new(Secret::new("secret"), None);
        let mut held = HeldClients::default();
        held.hold("id1", vec![key("a"), key("b")], right());
        held.hold("id2", vec![key("c")], right());
        assert_eq!(held.owner(&key("a")), Some("id1"));
        held.hold("id1", vec![key("b"), key("d")], right());
        assert!(held.owner(&key("a")).is_none() && held.owner(&key("d")) == Some("id1"));
        assert_eq!(held.hosts_of("id1"), [key("b"), key("d")]);
        held.release("id1");
        assert!(!held.has("id1") && held.has("id2"));
        let left: Vec<_> = held.hosts().collect();
        assert_eq!(left, [(&key("c"), "id2")]);
    }
}
