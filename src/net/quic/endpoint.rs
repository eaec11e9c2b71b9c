//! An endpoint: the connections of one UDP socket, and the attempts of clients to connect.

#[cfg(feature = "server")]
use super::connection::wait;
use super::connection::{Connection, ConnectionShared};
use super::driver::Driver;
use super::link::{PacketLink, PacketRoutes};
use super::pending::PendingHandshakes;
use super::resets::{self, is_answered_by_reset};
use super::socket::{OutgoingDatagrams, QuicSocket};
#[cfg(feature = "client")]
use super::source::SourceChanges;
use crate::collections::HashMap;
#[cfg(feature = "client")]
use crate::net::outbound::{LinkPath, LinkSource};
#[cfg(feature = "server")]
use crate::net::runtime::costly_step;
use crate::net::{self, clock, Shutdown, TaskGuard, Timer};
use crate::sync::{Mutex, MutexGuard};
use bytes::BytesMut;
use futures_lite::future;
use quinn_proto::{
    ConnectionEvent, ConnectionHandle, DatagramEvent, EndpointEvent, Incoming, Transmit,
};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
#[cfg(feature = "client")]
use std::sync::OnceLock;
#[cfg(feature = "server")]
use std::sync::{
    atomic::{AtomicBool, Ordering},
    Weak,
};
use std::task::Waker;
use std::time::{Duration, Instant};
#[cfg(feature = "server")]
use {super::setup::ServerSetup, std::io, std::task::Poll};

/// Calls that receive datagrams in a row before other tasks run.
const MAX_RECEIVES_IN_A_ROW: u32 = 4;
/// Pause after an error of a receive, so that a lasting one does not occupy the thread.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// Number of pending handshakes from which on clients have to prove their address first (RFC 9000, section
/// 8.1.2): an address that is invented cannot.
const RETRY_FROM: u32 = 32;
/// Maximum number of pending handshakes; further ones are ignored.
const MAX_HANDSHAKES: u32 = 256;
/// Numbers like [`RETRY_FROM`] and [`MAX_HANDSHAKES`], of one network: clients of the others can connect meanwhile, and
/// so can those behind an address that others invent.
const NETWORK_RETRY_FROM: u32 = 8;
const MAX_NETWORK_HANDSHAKES: u32 = 16;

/// A handle of an endpoint, for its connections.
pub type EndpointHandle = Arc<EndpointShared>;

/// What the users, the tasks and the connections of an endpoint share.
pub struct EndpointShared {
    socket: Mutex<Arc<QuicSocket>>,
    state: Mutex<EndpointState>,
    /// Ends the tasks that receive.
    stop: Shutdown,
    /// Ends the task that receives from the current socket.
    moved: Mutex<Shutdown>,
    /// Ends the task that keeps this endpoint for the packets of another process.
    #[cfg(feature = "server")]
    let_go: Shutdown,
    /// The link of this machine that a client's connection is over.
    #[cfg(feature = "client")]
    path: OnceLock<LinkPath>,
}

/// The state of an endpoint.
struct EndpointState {
    proto: quinn_proto::Endpoint,
    connections: HashMap<usize, Arc<ConnectionShared>>,
    attempts: VecDeque<Incoming>,
    /// The attempts, and the accepted connections whose handshake is not complete.
    handshakes: PendingHandshakes,
    /// The task that accepts.
    accepting: Option<Waker>,
    /// Whether attempts of clients are accepted.
    is_open: bool,
    /// Which process has the connection of a packet.
    routes: PacketRoutes,
    /// Number of processes that have the socket, too, and pass packets on to this one.
    links: u32,
    /// From when on connections that are not known may be reset.
    resets_from: Instant,
}

/// Buffers that an endpoint's own answers are written into.
type Answers = SmallVec<[(Transmit, Vec<u8>); 2]>;

impl EndpointShared {
    /// Creates an endpoint and its task. Its connection IDs are recognized by `key`, see `link`.
    pub fn start(
        socket: QuicSocket,
        (key, config): (u64, quinn_proto::EndpointConfig),
        server: Option<Arc<quinn_proto::ServerConfig>>,
        parent: Option<PacketLink>,
    ) -> EndpointHandle {
        let is_open = server.is_some();
        let config = Arc::new(config);
        let resets_from = resets::begin(parent.is_some(), clock::now());
        let state = EndpointState {
            // The sockets do not fragment.
            proto: quinn_proto::Endpoint::new(config, server, true, None),
            connections: HashMap::default(),
            attempts: VecDeque::new(),
            handshakes: PendingHandshakes::default(),
            accepting: None,
            is_open,
            routes: PacketRoutes::new(key, parent),
            links: 0,
            resets_from,
        };
        let shared = Arc::new(Self {
            socket: Mutex::new(Arc::new(socket)),
            state: Mutex::new(state),
            stop: Shutdown::default(),
            moved: Mutex::default(),
            #[cfg(feature = "server")]
            let_go: Shutdown::default(),
            #[cfg(feature = "client")]
            path: OnceLock::new(),
        });
        net::spawn(shared.receiver());
        shared
    }

    /// Returns the socket to send with.
    pub fn socket(&self) -> Arc<QuicSocket> {
        self.socket.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, EndpointState> {
        self.state.lock()
    }

    /// Returns the task that receives from the current socket. The task ends with the endpoint.
    fn receiver(self: &Arc<Self>) -> impl std::future::Future<Output = ()> {
        let (endpoint, socket) = (Arc::downgrade(self), self.socket());
        let (stop, moved) = (self.stop.clone(), self.moved.lock().clone());
        async move {
            let receiving = async {
                let mut calls = 0u32;
                loop {
                    let received = poll_fn(|cx| {
                        socket.poll_receive(cx, |received| {
                            if let Some(endpoint) = endpoint.upgrade() {
                                let (from, to) = (received.from, received.to);
                                endpoint.take(from, to, received.datagrams(), clock::now());
                            }
                        })
                    });
                    if let Err(e) = received.await {
                        // The error of an earlier datagram, or a lack of memory.
                        log::debug!("receiving on {}: {e}", socket.addr());
                        Timer::after(ERROR_PAUSE).await;
                    }
                    calls = calls.wrapping_add(1);
                    if calls.is_multiple_of(MAX_RECEIVES_IN_A_ROW) {
                        future::yield_now().await;
                    }
                }
            };
            stop.or(moved.or::<()>(receiving)).await;
        }
    }

    /// Returns what ends the tasks that receive.
    pub fn stop(&self) -> Shutdown {
        self.stop.clone()
    }

    /// Passes datagrams to their connections, and answers those that belong to none.
    pub fn take<'a>(
        &self,
        from: SocketAddr,
        to: Option<IpAddr>,
        datagrams: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) {
        let mut events: SmallVec<[(Arc<ConnectionShared>, ConnectionEvent); 8]> = SmallVec::new();
        let mut answers = Answers::new();
        let mut state = self.lock();
        for datagram in datagrams {
            if state.routes.pass_on(from, to, datagram) {
                continue;
            }
            // Each has memory of its own: a stream may keep some of them for long.
            let bytes = BytesMut::from(datagram);
            let mut answer = Vec::new();
            match state.proto.handle(now, from, to, None, bytes, &mut answer) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(connection) = state.connections.get(&handle.0) {
                        events.push((connection.clone(), event));
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    state.attempt(incoming, &mut answers);
                }
                Some(DatagramEvent::Response(transmit))
                    if !is_answered_by_reset(datagram) || state.may_reset(now) =>
                {
                    answers.push((transmit, answer));
                }
                Some(DatagramEvent::Response(_)) | None => {}
            }
        }
        let accepting = match state.attempts.is_empty() {
            true => None,
            false => state.accepting.take(),
        };
        drop(state);
        if let Some(accepting) = accepting {
            accepting.wake();
        }
        if !answers.is_empty() {
            let socket = self.socket();
            for (transmit, bytes) in &answers {
                answer(&socket, transmit, bytes);
            }
        }
        let mut last: Option<Arc<ConnectionShared>> = None;
        for (connection, event) in events {
            connection.receive(event, now);
            match last.replace(connection) {
                Some(before) if !last.as_ref().is_some_and(|it| Arc::ptr_eq(it, &before)) => {
                    before.wake_driver();
                }
                _ => {}
            }
        }
        if let Some(last) = last {
            last.wake_driver();
        }
    }

    /// Passes an event of a connection to the endpoint, and returns one for the connection.
    pub fn handle_event(
        &self,
        handle: ConnectionHandle,
        event: EndpointEvent,
    ) -> Option<ConnectionEvent> {
        self.lock().proto.handle_event(handle, event)
    }

    /// Adds a connection and starts its task.
    #[cfg(feature = "client")]
    pub fn connect(
        self: &Arc<Self>,
        config: quinn_proto::ClientConfig,
        (to, path): (SocketAddr, LinkPath),
        name: &str,
        guard: TaskGuard,
    ) -> Result<Connection, quinn_proto::ConnectError> {
        let path = self.path.get_or_init(|| path);
        let now = clock::now();
        let mut state = self.lock();
        let (handle, proto) = state.proto.connect(now, config, to, name)?;
        let shared = Arc::new(ConnectionShared::new(
            handle,
            self.clone(),
            None,
            proto,
            now,
        ));
        state.connections.insert(handle.0, shared.clone());
        drop(state);
        net::spawn(Driver::new(shared.clone(), guard, None));
        net::spawn(self.follow(&shared, to, path.source()));
        Ok(Connection::new(shared))
    }

    /// Returns the task that has a connection move when its packets leave from another address.
    #[cfg(feature = "client")]
    fn follow(
        &self,
        connection: &Arc<ConnectionShared>,
        to: SocketAddr,
        link: Option<LinkSource>,
    ) -> impl std::future::Future<Output = ()> {
        let (stop, connection) = (self.stop.clone(), Arc::downgrade(connection));
        async move {
            let mut changes = SourceChanges::new(to, link);
            let link = || connection.upgrade()?.endpoint.path.get()?.source();
            let following = async {
                loop {
                    let from = changes.next(link).await;
                    let Some(connection) = connection.upgrade() else {
                        return;
                    };
                    match from {
                        Some(from) => log::debug!("packets to {to} leave from {from} now"),
                        None => log::debug!("the link of the connection to {to} leads nowhere now"),
                    }
                    connection.move_away();
                }
            };
            stop.or(following).await;
        }
    }

    /// Replaces the socket by a new one, for packets to `peer`: over another link, if there is one and this one is
    /// `silent` or does not lead there.
    #[cfg(feature = "client")]
    pub fn change_socket(self: &Arc<Self>, peer: SocketAddr, silent: bool) -> std::io::Result<()> {
        let open = |link: Option<&LinkSource>| QuicSocket::for_peer(peer, link);
        let socket = match self.path.get() {
            Some(path) => path.change(peer, silent, open)?,
            None => open(None)?,
        };
        let socket = Arc::new(socket);
        let before = std::mem::replace(&mut *self.socket.lock(), socket);
        std::mem::take(&mut *self.moved.lock()).trigger();
        net::spawn(self.receiver());
        drop(before);
        Ok(())
    }

    /// Returns the link that a client's connection is over.
    #[cfg(feature = "client")]
    pub fn path(&self) -> Option<&LinkPath> {
        self.path.get()
    }

    /// Removes a connection that has ended.
    pub fn remove(&self, connection: &Arc<ConnectionShared>) {
        let mut state = self.lock();
        let at = connection.handle.0;
        let known = state.connections.get(&at);
        // The number may be another connection's by now.
        let is_it = known.is_some_and(|known| Arc::ptr_eq(known, connection));
        let removed = is_it.then(|| state.connections.remove(&at));
        drop(state);
        drop(removed);
    }

    /// Notes that another process may have the socket, too.
    #[cfg(feature = "server")]
    pub fn link_begins(&self) {
        let mut state = self.lock();
        state.links = state.links.saturating_add(1);
    }

    /// Notes that this process has ended, or that it has not taken over. If there is no other one, this one receives
    /// again.
    #[cfg(feature = "server")]
    pub fn link_ends(&self) {
        let mut state = self.lock();
        state.links = state.links.saturating_sub(1);
        if state.links == 0 {
            self.socket().go_on_receiving();
        }
    }

    /// Notes that a handshake with a peer of this address, which was pending, has ended.
    pub fn handshake_ended(&self, peer: IpAddr) {
        self.lock().handshakes.end(peer);
    }
}

impl Drop for EndpointShared {
    fn drop(&mut self) {
        self.stop.trigger();
        // The protocol warns of attempts that are dropped without an answer.
        self.lock().ignore_attempts();
    }
}

impl EndpointState {
    /// Queues the attempt of a client, has it prove its address first, or ignores it.
    fn attempt(&mut self, incoming: Incoming, answers: &mut Answers) {
        let peer = incoming.remote_address().ip();
        let (all, of_network) = (self.handshakes.all, self.handshakes.of_network(peer));
        let is_full = all >= MAX_HANDSHAKES || of_network >= MAX_NETWORK_HANDSHAKES;
        let is_busy = all >= RETRY_FROM || of_network >= NETWORK_RETRY_FROM;
        if !self.is_open || is_full {
            self.proto.ignore(incoming);
        } else if is_busy && !incoming.remote_address_validated() {
            let mut answer = Vec::new();
            match self.proto.retry(incoming, &mut answer) {
                Ok(transmit) => answers.push((transmit, answer)),
                Err(e) => self.proto.ignore(e.into_incoming()),
            }
        } else {
            self.handshakes.begin(peer);
            self.attempts.push_back(incoming);
        }
    }

    /// Whether connections that are not known may be reset: no other process can have them.
    fn may_reset(&self, now: Instant) -> bool {
        self.is_open && self.links == 0 && now >= self.resets_from
    }

    /// Ignores all attempts that nobody has taken.
    fn ignore_attempts(&mut self) {
        for attempt in self.attempts.drain(..) {
            self.handshakes.end(attempt.remote_address().ip());
            self.proto.ignore(attempt);
        }
    }
}

/// Sends an answer of an endpoint, which is lost if there is no room.
fn answer(socket: &QuicSocket, transmit: &Transmit, bytes: &[u8]) {
    let bytes = bytes.get(..transmit.size).unwrap_or_default();
    if let Err(e) = socket.try_send(bytes, outgoing(transmit)) {
        log::trace!("answering {}: {e}", transmit.destination);
    }
}

/// Returns the addresses and lengths of datagrams to send, for the socket.
pub fn outgoing(transmit: &Transmit) -> OutgoingDatagrams {
    OutgoingDatagrams {
        to: transmit.destination,
        from: transmit.src_ip,
        segment: transmit.segment_size.unwrap_or(transmit.size),
    }
}

/// An endpoint of a server. Once it is closed or dropped, no further connections are accepted; existing ones go on.
#[cfg(feature = "server")]
pub struct Endpoint {
    shared: EndpointHandle,
    is_closed: AtomicBool,
}

/// An endpoint that was closed, and has its socket for as long as it has connections. When this is dropped
/// while another process has its end of a link, only that process receives from the socket.
#[cfg(feature = "server")]
pub struct ClosedEndpoint(Weak<EndpointShared>);

/// The attempt of a client to connect. Dropped, it is ignored.
#[cfg(feature = "server")]
pub struct Attempt {
    incoming: Option<Incoming>,
    endpoint: EndpointHandle,
}

#[cfg(feature = "server")]
impl Attempt {
    /// Returns the address of the client.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.incoming.as_ref().map(Incoming::remote_address)
    }

    /// Whether the client has proved that it receives what is sent to its address.
    pub fn is_proved(&self) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_some_and(Incoming::remote_address_validated)
    }

    /// Refuses the attempt.
    pub fn refuse(mut self) {
        if let Some(incoming) = self.take() {
            let mut bytes = Vec::new();
            let transmit = self.endpoint.lock().proto.refuse(incoming, &mut bytes);
            answer(&self.endpoint.socket(), &transmit, &bytes);
        }
    }

    /// Has the client prove its address. Ignores it if it has done so.
    pub fn demand_proof(mut self) {
        let Some(incoming) = self.take() else {
            return;
        };
        let mut bytes = Vec::new();
        let mut state = self.endpoint.lock();
        match state.proto.retry(incoming, &mut bytes) {
            Ok(transmit) => {
                drop(state);
                answer(&self.endpoint.socket(), &transmit, &bytes);
            }
            Err(e) => state.proto.ignore(e.into_incoming()),
        }
    }

    /// Takes the attempt, whose handshake will not begin.
    fn take(&mut self) -> Option<Incoming> {
        let incoming = self.incoming.take()?;
        let peer = incoming.remote_address().ip();
        self.endpoint.handshake_ended(peer);
        Some(incoming)
    }

    /// Begins the handshake when its turn has come. The guard is held until the last bytes of the connection are sent.
    pub async fn accept(mut self, setup: &ServerSetup, guard: TaskGuard) -> io::Result<Connection> {
        // The handshake makes a signature.
        costly_step().await;
        let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let incoming = self.incoming.take().ok_or_else(gone)?;
        let peer = incoming.remote_address().ip();
        let (config, choice) = setup.for_connection();
        let (now, mut bytes) = (clock::now(), Vec::new());
        let mut state = self.endpoint.lock();
        let accepted = state.proto.accept(incoming, now, &mut bytes, Some(config));
        match accepted {
            Ok((handle, proto)) => {
                let endpoint = self.endpoint.clone();
                let shared = Arc::new(ConnectionShared::new(
                    handle,
                    endpoint,
                    Some(choice),
                    proto,
                    now,
                ));
                state.connections.insert(handle.0, shared.clone());
                drop(state);
                net::spawn(Driver::new(shared.clone(), guard, Some(peer)));
                Ok(Connection::new(shared))
            }
            Err(e) => {
                state.handshakes.end(peer);
                drop(state);
                if let Some(transmit) = &e.response {
                    answer(&self.endpoint.socket(), transmit, &bytes);
                }
                Err(super::connection::error(&e.cause))
            }
        }
    }
}

#[cfg(feature = "server")]
impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(incoming) = self.take() {
            self.endpoint.lock().proto.ignore(incoming);
        }
    }
}

#[cfg(feature = "server")]
impl Endpoint {
    /// Creates an endpoint that takes connections.
    ///
    /// Its connection IDs are recognized by `key`. `parent` is the link to the process that had the socket before and
    /// still has connections. If a third process takes over, this one is still between the two: the guard is held until
    /// the connections of the first one have ended.
    pub fn start(
        socket: QuicSocket,
        key: u64,
        setup: &ServerSetup,
        parent: Option<(PacketLink, TaskGuard)>,
    ) -> io::Result<Self> {
        let config = Some(setup.for_endpoint());
        let (parent, guard) = parent.unzip();
        let end = parent.as_ref().map(PacketLink::end);
        let shape = super::setup::server_endpoint(key, &setup.reset_key)?;
        let endpoint = EndpointShared::start(socket, (key, shape), config, parent);
        if let Some(end) = end {
            let kept = endpoint.clone();
            net::spawn(async move {
                kept.let_go.or(end).await;
                drop((kept, guard));
            });
        }
        Ok(Self::of(endpoint))
    }

    fn of(shared: EndpointHandle) -> Self {
        Self {
            shared,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Opens an endpoint that was closed.
    pub fn reopen(shared: EndpointHandle, setup: &ServerSetup) -> Self {
        let endpoint = Self::of(shared);
        endpoint.set(setup);
        endpoint.shared.lock().is_open = true;
        endpoint
    }

    /// Closes this endpoint.
    pub fn close(&self) -> ClosedEndpoint {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            let state = &mut *self.shared.lock();
            state.is_open = false;
            match state.links {
                // The process that had the socket before receives by itself once this one has ended.
                0 => self.shared.let_go.trigger(),
                _ => self.shared.socket().stop_receiving(),
            }
            state.ignore_attempts();
        }
        ClosedEndpoint(Arc::downgrade(&self.shared))
    }

    /// Returns the endpoint, for [`link`](super::link()).
    pub fn handle(&self) -> EndpointHandle {
        self.shared.clone()
    }

    /// Waits for the next attempt of a client to connect.
    pub async fn attempt(&self) -> Attempt {
        let incoming = poll_fn(|cx| {
            let mut state = self.shared.lock();
            wait(&mut state.accepting, cx);
            match state.attempts.pop_front() {
                Some(incoming) => Poll::Ready(incoming),
                None => Poll::Pending,
            }
        });
        Attempt {
            incoming: Some(incoming.await),
            endpoint: self.shared.clone(),
        }
    }

    /// Changes the configuration of connections that come from now on.
    pub fn set(&self, setup: &ServerSetup) {
        let config = Some(setup.for_endpoint());
        self.shared.lock().proto.set_server_config(config);
    }

    /// Returns the socket.
    pub fn socket(&self) -> Arc<QuicSocket> {
        self.shared.socket()
    }
}

#[cfg(feature = "server")]
impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(feature = "server")]
impl ClosedEndpoint {
    /// Returns the endpoint if it still has connections, for [`Endpoint::reopen`] or a process that takes over.
    pub fn get(&self) -> Option<EndpointHandle> {
        self.0.upgrade()
    }
}

#[cfg(feature = "server")]
impl Drop for ClosedEndpoint {
    fn drop(&mut self) {
        let Some(endpoint) = self.get() else {
            return;
        };
        let state = endpoint.lock();
        if !state.is_open && state.links > 0 {
            endpoint.socket().stop_receiving();
        }
        drop(state);
    }
}
