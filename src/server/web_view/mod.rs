//! The server as the web page and its API see it. Not its users: those are in the files of the configuration.

mod list;

use super::acme::CertificateStatus;
use super::live_visitors::LiveVisitor;
use super::registry::SnapshotOrder;
use super::state::ServerState;
use super::Server;
use crate::config::{Limits, PortLimits, RoleName};
use crate::net::{blocking, clock};
use crate::web::answer::Answer;
use crate::web::api::{lockouts, Call, Route};
use crate::web::history::Totals;
use crate::web::role::{ready, Answering, RoleView};
use list::{list, ListOptions, Rates, WebClient};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Maximum number of certificates in an answer.
const MAX_CERTIFICATES: usize = 500;
/// Maximum number of visitors in an answer.
const MAX_VISITORS: usize = 500;

/// A server, and where it was configured.
pub struct ServerView {
    server: Arc<Server>,
    source: Option<PathBuf>,
    rates: Arc<Rates>,
}

/// Describes one client. Blocks like [`list()`].
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
            "lossPerMille": tunnel.loss_per_mille(),
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
        Self {
            server,
            source,
            rates: Arc::default(),
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
        let state = &self.server.state;
        let settings = state.settings.get();
        let file = settings.cert_file.as_ref().map(|it| it.to_string_lossy());
        let fingerprint = settings.fingerprint.as_ref().map(ToString::to_string);
        let now = clock::time_of_day().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
        let (names, more) = certificates(state.acme.certificates(), now);
        Answer::json(
            200,
            &json!({"certFile": file, "fingerprint": fingerprint, "names": names, "more": more}),
        )
    }
}

/// Describes the certificates of clients' names, first those that fail, then those that end first. Returns also how
/// many are left out.
fn certificates(mut all: Vec<(Box<str>, CertificateStatus)>, now: i64) -> (Vec<Value>, usize) {
    all.sort_by_key(|(_, it)| (it.error.is_none(), it.expires));
    let more = all.len().saturating_sub(MAX_CERTIFICATES);
    let describe = |(name, it): (Box<str>, CertificateStatus)| {
        let state = match it.expires {
            None => "missing",
            Some(expires) if expires <= now => "expired",
            Some(_) => "valid",
        };
        json!({"name": name, "state": state, "expires": it.expires, "error": it.error})
    };
    (
        all.into_iter()
            .take(MAX_CERTIFICATES)
            .map(describe)
            .collect(),
        more,
    )
}

impl RoleView for ServerView {
    fn name(&self) -> RoleName {
        RoleName::Server
    }

    fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    fn totals(&self) -> Totals {
        self.rates.tidy(clock::now());
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
                Ok(options) => {
                    let rates = self.rates.clone();
                    Box::pin(async move {
                        let body = blocking(move || list(&state.registry, &options, &rates)).await;
                        Answer::json(200, &body)
                    })
                }
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
            Route::Lockouts => ready(lockouts::list(&state.auth_lockout)),
            Route::LiftLockout => ready(lockouts::lift(&state.auth_lockout, call, "")),
            Route::Certificate => ready(self.certificate()),
            _ => ready(Answer::error(404, "A server has no such path.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::crowd::crowd;

    #[test]
    fn a_client_is_described_by_its_id() {
        let (state, _tunnel) = crowd(10);
        let detail = |id| detail(&state, id);
        assert_eq!(
            detail("id00007").unwrap()["client"]["prefixes"],
            json!(["id00007"])
        );
        assert!(detail("none").is_none());
    }

    #[test]
    fn certificates_that_fail_come_first_and_then_those_that_end_first() {
        let of = |name: &str, expires, error: Option<&str>| {
            let error = error.map(str::to_owned);
            (name.into(), CertificateStatus { expires, error })
        };
        let all = vec![
            of("late.example", Some(300), None),
            of("soon.example", Some(200), None),
            of("none.example", None, Some("the authority does not answer")),
            of("old.example", Some(100), Some("the authority has refused")),
        ];
        let (names, more) = certificates(all, 100);
        let told: Vec<_> = names
            .iter()
            .map(|it| (it["name"].as_str().unwrap(), it["state"].as_str().unwrap()))
            .collect();
        let expected = [
            ("none.example", "missing"),
            ("old.example", "expired"),
            ("soon.example", "valid"),
            ("late.example", "valid"),
        ];
        assert_eq!((told.as_slice(), more), (&expected[..], 0));
        assert_eq!(names[0]["error"], "the authority does not answer");
        let many = (0..600).map(|n| of(&format!("{n}.example"), Some(n), None));
        let (names, more) = certificates(many.collect(), 0);
        assert_eq!((names.len(), more), (500, 100));
    }
}
