//! P2P: connections to other ends that bypass the server (docs/p2p.md). Signaling comes through the
//! tunnel like any visitor; data uses WebRTC data channels, one for each connection.
//!
//! A [`peer`] is a state machine, a [`link`] drives it, and all peers share the socket of one
//! [`endpoint`].

mod channel;
pub(crate) mod checks;
mod crypto;
mod driver;
mod duplex;
pub(super) mod endpoint;
mod flow;
pub(crate) mod identity;
pub(crate) mod label;
mod limit;
pub(super) mod link;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod nat_kind;
pub(crate) mod packets;
pub(crate) mod peer;
pub(crate) mod pieces;
#[cfg_attr(not(feature = "portmap"), path = "no_portmap.rs")]
pub(crate) mod portmap;
mod punch;
pub(crate) mod records;
pub(crate) mod resets;
pub(crate) mod sdp;
pub(crate) mod signaling;
mod socket;

pub use channel::{carry, ChannelConn};
pub use flow::{accept_flow, carry_flow, carry_last_answers, carry_records, dial_flow, FlowEnd};
pub use signaling::{answer, is_on, preflight, RelayRequest};

use super::context::ClientContext;
use crate::collections::HashMap;
use crate::config::{ClientConfig as Config, WebRtc, WebRtcLevel};
use crate::logging;
use crate::net::{clock, timeout};
use crate::sync::{Mutex, MutexGuard};
use checks::{CheckBudget, ConnectivityChecks, IceRole};
use driver::PeerDriver;
use endpoint::Endpoint;
use identity::Identity;
use label::ServiceLabel;
use limit::{PeerLimit, PeerPermit};
use link::PeerHandle;
use memory::{ChannelMemory, MemoryShare};
use peer::Peer;
use portmap::PortMapper;
use punch::PunchLimit;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// Why a peer does not reach a service that is not private.
const NOT_OPEN: &str = "without remoteSTUN, peers reach private services only";
/// Time that peers have to send their last datagrams.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum length in bytes of a message that is sent: all browsers accept it in one piece.
const MAX_MESSAGE_OUT: usize = 16 * 1024;
/// Maximum length in bytes of a message that is received.
const MAX_MESSAGE_IN: u32 = 64 * 1024;
/// Beginning of the foundation of a candidate that a gateway has opened. Only gt reads it, for the log.
const MAPPED: &str = "mapped";

/// The P2P options of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct P2pOptions {
    /// STUN servers, `stun:host:port` or without `stun:` or port.
    stun: Vec<String>,
    min_port: u16,
    max_port: u16,
    /// Time after which a peer without channels is ended; zero for never.
    idle: Duration,
    /// Maximum number of peers.
    max_peers: usize,
    log_level: WebRtcLevel,
    /// Whether the gateway is asked to open the ports of peers.
    port_map: bool,
}

impl P2pOptions {
    /// Takes the P2P options from a configuration.
    pub fn new(config: &Config) -> Self {
        let WebRtc {
            idle_timeout,
            min_port,
            max_port,
            connections,
            log_level,
            port_map,
        } = config.webrtc;
        Self {
            stun: config.stun.clone(),
            min_port,
            max_port,
            idle: idle_timeout,
            max_peers: connections,
            log_level,
            port_map,
        }
    }
}

/// The reason why a peer cannot be created.
#[derive(Debug)]
pub struct P2pError {
    what: String,
    why: String,
}

impl P2pError {
    fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        let (what, why) = (what.into(), why.to_string());
        Self { what, why }
    }
}

impl std::error::Error for P2pError {}

impl fmt::Display for P2pError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot create {}: {}", self.what, self.why)
    }
}

/// Serves a data channel that a peer has opened with this label.
pub type AcceptChannel = fn(&Arc<ClientContext>, &str, ChannelConn);

/// The peers of a client.
pub struct P2p {
    context: Arc<ClientContext>,
    accept: AcceptChannel,
    checks: Arc<CheckBudget>,
    limit: PeerLimit,
    memory: Arc<ChannelMemory>,
    mapper: PortMapper,
    punches: PunchLimit,
    /// Whether peers reach services that are not private, too: there is a STUN server.
    is_open: Arc<AtomicBool>,
    inner: Mutex<P2pState>,
}

struct P2pState {
    options: P2pOptions,
    /// The STUN server that the remoteAPI named.
    api_stun: Option<String>,
    /// The endpoint, created with the first peer.
    endpoint: Option<Arc<Endpoint>>,
    /// The endpoints of peers that this end has dialled, as long as they live.
    dialled: Vec<Weak<Endpoint>>,
    /// Endpoints on ports that the options do not name any more, as long as they have peers.
    former: Vec<Weak<Endpoint>>,
    /// Peers that were offered and not answered yet, by number.
    offered: HashMap<u32, PeerHandle>,
}

/// Limits the log level of the WebRTC crates, whose errors are only warnings for gt.
fn set_log_level(level: WebRtcLevel) {
    logging::set_webrtc_level(match level {
        WebRtcLevel::Verbose => log::LevelFilter::Trace,
        WebRtcLevel::Info => log::LevelFilter::Warn,
        WebRtcLevel::Warning => log::LevelFilter::Error,
        WebRtcLevel::Error => log::LevelFilter::Off,
    });
}

impl P2p {
    /// Creates the state of a client without peers.
    pub fn new(
        context: Arc<ClientContext>,
        options: P2pOptions,
        accept: AcceptChannel,
    ) -> Arc<Self> {
        set_log_level(options.log_level);
        let p2p = Arc::new(Self {
            context,
            accept,
            checks: Arc::default(),
            limit: PeerLimit::default(),
            memory: Arc::default(),
            mapper: PortMapper::new(),
            punches: PunchLimit::default(),
            is_open: Arc::default(),
            inner: Mutex::new(P2pState {
                options,
                api_stun: None,
                endpoint: None,
                dialled: Vec::new(),
                former: Vec::new(),
                offered: HashMap::default(),
            }),
        });
        p2p.prepare();
        p2p
    }

    /// Creates the endpoint before the first peer if its port is to be mapped, which may take seconds.
    fn prepare(&self) {
        let inner = self.lock();
        self.note_stun(&inner);
        let serves = inner.options.port_map && !inner.options.stun.is_empty();
        drop(inner);
        if serves {
            if let Err(e) = self.endpoint() {
                log::warn!("P2P: {e}");
            }
        }
    }

    /// Returns the client whose peers these are.
    pub fn context(&self) -> &Arc<ClientContext> {
        &self.context
    }

    fn lock(&self) -> MutexGuard<'_, P2pState> {
        self.inner.lock()
    }

    /// Changes the options. Existing peers stay.
    pub fn change(&self, options: P2pOptions) {
        let mut inner = self.lock();
        set_log_level(options.log_level);
        let ports = |options: &P2pOptions| (options.min_port, options.max_port, options.port_map);
        if ports(&inner.options) != ports(&options) {
            inner.former.retain(|other| other.strong_count() > 0);
            let former = inner.endpoint.take();
            inner.former.extend(former.as_ref().map(Arc::downgrade));
        }
        inner.options = options;
        drop(inner);
        self.prepare();
    }

    /// Sets the STUN server that the remoteAPI named, or none.
    pub fn set_stun_server(&self, server: &str) {
        let mut inner = self.lock();
        inner.api_stun = (!server.is_empty()).then(|| server.to_owned());
        self.note_stun(&inner);
    }

    /// Notes whether there is a STUN server.
    fn note_stun(&self, inner: &P2pState) {
        let is_open = !inner.options.stun.is_empty() || inner.api_stun.is_some();
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Whether a peer may ask for the service of this label.
    fn admits(is_open: &AtomicBool, label: &str) -> bool {
        let label = ServiceLabel::parse(label);
        let is_private = matches!(label, ServiceLabel::Private | ServiceLabel::PrivateUdp);
        is_private || is_open.load(Ordering::Relaxed)
    }

    /// Ends all peers, and gives the gateway's ports back.
    pub async fn close(&self) {
        let endpoints = self.endpoints();
        endpoints.iter().for_each(|endpoint| endpoint.end_peers());
        let ended = async {
            for endpoint in endpoints {
                endpoint.without_peers().await;
            }
        };
        timeout(CLOSE_TIMEOUT, ended).await;
        self.mapper.close().await;
    }

    /// Refuses the channels that peers open from now on, since this client is about to end.
    pub fn refuse_channels(&self) {
        for endpoint in self.endpoints() {
            for link in endpoint.links() {
                link.with(Peer::refuse_channels);
            }
        }
    }

    /// Returns the endpoints of all peers.
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let dialled = self.lock().dialled.clone();
        let mut endpoints = self.shared_endpoints();
        endpoints.extend(dialled.iter().filter_map(Weak::upgrade));
        endpoints
    }

    /// Returns the endpoints of the peers that have dialled this end.
    fn shared_endpoints(&self) -> Vec<Arc<Endpoint>> {
        let inner = self.lock();
        let former = inner.former.iter().filter_map(Weak::upgrade);
        inner.endpoint.iter().cloned().chain(former).collect()
    }

    /// Returns the peer to which this end has this ICE user fragment, and its endpoint.
    fn peer(&self, ufrag: &str) -> Option<(Arc<Endpoint>, PeerHandle)> {
        let mut endpoints = self.endpoints().into_iter();
        endpoints.find_map(|endpoint| endpoint.peer(ufrag).map(|peer| (endpoint, peer)))
    }

    /// Describes the peers for the web page.
    #[cfg(feature = "web")]
    pub fn describe(&self) -> Vec<serde_json::Value> {
        let endpoints = self.shared_endpoints();
        let links = endpoints.iter().flat_map(|endpoint| endpoint.links());
        let describe = |link: PeerHandle| {
            let peer = link.lock();
            let state = match peer.state() {
                peer::PeerState::Connecting => "connecting",
                peer::PeerState::Connected => "connected",
                peer::PeerState::Over(_) => "over",
            };
            let path = peer.path();
            serde_json::json!({
                "state": state,
                "address": peer.address().map(|addr| addr.to_string()),
                "way": path.as_ref().map(|path| path.way.to_string()),
                "rtt": path.as_ref().map(|path| path.round_trip.as_secs_f64() * 1e3),
                "lossPerMille": path.as_ref().map(|path| path.loss),
                "channels": peer.channels(),
            })
        };
        links.map(describe).collect()
    }

    /// Returns the STUN servers of the configuration and the one that a remoteAPI has named, for
    /// the log.
    pub fn servers(&self, of_api: &str) -> String {
        let mut servers = self.lock().options.stun.clone();
        servers.extend((!of_api.is_empty()).then(|| of_api.to_owned()));
        servers.join(",")
    }

    fn stun(&self) -> Vec<String> {
        let inner = self.lock();
        inner
            .options
            .stun
            .iter()
            .chain(&inner.api_stun)
            .cloned()
            .collect()
    }

    fn idle(&self) -> Duration {
        self.lock().options.idle
    }

    /// Returns a permit for another peer, if there may be one.
    fn reserve(&self) -> Option<PeerPermit> {
        let most = self.lock().options.max_peers;
        self.limit.acquire(most)
    }

    fn endpoint(&self) -> Result<Arc<Endpoint>, P2pError> {
        let mut inner = self.lock();
        if let Some(endpoint) = &inner.endpoint {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::start(identity()?, &inner.options, &self.mapper)?;
        inner.endpoint = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Creates an endpoint for one peer only, which ends with the peer. Two peers between the same
    /// two addresses could not be told apart on one socket.
    pub(super) fn endpoint_of_one(&self) -> Result<Arc<Endpoint>, P2pError> {
        let mut inner = self.lock();
        let endpoint = Endpoint::start(identity()?, &inner.options, &self.mapper)?;
        inner.dialled.retain(|other| other.strong_count() > 0);
        inner.dialled.push(Arc::downgrade(&endpoint));
        Ok(endpoint)
    }
}

/// Returns the process's identity.
fn identity() -> Result<Arc<Identity>, P2pError> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(identity.clone());
    }
    let identity = Arc::new(Identity::new()?);
    Ok(IDENTITY.get_or_init(|| identity).clone())
}

/// Returns the candidates of this machine's addresses.
pub(super) fn host_candidates(endpoint: &Endpoint) -> Vec<String> {
    let hosts = endpoint.hosts().into_iter();
    hosts.filter_map(peer::transport::candidate).collect()
}

/// Creates a peer and its task, and returns it with the candidates of this machine's addresses.
/// `prepare` runs before the task, and `permit` is returned when the task ends.
pub(super) fn begin<T>(
    p2p: &P2p,
    endpoint: Arc<Endpoint>,
    role: IceRole,
    permit: Option<PeerPermit>,
    prepare: impl FnOnce(&mut Peer, &Identity) -> Result<T, P2pError>,
) -> Result<(PeerHandle, Vec<String>, T), P2pError> {
    let checks = ConnectivityChecks::new(p2p.checks.clone(), role, endpoint::own_addresses());
    let memory = MemoryShare::new(p2p.memory.clone());
    let mut peer = Peer::new(&endpoint.identity, checks, memory, clock::now())?;
    let candidates = host_candidates(&endpoint);
    let prepared = prepare(&mut peer, &endpoint.identity)?;
    if p2p.context.stop.is_triggered() {
        peer.refuse_channels();
    }
    let link = PeerHandle::new(peer);
    endpoint.add(link.clone());
    if let Some(permit) = &permit {
        permit.hold(&link);
    }
    let punching = punch::run(link.clone(), endpoint.clone(), role, p2p.punches.clone());
    crate::net::spawn(punching);
    let (context, accept) = (p2p.context.clone(), p2p.accept);
    let is_open = p2p.is_open.clone();
    let accept = move |channel: ChannelConn, opened: peer::OpenedChannel| match P2p::admits(
        &is_open,
        &opened.label,
    ) {
        true => accept(&context, &opened.label, channel),
        false => log::debug!("a peer asks for {:?}: {NOT_OPEN}", opened.label),
    };
    let driver = PeerDriver::new(link.clone(), endpoint, p2p.idle(), accept);
    let over = link.clone();
    crate::net::spawn(async move {
        driver.await;
        drop(permit);
        over.drained().await;
    });
    Ok((link, candidates, prepared))
}
