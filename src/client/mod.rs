//! The end behind NAT: keeps tunnels to its servers and connects each stream to a local
//! service.

mod backoff;
pub mod files;
pub(crate) mod host_rewriter;
mod id_conflict;
mod offered_services;
mod other_protocol;
#[cfg(feature = "p2p")]
pub(crate) mod p2p;
#[cfg(not(feature = "p2p"))]
#[path = "no_p2p.rs"]
mod p2p;
mod pool;
mod remote_api;
mod service;
mod session;

use crate::config::label::label;
use crate::config::{self, Secret, Uplink, Wire};
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::tls::{self, Connector, ServerTrust};
use crate::net::{timeout, Shutdown, WaitGroup};
use crate::sync::{Mutex, MutexGuard};
use async_io::Timer;
use event_listener::Event;
use futures_lite::future;
use p2p::P2p;
use pool::{Pool, ServerSource};
use remote_api::RemoteApi;
use service::Services;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A client that was refused, or that waits, tries again so long after its predecessor has begun
/// to make way.
const RECONNECT_TIME: Duration = Duration::from_millis(500);
/// How long new tunnels may take before the old ones go anyway.
const SETTLING: Duration = Duration::from_secs(10);
/// How long what runs may take to finish on tunnels that were replaced.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// How long what did not finish in time may take to be cut.
const CUT_TIME: Duration = Duration::from_secs(1);

/// A running client.
#[derive(Clone)]
pub struct Client {
    me: Arc<ClientContext>,
    pools: Vec<Arc<Pool>>,
    forward: Option<p2p::TcpForwarder>,
    /// As the configuration has it.
    link: Uplink,
    /// Those it has taken the place of, whose streams may still run.
    before: Vec<Client>,
}

/// All that a client needs to start, or to go on in another way: files have been read, folders
/// opened.
pub struct ClientPlan {
    services: Services,
    link: Uplink,
    secret: Secret,
    /// Where the servers are, unless only the services change.
    sources: Option<Vec<ServerSource>>,
    /// For servers with TLS that are known now.
    connector: Option<Connector>,
    p2p: p2p::P2pOptions,
    forward: Option<p2p::PlannedForward>,
}

impl ClientPlan {
    /// How to become what `config` says, from a `running` client or from none. Nothing has
    /// changed if it cannot be done; the error says which file or folder is the reason.
    pub fn new(
        config: &config::ClientConfig,
        file: &Option<PathBuf>,
        running: Option<&Client>,
        legacy: &mut Inherited,
    ) -> io::Result<Self> {
        let mut plan = Self::without_listener(config, file, running, legacy)?;
        if let Some(forward) = &config.tcp_forward {
            let running = running.and_then(|client| client.forward.as_ref());
            let planned = p2p::PlannedForward::new(forward, running, file, legacy)?;
            plan.forward = Some(planned);
        }
        Ok(plan)
    }

    fn without_listener(
        config: &config::ClientConfig,
        file: &Option<PathBuf>,
        running: Option<&Client>,
        legacy: &Inherited,
    ) -> io::Result<Self> {
        let link = &config.link;
        let same = |client: &&Client| client.link == *link;
        let sources = match running.filter(same) {
            Some(_) => None,
            None => Some(sources(link)?),
        };
        // One that was made up stays: the server may hold it against the id.
        let made_up = |client: &&Client| client.link.id == link.id && client.link.secret.is_none();
        let secret = match &link.secret {
            Some(secret) => secret.clone(),
            None => match running.filter(made_up) {
                Some(client) => client.me.secret.clone(),
                None => legacy
                    .secret(file, &link.id)
                    .map_or_else(made_up_secret, Ok)?,
            },
        };
        // A file that cannot be used is told now, not when the first tunnel needs it.
        let connector = match link.remotes.iter().any(|remote| remote.tls) {
            true => Some(connector(link)?),
            false => None,
        };
        Ok(Self {
            services: Services::new(&config.services)?,
            link: link.clone(),
            secret,
            sources,
            connector,
            p2p: p2p::P2pOptions::new(config),
            forward: None,
        })
    }
}

fn sources(link: &Uplink) -> io::Result<Vec<ServerSource>> {
    let fixed = link.remotes.iter().cloned().map(ServerSource::Fixed);
    let mut sources: Vec<ServerSource> = fixed.collect();
    if let Some(url) = &link.remote_api {
        sources.push(ServerSource::Asked(RemoteApi::new(url)?));
    }
    Ok(sources)
}

/// Says whether a client could start, but for where it listens.
pub fn check(config: &config::ClientConfig, file: &Option<PathBuf>) -> io::Result<()> {
    ClientPlan::without_listener(config, file, None, &Inherited::default()).map(drop)
}

/// What every tunnel of a client needs.
pub(crate) struct ClientContext {
    id: String,
    secret: Secret,
    tls: LazyTls,
    /// What is spoken with servers.
    wire: Wire,
    remote_timeout: Duration,
    reconnect_delay: Duration,
    /// Most tunnels to one server.
    connections: usize,
    /// Tunnels to one server that are always there.
    idle_connections: usize,
    services: Mutex<Arc<Services>>,
    p2p: P2p,
    stop: Shutdown,
    /// Who waits before it tries again need not.
    hurry: Event,
    /// Tunnels to their last word, and services that are brought what is theirs.
    serving: WaitGroup,
}

impl ClientContext {
    fn lock_services(&self) -> MutexGuard<'_, Arc<Services>> {
        self.services.lock()
    }

    fn services(&self) -> Arc<Services> {
        self.lock_services().clone()
    }
}

/// TLS to servers. Set up when it is first needed: a remoteAPI may name `tls://` servers, or
/// none.
struct LazyTls {
    link: Uplink,
    connector: Mutex<Option<Connector>>,
}

impl LazyTls {
    fn lock(&self) -> MutexGuard<'_, Option<Connector>> {
        self.connector.lock()
    }

    /// The error says which file cannot be used, or what the system lacks.
    fn connector(&self) -> io::Result<Connector> {
        if let Some(connector) = &*self.lock() {
            return Ok(connector.clone());
        }
        let connector = connector(&self.link)?;
        Ok(self.lock().insert(connector).clone())
    }
}

fn connector(link: &Uplink) -> io::Result<Connector> {
    match &link.remote_cert {
        _ if link.remote_cert_insecure => {
            log::warn!(
                "remoteCertInsecure is set: anybody between here and the server can read and \
                 change everything; better set remoteCert to its certificate"
            );
            Connector::new(ServerTrust::Nobody)
        }
        Some(path) => Connector::new(ServerTrust::File(path)),
        None => Connector::new(ServerTrust::System)
            .map_err(|e| io::Error::new(e.kind(), format!("{e}, or set remoteCert"))),
    }
}

impl Client {
    /// Begins to connect.
    pub fn start(plan: ClientPlan) -> Self {
        let ClientPlan { link, .. } = plan;
        let me = Arc::new(ClientContext {
            id: link.id.clone(),
            secret: plan.secret,
            tls: LazyTls {
                link: link.clone(),
                connector: Mutex::new(plan.connector),
            },
            wire: link.wire,
            remote_timeout: link.remote_timeout,
            reconnect_delay: link.reconnect_delay,
            connections: link.connections,
            idle_connections: link.idle_connections.max(1),
            services: Mutex::new(Arc::new(plan.services)),
            p2p: P2p::new(plan.p2p),
            stop: Shutdown::default(),
            hurry: Event::new(),
            serving: WaitGroup::default(),
        });
        let sources = plan.sources.unwrap_or_default();
        let pools = sources.into_iter().map(|source| {
            if let ServerSource::Fixed(remote) = &source {
                log::info!("remote url remote={remote} stun={}", me.p2p.servers(""));
            }
            Pool::start(me.clone(), source)
        });
        let pools: Vec<_> = pools.collect();
        let start = |planned| p2p::TcpForwarder::start(me.clone(), pools.clone(), planned);
        let forward = plan.forward.map(start);
        Self {
            me,
            pools,
            forward,
            link,
            before: Vec::new(),
        }
    }

    /// Goes on with another configuration. Services change on every live tunnel; what asks for
    /// other tunnels has them opened first, and then the old ones drain. What runs goes on.
    pub fn change(&mut self, plan: ClientPlan) {
        if plan.sources.is_some() {
            if let Some(forward) = self.forward.take() {
                forward.stop();
            }
            let mut before = std::mem::replace(self, Self::start(plan));
            let mut older = std::mem::take(&mut before.before);
            older.retain(|client| !client.me.serving.is_idle());
            self.before = older;
            self.before.push(before.clone());
            let new = self.clone();
            crate::spawn(async move {
                new.wait_ready().await;
                if before.link.id != new.link.id {
                    before.give_up();
                }
                future::zip(before.stop(DRAIN_TIMEOUT), new.retry_now()).await;
            });
            return;
        }
        *self.me.tls.lock() = plan.connector;
        self.me.p2p.change(plan.p2p);
        let goes_on = match (&plan.forward, &self.forward) {
            (Some(planned), Some(running)) => planned.is(running),
            (None, None) => true,
            _ => false,
        };
        if !goes_on {
            if let Some(before) = self.forward.take() {
                before.stop();
            }
            let (me, pools) = (&self.me, &self.pools);
            let start = |planned| p2p::TcpForwarder::start(me.clone(), pools.clone(), planned);
            self.forward = plan.forward.map(start);
        }
        let services = Arc::new(plan.services);
        *self.me.lock_services() = services.clone();
        for pool in &self.pools {
            pool.offer(&services);
            pool.clone().keep_tunnels();
        }
        // Whoever reloads knows something new: the network is up, or services that were refused
        // are others now.
        self.me.hurry.notify(usize::MAX);
    }

    /// What a process that takes this one's place needs of it.
    pub fn export(&self) -> Vec<Outgoing> {
        let secret = self.link.secret.is_none().then(|| Item::Secret {
            id: self.me.id.clone(),
            secret: self.me.secret.clone(),
        });
        let secret = secret.map(|piece| (piece, None));
        let listener = self.forward.as_ref().map(p2p::TcpForwarder::share);
        secret.into_iter().chain(listener).collect()
    }

    /// Waits until it has a tunnel to every server, or has tried, or that takes too long.
    pub async fn wait_ready(&self) {
        let settled = async {
            for pool in &self.pools {
                pool.settled.wait().await;
            }
        };
        timeout(SETTLING, settled).await;
    }

    /// Tries again what has failed, because what was in the way is about to go.
    pub async fn retry_now(&self) {
        self.me.stop.or(Timer::after(RECONNECT_TIME)).await;
        self.me.hurry.notify(usize::MAX);
    }

    /// Has servers keep no prefixes and ports for this client's id: another id will ask for them.
    fn give_up(&self) {
        // One whose id is no prefix cannot say so, and they are kept for a minute.
        if label(&self.link.id).is_ok() {
            self.pools.iter().for_each(|pool| pool.give_up());
        }
    }

    /// Opens no more tunnels, lets what runs finish for as long as `patience`, and returns
    /// when it has, or then.
    pub async fn stop(&self, patience: Duration) {
        let all = || self.before.iter().chain([self]);
        let pools = || all().flat_map(|client| &client.pools);
        all().for_each(|client| client.me.stop.trigger());
        pools().for_each(|pool| pool.close());
        let drained = || async {
            for client in all() {
                client.me.serving.idle().await;
            }
        };
        timeout(patience, drained()).await;
        pools().for_each(|pool| pool.finish());
        // What is cut is to be seen as cut, which the end of the process would not say.
        timeout(CUT_TIME, drained()).await;
        all().for_each(|client| client.me.p2p.close());
    }
}

/// For servers that take any client: 128 random bits in hexadecimal.
fn made_up_secret() -> io::Result<Secret> {
    let mut bytes = [0; 16];
    tls::fill_random(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(hex))
}
