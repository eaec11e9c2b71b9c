//! Whoever connects: reads just enough to know whether it is a tunnel or a visitor and where
//! a visitor wants to go, and brings it there.

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

/// How long a visitor has to say where it wants to go, and a client to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the first read: an ordinary head, and no more.
const FIRST_READ: usize = 2048;

/// What a listener is for, beside tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    Http,
    /// HTTP inside of TLS.
    Https,
    /// TLS that is passed on as it is.
    Sni,
}

/// Serves one connection of a listener, whoever it is.
pub fn greet(
    state: Arc<ServerState>,
    socket: Socket,
    peer: SocketAddr,
    door: ListenerKind,
    place: Permit,
) -> impl Future<Output = ()> {
    Incoming::new(state, peer, door, place).serve(Arc::new(Conn::from(socket)))
}

/// The same inside of TLS.
pub async fn greet_tls(
    state: Arc<ServerState>,
    socket: Socket,
    peer: SocketAddr,
    acceptor: Acceptor,
    place: Permit,
) {
    let mut caller = Incoming::new(state, peer, ListenerKind::Https, place);
    let deadline = caller.deadline;
    let handshake = async {
        let first = tls::client_hello(&socket).await?;
        if tls::is_plain_http(first) {
            Box::pin(caller.answer_plain(Conn::from(socket))).await;
            return Ok(None);
        }
        Box::pin(acceptor.accept(socket)).await.map(Some)
    };
    match timeout_at(deadline, handshake).await {
        Some(Ok(Some(conn))) => Box::pin(caller.serve(Arc::new(conn))).await,
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

/// Brings a visitor of a client's TCP port to its service.
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
                // The service may be the one that speaks first. There is no limit to its
                // silence: shells are left alone for hours.
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

/// A visitor that another process has met.
pub struct Moved {
    /// Its own, or that of a bridge to it.
    pub socket: Socket,
    /// Its address, whatever that of the socket is.
    pub peer: SocketAddr,
    /// What has been read from it.
    pub head: Vec<u8>,
}

/// Goes on with a visitor that comes `from` another process.
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
            let mut caller = Incoming::new(state, peer, door, place);
            caller.head = head;
            caller.from = Some(from);
            caller.forward(Arc::new(socket.into()), kind, &prefix).await;
        }
        Destination::Port { id, port } => {
            serve_port(&state, (&id, port), socket, (peer, Some(from)), place).await;
        }
    }
}

/// Where a connection wants to go.
enum Sniffed {
    Tunnel(Version),
    Visitor(VisitorRequest),
}

/// What becomes of a visitor.
enum VisitorRequest {
    Host(HostKind, String),
    /// An HTTP visitor that cannot be helped.
    Wrong(ErrorPage),
    /// A TLS visitor that does not say where.
    Nameless,
    /// Nobody to answer.
    Nowhere(&'static str),
}

/// Whoever has connected, until he has said what he wants and who he is. That and one deadline
/// are all that is held of him: what comes after it is large, and made when it comes.
pub struct Incoming {
    pub state: Arc<ServerState>,
    /// Those it has come under.
    pub rules: Arc<Settings>,
    pub peer: SocketAddr,
    pub deadline: Instant,
    /// What has been read and not been used.
    pub head: Vec<u8>,
    pub greeting: TaskGuard,
    pub place: Permit,
    door: ListenerKind,
    /// The process that has met it, if that was another one.
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

    // An `async fn` would hold all it is given twice.
    #[allow(clippy::manual_async_fn)]
    fn serve(mut self, conn: Arc<Conn>) -> impl Future<Output = ()> {
        async move {
            let visit = match timeout_at(self.deadline, self.sniff(&conn)).await {
                Some(Sniffed::Tunnel(version)) => {
                    self.head.drain(..2);
                    let mut arrival = Box::new(Handshake::new(version));
                    let met = timeout_at(self.deadline, arrival.read_hello(&mut self, &conn)).await;
                    drop(arrival);
                    return Box::pin(session::serve(self, conn, version, met)).await;
                }
                Some(Sniffed::Visitor(visit)) => visit,
                None if self.is_http() && !self.head.is_empty() => {
                    VisitorRequest::Wrong(ErrorPage::TimedOutReading)
                }
                None => VisitorRequest::Nowhere("it did not say what it wants"),
            };
            Box::pin(self.visit(conn, visit)).await;
        }
    }

    /// Tells a visitor that speaks HTTP without TLS where that is expected.
    async fn answer_plain(&mut self, conn: Conn) {
        if read_plain_request(&conn, &mut self.head).await.is_ok() {
            self.answer(&conn, ErrorPage::BadRequest(PLAIN_HTTP)).await;
        }
    }

    /// Answers in place of a service.
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
            if let Some(way) = self.parse() {
                return way;
            }
            let most = if self.head.is_empty() {
                FIRST_READ
            } else {
                client_hello::MAX_CLIENT_HELLO
            };
            let nowhere = match read_more(conn, &mut self.head, most).await {
                Ok(1..) => continue,
                Ok(0) if self.head.is_empty() => VisitorRequest::Nowhere("closed without a word"),
                Ok(0) if self.is_http() => {
                    VisitorRequest::Wrong(ErrorPage::BadRequest("the request is cut short"))
                }
                _ => VisitorRequest::Nowhere("closed in the middle of its first words"),
            };
            return Sniffed::Visitor(nowhere);
        }
    }

    /// What the bytes so far say; `None` while they do not.
    fn parse(&self) -> Option<Sniffed> {
        match self.head.as_slice() {
            [] | [MAGIC] => return None,
            [MAGIC, version, ..] => {
                let version = Version::of(*version);
                let spoken = version.filter(|version| self.rules.wire.allows(*version));
                let unknown =
                    VisitorRequest::Nowhere("a tunnel of a version that is not spoken here");
                return Some(spoken.map_or(Sniffed::Visitor(unknown), Sniffed::Tunnel));
            }
            _ => {}
        }
        let visit = if self.is_http() {
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
        Some(Sniffed::Visitor(visit))
    }

    /// Brings the visitor where it wants to go, or tells it why not.
    async fn visit(self, conn: Arc<Conn>, visit: VisitorRequest) {
        let peer = self.peer;
        match visit {
            VisitorRequest::Host(kind, prefix) => self.forward(conn, kind, &prefix).await,
            VisitorRequest::Wrong(answer) => self.answer(&conn, answer).await,
            VisitorRequest::Nameless => error_page::no_such_server_name(&conn).await,
            VisitorRequest::Nowhere(why) => log::debug!("{peer}: {why}"),
        }
    }

    /// Whether the connection may go on with requests for other hosts.
    fn is_shared(&self) -> bool {
        let addr = self.peer.ip();
        let mut proxies = self.rules.front_proxies.iter();
        self.is_http()
            && (proxies.any(|proxies| proxies.contains(addr)) || http_head::shows_proxy(&self.head))
    }

    /// Brings the visitor to its service.
    async fn forward(mut self, mut conn: Arc<Conn>, kind: HostKind, prefix: &str) {
        let owed = match (self.is_http(), is_head_request(&self.head)) {
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
                    // If it fails, the relay finds out why.
                    let _ = stream.write_all(&self.head).await;
                    if stream.is_outdated() {
                        continue;
                    }
                    return relay(self.state, stream, conn, owed, self.place);
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
                            error_page::http(&conn, answer, owed == ErrorAnswer::Head).await
                        }
                        HostKind::Tls => error_page::no_such_server_name(&conn).await,
                    };
                }
            }
        }
    }
}

/// Where a visitor can be brought.
enum Route {
    Stream(Stream),
    /// Another process has its client's tunnels, or may get them.
    Process(ProcessLink),
    Nowhere(OpenResult),
}

/// Opens a stream, or finds the process that may, and gives a client that was here lately a moment
/// to come back. The visitor has come `from` another process, or to this one.
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
            // What comes from there does not go there again.
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
        // Then there may be another process.
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

/// What a visitor is told if its service does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorAnswer {
    Nothing,
    Page,
    /// An answer to HEAD, which has no body.
    Head,
}

/// Leaves the visitor to a task of its own, which is small: this one has done its work.
fn relay(
    state: Arc<ServerState>,
    stream: Stream,
    conn: Arc<Conn>,
    owed: ErrorAnswer,
    place: Permit,
) {
    let relay = Relay::visitor(stream, conn.clone(), owed != ErrorAnswer::Nothing);
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
        Box::pin(error_page::http(&conn, answer, owed == ErrorAnswer::Head)).await;
    });
}

/// What a visitor is told that speaks HTTP where TLS is expected.
pub const PLAIN_HTTP: &str = "The plain HTTP request was sent to HTTPS port; use https://";

/// Reads what may be a request without TLS as far as its first line. The error is that nothing came.
pub async fn read_plain_request(conn: &Conn, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.contains(&b'\n') && bytes.len() < FIRST_READ {
        if read_more(conn, bytes, FIRST_READ).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Appends what the connection has, until there are `most` bytes. 0 is its end.
pub async fn read_more(conn: &Conn, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        with_read_buf(|scratch| {
            let room = most.saturating_sub(bytes.len()).clamp(1, scratch.len());
            let scratch = scratch.get_mut(..room).unwrap_or_default();
            let n = ready!(conn.poll_read(cx, scratch))?;
            bytes.extend_from_slice(scratch.get(..n).unwrap_or_default());
            std::task::Poll::Ready(Ok(n))
        })
    })
    .await
}
