//! The client: keeps tunnels to its servers and connects each stream to a local service.

mod backoff;
mod bans;
#[cfg_attr(not(feature = "p2p"), path = "no_channels.rs")]
mod channels;
mod connect;
mod context;
mod control_socket;
pub mod files;
#[cfg_attr(not(feature = "p2p"), path = "no_forward.rs")]
mod forward;
pub(crate) mod health;
mod hello_turn;
mod id_conflict;
mod local_address;
mod offered_services;
mod other_protocol;
#[cfg_attr(not(feature = "p2p"), path = "no_p2p.rs")]
pub(crate) mod p2p;
mod password_verdict;
#[cfg_attr(not(feature = "password"), path = "no_passwords.rs")]
pub(crate) mod passwords;
mod pool;
mod pooled_tunnel;
#[cfg(feature = "p2p")]
pub(crate) mod private;
mod private_access;
#[cfg_attr(not(feature = "proxy"), path = "no_proxy.rs")]
pub(crate) mod proxy;
#[cfg_attr(any(feature = "sim", not(feature = "quic")), path = "no_quic.rs")]
mod quic;
mod reach;
mod remote_api;
pub(crate) mod request_edits;
pub(crate) mod rewriting_conn;
mod serve;
mod services;
mod session;
mod speed_limits;
mod visitor_conn;
pub(crate) mod visitor_rules;
mod way_trust;
mod ways;
#[cfg(feature = "web")]
mod web_view;
#[cfg_attr(not(feature = "ws"), path = "no_websocket.rs")]
mod websocket;

use crate::config::label::label;
use crate::config::{self, Secret, Uplink};
use crate::handover::{Inherited, Item, Outgoing};
use crate::keys::PrivateKey;
use crate::logging::AccessLog;
use crate::net::tls::{self, Connector};
use crate::net::{self, timeout, Dialer, Shutdown, Timer, WaitGroup};
use crate::sync::Mutex;
use crate::wire::hello::INSTANCE;
use context::{connector, ClientContext, Credential, LazyTls};
use event_listener::Event;
use forward::{PlannedForward, PlannedUdpForward, TcpForwarder, UdpForwarder};
use futures_lite::future;
use health::HealthWatch;
use p2p::{P2p, P2pOptions};
use pool::{Pool, ServerSource};
use remote_api::RemoteApi;
use services::Services;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use visitor_rules::VisitorRules;
use ways::Ways;
#[cfg(feature = "web")]
pub use web_view::ClientView;

/// Time after which a client that was refused, or waits, tries again once its predecessor has begun
/// to drain.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Time that new tunnels have before the old ones are closed anyway.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that streams have to finish on tunnels that were replaced (docs/operations.md, "Reload").
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Time for resetting streams that did not finish in time.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running client.
#[derive(Clone)]
pub struct Client {
    context: Arc<ClientContext>,
    p2p: Arc<P2p>,
    pools: Vec<Arc<Pool>>,
    forward: Option<TcpForwarder>,
    udp_forward: Option<UdpForwarder>,
    /// The configuration of the connections to servers.
    uplink: Uplink,
    /// Clients that this one has replaced, whose streams may still run.
    predecessors: Vec<Client>,
}

/// The plan to start or change a client: files have been read and folders opened.
pub struct ClientPlan {
    services: Services,
    link: Uplink,
    credential: Credential,
    /// The servers; `None` if only the services change.
    sources: Option<Vec<ServerSource>>,
    /// How servers are reached.
    dialer: Arc<Dialer>,
    /// TLS for the servers that are known now.
    connector: Option<Connector>,
    p2p: P2pOptions,
    forward: Option<PlannedForward>,
    udp_forward: Option<PlannedUdpForward>,
    /// What distinguishes the client from others with its id; `None` if there can be none.
    instance: Option<[u8; INSTANCE]>,
}

impl ClientPlan {
    /// Plans how to apply `config` to a `running` client, or to a new one, and changes nothing yet.
    /// The error names the file or folder that cannot be used.
    pub fn new(
        config: &config::ClientConfig,
        file: &Option<PathBuf>,
        running: Option<&Client>,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let mut plan = Self::without_listener(config, file, running, inherited)?;
        let log = config.access_log.as_ref().map(AccessLog::open);
        plan.services
            .log_visits(log.transpose().map_err(io::Error::other)?);
        if let Some(forward) = &config.tcp_forward {
            let running = running.and_then(|client| client.forward.as_ref());
            let planned = PlannedForward::new(forward, running, file, inherited)?;
            plan.forward = Some(planned);
        }
        if let Some(forward) = &config.udp_forward {
            let running = running.and_then(|client| client.udp_forward.as_ref());
            let planned = PlannedUdpForward::new(forward, running, file, inherited)?;
            plan.udp_forward = Some(planned);
        }
        Ok(plan)
    }

    fn without_listener(
        config: &config::ClientConfig,
        file: &Option<PathBuf>,
        running: Option<&Client>,
        inherited: &Inherited,
    ) -> io::Result<Self> {
        let link = &config.link;
        let key = link.key.as_ref();
        let key = key.map(|path| PrivateKey::read(path)).transpose()?;
        // The file may have another key than before.
        let public = key.as_ref().map(PrivateKey::public_key);
        let same = |client: &&Client| {
            let running = client.context.credential.key();
            client.uplink == *link && running.map(PrivateKey::public_key) == public
        };
        let dialer = Dialer::new(&link.sources, link.proxy.clone());
        let sources = match running.filter(same) {
            Some(_) => None,
            None => Some(sources(link, &dialer)?),
        };
        // A generated secret is kept, since servers may require it for the id from now on.
        let made_up =
            |client: &&Client| client.uplink.id == link.id && client.uplink.secret.is_none();
        let credential = match (key, &link.secret) {
            (Some(key), _) => Credential::Key(Arc::new(key)),
            (None, Some(secret)) => Credential::Secret(secret.clone()),
            (None, None) => match running.filter(made_up).map(|it| &it.context.credential) {
                Some(Credential::Secret(secret)) => Credential::Secret(secret.clone()),
                _ => {
                    let inherited = inherited.secret(file, &link.id);
                    Credential::Secret(inherited.map_or_else(generate_secret, Ok)?)
                }
            },
        };
        // Kept, so that a client is one to its servers before and after a reload or a restart.
        let running_instance = running
            .filter(|client| client.uplink.id == link.id)
            .and_then(|client| client.context.instance);
        let known_instance = running_instance.or_else(|| inherited.instance(file, &link.id));
        let instance = match (link.groups, known_instance) {
            (false, _) => None,
            (true, Some(known)) => Some(known),
            (true, None) => Some(new_instance()?),
        };
        if link.bbr {
            net::warn_without_bbr();
        }
        // Reports an unusable file now, not when the first tunnel needs it.
        let connector = match link
            .remotes
            .iter()
            .any(|remote| remote.transport.is_secure())
        {
            true => Some(connector(link)?),
            false => None,
        };
        Ok(Self {
            services: Services::new(&config.services)?,
            link: link.clone(),
            credential,
            sources,
            dialer,
            connector,
            p2p: P2pOptions::new(config),
            forward: None,
            udp_forward: None,
            instance,
        })
    }
}

fn sources(link: &Uplink, dialer: &Arc<Dialer>) -> io::Result<Vec<ServerSource>> {
    let servers = config::servers(&link.remotes).into_iter();
    let mut sources: Vec<ServerSource> = servers
        .filter_map(Ways::new)
        .map(ServerSource::Fixed)
        .collect();
    if let Some(url) = &link.remote_api {
        sources.push(ServerSource::Requested(RemoteApi::new(url, dialer)?));
    }
    Ok(sources)
}

/// Checks whether a client could start. Opens no listener. The error names the file or folder that
/// cannot be used.
pub fn check(config: &config::ClientConfig, file: &Option<PathBuf>) -> io::Result<()> {
    ClientPlan::without_listener(config, file, None, &Inherited::default()).map(drop)
}

impl Client {
    /// Starts a client.
    pub fn start(plan: ClientPlan) -> Self {
        let rules = VisitorRules::new(plan.services.configs());
        Self::with_rules(plan, Arc::new(rules))
    }

    /// Starts a client whose rules about visitors another one may share.
    fn with_rules(plan: ClientPlan, visitor_rules: Arc<VisitorRules>) -> Self {
        control_socket::expose(&visitor_rules);
        let ClientPlan { link, .. } = plan;
        let context = Arc::new(ClientContext {
            id: link.id.clone(),
            credential: plan.credential,
            tls: LazyTls {
                link: link.clone(),
                connector: Mutex::new(plan.connector),
            },
            dialer: plan.dialer,
            wire: link.wire,
            origins: link.origins,
            instance: plan.instance,
            remote_timeout: link.remote_timeout,
            bbr: link.bbr,
            reconnect_delay: link.reconnect_delay,
            connections: link.connections,
            idle_connections: link.idle_connections.max(1),
            services: Mutex::new(Arc::new(plan.services)),
            visitor_rules,
            stop: Shutdown::default(),
            cut: Shutdown::default(),
            retry: Event::new(),
            serving: WaitGroup::default(),
        });
        let p2p = P2p::new(context.clone(), plan.p2p, channels::ACCEPT);
        let sources = plan.sources.unwrap_or_default();
        let pools = sources.into_iter().map(|source| {
            if let ServerSource::Fixed(ways) = &source {
                log::info!("remote url remote={ways} stun={}", p2p.servers(""));
            }
            Pool::start(p2p.clone(), source)
        });
        let pools: Vec<_> = pools.collect();
        let start = |planned| TcpForwarder::start(p2p.clone(), pools.clone(), planned);
        let forward = plan.forward.map(start);
        let start = |planned| UdpForwarder::start(p2p.clone(), pools.clone(), planned);
        let udp_forward = plan.udp_forward.map(start);
        if forward.is_some() || udp_forward.is_some() {
            control_socket::listen();
        }
        let client = Self {
            context,
            p2p,
            pools,
            forward,
            udp_forward,
            uplink: link,
            predecessors: Vec::new(),
        };
        client.check_services();
        client
    }

    /// Starts to check the services that have a health check, and to tell servers of those that are down.
    fn check_services(&self) {
        for health in self.context.services().checked() {
            let (stop, pools) = (self.context.stop.clone(), self.pools.clone());
            let health = health.clone();
            crate::net::spawn(async move {
                let mut watch = HealthWatch::new(health.clone());
                while let Some(Some(())) = stop.or(watch.next()).await {
                    pools.iter().for_each(|pool| pool.tell_health(&health));
                }
            });
        }
    }

    /// Applies another configuration. Services change on every live tunnel; if other tunnels are
    /// needed, they are opened first, and then the old ones drain. Open streams go on.
    pub fn change(&mut self, mut plan: ClientPlan) {
        let rules = self.context.visitor_rules.clone();
        rules.replace(plan.services.configs());
        plan.services.resume(&self.context.services());
        control_socket::expose(&rules);
        self.wake_visitors();
        if plan.sources.is_some() {
            if let Some(forward) = self.forward.take() {
                forward.stop();
            }
            if let Some(forward) = self.udp_forward.take() {
                forward.stop();
            }
            let mut before = std::mem::replace(self, Self::with_rules(plan, rules));
            let mut older = std::mem::take(&mut before.predecessors);
            older.retain(|client| !client.context.serving.is_idle());
            self.predecessors = older;
            self.predecessors.push(before.clone());
            let new = self.clone();
            crate::net::spawn(async move {
                new.wait_ready().await;
                if before.uplink.id != new.uplink.id {
                    before.give_up();
                }
                future::zip(before.stop(DRAIN_TIMEOUT), new.retry_now()).await;
            });
            return;
        }
        *self.context.tls.lock() = plan.connector;
        self.p2p.change(plan.p2p);
        let goes_on = match (&plan.forward, &self.forward) {
            (Some(planned), Some(running)) => planned.is(running),
            (None, None) => true,
            _ => false,
        };
        if !goes_on {
            if let Some(before) = self.forward.take() {
                before.stop();
            }
            let (p2p, pools) = (&self.p2p, &self.pools);
            let start = |planned| TcpForwarder::start(p2p.clone(), pools.clone(), planned);
            self.forward = plan.forward.map(start);
            if self.forward.is_some() {
                control_socket::listen();
            }
        }
        self.change_udp_forward(plan.udp_forward);
        let services = Arc::new(plan.services);
        let before = std::mem::replace(&mut *self.context.lock_services(), services.clone());
        before.checked().for_each(|health| health.end());
        self.check_services();
        for pool in &self.pools {
            pool.offer(&services);
            pool.clone().keep_tunnels();
        }
        // A reload is a hint that something has changed: the network is up, or refused services
        // were replaced.
        self.wake();
    }

    /// Replaces the forwarder of datagrams, unless it stays as it is.
    fn change_udp_forward(&mut self, planned: Option<PlannedUdpForward>) {
        if let (Some(planned), Some(running)) = (&planned, &self.udp_forward) {
            if planned.is(running) {
                return;
            }
        }
        if let Some(before) = self.udp_forward.take() {
            before.stop();
        }
        let (p2p, pools) = (&self.p2p, &self.pools);
        let start = |planned| UdpForwarder::start(p2p.clone(), pools.clone(), planned);
        self.udp_forward = planned.map(start);
        if self.udp_forward.is_some() {
            control_socket::listen();
        }
    }

    /// Returns the sockets and state to hand over to the child process.
    pub fn export(&self) -> Vec<Outgoing> {
        let secret = match &self.context.credential {
            Credential::Secret(secret) if self.uplink.secret.is_none() => Some(Item::Secret {
                id: self.context.id.clone(),
                secret: secret.clone(),
            }),
            _ => None,
        };
        let instance = self.context.instance.map(|instance| Item::Instance {
            id: self.context.id.clone(),
            instance,
        });
        let secret = secret
            .into_iter()
            .chain(instance)
            .map(|piece| (piece, None));
        let listener = self.forward.as_ref().map(TcpForwarder::share);
        let socket = self.udp_forward.as_ref().map(UdpForwarder::share);
        secret.chain(listener).chain(socket).collect()
    }

    /// Waits until there is a tunnel to every server or each has been tried, for at most 10 s.
    pub async fn wait_ready(&self) {
        let settled = async {
            for pool in &self.pools {
                pool.settled.wait().await;
            }
        };
        timeout(SETTLE_TIMEOUT, settled).await;
    }

    /// Retries failed connections after a moment, because the client that blocked them is about to
    /// drain.
    pub async fn retry_now(&self) {
        self.context.stop.or(Timer::after(RECONNECT_PAUSE)).await;
        self.wake();
    }

    /// Ends the waits before the next attempts to connect. Running attempts go on, and the delays
    /// after further failures do not start over.
    pub fn wake(&self) {
        self.context.dialer.retry_links();
        self.context.retry.notify(usize::MAX);
    }

    /// Lets the tasks of all visitors look at changed rules.
    fn wake_visitors(&self) {
        let all = self.predecessors.iter().chain([self]);
        all.flat_map(|client| &client.pools)
            .for_each(|pool| pool.wake_visitors());
    }

    /// Asks servers to reserve no prefixes and ports for this client's id, since a client with
    /// another id is about to request them.
    fn give_up(&self) {
        // Needs an id that is a valid prefix; otherwise the servers keep the reservations for a
        // minute.
        if label(&self.uplink.id).is_ok() {
            self.pools.iter().for_each(|pool| pool.give_up());
        }
    }

    /// Stops opening tunnels, lets streams finish for at most `patience`, and returns when they
    /// have.
    pub async fn stop(&self, patience: Duration) {
        let all = || self.predecessors.iter().chain([self]);
        let pools = || all().flat_map(|client| &client.pools);
        all().for_each(|client| client.context.stop.trigger());
        all().for_each(|client| client.p2p.refuse_channels());
        pools().for_each(|pool| pool.close());
        let drained = || async {
            for client in all() {
                client.context.serving.idle().await;
            }
        };
        timeout(patience, drained()).await;
        pools().for_each(|pool| pool.finish());
        all().for_each(|client| client.context.cut.trigger());
        for client in all() {
            client.p2p.close().await;
        }
        // What was cut, streams and channels, must be reset; the end of the process would close it gracefully.
        timeout(CUT_TIMEOUT, drained()).await;
    }
}

/// Generates an instance.
fn new_instance() -> io::Result<[u8; INSTANCE]> {
    let mut bytes = [0; INSTANCE];
    tls::fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Generates a secret of 128 random bits in hexadecimal, for servers that accept any client.
fn generate_secret() -> io::Result<Secret> {
    let mut bytes = [0; 16];
    tls::fill_random(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(hex))
}
