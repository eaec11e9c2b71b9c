//! The server as the web page and its API see it. Not its users: those are in the files of the configuration.

use super::api::clients::ListedClient;
use super::live_visitors::LiveVisitor;
use super::registry::{ClientStats, SnapshotOrder};
use super::state::ServerState;
use super::Server;
use crate::config::{Limits, PortLimits, RoleName};
use crate::net::{blocking, clock};
use crate::web::answer::Answer;
use crate::web::api::{Call, Route};
use crate::web::history::Totals;
use crate::web::role::{ready, Answering, RoleView};
use serde::Serialize;
use serde_json::{json, Value};
use std::cmp::Ordering;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Maximum number of clients in an answer.
const MAX_CLIENTS: usize = 1000;
/// Number of clients in an answer unless the call says another.
const CLIENTS: usize = 100;
/// Maximum number of visitors in an answer.
const MAX_VISITORS: usize = 500;
/// Number of clients whose names are looked up at once, before others may use the registry.
const SLICE: usize = 128;

/// A server, and where it was configured.
pub struct ServerView {
    server: Arc<Server>,
    source: Option<PathBuf>,
}

/// A client in an answer.
#[derive(Serialize)]
struct WebClient<'a> {
    #[serde(flatten)]
    listed: ListedClient<'a>,
    address: String,
    /// What carries its tunnels.
    ways: &'a [&'static str],
}

impl<'a> WebClient<'a> {
    fn new(stats: &'a ClientStats) -> Self {
        Self {
            listed: ListedClient::new(stats),
            address: stats.peer.ip().to_canonical().to_string(),
            ways: &stats.ways,
        }
    }
}

/// Which clients are listed, and in which order.
struct ListOptions {
    search: String,
    sort: fn(&ClientStats, &ClientStats) -> Ordering,
    is_descending: bool,
    offset: usize,
    limit: usize,
}

impl ListOptions {
    fn of(call: &Call) -> Result<Self, String> {
        let number = |name: &str, default: usize| match call.query(name) {
            Some(text) => text.parse().map_err(|_| format!("{name} is a number.")),
            None => Ok(default),
        };
        let sort = call.query("sort").unwrap_or("id");
        let (sort, is_descending) = match sort.strip_prefix('-') {
            Some(sort) => (sort, true),
            None => (sort, false),
        };
        let sort: fn(&ClientStats, &ClientStats) -> Ordering = match sort {
            "id" => |a, b| a.id.cmp(&b.id),
            "address" => |a, b| a.peer.cmp(&b.peer),
            "since" => |a, b| a.since.cmp(&b.since),
            "tunnels" => |a, b| a.totals.tunnels.cmp(&b.totals.tunnels),
            "streams" => |a, b| a.totals.streams.cmp(&b.totals.streams),
            "bytesUp" => |a, b| a.totals.traffic.received.cmp(&b.totals.traffic.received),
            "bytesDown" => |a, b| a.totals.traffic.sent.cmp(&b.totals.traffic.sent),
            "bytes" => |a, b| a.totals.traffic.bytes().cmp(&b.totals.traffic.bytes()),
            // Those of unknown time come last.
            "rtt" => |a, b| {
                let key = |it: &ClientStats| (it.totals.round_trip.is_none(), it.totals.round_trip);
                key(a).cmp(&key(b))
            },
            _ => {
                return Err(
                    "sort is id, address, since, tunnels, streams, bytesUp, bytesDown, bytes or rtt, or one of \
                     these with a minus before it."
                        .to_owned(),
                )
            }
        };
        Ok(Self {
            search: call.query("search").unwrap_or_default().to_lowercase(),
            sort,
            is_descending,
            offset: number("offset", 0)?,
            limit: number("limit", CLIENTS)?.min(MAX_CLIENTS),
        })
    }

    fn finds(&self, client: &ClientStats) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.search);
        let lists = [
            &client.http,
            &client.tls,
            &client.domains,
            &client.tls_domains,
        ];
        let ports = client.ports.iter().chain(&client.udp_ports);
        has(&client.id)
            || has(&client.peer.ip().to_canonical().to_string())
            || lists.into_iter().flatten().any(|name| has(name))
            || ports
                .into_iter()
                .any(|port| port.to_string() == self.search)
    }
}

/// Lists clients. Blocks for some milliseconds if there are thousands of them; never holds the registry's lock
/// for more than a slice of these.
fn list(state: &ServerState, options: &ListOptions) -> Value {
    let mut clients = state
        .registry
        .snapshot(usize::MAX, SnapshotOrder::ById)
        .clients;
    let all = clients.len();
    if !options.search.is_empty() {
        for slice in clients.chunks_mut(SLICE) {
            state.registry.describe(slice);
        }
        clients.retain(|client| options.finds(client));
    }
    let found = clients.len();
    clients.sort_by(|a, b| {
        let order = (options.sort)(a, b);
        let order = if options.is_descending {
            order.reverse()
        } else {
            order
        };
        order.then_with(|| a.id.cmp(&b.id))
    });
    let mut page: Vec<_> = clients
        .into_iter()
        .skip(options.offset)
        .take(options.limit)
        .collect();
    if options.search.is_empty() {
        for slice in page.chunks_mut(SLICE) {
            state.registry.describe(slice);
        }
    }
    json!({
        "clients": page.iter().map(WebClient::new).collect::<Vec<_>>(),
        "found": found,
        "all": all,
    })
}

/// Describes one client. Blocks like [`list`].
fn detail(state: &ServerState, id: &str) -> Option<Value> {
    let mut clients = state
        .registry
        .snapshot(usize::MAX, SnapshotOrder::ById)
        .clients;
    clients.retain(|client| *client.id == *id);
    state.registry.describe(&mut clients);
    let client = clients.first()?;
    let tunnels = state.registry.tunnels_of(id);
    let tunnels = tunnels.iter().map(|tunnel| {
        let traffic = tunnel.traffic();
        json!({
            "version": tunnel.version().name(),
            "way": tunnel.transport(),
            "rtt": tunnel.round_trip().map(|time| time.as_secs_f64() * 1e3),
            "streams": tunnel.streams(),
            "bytesUp": traffic.received,
            "bytesDown": traffic.sent,
        })
    });
    let (visitors, count) = state.live_visitors.of_client(id, MAX_VISITORS);
    let settings = state.settings.get();
    Some(json!({
        "client": WebClient::new(client),
        "tunnels": tunnels.collect::<Vec<_>>(),
        "visitors": visitors.iter().map(|it| visitor(it)).collect::<Vec<_>>(),
        "visitorCount": count,
        "limits": limits(settings.users.limits_for(id)),
        "isUser": settings.users.knows(id),
    }))
}

fn visitor(visitor: &LiveVisitor) -> Value {
    let totals = visitor.stream.totals();
    let addr = visitor.visitor;
    let since = visitor.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "number": visitor.number,
        "service": visitor.service,
        "way": visitor.way.name(),
        "address": addr.map(|it| it.ip().to_canonical().to_string()),
        "port": addr.map(|it| it.port()),
        "since": since.as_secs(),
        "bytesUp": totals.received,
        "bytesDown": totals.sent,
    })
}

fn limits(limits: &Limits) -> Value {
    let ports = |limits: &PortLimits| {
        let rules = limits.rules.iter().map(|rule| {
            let range = format!("{}-{}", rule.range.first, rule.range.last);
            json!({"range": range, "number": rule.number})
        });
        json!({"rules": rules.collect::<Vec<_>>(), "total": limits.total})
    };
    json!({
        "tcp": ports(&limits.tcp),
        "udp": ports(&limits.udp),
        "speed": limits.speed,
        "connections": limits.connections,
        "hosts": limits.hosts.number,
        "hostRegex": limits.hosts.regex.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
        "hostWithID": limits.hosts.with_id,
        "domains": limits.domains.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
    })
}

impl ServerView {
    /// Shows a server, which lists its visitors from now on.
    pub fn new(server: Arc<Server>, source: Option<PathBuf>) -> Self {
        server.state.live_visitors.watch(true);
        Self { server, source }
    }

    fn lockouts(&self) -> Answer {
        let lockouts = self.server.state.auth_lockout.list().into_iter();
        let lockouts = lockouts.map(|it| {
            json!({
                "address": it.network.to_string(),
                "failures": it.failures,
                "seconds": it.left.as_secs().saturating_add(1),
            })
        });
        Answer::json(200, &json!({"lockouts": lockouts.collect::<Vec<_>>()}))
    }

    fn lift_lockout(&self, call: &Call) -> Answer {
        let Ok(address) = call.argument().parse::<IpAddr>() else {
            return Answer::error(400, "The address is an IP address.");
        };
        match self.server.state.auth_lockout.succeeded(address) {
            true => {
                call.log(format_args!("lifted the lockout of {address}"));
                Answer::done()
            }
            false => Answer::error(404, "This address has not failed to log in lately."),
        }
    }

    fn cut(&self, call: &Call) -> Answer {
        let Ok(number) = call.argument().parse::<u32>() else {
            return Answer::error(400, "The number of the visitor is not one.");
        };
        let state = &self.server.state;
        match state.live_visitors.cut(number, &state.registry) {
            Some(visitor) => {
                let addr = visitor
                    .visitor
                    .map_or("-".to_owned(), |it| it.ip().to_canonical().to_string());
                let id = visitor.id.as_deref().unwrap_or("-");
                call.log(format_args!(
                    "cut the visitor {addr} of {} id={id}",
                    visitor.service
                ));
                Answer::done()
            }
            None => Answer::error(404, "There is no such visitor any more."),
        }
    }

    fn certificate(&self) -> Answer {
        let settings = self.server.state.settings.get();
        let file = settings.cert_file.as_ref().map(|it| it.to_string_lossy());
        let fingerprint = settings.fingerprint.as_ref().map(ToString::to_string);
        Answer::json(200, &json!({"certFile": file, "fingerprint": fingerprint}))
    }
}

impl RoleView for ServerView {
    fn name(&self) -> RoleName {
        RoleName::Server
    }

    fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    fn totals(&self) -> Totals {
        let all = self
            .server
            .state
            .registry
            .snapshot(0, SnapshotOrder::ById)
            .all;
        Totals {
            clients: all.clients,
            tunnels: all.tunnels,
            streams: all.streams,
            bytes_up: all.traffic.received,
            bytes_down: all.traffic.sent,
        }
    }

    fn summary(&self) -> Value {
        let state = &self.server.state;
        let listeners = self.server.listeners().describe();
        let listeners = listeners
            .iter()
            .map(|(name, addr)| json!({"option": name, "address": addr.to_string()}));
        json!({
            "uptime": clock::since(state.started).as_secs(),
            "listeners": listeners.collect::<Vec<_>>(),
            "totals": self.totals(),
            "fingerprint": state.settings.get().fingerprint.as_ref().map(ToString::to_string),
        })
    }

    fn answer(&self, route: Route, call: &Call) -> Answering {
        let state = self.server.state.clone();
        match route {
            Route::Clients => match ListOptions::of(call) {
                Ok(options) => Box::pin(async move {
                    let body = blocking(move || list(&state, &options)).await;
                    Answer::json(200, &body)
                }),
                Err(why) => ready(Answer::error(400, why)),
            },
            Route::Client => {
                let id = call.argument().to_owned();
                Box::pin(async move {
                    match blocking(move || detail(&state, &id)).await {
                        Some(body) => Answer::json(200, &body),
                        None => Answer::error(404, "No such client is connected."),
                    }
                })
            }
            Route::CutVisitor => ready(self.cut(call)),
            Route::Lockouts => ready(self.lockouts()),
            Route::LiftLockout => ready(self.lift_lockout(call)),
            Route::Certificate => ready(self.certificate()),
            _ => ready(Answer::error(404, "A server has no such path.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth_lockout::AuthLockout;
    use crate::net::{Conn, Socket};
    use crate::server::registry::Login;
    use crate::server::settings::Settings;
    use crate::tunnel::{PeerRole, Policy, Tunnel};
    use crate::wire::hello::ServiceSpec;
    use crate::wire::Version;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    const CLIENTS: usize = 10_000;

    fn state() -> Arc<ServerState> {
        let lockout = AuthLockout::new(0, Duration::ZERO);
        let state = ServerState::new(Settings::without_users(), Arc::default(), lockout);
        let state = Arc::new(state.unwrap());
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = target.local_addr().unwrap();
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        let conn = Conn::from(Socket::new(socket, false).unwrap());
        let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
        let (tunnel, _inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        let limits = Limits::of_one_prefix();
        for n in 0..CLIENTS {
            let spec = ServiceSpec::Host {
                tls: false,
                prefix: None,
            };
            let id = format!("id{n:05}");
            let settings = state.settings.get();
            let login = Login::of_user(&id, &limits, &settings);
            assert!(state
                .registry
                .register(&login, vec![Some(spec)], &tunnel)
                .is_ok());
        }
        state
    }

    fn options(search: &str, sort: fn(&ClientStats, &ClientStats) -> Ordering) -> ListOptions {
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
        let state = state();
        let by_id: fn(&ClientStats, &ClientStats) -> Ordering = |a, b| a.id.cmp(&b.id);
        let listed = list(&state, &options("", by_id));
        assert_eq!(
            (&listed["all"], &listed["found"]),
            (&json!(CLIENTS), &json!(CLIENTS))
        );
        assert_eq!(listed["clients"][0]["id"], "id09999");
        assert_eq!(listed["clients"][49]["prefixes"], json!(["id09950"]));
        let found = list(&state, &options("d0123", by_id));
        assert_eq!(found["found"], 10);
        let detail = detail(&state, "id00007").unwrap();
        assert_eq!(detail["client"]["prefixes"], json!(["id00007"]));
        assert!(super::detail(&state, "none").is_none());
    }

    /// Prints the time of the thread: `cargo test --release --lib -- --ignored --nocapture time_of_the_thread`.
    #[test]
    #[ignore]
    fn time_of_the_thread_for_ten_thousand_clients() {
        let state = state();
        let by_bytes: fn(&ClientStats, &ClientStats) -> Ordering =
            |a, b| a.totals.traffic.bytes().cmp(&b.totals.traffic.bytes());
        for search in ["", "d0123", "no such client"] {
            let now = || {
                let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                stat.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000
            };
            let begun = now();
            list(&state, &options(search, by_bytes));
            println!("{search:?}: {} us", now() - begun);
        }
    }
}
