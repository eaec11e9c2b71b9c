//! The client as the web page and its API see it. Not its file: that is read and changed by the page.

use super::local_address::LocalAddress;
use super::pool::PoolStatus;
use super::services::{Service, ServiceTarget};
use super::Client;
use crate::config::label::ascii;
use crate::config::{Exposure, Remote, Transport};
use crate::config::{Local, RoleName};
use crate::net::{blocking, clock, timeout};
use crate::web::answer::Answer;
use crate::web::api::{Call, Route};
use crate::web::history::Totals;
use crate::web::role::{ready, Answering, RoleView};
use serde_json::{json, Value};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Time that a local service has to answer a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A client, and where it was configured.
pub struct ClientView {
    client: Client,
    source: Option<PathBuf>,
}

impl ClientView {
    /// Shows a client.
    pub fn new(client: Client, source: Option<PathBuf>) -> Self {
        Self { client, source }
    }

    fn pools(&self) -> Vec<PoolStatus> {
        self.client.pools.iter().map(|pool| pool.status()).collect()
    }

    /// Describes the services that run, with where they are probably published.
    fn services(&self, pools: &[PoolStatus]) -> Vec<Value> {
        let services = self.client.context.services();
        let remotes: Vec<&Remote> = pools.iter().filter_map(|pool| pool.current()).collect();
        let describe = |service: &Service| {
            let links = remotes.iter().filter_map(|it| self.link(service, it));
            let health = service.health.as_ref();
            json!({
                "local": service.config.local.to_string(),
                "exposure": exposure(&service.config.exposure, &self.client.context.id),
                "links": links.collect::<Vec<_>>(),
                "isUp": health.map(|health| !health.is_down()),
            })
        };
        services.all().map(describe).collect()
    }

    /// Returns the address of a service for visitors, as far as it can be known here: the server may have
    /// other names, or a proxy before it.
    fn link(&self, service: &Service, remote: &Remote) -> Option<String> {
        let is_encrypted = matches!(
            remote.transport,
            Transport::Tls | Transport::Wss | Transport::Quic
        );
        let (scheme, usual) = if is_encrypted {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let port = match remote.transport {
            // Its port is not for visitors.
            Transport::Quic => usual,
            _ => remote.port,
        };
        let is_ip = remote.host.parse::<IpAddr>();
        let host = match is_ip {
            Ok(ip) if ip.is_loopback() => "localhost",
            _ => remote.host.as_str(),
        };
        let with_port = |name: &str| match port == usual {
            true => format!("{scheme}://{name}/"),
            false => format!("{scheme}://{name}:{port}/"),
        };
        if matches!(service.config.local, Local::Proxy(_)) {
            return None;
        }
        match &service.config.exposure {
            Exposure::Host { tls: false, prefix } => {
                let id = ascii(&self.client.context.id);
                let prefix = prefix.as_deref().unwrap_or(&id);
                let has_names = host == "localhost" || is_ip.is_err();
                has_names.then(|| with_port(&format!("{prefix}.{host}")))
            }
            Exposure::Host { tls: true, .. } => None,
            Exposure::Domains { tls, domains, .. } => {
                let domain = domains
                    .iter()
                    .map(|it| it.as_str())
                    .find(|it| !it.contains('*'))?;
                Some(match tls {
                    true => format!("https://{domain}/"),
                    false => with_port(domain),
                })
            }
            Exposure::Private { .. } => None,
            Exposure::Tcp { port, .. } | Exposure::Udp { port, .. } => {
                (*port != 0).then(|| format!("{}:{port}", remote.host))
            }
        }
    }

    fn state(&self) -> Value {
        let pools = self.pools();
        json!({
            "id": self.client.context.id,
            "servers": pools.iter().map(PoolStatus::describe).collect::<Vec<_>>(),
            "services": self.services(&pools),
            "peers": self.client.p2p.describe(),
            "forwards": super::forward::describe(&self.client.p2p),
            "totals": self.totals(),
        })
    }

    fn bans(&self) -> Answer {
        let bans = self.client.context.visitor_rules.bans().list();
        let bans = bans.iter().map(|ban| {
            json!({
                "address": ban.network.to_string(),
                "service": exposure(&ban.service.exposure, &self.client.context.id),
                "seconds": ban.left.as_secs().saturating_add(1),
            })
        });
        Answer::json(200, &json!({"bans": bans.collect::<Vec<_>>()}))
    }

    fn lift_ban(&self, call: &Call) -> Answer {
        let address = match call.argument() {
            "all" => None,
            text => match text.parse::<IpAddr>() {
                Ok(address) => Some(address),
                Err(_) => return Answer::error(400, "The address is an IP address, or all."),
            },
        };
        let count = self.client.context.visitor_rules.bans().lift(address);
        if count == 0 {
            return Answer::error(404, "This address is not banned.");
        }
        call.log(format_args!("lifted {count} bans of {}", call.argument()));
        Answer::json(200, &json!({"ok": true, "lifted": count}))
    }

    /// Tests whether the local side of a service answers.
    fn test(&self, call: &Call) -> Answering {
        let number = call.argument().parse::<usize>().ok();
        let services = self.client.context.services();
        let service = number.and_then(|at| services.all().nth(at).cloned());
        let Some(service) = service else {
            return ready(Answer::error(404, "No service with this number runs."));
        };
        Box::pin(async move {
            let failed = test_service(&service).await.err();
            let body = json!({"ok": failed.is_none(), "local": service.config.local.to_string(), "error": failed});
            Answer::json(200, &body)
        })
    }
}

async fn test_service(service: &Service) -> Result<(), String> {
    match (&service.target, &service.config.local) {
        (ServiceTarget::Files(_), Local::Files(path)) => {
            let path = path.clone();
            let read = blocking(move || std::fs::read_dir(&path).map(drop));
            read.await
                .map_err(|e| format!("The directory cannot be read: {e}."))
        }
        (ServiceTarget::Server(address), local) => {
            if LocalAddress::of(local).is_some_and(|it| it.udp().is_some()) {
                return Err("A service that takes datagrams cannot be tested.".to_owned());
            }
            match timeout(TEST_TIMEOUT, address.connect(TEST_TIMEOUT)).await {
                Some(Ok(_)) => Ok(()),
                Some(Err(e)) => Err(format!("Connecting to {local}: {e}.")),
                None => Err(format!("{local} does not answer within {TEST_TIMEOUT:?}.")),
            }
        }
        // gt is the service itself.
        _ => Ok(()),
    }
}

/// Describes how visitors reach a service.
fn exposure(exposure: &Exposure, id: &str) -> Value {
    let named = |tls: bool, names: Vec<&str>| json!({"kind": if tls { "tls" } else { "http" }, "names": names});
    match exposure {
        Exposure::Host { tls, prefix } => named(*tls, vec![prefix.as_deref().unwrap_or(id)]),
        Exposure::Domains {
            tls,
            prefix,
            domains,
        } => {
            let domains = domains.iter().map(|it| it.as_str());
            named(*tls, prefix.as_deref().into_iter().chain(domains).collect())
        }
        Exposure::Tcp { port, random } => json!({"kind": "tcp", "port": port, "random": random}),
        Exposure::Udp { port, random } => json!({"kind": "udp", "port": port, "random": random}),
        // To clients with its key, which is not shown.
        Exposure::Private { .. } => json!({"kind": "private"}),
    }
}

/// Returns a time as Unix time in seconds.
fn began(at: Instant) -> u64 {
    let now = clock::time_of_day().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
        .saturating_sub(clock::since(at))
        .as_secs()
}

impl PoolStatus {
    /// Returns the server of the first tunnel, or else the one that was connected to last.
    fn current(&self) -> Option<&Remote> {
        let first = self.tunnels.first().map(|tunnel| &tunnel.remote);
        first.or(self.remote.as_ref())
    }

    fn describe(&self) -> Value {
        let tunnels = self.tunnels.iter().map(|it| {
            let traffic = it.tunnel.traffic();
            json!({
                "number": it.id,
                "remote": it.remote.to_string(),
                "way": it.remote.transport.scheme(),
                "link": it.link.to_string().trim(),
                "version": it.tunnel.version().name(),
                "since": began(it.begun),
                "rtt": it.tunnel.round_trip().map(|time| time.as_secs_f64() * 1e3),
                "lossPerMille": it.tunnel.loss_per_mille(),
                "streams": it.tunnel.streams(),
                "bytesUp": traffic.sent,
                "bytesDown": traffic.received,
            })
        });
        json!({
            "server": self.source,
            "isConnected": self.tunnels.iter().any(|it| it.tunnel.is_open()),
            "tunnels": tunnels.collect::<Vec<_>>(),
            "error": self.failure,
        })
    }
}

impl RoleView for ClientView {
    fn name(&self) -> RoleName {
        RoleName::Client
    }

    fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for pool in self.pools() {
            let past = pool.past;
            totals.bytes_up = totals.bytes_up.saturating_add(past.sent);
            totals.bytes_down = totals.bytes_down.saturating_add(past.received);
            for tunnel in &pool.tunnels {
                let traffic = tunnel.tunnel.traffic();
                totals.tunnels = totals.tunnels.saturating_add(1);
                totals.streams = totals.streams.saturating_add(tunnel.tunnel.streams());
                totals.bytes_up = totals.bytes_up.saturating_add(traffic.sent);
                totals.bytes_down = totals.bytes_down.saturating_add(traffic.received);
            }
        }
        totals
    }

    fn summary(&self) -> Value {
        self.state()
    }

    fn answer(&self, route: Route, call: &Call) -> Answering {
        match route {
            Route::ClientState => ready(Answer::json(200, &self.state())),
            Route::Bans => ready(self.bans()),
            Route::LiftBan => ready(self.lift_ban(call)),
            Route::TestService => self.test(call),
            _ => ready(Answer::error(404, "A client has no such path.")),
        }
    }
}
