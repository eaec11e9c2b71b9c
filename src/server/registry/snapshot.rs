//! What the registry holds at one moment, for the API to tell. With thousands of clients that takes
//! milliseconds, so the registry is locked only to copy what it knows, and the rest is done after.

use super::{HostKind, RegisteredClient, Registry};
use crate::tunnel::{Traffic, Tunnel};
use std::ops::AddAssign;
use std::time::{Duration, SystemTime};

/// Which clients come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotOrder {
    ById,
    /// Those that have moved the most bytes.
    Busiest,
}

pub struct Snapshot {
    /// As many as were asked for.
    pub clients: Vec<ClientStats>,
    /// The clients beyond these.
    pub rest: Totals,
    /// All clients; the traffic is that of those that have left too.
    pub all: Totals,
}

/// One client.
pub struct ClientStats {
    pub id: Box<str>,
    /// When its first tunnel came.
    pub since: SystemTime,
    pub sum: Totals,
    /// Host prefixes for HTTP, and those for TLS, sorted.
    pub http: Vec<Box<str>>,
    pub tls: Vec<Box<str>>,
    pub ports: Vec<u16>,
}

/// Some clients together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub clients: usize,
    pub tunnels: usize,
    /// Streams that run.
    pub streams: usize,
    /// Since the clients came.
    pub traffic: Traffic,
    /// The shortest of those that are known.
    pub round_trip: Option<Duration>,
}

impl Totals {
    /// A client without its tunnels.
    fn of(past: Traffic) -> Self {
        Self {
            clients: 1,
            traffic: past,
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
    }
}

/// What the registry knows of its clients, copied.
#[derive(Default)]
struct ClientCopy {
    /// Those that are listed.
    clients: Vec<ClientStats>,
    /// All their tunnels, with the place of the client.
    tunnels: Vec<(usize, Tunnel)>,
    /// What clients that have left have moved.
    past: Traffic,
}

impl Registry {
    /// Describes `most` clients and sums up the others. Blocks while others use the registry or a
    /// tunnel, and takes its time: not for the executor's thread.
    pub fn snapshot(&self, most: usize, order: SnapshotOrder) -> Snapshot {
        let ClientCopy {
            mut clients,
            tunnels,
            past,
        } = self.copy();
        for (at, tunnel) in &tunnels {
            #[cfg(test)]
            READ_HERE.with(|count| count.set(count.get() + 1));
            if let Some(seen) = clients.get_mut(*at) {
                seen.sum.tunnel(tunnel);
            }
        }
        drop(tunnels);
        match order {
            SnapshotOrder::ById => clients.sort_unstable_by(|a, b| a.id.cmp(&b.id)),
            SnapshotOrder::Busiest => clients.sort_unstable_by(|one, other| {
                let bytes = |seen: &ClientStats| seen.sum.traffic.bytes();
                let busier = bytes(other).cmp(&bytes(one));
                busier.then_with(|| one.id.cmp(&other.id))
            }),
        }
        let others = clients.split_off(most.min(clients.len()));
        let mut rest = Totals::default();
        others.iter().for_each(|seen| rest += seen.sum);
        let mut all = rest;
        clients.iter().for_each(|seen| all += seen.sum);
        all.traffic += past;
        Snapshot { clients, rest, all }
    }

    /// Finds the host prefixes and the ports of clients that were surveyed.
    pub fn describe(&self, clients: &mut [ClientStats]) {
        let inner = self.lock();
        for seen in clients.iter_mut() {
            if let Some(client) = inner.clients.get(&seen.id) {
                seen.ports = client.ports.iter().map(|port| port.port).collect();
            }
            for (kind, prefix) in inner.hosts.of(&seen.id) {
                match kind {
                    HostKind::Http => seen.http.push(prefix.clone()),
                    HostKind::Tls => seen.tls.push(prefix.clone()),
                }
            }
        }
        drop(inner);
        for seen in clients {
            seen.http.sort_unstable();
            seen.tls.sort_unstable();
            seen.ports.sort_unstable();
        }
    }

    /// Locks no tunnel. What these have moved is read later, and stays readable when they end: no
    /// byte is counted twice or not at all.
    fn copy(&self) -> ClientCopy {
        let inner = self.lock();
        let count = inner.clients.len();
        let mut copied = ClientCopy {
            clients: Vec::with_capacity(count),
            tunnels: Vec::with_capacity(count),
            past: inner.past,
        };
        for (id, client) in inner
            .clients
            .iter()
            .filter(|(_, client)| client.is_listed())
        {
            let at = copied.clients.len();
            let tunnels = client.all_tunnels().map(|tunnel| (at, tunnel.clone()));
            copied.tunnels.extend(tunnels);
            copied.clients.push(ClientStats::of(id, client));
        }
        copied
    }
}

impl ClientStats {
    /// Without its tunnels, prefixes and ports.
    fn of(id: &str, client: &RegisteredClient) -> Self {
        Self {
            id: id.into(),
            since: client.since,
            sum: Totals::of(client.past),
            http: Vec::new(),
            tls: Vec::new(),
            ports: Vec::new(),
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many tunnels this thread has read for surveys.
    pub static READ_HERE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
