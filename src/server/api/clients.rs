//! The page `/clients`: the connected clients as JSON, without secrets (docs/operations.md, "The
//! server's API").

use super::json;
use crate::server::registry::{ClientStats, Registry, SharedName, SnapshotOrder};
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};

/// Maximum number of clients listed: the first ones by id.
const MAX_CLIENTS: usize = 1000;

#[derive(Serialize)]
struct ClientsPage<'a> {
    clients: Vec<ListedClient<'a>>,
    /// Number of clients that are not listed.
    more: usize,
}

/// A client without its secrets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedClient<'a> {
    id: &'a str,
    /// When the client connected: Unix time in seconds.
    since: u64,
    tunnels: usize,
    prefixes: &'a [Box<str>],
    tls_prefixes: &'a [Box<str>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    domains: &'a [Box<str>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tls_domains: &'a [Box<str>],
    ports: &'a [u16],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    udp_ports: &'a [u16],
    /// The services that are down.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    down: &'a [String],
    /// The names that the client shares with others of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<ListedName<'a>>,
    streams: usize,
    streams_total: u64,
    bytes_up: u64,
    bytes_down: u64,
    /// The congestion controls of the tunnels.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    congestion: &'a [String],
    /// The shortest round-trip time of the tunnels in milliseconds.
    rtt: Option<f64>,
}

/// A name that several clients share.
#[derive(Serialize)]
struct ListedName<'a> {
    group: &'a str,
    name: &'a str,
    tls: bool,
    /// The ids of the members; an id may have several.
    members: &'a [Box<str>],
}

impl<'a> ListedName<'a> {
    fn new(shared: &'a SharedName) -> Self {
        Self {
            group: &shared.group,
            name: &shared.name,
            tls: shared.tls,
            members: &shared.members,
        }
    }
}

/// Formats the page. Blocks for as long as [`Registry::snapshot`], so it must not run on the
/// executor's thread.
pub fn page(registry: &Registry) -> String {
    let mut snapshot = registry.snapshot(MAX_CLIENTS, SnapshotOrder::ById);
    registry.describe(&mut snapshot.clients);
    json::line(&ClientsPage {
        clients: snapshot.clients.iter().map(ListedClient::new).collect(),
        more: snapshot.rest.clients,
    })
}

impl<'a> ListedClient<'a> {
    pub fn new(client: &'a ClientStats) -> Self {
        // A clock before 1970 has not been set.
        let since = client.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let sum = &client.totals;
        Self {
            id: &client.id,
            since: since.as_secs(),
            tunnels: sum.tunnels,
            prefixes: &client.http,
            tls_prefixes: &client.tls,
            domains: &client.domains,
            tls_domains: &client.tls_domains,
            ports: &client.ports,
            udp_ports: &client.udp_ports,
            down: &client.down,
            groups: client.shared.iter().map(ListedName::new).collect(),
            streams: sum.streams,
            streams_total: sum.traffic.streams,
            bytes_up: sum.traffic.received,
            bytes_down: sum.traffic.sent,
            congestion: &client.congestion,
            rtt: sum.round_trip.map(milliseconds),
        }
    }
}

/// Converts a time to milliseconds with three digits behind the point.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
