//! The STUN server: tells who asks which address a datagram of theirs came from, so that peers
//! behind NAT can find each other. Over UDP alone, for that is what they ask about.

pub(crate) mod answer;
mod limit;

use super::counters::Datagram;
use super::{listeners, State};
use crate::config::{self, ListenAddr};
use crate::handover::{Given, Legacy, Piece};
use crate::net::{Datagrams, Stop};
use futures_lite::future;
use limit::Limit;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Datagrams that may be looked at before others have their turn on this thread.
const TURN: u32 = 32;

/// A server's socket for STUN, if it has one.
#[derive(Default)]
pub struct Stun(Option<Open>);

/// The socket to be.
pub struct Plan(Option<Open>);

#[derive(Clone)]
struct Open {
    socket: Arc<Datagrams>,
    /// Ends what answers on it.
    stop: Stop,
    /// As the configuration has it.
    addr: ListenAddr,
}

impl Plan {
    /// Keeps the socket that there is `now` or that is left, if it is at the right place, and opens
    /// one otherwise. The error says where it cannot be, and why.
    pub fn new(
        config: &config::Server,
        file: &Option<PathBuf>,
        now: Option<&Stun>,
        legacy: &mut Legacy,
    ) -> io::Result<Self> {
        let Some(addr) = &config.stun_addr else {
            return Ok(Self(None));
        };
        let now = now.and_then(|stun| stun.0.as_ref());
        if let Some(open) = now.filter(|open| open.addr == *addr) {
            return Ok(Self(Some(open.clone())));
        }
        let socket = match legacy.stun(file, addr) {
            Some(socket) => socket,
            None => Datagrams::bind(addr.host.as_deref(), addr.port)
                .map_err(|e| listeners::cannot("stunAddr", addr, &e))?,
        };
        Ok(Self(Some(Open {
            socket: Arc::new(socket),
            stop: Stop::default(),
            addr: addr.clone(),
        })))
    }
}

impl Stun {
    /// Brings the plan about. What is not in it is closed.
    pub fn change(&mut self, plan: Plan, state: &Arc<State>) {
        let before = std::mem::replace(&mut self.0, plan.0);
        let kept = |open: &Open| before.as_ref().is_some_and(|b| b.stop.is(&open.stop));
        match &self.0 {
            Some(open) if kept(open) => return,
            Some(open) => {
                log::info!("Listening stunAddr={}", open.addr);
                log::info!("answering STUN started addr={}", open.socket.addr());
                crate::spawn(serve(state.clone(), open.clone()));
            }
            None => {}
        }
        if let Some(before) = before {
            before.stop.say();
            log::info!("answering STUN ended addr={}", before.socket.addr());
        }
    }

    /// For the process that takes this one's place.
    pub fn share(&self) -> Option<Given> {
        let open = self.0.as_ref()?;
        let addr = open.addr.to_string();
        Some((Piece::Stun { addr }, Some(open.socket.clone())))
    }
}

async fn serve(state: Arc<State>, open: Open) {
    let answering = async {
        let mut limit = Limit::new(Instant::now());
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

/// Answers the next datagram, if it is to be; says what became of it.
async fn answer_one(socket: &Datagrams, limit: &mut Limit) -> Datagram {
    let look = |bytes: &[u8], from: SocketAddr| {
        // To a socket for both, IPv4 comes in IPv6's clothes.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        (look_at(bytes, from, limit), from)
    };
    let ((answer, from), path) = socket.receive(look).await;
    let (bytes, datagram) = match answer {
        Ok((bytes, datagram)) => (bytes, datagram),
        Err(datagram) => return datagram,
    };
    match socket.answer(&bytes, &path) {
        Ok(()) => datagram,
        Err(e) => {
            log::debug!("STUN: answering {from}: {e}");
            Datagram::Unsent
        }
    }
}

/// The answer to a datagram. The error says why there is none.
fn look_at(
    bytes: &[u8],
    from: SocketAddr,
    limit: &mut Limit,
) -> Result<(Vec<u8>, Datagram), Datagram> {
    let ignored = |why| {
        log::debug!("STUN: no answer to {from}: {why}");
        Datagram::Ignored
    };
    answer::could_be_request(bytes).map_err(ignored)?;
    if !limit.allows(from.ip(), Instant::now()) {
        return Err(Datagram::Limited);
    }
    let answer = answer::to(bytes, from).map_err(ignored)?;
    let datagram = if answer.is_error {
        Datagram::Refused
    } else {
        Datagram::Answered
    };
    Ok((answer.bytes, datagram))
}
