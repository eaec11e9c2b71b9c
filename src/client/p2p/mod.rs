//! Ways to other ends that do not lead through the server. Signaling comes through the tunnel
//! like any visitor; what follows goes over WebRTC's data channels, one for each connection.
//!
//! A [`peer`] is state alone, a [`link`] drives it, all of them share the socket of one [`hub`].

mod certificate;
mod channel;
pub(crate) mod checks;
mod crypto;
mod endpoint;
mod forward;
pub(crate) mod identity;
mod limit;
mod link;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod packets;
pub(crate) mod peer;
pub(crate) mod records;
pub(crate) mod resets;
pub(crate) mod sdp;
pub(crate) mod signaling;
mod socket;

pub use channel::{carry, ChannelConn};
pub use forward::{PlannedForward, TcpForwarder};
pub use signaling::{answer, is_on, preflight};

use super::ClientContext;
use crate::config::{ClientConfig as Config, WebRtc, WebRtcLevel};
use crate::logging;
use crate::sync::{Mutex, MutexGuard};
use checks::{CheckBudget, ConnectivityChecks, IceRole};
use endpoint::Endpoint;
use identity::Identity;
use limit::{PeerLimit, PeerPermit};
use link::{PeerDriver, PeerHandle};
use memory::{ChannelMemory, MemoryShare};
use peer::Peer;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Bytes of one message, as we send them: a browser takes that in one piece everywhere,
const MAX_MESSAGE_OUT: usize = 16 * 1024;
/// and as we take them.
const MAX_MESSAGE_IN: u32 = 64 * 1024;
/// What the label of a channel begins with that says which service it is for.
const LABEL: &str = "gt:";

/// What the user wants of it.
#[derive(Clone, Debug, PartialEq)]
pub struct P2pOptions {
    /// STUN servers, `stun:host:port` or without `stun:` or port.
    stun: Vec<String>,
    min_port: u16,
    max_port: u16,
    /// A peer without channels is given up after this; zero is never.
    idle: Duration,
    /// Peers at a time.
    most: usize,
    log_level: WebRtcLevel,
}

impl P2pOptions {
    pub fn new(config: &Config) -> Self {
        let WebRtc {
            idle_timeout,
            min_port,
            max_port,
            connections,
            log_level,
        } = config.webrtc;
        Self {
            stun: config.stun.clone(),
            min_port,
            max_port,
            idle: idle_timeout,
            most: connections,
            log_level,
        }
    }
}

/// Why a peer cannot be had.
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
        write!(f, "cannot have {}: {}", self.what, self.why)
    }
}

/// The peers of a client.
pub struct P2p {
    checks: Arc<CheckBudget>,
    limit: PeerLimit,
    memory: Arc<ChannelMemory>,
    inner: Mutex<P2pState>,
}

struct P2pState {
    options: P2pOptions,
    /// A STUN server that the remoteAPI has named.
    told: Option<String>,
    /// There once a peer has been there.
    hub: Option<Arc<Endpoint>>,
    /// Peers that were offered to somebody, by number.
    offered: HashMap<u32, PeerHandle>,
}

/// How much the crates may say: what they call an error is a warning in WebRTC's own words.
fn set_log_level(level: WebRtcLevel) {
    logging::let_peers_say(match level {
        WebRtcLevel::Verbose => log::LevelFilter::Trace,
        WebRtcLevel::Info => log::LevelFilter::Warn,
        WebRtcLevel::Warning => log::LevelFilter::Error,
        WebRtcLevel::Error => log::LevelFilter::Off,
    });
}

impl P2p {
    pub fn new(options: P2pOptions) -> Self {
        set_log_level(options.log_level);
        Self {
            checks: Arc::default(),
            limit: PeerLimit::default(),
            memory: Arc::default(),
            inner: Mutex::new(P2pState {
                options,
                told: None,
                hub: None,
                offered: HashMap::new(),
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, P2pState> {
        self.inner.lock()
    }

    /// Goes on with other options. Peers that are there stay.
    pub fn change(&self, options: P2pOptions) {
        let mut inner = self.inner();
        set_log_level(options.log_level);
        let ports = |options: &P2pOptions| (options.min_port, options.max_port);
        if ports(&inner.options) != ports(&options) {
            inner.hub = None;
        }
        inner.options = options;
    }

    /// The remoteAPI has named a STUN server, or none.
    pub fn set_stun_server(&self, server: &str) {
        self.inner().told = (!server.is_empty()).then(|| server.to_owned());
    }

    /// Ends all peers.
    pub fn close(&self) {
        let hub = self.inner().hub.clone();
        if let Some(hub) = hub {
            hub.close();
        }
    }

    /// The STUN servers of the configuration and the one that a remoteAPI has `told`, for the log.
    pub fn servers(&self, told: &str) -> String {
        let mut servers = self.inner().options.stun.clone();
        servers.extend((!told.is_empty()).then(|| told.to_owned()));
        servers.join(",")
    }

    fn stun(&self) -> Vec<String> {
        let inner = self.inner();
        inner
            .options
            .stun
            .iter()
            .chain(&inner.told)
            .cloned()
            .collect()
    }

    fn idle(&self) -> Duration {
        self.inner().options.idle
    }

    /// The right to another peer, if there may be one.
    fn reserve(&self) -> Option<PeerPermit> {
        let most = self.inner().options.most;
        self.limit.acquire(most)
    }

    fn hub(&self) -> Result<Arc<Endpoint>, P2pError> {
        let mut inner = self.inner();
        if let Some(hub) = &inner.hub {
            return Ok(hub.clone());
        }
        let hub = Endpoint::start(identity()?, &inner.options)?;
        inner.hub = Some(hub.clone());
        Ok(hub)
    }

    /// A hub for one peer alone, which goes with it. Two of one end that reach the same address
    /// from the same address could not be told apart there.
    fn hub_of_one(&self) -> Result<Arc<Endpoint>, P2pError> {
        Endpoint::start(identity()?, &self.inner().options)
    }
}

/// One for the whole process.
fn identity() -> Result<Arc<Identity>, P2pError> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(identity.clone());
    }
    let identity = Arc::new(Identity::new()?);
    Ok(IDENTITY.get_or_init(|| identity).clone())
}

/// A new peer with a task of its own, and how our addresses are told to it. `prepare` is done
/// before its task runs, and `permit` is given back when that ends.
fn begin<T>(
    me: &Arc<ClientContext>,
    hub: Arc<Endpoint>,
    role: IceRole,
    permit: Option<PeerPermit>,
    prepare: impl FnOnce(&mut Peer, &Identity) -> Result<T, P2pError>,
) -> Result<(PeerHandle, Vec<String>, T), P2pError> {
    let checks = ConnectivityChecks::new(me.p2p.checks.clone(), role, endpoint::own_addresses());
    let memory = MemoryShare::new(me.p2p.memory.clone());
    let mut peer = Peer::new(&hub.identity, checks, memory, Instant::now())?;
    let hosts = hub.hosts();
    let told = hosts
        .into_iter()
        .filter_map(peer::transport::candidate)
        .collect();
    let prepared = prepare(&mut peer, &hub.identity)?;
    let link = PeerHandle::new(peer);
    hub.add(link.clone());
    if let Some(permit) = &permit {
        permit.hold(&link);
    }
    let serving = me.clone();
    let accept = move |channel: ChannelConn, opened: peer::OpenedChannel| {
        super::service::serve_channel(&serving, &opened.label, channel);
    };
    let driver = PeerDriver::new(link.clone(), hub, me.p2p.idle(), accept);
    let over = link.clone();
    crate::spawn(async move {
        driver.await;
        drop(permit);
        over.drained().await;
    });
    Ok((link, told, prepared))
}

/// The host prefix that a label names, if it names one.
pub fn prefix_of(label: &str) -> Option<&str> {
    label
        .strip_prefix(LABEL)
        .filter(|prefix| !prefix.is_empty())
}
