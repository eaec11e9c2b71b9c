//! The forwarder of a local TCP port (tcpForwardAddr).

use super::direct::{DirectWay, DIRECT_TIMEOUT};
use super::error::ForwardError;
use super::other_client::{KeyWay, RelayedConn};
use super::running::{ForwardConfig, ForwardSocket, Planned, Running, Started};
use crate::client::p2p::{carry, label, ChannelConn, P2p};
use crate::client::pool::Pool;
use crate::client::private::{Carried, ProofError};
use crate::config::{ListenAddr, TcpForward};
use crate::handover::{Inherited, Item};
use crate::net::{self, clock, Conn, Listener};
use futures_lite::future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time that one direction of a relayed connection may pause when the other has ended: as long as a
/// relay keeps a silent visitor.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(600);

/// A running forwarder.
pub type TcpForwarder = Running<Listener, TcpForward>;
/// A forwarder that listens and is not started yet.
pub type PlannedForward = Planned<Listener, TcpForward>;

impl ForwardSocket for Listener {
    const OPTIONS: &'static str = "tcpForward";

    fn inherit(
        inherited: &mut Inherited,
        file: &Option<PathBuf>,
        addr: &ListenAddr,
    ) -> Option<Self> {
        inherited.listener(file, addr)
    }

    fn open(addr: &ListenAddr) -> io::Result<Self> {
        net::listen(addr.host.as_deref(), addr.port)
    }

    fn addr(&self) -> SocketAddr {
        self.addr()
    }

    fn item(addr: String) -> Item {
        Item::Listener { addr }
    }
}

impl ForwardConfig for TcpForward {
    fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    fn host_prefix(&self) -> &str {
        &self.host_prefix
    }

    fn peers(&self) -> usize {
        self.connections
    }

    fn falls_back(&self) -> bool {
        self.fallback
    }
}

impl TcpForwarder {
    /// Starts to accept connections.
    pub fn start(p2p: Arc<P2p>, pools: Vec<Arc<Pool>>, planned: PlannedForward) -> Self {
        let context = p2p.context().clone();
        Self::begin(p2p, pools, planned, |started| {
            let Started {
                socket: listener,
                config,
                direct,
                stop,
            } = started;
            log::info!("acceptLoop started addr={}", listener.addr());
            let way = Arc::new(Forwarder { direct, config });
            crate::net::spawn(async move {
                let accept = async {
                    loop {
                        let (socket, _) = listener.accept().await;
                        let serving = context.serving.begin();
                        let (way, cut) = (way.clone(), context.cut.clone());
                        crate::net::spawn(async move {
                            let carrying = way.carry(Arc::new(socket.into()));
                            if let Some(Err(e)) = cut.or(carrying).await {
                                log::debug!("a forwarded connection: {e}");
                            }
                            drop(serving);
                        });
                    }
                };
                stop.or(future::or(accept, context.stop.wait())).await;
                // Attempts to have a direct way end, too.
                stop.trigger();
            });
        })
    }
}

/// What connects accepted connections to the other client.
struct Forwarder {
    direct: Arc<DirectWay>,
    config: TcpForward,
}

impl Forwarder {
    async fn carry(self: &Arc<Self>, conn: Arc<Conn>) -> Result<(), ForwardError> {
        let begun = clock::now();
        let prefix = &self.config.host_prefix;
        let label = match &self.config.key {
            Some(_) => label::PRIVATE.to_owned(),
            None => label::of_prefix(prefix),
        };
        let trials = &self.direct.other().trials;
        let paused = trials.pause(KeyWay::Direct, begun);
        if paused.is_none() {
            if let Some(channel) = self.direct.open(&label).await {
                return self.carry_direct(channel, conn).await;
            }
        }
        let relay_pause = trials.pause(KeyWay::Relay, begun);
        let relay_pause = relay_pause.filter(|_| self.config.fallback);
        let failure = match (self.config.fallback, relay_pause) {
            (true, Some(pause)) => Some(pause.into()),
            (true, None) => match self.relay(&label).await {
                Ok(relayed) => {
                    let _relayed = self.direct.relayed();
                    conn.write_all(&relayed.come).await?;
                    net::carry(&*conn, &relayed.conn, HALF_CLOSE_TIMEOUT).await;
                    return Ok(());
                }
                // The direct way leads to the same end.
                Err(ForwardError::Unproved(e)) if e.is_answer() => {
                    return self.unproved(e, &conn);
                }
                Err(e) => Some(e),
            },
            (false, _) => None,
        };
        if let Some(pause) = paused {
            return match failure {
                Some(ForwardError::Unproved(e)) => self.unproved(e, &conn),
                _ => self.unproved(pause, &conn),
            };
        }
        let patience = DIRECT_TIMEOUT.saturating_sub(clock::since(begun));
        if let Some(channel) = self.direct.wait_open(&label, patience).await {
            return self.carry_direct(channel, conn).await;
        }
        match &failure {
            Some(e) => {
                log::warn!("cannot reach {prefix}, neither directly nor through the server: {e}");
            }
            None => log::warn!("no direct connection to {prefix}, and tcpForwardFallback is off"),
        }
        conn.reset_on_close();
        failure.map_or(Ok(()), Err)
    }

    /// Carries a connection over a channel, once the other end has proved the key of a private service.
    async fn carry_direct(
        &self,
        mut channel: ChannelConn,
        conn: Arc<Conn>,
    ) -> Result<(), ForwardError> {
        if let Some(key) = &self.config.key {
            let other = self.direct.other();
            let proved = other.prove(&mut channel, key, Carried::Bytes).await;
            if let Err(e) = proved {
                return self.unproved(e, &conn);
            }
        }
        Ok(carry(channel, conn).await?)
    }

    /// Refuses a connection to a private service that this client cannot reach, or that is not the one.
    fn unproved(&self, e: ProofError, conn: &Conn) -> Result<(), ForwardError> {
        log::warn!("the private service of {}: {e}", self.config.host_prefix);
        conn.reset_on_close();
        Err(e.into())
    }

    /// Opens a connection through the server, which is encrypted from end to end to a private service.
    async fn relay(&self, label: &str) -> Result<RelayedConn, ForwardError> {
        self.direct
            .other()
            .relay_to(label, self.config.key.as_ref(), Carried::Bytes)
            .await
    }
}
