//! The stub of `p2p` in builds without the feature. `config` reports options that need it.

use super::context::ClientContext;
use crate::config;
use crate::net::http::reply;
use crate::tunnel::Stream;
use futures_lite::AsyncWriteExt;
use std::io;
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
pub struct P2p(Arc<ClientContext>);

impl P2p {
    pub fn new(context: Arc<ClientContext>, _: P2pOptions, (): AcceptChannel) -> Arc<Self> {
        Arc::new(Self(context))
    }

    pub fn context(&self) -> &Arc<ClientContext> {
        &self.0
    }

    pub fn change(&self, _: P2pOptions) {}

    pub fn set_stun_server(&self, _: &str) {}

    /// Returns the STUN server that a remoteAPI has named, for the log.
    pub fn servers(&self, of_api: &str) -> String {
        of_api.to_owned()
    }

    pub async fn close(&self) {}

    pub fn refuse_channels(&self) {}

    /// Describes the peers for the web page: there are none.
    #[cfg(feature = "web")]
    pub fn describe(&self) -> Vec<serde_json::Value> {
        Vec::new()
    }
}

/// What serves data channels: nothing, since no peer opens any.
pub type AcceptChannel = ();

/// A request for a relay, which never exists in this build.
pub enum RelayRequest {}

/// Refuses a signaling request.
pub async fn answer(_: &P2p, mut stream: Stream) -> io::Result<Option<RelayRequest>> {
    let refusal = reply::head("403 Forbidden", "", Some(0));
    stream.write_all(refusal.as_bytes()).await?;
    Ok(None)
}

/// Whether the configuration enables peers: never.
pub fn is_on(_: &P2p) -> bool {
    false
}

/// Reads nothing of a preflight, which goes to the service.
pub async fn preflight(_: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    Ok(Some(Vec::new()))
}
