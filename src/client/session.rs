//! The life of an open tunnel on the client: streams, signals, pings, end. `connect` opens it, and
//! `pool` decides whether another takes its place.

use super::connect::{port_opened, port_unavailable, refused, ConnectFailure};
use super::context::ClientContext;
use super::p2p::P2p;
use super::pooled_tunnel::{PooledTunnel, ReplaceReason};
use super::proxy::UdpWay;
use super::serve::{serve, ServedStream};
use crate::net::clock::Tick;
use crate::net::{clock, Conn, TaskGuard};
use crate::tunnel::{Event, Inbox, DELIVERY_TIMEOUT};
use crate::wire::frame::{RejectCode, ResetCode, Signal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Longest silence of a tunnel in a WebSocket, after which its client pings: proxies on the way close
/// what is silent for longer, many after 30 s.
const WEBSOCKET_PING_INTERVAL: Duration = Duration::from_secs(20);
/// Maximum number of unanswered pings.
const MAX_UNANSWERED_PINGS: u32 = 3;
/// Time that a failed tunnel has to tell the server.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason why a running tunnel ended other than gracefully.
enum SessionFailure {
    /// The connection or the protocol failed.
    Lost(io::Error),
    /// The server refused the client's id or its services.
    Refused(ConnectFailure),
    /// Pings went unanswered: nothing has come for this time.
    Silent(Duration),
}

impl fmt::Display for SessionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(e) => e.fmt(f),
            Self::Refused(failure) => failure.fmt(f),
            Self::Silent(silence) => {
                write!(f, "nothing was received from the server for {silence:?}")
            }
        }
    }
}

/// An event of a session that its pool has to act on.
pub enum SessionEvent {
    /// A stream was opened; the pool may need another tunnel.
    StreamOpened,
    /// The server has closed a tunnel that is always kept.
    ClosedByServer,
    /// The tunnel has ended; [`ClientSession::finish`] closes its connection.
    Ended,
}

/// An open tunnel and its inbox.
pub struct ClientSession {
    context: Arc<ClientContext>,
    p2p: Arc<P2p>,
    /// The tunnel as the pool knows it.
    pub member: Arc<PooledTunnel>,
    inbox: Inbox,
    /// How the tunnel ended.
    end: Result<(), SessionFailure>,
    /// When the last stream ended.
    idle_since: Instant,
    pings: u32,
    last_ping: Tick,
    _serving: TaskGuard,
}

impl ClientSession {
    /// Starts to serve a tunnel that has just been opened.
    pub fn new(p2p: Arc<P2p>, member: Arc<PooledTunnel>, inbox: Inbox) -> Self {
        let context = p2p.context().clone();
        log::info!("tunnel started connID={}", member.id);
        let services = member.offered().current().clone();
        services.log_address(&context.id, &member.remote);
        Self {
            _serving: context.serving.begin(),
            context,
            p2p,
            member,
            inbox,
            end: Ok(()),
            idle_since: clock::now(),
            pings: 0,
            last_ping: Tick::now(),
        }
    }

    /// The tunnel's connection.
    pub fn conn(&self) -> &Arc<Conn> {
        self.inbox.conn()
    }

    /// Whether the tunnel has failed on its way.
    pub fn is_lost(&self) -> bool {
        matches!(
            self.end,
            Err(SessionFailure::Lost(_) | SessionFailure::Silent(_))
        )
    }

    /// Serves the tunnel until the next event for the pool.
    pub async fn next(&mut self) -> SessionEvent {
        match self.serve().await {
            Ok(event) => event,
            Err(failure) => {
                self.end = Err(failure);
                SessionEvent::Ended
            }
        }
    }

    /// Closes the connection of a tunnel that has ended.
    pub async fn finish(self) {
        let id = self.member.id;
        self.member.leave(ReplaceReason::Lost);
        match &self.end {
            Ok(()) => log::info!("tunnel closed connID={id}"),
            Err(why) => log::warn!("tunnel closed connID={id}: {why}"),
        }
        self.member.tunnel.finish();
        let conn = self.inbox.conn().clone();
        drop(self.inbox);
        match self.end {
            Ok(()) => conn.linger_for(DELIVERY_TIMEOUT, usize::MAX).await,
            Err(_) => conn.linger(CLOSE_TIMEOUT).await,
        };
    }

    async fn serve(&mut self) -> Result<SessionEvent, SessionFailure> {
        loop {
            let id = self.member.id;
            match self.inbox.next().await {
                // One read may bring thousands of streams that are over already; they get no task.
                Event::Opened(stream, _) | Event::OpenedBefore(stream, _) if stream.is_reset() => {}
                Event::Opened(stream, service) => {
                    let serving = self.context.serving.begin();
                    let (services, udp) = {
                        let offered = self.member.offered();
                        let udp = UdpWay::of(&offered, service, &self.context.stop);
                        (offered.current().clone(), udp)
                    };
                    let p2p = self.p2p.clone();
                    let served = ServedStream {
                        stream,
                        service,
                        udp,
                    };
                    crate::net::spawn(serve(p2p, services, served, serving));
                    return Ok(SessionEvent::StreamOpened);
                }
                Event::OpenedBefore(stream, service) => {
                    let services = self.member.offered().previous().cloned();
                    let Some(services) = services else {
                        stream.fail(ResetCode::UnknownService);
                        continue;
                    };
                    let served = ServedStream {
                        stream,
                        service,
                        // Its associations are those of the services now.
                        udp: None,
                    };
                    let serving = self.context.serving.begin();
                    crate::net::spawn(serve(self.p2p.clone(), services, served, serving));
                    return Ok(SessionEvent::StreamOpened);
                }
                Event::Tick => {
                    let next_check = self.tick()?;
                    self.inbox.rest(next_check);
                }
                Event::Signal(Signal::PortOpened { service, port }) => {
                    port_opened(&mut self.member.offered(), service, port, id);
                }
                Event::Signal(Signal::PortUnavailable { service, cause }) => {
                    port_unavailable(&mut self.member.offered(), service, cause, id);
                }
                Event::Signal(Signal::Error(refusal)) => {
                    let why = self.refused(refusal);
                    let tunnel = &self.member.tunnel;
                    if tunnel.streams() == 0 {
                        return Err(SessionFailure::Refused(why));
                    }
                    // The server may have refused new services: open streams may finish.
                    log::warn!("a tunnel drains connID={id}: {why}");
                    self.member.leave(ReplaceReason::Lost);
                    tunnel.close();
                }
                Event::Signal(Signal::Reconnect) => {
                    log::info!("the server asks for a new tunnel connID={id}");
                    self.member.leave(ReplaceReason::Asked);
                }
                // The tunnel takes no more streams.
                Event::Close => {
                    if self.member.leave(ReplaceReason::ClosedByServer) && self.member.kept {
                        return Ok(SessionEvent::ClosedByServer);
                    }
                }
                Event::Services(_) => {
                    if self.member.confirm() {
                        log::info!("services changed connID={id}");
                    }
                }
                Event::End(Ok(())) => return Ok(SessionEvent::Ended),
                Event::End(Err(e)) => return Err(SessionFailure::Lost(e)),
                Event::Ping | Event::Notice | Event::Signal(_) => {}
            }
        }
    }

    /// Describes why the server refuses this client or the services that it was offered last.
    fn refused(&self, refusal: RejectCode) -> ConnectFailure {
        let services = self.member.offered().next().clone();
        refused(&self.context, &services, refusal)
    }

    /// Pings a silent server, and closes a tunnel that is no longer needed. Returns the time up to
    /// the next check, provided that no stream is opened before.
    fn tick(&mut self) -> Result<Duration, SessionFailure> {
        let silence = self.inbox.silence();
        let tunnel = &self.member.tunnel;
        let patience = self.context.remote_timeout;
        let mut needed = Duration::MAX;
        if tunnel.streams() > 0 {
            self.idle_since = clock::now();
        } else if !self.member.kept {
            // It was opened under load.
            needed = patience.saturating_sub(clock::since(self.idle_since));
            if needed.is_zero() {
                tunnel.close();
            }
        }
        if tunnel.is_black_hole() {
            return Err(SessionFailure::Silent(silence));
        }
        if !tunnel.is_open() {
            // A server answers a ping on a draining tunnel with close, which would end it.
            return Ok(Duration::ZERO);
        }
        let interval = match self.member.remote.transport.is_websocket() {
            true => WEBSOCKET_PING_INTERVAL.min(patience / 2),
            false => patience / 2,
        };
        let pinged = self.last_ping.until(Tick::now());
        if silence <= pinged {
            // Something has come since, which answers them all.
            self.pings = 0;
        }
        if silence < interval {
            // A server that receives nothing, because all traffic goes the other way, may give up.
            if tunnel.sent() >= interval && pinged >= interval {
                self.last_ping = Tick::now();
                tunnel.ping();
            }
        } else if self.pings == 0 || pinged >= interval {
            if self.pings > MAX_UNANSWERED_PINGS {
                return Err(SessionFailure::Silent(silence));
            }
            self.pings += 1;
            self.last_ping = Tick::now();
            tunnel.ping();
        }
        let pinged = self.last_ping.until(Tick::now());
        // The first ping is due after an interval in which nothing was sent, or nothing was heard; the
        // next ones an interval after the last.
        let (quiet, unheard) = match self.pings {
            0 => (tunnel.sent().min(pinged), silence),
            _ => (Duration::ZERO, silence.min(pinged)),
        };
        Ok(needed.min(interval.saturating_sub(quiet.max(unheard))))
    }
}
