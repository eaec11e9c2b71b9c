//! Connections to servers: from which of this machine's links they start, and through which proxy they go.
//! Not the tunnels in them.

mod answer;
mod dial;
mod http_connect;
mod links;
mod proxy;
mod socks;

#[cfg(all(feature = "quic", not(feature = "sim")))]
pub use crate::net::kernel::bind_to;
#[cfg(any(test, fuzzing))]
pub(crate) use answer::ProxyAnswer;
#[cfg(any(test, fuzzing))]
pub(crate) use http_connect::parse as parse_connect_answer;
#[cfg(all(feature = "quic", not(feature = "sim")))]
pub use links::LinkPath;
use links::Links;
pub use links::{LinkSource, LinkUse};
pub use proxy::{ProxyLogin, ProxyProtocol, ProxyServer};
#[cfg(any(test, fuzzing))]
pub(crate) use socks::{parse as parse_socks_answer, SocksStep};

use super::{Dial, Dialling, Socket};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connects to servers: over this machine's links in turn, and through a proxy, as far as they are
/// configured.
#[derive(Default)]
pub struct Dialer {
    links: Links,
    proxy: Option<ProxyServer>,
}

impl Dialer {
    /// Whether servers are reached through a proxy.
    #[cfg(feature = "quic")]
    pub fn has_proxy(&self) -> bool {
        self.proxy.is_some()
    }

    /// Creates a dialer. Without `sources` the system chooses the link of a connection.
    pub fn new(sources: &[LinkSource], proxy: Option<ProxyServer>) -> Arc<Self> {
        Arc::new(Self {
            links: Links::new(sources),
            proxy,
        })
    }

    /// Whether there are several links to choose from.
    pub fn has_choice(&self) -> bool {
        self.links.has_choice()
    }

    /// Lets links that have failed be tried again at once.
    pub fn retry_links(&self) {
        self.links.retry();
    }

    /// Whether a tunnel over `link` would better be opened anew, since another link has less to carry.
    pub fn is_uneven(&self, link: &LinkUse) -> bool {
        self.links.is_uneven(link)
    }

    /// Connects to `host`; every step may take `timeout`. Returns the link that the connection is over,
    /// which counts as used until the second value is dropped. The error names the step that has failed.
    pub async fn dial(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> io::Result<(Socket, LinkUse)> {
        let Some(proxy) = &self.proxy else {
            return dial::over(&self.links, host, port, timeout).await;
        };
        let near = |e: io::Error| io::Error::new(e.kind(), format!("the proxy {proxy}: {e}"));
        let dialling = dial::over(&self.links, &proxy.host, proxy.port, timeout);
        let (mut socket, link) = dialling.await.map_err(near)?;
        match proxy.open(&mut socket, host, port, timeout).await {
            Ok(()) => Ok((socket, link)),
            Err(e) => Err(near(e)),
        }
    }
}

#[cfg(all(feature = "quic", not(feature = "sim")))]
impl Dialer {
    /// Connects to `host` by `attempt`, without a proxy, within `timeout`. An attempt gets an address, and the link that it
    /// starts at.
    pub async fn dial_by<T, F: std::future::Future<Output = io::Result<T>>>(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
        attempt: impl Fn(std::net::SocketAddr, LinkPath) -> F,
    ) -> io::Result<T> {
        dial::over_by(&self.links, host, port, timeout, attempt).await
    }
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, host: &'a str, port: u16, timeout: Duration) -> Dialling<'a> {
        Box::pin(async move {
            let (socket, _) = self.dial(host, port, timeout).await?;
            Ok(socket)
        })
    }
}

/// Returns the address if `host` is one and not a name, without a zone, which means nothing to a proxy.
fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}
