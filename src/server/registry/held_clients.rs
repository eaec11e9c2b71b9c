//! Clients whose tunnels stay in the parent process, which serves their visitors.

use super::Key;
use crate::collections::HashMap;
use crate::config::Secret;
use crate::server::ports::{InheritedPort, PortListener};
use crate::server::users::Admission;

/// The ids and host prefixes of clients whose tunnels are in the parent process.
#[derive(Default)]
pub struct HeldClients {
    ids: HashMap<Box<str>, HeldClient>,
    hosts: HashMap<Key, Box<str>>,
}

/// The right of a client to connect: its checked secret. A lease on a first secret lasts as long as
/// this value.
pub struct LoginRight {
    secret: Secret,
    _admission: Option<Admission>,
}

impl LoginRight {
    /// Creates the right of a client; without an `admission` if the authAPI decides about the
    /// client.
    pub fn new(secret: Secret, admission: Option<Admission>) -> Self {
        Self {
            secret,
            _admission: admission,
        }
    }
}

struct HeldClient {
    hosts: Vec<Key>,
    /// Ports that have moved here; their visitors are forwarded to the parent process.
    ports: Vec<PortListener>,
    right: LoginRight,
}

impl HeldClients {
    /// Adds a client, or replaces its prefixes.
    pub fn hold(&mut self, id: &str, hosts: Vec<Key>, right: LoginRight) {
        let before = self.release(id);
        for host in &hosts {
            self.hosts.insert(host.clone(), id.into());
        }
        let client = HeldClient {
            hosts,
            ports: before.map_or_else(Vec::new, |(_, ports, _)| ports),
            right,
        };
        self.ids.insert(id.into(), client);
    }

    /// Keeps the ports of a client whose last tunnel here has ended. Without such a client they are
    /// closed.
    pub fn keep_ports(&mut self, id: &str, ports: impl IntoIterator<Item = PortListener>) {
        if let Some(client) = self.ids.get_mut(id) {
            client.ports.extend(ports);
        }
    }

    /// Takes the ports of a client that registers here.
    pub fn take_ports(&mut self, id: &str) -> Vec<PortListener> {
        let client = self.ids.get_mut(id);
        client.map_or_else(Vec::new, |client| std::mem::take(&mut client.ports))
    }

    /// Returns all ports with their clients' ids, to hand them over to another process.
    pub fn share_ports(&mut self) -> Vec<(Box<str>, InheritedPort)> {
        let mut shared = Vec::new();
        for (id, client) in &mut self.ids {
            let ports = client.ports.iter_mut().map(PortListener::share);
            shared.extend(ports.map(|port| (id.clone(), port)));
        }
        shared
    }

    /// Takes the ports back that were shared with another process that failed.
    pub fn unshare_ports(&mut self) {
        let clients = self.ids.values_mut();
        clients
            .flat_map(|client| &mut client.ports)
            .for_each(PortListener::unshare);
    }

    /// Closes all ports in this process.
    pub fn close_ports(&mut self) {
        self.ids
            .values_mut()
            .for_each(|client| client.ports.clear());
    }

    /// Removes a client. Returns its prefixes, its ports and its right.
    pub fn release(&mut self, id: &str) -> Option<(Vec<Key>, Vec<PortListener>, LoginRight)> {
        let HeldClient {
            hosts,
            ports,
            right,
        } = self.ids.remove(id)?;
        for host in &hosts {
            if self.owner(host) == Some(id) {
                self.hosts.remove(host);
            }
        }
        Some((hosts, ports, right))
    }

    /// Whether the tunnels of this client are in the parent process.
    pub fn has(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    /// Returns the client that has this prefix.
    pub fn owner(&self, host: &Key) -> Option<&str> {
        self.hosts.get(host).map(|id| &**id)
    }

    /// Returns the prefixes of one client.
    pub fn hosts_of(&self, id: &str) -> &[Key] {
        self.ids.get(id).map_or(&[], |client| &client.hosts)
    }

    /// Returns all prefixes with their clients.
    pub fn hosts(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.hosts.iter().map(|(host, id)| (host, &**id))
    }

    /// Returns all clients with their secrets.
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
    fn prefixes_belong_to_their_client_until_released_or_replaced() {
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
