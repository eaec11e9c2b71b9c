//! What a server listens on: which sockets are open for which options, and how that changes
//! while it runs.

use super::visitor::ListenerKind;
use crate::config::{self, ListenAddr};
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::{self, Listener, Shutdown};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Visitors(ListenerKind),
    Api,
}

/// A listener with what accepts on it.
pub struct OpenListener {
    pub purpose: Purpose,
    pub listener: Arc<Listener>,
    /// Ends what accepts on it, and with it the listener, unless others have it too.
    pub stop: Shutdown,
    /// As the configuration has it.
    addr: ListenAddr,
}

/// A listener to be.
pub struct PlannedListener {
    open: OpenListener,
    /// It is open already, for the same purpose.
    kept: bool,
    /// What the log calls it.
    name: &'static str,
}

/// In the order of their options; visitors' first.
#[derive(Default)]
pub struct Listeners(Vec<OpenListener>);

/// Opens what the configuration wants and neither `now` has nor the `legacy`. The error says
/// which one failed and why; then none that is new is left open.
pub fn plan(
    config: &config::ServerConfig,
    file: &Option<PathBuf>,
    now: Option<&Listeners>,
    legacy: &mut Inherited,
) -> io::Result<Vec<PlannedListener>> {
    let api = config.api.as_ref().map(|api| &api.addr);
    let visitors = Purpose::Visitors;
    let wanted = [
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
    for (addr, purpose, key, name) in wanted {
        let Some(addr) = addr else {
            continue;
        };
        // Without a port, any socket that it was given before will do, and its own is best.
        let had = |open: &&OpenListener| {
            open.addr == *addr
                && !planned
                    .iter()
                    .any(|p| Arc::ptr_eq(&p.open.listener, &open.listener))
        };
        let mut all = now.iter().flat_map(|now| &now.0);
        let same = all
            .clone()
            .find(|open| open.purpose == purpose && had(open));
        let (listener, stop) = match same.or_else(|| all.find(had)) {
            Some(open) if open.purpose == purpose => (open.listener.clone(), open.stop.clone()),
            Some(open) => (open.listener.clone(), Shutdown::default()),
            None => {
                let listener = match legacy.listener(file, addr) {
                    Some(listener) => listener,
                    None => listen(key, addr)?,
                };
                (Arc::new(listener), Shutdown::default())
            }
        };
        planned.push(PlannedListener {
            kept: same.is_some(),
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

/// Listens on what the option `key` says.
fn listen(key: &str, addr: &ListenAddr) -> io::Result<Listener> {
    net::listen(addr.host.as_deref(), addr.port).map_err(|e| cannot(key, addr, &e))
}

/// Why nothing listens on what the option `key` says.
pub fn cannot(key: &str, addr: &ListenAddr, e: &io::Error) -> io::Error {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => {
            " (is another program there? If it is this one, under another address of the \
             same port, only a stop and a start can change that)"
        }
        io::ErrorKind::PermissionDenied => " (the port is below 1024: run it as root)",
        _ => "",
    };
    io::Error::new(e.kind(), format!("listening on {key} {addr}: {e}{hint}"))
}

impl Listeners {
    /// Brings the plan about: has `accept` accept where nothing does yet, and closes what is
    /// not in it. The API is set up anew each time, since all it knows may have changed.
    pub fn change(&mut self, plan: Vec<PlannedListener>, accept: impl Fn(&OpenListener, Front)) {
        let front = plan.first().map(|first| &first.open);
        let front = front.map(|open| (open.listener.addr(), open.purpose));
        let mut next = Vec::new();
        for mut planned in plan {
            if !planned.kept {
                log::info!("Listening {}={}", planned.name, planned.open.addr);
                log::info!("acceptLoop started addr={}", planned.open.listener.addr());
            } else if planned.open.purpose == Purpose::Api {
                planned.open.stop = Shutdown::default();
                planned.kept = false;
            }
            if let (false, Some((addr, Purpose::Visitors(door)))) = (planned.kept, front) {
                accept(&planned.open, (addr, door));
            }
            next.push(planned.open);
        }
        for before in std::mem::replace(&mut self.0, next) {
            let same = |open: &OpenListener| open.stop.is(&before.stop);
            if !self.0.iter().any(same) {
                before.stop.trigger();
                let goes_on = |open: &OpenListener| Arc::ptr_eq(&open.listener, &before.listener);
                if !self.0.iter().any(goes_on) {
                    log::info!("acceptLoop ended addr={}", before.listener.addr());
                }
            }
        }
    }

    /// For the process that takes this one's place.
    pub fn share(&self) -> Vec<Outgoing> {
        let share = |open: &OpenListener| -> Outgoing {
            let addr = open.addr.to_string();
            (Item::Listener { addr }, Some(open.listener.clone()))
        };
        self.0.iter().map(share).collect()
    }
}

/// The first listener for visitors: where it is bound, and who comes there.
pub type Front = (SocketAddr, ListenerKind);
