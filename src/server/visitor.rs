//! Visitors whose destination is known: forwards each to its service, or answers with an error.

use super::client_hello::{self, HelloResult};
use super::connection_limit::Permit;
use super::error_page::{self, ErrorPage};
use super::forwarded_for::{self, ToldVisitor};
use super::http_head;
use super::incoming::{AcceptedConn, Incoming, ListenerKind};
use super::live_visitors::Listed;
use super::one_request::OneRequest;
use super::ports::{OpenedPort, Protocol};
use super::process_links::MessageOrigin;
use super::proxy_header;
use super::registry::{domain_of, id_of, registry_key, HostKind, OpenResult};
use super::settings::still_admits;
use super::state::ServerState;
use crate::current::Seen;
use crate::handover::{Destination, HostKey, Message, ProcessLink};
use crate::logging::{Visit, Way};
use crate::net::follow::is_head_request;
use crate::net::{self, clock, Conn, Listener, Timer};
use crate::tunnel::{CloseReason, Relay, RelayOutcome, Stream};
use crate::wire::frame::ResetCode;
use crate::wire::origin::{Transport, VisitorOrigin};
use futures_lite::{future, AsyncWriteExt};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Methods of requests with which peer-to-peer connections begin (docs/p2p.md, "Signaling").
const SIGNALING: [&[u8]; 2] = [b"XP ", b"OPTIONS "];

/// Accepts the visitors of a client's TCP port until the port is closed. `id` is the key of the client's
/// registration.
pub async fn accept_port(
    state: Arc<ServerState>,
    id: Box<str>,
    port: OpenedPort,
    listener: Arc<Listener>,
) {
    let accepting = async {
        loop {
            let (socket, peer) = listener.accept().await;
            let (state, id, port) = (state.clone(), id.clone(), port.port);
            let handshake = state.handshakes.begin();
            if state.settings.get().accepts_proxy_header(peer.ip()) {
                net::spawn(async move {
                    if let Some(accepted) = proxy_header::introduce(&state, socket, peer).await {
                        Box::pin(serve_port(&state, (&id, port), accepted, None)).await;
                    }
                    drop(handshake);
                });
            } else if let Some(permit) = state.connection_limit.take(peer.ip()) {
                let accepted = AcceptedConn {
                    socket,
                    peer,
                    origin: None,
                    permit,
                };
                net::spawn(async move {
                    serve_port(&state, (&id, port), accepted, None).await;
                    drop(handshake);
                });
            }
        }
    };
    port.stop.or::<()>(accepting).await;
}

/// Forwards a visitor of a client's TCP port to its service. `from` is the other process that has
/// accepted it.
async fn serve_port(
    state: &Arc<ServerState>,
    (id, port): (&str, u16),
    accepted: AcceptedConn,
    from: Option<MessageOrigin>,
) {
    let AcceptedConn {
        socket,
        peer,
        origin,
        mut permit,
    } = accepted;
    let mut conn = Arc::new(Conn::from(socket));
    let seen = state.settings.seen();
    let settings = state.settings.get();
    let visit = state.live_visitors.visit(
        settings.access_log.as_ref(),
        || Some(id_of(id).into()),
        || format!("port {port}"),
        Way::Tcp,
    );
    let mut visit = visit.map(|visit| Box::new(visit.of_server().from(Some(peer))));
    if !settings.visitors.admit(peer.ip()) {
        end(&mut visit, "denied");
        state.counters.unserved(ErrorPage::NotAllowed);
        log::debug!("{peer}: not allowed");
        return conn.reset_on_close();
    }
    let visitor = peer.ip();
    let open = || state.registry.open_port(id, (Protocol::Tcp, port), visitor);
    loop {
        match find_route(state, from, id, open).await {
            Route::Stream(mut stream) => {
                // There is no idle timeout: shells stay quiet for hours.
                introduce(&mut stream, || match &origin {
                    Some(origin) => VisitorOrigin::clone(origin),
                    None => origin_of(&conn, peer),
                })
                .await;
                record(&stream, &visit);
                // The service may speak first, so open the stream at once.
                stream.announce();
                if stream.is_outdated() {
                    continue;
                }
                let visitor = (conn, peer.ip(), seen);
                let held = (permit, visit);
                return relay(state.clone(), stream, visitor, ErrorAnswer::Nothing, held);
            }
            Route::Process(link) => {
                let id = id.to_owned();
                let visitor = Message::Visitor {
                    to: Destination::Port { id, port },
                    peer,
                    origin: origin.clone(),
                    head: Vec::new(),
                };
                match state.forward_visitor(&link, visitor, conn, permit).await {
                    Err(Some(back)) => (conn, permit) = back,
                    Ok(()) | Err(None) => return leave(visit),
                }
            }
            Route::Unroutable(OpenResult::Down) => {
                end(&mut visit, "down");
                state.counters.unserved(ErrorPage::Down);
                return log::debug!(
                    "the service of {} at its TCP port {port} is down",
                    id_of(id)
                );
            }
            Route::Unroutable(_) => {
                end(&mut visit, "no-tunnel");
                state.counters.unserved(ErrorPage::NoTunnel);
                return log::debug!(
                    "no tunnel of {} for a visitor of its TCP port {port}",
                    id_of(id)
                );
            }
        }
    }
}

/// Serves a visitor that another process (`from`) has accepted, and of which it has read `head`.
pub async fn resume(
    state: Arc<ServerState>,
    visitor: AcceptedConn,
    head: Vec<u8>,
    to: Destination,
    from: MessageOrigin,
) {
    match to {
        Destination::Host(host) => {
            resume_host(state, visitor, head, (host, None), from).await;
        }
        Destination::CertifiedHost(host, authority) => {
            resume_host(state, visitor, head, (host, Some(authority)), from).await;
        }
        Destination::Port { id, port } => {
            serve_port(&state, (&id, port), visitor, Some(from)).await;
        }
    }
}

/// Serves a visitor of a host that another process has accepted, with the file of the authority whose
/// certificate it has shown there.
async fn resume_host(
    state: Arc<ServerState>,
    visitor: AcceptedConn,
    head: Vec<u8>,
    (host, authority): (HostKey, Option<PathBuf>),
    from: MessageOrigin,
) {
    let listener = if host.tls {
        ListenerKind::Sni
    } else {
        ListenerKind::Http
    };
    let (kind, prefix) = registry_key(&host);
    let (mut incoming, socket) = Incoming::of(state, visitor, listener);
    incoming.head = head;
    incoming.from = Some(from);
    incoming.is_certified = authority.is_some();
    incoming.authority = authority.map(Into::into);
    incoming
        .forward(Arc::new(socket.into()), kind, &prefix)
        .await;
}

impl Incoming {
    /// Answers with an error page.
    pub async fn answer(&self, conn: &Conn, answer: ErrorPage) {
        log::debug!("{}: {answer:?}", self.peer);
        self.state.counters.unserved(answer);
        error_page::http(conn, answer, is_head_request(&self.head)).await;
    }

    /// Returns where the visitor comes from.
    fn origin(&self, conn: &Conn) -> VisitorOrigin {
        let mut origin = match &self.origin {
            Some(origin) => VisitorOrigin::clone(origin),
            None => origin_of(conn, self.peer),
        };
        match self.kind {
            ListenerKind::Http | ListenerKind::Quic => {}
            ListenerKind::Https => {
                origin.is_decrypted = true;
                origin.server_name = conn.server_name();
                // The certificate of a proxy is not that of its visitors.
                let certificate = conn.client_certificate().filter(|_| !self.is_of_front());
                let subject = certificate.and_then(|certificate| certificate.subject());
                origin.subject = subject.map(Into::into);
            }
            ListenerKind::Sni => {
                if let HelloResult::Name(name) = client_hello::server_name(&self.head) {
                    origin.server_name = Some(name.into());
                }
            }
        }
        origin
    }

    /// Returns the answer to a visitor of a name whose user wants other certificates than those that the
    /// handshake has asked for, or that has shown none.
    fn certificate_refusal(&self, kind: HostKind, prefix: &str) -> Option<ErrorPage> {
        // Only these have been decrypted here.
        if kind != HostKind::Http {
            return None;
        }
        let settings = self.state.settings.get();
        let Ok(needed) = settings.authority_of(&self.state.registry, prefix) else {
            return Some(ErrorPage::NoTunnel);
        };
        match (needed, &self.authority) {
            (None, None) => None,
            (Some(needed), Some(asked)) if needed.file == *asked => match self.is_certified {
                true => None,
                false => Some(ErrorPage::NoCertificate),
            },
            // Over TLS for the name of another, or with a certificate for another.
            (_, Some(_)) => Some(ErrorPage::Misdirected),
            (Some(_), None) if self.kind == ListenerKind::Https => Some(ErrorPage::Misdirected),
            (Some(_), None) => Some(ErrorPage::NoCertificate),
        }
    }

    /// Whether the connection comes from a proxy that the server trusts.
    pub fn is_of_front(&self) -> bool {
        let addr = self.peer.ip();
        let mut fronts = self.settings.front_proxies.iter();
        self.is_http() && fronts.any(|fronts| fronts.contains(addr))
    }

    /// Whether the connection may carry requests for other hosts, as one from a proxy does.
    fn is_shared(&self) -> bool {
        self.is_http() && (self.is_of_front() || http_head::shows_proxy(&self.head))
    }

    /// Takes the visitor's address from the request of a proxy that the server trusts.
    fn believe_front(&mut self, conn: &Conn) {
        let mut origin = self.origin(conn);
        match forwarded_for::visitor(&self.head, &self.settings.front_proxies) {
            ToldVisitor::Nothing => {}
            ToldVisitor::Address(addr) => origin.source = SocketAddr::new(addr, 0),
            ToldVisitor::Unknown => {
                origin.source = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            }
        }
        origin.is_told = true;
        self.origin = Some(Box::new(origin));
    }

    /// Begins to record the visit, if it is logged or listed.
    fn visit(&self, kind: HostKind, prefix: &str) -> Option<Box<Visit>> {
        let way = match kind {
            HostKind::Http => Way::Http,
            HostKind::Tls => Way::Tls,
        };
        let state = &self.state;
        let id = || state.registry.owner(kind, prefix);
        let name = || domain_of(prefix).unwrap_or(prefix).to_owned();
        let log = self.settings.access_log.as_ref();
        let visit = state.live_visitors.visit(log, id, name, way)?;
        let told = self.origin.as_ref().map(|origin| origin.source);
        Some(Box::new(visit.of_server().from(told.or(Some(self.peer)))))
    }

    /// Forwards the visitor to its service.
    pub async fn forward(mut self, mut conn: Arc<Conn>, kind: HostKind, prefix: &str) {
        let answer_kind = match (self.is_http(), is_head_request(&self.head)) {
            (false, _) => ErrorAnswer::Nothing,
            (true, false) => ErrorAnswer::Page,
            (true, true) => ErrorAnswer::Head,
        };
        if self.is_shared() {
            match OneRequest::start(conn.clone(), &self.head) {
                Ok((first, one)) => (self.head, conn) = (first, one),
                Err(refusal) => return self.answer(&conn, ErrorPage::from(refusal)).await,
            }
        }
        if self.is_of_front() {
            self.believe_front(&conn);
        }
        let visitor = match &self.origin {
            Some(origin) => origin.source.ip(),
            None => self.peer.ip(),
        };
        let seen = self.state.settings.seen();
        let is_self_test = self.state.self_test.has_prefix(prefix);
        let mut visit = match is_self_test {
            true => None,
            false => self.visit(kind, prefix),
        };
        let may_come = self.state.settings.get().visitors.admit(visitor);
        if !is_self_test && !may_come {
            end(&mut visit, "denied");
            if kind == HostKind::Http {
                return self.answer(&conn, ErrorPage::NotAllowed).await;
            }
            self.state.counters.unserved(ErrorPage::NotAllowed);
            log::debug!("{visitor}: not allowed");
            return conn.reset_on_close();
        }
        if let Some(refusal) = self
            .certificate_refusal(kind, prefix)
            .filter(|_| !is_self_test)
        {
            end(&mut visit, "denied");
            return self.answer(&conn, refusal).await;
        }
        // The client answers those itself: they may be for another of its services.
        let is_signaling =
            kind == HostKind::Http && SIGNALING.iter().any(|it| self.head.starts_with(it));
        let open = || {
            self.state
                .registry
                .open_host(kind, prefix, visitor, is_signaling)
        };
        loop {
            match find_route(&self.state, self.from, prefix, open).await {
                Route::Stream(mut stream) => {
                    // The name may have got an owner meanwhile.
                    let refusal = self.certificate_refusal(kind, prefix);
                    if let Some(refusal) = refusal.filter(|_| !is_self_test) {
                        end(&mut visit, "denied");
                        return self.answer(&conn, refusal).await;
                    }
                    stream.limit_idle(self.settings.timeout, self.settings.unidirectional);
                    introduce(&mut stream, || self.origin(&conn)).await;
                    record(&stream, &visit);
                    // If this fails, the relay reports it.
                    let _ = stream.write_all(&self.head).await;
                    if stream.is_outdated() {
                        continue;
                    }
                    let visitor = (conn, visitor, seen);
                    let held = (self.permit, visit);
                    return relay(self.state, stream, visitor, answer_kind, held);
                }
                Route::Process(link) => {
                    let host = HostKey {
                        tls: kind == HostKind::Tls,
                        prefix: prefix.to_owned(),
                    };
                    let visitor = Message::Visitor {
                        to: match self.authority.clone().filter(|_| self.is_certified) {
                            Some(file) => Destination::CertifiedHost(host, file.to_path_buf()),
                            None => Destination::Host(host),
                        },
                        peer: self.peer,
                        origin: match self.kind {
                            ListenerKind::Https => Some(Box::new(self.origin(&conn))),
                            _ => self.origin.clone(),
                        },
                        head: self.head.clone(),
                    };
                    match self
                        .state
                        .forward_visitor(&link, visitor, conn, self.permit)
                        .await
                    {
                        Err(Some(back)) => (conn, self.permit) = back,
                        Ok(()) | Err(None) => return leave(visit),
                    }
                }
                Route::Unroutable(missing) => {
                    let answer = match missing {
                        OpenResult::Unknown if !self.settings.users.expects(prefix) => {
                            ErrorPage::NoSuchHost
                        }
                        OpenResult::Down => ErrorPage::Down,
                        _ => ErrorPage::NoTunnel,
                    };
                    end(
                        &mut visit,
                        match answer {
                            ErrorPage::NoSuchHost => "no-such-host",
                            ErrorPage::Down => "down",
                            _ => "no-tunnel",
                        },
                    );
                    log::debug!("{}: {prefix}: {answer:?}", self.peer);
                    self.state.counters.unserved(answer);
                    return match kind {
                        HostKind::Http => {
                            error_page::http(&conn, answer, answer_kind == ErrorAnswer::Head).await
                        }
                        HostKind::Tls => error_page::no_such_server_name(&conn).await,
                    };
                }
            }
        }
    }
}

/// Returns where a visitor comes from that has connected to this process, without what its TLS tells.
fn origin_of(conn: &Conn, peer: SocketAddr) -> VisitorOrigin {
    let local = conn.local_addr().ok();
    let port = local.map_or(0, |local| local.port());
    VisitorOrigin::direct(Transport::Tcp, peer, local.map(|local| local.ip()), port)
}

/// Records what becomes of a visitor's stream, if the visit is logged.
pub fn record(stream: &Stream, visit: &Option<Box<Visit>>) {
    if let Some(visit) = visit {
        stream.record(visit.stream());
    }
}

/// Sets how a visit ends, if it is logged.
pub fn end(visit: &mut Option<Box<Visit>>, how: &'static str) {
    if let Some(visit) = visit {
        visit.end(how);
    }
}

/// Leaves a visit to the other process, which logs it.
fn leave(visit: Option<Box<Visit>>) {
    if let Some(visit) = visit {
        visit.leave();
    }
}

/// Tells the client where a visitor comes from, if it wants to know. If this fails, the relay reports
/// it.
pub async fn introduce(stream: &mut Stream, origin: impl FnOnce() -> VisitorOrigin) {
    if stream.has_origin() {
        let _ = stream.write_all(&origin().encode()).await;
    }
}

/// The route of a visitor.
pub enum Route {
    /// A stream to its service.
    Stream(Stream),
    /// The other process, which has the client's tunnels or may get them.
    Process(ProcessLink),
    /// No client serves the destination.
    Unroutable(OpenResult),
}

/// Opens a stream or finds the process that can, and waits for a client that was connected
/// recently. `from` is the other process that has accepted the visitor; `None` if this one has.
/// `name` is the client's id, or its host prefix.
pub async fn find_route(
    state: &ServerState,
    from: Option<MessageOrigin>,
    name: &str,
    open: impl Fn() -> OpenResult,
) -> Route {
    let begun = clock::now();
    loop {
        let arrival = state.registry.next_registration(name);
        let opening = open();
        let parent = match &opening {
            OpenResult::Stream(_) => None,
            // A visitor from the parent must not go back there.
            OpenResult::Held if from != Some(MessageOrigin::Parent) => state.transfer.parent(),
            _ => None,
        };
        let opening = match (opening, parent.or_else(|| state.transfer.child())) {
            (OpenResult::Stream(stream), _) => return Route::Stream(stream),
            (opening @ OpenResult::Pausing, _) => opening,
            // Its client is here, and has no other process to go to.
            (opening @ OpenResult::Down, _) => return Route::Unroutable(opening),
            (_, Some(link)) => return Route::Process(link),
            (opening @ OpenResult::Unknown, None) => return Route::Unroutable(opening),
            (opening, None) => opening,
        };
        let arrived = async {
            arrival.await;
            true
        };
        // After a drain begins there may be a child process.
        let making_way = async {
            match state.stop.is_triggered() {
                true => future::pending().await,
                false => state.stop.wait().await,
            }
            true
        };
        let timeout = async {
            Timer::at(begun + state.registry.reconnect_wait()).await;
            false
        };
        if !future::or(future::or(arrived, making_way), timeout).await {
            let child = state.transfer.child();
            return child.map_or(Route::Unroutable(opening), Route::Process);
        }
    }
}

/// The answer to a visitor whose service does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorAnswer {
    /// No answer: the connection is closed.
    Nothing,
    /// An error page.
    Page,
    /// The head of an error page, since the request was HEAD.
    Head,
}

/// Spawns the relay as a task of its own, which is smaller than the task of the handshake, on the
/// executor thread of the tunnel.
pub fn relay(
    state: Arc<ServerState>,
    stream: Stream,
    (conn, visitor, mut seen): (Arc<Conn>, IpAddr, Seen),
    answer_kind: ErrorAnswer,
    held: (Permit, Option<Box<Visit>>),
) {
    let thread = stream.thread();
    if let Err(e) = conn.move_to(thread) {
        return log::warn!("serving a visitor: {e}");
    }
    let relay = Relay::visitor(stream, conn.clone(), answer_kind != ErrorAnswer::Nothing);
    let serving = state.serving.begin();
    let listed = state.live_visitors.list(held.1.as_deref());
    net::spawn_on(thread, async move {
        let _held = (serving, held);
        let is_admitted =
            || Listed::may_stay(&listed) && still_admits(&state.settings, &mut seen, visitor);
        let answer = match relay.while_admitted(is_admitted).await {
            RelayOutcome::Done => return,
            RelayOutcome::Unanswered(
                CloseReason::TimedOut | CloseReason::Reset(ResetCode::TimedOut),
            ) => ErrorPage::TimedOut,
            RelayOutcome::Unanswered(CloseReason::Reset(ResetCode::NotAllowed)) => {
                ErrorPage::NotAllowed
            }
            RelayOutcome::Unanswered(_) => ErrorPage::NotReached,
        };
        state.counters.unserved(answer);
        Box::pin(error_page::http(
            &conn,
            answer,
            answer_kind == ErrorAnswer::Head,
        ))
        .await;
    });
}
