//! Accepted connections: reads just enough to tell a tunnel from a visitor and to find the visitor's
//! destination, then forwards it there.

use super::client_hello;
use super::connection_limit::Permit;
use super::error_page::{self, ErrorPage};
use super::http_head;
use super::one_request::OneRequest;
use super::ports::OpenedPort;
use super::registry::{HostKind, OpenResult};
use super::session::{self, Handshake};
use super::settings::Settings;
use super::transfer::{self, MessageOrigin};
use super::ServerState;
use crate::config::label::ascii;
use crate::handover::{Destination, HostKey, Message, ProcessLink};
use crate::net::follow::is_head_request;
use crate::net::tls::{self, Acceptor};
use crate::net::{timeout_at, with_read_buf, Conn, Socket, TaskGuard};
use crate::tunnel::{CloseReason, Relay, RelayOutcome, Stream};
use crate::wire::frame::ResetCode;
use crate::wire::{Version, MAGIC};
use async_io::Timer;
use futures_lite::{future, AsyncWriteExt};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};

/// How long a visitor may take to send its destination, and a client its credentials.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Size of the first read in bytes: fits an ordinary request head.
const FIRST_READ: usize = 2048;

/// What a listener accepts besides tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS that the server terminates.
    Https,
    /// TLS that is forwarded as it is, routed by server name.
    Sni,
}

/// Serves one accepted connection.
pub fn greet(
    state: Arc<ServerState>,
    socket: Socket,
    peer: SocketAddr,
    door: ListenerKind,
    place: Permit,
) -> impl Future<Output = ()> {
    Incoming::new(state, peer, door, place).serve(Arc::new(Conn::from(socket)))
}

/// Serves one accepted connection after a TLS handshake.
pub async fn greet_tls(
    state: Arc<ServerState>,
    socket: Socket,
    peer: SocketAddr,
    acceptor: Acceptor,
    place: Permit,
) {
    let mut incoming = Incoming::new(state, peer, ListenerKind::Https, place);
    let deadline = incoming.deadline;
    let handshake = async {
        let first = tls::client_hello(&socket).await?;
        if tls::is_plain_http(first) {
            Box::pin(incoming.answer_plain(Conn::from(socket))).await;
            return Ok(None);
        }
        Box::pin(acceptor.accept(socket)).await.map(Some)
    };
    match timeout_at(deadline, handshake).await {
        Some(Ok(Some(conn))) => Box::pin(incoming.serve(Arc::new(conn))).await,
        Some(Ok(None)) => {}
        Some(Err(e)) => log::debug!("{peer}: TLS handshake: {e}"),
        None => log::debug!("{peer}: the TLS handshake took too long"),
    }
}

/// Accepts the visitors of a client's TCP port until the port is closed.
pub async fn accept_port(state: Arc<ServerState>, id: Box<str>, port: OpenedPort) {
    let accepting = async {
        loop {
            let (socket, peer) = port.listener.accept().await;
            let Some(place) = state.places.take(peer.ip()) else {
                continue;
            };
            let (state, id, port) = (state.clone(), id.clone(), port.port);
            let greeting = state.greeting.begin();
            crate::spawn(async move {
                serve_port(&state, (&id, port), socket, (peer, None), place).await;
                drop(greeting);
            });
        }
    };
    port.stop.or::<()>(accepting).await;
}

/// Forwards a visitor of a client's TCP port to its service.
async fn serve_port(
    state: &Arc<ServerState>,
    (id, port): (&str, u16),
    socket: Socket,
    (peer, from): (SocketAddr, Option<MessageOrigin>),
    mut place: Permit,
) {
    let mut conn = Arc::new(Conn::from(socket));
    let open = || state.registry.open_port(id, port);
    loop {
        match find_route(state, from, open).await {
            Route::Stream(stream) => {
                // The service may speak first, so open the stream at once. There is no idle
                // timeout: shells stay quiet for hours.
                stream.announce();
                if stream.is_outdated() {
                    continue;
                }
                return relay(state.clone(), stream, conn, ErrorAnswer::Nothing, place);
            }
            Route::Process(link) => {
                let id = id.to_owned();
                let visitor = Message::Visitor {
                    to: Destination::Port { id, port },
                    peer,
                    head: Vec::new(),
                };
                match state.bring(&link, visitor, conn, place).await {
                    Err(Some(back)) => (conn, place) = back,
                    Ok(()) | Err(None) => return,
                }
            }
            Route::Nowhere(_) => {
                state.counters.unserved(ErrorPage::NoTunnel);
                return log::debug!("no tunnel of {id} for a visitor of its TCP port {port}");
            }
        }
    }
}

/// A visitor received from another process.
pub struct Moved {
    /// The visitor's socket, or that of a bridge to it.
    pub socket: Socket,
    /// The visitor's address, which may differ from the socket's peer.
    pub peer: SocketAddr,
    /// Bytes already read from the visitor.
    pub head: Vec<u8>,
}

/// Serves a visitor that another process (`from`) has accepted.
pub async fn resume(
    state: Arc<ServerState>,
    visitor: Moved,
    to: Destination,
    from: MessageOrigin,
    place: Permit,
) {
    let Moved { socket, peer, head } = visitor;
    match to {
        Destination::Host(host) => {
            let door = if host.tls {
                ListenerKind::Sni
            } else {
                ListenerKind::Http
            };
            let (kind, prefix) = transfer::key(&host);
            let mut incoming = Incoming::new(state, peer, door, place);
            incoming.head = head;
            incoming.from = Some(from);
            incoming
                .forward(Arc::new(socket.into()), kind, &prefix)
                .await;
        }
        Destination::Port { id, port } => {
            serve_port(&state, (&id, port), socket, (peer, Some(from)), place).await;
        }
    }
}

/// What the first bytes of a connection ask for.
enum Sniffed {
    Tunnel(Version),
    Visitor(VisitorRequest),
}

/// The destination of a visitor, or why it has none.
enum VisitorRequest {
    /// A host prefix.
    Host(HostKind, String),
    /// An HTTP request that cannot be served.
    Wrong(ErrorPage),
    /// A TLS handshake without a server name.
    Nameless,
    /// Nothing that could be answered; the reason is for the log.
    Nowhere(&'static str),
}

/// An accepted connection whose destination and identity are not known yet. It holds little;
/// everything larger is allocated once the connection needs it.
pub struct Incoming {
    pub state: Arc<ServerState>,
    /// The settings in force when the connection was accepted.
    pub rules: Arc<Settings>,
    pub peer: SocketAddr,
    pub deadline: Instant,
    /// Bytes read but not used yet.
    pub head: Vec<u8>,
    pub greeting: TaskGuard,
    pub place: Permit,
    door: ListenerKind,
    /// The process that has accepted it, if another one.
    from: Option<MessageOrigin>,
}

impl Incoming {
    fn new(state: Arc<ServerState>, peer: SocketAddr, door: ListenerKind, place: Permit) -> Self {
        Self {
            rules: state.rules.get(),
            greeting: state.greeting.begin(),
            state,
            peer,
            deadline: Instant::now() + HANDSHAKE_TIMEOUT,
            head: Vec::new(),
            place,
            door,
            from: None,
        }
    }

    // An `async fn` would hold its arguments twice.
    #[allow(clippy::manual_async_fn)]
    fn serve(mut self, conn: Arc<Conn>) -> impl Future<Output = ()> {
        async move {
            let request = match timeout_at(self.deadline, self.sniff(&conn)).await {
                Some(Sniffed::Tunnel(version)) => {
                    self.head.drain(..2);
                    let mut handshake = Box::new(Handshake::new(version));
                    let hello =
                        timeout_at(self.deadline, handshake.read_hello(&mut self, &conn)).await;
                    drop(handshake);
                    return Box::pin(session::serve(self, conn, version, hello)).await;
                }
                Some(Sniffed::Visitor(request)) => request,
                None if self.is_http() && !self.head.is_empty() => {
                    VisitorRequest::Wrong(ErrorPage::TimedOutReading)
                }
                None => VisitorRequest::Nowhere("timed out before its destination was known"),
            };
            Box::pin(self.visit(conn, request)).await;
        }
    }

    /// Answers a plain HTTP request on a TLS listener with an error.
    async fn answer_plain(&mut self, conn: Conn) {
        if read_plain_request(&conn, &mut self.head).await.is_ok() {
            self.answer(&conn, ErrorPage::BadRequest(PLAIN_HTTP)).await;
        }
    }

    /// Answers with an error page.
    async fn answer(&self, conn: &Conn, answer: ErrorPage) {
        log::debug!("{}: {answer:?}", self.peer);
        self.state.counters.unserved(answer);
        error_page::http(conn, answer, is_head_request(&self.head)).await;
    }

    fn is_http(&self) -> bool {
        self.door != ListenerKind::Sni
    }

    async fn sniff(&mut self, conn: &Conn) -> Sniffed {
        loop {
            if let Some(sniffed) = self.parse() {
                return sniffed;
            }
            let most = if self.head.is_empty() {
                FIRST_READ
            } else {
                client_hello::MAX_CLIENT_HELLO
            };
            let nowhere = match read_more(conn, &mut self.head, most).await {
                Ok(1..) => continue,
                Ok(0) if self.head.is_empty() => VisitorRequest::Nowhere("closed without sending"),
                Ok(0) if self.is_http() => {
                    VisitorRequest::Wrong(ErrorPage::BadRequest("the request is cut short"))
                }
                _ => VisitorRequest::Nowhere("closed before its destination was known"),
            };
            return Sniffed::Visitor(nowhere);
        }
    }

    /// Parses the bytes read so far; `None` if more are needed.
    fn parse(&self) -> Option<Sniffed> {
        match self.head.as_slice() {
            [] | [MAGIC] => return None,
            [MAGIC, version, ..] => {
                let version = Version::of(*version);
                let spoken = version.filter(|version| self.rules.wire.allows(*version));
                let unknown = VisitorRequest::Nowhere("a tunnel of a version that is not enabled");
                return Some(spoken.map_or(Sniffed::Visitor(unknown), Sniffed::Tunnel));
            }
            _ => {}
        }
        let request = if self.is_http() {
            match http_head::find(&self.head, &self.rules.mux_header) {
                http_head::HeadResult::More => return None,
                http_head::HeadResult::Value(value) => {
                    let prefix = match self.rules.routes_by_host() {
                        true => http_head::host_prefix(value),
                        false => ascii(value).into_owned(),
                    };
                    VisitorRequest::Host(HostKind::Http, prefix)
                }
                http_head::HeadResult::TooLong => VisitorRequest::Wrong(ErrorPage::HeadTooLong),
                http_head::HeadResult::Bad(why) => {
                    VisitorRequest::Wrong(ErrorPage::BadRequest(why))
                }
            }
        } else {
            match client_hello::server_name(&self.head) {
                client_hello::HelloResult::More => return None,
                client_hello::HelloResult::Name(name) => {
                    VisitorRequest::Host(HostKind::Tls, http_head::host_prefix(&name))
                }
                client_hello::HelloResult::Nameless => VisitorRequest::Nameless,
                client_hello::HelloResult::Bad => {
                    VisitorRequest::Nowhere("neither a tunnel nor TLS")
                }
            }
        };
        Some(Sniffed::Visitor(request))
    }

    /// Forwards the visitor to its destination, or answers with an error.
    async fn visit(self, conn: Arc<Conn>, request: VisitorRequest) {
        let peer = self.peer;
        match request {
            VisitorRequest::Host(kind, prefix) => self.forward(conn, kind, &prefix).await,
            VisitorRequest::Wrong(answer) => self.answer(&conn, answer).await,
            VisitorRequest::Nameless => error_page::no_such_server_name(&conn).await,
            VisitorRequest::Nowhere(why) => log::debug!("{peer}: {why}"),
        }
    }

    /// Whether the connection may carry requests for other hosts, as one from a proxy does.
    fn is_shared(&self) -> bool {
        let addr = self.peer.ip();
        let mut proxies = self.rules.front_proxies.iter();
        self.is_http()
            && (proxies.any(|proxies| proxies.contains(addr)) || http_head::shows_proxy(&self.head))
    }

    /// Forwards the visitor to its service.
    async fn forward(mut self, mut conn: Arc<Conn>, kind: HostKind, prefix: &str) {
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
        let open = || self.state.registry.open_host(kind, prefix);
        loop {
            match find_route(&self.state, self.from, open).await {
                Route::Stream(mut stream) => {
                    stream.limit_idle(self.rules.timeout, self.rules.unidirectional);
                    // If this fails, the relay reports it.
                    let _ = stream.write_all(&self.head).await;
                    if stream.is_outdated() {
                        continue;
                    }
                    return relay(self.state, stream, conn, answer_kind, self.place);
                }
                Route::Process(link) => {
                    let host = HostKey {
                        tls: kind == HostKind::Tls,
                        prefix: prefix.to_owned(),
                    };
                    let visitor = Message::Visitor {
                        to: Destination::Host(host),
                        peer: self.peer,
                        head: self.head.clone(),
                    };
                    match self.state.bring(&link, visitor, conn, self.place).await {
                        Err(Some(back)) => (conn, self.place) = back,
                        Ok(()) | Err(None) => return,
                    }
                }
                Route::Nowhere(missing) => {
                    let answer = match missing {
                        OpenResult::Unknown if !self.rules.users.expects(prefix) => {
                            ErrorPage::NoSuchHost
                        }
                        _ => ErrorPage::NoTunnel,
                    };
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

/// Where a visitor can be forwarded to.
enum Route {
    /// A stream to its service.
    Stream(Stream),
    /// The other process, which has the client's tunnels or may get them.
    Process(ProcessLink),
    /// No client serves the destination.
    Nowhere(OpenResult),
}

/// Opens a stream or finds the process that can, and waits for a client that was connected
/// recently. `from` is the process that has accepted the visitor, if another one.
async fn find_route(
    state: &ServerState,
    from: Option<MessageOrigin>,
    open: impl Fn() -> OpenResult,
) -> Route {
    let begun = Instant::now();
    loop {
        let arrival = state.registry.next_registration();
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
            (_, Some(link)) => return Route::Process(link),
            (opening @ OpenResult::Unknown, None) => return Route::Nowhere(opening),
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
            Timer::at(begun + state.registry.patience()).await;
            false
        };
        if !future::or(future::or(arrived, making_way), timeout).await {
            let child = state.transfer.child();
            return child.map_or(Route::Nowhere(opening), Route::Process);
        }
    }
}

/// How to answer a visitor whose service does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorAnswer {
    /// Close the connection.
    Nothing,
    /// An error page.
    Page,
    /// The head of an error page: the request was HEAD.
    Head,
}

/// Spawns the relay as a task of its own, which is smaller than the task of the handshake.
fn relay(
    state: Arc<ServerState>,
    stream: Stream,
    conn: Arc<Conn>,
    answer_kind: ErrorAnswer,
    place: Permit,
) {
    let relay = Relay::visitor(stream, conn.clone(), answer_kind != ErrorAnswer::Nothing);
    let serving = state.serving.begin();
    crate::spawn(async move {
        let _held = (serving, place);
        let answer = match relay.await {
            RelayOutcome::Done => return,
            RelayOutcome::Unanswered(
                CloseReason::TimedOut | CloseReason::Reset(ResetCode::TimedOut),
            ) => ErrorPage::TimedOut,
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

/// The error for plain HTTP on a TLS listener.
pub const PLAIN_HTTP: &str = "The plain HTTP request was sent to HTTPS port; use https://";

/// Reads a plain HTTP request up to the end of its first line. Fails if nothing arrives.
pub async fn read_plain_request(conn: &Conn, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.contains(&b'\n') && bytes.len() < FIRST_READ {
        if read_more(conn, bytes, FIRST_READ).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads once and appends to `bytes`, up to a total of `most`. Returns 0 at the end.
pub async fn read_more(conn: &Conn, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        with_read_buf(|buf| {
            let room = most.saturating_sub(bytes.len()).clamp(1, buf.len());
            let buf = buf.get_mut(..room).unwrap_or_default();
            let n = ready!(conn.poll_read(cx, buf))?;
            bytes.extend_from_slice(buf.get(..n).unwrap_or_default());
            std::task::Poll::Ready(Ok(n))
        })
    })
    .await
}
