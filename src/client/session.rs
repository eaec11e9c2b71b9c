//! One tunnel's life on the client: connecting, hello, streams, signals, end.

use super::other_protocol::OtherProtocol;
use super::pool::{Pool, PooledTunnel, ReplaceReason};
use super::service::{self, Services};
use super::ClientContext;
use crate::config::Remote;
use crate::net::{self, timeout, tls, Conn, TaskGuard};
use crate::tunnel::{Event, Inbox, PeerRole, Policy, Tunnel, DELIVERY_TIMEOUT};
use crate::wire::frame::{PortCause, RejectCode, Signal};
use crate::wire::{hello, Version};
use async_io::Timer;
use futures_lite::future;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Streams of one tunnel at a time; the server is told to look elsewhere for more.
const STREAMS: usize = 16 * 1024;
/// How long a server has to answer the hello of GT/2 before it is taken for one of GT/1.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Pings without an answer before the tunnel is given up: more than this.
const MAX_UNANSWERED_PINGS: u32 = 3;
/// How long a tunnel that failed may take to tell the server so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no tunnel.
pub enum ConnectFailure {
    /// The remoteAPI does not say where the server is.
    Nowhere(io::Error),
    Unreachable(io::Error),
    Tls(io::Error),
    /// It does not speak this version of the wire.
    NotSpoken,
    /// It is no gt server.
    Stranger(OtherProtocol),
    /// The connection ended during the hello.
    Ended(io::Error),
    Silent(Duration),
    /// By the server, for the client's id and, if it is about one, this service.
    Refused(RejectCode, String),
    /// The client is stopping.
    Stopped,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(e) => write!(f, "cannot learn from remoteAPI where the server is: {e}"),
            Self::Unreachable(e) => write!(f, "cannot reach the server: {e}"),
            Self::Tls(e) => write!(f, "cannot speak TLS with the server: {e}{}", tls::advice(e)),
            Self::NotSpoken => f.write_str(
                "the server does not speak GT/2, and wire is 2; set it to auto, or to 1",
            ),
            Self::Stranger(stranger) => write!(f, "there is no gt server: {stranger}"),
            Self::Ended(e) => write!(f, "the server ended the hello: {e}"),
            Self::Silent(patience) => {
                write!(f, "the server did not answer the hello within {patience:?}")
            }
            Self::Refused(refusal, whom) => {
                write!(f, "the server refused {whom}: {refusal}")?;
                match refusal {
                    RejectCode::BadCredentials => f.write_str(
                        "; check id and secret (some servers also say this to an address that \
                         they have locked out after failed logins)",
                    ),
                    RejectCode::LockedOut(_) => f.write_str("; check id and secret meanwhile"),
                    RejectCode::PortNotOpened(_) => f.write_str(
                        "; ask for another remoteTCPPort, or set remoteTCPRandom, or have \
                         the server allow it",
                    ),
                    RejectCode::HostConflict => f.write_str(
                        "; choose another hostPrefix, or wait a minute if that client has gone",
                    ),
                    RejectCode::HostNotAllowed => f.write_str("; choose another hostPrefix"),
                    RejectCode::OtherClientConnected => {
                        f.write_str("; stop the other one or use another id")
                    }
                    _ => Ok(()),
                }
            }
            Self::Stopped => f.write_str("stopping"),
        }
    }
}

/// Connects, says hello, and waits until the server is ready. Returns the services it
/// offered.
pub async fn connect(
    me: &ClientContext,
    remote: &Remote,
    version: Version,
    id: u32,
) -> Result<(Inbox, Tunnel, Arc<Services>), ConnectFailure> {
    let patience = me.remote_timeout;
    let socket = net::dial(&remote.host, remote.port, patience)
        .await
        .map_err(ConnectFailure::Unreachable)?;
    let conn = if remote.tls {
        let handshake = async {
            let connecting = me.tls.connector().map_err(ConnectFailure::Tls)?;
            let connecting = connecting.connect(&remote.host, socket);
            connecting.await.map_err(ConnectFailure::Tls)
        };
        future::or(handshake, silence(patience)).await?
    } else {
        Conn::from(socket)
    };
    let services = me.services();
    let shortest = services.shortest_timeout().min(patience / 2);
    let policy = Policy::new(version, PeerRole::Server { streams: STREAMS }, shortest);
    let hello = services.hello(me).encode(version);
    let already = match version {
        Version::One => future::or(say(&conn, &hello), silence(patience)).await?,
        Version::Two => {
            let asking = timeout(HELLO_TIMEOUT.min(patience), ask(&conn, &hello));
            asking.await.unwrap_or(Err(ConnectFailure::NotSpoken))?
        }
    };
    let (tunnel, mut inbox) = Tunnel::new(Arc::new(conn), already, policy);
    let ready = wait_until_ready(me, &services, &mut inbox, id);
    future::or(ready, silence(patience)).await?;
    Ok((inbox, tunnel, services))
}

/// Says the hello of GT/2 and reads the answer; returns what came behind it. The error tells of a
/// stranger only where no server of GT/1 answers so: these close, or take the hello for a bad HTTP
/// request or bad TLS.
async fn ask(conn: &Conn, hello: &[u8]) -> Result<Vec<u8>, ConnectFailure> {
    let not_spoken = |_| ConnectFailure::NotSpoken;
    conn.write_all(hello).await.map_err(not_spoken)?;
    let mut bytes = Vec::new();
    loop {
        match hello::answer_length(&bytes) {
            Ok(Some(length)) => return Ok(bytes.split_off(length)),
            Ok(None) => {}
            Err(_) => {
                return Err(match OtherProtocol::of(&bytes) {
                    Some(stranger @ OtherProtocol::Ssh(_)) => ConnectFailure::Stranger(stranger),
                    _ => ConnectFailure::NotSpoken,
                })
            }
        }
        if read_some(conn, &mut bytes).await.map_err(not_spoken)? == 0 {
            return Err(ConnectFailure::NotSpoken);
        }
    }
}

/// Says the hello of GT/1 and reads the first words of the answer, which it returns. The error tells
/// of a stranger.
async fn say(conn: &Conn, hello: &[u8]) -> Result<Vec<u8>, ConnectFailure> {
    conn.write_all(hello).await.map_err(ConnectFailure::Ended)?;
    let mut bytes = Vec::new();
    read_some(conn, &mut bytes)
        .await
        .map_err(ConnectFailure::Ended)?;
    if !bytes.is_empty() {
        // A stranger that begins a line need not end it.
        let line = async {
            while !OtherProtocol::is_whole(&bytes)
                && matches!(read_some(conn, &mut bytes).await, Ok(1..))
            {}
        };
        timeout(CLOSE_TIMEOUT, line).await;
    }
    match OtherProtocol::of(&bytes) {
        Some(stranger) => Err(ConnectFailure::Stranger(stranger)),
        None => Ok(bytes),
    }
}

/// Reads what there is; 0 is the end.
async fn read_some(conn: &Conn, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 256];
    let n = conn.read(&mut piece).await?;
    bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
    Ok(n)
}

async fn silence<T>(patience: Duration) -> Result<T, ConnectFailure> {
    Timer::after(patience).await;
    Err(ConnectFailure::Silent(patience))
}

fn refused(me: &ClientContext, services: &Services, refusal: RejectCode) -> ConnectFailure {
    let mut whom = me.id.clone();
    if let RejectCode::PortNotOpened(service) = refusal {
        whom = format!("{whom}, {}", services.describe(service));
    }
    ConnectFailure::Refused(refusal, whom)
}

async fn wait_until_ready(
    me: &ClientContext,
    services: &Services,
    inbox: &mut Inbox,
    id: u32,
) -> Result<(), ConnectFailure> {
    loop {
        match inbox.next().await {
            Event::Signal(Signal::Ready) => return Ok(()),
            Event::Signal(Signal::Error(refusal)) => return Err(refused(me, services, refusal)),
            Event::Signal(Signal::PortOpened { port, .. }) => port_opened(port, id),
            Event::Signal(Signal::PortUnavailable { service, cause }) => {
                port_unavailable(services, service, cause, id);
            }
            Event::End(Err(e)) => return Err(ConnectFailure::Ended(e)),
            Event::End(Ok(())) => {
                return Err(ConnectFailure::Ended(
                    io::ErrorKind::ConnectionAborted.into(),
                ))
            }
            // A stream before ready is a mistake; dropping it closes it.
            Event::Signal(_)
            | Event::Ping
            | Event::Close
            | Event::Services(_)
            | Event::Opened(..)
            | Event::Tick => {}
        }
    }
}

fn port_opened(port: u16, id: u32) {
    // Scripts for version 2 of the original look for the key `tcp port`.
    log::info!(
        "receive server information: tcp port {port} opened successfully connID={id} tcp port={port}"
    );
}

fn port_unavailable(services: &Services, service: u16, cause: PortCause, id: u32) {
    let service = services.describe(service);
    log::warn!(
        "the server cannot open the TCP port of {service}: {cause}; it publishes the other \
         services and goes on trying connID={id}"
    );
}

pub struct ClientSession {
    pool: Arc<Pool>,
    member: Arc<PooledTunnel>,
    /// Since when there is no stream.
    idle_since: Instant,
    pings: u32,
    last_ping: Instant,
    _serving: TaskGuard,
}

impl ClientSession {
    pub fn new(pool: Arc<Pool>, member: Arc<PooledTunnel>) -> Self {
        let now = Instant::now();
        Self {
            _serving: pool.me.serving.begin(),
            pool,
            member,
            idle_since: now,
            pings: 0,
            last_ping: now,
        }
    }

    /// Serves the tunnel until it ends.
    pub async fn run(mut self, mut inbox: Inbox) {
        let id = self.member.id;
        log::info!("tunnel started connID={id}");
        let remote = &self.member.remote;
        let services = self.member.offered().current().clone();
        services.log_address(&self.pool.me.id, remote);
        let why = self.listen(&mut inbox).await;
        let orderly = why.is_ok();
        self.pool.leave(&self.member);
        self.member.leave(ReplaceReason::Lost);
        match why {
            Ok(()) => log::info!("tunnel closed connID={id}"),
            Err(why) => log::warn!("tunnel closed connID={id}: {why}"),
        }
        self.member.tunnel.finish();
        let conn = inbox.conn().clone();
        drop(inbox);
        if orderly {
            conn.linger_for(DELIVERY_TIMEOUT, usize::MAX).await;
        } else {
            conn.linger(CLOSE_TIMEOUT).await;
        }
    }

    /// Acts on what the server says until the tunnel ends. The error says why, unless it was
    /// in good order.
    async fn listen(&mut self, inbox: &mut Inbox) -> Result<(), String> {
        loop {
            match inbox.next().await {
                // One read may bring thousands that are over already: no task is made for these.
                Event::Opened(stream, _) if stream.is_reset() => {}
                Event::Opened(stream, service) => {
                    let serving = self.pool.me.serving.begin();
                    let services = self.member.offered().current().clone();
                    let me = self.pool.me.clone();
                    crate::spawn(service::serve(me, services, service, stream, serving));
                    self.pool.busier();
                }
                Event::Tick => {
                    if let Some(why) = self.tick(inbox.silence()) {
                        return Err(why);
                    }
                }
                Event::Signal(Signal::PortOpened { port, .. }) => {
                    port_opened(port, self.member.id);
                }
                Event::Signal(Signal::PortUnavailable { service, cause }) => {
                    let services = self.member.offered().next().clone();
                    port_unavailable(&services, service, cause, self.member.id);
                }
                Event::Signal(Signal::Error(refusal)) => {
                    let why = self.refused(refusal);
                    let tunnel = &self.member.tunnel;
                    if tunnel.streams() == 0 {
                        return Err(why);
                    }
                    // Perhaps of new services: what runs may have time to finish.
                    log::warn!("a tunnel drains connID={}: {why}", self.member.id);
                    self.member.leave(ReplaceReason::Lost);
                    tunnel.close();
                }
                Event::Signal(Signal::Reconnect) => {
                    log::info!("the server asks for a new tunnel connID={}", self.member.id);
                    self.member.leave(ReplaceReason::Asked);
                }
                // It takes no more streams.
                Event::Close => {
                    if self.member.leave(ReplaceReason::Dismissed) && self.member.kept {
                        self.pool.dismissed(&self.member, inbox.conn());
                    }
                }
                Event::Services(_) => {
                    if self.member.offered().confirm() {
                        log::info!("services changed connID={}", self.member.id);
                    }
                }
                Event::End(result) => return result.map_err(|e| e.to_string()),
                Event::Ping | Event::Signal(_) => {}
            }
        }
    }

    /// Why the server refuses the services that it was offered last, or this client.
    fn refused(&self, refusal: RejectCode) -> String {
        let services = self.member.offered().next().clone();
        refused(&self.pool.me, &services, refusal).to_string()
    }

    /// Pings a silent server, and closes a tunnel that is not needed any more.
    fn tick(&mut self, silence: Duration) -> Option<String> {
        let tunnel = &self.member.tunnel;
        if tunnel.streams() > 0 {
            self.idle_since = Instant::now();
        } else if !self.member.kept && self.idle_since.elapsed() >= self.pool.me.remote_timeout {
            // It was opened under load.
            tunnel.close();
        }
        if !tunnel.is_open() {
            // A server answers a ping on a tunnel that drains with close, which would end it.
            return None;
        }
        let interval = self.pool.me.remote_timeout / 2;
        if silence < interval {
            self.pings = 0;
            // A server that hears nothing, because all goes the other way, may give up.
            if tunnel.sent() >= interval && self.last_ping.elapsed() >= interval {
                self.last_ping = Instant::now();
                tunnel.ping();
            }
        } else if self.pings == 0 || self.last_ping.elapsed() >= interval {
            if self.pings > MAX_UNANSWERED_PINGS {
                return Some(format!("the server has said nothing for {silence:?}"));
            }
            self.pings += 1;
            self.last_ping = Instant::now();
            tunnel.ping();
        }
        None
    }
}
