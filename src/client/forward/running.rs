//! A forwarder of a local port, from the plan of a reload to its end: what those of TCP and UDP have in common. Not what
//! they do with their sockets.

use super::direct::DirectWay;
use super::other_client::{KeyTrials, OtherClient};
use crate::client::p2p::P2p;
use crate::client::pool::Pool;
use crate::config::ListenAddr;
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::Shutdown;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

/// A socket at the port that is forwarded.
pub trait ForwardSocket: AsFd + Sized + Send + Sync + 'static {
    /// What its options start with: `tcpForward` or `udpForward`.
    const OPTIONS: &'static str;

    /// Takes the socket for this address that another process has handed over.
    fn inherit(
        inherited: &mut Inherited,
        file: &Option<PathBuf>,
        addr: &ListenAddr,
    ) -> Option<Self>;

    /// Opens a socket.
    fn open(addr: &ListenAddr) -> io::Result<Self>;

    /// Returns its address.
    fn addr(&self) -> SocketAddr;

    /// Describes the socket for this address for the child process.
    fn item(addr: String) -> Item;
}

/// The configuration of a forwarder.
pub trait ForwardConfig: Clone + PartialEq {
    /// Address to listen on.
    fn addr(&self) -> &ListenAddr;

    /// Host prefix of the other client.
    fn host_prefix(&self) -> &str;

    /// Maximum number of peers.
    fn peers(&self) -> usize;

    /// Whether the way through the server may be used.
    fn falls_back(&self) -> bool;
}

/// A running forwarder with its socket.
pub struct Running<S, C> {
    socket: Arc<S>,
    config: C,
    stop: Shutdown,
}

/// A forwarder that has its socket and is not started yet.
pub struct Planned<S, C> {
    socket: Arc<S>,
    config: C,
}

/// What a forwarder that has just been started works with.
pub struct Started<S, C> {
    /// The socket.
    pub socket: Arc<S>,
    /// The configuration.
    pub config: C,
    /// The way to the other client.
    pub direct: Arc<DirectWay>,
    /// Triggered to end the forwarder.
    pub stop: Shutdown,
}

impl<S: ForwardSocket, C: ForwardConfig> Planned<S, C> {
    /// Opens the socket, unless the `running` forwarder has it or another process has handed it over. The error names
    /// the address.
    pub fn new(
        config: &C,
        running: Option<&Running<S, C>>,
        file: &Option<PathBuf>,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let addr = config.addr();
        let same = |forward: &&Running<S, C>| forward.config.addr() == addr;
        let socket = match running.filter(same) {
            Some(forward) => forward.socket.clone(),
            None => match S::inherit(inherited, file, addr) {
                Some(socket) => Arc::new(socket),
                None => Arc::new(S::open(addr).map_err(|e| {
                    let what = format!("listening on {}Addr {addr}: {e}", S::OPTIONS);
                    io::Error::new(e.kind(), what)
                })?),
            },
        };
        let config = config.clone();
        Ok(Self { socket, config })
    }

    /// Whether `running` already has this configuration and socket.
    pub fn is(&self, running: &Running<S, C>) -> bool {
        self.config == running.config && Arc::ptr_eq(&self.socket, &running.socket)
    }
}

impl<S: ForwardSocket, C: ForwardConfig> Running<S, C> {
    /// Starts what was planned: `run` is given what it works with, and starts its task.
    pub(super) fn begin(
        p2p: Arc<P2p>,
        pools: Vec<Arc<Pool>>,
        planned: Planned<S, C>,
        run: impl FnOnce(Started<S, C>),
    ) -> Self {
        let Planned { socket, config } = planned;
        log::info!(
            "Listening {options}Addr={} {options}HostPrefix={}",
            config.addr(),
            config.host_prefix(),
            options = S::OPTIONS,
        );
        let stop = Shutdown::default();
        let other = OtherClient {
            p2p,
            pools,
            host_prefix: config.host_prefix().to_owned(),
            trials: KeyTrials::default(),
            may_relay: config.falls_back(),
        };
        let name = format!("{}Addr={}", S::OPTIONS, socket.addr());
        run(Started {
            socket: socket.clone(),
            config: config.clone(),
            direct: DirectWay::new(other, name, config.peers(), stop.clone()),
            stop: stop.clone(),
        });
        Self {
            socket,
            config,
            stop,
        }
    }

    /// Stops accepting, and attempts to have a direct way.
    pub fn stop(&self) {
        self.stop.trigger();
    }

    /// Returns the socket to hand over to the child process.
    pub fn share(&self) -> Outgoing {
        let addr = self.config.addr().to_string();
        (S::item(addr), Some(self.socket.clone()))
    }
}

impl<S, C: Clone> Clone for Running<S, C> {
    fn clone(&self) -> Self {
        Self {
            socket: self.socket.clone(),
            config: self.config.clone(),
            stop: self.stop.clone(),
        }
    }
}
