//! The public end: accepts tunnels and visitors on the same listeners, and brings each
//! visitor to the client that serves it.

mod answer;
mod client_hello;
mod http_head;
mod ports;
mod registry;
mod session;
mod speeds;
mod users;
mod visitor;

use crate::config::{self, ListenAddr, TlsVersion};
use crate::net::tls::{Acceptor, MinVersion};
use crate::net::{self, Listener, Stop};
use crate::wire::frame::Signal;
use futures_lite::future;
use registry::Registry;
use speeds::Speeds;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use users::Users;
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
    /// The header that routes.
    mux_header: String,
    /// Silence that ends a tunnel, or a visitor's connection.
    timeout: Option<Duration>,
    /// One direction without traffic is silence enough.
    unidirectional: bool,
    acceptor: Option<Acceptor>,
    stop: Stop,
}

impl Server {
    /// Opens every listener and serves. The error says which one failed and why; then none
    /// is left open.
    pub fn start(config: &config::Server) -> io::Result<Self> {
        let acceptor = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) if config.tls_addr.is_some() => {
                let min = match config.tls_min {
                    TlsVersion::Tls12 => MinVersion::Tls12,
                    TlsVersion::Tls13 => MinVersion::Tls13,
                };
                Some(Acceptor::new(cert, key, min)?)
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
                let listener = listen(addr).map_err(|e| {
                    let hint = "is another program there, or is the port below 1024?";
                    io::Error::new(e.kind(), format!("listening on {key} {addr}: {e} ({hint})"))
                })?;
                listeners.push((listener, door, format!("{line}={addr}")));
            }
        }
        let users = Users::new(&config.users, config.allow_any_client, &config.limits);
        let state = Arc::new(State {
            registry: Registry::default(),
            users: Arc::new(users),
            speeds: Speeds::default(),
            mux_header: config.http_mux_header.clone(),
            timeout: Some(config.timeout).filter(|timeout| !timeout.is_zero()),
            unidirectional: config.timeout_on_unidirectional_traffic,
            acceptor,
            stop: Stop::default(),
        });
        for (listener, door, line) in listeners {
            log::info!("{line}");
            log::info!("acceptLoop started addr={}", listener.addr());
            crate::spawn(accept(state.clone(), listener, door));
        }
        Ok(Self { state })
    }

    /// Accepts no more, lets what runs finish for as long as `patience`, and returns when it
    /// has, or then.
    pub async fn stop(&self, patience: Duration) {
        self.state.stop.say();
        let deadline = Instant::now() + patience;
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
        future::or(drained, async {
            async_io::Timer::at(deadline).await;
        })
        .await;
    }

    /// Tells every client to open replacements for its tunnels: this server is about to go
    /// away (WIRE.md, "Life of a tunnel", 8).
    pub fn ask_to_reconnect(&self) {
        for tunnel in self.state.registry.tunnels() {
            tunnel.signal(Signal::Reconnect);
        }
    }
}

fn listen(addr: &ListenAddr) -> io::Result<Listener> {
    net::listen(addr.host.as_deref(), addr.port)
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
