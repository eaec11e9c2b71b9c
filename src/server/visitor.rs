//! Whoever connects: reads just enough to know whether it is a tunnel or a visitor and where
//! a visitor wants to go, and brings it there.

use super::answer::{self, Answer};
use super::client_hello;
use super::http_head;
use super::one_request::OneRequest;
use super::places::Place;
use super::ports::Opened;
use super::registry::{Kind, Opening};
use super::rules::Rules;
use super::session::{self, Arrival};
use super::transfer::{self, Sender};
use super::State;
use crate::config::label::ascii;
use crate::handover::{Destination, Host, Link, Message};
use crate::net::follow::is_head_request;
use crate::net::tls::{self, Acceptor};
use crate::net::{until, with_scratch, Conn, Socket, Working};
use crate::tunnel::{Finish, Relay, Stream, Why};
use crate::wire::frame::Reason;
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
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of the first read: an ordinary head, and no more.
const FIRST: usize = 2048;

/// What a listener is for, beside tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Http,
    /// HTTP inside of TLS.
    Https,
    /// TLS that is passed on as it is.
    Sni,
}

/// Serves one connection of a listener, whoever it is.
pub fn greet(
    state: Arc<State>,
    socket: Socket,
    peer: SocketAddr,
    door: Door,
    place: Place,
) -> impl Future<Output = ()> {
    Caller::new(state, peer, door, place).serve(Arc::new(Conn::from(socket)))
}

/// The same inside of TLS.
pub async fn greet_tls(
    state: Arc<State>,
    socket: Socket,
    peer: SocketAddr,
    acceptor: Acceptor,
    place: Place,
) {
    let mut caller = Caller::new(state, peer, Door::Https, place);
    let deadline = caller.deadline;
    let handshake = async {
        let first = tls::client_hello(&socket).await?;
        if tls::is_plain_http(first) {
            Box::pin(caller.answer_plain(Conn::from(socket))).await;
            return Ok(None);
        }
        Box::pin(acceptor.accept(socket)).await.map(Some)
    };
    match until(deadline, handshake).await {
        Some(Ok(Some(conn))) => Box::pin(caller.serve(Arc::new(conn))).await,
        Some(Ok(None)) => {}
        Some(Err(e)) => log::debug!("{peer}: TLS handshake: {e}"),
        None => log::debug!("{peer}: the TLS handshake took too long"),
    }
}

/// Accepts the visitors of a client's TCP port until the port is closed.
pub async fn accept_port(state: Arc<State>, id: Box<str>, port: Opened) {
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
    state: &Arc<State>,
    (id, port): (&str, u16),
    socket: Socket,
    (peer, from): (SocketAddr, Option<Sender>),
    mut place: Place,
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
                return relay(state.clone(), stream, conn, Owed::Nothing, place);
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
                state.counters.unserved(Answer::NoTunnel);
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
    state: Arc<State>,
    visitor: Moved,
    to: Destination,
    from: Sender,
    place: Place,
) {
    let Moved { socket, peer, head } = visitor;
    match to {
        Destination::Host(host) => {
            let door = if host.tls { Door::Sni } else { Door::Http };
            let (kind, prefix) = transfer::key(&host);
            let mut caller = Caller::new(state, peer, door, place);
            caller.head = head;
            caller.from = Some(from);
            caller.go(Arc::new(socket.into()), kind, &prefix).await;
        }
        Destination::Port { id, port } => {
            serve_port(&state, (&id, port), socket, (peer, Some(from)), place).await;
        }
    }
}

/// Where a connection wants to go.
enum Way {
    Tunnel(Version),
    Visitor(Visit),
}

/// What becomes of a visitor.
enum Visit {
    Host(Kind, String),
    /// An HTTP visitor that cannot be helped.
    Wrong(Answer),
    /// A TLS visitor that does not say where.
    Nameless,
    /// Nobody to answer.
    Nowhere(&'static str),
}

/// Whoever has connected, until he has said what he wants and who he is. That and one deadline
/// are all that is held of him: what comes after it is large, and made when it comes.
pub struct Caller {
    pub state: Arc<State>,
    /// Those it has come under.
    pub rules: Arc<Rules>,
    pub peer: SocketAddr,
    pub deadline: Instant,
    /// What has been read and not been used.
    pub head: Vec<u8>,
    pub greeting: Working,
    pub place: Place,
    door: Door,
    /// The process that has met it, if that was another one.
    from: Option<Sender>,
}

impl Caller {
    fn new(state: Arc<State>, peer: SocketAddr, door: Door, place: Place) -> Self {
        Self {
            rules: state.rules.get(),
            greeting: state.greeting.begin(),
            state,
            peer,
            deadline: Instant::now() + PATIENCE,
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
            let visit = match until(self.deadline, self.find_way(&conn)).await {
                Some(Way::Tunnel(version)) => {
                    self.head.drain(..2);
                    let mut arrival = Box::new(Arrival::new(version));
                    let met = until(self.deadline, arrival.meet(&mut self, &conn)).await;
                    drop(arrival);
                    return Box::pin(session::serve(self, conn, version, met)).await;
                }
                Some(Way::Visitor(visit)) => visit,
                None if self.is_http() && !self.head.is_empty() => {
                    Visit::Wrong(Answer::TimedOutReading)
                }
                None => Visit::Nowhere("it did not say what it wants"),
            };
            Box::pin(self.visit(conn, visit)).await;
        }
    }

    /// Tells a visitor that speaks HTTP without TLS where that is expected.
    async fn answer_plain(&mut self, conn: Conn) {
        if read_plain_request(&conn, &mut self.head).await.is_ok() {
            self.answer(&conn, Answer::BadRequest(PLAIN_HTTP)).await;
        }
    }

    /// Answers in place of a service.
    async fn answer(&self, conn: &Conn, answer: Answer) {
        log::debug!("{}: {answer:?}", self.peer);
        self.state.counters.unserved(answer);
        answer::http(conn, answer, is_head_request(&self.head)).await;
    }

    fn is_http(&self) -> bool {
        self.door != Door::Sni
    }

    async fn find_way(&mut self, conn: &Conn) -> Way {
        loop {
            if let Some(way) = self.look() {
                return way;
            }
            let most = if self.head.is_empty() {
                FIRST
            } else {
                client_hello::MAX
            };
            let nowhere = match read_more(conn, &mut self.head, most).await {
                Ok(1..) => continue,
                Ok(0) if self.head.is_empty() => Visit::Nowhere("closed without a word"),
                Ok(0) if self.is_http() => {
                    Visit::Wrong(Answer::BadRequest("the request is cut short"))
                }
                _ => Visit::Nowhere("closed in the middle of its first words"),
            };
            return Way::Visitor(nowhere);
        }
    }

    /// What the bytes so far say; `None` while they do not.
    fn look(&self) -> Option<Way> {
        match self.head.as_slice() {
            [] | [MAGIC] => return None,
            [MAGIC, version, ..] => {
                let version = Version::of(*version);
                let spoken = version.filter(|version| self.rules.wire.allows(*version));
                let unknown = Visit::Nowhere("a tunnel of a version that is not spoken here");
                return Some(spoken.map_or(Way::Visitor(unknown), Way::Tunnel));
            }
            _ => {}
        }
        let visit = if self.is_http() {
            match http_head::find(&self.head, &self.rules.mux_header) {
                http_head::Found::More => return None,
                http_head::Found::Value(value) => {
                    let prefix = match self.rules.routes_by_host() {
                        true => http_head::host_prefix(value),
                        false => ascii(value).into_owned(),
                    };
                    Visit::Host(Kind::Http, prefix)
                }
                http_head::Found::TooLong => Visit::Wrong(Answer::HeadTooLong),
                http_head::Found::Bad(why) => Visit::Wrong(Answer::BadRequest(why)),
            }
        } else {
            match client_hello::server_name(&self.head) {
                client_hello::Found::More => return None,
                client_hello::Found::Name(name) => {
                    Visit::Host(Kind::Tls, http_head::host_prefix(&name))
                }
                client_hello::Found::Nameless => Visit::Nameless,
                client_hello::Found::Bad => Visit::Nowhere("neither a tunnel nor TLS"),
            }
        };
        Some(Way::Visitor(visit))
    }

    /// Brings the visitor where it wants to go, or tells it why not.
    async fn visit(self, conn: Arc<Conn>, visit: Visit) {
        let peer = self.peer;
        match visit {
            Visit::Host(kind, prefix) => self.go(conn, kind, &prefix).await,
            Visit::Wrong(answer) => self.answer(&conn, answer).await,
            Visit::Nameless => answer::no_such_server_name(&conn).await,
            Visit::Nowhere(why) => log::debug!("{peer}: {why}"),
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
    async fn go(mut self, mut conn: Arc<Conn>, kind: Kind, prefix: &str) {
        let owed = match (self.is_http(), is_head_request(&self.head)) {
            (false, _) => Owed::Nothing,
            (true, false) => Owed::Page,
            (true, true) => Owed::Head,
        };
        if self.is_shared() {
            match OneRequest::start(conn.clone(), &self.head) {
                Ok((first, one)) => (self.head, conn) = (first, one),
                Err(refusal) => return self.answer(&conn, Answer::from(refusal)).await,
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
                    let host = Host {
                        tls: kind == Kind::Tls,
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
                        Opening::Unknown if !self.rules.users.expects(prefix) => Answer::NoSuchHost,
                        _ => Answer::NoTunnel,
                    };
                    log::debug!("{}: {prefix}: {answer:?}", self.peer);
                    self.state.counters.unserved(answer);
                    return match kind {
                        Kind::Http => answer::http(&conn, answer, owed == Owed::Head).await,
                        Kind::Tls => answer::no_such_server_name(&conn).await,
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
    Process(Link),
    Nowhere(Opening),
}

/// Opens a stream, or finds the process that may, and gives a client that was here lately a moment
/// to come back. The visitor has come `from` another process, or to this one.
async fn find_route(state: &State, from: Option<Sender>, open: impl Fn() -> Opening) -> Route {
    let begun = Instant::now();
    loop {
        let arrival = state.registry.arrival();
        let opening = open();
        let parent = match &opening {
            Opening::Stream(_) => None,
            // What comes from there does not go there again.
            Opening::Held if from != Some(Sender::Parent) => state.transfer.parent(),
            _ => None,
        };
        let opening = match (opening, parent.or_else(|| state.transfer.child())) {
            (Opening::Stream(stream), _) => return Route::Stream(stream),
            (opening @ Opening::Pausing, _) => opening,
            (_, Some(link)) => return Route::Process(link),
            (opening @ Opening::Unknown, None) => return Route::Nowhere(opening),
            (opening, None) => opening,
        };
        let arrived = async {
            arrival.await;
            true
        };
        // Then there may be another process.
        let making_way = async {
            match state.stop.is_said() {
                true => future::pending().await,
                false => state.stop.heard().await,
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
enum Owed {
    Nothing,
    Page,
    /// An answer to HEAD, which has no body.
    Head,
}

/// Leaves the visitor to a task of its own, which is small: this one has done its work.
fn relay(state: Arc<State>, stream: Stream, conn: Arc<Conn>, owed: Owed, place: Place) {
    let relay = Relay::visitor(stream, conn.clone(), owed != Owed::Nothing);
    let serving = state.serving.begin();
    crate::spawn(async move {
        let _held = (serving, place);
        let answer = match relay.await {
            Finish::Done => return,
            Finish::Unanswered(Why::TimedOut | Why::Reset(Reason::TimedOut)) => Answer::TimedOut,
            Finish::Unanswered(_) => Answer::NotReached,
        };
        state.counters.unserved(answer);
        Box::pin(answer::http(&conn, answer, owed == Owed::Head)).await;
    });
}

/// What a visitor is told that speaks HTTP where TLS is expected.
pub const PLAIN_HTTP: &str = "The plain HTTP request was sent to HTTPS port; use https://";

/// Reads what may be a request without TLS as far as its first line. The error is that nothing came.
pub async fn read_plain_request(conn: &Conn, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.contains(&b'\n') && bytes.len() < FIRST {
        if read_more(conn, bytes, FIRST).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Appends what the connection has, until there are `most` bytes. 0 is its end.
pub async fn read_more(conn: &Conn, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        with_scratch(|scratch| {
            let room = most.saturating_sub(bytes.len()).clamp(1, scratch.len());
            let scratch = scratch.get_mut(..room).unwrap_or_default();
            let n = ready!(conn.poll_read(cx, scratch))?;
            bytes.extend_from_slice(scratch.get(..n).unwrap_or_default());
            std::task::Poll::Ready(Ok(n))
        })
    })
    .await
}
