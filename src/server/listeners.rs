//! The listeners of a server: which sockets are open for which options, and how a reload changes
//! them. Not the accepting of connections.

use super::incoming::ListenerKind;
use crate::config::{self, ListenAddr};
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::{self, Listener, Shutdown};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The kind of connections that a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Visitors and tunnels.
    Visitors(ListenerKind),
    /// Requests to the API.
    Api,
}

/// An open listener with the tasks that accept on it.
pub struct OpenListener {
    /// The kind of connections that the listener accepts.
    pub purpose: Purpose,
    /// The socket.
    pub listener: Arc<Listener>,
    /// Stops the accepting tasks and so closes the listener, unless others share it.
    pub stop: Shutdown,
    /// The address as configured.
    addr: ListenAddr,
}

/// A listener of a configuration that is not applied yet: open, but not accepting.
pub struct PlannedListener {
    open: OpenListener,
    /// Whether the listener was open before for the same purpose.
    is_kept: bool,
    /// The option's name in log lines.
    name: &'static str,
}

/// The open listeners in the order of their options, the API last.
#[derive(Default)]
pub struct Listeners(Vec<OpenListener>);

/// Opens the listeners of a configuration, except for those that are open already (`now`) or were
/// inherited. If one fails, the new ones are closed and the error says which one and why.
pub fn plan(
    config: &config::ServerConfig,
    file: &Option<PathBuf>,
    now: Option<&Listeners>,
    inherited: &mut Inherited,
) -> io::Result<Vec<PlannedListener>> {
    let api = config.api.as_ref().map(|api| &api.addr);
    let visitors = Purpose::Visitors;
    let options = [
        (
            config.addr.as_ref(),
            visitors(ListenerKind::Http),
            "addr",
            "addr",
        ),
        (
            config.tls_addr.as_ref(),
            visitors(ListenerKind::Https),
            "tlsAddr",
            "TLS addr",
        ),
        (
            config.sni_addr.as_ref(),
            visitors(ListenerKind::Sni),
            "sniAddr",
            "sniAddr",
        ),
        (api, Purpose::Api, "apiAddr", "apiAddr"),
    ];
    let mut planned: Vec<PlannedListener> = Vec::new();
    for (addr, purpose, key, name) in options {
        let Some(addr) = addr else {
            continue;
        };
        // With port 0 any socket of this option will do; prefer the option's own.
        let had = |open: &&OpenListener| {
            open.addr == *addr
                && !planned
                    .iter()
                    .any(|p| p.open.listener.addr() == open.listener.addr())
        };
        let mut all = now.iter().flat_map(|now| &now.0);
        let same = all
            .clone()
            .find(|open| open.purpose == purpose && had(open));
        let (listener, stop) = match same.or_else(|| all.find(had)) {
            Some(open) if open.purpose == purpose => (open.listener.clone(), open.stop.clone()),
            Some(open) => {
                // Other threads may accept for another purpose.
                let again = open.listener.again();
                let again = again.map_err(|e| listen_error(key, addr, &e))?;
                (Arc::new(again), Shutdown::default())
            }
            None => {
                let listener = match inherited.listener(file, addr) {
                    Some(listener) => listener,
                    None => listen(key, addr)?,
                };
                (Arc::new(listener), Shutdown::default())
            }
        };
        planned.push(PlannedListener {
            is_kept: same.is_some(),
            open: OpenListener {
                purpose,
                listener,
                stop,
                addr: addr.clone(),
            },
            name,
        });
    }
    Ok(planned)
}

/// Opens the listener of the option `key`.
fn listen(key: &str, addr: &ListenAddr) -> io::Result<Listener> {
    net::listen(addr.host.as_deref(), addr.port).map_err(|e| listen_error(key, addr, &e))
}

/// Returns the error for a failure to listen at the address of the option `key`.
pub fn listen_error(key: &str, addr: &ListenAddr, e: &io::Error) -> io::Error {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program listens there; if it is gt itself under another address with the \
             same port, stop and start it)"
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        _ => "",
    };
    io::Error::new(e.kind(), format!("listening on {key} {addr}: {e}{hint}"))
}

impl Listeners {
    /// Applies a plan: calls `accept` for new listeners and closes those that are not in it. The
    /// API restarts on every reload because all its settings may have changed. `bbr` sets whether new
    /// connections of visitors and tunnels use the congestion control BBR, which accepted ones have from
    /// their listener.
    pub fn change(
        &mut self,
        plan: Vec<PlannedListener>,
        bbr: bool,
        accept: impl Fn(&OpenListener, Front),
    ) {
        let front = plan.first().map(|first| &first.open);
        let front = front.map(|open| (open.listener.addr(), open.purpose));
        let mut next = Vec::new();
        for mut planned in plan {
            // Before the first one is accepted.
            if planned.open.purpose != Purpose::Api {
                net::set_bbr(&*planned.open.listener, bbr);
            }
            if !planned.is_kept {
                log::info!("Listening {}={}", planned.name, planned.open.addr);
                log::info!("acceptLoop started addr={}", planned.open.listener.addr());
            } else if planned.open.purpose == Purpose::Api {
                planned.open.stop = Shutdown::default();
                planned.is_kept = false;
            }
            if let (false, Some((addr, Purpose::Visitors(kind)))) = (planned.is_kept, front) {
                accept(&planned.open, (addr, kind));
            }
            next.push(planned.open);
        }
        for before in std::mem::replace(&mut self.0, next) {
            let same = |open: &OpenListener| open.stop.is(&before.stop);
            if !self.0.iter().any(same) {
                before.stop.trigger();
                let goes_on = |open: &OpenListener| open.listener.addr() == before.listener.addr();
                if !self.0.iter().any(goes_on) {
                    log::info!("acceptLoop ended addr={}", before.listener.addr());
                }
            }
        }
    }

    /// Returns the options and addresses of the listeners.
    #[cfg(feature = "web")]
    pub fn describe(&self) -> Vec<(&'static str, SocketAddr)> {
        let name = |purpose| match purpose {
            Purpose::Visitors(ListenerKind::Http) => "addr",
            Purpose::Visitors(ListenerKind::Https) => "tlsAddr",
            Purpose::Visitors(ListenerKind::Sni) => "sniAddr",
            Purpose::Visitors(ListenerKind::Quic) => "quicAddr",
            Purpose::Api => "apiAddr",
        };
        let describe = |open: &OpenListener| (name(open.purpose), open.listener.addr());
        self.0.iter().map(describe).collect()
    }

    /// Returns the sockets to hand over to the child process.
    pub fn share(&self) -> Vec<Outgoing> {
        let share = |open: &OpenListener| -> Outgoing {
            let addr = open.addr.to_string();
            (Item::Listener { addr }, Some(open.listener.clone()))
        };
        self.0.iter().map(share).collect()
    }
}

/// The address and kind of the first listener for visitors.
pub type Front = (SocketAddr, ListenerKind);
