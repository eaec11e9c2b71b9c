//! The registry of clients: ids, host prefixes and ports, and the tunnels behind them. All state that
//! connections share about clients is here.

mod arrivals;
mod conflict;
mod domains;
mod groups;
mod health;
mod held_clients;
mod host_table;
mod instances;
mod moving;
mod reservations;
mod shared_ports;
mod snapshot;

use super::ports::{
    self, InheritedPort, OpenedPort, PortFailure, PortId, PortListener, PortQuota, PortRequest,
};
use super::settings::Settings;
use super::users::{Credentials, LoginProof};
use crate::collections::{HashMap, HashSet};
use crate::config::label::{ascii, label, value};
use crate::config::{Domain, Limits};
use crate::handover::HostKey;
use crate::net::{clock, ShardId};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::{Stream, Traffic, Tunnel};
use crate::wire::frame::{PortCause, RejectCode, ServiceIndex, Signal, StreamId};
use crate::wire::hello::{GroupSpec, ServiceSpec};
use crate::wire::Version;
use arrivals::Arrivals;
use conflict::RegistrationConflict;
pub use domains::domain_of;
use domains::{domain_key, CATCH_ALL};
use event_listener::{Event, EventListener};
pub use groups::SharedName;
use groups::{OfGroup, MAX_MEMBERS};
use health::DownServices;
use held_clients::HeldClients;
pub use held_clients::LoginRight;
#[cfg(test)]
pub use host_table::SCANS;
use host_table::{HostGroup, HostMember, HostTable};
use instances::Instances;
pub use instances::{client_key, id_of};
use log::Level;
pub use moving::Registration;
use reservations::{Reservation, Reservations};
use shared_ports::{JoinedPort, PortStanding, PortsOfOthers};
use smallvec::SmallVec;
#[cfg(test)]
pub use snapshot::TUNNELS_READ;
pub use snapshot::{ClientStats, SnapshotOrder, Totals};
use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use subtle::ConstantTimeEq;

/// Time that a visitor waits for a client that was connected recently.
const RECONNECT_WAIT: Duration = Duration::from_secs(3);
/// Time that a visitor waits for a client that lost its tunnels in a restart: clients of the
/// original reconnect after reconnectDelay, 5 s by default.
const RECONNECT_WAIT_AFTER_RESTART: Duration = Duration::from_secs(10);
/// Time after a restart in which [`RECONNECT_WAIT_AFTER_RESTART`] applies.
const RECONNECT_PERIOD_AFTER_RESTART: Duration = Duration::from_secs(60);

/// Maximum number of domains of one client.
const MAX_DOMAINS_OF_CLIENT: usize = 1000;

/// Interval at which ports that could not be opened are tried again.
const PORT_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The name that a host prefix is matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// The value of an HTTP header.
    Http,
    /// The server name of a TLS ClientHello.
    Tls,
}

/// An authenticated client with its limits.
pub struct Login<'a> {
    /// The client's id.
    pub id: &'a str,
    /// The key of the client's registration: the id, or one of its instances.
    pub key: &'a str,
    /// The client's limits.
    pub limits: &'a Limits,
    /// The settings in force: users, and how visitors are routed.
    pub settings: &'a Settings,
    /// How the client has proven its id.
    pub proof: LoginProof,
    /// The address that the tunnel comes from.
    pub peer: SocketAddr,
    /// The wire version of the tunnel.
    pub version: Version,
}

#[cfg(test)]
impl<'a> Login<'a> {
    /// A user's login.
    pub fn of_user(id: &'a str, limits: &'a Limits, settings: &'a Settings) -> Self {
        Self {
            id,
            key: id,
            limits,
            settings,
            proof: LoginProof::Known,
            peer: ([192, 0, 2, 1], 1).into(),
            version: Version::Two,
        }
    }
}

/// The result of opening a stream for a visitor.
pub enum OpenResult {
    /// A stream to the service.
    Stream(Stream),
    /// The client is known but has no tunnel now.
    NoTunnel,
    /// The client is here, but its service is down.
    Down,
    /// The client's tunnels are in the parent process.
    Held,
    /// The client's tunnels wait for their last streams before they move to another process, or
    /// take new streams again.
    Pausing,
    /// No client has the destination, and none had it recently.
    Unknown,
}

/// The registered clients with their tunnels, host prefixes and ports.
#[derive(Default)]
pub struct Registry {
    inner: Mutex<RegistryState>,
    /// Notified when a client registers or its tunnels change; visitors wait for that.
    arrivals: Arrivals,
    /// Notified when a tunnel has ended.
    tunnel_ended_event: Event,
}

#[derive(Default)]
struct RegistryState {
    /// The registrations, by their keys. In boxes: a table has almost as many free places as clients.
    clients: HashMap<Box<str>, Box<RegisteredClient>>,
    /// The keys that are not the id itself.
    instances: Instances,
    hosts: HostTable,
    /// The ports that clients of a group share.
    shared_ports: HostTable<PortId>,
    /// Host prefixes and ports reserved for clients that are away.
    reservations: Reservations,
    /// Clients whose tunnels are in the parent process.
    held: HeldClients,
    /// The time up to which clients are expected back after a restart.
    restart_until: Option<Instant>,
    /// Traffic of clients that have left.
    past_traffic: Traffic,
    /// Whether any client has had a domain: otherwise hosts need not be looked up.
    has_domains: bool,
}

/// A host prefix in lower case, with the name that it is matched against.
pub type Key = (HostKind, Box<str>);

/// Converts a host prefix of a message to the registry's key.
pub fn registry_key(host: &HostKey) -> Key {
    let kind = if host.tls {
        HostKind::Tls
    } else {
        HostKind::Http
    };
    (kind, host.prefix.as_str().into())
}

/// A host prefix or domain in use.
struct RegisteredHost {
    /// The client that has it, the first one of a group.
    member: HostMember,
    /// The group that shares it.
    group: Option<Box<HostGroup>>,
}

/// A name that a client asks for: the service, and the group that is to share it.
struct WantedHost<'a> {
    key: Key,
    service: ServiceIndex,
    group: Option<&'a GroupSpec>,
}

/// A host prefix that is in use or reserved, as another process is told.
pub struct KeptHost {
    /// The prefix.
    pub key: Key,
    /// The client's id as far as known.
    pub id: Option<Box<str>>,
    /// The group that shares it.
    pub group: Option<GroupSpec>,
}

/// The services of a registration. A service that was not granted is `None`.
type SharedServices = Arc<Vec<Option<ServiceSpec>>>;

/// A client: one id with at least one tunnel.
struct RegisteredClient {
    /// Shared with the tunnels whose client's end has the same.
    services: SharedServices,
    tunnels: SmallVec<[PoolEntry; 1]>,
    /// Tunnels of the previous registration, with its services.
    draining: Option<Box<Draining>>,
    ports: Vec<PortListener>,
    /// Ports whose listeners other members of a group have.
    joined: Vec<JoinedPort>,
    /// Services whose ports could not be opened.
    missing: Vec<MissingPort>,
    /// When the missing ports are tried again.
    retry_at: Instant,
    last_stream: StreamId,
    /// When the client's first tunnel registered.
    since: SystemTime,
    /// Traffic of the client's tunnels that have ended.
    past_traffic: Traffic,
    proof: LoginProof,
    /// Those of the latest tunnel, for the next ones to share.
    credentials: Option<Arc<Credentials>>,
    /// The address that the latest tunnel came from.
    peer: SocketAddr,
    conflict: RegistrationConflict,
}

impl RegisteredClient {
    /// Whether snapshots include the client.
    fn is_listed(&self) -> bool {
        self.proof != LoginProof::SelfTest
    }

    /// Returns the tunnels that take streams.
    fn open_tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let tunnels = self.tunnels.iter().map(|member| &member.tunnel);
        tunnels.filter(|tunnel| tunnel.is_open())
    }

    /// Whether the registration has a tunnel that takes streams.
    fn is_alive(&self) -> bool {
        self.open_tunnels().next().is_some()
    }

    /// Whether the registration has replaced one with these services, of which tunnels still drain.
    fn has_replaced(&self, services: &[Option<ServiceSpec>]) -> bool {
        let old = self.draining.as_ref();
        old.is_some_and(|old| *old.services == services)
    }

    /// Tells the client's tunnels of a port that was opened after they were ready. Not over GT/1,
    /// which allows this message only before *ready*.
    fn announce(&self, (_, port): PortId, service: ServiceIndex) {
        let members = self.tunnels.iter();
        for member in members.filter(|member| self.is_current(member)) {
            if member.tunnel.version() == Version::Two {
                member.tunnel.signal(Signal::PortOpened { service, port });
            }
        }
    }

    /// Whether the client's end of a tunnel has the services of the registration.
    fn is_current(&self, member: &PoolEntry) -> bool {
        let its = member.services.as_ref();
        its.is_some_and(|its| Arc::ptr_eq(its, &self.services))
    }

    /// Shares services with a tunnel whose client's end has the same: a change and its reversal
    /// may come over a slow tunnel after they have come over the others.
    fn share(&self, services: Vec<Option<ServiceSpec>>) -> SharedServices {
        let mut known = self.tunnels.iter().filter_map(|it| it.services.as_ref());
        let same = known.find(|known| ***known == services);
        same.cloned().unwrap_or_else(|| Arc::new(services))
    }

    /// Whether the tunnels that take streams have other services than the registration, and none is
    /// about to change them. An old process of a client may have sent its last change over its own
    /// tunnel after the tunnels of the new process had registered: the new process does not know of
    /// it and must register again.
    fn is_left_behind(&self) -> bool {
        let open = || self.tunnels.iter().filter(|it| it.tunnel.is_open());
        let has_other = |it: &PoolEntry| it.services.is_some() && !self.is_current(it);
        open().next().is_some() && open().all(has_other)
    }

    /// Returns the open ports, with their services.
    fn open_ports(&self) -> impl Iterator<Item = (PortId, ServiceIndex)> + '_ {
        let ports = self.ports.iter().map(|port| (port.id(), port.service()));
        let joined = self.joined.iter().map(|port| (port.port, port.service));
        ports.chain(joined)
    }

    /// Returns the group of a service.
    fn group_of(&self, service: ServiceIndex) -> Option<&GroupSpec> {
        let spec = self.services.get(service.as_usize())?;
        spec.as_ref()?.group()
    }

    fn all_tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let old = self.draining.iter().flat_map(|old| old.tunnels.iter());
        self.tunnels.iter().map(|member| &member.tunnel).chain(old)
    }
}

struct MissingPort {
    request: PortRequest,
    service: ServiceIndex,
    cause: PortCause,
}

struct PoolEntry {
    tunnel: Tunnel,
    /// The services that the client's end of the tunnel has; `None` while a change of them is
    /// pending.
    services: Option<SharedServices>,
    /// The services that are down, as its client has told in this tunnel. In a box: few tunnels have any.
    down: Option<Box<DownServices>>,
}

impl PoolEntry {
    /// Creates the entry of a tunnel whose client's end has these services.
    fn new(tunnel: &Tunnel, services: &SharedServices) -> Self {
        Self {
            tunnel: tunnel.clone(),
            services: Some(services.clone()),
            down: None,
        }
    }
}

struct Draining {
    services: SharedServices,
    tunnels: Vec<Tunnel>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.inner.lock()
    }

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
        inner.limit_draining(login);
        self.wake_visitors(&inner, login.key);
        Ok(opened)
    }

    /// Opens the ports that the client requests and does not have, without holding the lock.
    fn open_early(
        &self,
        login: &Login<'_>,
        services: &[Option<ServiceSpec>],
    ) -> Vec<InheritedPort> {
        if services
            .iter()
            .flatten()
            .all(|spec| PortRequest::of(spec).is_none())
        {
            return Vec::new();
        }
        let inner = self.lock();
        let client = inner.clients.get(login.key);
        if client.is_some_and(|client| *client.services == services) {
            return Vec::new();
        }
        let mine = client.map_or(&[][..], |client| &client.ports);
        let of_others = PortsOfOthers {
            table: &inner.shared_ports,
            key: login.key,
        };
        let wanted = sort_ports(services, mine, of_others).wanted;
        let mut kept = inner.reservations.ports_of(login.id, clock::now());
        let of_group = inner.reserved_for_group(login, services);
        kept.extend(inner.reservations.ports_with(&of_group));
        drop(inner);
        let wanted: Vec<PortRequest> = wanted.into_iter().map(|(request, _)| request).collect();
        ports::open_early(login.limits, &wanted, kept)
    }

    /// Checks whether the client could have the host prefixes of its services. Changes nothing.
    pub fn check_hosts(
        &self,
        login: &Login<'_>,
        services: &[Option<ServiceSpec>],
    ) -> Result<(), RejectCode> {
        self.lock().requested_hosts(login, services).map(drop)
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

    /// Has the missing ports of a client tried again at once.
    pub fn retry_soon(&self, key: &str) {
        if let Some(client) = self.lock().clients.get_mut(key) {
            client.retry_at = clock::now();
        }
    }

    /// Returns the credentials, shared with other tunnels of the client if they have the same.
    pub fn share_credentials(&self, credentials: Credentials) -> Arc<Credentials> {
        let inner = self.lock();
        let client = inner.clients.get(credentials.key());
        let shared = client.and_then(|client| client.credentials.clone());
        drop(inner);
        let is_same = |shared: &Arc<Credentials>| {
            let same_secret = bool::from(shared.secret.ct_eq(&credentials.secret));
            shared.id == credentials.id && shared.key == credentials.key && same_secret
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

    /// Whether the client has missing ports.
    pub fn misses_ports(&self, id: &str) -> bool {
        let inner = self.lock();
        let client = inner.clients.get(id);
        client.is_some_and(|client| !client.missing.is_empty())
    }

    /// Whether the client has missing ports that the caller should try to open now.
    pub fn is_retry_due(&self, id: &str) -> bool {
        let mut inner = self.lock();
        let client = inner.clients.get_mut(id);
        let Some(client) = client.filter(|client| !client.missing.is_empty()) else {
            return false;
        };
        let now = clock::now();
        let due = client.retry_at <= now;
        if due {
            client.retry_at = now + PORT_RETRY_INTERVAL;
        }
        due
    }

    /// Tries to open the missing ports and tells the client's tunnels of those that are open now.
    /// The caller has to accept on the returned ports.
    pub fn retry_ports(&self, login: &Login<'_>) -> Vec<OpenedPort> {
        let (id, key, now) = (login.id, login.key, clock::now());
        let inner = self.lock();
        let client = inner.clients.get(key);
        let missing = client.into_iter().flat_map(|client| &client.missing);
        let missing: Vec<PortRequest> = missing.map(|missing| missing.request).collect();
        let services = client.map(|client| client.services.clone());
        let services = services.unwrap_or_default();
        let of_group = inner.reserved_for_group(login, &services);
        let mut kept = inner.reservations.ports_of(id, now);
        kept.extend(inner.reservations.ports_with(&of_group));
        drop(inner);
        let early = ports::open_early(login.limits, &missing, kept);
        let mut inner = self.lock();
        let of_group = inner.reserved_for_group(login, &services);
        let mut inherited = inner.inherited_ports(id, early, &of_group, now);
        let others = inner.ports_of_siblings(key, &services);
        let RegistryState {
            clients,
            reservations,
            shared_ports,
            ..
        } = &mut *inner;
        let is_others =
            |port| !of_group.contains(&port) && reservations.is_others_port(port, id, now);
        let mut allowance = PortQuota::new(login.limits).without(&is_others);
        let mut opened = Vec::new();
        let Some(client) = clients.get_mut(key) else {
            return opened;
        };
        let ports = client.open_ports().map(|(port, _)| port);
        for port in others.into_iter().chain(ports) {
            allowance.admit(port);
        }
        let mut tries = ports::MAX_TRIES_LOCKED;
        for missing in std::mem::take(&mut client.missing) {
            let MissingPort {
                request, service, ..
            } = missing;
            let group = client.group_of(service).cloned();
            let of_others = PortsOfOthers {
                table: shared_ports,
                key,
            };
            match of_others.standing(request, group.as_ref()) {
                PortStanding::Open => {}
                PortStanding::Join if allowance.admit(request.id()) => {
                    let port = request.id();
                    client.announce(port, service);
                    client.joined.push(JoinedPort { port, service });
                    let client = key.into();
                    let member = HostMember { client, service };
                    shared_ports.insert(port, member, group.as_ref());
                    continue;
                }
                PortStanding::Join | PortStanding::Refused(_) => {
                    client.missing.push(missing);
                    continue;
                }
            }
            match ports::open(&mut allowance, &mut inherited, request, service, &mut tries) {
                Ok((port, socket)) => {
                    client.announce(port.id(), service);
                    if group.is_some() {
                        let client = key.into();
                        let member = HostMember { client, service };
                        shared_ports.insert(port.id(), member, group.as_ref());
                    }
                    client.ports.push(port);
                    opened.push(socket);
                }
                Err(failure) => {
                    log_failure(Level::Debug, id, request, service, &failure);
                    client.missing.push(missing);
                }
            }
        }
        for port in &opened {
            inner.reservations.release_port_of_all(port.id());
        }
        opened
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
        Ok(opened)
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

    /// Returns the id of the client that has a host prefix.
    pub fn owner(&self, kind: HostKind, prefix: &str) -> Option<Box<str>> {
        let inner = self.lock();
        let host = inner.hosts.get(&(kind, prefix.into()))?;
        Some(id_of(&host.member.client).into())
    }

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

    /// Sets whether new visitors of the clients' ports use the congestion control BBR.
    pub fn set_bbr(&self, bbr: bool) {
        let inner = self.lock();
        let ports = inner.clients.values().flat_map(|client| &client.ports);
        ports.for_each(|port| port.set_bbr(bbr));
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

    /// Returns the time that a visitor waits for a client that was connected recently.
    pub fn reconnect_wait(&self) -> Duration {
        match self.lock().restart_until {
            Some(until) if clock::now() < until => RECONNECT_WAIT_AFTER_RESTART,
            _ => RECONNECT_WAIT,
        }
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

    /// Whether the tunnel belongs to the client's current registration.
    pub fn is_current(&self, id: &str, tunnel: &Tunnel) -> bool {
        self.lock().member(id, tunnel).is_some()
    }

    /// Removes a tunnel that has ended. With the last one the registration ends.
    pub fn tunnel_ended(&self, id: &str, tunnel: &Tunnel) {
        self.remove(id, tunnel);
        self.tunnel_ended_event.notify(usize::MAX);
    }

    /// Removes a tunnel that has ended, of any registration of the id of this one.
    pub fn tunnel_of_id_ended(&self, key: &str, tunnel: &Tunnel) {
        let inner = self.lock();
        let keys: Vec<Box<str>> = inner.of_id(id_of(key)).map(|(key, _)| key.into()).collect();
        drop(inner);
        keys.iter().for_each(|key| self.tunnel_ended(key, tunnel));
    }

    fn remove(&self, id: &str, tunnel: &Tunnel) {
        let mut inner = self.lock();
        // They look again when the lock is free.
        self.wake_visitors(&inner, id);
        let Some(client) = inner.clients.get_mut(id) else {
            return;
        };
        if !client.all_tunnels().any(|other| other.is(tunnel)) {
            return;
        }
        client.past_traffic += tunnel.traffic();
        client.tunnels.retain(|member| !member.tunnel.is(tunnel));
        if let Some(old) = &mut client.draining {
            old.tunnels.retain(|other| !other.is(tunnel));
            if old.tunnels.is_empty() {
                client.draining = None;
            }
        }
        if client.is_left_behind() {
            inner.leave_behind(id);
            return;
        }
        if client.tunnels.is_empty() {
            // Draining tunnels of the previous registration keep the entry.
            let (listed, past, is_gone) = (
                client.is_listed(),
                client.past_traffic,
                client.draining.is_none(),
            );
            inner.end_registration(id);
            if is_gone {
                inner.clients.remove(id);
                inner.instances.remove(id);
                if listed {
                    inner.past_traffic += past;
                }
            }
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

    /// Stops opening streams on a tunnel whose client has changed its services while the
    /// registration stays: service indexes mean something else to that client.
    pub fn suspend_tunnel(&self, id: &str, tunnel: &Tunnel) {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(id) else {
            return;
        };
        let mut members = client.tunnels.iter_mut();
        if let Some(member) = members.find(|member| member.tunnel.is(tunnel)) {
            member.services = None;
        }
    }

    /// Wakes waiting visitors after tunnels started or stopped taking streams.
    pub fn notify_changed(&self) {
        self.arrivals.notify_all();
    }

    /// Returns a listener for the next registration or change of tunnels of the client with this
    /// host prefix or id.
    pub fn next_registration(&self, name: &str) -> EventListener {
        self.arrivals.listen(name)
    }

    /// Wakes the visitors that wait for a client that has changed.
    fn wake_visitors(&self, inner: &RegistryState, id: &str) {
        if !inner.shared_ports.of(id).is_empty() {
            // Their visitors wait for the member that has opened the port.
            return self.arrivals.notify_all();
        }
        self.arrivals.notify(id);
        for (_, prefix) in inner.hosts.of(id) {
            self.arrivals.notify(prefix);
        }
    }

    /// Returns all tunnels.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        let inner = self.lock();
        let clients = inner
            .clients
            .values()
            .flat_map(|client| client.all_tunnels());
        clients.cloned().collect()
    }
}

/// Whether another client with the same id may be the reason for a refusal.
pub fn needs_siblings(code: RejectCode) -> bool {
    matches!(
        code,
        RejectCode::HostConflict | RejectCode::PortNotOpened(_) | RejectCode::TooManyPorts
    )
}

fn warn_of_conflict(login: &Login<'_>, other: SocketAddr) {
    log::warn!(
        "two clients with id={} and different services replace each other, one at {} and one at \
         {other}: give each an id of its own",
        login.id,
        login.peer
    );
}

impl RegistryState {
    fn member(&self, id: &str, tunnel: &Tunnel) -> Option<&RegisteredClient> {
        let client = self.clients.get(id)?;
        let mut tunnels = client.tunnels.iter();
        tunnels
            .any(|member| member.tunnel.is(tunnel))
            .then_some(client)
    }

    /// Creates or replaces a client's registration, or checks that it may have another tunnel.
    fn admit(
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
    fn limit_draining(&mut self, login: &Login<'_>) {
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

    /// Returns the ports reserved for the client, and those opened `early` for it that no other
    /// client has by now.
    fn inherited_ports(
        &self,
        id: &str,
        mut early: Vec<InheritedPort>,
        of_group: &[PortId],
        now: Instant,
    ) -> Vec<InheritedPort> {
        let mut inherited = self.reservations.ports_of(id, now);
        inherited.extend(self.reservations.ports_with(of_group));
        // A reserved number may have been opened early.
        inherited
            .retain(|port| port.listener.is_some() || early.iter().all(|e| e.id() != port.id()));
        early.retain(|port| {
            let is_its = of_group.contains(&port.id());
            is_its || !self.reservations.is_others_port(port.id(), id, now)
        });
        inherited.extend(early);
        inherited
    }

    /// Replaces the client's services and returns the previous ones. Leaves out ports that cannot
    /// be opened, unless no service would be left. After an error nothing has changed.
    fn set_services(
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

    /// Whether a client has a name, also one that is away for a moment.
    fn is_owned(&self, key: &Key, now: Instant) -> bool {
        self.hosts.get(key).is_some()
            || self.held.owner(key).is_some()
            || self.reservations.is_claimed(key, now)
    }

    /// Returns the id of a client that has a name, or had it lately, unless it is the client of this login
    /// or shares the name with this group.
    fn other_owner(
        &self,
        name: &Key,
        login: &Login<'_>,
        group: Option<&GroupSpec>,
        now: Instant,
    ) -> Option<&str> {
        let Login { id, key, .. } = *login;
        match (self.held.owner(name), self.hosts.get(name)) {
            (Some(owner), _) if owner != id => Some(owner),
            (_, Some(host)) => host.rival(key, group, MAX_MEMBERS).map(id_of),
            (_, None) => self.reservations.other_owner(name, id, group, now),
        }
    }

    /// Returns why a client cannot have a name for a service of this group, or of none, for the log.
    fn why_taken(&self, name: &Key, group: Option<&GroupSpec>) -> &'static str {
        let shared = self.hosts.get(name).and_then(|host| host.group.as_ref());
        match shared {
            Some(its) => its.why_not(group),
            None => "another client has it, or had it within the last minute",
        }
    }

    /// Returns the key of a domain that a client asks for, or the code with which it is refused.
    fn requested_domain(
        &self,
        login: &Login<'_>,
        kind: HostKind,
        (text, group): (&str, Option<&GroupSpec>),
        now: Instant,
    ) -> Result<Key, RejectCode> {
        let id = login.id;
        let of_group = OfGroup(group);
        let refuse = |refusal, why: &dyn Display| {
            log::warn!("id={id} cannot have the domain {text:?}{of_group}: {why}");
            Err(refusal)
        };
        let domain = match Domain::parse(text) {
            Ok(domain) => domain,
            Err(why) => return refuse(RejectCode::HostNotAllowed, &why),
        };
        if kind == HostKind::Http && !login.settings.routes_by_host() {
            let why = &"visitors are routed by another header than Host (httpMUXHeader)";
            return refuse(RejectCode::HostNotAllowed, why);
        }
        if !login.limits.domains.iter().any(|it| it.allows(&domain)) {
            let why = &"no domains of the server or the user allows it";
            return refuse(RejectCode::HostNotAllowed, why);
        }
        let key = domain_key(kind, domain.as_str());
        match self.other_owner(&key, login, group, now) {
            Some(_) => refuse(RejectCode::HostConflict, &self.why_taken(&key, group)),
            None => Ok(key),
        }
    }

    /// Returns the host prefixes of `services`, each with its service, or the code with which the
    /// client is refused them.
    fn requested_hosts<'a>(
        &self,
        login: &Login<'_>,
        services: &'a [Option<ServiceSpec>],
    ) -> Result<Vec<WantedHost<'a>>, RejectCode> {
        let (id, rules, users) = (login.id, &login.limits.hosts, &login.settings.users);
        let now = clock::now();
        let refuse = |prefix: &str, refusal, why: &dyn Display| {
            log::warn!("id={id} cannot have the host prefix {prefix:?}: {why}");
            Err(refusal)
        };
        let mut wanted: Vec<WantedHost<'_>> = Vec::new();
        // What the server allows an id holds for all of its clients.
        let theirs = self.hosts_of_siblings(login.key);
        let is_domain = |key: &&&Key| domain_of(&key.1).is_some();
        let mut keys: HashSet<Key> = HashSet::default();
        let their_domains = theirs.iter().filter(is_domain).count();
        let mut domains_left = MAX_DOMAINS_OF_CLIENT.saturating_sub(their_domains);
        for (service, spec) in ServiceIndex::all().zip(services) {
            let group = spec.as_ref().and_then(ServiceSpec::group);
            let (tls, prefix) = match spec.as_ref().map(ServiceSpec::ungrouped) {
                Some(ServiceSpec::Host { tls, prefix }) => (tls, prefix),
                Some(ServiceSpec::Domains {
                    tls,
                    prefix,
                    domains,
                }) => {
                    let kind = if *tls { HostKind::Tls } else { HostKind::Http };
                    for domain in domains {
                        let key = self.requested_domain(login, kind, (domain, group), now)?;
                        if !keys.insert(key.clone()) {
                            log::warn!(
                                "id={id} cannot have the domain {domain:?}: two of its services ask for it"
                            );
                            return Err(RejectCode::HostConflict);
                        }
                        let is_theirs = theirs.contains(&key);
                        if domains_left == 0 && !is_theirs {
                            log::warn!(
                                "id={id} asks for more than {MAX_DOMAINS_OF_CLIENT} domains"
                            );
                            return Err(RejectCode::TooManyHosts);
                        }
                        domains_left = domains_left.saturating_sub(usize::from(!is_theirs));
                        wanted.push(WantedHost {
                            key,
                            service,
                            group,
                        });
                    }
                    match prefix {
                        Some(_) => (tls, prefix),
                        None => continue,
                    }
                }
                Some(
                    ServiceSpec::Tcp { .. } | ServiceSpec::Udp { .. } | ServiceSpec::Grouped { .. },
                )
                | None => continue,
            };
            let kind = if *tls { HostKind::Tls } else { HostKind::Http };
            let name = match prefix {
                None => Cow::from(id),
                Some(prefix) => {
                    // As published, except for upper case.
                    let request = match prefix.is_ascii() {
                        true => Cow::from(&**prefix),
                        false => ascii(prefix),
                    };
                    let allowed = rules.regex.iter().any(|regex| regex.is_match(&request));
                    if !allowed && !rules.regex.is_empty() {
                        let why = &"it matches no hostRegex";
                        return refuse(prefix, RejectCode::HostNotAllowed, why);
                    }
                    match rules.with_id {
                        true => format!("{id}-{prefix}").into(),
                        false => Cow::from(&**prefix),
                    }
                }
            };
            // Visitors cannot ask for anything else, and pages and logs show the prefix.
            let published = match kind {
                HostKind::Http if !login.settings.routes_by_host() => value(&name),
                HostKind::Http | HostKind::Tls => label(&name),
            };
            let key: Key = match published {
                Ok(prefix) => (kind, prefix.into_boxed_str()),
                Err(why) => return refuse(&name, RejectCode::HostNotAllowed, &why),
            };
            if users.reserves(&key.1, id) {
                let why = &"it is reserved for the user whose id it begins with";
                return refuse(&name, RejectCode::HostConflict, why);
            }
            let taken = self
                .other_owner(&key, login, group, now)
                .is_some_and(|other| {
                    // The configuration has just made this id a user: the name is its own.
                    let is_held = self.held.owner(&key).is_some_and(|owner| owner != id);
                    let is_away = self.hosts.get(&key).is_none() && !is_held;
                    !is_away || !users.owns(&key.1, id) || users.owns(&key.1, other)
                });
            if taken {
                let why = format!("{}{}", self.why_taken(&key, group), OfGroup(group));
                return refuse(&name, RejectCode::HostConflict, &why);
            }
            if !keys.insert(key.clone()) {
                let why = &"two of its services ask for it";
                return refuse(&name, RejectCode::HostConflict, why);
            }
            wanted.push(WantedHost {
                key,
                service,
                group,
            });
        }
        let most = usize::try_from(rules.number).unwrap_or(usize::MAX);
        // A name used for both HTTP and TLS counts once.
        let names = wanted.iter().map(|host| &host.key).chain(theirs);
        let names = names.map(|(_, name)| &**name);
        let names: HashSet<&str> = names.filter(|name| domain_of(name).is_none()).collect();
        if most > 0 && names.len() > most {
            return Err(RejectCode::TooManyHosts);
        }
        Ok(wanted)
    }

    /// Whether the client has exactly these prefixes.
    fn has_exactly(&self, id: &str, hosts: &[WantedHost<'_>]) -> bool {
        let mine: HashSet<&Key> = self.hosts.of(id).iter().collect();
        mine.len() == hosts.len() && hosts.iter().all(|host| mine.contains(&host.key))
    }

    /// Ends the client's registration as if its tunnels had ended; they drain.
    fn revoke(&mut self, id: &str) {
        // Without its services, so that the client may register with the same ones again.
        self.drain_tunnels(id, SharedServices::default());
        self.end_registration(id);
    }

    /// Ends a registration that none of the client's open tunnels has, see
    /// [`RegisteredClient::is_left_behind`].
    fn leave_behind(&mut self, id: &str) {
        if let Some(client) = self.clients.get(id) {
            for tunnel in client.open_tunnels() {
                if tunnel.version() == Version::Two {
                    tunnel.signal(Signal::Reconnect);
                }
            }
        }
        self.revoke(id);
    }

    /// Drains the tunnels of the current registration.
    fn drain_tunnels(&mut self, id: &str, services: SharedServices) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.tunnels.is_empty() {
            return;
        }
        let mut tunnels: Vec<Tunnel> = client.tunnels.drain(..).map(|m| m.tunnel).collect();
        for tunnel in &tunnels {
            tunnel.close();
        }
        if let Some(old) = client.draining.take() {
            tunnels.extend(old.tunnels);
        }
        client.draining = Some(Box::new(Draining { services, tunnels }));
    }

    /// Tells the client of its ports, then sends `done`; from then on the tunnel takes streams.
    fn attach(&mut self, id: &str, tunnel: &Tunnel, done: Signal) {
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

    /// Ends the client's registration and reserves its prefixes and ports for its id.
    fn end_registration(&mut self, key: &str) {
        let (id, now) = (id_of(key), clock::now());
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let services = std::mem::take(&mut client.services);
        client.missing.clear();
        client.joined.clear();
        client.ports.sort_by_key(PortListener::service);
        let proof = client.proof;
        let ports = std::mem::take(&mut client.ports);
        let ports: Vec<PortListener> = ports
            .into_iter()
            .filter_map(|port| self.leave_port(key, port))
            .collect();
        self.shared_ports.take(key);
        if self.held.has(id) {
            // The parent process still has tunnels of it, for the visitors of the ports, too.
            self.held.keep_ports(id, ports);
        } else {
            for port in ports {
                let spec = services.get(port.service().as_usize());
                let group = spec.and_then(|spec| spec.as_ref()?.group().cloned());
                self.reservations
                    .reserve_port(id, port.number(), group, now);
            }
        }
        let client = (id, proof);
        let hosts = self.hosts.take(key);
        self.reservations
            .reserve_hosts(client, hosts, Reservation::Claimed, now);
    }

    /// Returns the result for visitors of a client without a tunnel here.
    fn absent_result(&self, id: &str) -> OpenResult {
        match self.held.has(id) {
            true => OpenResult::Held,
            false => OpenResult::NoTunnel,
        }
    }

    /// Opens a stream on the client's least loaded tunnel of those that are late the least.
    fn open(&mut self, id: &str, service: ServiceIndex, also_down: bool) -> OpenResult {
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

/// A port that a client keeps: its index, the client's present request, and the service.
type KeptPort = (usize, PortRequest, ServiceIndex);
/// A port that a client requests, and the service.
type WantedPort = (PortRequest, ServiceIndex);

/// The ports that a client requests: those that it has, that were opened, that it shares, and that are
/// missing.
struct SortedPorts {
    kept: Vec<KeptPort>,
    new: Vec<(PortListener, OpenedPort)>,
    joined: Vec<JoinedPort>,
    /// Ports that could not be opened.
    missing: Vec<MissingPort>,
}

/// The ports that a client requests, before any is opened.
#[derive(Default)]
struct RequestedPorts {
    kept: Vec<KeptPort>,
    wanted: Vec<WantedPort>,
    joined: Vec<JoinedPort>,
    refused: Vec<MissingPort>,
}

/// Splits the requested ports into those that the client has, those to open, those that others of its group
/// have, and those that it cannot have.
fn sort_ports(
    services: &[Option<ServiceSpec>],
    mine: &[PortListener],
    of_others: PortsOfOthers<'_>,
) -> RequestedPorts {
    let mut sorted = RequestedPorts::default();
    for (service, spec) in ServiceIndex::all().zip(services) {
        let group = spec.as_ref().and_then(ServiceSpec::group);
        let Some(request) = spec.as_ref().and_then(PortRequest::of) else {
            continue;
        };
        let standing = of_others.standing(request, group);
        let same = mine.iter().enumerate().find(|(at, port)| {
            let is_taken = sorted.kept.iter().any(|(taken, ..)| taken == at);
            // A port that others share stays with the group.
            let may_stay = group.is_some() || !of_others.has(port.id());
            port.answers(request) && may_stay && !is_taken
        });
        let is_joined = sorted
            .joined
            .iter()
            .any(|joined| joined.port == request.id());
        match (standing, same) {
            (PortStanding::Open | PortStanding::Join, Some((at, _))) => {
                sorted.kept.push((at, request, service));
            }
            (PortStanding::Join, None) if !is_joined => {
                sorted.joined.push(JoinedPort {
                    port: request.id(),
                    service,
                });
            }
            (PortStanding::Open, None) => sorted.wanted.push((request, service)),
            (PortStanding::Join, None) => sorted.refused.push(MissingPort {
                request,
                service,
                cause: PortCause::InUse,
            }),
            (PortStanding::Refused(cause), _) => sorted.refused.push(MissingPort {
                request,
                service,
                cause,
            }),
        }
    }
    sorted
}

/// Opens the requested ports that the client does not have. Ports beyond those that it may have are missing;
/// over GT/1, which cannot tell of one, this fails then.
fn open_requested_ports(
    login: &Login<'_>,
    mut allowance: PortQuota<'_>,
    services: &[Option<ServiceSpec>],
    (mine, of_others): (&[PortListener], PortsOfOthers<'_>),
    mut inherited: Vec<InheritedPort>,
) -> Result<SortedPorts, RejectCode> {
    let id = login.id;
    let RequestedPorts {
        mut kept,
        wanted,
        mut joined,
        refused: mut missing,
    } = sort_ports(services, mine, of_others);
    for missing in &missing {
        let group = services.get(missing.service.as_usize());
        let group = group.and_then(|spec| spec.as_ref()?.group());
        let why = of_others.why_refused(missing.request, group);
        log_failure(Level::Warn, id, missing.request, missing.service, &why);
    }
    let mut excess: Vec<(PortRequest, ServiceIndex)> = Vec::new();
    kept.retain(|(at, request, service)| {
        let is_admitted = mine.get(*at).is_some_and(|port| allowance.admit(port.id()));
        if !is_admitted {
            excess.push((*request, *service));
        }
        is_admitted
    });
    joined.retain(|joined| {
        let (protocol, port) = joined.port;
        let is_admitted = allowance.admit(joined.port);
        if is_admitted {
            log::debug!("id={id} shares {protocol} port {port} with its group");
        } else {
            let request = PortRequest {
                protocol,
                random: false,
                port,
            };
            excess.push((request, joined.service));
        }
        is_admitted
    });
    for (request, service) in excess {
        let failure = PortFailure::TooMany;
        log_failure(Level::Warn, id, request, service, &failure);
        missing.push(MissingPort {
            request,
            service,
            cause: failure.cause(),
        });
    }
    let (mut new, mut tries) = (Vec::new(), ports::MAX_TRIES_LOCKED);
    for (request, service) in wanted {
        match ports::open(&mut allowance, &mut inherited, request, service, &mut tries) {
            Ok(opened) => new.push(opened),
            Err(failure) => {
                log_failure(Level::Warn, id, request, service, &failure);
                missing.push(MissingPort {
                    request,
                    service,
                    cause: failure.cause(),
                });
            }
        }
    }
    let is_excess = |missing: &MissingPort| missing.cause == PortCause::TooMany;
    if login.version == Version::One && missing.iter().any(is_excess) {
        return Err(RejectCode::TooManyPorts);
    }
    Ok(SortedPorts {
        kept,
        new,
        joined,
        missing,
    })
}

/// Logs why a port could not be opened.
fn log_failure(
    level: Level,
    id: &str,
    request: PortRequest,
    service: ServiceIndex,
    failure: &dyn Display,
) {
    let (protocol, port) = request.id();
    log::log!(
        level,
        "cannot open {protocol} port {port} for service {service} id={id}: {failure}"
    );
}

/// Returns the maximum number of tunnels that a client may have open.
fn max_tunnels(limits: &Limits) -> usize {
    match limits.connections {
        0 => usize::MAX,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    }
}
