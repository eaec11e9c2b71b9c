//! Snapshots of the registry for the API. With thousands of clients one takes milliseconds, so the lock
//! is held only to copy what the registry knows.

use super::domain_of;
use super::{id_of, HostKind, RegisteredClient, Registry, SharedName};
use crate::collections::HashMap;
use crate::server::ports::Protocol;
use crate::tunnel::{Traffic, Tunnel};
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::{Duration, SystemTime};

/// The order of clients in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotOrder {
    /// By id.
    ById,
    /// By traffic, the busiest client first.
    Busiest,
}

/// The state of all clients at one moment.
pub struct Snapshot {
    /// The clients described, up to the requested number.
    pub clients: Vec<ClientStats>,
    /// Totals of the clients not in `clients`.
    pub rest: Totals,
    /// Totals of all clients; the traffic includes that of clients that have left.
    pub all: Totals,
}

/// The statistics of one client.
pub struct ClientStats {
    /// The client's id.
    pub id: Box<str>,
    /// When the client's first tunnel registered.
    pub since: SystemTime,
    /// The sums over the client's tunnels.
    pub totals: Totals,
    /// Host prefixes for HTTP, sorted.
    pub http: Vec<Box<str>>,
    /// Host prefixes for TLS, sorted.
    pub tls: Vec<Box<str>>,
    /// Domains for HTTP, sorted.
    pub domains: Vec<Box<str>>,
    /// Domains for TLS, sorted.
    pub tls_domains: Vec<Box<str>>,
    /// The open TCP ports, sorted.
    pub ports: Vec<u16>,
    /// The open UDP ports, sorted.
    pub udp_ports: Vec<u16>,
    /// The services that are down, sorted: their host prefixes, domains or ports.
    pub down: Vec<String>,
    /// The names that it shares with other clients, sorted.
    pub shared: Vec<SharedName>,
    /// The congestion controls of its tunnels, sorted; only in the order by id.
    pub congestion: Vec<String>,
    /// What carries its tunnels, sorted; only in the order by id.
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    pub ways: Vec<&'static str>,
    /// The address that its latest tunnel has come from.
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    pub peer: SocketAddr,
    /// Its bytes per second; only in the order of the web page by rate.
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    pub rate: Option<u64>,
}

/// Sums over one or several clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of clients.
    pub clients: usize,
    /// Number of tunnels.
    pub tunnels: usize,
    /// Number of open streams.
    pub streams: usize,
    /// Traffic since the clients connected.
    pub traffic: Traffic,
    /// The shortest known round-trip time.
    pub round_trip: Option<Duration>,
    /// Number of services that are down.
    pub down: usize,
}

impl Totals {
    /// Returns the totals of a client without its tunnels.
    fn of(past: Traffic, down: usize) -> Self {
        Self {
            clients: 1,
            traffic: past,
            down,
            ..Self::default()
        }
    }

    fn tunnel(&mut self, tunnel: &Tunnel) {
        self.tunnels += 1;
        self.streams += tunnel.streams();
        self.traffic += tunnel.traffic();
        self.round_trip = shorter(self.round_trip, tunnel.round_trip());
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

impl AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.clients += more.clients;
        self.tunnels += more.tunnels;
        self.streams += more.streams;
        self.traffic += more.traffic;
        self.round_trip = shorter(self.round_trip, more.round_trip);
        self.down += more.down;
    }
}

/// A copy of the registry's clients and their tunnels.
#[derive(Default)]
struct ClientCopy {
    /// The clients that snapshots include.
    clients: Vec<ClientStats>,
    /// All their tunnels, with the index of the client.
    tunnels: Vec<(usize, Tunnel)>,
    /// Traffic of clients that have left.
    past: Traffic,
}

impl Registry {
    /// Describes `most` clients and sums up the others. Blocks on the locks of the registry and of
    /// each tunnel for up to some milliseconds, so it must not run on the executor's thread.
    pub fn snapshot(&self, most: usize, order: SnapshotOrder) -> Snapshot {
        let ClientCopy {
            mut clients,
            tunnels,
            past,
        } = self.copy();
        for (at, tunnel) in &tunnels {
            #[cfg(test)]
            TUNNELS_READ.with(|count| count.set(count.get() + 1));
            if let Some(stats) = clients.get_mut(*at) {
                stats.totals.tunnel(tunnel);
                if order == SnapshotOrder::ById {
                    stats.congestion.extend(tunnel.congestion());
                    stats.ways.extend(tunnel.transport());
                }
            }
        }
        drop(tunnels);
        match order {
            SnapshotOrder::ById => clients.sort_unstable_by(|a, b| a.id.cmp(&b.id)),
            SnapshotOrder::Busiest => clients.sort_unstable_by(|one, other| {
                let bytes = |stats: &ClientStats| stats.totals.traffic.bytes();
                let busier = bytes(other).cmp(&bytes(one));
                busier.then_with(|| one.id.cmp(&other.id))
            }),
        }
        let others = clients.split_off(most.min(clients.len()));
        let mut rest = Totals::default();
        others.iter().for_each(|stats| rest += stats.totals);
        let mut all = rest;
        clients.iter().for_each(|stats| all += stats.totals);
        all.traffic += past;
        Snapshot { clients, rest, all }
    }

    /// Adds host prefixes and ports to clients of a snapshot.
    pub fn describe(&self, clients: &mut [ClientStats]) {
        let inner = self.lock();
        for stats in clients.iter_mut() {
            for (key, client) in inner.of_id(&stats.id) {
                for (port, _) in client.open_ports() {
                    match port {
                        (Protocol::Tcp, port) => stats.ports.push(port),
                        (Protocol::Udp, port) => stats.udp_ports.push(port),
                    }
                }
                let down = client.down();
                let down = down.into_iter();
                let down = down.map(|service| inner.service_name(key, service));
                stats.down.extend(down);
                stats.shared.extend(inner.shared_names(key));
                for (kind, prefix) in inner.hosts.of(key) {
                    match (kind, domain_of(prefix)) {
                        (HostKind::Http, None) => stats.http.push(prefix.clone()),
                        (HostKind::Tls, None) => stats.tls.push(prefix.clone()),
                        (HostKind::Http, Some(domain)) => stats.domains.push(domain.into()),
                        (HostKind::Tls, Some(domain)) => stats.tls_domains.push(domain.into()),
                    }
                }
            }
        }
        drop(inner);
        for stats in clients {
            // Clients with the same id may share them.
            let lists = [
                &mut stats.http,
                &mut stats.tls,
                &mut stats.domains,
                &mut stats.tls_domains,
            ];
            for list in lists {
                list.sort_unstable();
                list.dedup();
            }
            stats.ports.sort_unstable();
            stats.ports.dedup();
            stats.udp_ports.sort_unstable();
            stats.udp_ports.dedup();
            stats.down.sort_unstable();
            stats.congestion.sort_unstable();
            stats.congestion.dedup();
            stats.ways.sort_unstable();
            stats.ways.dedup();
            stats
                .shared
                .sort_unstable_by(|a, b| (&a.name, a.tls).cmp(&(&b.name, b.tls)));
            stats.shared.dedup();
        }
    }

    /// Copies clients and tunnels. Locks no tunnel: the traffic of a tunnel stays readable after
    /// it ends, so that no byte is counted twice or missed.
    fn copy(&self) -> ClientCopy {
        let inner = self.lock();
        let count = inner.clients.len();
        // Where the clients with several registrations are.
        let mut several: HashMap<&str, usize> = HashMap::default();
        let mut copied = ClientCopy {
            clients: Vec::with_capacity(count),
            tunnels: Vec::with_capacity(count),
            past: inner.past_traffic,
        };
        for (id, client) in inner
            .clients
            .iter()
            .filter(|(_, client)| client.is_listed())
        {
            // Those of one id are one for the API.
            let plain = id_of(id);
            let at = several.get(plain).copied().unwrap_or(copied.clients.len());
            let tunnels = client.all_tunnels().map(|tunnel| (at, tunnel.clone()));
            copied.tunnels.extend(tunnels);
            let stats = ClientStats::of(plain, client);
            match copied.clients.get_mut(at) {
                Some(known) => known.add(&stats),
                None => copied.clients.push(stats),
            }
            if inner.instances.has(plain) {
                several.insert(plain, at);
            }
        }
        copied
    }
}

impl ClientStats {
    /// Adds another registration of the same id.
    fn add(&mut self, other: &Self) {
        let clients = self.totals.clients;
        self.since = self.since.min(other.since);
        self.totals += other.totals;
        self.totals.clients = clients;
    }

    /// Creates the statistics without tunnels, prefixes and ports.
    fn of(id: &str, client: &RegisteredClient) -> Self {
        Self {
            id: id.into(),
            since: client.since,
            totals: Totals::of(client.past_traffic, client.down().len()),
            http: Vec::new(),
            tls: Vec::new(),
            domains: Vec::new(),
            tls_domains: Vec::new(),
            ports: Vec::new(),
            udp_ports: Vec::new(),
            down: Vec::new(),
            shared: Vec::new(),
            congestion: Vec::new(),
            ways: Vec::new(),
            peer: client.peer,
            rate: None,
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many tunnels this thread has read for snapshots.
    pub static TUNNELS_READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
