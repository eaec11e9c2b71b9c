//! Host prefixes and ports that go to another process or come from it in a restart, and those that are kept for
//! clients that are away.

use super::domains::domain_of;
use super::instances::id_of;
use super::{HostKind, Key, Registry};
use crate::handover::HostKey;
use crate::net::clock;
use crate::server::ports::{InheritedPort, PortId, PortListener};
use crate::wire::hello::GroupSpec;
use std::time::Duration;

/// Time after a restart in which visitors wait longer for a client that is away.
pub(super) const RECONNECT_PERIOD_AFTER_RESTART: Duration = Duration::from_secs(60);

/// A host prefix that is in use or reserved, as another process is told.
pub struct KeptHost {
    /// The prefix.
    pub key: Key,
    /// The client's id as far as known.
    pub id: Option<Box<str>>,
    /// The group that shares it.
    pub group: Option<GroupSpec>,
}

impl Registry {
    /// Returns all prefixes in use or reserved, with their clients' ids as far as known.
    pub fn hosts(&self) -> Vec<KeptHost> {
        let inner = self.lock();
        let served = inner.hosts.iter().map(|(key, host)| KeptHost {
            key: key.clone(),
            id: Some(id_of(&host.member.client).into()),
            group: host.group.as_ref().map(|group| group.spec.clone()),
        });
        let kept = inner.reservations.hosts(clock::now());
        let held = inner.held.hosts().map(|(key, id)| KeptHost {
            key: key.clone(),
            id: Some(id.into()),
            group: None,
        });
        served.chain(kept).chain(held).collect()
    }

    /// Returns all ports with their clients' ids, to hand them over to another process; those of a
    /// client are in the order of its services.
    pub fn share_ports(&self) -> Vec<(Box<str>, InheritedPort)> {
        let mut inner = self.lock();
        let mut shared = Vec::new();
        for (id, client) in &mut inner.clients {
            client.ports.sort_by_key(PortListener::service);
            let ports = client.ports.iter_mut().map(PortListener::share);
            shared.extend(ports.map(|port| (id_of(id).into(), port)));
        }
        let kept = inner.reservations.ports(clock::now());
        shared.extend(kept.map(|(id, port)| {
            port.set_shared(true);
            (id.into(), port.clone())
        }));
        shared.extend(inner.held.share_ports());
        shared
    }

    /// Returns the groups of ports that are shared, or were lately.
    pub fn groups_of_ports(&self) -> Vec<(PortId, GroupSpec)> {
        let inner = self.lock();
        let shared = inner.shared_ports.iter().filter_map(|(port, host)| {
            let group = host.group.as_ref()?;
            Some((*port, group.spec.clone()))
        });
        let kept = inner.reservations.groups_of_ports(clock::now());
        shared.chain(kept).collect()
    }

    /// Takes the ports back that were shared with another process that failed.
    pub fn unshare_ports(&self) {
        let mut inner = self.lock();
        let kept = inner.reservations.ports(clock::now());
        kept.for_each(|(_, port)| port.set_shared(false));
        inner.held.unshare_ports();
        for client in inner.clients.values_mut() {
            client.ports.iter_mut().for_each(PortListener::unshare);
        }
    }

    /// Closes all ports in this process; another one that shares them keeps them open.
    pub fn close_ports(&self) {
        let mut inner = self.lock();
        inner.reservations.close_ports();
        inner.held.close_ports();
        for client in inner.clients.values_mut() {
            client.ports.clear();
        }
    }

    /// Reserves the prefixes and ports that the clients of the parent process had, until they
    /// reconnect.
    pub fn restore(
        &self,
        hosts: Vec<KeptHost>,
        ports: Vec<(Box<str>, InheritedPort)>,
        groups: &[(PortId, GroupSpec)],
    ) {
        let mut inner = self.lock();
        let now = clock::now();
        if !hosts.is_empty() {
            inner.restart_until = Some(now + RECONNECT_PERIOD_AFTER_RESTART);
        }
        for host in hosts {
            inner.has_domains |= domain_of(&host.key.1).is_some();
            inner.reservations.restore_host(host, now);
        }
        for (id, port) in ports {
            let group = groups.iter().find(|(of, _)| *of == port.id());
            let group = group.map(|(_, group)| group.clone());
            inner.reservations.reserve_port(&id, port, group, now);
        }
    }

    /// Closes the ports of a client that did not reconnect in time.
    pub fn close_expired_ports_of(&self, id: &str) {
        self.lock()
            .reservations
            .close_expired_ports_of(id, clock::now());
    }

    /// Forgets what was kept for clients that have not come back in time. Returns whether something
    /// is still kept.
    pub fn forget_departed(&self) -> bool {
        let mut inner = self.lock();
        let most = inner.clients.len() * 2;
        inner.clients.shrink_to(most);
        inner.hosts.shrink();
        inner.reservations.forget_expired(clock::now());
        !inner.reservations.is_empty()
    }

    /// Closes the ports of all clients that did not reconnect in time.
    pub fn close_expired_ports(&self) {
        self.lock().reservations.close_expired_ports(clock::now());
    }
}

/// Converts a host prefix of a message to the registry's key.
pub fn registry_key(host: &HostKey) -> Key {
    let kind = if host.tls {
        HostKind::Tls
    } else {
        HostKind::Http
    };
    (kind, host.prefix.as_str().into())
}
