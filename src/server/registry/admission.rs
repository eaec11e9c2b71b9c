//! Registrations: a client's first tunnel, its further ones, and changes of its services and of its limits.

use super::conflict::RegistrationConflict;
use super::domains::domain_of;
use super::host_table::HostMember;
use super::instances::id_of;
use super::registered_client::{MissingPort, PoolEntry, RegisteredClient};
use super::requested_ports::{open_requested_ports, SortedPorts, PORT_RETRY_INTERVAL};
use super::reservations::Reservation;
use super::shared_ports::PortsOfOthers;
use super::{Key, Login, Registry, RegistryState, SharedServices};
use crate::config::Limits;
use crate::logging::LogThrottle;
use crate::net::clock;
use crate::server::ports::{InheritedPort, OpenedPort, PortId, PortQuota};
use crate::server::users::Credentials;
use crate::tunnel::{Traffic, Tunnel};
use crate::wire::frame::{PortCause, RejectCode, ServiceIndex, Signal, StreamId};
use crate::wire::hello::{GroupSpec, ServiceSpec};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;

/// Maximum number of further changes of a client's services that are logged in the minute after one.
const MORE_CHANGES: u16 = 19;

impl Registry {
    /// Adds a tunnel to the client's registration, or creates or replaces the registration, and
    /// tells the client that it is ready. A service that is not granted is `None`, so that indexes
    /// stay valid. The caller has to accept on the returned ports.
    pub fn register(
        &self,
        login: &Login<'_>,
        services: Vec<Option<ServiceSpec>>,
        tunnel: &Tunnel,
    ) -> Result<Vec<OpenedPort>, RejectCode> {
        let early = self.open_early(login, &services);
        let mut inner = self.lock();
        let opened = inner.admit(login, services, early)?;
        inner.attach(login.key, tunnel, Signal::Ready);
        inner.doubt_others(login.id, tunnel);
        inner.limit_draining(login);
        self.wake_visitors(&inner, login.key);
        self.names_event.notify(usize::MAX);
        Ok(opened)
    }

    /// Returns the tunnels that were, perhaps, the reason to reject another one of the same id.
    pub fn blocking_tunnels(&self, key: &str, refusal: RejectCode) -> Vec<Tunnel> {
        let inner = self.lock();
        let client = inner.clients.get(key);
        let draining = client.and_then(|client| client.draining.as_ref());
        match (draining, refusal) {
            (Some(old), RejectCode::OtherClientConnected) => old.tunnels.clone(),
            (_, RejectCode::TooManyConnections) => {
                let its = inner.of_id(id_of(key));
                its.flat_map(|(_, client)| client.open_tunnels())
                    .cloned()
                    .collect()
            }
            // A client that was started anew, before the server has noticed the end of the old one.
            (_, code) if needs_siblings(code) => inner.tunnels_of_siblings(key),
            _ => Vec::new(),
        }
    }

    /// Returns the tunnels of other clients with the same id that have, perhaps, the ports which this one
    /// misses.
    pub fn tunnels_in_the_way(&self, key: &str) -> Vec<Tunnel> {
        let inner = self.lock();
        let client = inner.clients.get(key);
        match client.is_some_and(|client| !client.missing.is_empty()) {
            true => inner.tunnels_of_siblings(key),
            false => Vec::new(),
        }
    }

    /// Returns the credentials, shared with other tunnels of the client if they have the same.
    pub fn share_credentials(&self, credentials: Credentials) -> Arc<Credentials> {
        let inner = self.lock();
        let client = inner.clients.get(credentials.key());
        let shared = client.and_then(|client| client.credentials.clone());
        drop(inner);
        let is_same = |shared: &Arc<Credentials>| {
            let same = shared.authenticator.is(&credentials.authenticator);
            shared.id == credentials.id && shared.key == credentials.key && same
        };
        let shared = shared.filter(is_same);
        shared.unwrap_or_else(|| Arc::new(credentials))
    }

    /// Keeps the credentials of a tunnel that has been registered.
    pub fn keep_credentials(&self, credentials: &Arc<Credentials>) {
        if let Some(client) = self.lock().clients.get_mut(credentials.key()) {
            client.credentials = Some(credentials.clone());
        }
    }

    /// Changes the client's services at the request of one of its tunnels. Streams and the other
    /// tunnels stay; the latter take no new streams until they have sent the same change.
    pub fn update(
        &self,
        login: &Login<'_>,
        services: Vec<Option<ServiceSpec>>,
        tunnel: &Tunnel,
    ) -> Result<Vec<OpenedPort>, RejectCode> {
        let id = login.key;
        let early = self.open_early(login, &services);
        let mut inner = self.lock();
        let mut opened = Vec::new();
        let Some(client) = inner.member(id, tunnel) else {
            // A replaced tunnel must not change services, but its streams may finish.
            tunnel.signal(Signal::Services);
            return Ok(opened);
        };
        if *client.services != services {
            inner.set_services(login, services, early, &mut opened)?;
        }
        if let Some(client) = inner.clients.get_mut(id) {
            client.tunnels.retain(|member| !member.tunnel.is(tunnel));
        }
        inner.attach(id, tunnel, Signal::Services);
        self.wake_visitors(&inner, id);
        self.names_event.notify(usize::MAX);
        Ok(opened)
    }

    /// Returns the number of changes of a client's services that were not logged before, if the present one
    /// is to be logged.
    pub fn may_log_change(&self, key: &str) -> Option<u32> {
        let mut inner = self.lock();
        let client = inner.clients.get_mut(key)?;
        let lines = client.change_lines.get_or_insert_with(|| {
            let lines = LogThrottle::with_more(MORE_CHANGES);
            Box::new(lines)
        });
        lines.allow()
    }

    /// Checks a registration against changed limits. If they do not allow it any more, ends it: its
    /// tunnels drain, and the client learns the reason when it reconnects.
    pub fn enforce(&self, login: &Login<'_>) -> Result<(), RejectCode> {
        let Login {
            key: id, limits, ..
        } = *login;
        let mut inner = self.lock();
        let Some(client) = inner.clients.get(id) else {
            return Ok(());
        };
        let mut allowance = PortQuota::new(limits);
        // Of several registrations of an id, each one makes room for those before it. A shared port is counted
        // once.
        let mut counted: Vec<(PortId, bool)> = Vec::new();
        let before = inner.siblings(id).filter(|(key, _)| *key < id);
        let theirs = before.flat_map(|(_, before)| before.open_ports());
        for (port, _) in theirs {
            if counted.iter().all(|(other, _)| *other != port) {
                counted.push((port, allowance.admit(port)));
            }
        }
        let ports = client.open_ports().all(|(port, _)| {
            let known = counted.iter().find(|(other, _)| *other == port);
            known.map_or_else(|| allowance.admit(port), |(_, is_admitted)| *is_admitted)
        });
        let verdict = match inner.requested_hosts(login, &client.services) {
            Ok(hosts) if ports && inner.has_exactly(id, &hosts) => Ok(()),
            // The same services would get other host prefixes now.
            Ok(_) if ports => Err(RejectCode::HostNotAllowed),
            Ok(_) => Err(RejectCode::TooManyPorts),
            Err(refusal) => Err(refusal),
        };
        if verdict.is_err() {
            inner.revoke(id);
            return verdict;
        }
        let clients = inner.of_id(login.id);
        let open = clients.flat_map(|(_, client)| client.open_tunnels());
        open.skip(max_tunnels(limits)).for_each(Tunnel::close);
        Ok(())
    }
}

impl RegistryState {
    pub(super) fn member(&self, id: &str, tunnel: &Tunnel) -> Option<&RegisteredClient> {
        let client = self.clients.get(id)?;
        let mut tunnels = client.tunnels.iter();
        tunnels
            .any(|member| member.tunnel.is(tunnel))
            .then_some(client)
    }

    /// Creates or replaces a client's registration, or checks that it may have another tunnel.
    pub(super) fn admit(
        &mut self,
        login: &Login<'_>,
        services: Vec<Option<ServiceSpec>>,
        early: Vec<InheritedPort>,
    ) -> Result<Vec<OpenedPort>, RejectCode> {
        let Login {
            key: id, limits, ..
        } = *login;
        let mut opened = Vec::new();
        let others = self
            .siblings(id)
            .flat_map(|(_, client)| client.open_tunnels());
        let others = others.count();
        if others >= max_tunnels(limits) {
            return Err(RejectCode::TooManyConnections);
        }
        self.revoke_departing_siblings(id);
        match self.clients.get_mut(id) {
            Some(client) if *client.services == services => {
                if client.open_tunnels().count().saturating_add(others) >= max_tunnels(limits) {
                    return Err(RejectCode::TooManyConnections);
                }
            }
            // Two clients must not replace each other in turn. One whose own services were replaced,
            // by a process that has gone since, is no second one.
            Some(client) if client.is_alive() && client.has_replaced(&services) => {
                if client.conflict.refused(clock::now()) {
                    warn_of_conflict(login, client.peer);
                }
                return Err(RejectCode::OtherClientConnected);
            }
            Some(client) => {
                let was_alive = client.is_alive();
                let before = self.set_services(login, services, early, &mut opened)?;
                if let Some(client) = self.clients.get_mut(id).filter(|_| was_alive) {
                    let services = &client.services;
                    if client.conflict.replaced(&before, services, clock::now()) {
                        warn_of_conflict(login, client.peer);
                    }
                }
                self.drain_tunnels(id, before);
            }
            None => {
                self.set_services(login, services, early, &mut opened)?;
            }
        }
        if let Some(client) = self.clients.get_mut(id) {
            client.proof = login.proof;
            client.peer = login.peer;
        }
        Ok(opened)
    }

    /// Ends draining tunnels of a client beyond the number that may be open: first those without
    /// streams, then the oldest.
    pub(super) fn limit_draining(&mut self, login: &Login<'_>) {
        let clients = self.of_id(login.id);
        let tunnels = clients.flat_map(|(_, client)| client.all_tunnels());
        // A parked tunnel is about to move to another process.
        let drains = |t: &&Tunnel| !t.is_open() && !t.is_over() && !t.is_parked();
        let mut draining: Vec<_> = tunnels.filter(drains).collect();
        // The sort is stable: the newest come first.
        draining.sort_by_key(|tunnel| tunnel.streams() == 0);
        for tunnel in draining.into_iter().skip(max_tunnels(login.limits)) {
            tunnel.abort("its client has the maximum of draining tunnels (connections)");
        }
    }

    /// Replaces the client's services and returns the previous ones. Leaves out ports that cannot
    /// be opened, unless no service would be left. After an error nothing has changed.
    pub(super) fn set_services(
        &mut self,
        login: &Login<'_>,
        services: Vec<Option<ServiceSpec>>,
        early: Vec<InheritedPort>,
        opened: &mut Vec<OpenedPort>,
    ) -> Result<SharedServices, RejectCode> {
        let (id, key, now) = (login.id, login.key, clock::now());
        let hosts = self.requested_hosts(login, &services)?;
        let others = self.ports_of_siblings(key, &services);
        let of_group = self.reserved_for_group(login, &services);
        let inherited = self.inherited_ports(id, early, &of_group, now);
        let is_others =
            |port| !of_group.contains(&port) && self.reservations.is_others_port(port, id, now);
        let mut allowance = PortQuota::new(login.limits).without(&is_others);
        for port in others {
            allowance.admit(port);
        }
        let mut client = self.clients.remove(key);
        let mut mine = client
            .as_mut()
            .map_or_else(Vec::new, |it| std::mem::take(&mut it.ports));
        let registered = mine.len();
        mine.extend(self.held.take_ports(id));
        let of_others = PortsOfOthers {
            table: &self.shared_ports,
            key,
        };
        let wanted =
            open_requested_ports(login, allowance, &services, (&mine, of_others), inherited);
        let nothing = |ports: &SortedPorts| {
            let missing = ports.missing.first();
            let missing = missing.map(|missing| (missing.service, missing.cause));
            let has_none = ports.kept.is_empty() && ports.new.is_empty() && ports.joined.is_empty();
            missing.filter(|_| hosts.is_empty() && has_none)
        };
        let wanted = wanted.and_then(|ports| match nothing(&ports) {
            Some((_, PortCause::TooMany)) => Err(RejectCode::TooManyPorts),
            Some((service, _)) => Err(RejectCode::PortNotOpened(service)),
            None => Ok(ports),
        });
        let SortedPorts {
            kept,
            new,
            joined,
            missing,
        } = match wanted {
            Ok(ports) => ports,
            Err(refusal) => {
                self.held.keep_ports(id, mine.drain(registered..));
                if let Some(mut client) = client {
                    client.ports = mine;
                    self.clients.insert(key.into(), client);
                }
                return Err(refusal);
            }
        };
        let mut client = client.unwrap_or_else(|| {
            Box::new(RegisteredClient {
                services: SharedServices::default(),
                tunnels: SmallVec::new(),
                draining: None,
                ports: Vec::new(),
                joined: Vec::new(),
                missing: Vec::new(),
                retry_at: now,
                last_stream: StreamId(0),
                since: clock::time_of_day(),
                past_traffic: Traffic::default(),
                proof: login.proof,
                credentials: None,
                peer: login.peer,
                conflict: RegistrationConflict::default(),
                change_lines: None,
            })
        });
        for (at, mut port) in mine.into_iter().enumerate() {
            match kept.iter().find(|(kept, ..)| *kept == at) {
                Some((_, request, service)) => {
                    port.assign(*request, *service);
                    client.ports.push(port);
                }
                // Closed, unless it is shared.
                None => drop(self.leave_port(key, port)),
            }
        }
        client.joined = joined;
        for (port, socket) in new {
            client.ports.push(port);
            opened.push(socket);
        }
        client.missing = missing;
        client.retry_at = now + PORT_RETRY_INTERVAL;
        let hosts: Vec<(Key, ServiceIndex, Option<GroupSpec>)> = hosts
            .into_iter()
            .map(|host| (host.key, host.service, host.group.cloned()))
            .collect();
        let services = client.share(services);
        let before = std::mem::replace(&mut client.services, services);
        if !client.missing.is_empty() {
            // Their sessions retry.
            client.open_tunnels().for_each(Tunnel::end_rest);
        }
        let taken: Vec<PortId> = client.open_ports().map(|(port, _)| port).collect();
        let ports: Vec<_> = client
            .open_ports()
            .map(|(port, service)| (port, service, client.group_of(service).cloned()))
            .collect();
        self.clients.insert(key.into(), client);
        self.instances.add(key);
        self.share_ports_of(key, ports.into_iter());
        if key == id {
            self.reservations.release(id);
        } else {
            // What is left is for the other clients with this id, which may be on their way.
            for port in taken {
                self.reservations.release_port(id, port);
            }
        }
        for port in of_group {
            // It was reserved for another member.
            self.reservations.release_port_of_all(port);
        }
        // Prefixes that the client no longer requests are free at once: reservations have to stay
        // within its limits.
        let former = self.hosts.take(key);
        let is_again = |key: &Key| hosts.iter().any(|(again, ..)| again == key);
        let given_up = former
            .into_iter()
            .filter(|(key, _)| !is_again(key))
            .collect();
        self.reservations
            .reserve_hosts((id, login.proof), given_up, Reservation::GivenUp, now);
        for (name, service, group) in hosts {
            self.reservations.release_host(&name);
            self.has_domains |= domain_of(&name.1).is_some();
            let client = key.into();
            let member = HostMember { client, service };
            self.hosts.insert(name, member, group.as_ref());
        }
        if key != id {
            let (names, ports) = self.room_for_reserved(id, login.limits);
            self.reservations.limit(id, names, ports);
        }
        Ok(before)
    }

    /// Looks whether the other tunnels of an id are still alive: its client may have been killed and started anew,
    /// which the server learns of late over QUIC. Visitors come to the new tunnel meanwhile.
    fn doubt_others(&self, id: &str, new: &Tunnel) {
        let tunnels = self.of_id(id).flat_map(|(_, client)| client.open_tunnels());
        tunnels
            .filter(|other| !other.is(new))
            .for_each(Tunnel::doubt);
    }

    /// Tells the client of its ports, then sends `done`; from then on the tunnel takes streams.
    pub(super) fn attach(&mut self, id: &str, tunnel: &Tunnel, done: Signal) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        for ((_, port), service) in client.open_ports() {
            tunnel.signal(Signal::PortOpened { service, port });
        }
        for MissingPort { service, cause, .. } in &client.missing {
            let (service, cause) = (*service, *cause);
            tunnel.signal(Signal::PortUnavailable { service, cause });
        }
        tunnel.signal(done);
        client
            .tunnels
            .push(PoolEntry::new(tunnel, &client.services));
    }
}

/// Whether another client with the same id may be the reason for a refusal.
pub fn needs_siblings(code: RejectCode) -> bool {
    matches!(
        code,
        RejectCode::HostConflict | RejectCode::PortNotOpened(_) | RejectCode::TooManyPorts
    )
}

pub(super) fn warn_of_conflict(login: &Login<'_>, other: SocketAddr) {
    log::warn!(
        "two clients with id={} and different services replace each other, one at {} and one at \
         {other}: give each an id of its own",
        login.id,
        login.peer
    );
}

/// Returns the maximum number of tunnels that a client may have open.
pub(super) fn max_tunnels(limits: &Limits) -> usize {
    match limits.connections {
        0 => usize::MAX,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    }
}
