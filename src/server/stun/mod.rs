//! The STUN server: tells clients from which address their datagrams arrive, so that peers behind NAT
//! can connect. UDP only, because they need the address of their UDP socket. A second socket, at the next port, lets them
//! find out whether their NAT uses another port for each destination (docs/p2p.md, "Hard NATs").

pub(crate) mod answer;
mod limit;

use super::counters::StunOutcome;
use super::listeners;
use super::state::ServerState;
use crate::config::{self, ListenAddr};
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::{clock, Datagrams, Shutdown};
use futures_lite::future;
use limit::StunLimit;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Number of datagrams that are handled before other tasks on this thread run.
const TURN: u32 = 32;

/// The STUN sockets of a server: none, that of the configuration, or that and the one at the next port.
#[derive(Default)]
pub struct Stun(Vec<OpenStunSocket>);

/// The STUN sockets that a configuration asks for.
pub struct StunPlan(Vec<OpenStunSocket>);

#[derive(Clone)]
struct OpenStunSocket {
    socket: Arc<Datagrams>,
    /// Stops the answering task.
    stop: Shutdown,
    /// The address as configured.
    addr: ListenAddr,
}

impl StunPlan {
    /// Keeps the current (`now`) or inherited socket if its address is the configured one, otherwise
    /// opens one. The error says which address cannot be used and why.
    pub fn new(
        config: &config::ServerConfig,
        file: &Option<PathBuf>,
        now: Option<&Stun>,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let Some(addr) = &config.stun_addr else {
            return Ok(Self(Vec::new()));
        };
        let mut open = |addr: &ListenAddr| -> io::Result<OpenStunSocket> {
            let mut open = now.iter().flat_map(|stun| &stun.0);
            if let Some(open) = open.find(|open| open.addr == *addr) {
                return Ok(open.clone());
            }
            let socket = match inherited.stun(file, addr) {
                Some(socket) => socket,
                None => Datagrams::bind(addr.host.as_deref(), addr.port)?,
            };
            Ok(OpenStunSocket {
                socket: Arc::new(socket),
                stop: Shutdown::default(),
                addr: addr.clone(),
            })
        };
        let main = open(addr).map_err(|e| listeners::listen_error("stunAddr", addr, &e))?;
        let mut sockets = vec![main];
        if let Some(next) = next_port(addr) {
            match open(&next) {
                Ok(socket) => sockets.push(socket),
                Err(e) => log::info!(
                    "STUN: UDP {next} cannot be used: {e}; clients behind a hard NAT cannot find out its kind"
                ),
            }
        }
        Ok(Self(sockets))
    }
}

impl Stun {
    /// Applies a plan: opens the planned socket and closes any other.
    pub fn change(&mut self, plan: StunPlan, state: &Arc<ServerState>) {
        let before = std::mem::replace(&mut self.0, plan.0);
        let is_in = |all: &[OpenStunSocket], one: &OpenStunSocket| {
            all.iter().any(|other| other.stop.is(&one.stop))
        };
        for (index, open) in self.0.iter().enumerate() {
            if is_in(&before, open) {
                continue;
            }
            if index == 0 {
                log::info!("Listening stunAddr={}", open.addr);
            }
            log::info!("answering STUN started addr={}", open.socket.addr());
            crate::net::spawn(serve(state.clone(), open.clone()));
        }
        for open in before.iter().filter(|open| !is_in(&self.0, open)) {
            open.stop.trigger();
            log::info!("answering STUN ended addr={}", open.socket.addr());
        }
    }

    /// Returns the sockets to hand over to the child process.
    pub fn share(&self) -> Vec<Outgoing> {
        let share = |open: &OpenStunSocket| -> Outgoing {
            let addr = open.addr.to_string();
            (Item::Stun { addr }, Some(open.socket.clone()))
        };
        self.0.iter().map(share).collect()
    }
}

/// Returns the address with the next port, unless the system chooses the first one.
fn next_port(addr: &ListenAddr) -> Option<ListenAddr> {
    let port = addr.port.checked_add(1).filter(|_| addr.port != 0)?;
    let host = addr.host.clone();
    Some(ListenAddr { host, port })
}

async fn serve(state: Arc<ServerState>, open: OpenStunSocket) {
    let answering = async {
        let mut limit = StunLimit::new(clock::now());
        loop {
            for _ in 0..TURN {
                let datagram = answer_one(&open.socket, &mut limit).await;
                state.counters.datagram(datagram);
            }
            future::yield_now().await;
        }
    };
    state.stop.or(open.stop.or::<()>(answering)).await;
}

/// Answers the next datagram, unless it must be ignored. Returns the outcome.
async fn answer_one(socket: &Datagrams, limit: &mut StunLimit) -> StunOutcome {
    let handle = |bytes: &[u8], from: SocketAddr| (answer_to(bytes, from, limit), from);
    let ((answer, from), path) = socket.receive(handle).await;
    let (bytes, datagram) = match answer {
        Ok((bytes, datagram)) => (bytes, datagram),
        Err(datagram) => return datagram,
    };
    match socket.answer(&bytes, &path) {
        true => datagram,
        false => {
            log::debug!("STUN: the answer to {from} could not be sent");
            StunOutcome::Unsent
        }
    }
}

/// Returns the answer to a datagram, or the outcome if there is none.
fn answer_to(
    bytes: &[u8],
    from: SocketAddr,
    limit: &mut StunLimit,
) -> Result<(Vec<u8>, StunOutcome), StunOutcome> {
    let ignored = |why| {
        log::debug!("STUN: no answer to {from}: {why}");
        StunOutcome::Ignored
    };
    answer::could_be_request(bytes).map_err(ignored)?;
    if !limit.allows(from.ip(), clock::now()) {
        return Err(StunOutcome::Limited);
    }
    let answer = answer::to(bytes, from).map_err(ignored)?;
    let datagram = if answer.is_error {
        StunOutcome::Refused
    } else {
        StunOutcome::Answered
    };
    Ok((answer.bytes, datagram))
}
