//! The stub of `outbound` in builds without it: servers are reached directly, over the links that the system
//! chooses. `config` refuses the options for anything else.

use super::{dial, Dial, Dialling, Socket};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// An interface or a source address of connections, of which this build can use none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkSource {}

impl fmt::Display for LinkSource {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// A proxy on the way to servers, of which this build can use none.
#[derive(Debug, Clone, PartialEq)]
pub enum ProxyServer {}

impl fmt::Display for ProxyServer {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// The use of a link that the system has chosen. Prints nothing.
#[derive(Clone, Default)]
pub struct LinkUse;

impl LinkUse {
    /// Does nothing.
    pub fn note_failure(&self) {}

    /// Does nothing.
    pub fn end(&self) {}

    /// Whether both are of the same link, as far as is known.
    pub fn is_same(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for LinkUse {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Connects to servers directly.
#[derive(Default)]
pub struct Dialer;

impl Dialer {
    /// Creates a dialer.
    pub fn new(_: &[LinkSource], _: Option<ProxyServer>) -> Arc<Self> {
        Arc::new(Self)
    }

    /// Whether servers are reached through a proxy: never.
    #[cfg(feature = "quic")]
    pub fn has_proxy(&self) -> bool {
        false
    }

    /// Whether there are several links to choose from: never.
    pub fn has_choice(&self) -> bool {
        false
    }

    /// Does nothing.
    pub fn retry_links(&self) {}

    /// Whether another link has less to carry: never.
    pub fn is_uneven(&self, _: &LinkUse) -> bool {
        false
    }

    /// Connects to `host` within `timeout`. The error names the step that has failed.
    pub async fn dial(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> io::Result<(Socket, LinkUse)> {
        Ok((dial(host, port, timeout).await?, LinkUse))
    }
}

#[cfg(all(feature = "quic", not(feature = "sim")))]
pub use of_quic::{bind_to, LinkPath};

#[cfg(all(feature = "quic", not(feature = "sim")))]
mod of_quic {
    use super::{Dialer, LinkSource, LinkUse};
    use crate::net::dial::dial_with;
    use std::future::Future;
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    /// Binds a socket to a link, of which there is none.
    pub fn bind_to(_: &socket2::Socket, source: &LinkSource) -> io::Result<()> {
        match *source {}
    }

    /// The link of a connection: the system has chosen it.
    #[derive(Default)]
    pub struct LinkPath(LinkUse);

    impl LinkPath {
        /// Returns the use of the link.
        pub fn link(&self) -> &LinkUse {
            &self.0
        }

        /// Returns where the connection starts: the system chooses.
        pub fn source(&self) -> Option<LinkSource> {
            None
        }

        /// Does nothing.
        pub fn note_success(&self) {}

        /// Opens another socket by `open`.
        pub fn change<T>(
            &self,
            _: SocketAddr,
            _: bool,
            open: impl Fn(Option<&LinkSource>) -> io::Result<T>,
        ) -> io::Result<T> {
            open(None)
        }
    }

    impl Dialer {
        /// Connects to `host` by `attempt` within `timeout`.
        pub async fn dial_by<T, F: Future<Output = io::Result<T>>>(
            &self,
            host: &str,
            port: u16,
            timeout: Duration,
            attempt: impl Fn(SocketAddr, LinkPath) -> F,
        ) -> io::Result<T> {
            let attempt = |addr| attempt(addr, LinkPath::default());
            dial_with(host, port, timeout, attempt).await
        }
    }
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, host: &'a str, port: u16, timeout: Duration) -> Dialling<'a> {
        Box::pin(dial(host, port, timeout))
    }
}
