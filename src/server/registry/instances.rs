//! Several clients with one id: the key by which the registration of each is known here, and what holds for
//! all of an id. A client without an instance (docs/wire.md, "Groups") is the one of its id that has none.

use super::{Key, RegisteredClient, RegistryState};
use crate::collections::{HashMap, HashSet};
use crate::config::{Limits, PortLimits};
use crate::server::ports::{PortId, PortRequest};
use crate::wire::hello::{ServiceSpec, INSTANCE};

/// Maximum number of names, and of ports, that are reserved for an id without a limit of its own.
const MAX_RESERVED: usize = 1000;
/// Separates the id from the instance in a key.
const SEPARATOR: char = '\0';

/// Returns the key of the registration of a client. It is the id itself for a client without an instance.
pub fn client_key(id: &str, instance: Option<[u8; INSTANCE]>) -> Box<str> {
    match instance {
        Some(instance) => {
            let instance = u64::from_be_bytes(instance);
            format!("{id}{SEPARATOR}{instance:016x}").into()
        }
        // It must not be taken for that of an instance.
        None if id.contains(SEPARATOR) => format!("{id}{SEPARATOR}").into(),
        None => id.into(),
    }
}

/// Returns the id of the client with this key.
pub fn id_of(key: &str) -> &str {
    key.rsplit_once(SEPARATOR).map_or(key, |(id, _)| id)
}

/// The keys of registrations that are not the id itself, by id.
#[derive(Default)]
pub struct Instances(HashMap<Box<str>, Vec<Box<str>>>);

impl Instances {
    /// Adds a registration.
    pub fn add(&mut self, key: &str) {
        let id = id_of(key);
        if id.len() == key.len() {
            return;
        }
        let keys = self.0.entry(id.into()).or_default();
        if keys.iter().all(|other| **other != *key) {
            keys.push(key.into());
        }
    }

    /// Whether an id has a registration with another key.
    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Removes a registration.
    pub fn remove(&mut self, key: &str) {
        let id = id_of(key);
        if let Some(keys) = self.0.get_mut(id) {
            keys.retain(|other| **other != *key);
            if keys.is_empty() {
                self.0.remove(id);
            }
        }
    }
}

impl RegistryState {
    /// Returns the registrations of an id, with their keys.
    pub(super) fn of_id<'a>(
        &'a self,
        id: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a RegisteredClient)> {
        let others = self.instances.0.get(id).into_iter().flatten();
        // An id that looks like the key of another one's instance is none.
        let own = Some(id).filter(|key| id_of(key) == id);
        let keys = own.into_iter().chain(others.map(|key| &**key));
        keys.filter_map(|key| Some((key, &**self.clients.get(key)?)))
    }

    /// Returns the other registrations of the id of this one, with their keys.
    pub(super) fn siblings<'a>(
        &'a self,
        key: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a RegisteredClient)> {
        self.of_id(id_of(key))
            .filter(move |(other, _)| *other != key)
    }

    /// Returns how many names and ports may be reserved for an id besides what its clients have, so that all
    /// of them together keep its limits.
    pub(super) fn room_for_reserved(&self, id: &str, limits: &Limits) -> (usize, usize) {
        let most = |number: u32| match number {
            0 => MAX_RESERVED,
            number => usize::try_from(number).unwrap_or(MAX_RESERVED),
        };
        let domains = match limits.domains.is_empty() {
            true => 0,
            false => MAX_RESERVED,
        };
        let names: HashSet<&Key> = self
            .of_id(id)
            .flat_map(|(key, _)| self.hosts.of(key))
            .collect();
        let ports: HashSet<PortId> = self
            .of_id(id)
            .flat_map(|(_, client)| client.open_ports())
            .map(|(port, _)| port)
            .collect();
        let of_protocol = |limits: &PortLimits| match limits.total {
            0 => limits.rules.iter().map(|rule| most(rule.number)).sum(),
            total => most(total),
        };
        let most_ports: usize = of_protocol(&limits.tcp).saturating_add(of_protocol(&limits.udp));
        let most_names = most(limits.hosts.number).saturating_add(domains);
        (
            most_names.min(MAX_RESERVED).saturating_sub(names.len()),
            most_ports.min(MAX_RESERVED).saturating_sub(ports.len()),
        )
    }

    /// Returns the names of the other registrations of the same id.
    pub(super) fn hosts_of_siblings<'a>(&'a self, key: &'a str) -> HashSet<&'a Key> {
        let siblings = self.siblings(key);
        siblings.flat_map(|(key, _)| self.hosts.of(key)).collect()
    }

    /// Returns the ports of the other registrations of the same id, each once, without those that these
    /// services ask for.
    pub(super) fn ports_of_siblings(
        &self,
        key: &str,
        services: &[Option<ServiceSpec>],
    ) -> Vec<PortId> {
        let is_asked = |port: PortId| {
            let mut specs = services.iter().flatten();
            specs.any(|spec| {
                let request = PortRequest::of(spec).filter(|_| spec.group().is_some());
                request.is_some_and(|request| request.id() == port)
            })
        };
        let mut ports: Vec<PortId> = Vec::new();
        for (port, _) in self
            .siblings(key)
            .flat_map(|(_, client)| client.open_ports())
        {
            if !ports.contains(&port) && !is_asked(port) {
                ports.push(port);
            }
        }
        ports
    }

    /// Ends the other registrations of the same id that take no more visitors: what they have is for this
    /// one.
    pub(super) fn revoke_departing_siblings(&mut self, key: &str) {
        let is_parked = |client: &RegisteredClient| {
            let mut tunnels = client.tunnels.iter();
            tunnels.any(|member| member.tunnel.is_parked())
        };
        let departing: Vec<Box<str>> = self
            .siblings(key)
            .filter(|(_, client)| !client.is_alive() && !is_parked(client))
            .map(|(key, _)| key.into())
            .collect();
        for key in departing {
            self.revoke(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_clients_differ_whatever_their_ids_contain() {
        let one = Some([0xAB; INSTANCE]);
        let key = client_key("id1", one);
        assert_eq!(id_of(&key), "id1");
        assert_eq!(&*client_key("id1", None), "id1");
        // An id that looks like the key of another client.
        let forged = client_key(&key, None);
        assert_ne!(forged, key);
        assert_eq!(id_of(&forged), &*key);
        let of_forged = client_key(&key, one);
        assert_eq!(id_of(&of_forged), &*key);
        assert_ne!(
            client_key("id1\0", None),
            client_key("id1", Some([0; INSTANCE]))
        );
        assert_ne!(client_key("id1", Some([1; INSTANCE])), key);
    }

    #[test]
    fn instances_are_listed_once_and_leave_nothing() {
        let mut instances = Instances::default();
        let key = client_key("id1", Some([1; INSTANCE]));
        for key in ["id1", &key, &key] {
            instances.add(key);
        }
        assert_eq!(instances.0.get("id1").map(Vec::len), Some(1));
        instances.remove("id1");
        instances.remove(&key);
        assert!(instances.0.is_empty());
    }
}
