//! The stub of `forward` for builds without P2P. `config` reports options that need it.

use super::p2p::P2p;
use super::pool::Pool;
use crate::config::{TcpForward, UdpForward};
use crate::handover::{Inherited, Outgoing};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Returns what `gt status` tells of forwarders: nothing.
pub fn status() -> Vec<String> {
    Vec::new()
}

/// Describes what a client forwards, for the web page: nothing.
#[cfg(feature = "web")]
pub fn describe(_: &Arc<P2p>) -> Vec<serde_json::Value> {
    Vec::new()
}

/// A forwarder, which never exists in this build.
#[derive(Clone)]
pub enum TcpForwarder {}

impl TcpForwarder {
    pub fn start(_: Arc<P2p>, _: Vec<Arc<Pool>>, planned: PlannedForward) -> Self {
        match planned {}
    }

    pub fn stop(&self) {
        match *self {}
    }

    pub fn share(&self) -> Outgoing {
        match *self {}
    }
}

/// A planned forwarder, which never exists in this build.
pub enum PlannedForward {}

impl PlannedForward {
    pub fn new(
        _: &TcpForward,
        _: Option<&TcpForwarder>,
        _: &Option<PathBuf>,
        _: &mut Inherited,
    ) -> io::Result<Self> {
        Err(io::Error::other(
            "tcpForwardAddr needs P2P, which this gt was built without",
        ))
    }

    pub fn is(&self, _: &TcpForwarder) -> bool {
        match *self {}
    }
}

/// A forwarder of datagrams, which never exists in this build.
#[derive(Clone)]
pub enum UdpForwarder {}

impl UdpForwarder {
    pub fn start(_: Arc<P2p>, _: Vec<Arc<Pool>>, planned: PlannedUdpForward) -> Self {
        match planned {}
    }

    pub fn stop(&self) {
        match *self {}
    }

    pub fn share(&self) -> Outgoing {
        match *self {}
    }
}

/// A planned forwarder of datagrams, which never exists in this build.
pub enum PlannedUdpForward {}

impl PlannedUdpForward {
    pub fn new(
        _: &UdpForward,
        _: Option<&UdpForwarder>,
        _: &Option<PathBuf>,
        _: &mut Inherited,
    ) -> io::Result<Self> {
        Err(io::Error::other(
            "udpForwardAddr needs P2P, which this gt was built without",
        ))
    }

    pub fn is(&self, _: &UdpForwarder) -> bool {
        match *self {}
    }
}
