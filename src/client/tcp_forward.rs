//! Forwarding of a local port to another client (tcpForwardAddr): through data channels, spread
//! over a few peers, or through the server while there is no direct connection.

use super::connect::ConnectFailure;
use super::p2p::checks::IceRole;
use super::p2p::endpoint::Endpoint;
use super::p2p::link::PeerHandle;
use super::p2p::message::{MessageReader, SignalingMessage};
use super::p2p::peer::PeerState;
use super::p2p::sdp::{self, Description};
use super::p2p::signaling::{chunk, reflexive, SignalingResponse, RELAY};
use super::p2p::{begin, carry, ChannelConn, P2p, P2pError, LABEL};
use super::pool::Pool;
use super::reach::reach_as_visitor;
use crate::config::TcpForward;
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::{self, clock, timeout, Conn, Listener, Shutdown};
use crate::sync::{Mutex, MutexGuard};
use event_listener::Event;
use futures_lite::future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Time that a direct connection has to come up before the server is used (docs/p2p.md, "From
/// another gt").
const DIRECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after a failure of a direct connection in which none is waited for.
const DIRECT_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The end of a request's body: of the messages' own chunks, and of HTTP's.
const REQUEST_END: &[u8] = b"5\r\n0\r\n\r\n\r\n0\r\n\r\n";
/// Timeout for answers of the server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that one direction of a relayed connection may pause when the other has ended: as long as a
/// relay keeps a silent visitor.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a connection to the other client could not be set up.
#[derive(Debug)]
enum ForwardError {
    /// A connection failed.
    Io(io::Error),
    /// The server cannot be reached as a visitor.
    Unreachable(ConnectFailure),
    /// The remoteAPI has not told the server's address yet.
    UnknownServer,
    /// No peer could be created here.
    Peer(P2pError),
    /// The status of the other client's response, or of the server's in its place.
    Status(u16),
    /// The other client's answer or its description breaks the rules.
    BadAnswer(&'static str),
    /// The peer failed before it was connected.
    Unconnected,
    /// The other client does not support relays.
    CannotRelay,
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Unreachable(failure) => failure.fmt(f),
            Self::UnknownServer => f.write_str("the server's address is not known"),
            Self::Peer(e) => e.fmt(f),
            Self::Status(status) => {
                write!(f, "the other client answered {status}")?;
                f.write_str(match status {
                    403 => " (remoteSTUN is not set there, or it has no P2P)",
                    404 => " (no client has that host prefix)",
                    _ => "",
                })
            }
            Self::BadAnswer(why) => f.write_str(why),
            Self::Unconnected => f.write_str("the peer could not be reached"),
            Self::CannotRelay => write!(
                f,
                "the other client cannot relay: its answer does not repeat \"{RELAY}\" (it is an \
                 original GT or an older gt; update it, or set tcpForwardFallback to false)"
            ),
        }
    }
}

impl From<io::Error> for ForwardError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<io::ErrorKind> for ForwardError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

/// A running forwarder with its listener.
#[derive(Clone)]
pub struct TcpForwarder {
    listener: Arc<Listener>,
    config: TcpForward,
    stop: Shutdown,
}

/// A forwarder that listens and is not started yet.
pub struct PlannedForward {
    listener: Arc<Listener>,
    config: TcpForward,
}

impl PlannedForward {
    /// Listens, unless the `running` forwarder does or another process has handed over its socket.
    /// The error names the address.
    pub fn new(
        config: &TcpForward,
        running: Option<&TcpForwarder>,
        file: &Option<PathBuf>,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let same = |forward: &&TcpForwarder| forward.config.addr == config.addr;
        let listener = match running.filter(same) {
            Some(forward) => forward.listener.clone(),
            None => match inherited.listener(file, &config.addr) {
                Some(listener) => Arc::new(listener),
                None => {
                    let addr = &config.addr;
                    let listening = net::listen(addr.host.as_deref(), addr.port);
                    let listening = listening.map_err(|e| {
                        io::Error::new(e.kind(), format!("listening on tcpForwardAddr {addr}: {e}"))
                    });
                    Arc::new(listening?)
                }
            },
        };
        let config = config.clone();
        Ok(Self { listener, config })
    }

    /// Whether `running` already has this configuration and listener.
    pub fn is(&self, running: &TcpForwarder) -> bool {
        self.config == running.config && Arc::ptr_eq(&self.listener, &running.listener)
    }
}

impl TcpForwarder {
    /// Starts to accept connections.
    pub fn start(p2p: Arc<P2p>, pools: Vec<Arc<Pool>>, planned: PlannedForward) -> Self {
        let PlannedForward { listener, config } = planned;
        log::info!(
            "Listening tcpForwardAddr={} tcpForwardHostPrefix={}",
            config.addr,
            config.host_prefix
        );
        log::info!("acceptLoop started addr={}", listener.addr());
        let stop = Shutdown::default();
        let way = Arc::new(Forwarder {
            p2p,
            pools,
            config: config.clone(),
            inner: Mutex::new(ForwarderState {
                slots: vec![PeerSlot::Empty; config.connections.max(1)],
                failed: None,
            }),
            changed: Event::new(),
        });
        let (accepting, until) = (listener.clone(), stop.clone());
        crate::net::spawn(async move {
            let accept = async {
                loop {
                    let (socket, _) = accepting.accept().await;
                    let serving = way.p2p.context().serving.begin();
                    let way = way.clone();
                    crate::net::spawn(async move {
                        if let Err(e) = way.carry(Arc::new(socket.into())).await {
                            log::debug!("a forwarded connection: {e}");
                        }
                        drop(serving);
                    });
                }
            };
            until
                .or(future::or(accept, way.p2p.context().stop.wait()))
                .await;
        });
        Self {
            listener,
            config,
            stop,
        }
    }

    /// Stops accepting.
    pub fn stop(&self) {
        self.stop.trigger();
    }

    /// Returns the listener to hand over to the child process.
    pub fn share(&self) -> Outgoing {
        let addr = self.config.addr.to_string();
        (Item::Listener { addr }, Some(self.listener.clone()))
    }
}

/// The connections to the other client.
struct Forwarder {
    p2p: Arc<P2p>,
    pools: Vec<Arc<Pool>>,
    config: TcpForward,
    inner: Mutex<ForwarderState>,
    /// Notified when a slot has changed.
    changed: Event,
}

struct ForwarderState {
    slots: Vec<PeerSlot>,
    /// When a direct connection last failed.
    failed: Option<Instant>,
}

/// One of the peers that connections are spread over.
#[derive(Clone)]
enum PeerSlot {
    Empty,
    Connecting,
    Up(PeerHandle),
}

impl Forwarder {
    fn lock(&self) -> MutexGuard<'_, ForwarderState> {
        self.inner.lock()
    }

    async fn carry(self: &Arc<Self>, conn: Arc<Conn>) -> Result<(), ForwardError> {
        if let Some(channel) = timeout(DIRECT_TIMEOUT, self.channel()).await.flatten() {
            return Ok(carry(channel, conn).await?);
        }
        if self.config.fallback {
            let relayed = self.relay(&conn).await;
            if let Err(e) = &relayed {
                let prefix = &self.config.host_prefix;
                log::warn!("cannot reach {prefix}, neither directly nor through the server: {e}");
                conn.reset_on_close();
            }
            return relayed;
        }
        log::warn!(
            "no direct connection to {}, and tcpForwardFallback is off",
            self.config.host_prefix
        );
        conn.reset_on_close();
        Ok(())
    }

    /// Opens a channel of the peer that has the fewest channels. Waits for a peer that is
    /// connecting if none is up; `None` if none is to be expected.
    async fn channel(self: &Arc<Self>) -> Option<ChannelConn> {
        loop {
            let changed = self.changed.listen();
            {
                let mut inner = self.lock();
                for slot in &mut inner.slots {
                    let is_over = |link: &PeerHandle| {
                        let peer = link.lock();
                        *peer.state() != PeerState::Connected || !peer.has_ids()
                    };
                    if matches!(slot, PeerSlot::Up(link) if is_over(link)) {
                        *slot = PeerSlot::Empty;
                    }
                }
                let pauses = inner
                    .failed
                    .is_some_and(|at| clock::since(at) < DIRECT_RETRY_INTERVAL);
                let empty = inner
                    .slots
                    .iter()
                    .position(|slot| matches!(slot, PeerSlot::Empty));
                let connects = |slot: &PeerSlot| matches!(slot, PeerSlot::Connecting);
                let is_connecting = inner.slots.iter().any(connects);
                // One at a time: each new connection may add a peer.
                if let (Some(at), false, false) = (empty, pauses, is_connecting) {
                    if let Some(slot) = inner.slots.get_mut(at) {
                        *slot = PeerSlot::Connecting;
                        crate::net::spawn(self.clone().fill(at));
                    }
                }
                let up = inner.slots.iter().filter_map(|slot| match slot {
                    PeerSlot::Up(link) => Some(link.clone()),
                    PeerSlot::Empty | PeerSlot::Connecting => None,
                });
                let least = up.min_by_key(|link| link.lock().channels());
                let may_come = inner.slots.iter().any(connects);
                drop(inner);
                if let Some(link) = least {
                    return ChannelConn::open(
                        &link,
                        &format!("{LABEL}{}", self.config.host_prefix),
                    );
                }
                if !may_come {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Connects the peer of one slot.
    async fn fill(self: Arc<Self>, at: usize) {
        let connected = timeout(DIRECT_TIMEOUT, self.connect()).await;
        let link = match connected {
            Some(Ok(link)) => Some(link),
            Some(Err(e)) => {
                log::info!("no direct connection to {}: {e}", self.config.host_prefix);
                None
            }
            None => {
                log::info!(
                    "no direct connection to {} came up in time",
                    self.config.host_prefix
                );
                None
            }
        };
        {
            let mut inner = self.lock();
            inner.failed = link.is_none().then(clock::now);
            if let Some(slot) = inner.slots.get_mut(at) {
                *slot = link.map_or(PeerSlot::Empty, PeerSlot::Up);
            }
        }
        self.changed.notify(usize::MAX);
    }

    /// Offers a P2P connection through the server, and waits until it is up.
    async fn connect(&self) -> Result<PeerHandle, ForwardError> {
        let endpoint = self.p2p.endpoint_of_one().map_err(ForwardError::Peer)?;
        let begun = begin(
            &self.p2p,
            endpoint.clone(),
            IceRole::Dials,
            None,
            |peer, identity| Ok(peer.describe(identity, sdp::offer)),
        );
        let (link, hosts, offer) = begun.map_err(ForwardError::Peer)?;
        // Ends the peer if the caller stops waiting.
        let mut undecided = PendingVisit(Some(link.clone()));
        let (conn, host) = self.visit().await?;
        let head = format!(
            "XP / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n"
        );
        conn.write_all(head.as_bytes()).await?;
        send_message(&conn, SignalingMessage::Offer(offer)).await?;
        let telling = async {
            for host in hosts {
                send_message(&conn, SignalingMessage::Candidate(host)).await?;
            }
            for candidate in reflexive(&self.p2p, &endpoint).await {
                send_message(&conn, SignalingMessage::Candidate(candidate)).await?;
            }
            Ok(conn.write_all(REQUEST_END).await?)
        };
        let hearing = self.read_answer(&conn, &endpoint, &link);
        let talking = async {
            // An early end of the answer must not end this end's messages.
            let (told, heard) = future::zip(telling, hearing).await;
            heard.and(told)?;
            future::pending::<Result<(), ForwardError>>().await
        };
        let connected = async {
            match link.connected().await {
                true => Ok(()),
                false => Err(ForwardError::Unconnected),
            }
        };
        future::or(connected, talking).await?;
        undecided.0 = None;
        Ok(link)
    }

    /// Reads the other client's answer and its candidates.
    async fn read_answer(
        &self,
        conn: &Conn,
        endpoint: &Endpoint,
        link: &PeerHandle,
    ) -> Result<(), ForwardError> {
        let mut answer = SignalingResponse::read(conn).await?;
        if answer.status != 200 {
            return Err(ForwardError::Status(answer.status));
        }
        let mut reader = MessageReader::default();
        let mut is_answered = false;
        while let Some(message) = answer.next(conn, &mut reader).await? {
            match message {
                SignalingMessage::Answer(sdp) => {
                    is_answered = true;
                    let description = Description::parse(&sdp);
                    let description = description.map_err(ForwardError::BadAnswer)?;
                    let side = description.side_of_offer();
                    let now = clock::now();
                    link.with(|peer| peer.connect(&endpoint.identity, &description, side, now))
                        .map_err(ForwardError::Peer)?;
                }
                SignalingMessage::Candidate(candidate) => {
                    link.with(|peer| peer.add_remote(&candidate, clock::now()));
                }
                SignalingMessage::Offer(_) => {
                    return Err(ForwardError::BadAnswer(
                        "the other client answered with an offer",
                    ))
                }
            }
        }
        match is_answered {
            true => Ok(()),
            false => Err(ForwardError::BadAnswer(
                "the other client answered with an empty page",
            )),
        }
    }

    /// Connects to the server as a visitor of the other client. Also returns the host to ask for.
    async fn visit(&self) -> Result<(Conn, String), ForwardError> {
        let mut remote = None;
        for pool in &self.pools {
            if remote.is_none() {
                remote = pool.place().await;
            }
        }
        let remote = remote.ok_or(ForwardError::UnknownServer)?;
        let reached = reach_as_visitor(self.p2p.context(), &remote, SERVER_TIMEOUT).await;
        let conn = reached.map_err(ForwardError::Unreachable)?.conn;
        // An IP address has no subdomains, but only the first label counts.
        let host = remote.host.replace([':', '%'], "-");
        let host = format!("{}.{host}:{}", self.config.host_prefix, remote.port);
        Ok((conn, host))
    }

    /// Relays a connection through the server, to a client that supports it.
    async fn relay(&self, local: &Arc<Conn>) -> Result<(), ForwardError> {
        let (conn, host) = self.visit().await?;
        let request = format!(
            "XP / HTTP/1.1\r\nHost: {host}\r\n{RELAY}\r\n\
             WebRTC-Label: {LABEL}{}\r\n\r\n",
            self.config.host_prefix
        );
        conn.write_all(request.as_bytes()).await?;
        let answer = timeout(SERVER_TIMEOUT, SignalingResponse::read(&conn)).await;
        let answer = answer.ok_or(io::ErrorKind::TimedOut)??;
        if answer.status != 200 {
            return Err(ForwardError::Status(answer.status));
        }
        // A client without relays answers 200 and an empty page.
        if !answer.relays {
            return Err(ForwardError::CannotRelay);
        }
        local.write_all(&answer.rest).await?;
        net::carry(local, &conn, HALF_CLOSE_TIMEOUT).await;
        Ok(())
    }
}

/// A peer that is ended on drop unless it was confirmed.
struct PendingVisit(Option<PeerHandle>);

impl Drop for PendingVisit {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.with(|peer| peer.close(clock::now()));
        }
    }
}

/// Sends a message of a request's body, framed twice: the original's clients read messages only in
/// chunks of their own within the body, and answer other requests with an empty 200.
async fn send_message(conn: &Conn, message: SignalingMessage) -> io::Result<()> {
    conn.write_all(&chunk(&chunk(&message.write()))).await
}
