//! The stub of `p2p` in builds without the feature. `config` reports options that need it.

use super::context::ClientContext;
use super::Pool;
use crate::config::{self, TcpForward};
use crate::handover::{Inherited, Outgoing};
use crate::net::http::reply;
use crate::tunnel::Stream;
use futures_lite::AsyncWriteExt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The P2P options of a configuration: none.
#[derive(Clone, Debug, PartialEq)]
pub struct P2pOptions;

impl P2pOptions {
    pub fn new(_: &config::ClientConfig) -> Self {
        Self
    }
}

/// The peers of a client: none.
pub struct P2p(());

impl P2p {
    pub fn new(_: P2pOptions) -> Self {
        Self(())
    }

    pub fn change(&self, _: P2pOptions) {}

    pub fn set_stun_server(&self, _: &str) {}

    /// Returns the STUN server that a remoteAPI has `told`, for the log.
    pub fn servers(&self, told: &str) -> String {
        told.to_owned()
    }

    pub fn close(&self) {}
}

/// Refuses a signaling request.
pub async fn answer(_: &Arc<ClientContext>, mut stream: Stream) -> io::Result<()> {
    let refusal = reply::head("403 Forbidden", "", Some(0));
    stream.write_all(refusal.as_bytes()).await
}

/// Whether the configuration enables peers: never.
pub fn is_on(_: &ClientContext) -> bool {
    false
}

/// Reads nothing of a preflight, which goes to the service.
pub async fn preflight(_: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    Ok(Some(Vec::new()))
}

/// A forwarder, which never exists in this build.
#[derive(Clone)]
pub enum TcpForwarder {}

impl TcpForwarder {
    pub fn start(_: Arc<ClientContext>, _: Vec<Arc<Pool>>, planned: PlannedForward) -> Self {
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
