//! The public end: accepts tunnels and visitors on the same listeners, and brings each
//! visitor to the client that serves it.

mod answer;
mod api;
mod auth;
mod client_hello;
mod counters;
mod guard;
mod guest;
mod http_head;
mod ports;
mod registry;
mod session;
mod speeds;
mod users;
mod visitor;

use crate::config::{self, ListenAddr, TlsVersion};
use crate::net::tls::{Acceptor, MinVersion};
use crate::net::{self, within, Listener, Stop};
use crate::wire::frame::Signal;
use api::Api;
use auth::AuthApi;
use counters::Counters;
use guard::Guard;
use guest::Guest;
use registry::Registry;
use speeds::Speeds;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use users::{Strangers, Users};
use visitor::Door;

/// A running server.
pub struct Server {
    state: Arc<State>,
}

/// What every connection of a server needs.
struct State {
    registry: Registry,
    users: Arc<Users>,
    speeds: Speeds,
    guard: Guard,
    guest: Guest,
    counters: Counters,
    started: Instant,
    /// The header that routes.
    mux_header: String,
    /// Silence that ends a tunnel, or a visitor's connection.
    timeout: Option<Duration>,
    /// One direction without traffic is silence enough.
    unidirectional: bool,
    acceptor: Option<Acceptor>,
    stop: Stop,
}

impl State {
    fn new(config: &config::Server, acceptor: Option<Acceptor>) -> io::Result<Self> {
        let strangers = match &config.auth_api {
            Some(url) => Strangers::AskedAbout(Arc::new(AuthApi::new(url)?)),
            None if config.allow_any_client => Strangers::Welcome,
            None => Strangers::Refused,
        };
        let users = Users::new(&config.users, strangers, &config.limits);
        Ok(Self {
            registry: Registry::default(),
            users: Arc::new(users),
            speeds: Speeds::default(),
            guard: Guard::new(config.reconnect_times, config.reconnect_duration),
            guest: Guest::new()?,
            counters: Counters::default(),
            started: Instant::now(),
            mux_header: config.http_mux_header.clone(),
            timeout: Some(config.timeout).filter(|timeout| !timeout.is_zero()),
            unidirectional: config.timeout_on_unidirectional_traffic,
            acceptor,
            stop: Stop::default(),
        })
    }
}

impl Server {
    /// Opens every listener and serves. The error says which one failed and why; then none
    /// is left open.
    pub fn start(config: &config::Server) -> io::Result<Self> {
        let acceptor = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) if config.tls_addr.is_some() => {
                Some(Acceptor::new(cert, key, min_version(config.tls_min))?)
            }
            _ => None,
        };
        let doors = [
            (&config.addr, Door::Http, "addr", "Listening addr"),
            (
                &config.tls_addr,
                Door::Https,
                "tlsAddr",
                "Listening TLS addr",
            ),
            (&config.sni_addr, Door::Sni, "sniAddr", "Listening sniAddr"),
        ];
        let mut listeners = Vec::new();
        for (addr, door, key, line) in doors {
            if let Some(addr) = addr {
                let listener = listen(key, addr)?;
                listeners.push((listener, door, format!("{line}={addr}")));
            }
        }
        let api = match &config.api {
            Some(api) => {
                let files = api.tls.as_ref();
                let min = min_version(api.tls_min);
                let acceptor = files.map(|(cert, key)| Acceptor::new(cert, key, min));
                Some((
                    listen("apiAddr", &api.addr)?,
                    acceptor.transpose()?,
                    &api.addr,
                ))
            }
            None => None,
        };
        let state = Arc::new(State::new(config, acceptor)?);
        let front = listeners.first();
        let front = front.map(|(listener, door, _)| (listener.addr(), *door));
        let api = match (api, front) {
            (Some((listener, acceptor, addr)), Some(front)) => {
                let api = Api::new(state.clone(), acceptor, front)?;
                Some((listener, api, addr))
            }
            _ => None,
        };
        for (listener, door, line) in listeners {
            log::info!("{line}");
            log::info!("acceptLoop started addr={}", listener.addr());
            crate::spawn(accept(state.clone(), listener, door));
        }
        if let Some((listener, api, addr)) = api {
            log::info!("Listening apiAddr={addr}");
            log::info!("acceptLoop started addr={}", listener.addr());
            crate::spawn(api.accept(listener));
        }
        Ok(Self { state })
    }

    /// Accepts no more, lets what runs finish for as long as `patience`, and returns when it
    /// has, or then.
    pub async fn stop(&self, patience: Duration) {
        self.state.stop.say();
        for tunnel in self.state.registry.tunnels() {
            tunnel.close();
        }
        let drained = async {
            loop {
                let departure = self.state.registry.departure();
                if self.state.registry.tunnels().is_empty() {
                    return;
                }
                departure.await;
            }
        };
        within(patience, drained).await;
    }

    /// Tells every client to open replacements for its tunnels: this server is about to go
    /// away (WIRE.md, "Life of a tunnel", 8).
    pub fn ask_to_reconnect(&self) {
        for tunnel in self.state.registry.tunnels() {
            tunnel.signal(Signal::Reconnect);
        }
    }
}

/// Listens on what the option `key` says.
fn listen(key: &str, addr: &ListenAddr) -> io::Result<Listener> {
    net::listen(addr.host.as_deref(), addr.port).map_err(|e| {
        let hint = "is another program there, or is the port below 1024?";
        io::Error::new(e.kind(), format!("listening on {key} {addr}: {e} ({hint})"))
    })
}

fn min_version(min: TlsVersion) -> MinVersion {
    match min {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    }
}

async fn accept(state: Arc<State>, listener: Listener, door: Door) {
    let accepting = async {
        loop {
            let (socket, peer) = listener.accept().await;
            crate::spawn(visitor::greet(state.clone(), socket, peer, door));
        }
    };
    state.stop.or::<()>(accepting).await;
}
