//! The list of clients: which of them a call is about, and in which order. Not what is told of one client.

use crate::collections::HashMap;
use crate::net::clock;
use crate::server::api::clients::ListedClient;
use crate::server::registry::{ClientStats, Registry, SnapshotOrder};
use crate::sync::Mutex;
use crate::web::api::Call;
use serde::Serialize;
use serde_json::{json, Value};
use std::cmp::Ordering;
use std::time::{Duration, Instant};

/// Maximum number of clients in an answer.
const MAX_CLIENTS: usize = 1000;
/// Number of clients in an answer unless the call says another.
const CLIENTS: usize = 100;
/// Number of clients whose names are looked up at once, before others may use the registry.
const SLICE: usize = 128;
/// Shortest time over which a rate is taken.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which rates are forgotten that no list has asked for.
const RATE_LIFETIME: Duration = Duration::from_secs(60);

/// A client in an answer.
#[derive(Serialize)]
pub struct WebClient<'a> {
    #[serde(flatten)]
    listed: ListedClient<'a>,
    address: String,
    /// What carries its tunnels.
    ways: &'a [&'static str],
    /// Bytes per second in both directions since another list in this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
}

impl<'a> WebClient<'a> {
    pub fn new(stats: &'a ClientStats) -> Self {
        Self {
            listed: ListedClient::new(stats),
            address: stats.peer.ip().to_canonical().to_string(),
            ways: &stats.ways,
            rate: stats.rate,
        }
    }
}

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SortKey {
    Id,
    Address,
    Since,
    Tunnels,
    Way,
    Rtt,
    /// Host prefixes, and then domains.
    Names,
    Domains,
    Ports,
    Streams,
    Rate,
    Bytes,
    BytesUp,
    BytesDown,
}

impl SortKey {
    /// All keys with their names in the API.
    const ALL: [(&'static str, Self); 14] = [
        ("id", Self::Id),
        ("address", Self::Address),
        ("since", Self::Since),
        ("tunnels", Self::Tunnels),
        ("way", Self::Way),
        ("rtt", Self::Rtt),
        ("names", Self::Names),
        ("domains", Self::Domains),
        ("ports", Self::Ports),
        ("streams", Self::Streams),
        ("rate", Self::Rate),
        ("bytes", Self::Bytes),
        ("bytesUp", Self::BytesUp),
        ("bytesDown", Self::BytesDown),
    ];

    /// Whether the key is known only once the names and ports of clients have been looked up.
    fn needs_names(self) -> bool {
        matches!(self, Self::Names | Self::Domains | Self::Ports)
    }

    fn compare(self, one: &ClientStats, other: &ClientStats) -> Ordering {
        fn by<T: Ord>(
            a: &ClientStats,
            b: &ClientStats,
            key: impl Fn(&ClientStats) -> T,
        ) -> Ordering {
            key(a).cmp(&key(b))
        }
        match self {
            Self::Id => one.id.cmp(&other.id),
            Self::Address => by(one, other, |it| it.peer),
            Self::Since => by(one, other, |it| it.since),
            Self::Tunnels => by(one, other, |it| it.totals.tunnels),
            Self::Way => by(one, other, |it| it.ways.iter().min().copied()),
            // Those of unknown time come last, as do those without names or ports.
            Self::Rtt => by(one, other, |it| {
                (it.totals.round_trip.is_none(), it.totals.round_trip)
            }),
            Self::Names => first(names(one), names(other)),
            Self::Domains => first(domains(one), domains(other)),
            Self::Ports => first(ports(one), ports(other)),
            Self::Streams => by(one, other, |it| it.totals.streams),
            Self::Rate => by(one, other, |it| it.rate),
            Self::Bytes => by(one, other, |it| it.totals.traffic.bytes()),
            Self::BytesUp => by(one, other, |it| it.totals.traffic.received),
            Self::BytesDown => by(one, other, |it| it.totals.traffic.sent),
        }
    }
}

/// Compares the values of two clients from the first one on. A client without any comes last.
fn first<T: Ord>(one: impl Iterator<Item = T>, other: impl Iterator<Item = T>) -> Ordering {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    let is_empty = one.peek().is_none().cmp(&other.peek().is_none());
    is_empty.then_with(|| one.cmp(other))
}

fn names(it: &ClientStats) -> impl Iterator<Item = &str> {
    let prefixes = it.http.iter().chain(&it.tls);
    prefixes.map(|name| &**name).chain(domains(it))
}

fn domains(it: &ClientStats) -> impl Iterator<Item = &str> {
    it.domains.iter().chain(&it.tls_domains).map(|name| &**name)
}

fn ports(it: &ClientStats) -> impl Iterator<Item = u16> + '_ {
    it.ports.iter().chain(&it.udp_ports).copied()
}

/// Which clients are listed, and in which order.
pub struct ListOptions {
    /// In lower case.
    search: String,
    sort: SortKey,
    is_descending: bool,
    offset: usize,
    limit: usize,
}

impl ListOptions {
    /// Reads the options of a call. The error is a sentence.
    pub fn of(call: &Call) -> Result<Self, String> {
        let number = |name: &str, default: usize| match call.query(name) {
            Some(text) => text.parse().map_err(|_| format!("{name} is a number.")),
            None => Ok(default),
        };
        let sort = call.query("sort").unwrap_or("id");
        let (sort, is_descending) = match sort.strip_prefix('-') {
            Some(sort) => (sort, true),
            None => (sort, false),
        };
        let key = SortKey::ALL.iter().find(|(name, _)| *name == sort);
        let Some((_, sort)) = key else {
            let names = SortKey::ALL.map(|(name, _)| name).join(", ");
            return Err(format!(
                "sort is one of {names}, or one of these with a minus before it."
            ));
        };
        Ok(Self {
            search: call.query("search").unwrap_or_default().to_lowercase(),
            sort: *sort,
            is_descending,
            offset: number("offset", 0)?,
            limit: number("limit", CLIENTS)?.min(MAX_CLIENTS),
        })
    }

    /// Whether the search is for what is known of a client without looking up its names.
    fn finds(&self, client: &ClientStats) -> bool {
        contains(&client.id, &self.search)
            || contains(&client.peer.ip().to_canonical().to_string(), &self.search)
    }
}

/// Whether a text contains another one, which is in lower case.
fn contains(text: &str, lower: &str) -> bool {
    if !text.is_ascii() {
        return text.to_lowercase().contains(lower);
    }
    let (text, lower) = (text.as_bytes(), lower.as_bytes());
    let Some(first) = lower.first() else {
        return true;
    };
    let ends = text.len().saturating_sub(lower.len().saturating_sub(1));
    let starts = text.get(..ends).unwrap_or_default().iter().enumerate();
    let mut found = starts.filter(|(_, byte)| byte.eq_ignore_ascii_case(first));
    found.any(|(at, _)| {
        let part = text.get(at..at.saturating_add(lower.len()));
        part.is_some_and(|part| part.eq_ignore_ascii_case(lower))
    })
}

/// The rates of clients, from one list in their order to the next.
#[derive(Default)]
pub struct Rates(Mutex<RateTable>);

#[derive(Default)]
struct RateTable {
    /// When the bytes were counted; `None` before the first list.
    taken: Option<Instant>,
    clients: HashMap<Box<str>, ClientRate>,
}

#[derive(Clone, Copy)]
struct ClientRate {
    /// Bytes in both directions at that time.
    bytes: u64,
    /// Bytes per second before that time.
    rate: u64,
}

impl Rates {
    /// Tells the rates of all clients that are connected.
    fn tell(&self, clients: &mut [ClientStats], now: Instant) {
        let mut table = self.0.lock();
        let elapsed = table.taken.map(|it| now.saturating_duration_since(it));
        if elapsed.is_none_or(|it| it >= RATE_INTERVAL) {
            let millis = elapsed.map_or(0, |it| it.as_millis());
            let millis = u64::try_from(millis).unwrap_or(u64::MAX);
            let rate = |client: &ClientStats| {
                let bytes = client.totals.traffic.bytes();
                let before = table.clients.get(&client.id).map_or(0, |it| it.bytes);
                let more = bytes.saturating_sub(before).saturating_mul(1000);
                // Before the first list, nothing is known.
                let rate = more.checked_div(millis).unwrap_or(0);
                (client.id.clone(), ClientRate { bytes, rate })
            };
            table.clients = clients.iter().map(rate).collect();
            table.taken = Some(now);
        }
        for client in clients {
            client.rate = table.clients.get(&client.id).map(|it| it.rate);
        }
    }

    /// Forgets the rates if there has been no such list lately.
    pub fn tidy(&self, now: Instant) {
        let mut table = self.0.lock();
        let is_old = |taken| now.saturating_duration_since(taken) >= RATE_LIFETIME;
        if table.taken.is_some_and(is_old) {
            *table = RateTable::default();
        }
    }
}

/// Lists clients. Blocks for some milliseconds if there are thousands of them; never holds the registry's lock
/// for more than a slice of these.
pub fn list(registry: &Registry, options: &ListOptions, rates: &Rates) -> Value {
    let mut clients = registry.snapshot(usize::MAX, SnapshotOrder::ById).clients;
    let all = clients.len();
    if options.sort == SortKey::Rate {
        rates.tell(&mut clients, clock::now());
    }
    if !options.search.is_empty() {
        let mut found: Vec<bool> = clients.iter().map(|it| options.finds(it)).collect();
        let port = options.search.parse().ok();
        let is_name = |name: &str| contains(name, &options.search);
        for (slice, found) in clients.chunks(SLICE).zip(found.chunks_mut(SLICE)) {
            registry.search(slice, found, is_name, port);
        }
        let mut found = found.into_iter();
        clients.retain(|_| found.next() == Some(true));
    }
    let found = clients.len();
    let describe = |clients: &mut [ClientStats]| {
        for slice in clients.chunks_mut(SLICE) {
            registry.describe(slice);
        }
    };
    let needs_names = options.sort.needs_names();
    if needs_names {
        describe(&mut clients);
    }
    let compare = |a: &ClientStats, b: &ClientStats| {
        let order = options.sort.compare(a, b);
        let order = if options.is_descending {
            order.reverse()
        } else {
            order
        };
        order.then_with(|| a.id.cmp(&b.id))
    };
    // Only those up to the end of the answer have to be in their order.
    let end = options.offset.saturating_add(options.limit);
    if end < clients.len() {
        clients.select_nth_unstable_by(end, compare);
        clients.truncate(end);
    }
    clients.sort_unstable_by(compare);
    let mut page = clients.split_off(options.offset.min(clients.len()));
    if !needs_names {
        describe(&mut page);
    }
    json!({
        "clients": page.iter().map(WebClient::new).collect::<Vec<_>>(),
        "found": found,
        "all": all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::crowd::crowd;
    use crate::tunnel::Traffic;

    const MANY: usize = 10_000;

    fn options(search: &str, sort: SortKey) -> ListOptions {
        ListOptions {
            search: search.to_owned(),
            sort,
            is_descending: true,
            offset: 0,
            limit: 50,
        }
    }

    #[test]
    fn ten_thousand_clients_are_listed_searched_and_sorted_and_the_lock_is_let_go_between() {
        let (state, _tunnel) = crowd(MANY);
        let list = |options| list(&state.registry, &options, &Rates::default());
        for sort in [SortKey::Id, SortKey::Names, SortKey::Bytes] {
            let listed = list(options("", sort));
            assert_eq!(
                (&listed["all"], &listed["found"]),
                (&json!(MANY), &json!(MANY))
            );
            let clients = listed["clients"].as_array().unwrap();
            assert_eq!(clients.len(), 50);
            let (first, last) = match sort {
                // All have the same traffic.
                SortKey::Bytes => ("id00000", "id00049"),
                _ => ("id09999", "id09950"),
            };
            assert_eq!(clients[0]["id"], first);
            assert_eq!(clients[49]["prefixes"], json!([last]));
        }
        let found = list(options("d0123", SortKey::Id));
        assert_eq!(found["found"], 10);
        let beyond = ListOptions {
            offset: usize::MAX,
            ..options("", SortKey::Id)
        };
        assert_eq!(list(beyond)["clients"], json!([]));
    }

    #[test]
    fn names_and_ports_are_found_and_give_an_order_in_which_none_is_the_last() {
        let (state, _tunnel) = crowd(3);
        let mut all = state.registry.snapshot(9, SnapshotOrder::ById).clients;
        all[0].domains = vec!["b.example".into()];
        all[1].domains = vec!["a.example".into()];
        all[2].ports = vec![20, 30];
        all[0].ports = vec![20];
        let order = |sort: SortKey| {
            let mut at: Vec<usize> = (0..3).collect();
            at.sort_by(|a, b| sort.compare(&all[*a], &all[*b]));
            at
        };
        assert_eq!(order(SortKey::Domains), [1, 0, 2]);
        assert_eq!(order(SortKey::Ports), [0, 2, 1]);
        assert_eq!(order(SortKey::Names), [1, 0, 2]);
        for (text, lower, is_in) in [
            ("Boat", "oa", true),
            ("Boat", "boat", true),
            ("Boat", "boats", false),
            ("BÖB", "öb", true),
            ("aab", "ab", true),
            ("", "a", false),
            ("a", "", true),
        ] {
            assert_eq!(contains(text, lower), is_in, "{lower} in {text}");
        }
    }

    #[test]
    fn a_rate_is_that_since_the_list_before_and_is_forgotten() {
        let (state, _tunnel) = crowd(2);
        let (rates, start) = (Rates::default(), Instant::now());
        let mut clients = state.registry.snapshot(9, SnapshotOrder::ById).clients;
        let mut told = |millis: u64, bytes: u64| {
            clients[1].totals.traffic = Traffic {
                received: bytes,
                ..Traffic::default()
            };
            rates.tell(&mut clients, start + Duration::from_millis(millis));
            (clients[0].rate, clients[1].rate)
        };
        assert_eq!(told(0, 1000), (Some(0), Some(0)));
        assert_eq!(told(2000, 5000), (Some(0), Some(2000)));
        assert_eq!(told(2500, 5000), (Some(0), Some(2000)), "too soon");
        assert_eq!(told(4000, 4000), (Some(0), Some(0)), "another connection");
        rates.tidy(start + Duration::from_secs(60));
        assert!(rates.0.lock().taken.is_some());
        rates.tidy(start + Duration::from_secs(64));
        assert!(rates.0.lock().clients.is_empty());
    }

    /// Prints the time of the thread: `cargo test --release --lib -- --ignored --nocapture time_of_the_thread`.
    #[test]
    #[ignore]
    fn time_of_the_thread_for_ten_thousand_clients() {
        let (state, _tunnel) = crowd(MANY);
        for (search, sort) in [
            ("", SortKey::Bytes),
            ("d0123", SortKey::Bytes),
            ("no such client", SortKey::Bytes),
            ("", SortKey::Names),
            ("id", SortKey::Names),
            ("", SortKey::Rate),
        ] {
            let now = || {
                let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                stat.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000
            };
            let begun = now();
            list(&state.registry, &options(search, sort), &Rates::default());
            println!("{search:?} by {sort:?}: {} us", now() - begun);
        }
    }
}
