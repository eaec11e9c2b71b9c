//! What the registry holds at one moment, for the API to tell.

use super::{Client, Kind, Registry};
use crate::tunnel::{Traffic, Tunnel};
use std::collections::HashMap;
use std::ops::AddAssign;
use std::time::{Duration, SystemTime};

/// Which clients come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    ById,
    /// Those that have moved the most bytes.
    Busiest,
}

pub struct Survey {
    /// As many as were asked for.
    pub clients: Vec<Seen>,
    /// The clients beyond these.
    pub rest: Sum,
    /// All clients; the traffic is that of those that have left too.
    pub all: Sum,
}

/// One client.
pub struct Seen {
    pub id: Box<str>,
    /// When its first tunnel came.
    pub since: SystemTime,
    pub sum: Sum,
    /// Host prefixes for HTTP, and those for TLS, sorted.
    pub http: Vec<Box<str>>,
    pub tls: Vec<Box<str>>,
    pub ports: Vec<u16>,
}

/// Some clients together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub clients: usize,
    pub tunnels: usize,
    /// Streams that run.
    pub streams: usize,
    /// Since the clients came.
    pub traffic: Traffic,
    /// The shortest of those that are known.
    pub round_trip: Option<Duration>,
}

impl Sum {
    fn tunnel(&mut self, tunnel: &Tunnel) {
        self.tunnels += 1;
        self.streams += tunnel.streams();
        self.traffic += tunnel.traffic();
        self.round_trip = shorter(self.round_trip, tunnel.round_trip());
    }

    fn of(client: &Client) -> Self {
        let mut sum = Self {
            clients: 1,
            traffic: client.past,
            ..Self::default()
        };
        client.all_tunnels().for_each(|tunnel| sum.tunnel(tunnel));
        sum
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

impl AddAssign for Sum {
    fn add_assign(&mut self, more: Self) {
        self.clients += more.clients;
        self.tunnels += more.tunnels;
        self.streams += more.streams;
        self.traffic += more.traffic;
        self.round_trip = shorter(self.round_trip, more.round_trip);
    }
}

impl Registry {
    /// Describes `most` clients and sums up the others.
    pub fn survey(&self, most: usize, order: Order) -> Survey {
        let inner = self.lock();
        let listed = inner.clients.iter().filter(|(_, client)| client.listed);
        let mut found: Vec<_> = listed
            .map(|(id, client)| (id, client, Sum::of(client)))
            .collect();
        match order {
            Order::ById => found.sort_unstable_by_key(|(id, ..)| *id),
            Order::Busiest => found.sort_unstable_by(|(a, _, one), (b, _, other)| {
                let bytes = other.traffic.bytes().cmp(&one.traffic.bytes());
                bytes.then_with(|| a.cmp(b))
            }),
        }
        let (shown, others) = found.split_at(most.min(found.len()));
        let mut rest = Sum::default();
        others.iter().for_each(|(.., sum)| rest += *sum);
        let mut all = rest;
        shown.iter().for_each(|(.., sum)| all += *sum);
        all.traffic += inner.past;

        let mut clients: Vec<Seen> = shown
            .iter()
            .map(|(id, client, sum)| Seen {
                id: (*id).clone(),
                since: client.since,
                sum: *sum,
                http: Vec::new(),
                tls: Vec::new(),
                ports: client.ports.iter().map(|port| port.port).collect(),
            })
            .collect();
        let places = clients.iter().zip(0usize..);
        let places: HashMap<_, _> = places.map(|(seen, at)| (seen.id.clone(), at)).collect();
        for ((kind, prefix), host) in &inner.hosts {
            let seen = places.get(&host.client).and_then(|at| clients.get_mut(*at));
            match (seen, kind) {
                (Some(seen), Kind::Http) => seen.http.push(prefix.clone()),
                (Some(seen), Kind::Tls) => seen.tls.push(prefix.clone()),
                (None, _) => {}
            }
        }
        drop(inner);
        for seen in &mut clients {
            seen.http.sort_unstable();
            seen.tls.sort_unstable();
            seen.ports.sort_unstable();
        }
        Survey { clients, rest, all }
    }
}
