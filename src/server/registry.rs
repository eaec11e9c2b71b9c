//! The registry of clients: ids, host prefixes and ports, and the tunnels behind them. All state that
//! connections share about clients is here.

mod admission;
mod arrivals;
mod conflict;
mod departures;
mod domains;
mod groups;
mod handed_over;
mod health;
mod held_clients;
mod host_table;
mod instances;
mod moving;
mod opening;
mod registered_client;
mod requested_hosts;
mod requested_ports;
mod reservations;
#[cfg(feature = "web")]
mod search;
mod shared_ports;
mod snapshot;

use super::ports::PortId;
use super::settings::Settings;
use super::users::LoginProof;
use crate::collections::HashMap;
use crate::config::Limits;
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::{Stream, Traffic, Tunnel};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
pub use admission::needs_siblings;
use arrivals::Arrivals;
pub use domains::domain_of;
use event_listener::{Event, EventListener};
pub use groups::SharedName;
pub use handed_over::{registry_key, KeptHost};
use held_clients::HeldClients;
pub use held_clients::LoginRight;
#[cfg(test)]
pub use host_table::SCANS;
use host_table::{HostGroup, HostMember, HostTable};
use instances::Instances;
pub use instances::{client_key, id_of};
pub use moving::Registration;
use registered_client::RegisteredClient;
use reservations::Reservations;
#[cfg(test)]
pub use snapshot::TUNNELS_READ;
pub use snapshot::{ClientStats, SnapshotOrder, Totals};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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
    /// Notified when a client has got other names.
    names_event: Event,
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

/// A host prefix or domain in use.
struct RegisteredHost {
    /// The client that has it, the first one of a group.
    member: HostMember,
    /// The group that shares it.
    group: Option<Box<HostGroup>>,
}

/// The services of a registration. A service that was not granted is `None`.
type SharedServices = Arc<Vec<Option<ServiceSpec>>>;

impl Registry {
    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.inner.lock()
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

    /// Returns a listener for the next client that gets other names.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn names_changed(&self) -> EventListener {
        self.names_event.listen()
    }

    /// Returns the host prefixes and domains that clients have, with the ids of the clients.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn names_of_kind(&self, kind: HostKind) -> Vec<(Box<str>, Box<str>)> {
        let inner = self.lock();
        let is_listed = |client: &str| {
            let client = inner.clients.get(client);
            client.is_none_or(|client| client.is_listed())
        };
        let hosts = inner.hosts.iter();
        let hosts = hosts.filter(|(_, host)| is_listed(&host.member.client));
        let hosts = hosts.map(|(key, host)| (key, id_of(&host.member.client)));
        let all = hosts.chain(inner.held.hosts());
        let all = all.filter(|((its, _), _)| *its == kind);
        all.map(|((_, name), id)| (name.clone(), id.into()))
            .collect()
    }

    /// Whether a client has a domain or a host prefix.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn has_name(&self, kind: HostKind, domain: &str, prefix: Option<&str>) -> bool {
        let inner = self.lock();
        let has = |key: Key| inner.hosts.get(&key).is_some() || inner.held.owner(&key).is_some();
        has(domains::domain_key(kind, domain)) || prefix.is_some_and(|it| has((kind, it.into())))
    }

    /// Sets whether new visitors of the clients' ports use the congestion control BBR.
    pub fn set_bbr(&self, bbr: bool) {
        let inner = self.lock();
        let ports = inner.clients.values().flat_map(|client| &client.ports);
        ports.for_each(|port| port.set_bbr(bbr));
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

    /// Returns the tunnels of a client, those that drain included.
    #[cfg(feature = "web")]
    pub fn tunnels_of(&self, id: &str) -> Vec<Tunnel> {
        let inner = self.lock();
        let clients = inner.of_id(id);
        let tunnels = clients.flat_map(|(_, client)| client.all_tunnels());
        tunnels.cloned().collect()
    }
}

impl RegistryState {}
