//! The endpoint that a client's peers share: one UDP socket, the peer behind each address, and the
//! socket's public addresses.

use super::identity::Identity;
use super::link::PeerHandle;
use super::nat_kind::{NatAddress, NatKind};
use super::portmap::{PortLease, PortMapper};
use super::socket::{Datagram, PeerSocket};
use super::{P2pError, P2pOptions};
use crate::collections::HashMap;
use crate::net::{self, clock, interface_addresses, timeout, InterfaceAddress, Timer};
use crate::sync::{Mutex, MutexGuard};
use event_listener::Event;
use futures_lite::future;
use rtc_stun::attributes::ATTR_USERNAME;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::message::{
    Getter, Message, TransactionId, BINDING_REQUEST, BINDING_SUCCESS, CLASS_REQUEST,
};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};

/// Time that a STUN server's answer is used; a NAT mapping may expire later.
const STUN_ANSWER_LIFETIME: Duration = Duration::from_secs(15);
/// Number of times that a STUN server is asked.
const STUN_TRIES: u32 = 3;
/// Time that a STUN server has to answer each time.
const STUN_TIMEOUT: Duration = Duration::from_millis(700);
/// Number of times that a STUN server is asked about the NAT, and the time that it has each time: many have no second
/// port.
const NAT_TRIES: u32 = 2;
const NAT_TIMEOUT: Duration = Duration::from_millis(250);
/// Interval in which the socket of a peer that is gone is found.
const DETOUR_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of this machine's addresses sent to a peer.
const MAX_HOST_CANDIDATES: usize = 12;

/// A UDP socket with its peers.
pub struct Endpoint {
    /// The socket.
    pub socket: PeerSocket,
    /// The identity of this process.
    pub identity: Arc<Identity>,
    /// The port that the gateway opens for the socket, if it is asked.
    mapping: Option<PortLease>,
    inner: Mutex<EndpointState>,
    /// Whether there are detours.
    has_detours: AtomicBool,
    answered: Event,
    /// Notified when a peer has been removed.
    removed: Event,
}

#[derive(Default)]
struct EndpointState {
    peers: Vec<PeerHandle>,
    /// The peer of the last datagram, and its address.
    last: Option<(SocketAddr, PeerHandle)>,
    /// Questions sent to STUN servers by transaction, and their answers.
    questions: HashMap<[u8; 12], Option<SocketAddr>>,
    /// The last answer of each STUN server.
    reflexive: HashMap<String, StunAnswer>,
    /// The NAT in front of the socket, as STUN servers have seen it last.
    nat: Option<NatAddress>,
    /// Addresses that only another socket than the endpoint's reaches, and the peers there.
    detours: HashMap<SocketAddr, (Arc<PeerSocket>, PeerHandle)>,
}

/// The answer of a STUN server.
struct StunAnswer {
    /// When it came.
    since: Instant,
    /// The address of this socket as the server sees it.
    addr: SocketAddr,
    /// The addresses of this machine at that time. With others, the public one is another, too.
    hosts: Vec<SocketAddr>,
}

impl Endpoint {
    /// Binds the socket. The error says which port is not available.
    pub fn start(
        identity: Arc<Identity>,
        options: &P2pOptions,
        mapper: &PortMapper,
    ) -> Result<Arc<Self>, P2pError> {
        let socket = PeerSocket::bind(options.min_port, options.max_port)?;
        log::debug!("peers use UDP port {}", socket.port());
        let is_mapped = options.port_map.then(|| mapper.open(socket.port()));
        let endpoint = Arc::new(Self {
            mapping: is_mapped.flatten(),
            socket,
            identity,
            inner: Mutex::default(),
            has_detours: AtomicBool::new(false),
            answered: Event::new(),
            removed: Event::new(),
        });
        crate::net::spawn(endpoint.clone().listen());
        Ok(endpoint)
    }

    fn lock(&self) -> MutexGuard<'_, EndpointState> {
        self.inner.lock()
    }

    /// Adds a peer.
    pub fn add(&self, link: PeerHandle) {
        self.lock().peers.push(link);
    }

    /// Removes a peer.
    pub fn remove(&self, link: &PeerHandle) {
        let mut inner = self.lock();
        inner.peers.retain(|other| !other.is(link));
        inner.detours.retain(|_, (_, other)| !other.is(link));
        if inner.last.as_ref().is_some_and(|(_, last)| last.is(link)) {
            inner.last = None;
        }
        drop(inner);
        self.removed.notify(usize::MAX);
    }

    /// Returns the peers.
    pub fn links(&self) -> Vec<PeerHandle> {
        self.lock().peers.clone()
    }

    /// Returns the peer to which this end has this ICE user fragment.
    pub fn peer(&self, ufrag: &str) -> Option<PeerHandle> {
        let inner = self.lock();
        inner.peers.iter().find(|it| it.ufrag() == ufrag).cloned()
    }

    /// Forgets what STUN servers have answered, since this end may have another address now.
    pub fn forget_reflexive(&self) {
        self.lock().reflexive.clear();
    }

    /// Returns the number of peers.
    pub fn peers(&self) -> usize {
        self.lock().peers.len()
    }

    /// Ends all peers; their tasks send the last datagrams.
    pub fn end_peers(&self) {
        for link in self.links() {
            link.with(|peer| peer.close(clock::now()));
        }
    }

    /// Waits until the task of each peer has ended.
    pub async fn without_peers(&self) {
        loop {
            let removed = self.removed.listen();
            if self.peers() == 0 {
                return;
            }
            removed.await;
        }
    }

    /// Passes each datagram to its peer, as long as the endpoint has another owner.
    async fn listen(self: Arc<Self>) {
        let endpoint = Arc::downgrade(&self);
        drop(self);
        while let Some(endpoint) = endpoint.upgrade() {
            let receiving = endpoint
                .socket
                .receive(|from, bytes| endpoint.dispatch(from, bytes));
            match timeout(Duration::from_secs(60), receiving).await {
                None | Some(Ok(())) => {}
                Some(Err(e)) => {
                    log::debug!("receiving from peers: {e}");
                    Timer::after(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Has datagrams to `addr` sent from `socket`, as long as the peer lives, and receives there.
    pub fn detour(self: &Arc<Self>, addr: SocketAddr, socket: Arc<PeerSocket>, link: PeerHandle) {
        socket.enlarge();
        self.lock().detours.insert(addr, (socket.clone(), link));
        self.has_detours.store(true, Ordering::Relaxed);
        let endpoint = Arc::downgrade(self);
        crate::net::spawn(async move {
            while let Some(endpoint) = endpoint.upgrade() {
                if !endpoint.has_detour(addr, &socket) {
                    return;
                }
                let receiving = socket.receive(|from, bytes| endpoint.dispatch(from, bytes));
                if let Some(Err(e)) = timeout(DETOUR_CHECK_INTERVAL, receiving).await {
                    log::debug!("receiving from a peer: {e}");
                    Timer::after(Duration::from_millis(10)).await;
                }
            }
        });
    }

    fn has_detour(&self, addr: SocketAddr, socket: &Arc<PeerSocket>) -> bool {
        let inner = self.lock();
        let detour = inner.detours.get(&addr);
        detour.is_some_and(|(other, _)| Arc::ptr_eq(other, socket))
    }

    /// Sends datagrams from the front of `queue`, each from the socket that reaches its address; pending if some are
    /// left.
    pub fn poll_send(&self, cx: &mut Context<'_>, queue: &mut VecDeque<Datagram>) -> Poll<()> {
        if !self.has_detours.load(Ordering::Relaxed) {
            return self.socket.poll_send(cx, queue);
        }
        while let Some(first) = queue.front() {
            let to = first.to;
            let count = queue.iter().take_while(|next| next.to == to).count();
            let detour = self
                .lock()
                .detours
                .get(&to)
                .map(|(socket, _)| socket.clone());
            let mut run: VecDeque<_> = queue.drain(..count).collect();
            let socket = detour.as_deref().unwrap_or(&self.socket);
            let sent = socket.poll_send(cx, &mut run);
            for left in run.into_iter().rev() {
                queue.push_front(left);
            }
            ready!(sent);
        }
        Poll::Ready(())
    }

    /// Returns the NAT in front of the socket, as STUN servers have seen it last; `None` if they have not told enough.
    pub fn nat(&self) -> Option<NatAddress> {
        self.lock().nat
    }

    /// Passes a datagram to its peer.
    pub fn dispatch(&self, from: SocketAddr, bytes: &[u8]) {
        let now = clock::now();
        let last = {
            let inner = self.lock();
            let last = inner.last.as_ref();
            last.filter(|(addr, _)| *addr == from)
                .map(|(_, link)| link.clone())
        };
        let is_stun = bytes.first().is_some_and(|first| *first < 4);
        if !is_stun && last.is_some_and(|link| link.receive(from, bytes, now)) {
            return;
        }
        let links = if is_stun {
            self.candidates_of(from, bytes)
        } else {
            // The newest peer is the most likely one.
            self.lock().peers.iter().rev().cloned().collect()
        };
        for link in links {
            if link.receive(from, bytes, now) {
                self.lock().last = Some((from, link));
                return;
            }
        }
    }

    /// Returns the peers that a STUN message may be for.
    fn candidates_of(&self, from: SocketAddr, bytes: &[u8]) -> Vec<PeerHandle> {
        let mut message = Message::new();
        message.raw = bytes.to_vec();
        if message.decode().is_err() {
            return Vec::new();
        }
        let mut inner = self.lock();
        if message.typ.class == CLASS_REQUEST {
            let Ok(username) = TextAttribute::get_from_as(&message, ATTR_USERNAME) else {
                return Vec::new();
            };
            // "ours:theirs" (RFC 8445, section 7.2.2).
            let ours = username.text.split(':').next().unwrap_or_default();
            let link = inner.peers.iter().find(|link| link.ufrag() == ours);
            return link.cloned().into_iter().collect();
        }
        if let Some(answer) = inner.questions.get_mut(&message.transaction_id.0) {
            let mut mapped = XorMappedAddress::default();
            if message.typ == BINDING_SUCCESS && mapped.get_from(&message).is_ok() {
                *answer = Some(SocketAddr::new(mapped.ip.to_canonical(), mapped.port));
                self.answered.notify(usize::MAX);
            }
            return Vec::new();
        }
        let links = inner.peers.clone();
        drop(inner);
        // Only the peer that asked recognises the answer.
        let (mut at, others): (Vec<_>, Vec<_>) =
            links.into_iter().partition(|link| link.lock().is_at(from));
        at.extend(others);
        at
    }

    /// Returns the addresses of this machine, those that a remote peer is likeliest to reach first.
    pub fn hosts(&self) -> Vec<SocketAddr> {
        let mut hosts = Vec::new();
        let mut loopbacks = Vec::new();
        for InterfaceAddress { ip, is_up } in addresses() {
            let usable = is_up
                && match ip {
                    IpAddr::V4(v4) => !v4.is_link_local(),
                    // A link-local address means nothing without its zone.
                    IpAddr::V6(v6) => self.socket.is_v6() && !v6.is_unicast_link_local(),
                };
            let addr = SocketAddr::new(ip, self.socket.port());
            if usable && ip.is_loopback() {
                loopbacks.push(addr);
            } else if usable && !hosts.contains(&addr) {
                hosts.push(addr);
            }
        }
        hosts.truncate(MAX_HOST_CANDIDATES);
        hosts.extend(loopbacks.into_iter().take(2));
        hosts
    }

    /// Waits for the address at which the gateway has opened a port for this socket, but not longer than up to
    /// `deadline`.
    pub async fn mapped(&self, deadline: Instant) -> Option<SocketAddr> {
        self.mapping.as_ref()?.external(deadline).await
    }

    /// Returns the address of this socket as `server` sees it; `None` without an answer.
    pub async fn reflexive(&self, server: &str) -> Option<SocketAddr> {
        let hosts = self.hosts();
        if let Some(answer) = self.lock().reflexive.get(server) {
            if clock::since(answer.since) < STUN_ANSWER_LIFETIME && answer.hosts == hosts {
                return Some(answer.addr);
            }
        }
        let to = resolve(server).await?;
        let answer = self.ask(&self.socket, to, STUN_TRIES, STUN_TIMEOUT).await;
        match answer {
            Some(addr) => {
                let mut inner = self.lock();
                let since = clock::now();
                let answer = StunAnswer { since, addr, hosts };
                inner.reflexive.insert(server.to_owned(), answer);
            }
            None => log::debug!("remoteSTUN {server} does not answer"),
        }
        answer
    }

    /// Asks the STUN servers, each at its next port, too, and returns what they tell of the NAT in front of this socket,
    /// which they see as `addr`. Another socket asks, so that each question takes a new port of a hard NAT.
    pub async fn learn_nat(&self, servers: &[String], addr: SocketAddr) -> Option<NatAddress> {
        let socket = PeerSocket::opening().ok()?;
        let asking = async {
            let mut seen = Vec::new();
            for server in servers {
                let Some(to) = resolve(server).await.filter(SocketAddr::is_ipv4) else {
                    continue;
                };
                let next = to.port().checked_add(1);
                let next = next.map(|port| SocketAddr::new(to.ip(), port));
                for to in [Some(to), next].into_iter().flatten() {
                    seen.extend(self.ask(&socket, to, NAT_TRIES, NAT_TIMEOUT).await);
                }
            }
            seen
        };
        let receiving = async {
            while socket
                .receive(|from, bytes| self.dispatch(from, bytes))
                .await
                .is_ok()
            {}
            Vec::new()
        };
        let seen = future::or(asking, receiving).await;
        let mut nat = NatAddress::observed(&seen)?;
        if nat.kind == NatKind::Easy {
            nat = NatAddress::easy(addr)?;
        }
        self.lock().nat = Some(nat);
        Some(nat)
    }

    /// Asks a STUN server for the address of a socket.
    async fn ask(
        &self,
        socket: &PeerSocket,
        to: SocketAddr,
        tries: u32,
        patience: Duration,
    ) -> Option<SocketAddr> {
        let (id, question) = question()?;
        self.lock().questions.insert(id.0, None);
        let mut answer = None;
        for _ in 0..tries {
            let bytes = bytes::BytesMut::from(&question[..]);
            let mut queue = VecDeque::from([Datagram { to, bytes }]);
            std::future::poll_fn(|cx| socket.poll_send(cx, &mut queue)).await;
            answer = timeout(patience, self.answer_to(&id.0)).await;
            if answer.is_some() {
                break;
            }
        }
        self.lock().questions.remove(&id.0);
        answer
    }

    async fn answer_to(&self, id: &[u8; 12]) -> SocketAddr {
        loop {
            let answered = self.answered.listen();
            if let Some(Some(addr)) = self.lock().questions.get(id) {
                return *addr;
            }
            answered.await;
        }
    }
}

/// Returns the address of a STUN server; `None` if it has none.
async fn resolve(server: &str) -> Option<SocketAddr> {
    let host = server.strip_prefix("stun:").unwrap_or(server);
    let (host, port) = host_and_port(host);
    let resolving = timeout(STUN_TIMEOUT * STUN_TRIES, net::addresses(host, port));
    let resolved = resolving
        .await?
        .map_err(|e| log::debug!("remoteSTUN {server}: {e}"))
        .ok()?;
    // NAT only matters for IPv4.
    let v4 = resolved.iter().find(|addr| addr.is_ipv4());
    v4.or(resolved.first()).copied()
}

/// Returns the addresses of all interfaces.
fn addresses() -> Vec<InterfaceAddress> {
    interface_addresses().unwrap_or_else(|e| {
        log::warn!("P2P connections cannot use the addresses of this machine's interfaces: {e}");
        Vec::new()
    })
}

/// Returns the addresses of this machine, including interfaces that are down.
pub fn own_addresses() -> Vec<IpAddr> {
    addresses().into_iter().map(|address| address.ip).collect()
}

/// Creates a STUN request: its transaction, and its bytes.
fn question() -> Option<(TransactionId, Vec<u8>)> {
    let id = TransactionId::new();
    let mut question = Message::new();
    question
        .build(&[
            Box::new(id),
            Box::new(BINDING_REQUEST),
            Box::new(FINGERPRINT),
        ])
        .ok()?;
    Some((id, question.raw))
}
/// Splits `host`, `host:port`, `address`, `address:port` or `[address]:port`; STUN's default port
/// is 3478.
fn host_and_port(server: &str) -> (&str, u16) {
    const STUN: u16 = 3478;
    let is_host = |host: &str| !host.contains(':') || host.ends_with(']');
    let parts = server.rsplit_once(':').filter(|(host, _)| is_host(host));
    let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.unwrap_or((server, STUN));
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    (bare.unwrap_or(host), port)
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn a_stun_server_is_a_host_with_an_optional_port() {
        for (server, parts) in [
            ("stun.example.com", ("stun.example.com", 3478)),
            ("stun.example.com:19302", ("stun.example.com", 19302)),
            ("192.0.2.1:1", ("192.0.2.1", 1)),
            ("[2001:db8::1]:5", ("2001:db8::1", 5)),
            ("[2001:db8::1]", ("2001:db8::1", 3478)),
            ("2001:db8::1", ("2001:db8::1", 3478)),
        ] {
            assert_eq!(host_and_port(server), parts, "{server}");
        }
    }
}
