//! One tunnel's life on the server: hello, registration, signals, end.

use super::guest::Who;
use super::users::Admission;
use super::{ports, visitor, State};
use crate::net::Conn;
use crate::tunnel::{Event, Inbox, Peer, Policy, Tunnel};
use crate::wire::frame::{Refusal, Signal};
use crate::wire::hello::{Hello, Reader};
use crate::wire::Malformed;
use async_io::Timer;
use futures_lite::future;
use log::Level;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a client has for its hello, and for reading a refusal.
const PATIENCE: Duration = Duration::from_secs(15);
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves a tunnel whose magic and version have been read; `already` is what came behind.
pub async fn serve(state: Arc<State>, conn: Arc<Conn>, peer: SocketAddr, already: Vec<u8>) {
    let timeout = async {
        Timer::after(PATIENCE).await;
        Err(Rejected::Silent)
    };
    let greeting = future::or(read_hello(&state, &conn, already), timeout).await;
    let (hello, admission, already) = match greeting {
        Ok(greeting) => greeting,
        Err(Rejected::Silent) => return log::debug!("{peer}: the hello of a tunnel did not come"),
        Err(Rejected::TooLate) => {
            return log::debug!("{peer}: the server's look at itself is over")
        }
        Err(Rejected::Malformed(e)) => return log::debug!("{peer}: bad hello: {e}"),
        Err(Rejected::Refused(id, refusal)) => {
            state.counters.refused(refusal);
            log::warn!("refused a client id={id} addr={peer}: {refusal}");
            return refuse(&conn, refusal).await;
        }
    };
    let shortest = state.timeout.unwrap_or(Duration::from_secs(60));
    let policy = Policy {
        speed: state.speeds.of(&hello.id, admission.limits.speed),
        ..Policy::new(Peer::Client, shortest)
    };
    let (tunnel, inbox) = Tunnel::new(conn, already, policy);
    let session = Session {
        state,
        peer,
        id: hello.id,
        secret: hello.secret,
        admission,
        tunnel,
    };
    session.run(hello.offers, inbox).await;
}

enum Rejected {
    /// It did not come in time, or not at all.
    Silent,
    /// The server's own, whose look at itself is over.
    TooLate,
    Malformed(Malformed),
    Refused(Box<str>, Refusal),
}

/// Reads the hello and judges its credentials before the rest of it.
async fn read_hello(
    state: &Arc<State>,
    conn: &Conn,
    mut bytes: Vec<u8>,
) -> Result<(Hello, Admission, Vec<u8>), Rejected> {
    let mut reader = Reader::default();
    let mut admission = None;
    loop {
        let used = reader.feed(&bytes).map_err(|e| match (&admission, e) {
            (Some(_), Malformed::TooManyOptions) => {
                let id = reader.credentials().map_or("", |who| who.id);
                Rejected::Refused(id.into(), Refusal::TooManyOptions)
            }
            _ => Rejected::Malformed(e),
        })?;
        bytes.drain(..used.min(bytes.len()));
        if admission.is_none() {
            if let Some(who) = reader.credentials() {
                admission = match state.guest.meet(who.id, who.secret) {
                    Who::Guest(admission) => Some(admission),
                    Who::TooLate => return Err(Rejected::TooLate),
                    Who::SomebodyElse => state.users.admit(who.id, who.secret),
                };
                if admission.is_none() {
                    let refusal = Refusal::BadCredentials;
                    return Err(Rejected::Refused(who.id.into(), refusal));
                }
                // There may be more of it already.
                continue;
            }
        }
        reader = match (reader.finish(), admission) {
            (Ok(hello), Some(admission)) => return Ok((hello, admission, bytes)),
            (Err(unfinished), judged) => {
                admission = judged;
                unfinished
            }
            (Ok(_), None) => return Err(Rejected::Silent),
        };
        match visitor::read_more(conn, &mut bytes, 1024).await {
            Ok(1..) => {}
            _ => return Err(Rejected::Silent),
        }
    }
}

async fn refuse(conn: &Conn, refusal: Refusal) {
    let signal = Signal::Error(refusal).encode();
    let telling = async {
        if conn.write_all(signal.as_slice()).await.is_ok() {
            conn.linger(GOODBYE).await;
        }
    };
    future::or(telling, async {
        Timer::after(PATIENCE).await;
    })
    .await;
}

struct Session {
    state: Arc<State>,
    peer: SocketAddr,
    id: Box<str>,
    secret: Box<[u8]>,
    admission: Admission,
    tunnel: Tunnel,
}

impl Session {
    async fn run(self, offers: Vec<crate::wire::hello::Offer>, mut inbox: Inbox) {
        let (id, peer) = (&self.id, self.peer);
        let registry = &self.state.registry;
        let guest = self.admission.guest;
        let level = if guest { Level::Debug } else { Level::Info };
        match registry.join(id, &self.admission.limits, offers, &self.tunnel, !guest) {
            Ok(opened) => self.serve_ports(opened),
            Err(refusal) => {
                self.state.counters.refused(refusal);
                log::warn!("refused a tunnel id={id} addr={peer}: {refusal}");
                self.tunnel.signal(Signal::Error(refusal));
                return self.end(inbox).await;
            }
        }
        log::log!(level, "tunnel opened id={id} addr={peer}");
        let why = self.listen(&mut inbox).await;
        self.tunnel.finish();
        registry.leave(id, &self.tunnel);
        log::log!(level, "tunnel closed id={id} addr={peer}: {why}");
        self.end(inbox).await;
    }

    /// Acts on what the client says until the tunnel ends, and says why it did.
    async fn listen(&self, inbox: &mut Inbox) -> String {
        let registry = &self.state.registry;
        loop {
            match inbox.next().await {
                Event::Ping if registry.counts(&self.id, &self.tunnel) => {
                    self.tunnel.signal(Signal::Ping);
                }
                Event::Ping => self.tunnel.signal(Signal::Close),
                Event::Services(Some(hello)) => {
                    if let Err(refusal) = self.change(hello) {
                        self.state.counters.refused(refusal);
                        self.tunnel.signal(Signal::Error(refusal));
                        return format!("its new services were refused: {refusal}");
                    }
                }
                Event::Tick => {
                    // A client that only receives, as in an upload, has nothing to say.
                    let silence = if self.state.unidirectional {
                        inbox.silence()
                    } else {
                        inbox.silence().min(self.tunnel.sent())
                    };
                    if self.state.timeout.is_some_and(|most| silence >= most) {
                        return format!("nothing was heard for {:?}", inbox.silence());
                    }
                }
                Event::End(Ok(())) => return "in good order".to_owned(),
                Event::End(Err(e)) => return e.to_string(),
                // A client has no business with the other signals, and they do no harm.
                Event::Close | Event::Signal(_) | Event::Services(None) | Event::Opened(..) => {}
            }
        }
    }

    /// The services signal: the same client with other services.
    fn change(&self, hello: Hello) -> Result<(), Refusal> {
        if hello.id != self.id || hello.secret != self.secret {
            return Err(Refusal::BadCredentials);
        }
        let registry = &self.state.registry;
        let opened =
            registry.update(&self.id, &self.admission.limits, hello.offers, &self.tunnel)?;
        self.serve_ports(opened);
        log::info!("services changed id={} addr={}", self.id, self.peer);
        Ok(())
    }

    fn serve_ports(&self, opened: Vec<ports::Opened>) {
        for port in opened {
            log::info!("Listening TCP id={} addr={}", self.id, port.listener.addr());
            crate::spawn(visitor::accept_port(
                self.state.clone(),
                self.id.clone(),
                port,
            ));
        }
    }

    /// Sends what is left to say and lets the client read it.
    async fn end(&self, mut inbox: Inbox) {
        self.tunnel.finish();
        let flushed = async { while !matches!(inbox.next().await, Event::End(_)) {} };
        let timeout = async {
            Timer::after(GOODBYE).await;
        };
        future::or(flushed, timeout).await;
        inbox.conn().linger(GOODBYE).await;
    }
}
