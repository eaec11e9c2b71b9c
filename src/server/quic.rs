//! The listener for tunnels over QUIC: its socket and its certificate, and the task that accepts connections. Not
//! the protocol, see `net::quic`.

use super::connection_limit::Permit;
use super::incoming::{Incoming, ListenerKind};
use super::listeners;
use super::settings;
use super::sniff;
use super::state::ServerState;
use crate::config::{self, ListenAddr, ListenScope, Secret};
use crate::handover::{Inherited, Item, Outgoing};
use crate::keys::Fingerprint;
use crate::net::quic::{
    link, Attempt, ClosedEndpoint, Connection, Endpoint, EndpointHandle, PacketLink, QuicSocket,
    ServerSetup,
};
use crate::net::tls::{fill_random, QuicIdentity, ServerIdentity};
use crate::net::{self, timeout_at, Conn, Shutdown};
use crate::sync::Mutex;
use crate::wire::Version;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Maximum number of datagrams of a probe; the original sends 11.
const MAX_PROBE: u32 = 100;
/// The datagram that ends a probe.
const END_OF_PROBE: &[u8] = &[0xFF];

/// The listener for QUIC of a server, if it has one.
#[derive(Default)]
pub struct Quic {
    open: Option<OpenQuic>,
    /// Endpoints that were closed, some of which still have connections.
    closed: Vec<ClosedQuic>,
    /// The certificate that the server has made for it, if it has no `stateDir` to keep one.
    made: Option<MadeCert>,
    /// The fingerprint of its key.
    fingerprint: Option<Fingerprint>,
}

/// A certificate and its key, in DER.
type MadeCert = (Vec<u8>, Secret);

/// A listener for QUIC that a configuration asks for.
pub struct QuicPlan(Option<PlannedQuic>);

struct PlannedQuic {
    addr: ListenAddr,
    setup: ServerSetup,
    made: Option<MadeCert>,
    fingerprint: Fingerprint,
    /// `None` if it is open already.
    source: Option<QuicSource>,
}

/// Where a listener for QUIC has its socket from.
enum QuicSource {
    /// The socket, and the link to the process that had it.
    Socket(QuicSocket, Option<PacketLink>),
    /// An endpoint of this process that was closed, and the key of its connection IDs.
    Closed(EndpointHandle, [u8; 8]),
}

/// An endpoint that was closed, as [`OpenQuic`].
struct ClosedQuic {
    endpoint: ClosedEndpoint,
    key: [u8; 8],
    addr: ListenAddr,
}

#[derive(Clone)]
struct OpenQuic {
    endpoint: Arc<Endpoint>,
    setup: Arc<Mutex<ServerSetup>>,
    /// The key by which the endpoint's connection IDs are recognized.
    key: [u8; 8],
    /// Stops the accepting task.
    stop: Shutdown,
    /// The address as configured.
    addr: ListenAddr,
    /// Whether only peers of IPv4 are accepted, even if the socket takes others.
    only_v4: Arc<AtomicBool>,
}

impl QuicPlan {
    /// Keeps the current (`now`) or inherited socket if its address is the configured one, otherwise opens
    /// one; reads the certificate or makes one. The error says what cannot be used and why.
    pub fn new(
        config: &config::ServerConfig,
        file: &Option<PathBuf>,
        now: Option<&Quic>,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let Some(addr) = &config.quic_addr else {
            return Ok(Self(None));
        };
        let (identity, made) = match settings::identity(config)? {
            Some(identity) => (identity, None),
            None => {
                let before = now.and_then(|now| now.made.clone());
                let made = match before.or_else(|| inherited.quic_cert(file)) {
                    Some(made) => made,
                    None => ServerIdentity::new()?.to_der()?,
                };
                (
                    ServerIdentity::from_der(&made.0, made.1.as_bytes())?,
                    Some(made),
                )
            }
        };
        let identity = QuicIdentity::new(identity)?;
        let setup = ServerSetup::new(&identity, config.bbr, config.wire.allows(Version::Two))?;
        let open = now.and_then(|now| now.open.as_ref());
        let is_open = |open: &&OpenQuic| serves(open.endpoint.socket().addr(), &open.addr, addr);
        let source = match open.filter(is_open) {
            Some(_) => None,
            None => Some(match now.and_then(|now| now.closed_at(addr)) {
                Some(closed) => closed,
                None => {
                    if let Some(other) = now.and_then(|now| now.in_the_way(addr)) {
                        return Err(taken_by_itself(addr, &other));
                    }
                    socket(addr, file, inherited)?
                }
            }),
        };
        Ok(Self(Some(PlannedQuic {
            addr: addr.clone(),
            setup,
            made,
            fingerprint: identity.fingerprint(),
            source,
        })))
    }
}

/// Whether a socket that was bound to `bound`, as configured by `configured`, serves the listener `addr`, too: a socket for
/// all addresses serves those of IPv4.
fn serves(bound: SocketAddr, configured: &ListenAddr, addr: &ListenAddr) -> bool {
    if configured == addr {
        return true;
    }
    let is_covered = match (addr.scope(), bound.ip()) {
        (ListenScope::All, IpAddr::V6(ip)) => ip.is_unspecified(),
        (ListenScope::AllV4, ip) => ip.is_unspecified(),
        (ListenScope::One(one), ip) => one == ip,
        (ListenScope::All, IpAddr::V4(_)) | (ListenScope::Named(_), _) => false,
    };
    addr.port != 0 && addr.port == bound.port() && is_covered
}

/// Returns the error for a listener whose port tunnels of this process have at other addresses.
fn taken_by_itself(addr: &ListenAddr, other: &ListenAddr) -> io::Error {
    let text = format!(
        "listening on quicAddr {addr}: this server's tunnels at {other} have the port until the last of them ends; leave \
         quicAddr as it was, give it another port, or stop and start gt"
    );
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

/// Returns the ways to write addresses whose sockets may serve `addr`, that itself first.
fn spellings(addr: &ListenAddr) -> Vec<ListenAddr> {
    let with = |host: Option<&str>| ListenAddr {
        host: host.map(str::to_owned),
        port: addr.port,
    };
    let mut all = vec![addr.clone()];
    if matches!(addr.scope(), ListenScope::All | ListenScope::AllV4) && addr.port != 0 {
        all.extend([with(None), with(Some("::")), with(Some("0.0.0.0"))]);
    }
    all
}

/// Returns the inherited socket, or opens one.
fn socket(
    addr: &ListenAddr,
    file: &Option<PathBuf>,
    inherited: &mut Inherited,
) -> io::Result<QuicSource> {
    let theirs = spellings(addr).into_iter().find_map(|spelling| {
        let socket = QuicSocket::adopt(inherited.quic(file, &spelling)?).ok()?;
        match serves(socket.addr(), &spelling, addr) {
            true => Some((spelling, socket)),
            false => None,
        }
    });
    if let Some((spelling, socket)) = theirs {
        let link = inherited.quic_link(file, &spelling);
        let link = link.map(|(socket, key)| PacketLink::new(socket, u64::from_be_bytes(key)));
        return Ok(QuicSource::Socket(socket, link.transpose()?));
    }
    let socket = QuicSocket::bind(addr.host.as_deref(), addr.port);
    let socket = socket.map_err(|e| listeners::listen_error("quicAddr", addr, &e))?;
    Ok(QuicSource::Socket(socket, None))
}

impl Quic {
    /// Applies a plan: opens the planned listener and closes any other. Connections go on.
    pub fn change(&mut self, plan: QuicPlan, state: &Arc<ServerState>) -> io::Result<()> {
        let before = self.open.take();
        let Some(plan) = plan.0 else {
            (self.made, self.fingerprint) = (None, None);
            self.close(before);
            return Ok(());
        };
        self.made = plan.made;
        let before_it = self.fingerprint.replace(plan.fingerprint);
        let known = [before_it, state.settings.get().fingerprint];
        if !known.contains(&self.fingerprint) {
            log::info!(
                "the key of this server at quicAddr is {} (remoteKey of clients)",
                plan.fingerprint
            );
        }
        let only_v4 = plan.addr.scope() == ListenScope::AllV4;
        let Some(source) = plan.source else {
            if let Some(mut open) = before {
                open.endpoint.set(&plan.setup);
                *open.setup.lock() = plan.setup;
                open.addr = plan.addr;
                open.only_v4.store(only_v4, Ordering::Relaxed);
                self.open = Some(open);
            }
            return Ok(());
        };
        self.close(before);
        let (endpoint, key) = match source {
            QuicSource::Socket(socket, parent) => {
                let mut key = [0; 8];
                fill_random(&mut key)?;
                let id_key = u64::from_be_bytes(key);
                let parent = parent.map(|link| (link, state.serving.begin()));
                let endpoint = Endpoint::start(socket, id_key, &plan.setup, parent)?;
                (endpoint, key)
            }
            QuicSource::Closed(endpoint, key) => (Endpoint::reopen(endpoint, &plan.setup), key),
        };
        let bound = endpoint.socket().addr();
        self.closed
            .retain(|closed| !serves(bound, &plan.addr, &closed.addr));
        let open = OpenQuic {
            endpoint: Arc::new(endpoint),
            setup: Arc::new(Mutex::new(plan.setup)),
            key,
            stop: Shutdown::default(),
            addr: plan.addr,
            only_v4: Arc::new(AtomicBool::new(only_v4)),
        };
        log::info!("Listening quicAddr={}", open.addr);
        let addr = open.endpoint.socket().addr();
        log::info!("accepting QUIC started addr={addr}");
        net::spawn(accept(state.clone(), open.clone()));
        self.open = Some(open);
        Ok(())
    }

    /// Returns what to hand over to the child process.
    pub fn share(&self) -> Vec<Outgoing> {
        let closed = self.closed.iter();
        let closed = closed.filter_map(|it| Some((it.endpoint.get()?, it.key, &it.addr)));
        let open = self.open.iter();
        let open = open.map(|it| (it.endpoint.handle(), it.key, &it.addr));
        let mut items: Vec<Outgoing> = Vec::new();
        for (endpoint, key, addr) in open.chain(closed) {
            let addr = addr.to_string();
            match link(&endpoint) {
                Ok(link) => {
                    let addr = addr.clone();
                    items.push((Item::QuicLink { addr, key }, Some(Arc::new(link))));
                }
                Err(e) => log::warn!(
                    "tunnels over QUIC will be lost when the new process takes over: {e}"
                ),
            }
            items.push((Item::Quic { addr }, Some(endpoint.socket())));
        }
        if let Some((cert, key)) = self.made.clone() {
            items.push((Item::QuicCert { cert, key }, None));
        }
        items
    }
}

impl Quic {
    /// Returns the endpoint that was closed at this address and still has its socket.
    fn closed_at(&self, addr: &ListenAddr) -> Option<QuicSource> {
        let mut closed = self.closed.iter();
        closed.find_map(|closed| {
            let endpoint = closed.endpoint.get()?;
            let is_it = serves(endpoint.socket().addr(), &closed.addr, addr);
            is_it.then_some(QuicSource::Closed(endpoint, closed.key))
        })
    }

    /// Returns the address of another endpoint of this server that excludes a socket at `addr`.
    fn in_the_way(&self, addr: &ListenAddr) -> Option<ListenAddr> {
        let closed = self.closed.iter();
        let closed = closed.filter(|closed| closed.endpoint.get().is_some());
        let mut all = self.open.iter().map(|open| &open.addr);
        let known = closed.map(|closed| &closed.addr);
        all.by_ref().chain(known).find(|it| it.meets(addr)).cloned()
    }

    fn close(&mut self, before: Option<OpenQuic>) {
        self.closed.retain(|closed| closed.endpoint.get().is_some());
        let Some(open) = before else {
            return;
        };
        open.stop.trigger();
        let addr = open.endpoint.socket().addr();
        log::info!("accepting QUIC ended addr={addr}");
        self.closed.push(ClosedQuic {
            endpoint: open.endpoint.close(),
            key: open.key,
            addr: open.addr,
        });
    }
}

/// Accepts connections until the server or the listener stops.
async fn accept(state: Arc<ServerState>, open: OpenQuic) {
    let stop = (state.stop.clone(), open.stop.clone());
    let accepting = async {
        loop {
            accept_one(&state, &open, open.endpoint.attempt().await).await;
        }
    };
    stop.0.or(stop.1.or::<()>(accepting)).await;
}

/// Accepts a connection if the limits of its address allow another one.
async fn accept_one(state: &Arc<ServerState>, open: &OpenQuic, attempt: Attempt) {
    let Some(peer) = attempt.peer() else {
        return;
    };
    if open.only_v4.load(Ordering::Relaxed) && peer.is_ipv6() {
        return attempt.refuse();
    }
    let limit = &state.connection_limit;
    let permit = match attempt.is_proved() {
        true => limit.take(peer.ip()),
        // The address may be invented.
        false if limit.has_room_for_connections_alone(peer.ip()) => return attempt.demand_proof(),
        false => limit.take_for_flow(peer.ip()),
    };
    let Some(permit) = permit else {
        return attempt.refuse();
    };
    let setup = open.setup.lock().clone();
    match attempt.accept(&setup, state.serving.begin()).await {
        Ok(connection) => net::spawn(serve(state.clone(), connection, peer, permit)),
        Err(e) => log::debug!("{peer}: QUIC handshake: {e}"),
    }
}

/// Serves the tunnel of a connection.
async fn serve(state: Arc<ServerState>, connection: Connection, peer: SocketAddr, permit: Permit) {
    let incoming = Incoming::new(state, peer, permit, ListenerKind::Quic);
    let opening = async {
        connection.established().await?;
        connection.accept_stream().await
    };
    match timeout_at(incoming.deadline, opening).await {
        Some(Ok(stream)) => sniff::serve_quic(incoming, Conn::from(stream)).await,
        Some(Err(e)) => log::debug!("{peer}: QUIC handshake: {e}"),
        None => log::debug!("{peer}: the QUIC handshake took too long"),
    }
}

/// Lets a client that has logged in send more at once.
pub fn raise_window(conn: &Conn) {
    if let Conn::Quic(stream) = conn {
        stream.raise_window();
    }
}

/// Makes BBR the congestion control of a client's connection, as the client wants.
pub fn use_bbr(conn: &Conn) {
    if let Conn::Quic(stream) = conn {
        stream.use_bbr();
    }
}

/// Whether each visitor of a tunnel on this connection has a stream of QUIC, as only GT/2 allows.
pub fn has_streams(conn: &Conn) -> bool {
    match conn {
        Conn::Quic(stream) => stream.has_streams(),
        _ => false,
    }
}

/// Answers the original's probe: sends datagrams back until the last one.
pub async fn answer_probe(conn: &Conn) {
    if let Conn::Quic(stream) = conn {
        stream.echo_datagrams(MAX_PROBE, END_OF_PROBE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Scalar;

    #[test]
    fn a_socket_serves_every_spelling_of_its_address_and_less() {
        let served = |bound: &str, configured: &str, addr: &str| {
            let read = |text: &str| ListenAddr::read(text).unwrap();
            serves(bound.parse().unwrap(), &read(configured), &read(addr))
        };
        for addr in [":443", "443", "[::]:443", "0.0.0.0:443"] {
            assert!(served("[::]:443", ":443", addr), "{addr}");
        }
        assert!(served("0.0.0.0:443", "0.0.0.0:443", "0.0.0.0:443"));
        assert!(served("127.0.0.1:7", "127.0.0.1:0", "127.0.0.1:0"));
        assert!(served("[::1]:443", "localhost:443", "[0::1]:443"));
        for (bound, configured, addr) in [
            ("0.0.0.0:443", "0.0.0.0:443", ":443"),
            ("[::]:443", ":443", ":444"),
            ("[::]:443", ":443", "127.0.0.1:443"),
            ("[::]:443", ":443", ":0"),
            ("127.0.0.1:443", "127.0.0.1:443", "127.0.0.2:443"),
        ] {
            assert!(!served(bound, configured, addr), "{configured} {addr}");
        }
    }
}
