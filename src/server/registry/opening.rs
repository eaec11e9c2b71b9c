//! Streams for visitors: which client and which of its tunnels they come to.

use super::domains::{self, CATCH_ALL};
use super::instances::id_of;
use super::{HostKind, OpenResult, Registry, RegistryState};
use crate::net::{clock, ShardId};
use crate::server::ports::{PortId, PortListener};
use crate::wire::frame::ServiceIndex;
use std::net::IpAddr;
use std::time::Duration;

/// Time that a visitor waits for a client that was connected recently.
const RECONNECT_WAIT: Duration = Duration::from_secs(3);
/// Time that a visitor waits for a client that lost its tunnels in a restart: clients of the
/// original reconnect after reconnectDelay, 5 s by default.
const RECONNECT_WAIT_AFTER_RESTART: Duration = Duration::from_secs(10);

impl Registry {
    /// Returns the name under which a visitor's host is registered, if it is a domain of a client;
    /// otherwise its host prefix.
    pub fn name_of(&self, kind: HostKind, host: &str, prefix: String) -> String {
        let inner = self.lock();
        if !inner.has_domains {
            return prefix;
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let now = clock::now();
        let is_owned = |name: &str| inner.is_owned(&(kind, name.into()), now);
        if let Some(domain) = domains::find(&host, is_owned) {
            return domain;
        }
        if is_owned(&prefix) {
            return prefix;
        }
        if is_owned(CATCH_ALL) {
            return CATCH_ALL.to_owned();
        }
        // One that a client has just given up: it may come back, as after a reload in two steps.
        let is_reserved = |name: &str| inner.reservations.is_host(&(kind, name.into()), now);
        domains::find(&host, is_reserved).unwrap_or(prefix)
    }

    /// Passes on the ids of all clients that have a name of the registry: those here, one in the parent
    /// process, or else the one that is away for a moment. An id may come several times.
    pub fn with_ids_of_name<T>(
        &self,
        kind: HostKind,
        name: &str,
        read: impl FnOnce(&mut dyn Iterator<Item = &str>) -> T,
    ) -> T {
        let inner = self.lock();
        let key = (kind, Box::from(name));
        let members = inner
            .hosts
            .get(&key)
            .into_iter()
            .flat_map(|host| host.all());
        let held = inner.held.owner(&key);
        let mut present = members
            .map(|member| id_of(&member.client))
            .chain(held)
            .peekable();
        let away = match present.peek() {
            Some(_) => None,
            None => inner.reservations.last_owner(&key, clock::now()),
        };
        let mut ids = present.chain(away);
        read(&mut ids)
    }

    /// Returns the id of the client that has a host prefix.
    pub fn owner(&self, kind: HostKind, prefix: &str) -> Option<Box<str>> {
        let inner = self.lock();
        let host = inner.hosts.get(&(kind, prefix.into()))?;
        Some(id_of(&host.member.client).into())
    }

    /// Returns the time that a visitor waits for a client that was connected recently.
    pub fn reconnect_wait(&self) -> Duration {
        match self.lock().restart_until {
            Some(until) if clock::now() < until => RECONNECT_WAIT_AFTER_RESTART,
            _ => RECONNECT_WAIT,
        }
    }

    /// Opens a stream to the client that has the prefix, or to one of those that share it; if `also_down`,
    /// even if its service is down.
    pub fn open_host(
        &self,
        kind: HostKind,
        prefix: &str,
        visitor: IpAddr,
        also_down: bool,
    ) -> OpenResult {
        let mut inner = self.lock();
        let key = (kind, Box::from(prefix));
        match inner.hosts.get(&key) {
            Some(host) if host.group.is_some() => inner.open_group(&key, visitor, also_down),
            Some(host) => {
                let (client, service) = (host.member.client.clone(), host.member.service);
                inner.open(&client, service, also_down)
            }
            None if inner.held.owner(&key).is_some() => OpenResult::Held,
            None if inner.reservations.is_host(&key, clock::now()) => OpenResult::NoTunnel,
            None => OpenResult::Unknown,
        }
    }

    /// Opens a stream to the service that a client's port belongs to now, or to one of those that share it;
    /// the client may have changed its services since the visitor was accepted.
    pub fn open_port(&self, id: &str, port: PortId, visitor: IpAddr) -> OpenResult {
        let mut inner = self.lock();
        if let Some(opened) = inner.open_shared_port(port, visitor) {
            return opened;
        }
        let client = inner.clients.get(id);
        let mut ports = client.into_iter().flat_map(|client| &client.ports);
        match ports
            .find(|other| other.id() == port)
            .map(PortListener::service)
        {
            Some(service) => inner.open(id, service, false),
            None => inner.absent_result(id),
        }
    }
}

impl RegistryState {
    /// Returns the result for visitors of a client without a tunnel here.
    pub(super) fn absent_result(&self, id: &str) -> OpenResult {
        match self.held.has(id) {
            true => OpenResult::Held,
            false => OpenResult::NoTunnel,
        }
    }

    /// Opens a stream on the client's least loaded tunnel of those that are late the least.
    pub(super) fn open(&mut self, id: &str, service: ServiceIndex, also_down: bool) -> OpenResult {
        let absent = self.absent_result(id);
        let Some(client) = self.clients.get_mut(id) else {
            return absent;
        };
        let current = client
            .tunnels
            .iter()
            .filter(|member| client.is_current(member));
        // Of tunnels with the same load, one of the visitor's executor thread.
        let here = ShardId::current();
        let mut is_down = false;
        let loads = current.filter_map(|member| {
            let tunnel = &member.tunnel;
            let load = (tunnel.lateness(), tunnel.load()?);
            if !also_down && member.is_down(service) {
                is_down = true;
                return None;
            }
            Some(((load, tunnel.thread() != here), tunnel))
        });
        let Some((_, tunnel)) = loads.min_by_key(|(load, _)| *load) else {
            if is_down {
                return OpenResult::Down;
            }
            if client.is_left_behind() {
                self.leave_behind(id);
                return absent;
            }
            let mut tunnels = client.tunnels.iter();
            let pausing = tunnels.any(|member| member.tunnel.is_parked());
            return if pausing { OpenResult::Pausing } else { absent };
        };
        // Ids wrap after about four billion streams, and an old stream may still have one.
        for _ in 0..64 {
            client.last_stream = client.last_stream.next();
            if let Some(stream) = tunnel.open(client.last_stream, service) {
                return OpenResult::Stream(stream);
            }
        }
        OpenResult::NoTunnel
    }
}
