//! The local services: what the server is told of them, and how one is dialled. Not the streams for
//! them: see `serve`.

use super::files::{FileVisitor, FolderRoot};
use super::health::ServiceHealth;
use super::local_address::LocalAddress;
#[cfg(feature = "p2p")]
use super::p2p::label::ServiceLabel;
use super::passwords::PasswordCheck;
#[cfg(feature = "p2p")]
use super::private::Carried;
use super::private_access::PrivateAccess;
use super::proxy::{self, ProxyTarget, UdpWay};
use super::request_edits::{ForwardedVisitor, RequestEdits};
use super::rewriting_conn::RewritingConn;
use super::speed_limits::{LimitedConn, SharedLimit, SpeedLimits};
use crate::config::label::ascii;
#[cfg(feature = "p2p")]
use crate::config::Secret;
use crate::config::{Exposure, Local, Remote, Scheme, ServiceConfig, Transport};
use crate::logging::{AccessLog, FirstRequest, LogThrottle, Visit, Way};
use crate::net::{self, clock, Conn, DatagramLosses};
use crate::sync::Mutex;
use crate::tunnel::FIRST_WINDOW;
use crate::wire::frame::{ResetCode, ServiceIndex};
use crate::wire::hello::{Hello, Proof, ServiceKinds, ServiceSpec};
use crate::wire::origin::VisitorOrigin;
use crate::wire::Version;
use log::Level;
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Timeout for connecting to a service without localTimeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Time after a warning about a failed service in which further failures are logged at a lower
/// level.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// All services of a client, in the order of their indexes.
pub struct Services {
    list: Vec<Service>,
    /// The log of visitors.
    access_log: Option<AccessLog>,
    /// When a failure was last reported.
    failed: Mutex<Option<Instant>>,
    /// Whether it was logged that a server does not tell where visitors come from.
    said_origins: AtomicBool,
    /// Whether it was logged which services a server cannot publish.
    said_unpublished: AtomicBool,
    /// Whether it was logged that a server cannot be told which services are down.
    said_health: AtomicBool,
}

/// A service and what its streams are connected to.
#[derive(Clone)]
pub struct Service {
    pub config: Arc<ServiceConfig>,
    /// The speed limit that all connections share.
    pub speed: SharedLimit,
    pub target: ServiceTarget,
    /// The access to a private service; `None` for others.
    pub private: Option<PrivateAccess>,
    /// Whether it works; `None` if that is not checked.
    pub health: Option<Arc<ServiceHealth>>,
    /// The datagrams that were lost here; `None` for a service without any.
    losses: Option<Arc<ServiceLosses>>,
}

/// The datagrams of a service that were lost and are not logged yet.
#[derive(Default)]
struct ServiceLosses {
    counts: Arc<DatagramLosses>,
    lines: LogThrottle,
}

/// What the streams of a service are connected to.
#[derive(Clone)]
pub enum ServiceTarget {
    Server(LocalAddress),
    Files(Arc<FolderRoot>),
    /// Where its visitors want to go.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    Proxy(ProxyTarget),
    /// The answers to peers, and to nobody else.
    Signaling,
}

impl Services {
    /// Creates the services. The error names a folder that cannot be served.
    pub fn new(services: &[ServiceConfig]) -> io::Result<Self> {
        let mut list: Vec<Service> = Vec::new();
        for service in services {
            let (target, health) = match (&service.local, LocalAddress::of(&service.local)) {
                (_, Some(addr)) => {
                    let health = ServiceHealth::of(service, &addr);
                    (ServiceTarget::Server(addr), health)
                }
                (Local::Proxy(kind), None) => {
                    let before = list.last().map(|before| &before.target);
                    (ProxyTarget::of_service(*kind, service, before), None)
                }
                (Local::Files(path), None) => {
                    let root = FolderRoot::open(path, service.follow_links_outside)?;
                    (ServiceTarget::Files(Arc::new(root)), None)
                }
                (Local::Signaling, None) => (ServiceTarget::Signaling, None),
                (local, None) => return Err(io::Error::other(format!("{local} has no address"))),
            };
            list.push(Service {
                config: Arc::new(service.clone()),
                speed: SharedLimit::new(service),
                target,
                private: match &service.exposure {
                    Exposure::Private { key } => Some(PrivateAccess::new(key)),
                    _ => None,
                },
                health,
                losses: service.is_udp().then(Arc::default),
            });
        }
        Ok(Self {
            list,
            access_log: None,
            failed: Mutex::default(),
            said_origins: AtomicBool::default(),
            said_unpublished: AtomicBool::default(),
            said_health: AtomicBool::default(),
        })
    }

    /// Logs visits from now on.
    pub fn log_visits(&mut self, log: Option<AccessLog>) {
        self.access_log = log;
    }

    /// Begins to record the visit of a visitor, if visits are logged.
    pub fn visit(
        &self,
        id: &str,
        service: &ServiceConfig,
        source: Option<SocketAddr>,
        is_p2p: bool,
    ) -> Option<Box<Visit>> {
        let log = self.access_log.as_ref()?;
        let way = match &service.exposure {
            _ if is_p2p => Way::P2p,
            Exposure::Tcp { .. } => Way::Tcp,
            Exposure::Udp { .. } => Way::Udp,
            // Through the server, as a peer's connection that it cannot read.
            Exposure::Private { .. } => Way::P2p,
            host if host.is_http() => Way::Http,
            _ => Way::Tls,
        };
        let visit = log.visit(Some(id), service.local.to_string(), way);
        Some(Box::new(visit.from(source)))
    }

    /// Returns the services in the order of their indexes.
    #[cfg(feature = "web")]
    pub fn all(&self) -> impl Iterator<Item = &Service> {
        self.list.iter()
    }

    /// Returns the configuration of each service.
    pub fn configs(&self) -> impl Iterator<Item = &ServiceConfig> {
        self.list.iter().map(|service| &*service.config)
    }

    /// Returns those of these services that a server can publish as they are configured. A tunnel of GT/1
    /// cannot tell where visitors come from, and has neither domains nor UDP.
    pub fn for_server(self: &Arc<Self>, ability: ServerAbility) -> Arc<Self> {
        let can_be = |service: &&Service| {
            let Service { config, .. } = service;
            if config.is_private() {
                return false;
            }
            let may_come = ability.version == Version::Two || config.visitors.is_empty();
            may_come && lacks(ability, config).is_none()
        };
        if self.list.iter().all(|service| can_be(&service)) {
            return self.clone();
        }
        Arc::new(Self {
            list: self.list.iter().filter(can_be).cloned().collect(),
            access_log: self.access_log.clone(),
            failed: Mutex::default(),
            said_origins: AtomicBool::default(),
            said_unpublished: AtomicBool::default(),
            said_health: AtomicBool::default(),
        })
    }

    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the log level for a failure, so that a service that is down is not reported for each
    /// visitor.
    pub fn level_of_failure(&self) -> Level {
        let mut failed = self.failed.lock();
        if failed.is_some_and(|at| clock::since(at) < WARNING_INTERVAL) {
            return Level::Debug;
        }
        *failed = Some(clock::now());
        Level::Warn
    }

    /// Returns the services as the server sees them.
    pub fn specs(&self) -> Vec<ServiceSpec> {
        let specs = self.list.iter().filter_map(|service| {
            let spec = spec_of(&service.config.exposure)?;
            Some(match &service.config.group {
                Some(group) => ServiceSpec::Grouped {
                    group: Box::new(group.clone()),
                    service: Box::new(spec),
                },
                None => spec,
            })
        });
        specs.collect()
    }

    /// Returns the hello of the client with this id and these services.
    pub fn hello(&self, id: &str, proof: Proof) -> Hello {
        Hello {
            origins: false,
            bbr: false,
            instance: None,
            id: id.into(),
            proof,
            services: self.specs(),
            window: FIRST_WINDOW,
        }
    }

    /// Returns the health of the services that are checked.
    pub fn checked(&self) -> impl Iterator<Item = &Arc<ServiceHealth>> {
        self.list
            .iter()
            .filter_map(|service| service.health.as_ref())
    }

    /// Returns the indexes of the services that are down, each with its health.
    pub fn down(&self) -> impl Iterator<Item = (ServiceIndex, &Arc<ServiceHealth>)> {
        let services = ServiceIndex::all().zip(&self.list);
        let checked = services.filter_map(|(index, it)| Some((index, it.health.as_ref()?)));
        checked.filter(|(_, health)| health.is_down())
    }

    /// Takes over what is known of those services that these replace: what their checks have found out, and
    /// which visitors of a proxy send datagrams.
    /// The keys of private services that are not among these count no longer.
    pub fn resume(&mut self, before: &Self) {
        for old in &before.list {
            let Some(access) = &old.private else {
                continue;
            };
            let is_same = |new: &&mut Service| {
                new.config.exposure == old.config.exposure && new.config.local == old.config.local
            };
            match self.list.iter_mut().find(is_same) {
                Some(new) => new.private = Some(access.clone()),
                None => access.revoke(),
            }
        }
        proxy::resume(&mut self.list, &before.list);
        for health in self.checked() {
            let same = before.checked().find(|before| health.is_like(before));
            if let Some(before) = same {
                health.resume(before);
            }
        }
    }

    /// Returns the service with this index.
    pub fn get(&self, index: ServiceIndex) -> Option<&Service> {
        self.list.get(index.as_usize())
    }

    /// Whether there are private services.
    #[cfg(feature = "p2p")]
    pub fn has_private(&self) -> bool {
        self.list.iter().any(|service| service.private.is_some())
    }

    /// Returns the private services that carry this, with their keys.
    #[cfg(feature = "p2p")]
    pub fn private(&self, carried: Carried) -> impl Iterator<Item = (ServiceIndex, &Secret)> {
        let services = ServiceIndex::all().zip(&self.list);
        let is_meant =
            move |service: &Service| service.config.is_udp() == (carried == Carried::Datagrams);
        services
            .filter(move |(_, service)| is_meant(service))
            .filter_map(|(index, service)| Some((index, service.private.as_ref()?.key()?)))
    }

    /// Returns the index of the service that a peer names, unless that is a private one: by its host prefix, as
    /// configured or as registered at the server, or by its port.
    #[cfg(feature = "p2p")]
    pub fn labelled(&self, label: ServiceLabel<'_>, id: &str) -> Option<ServiceIndex> {
        let services = || ServiceIndex::all().zip(&self.list);
        let find = |is_meant: &dyn Fn(&Service) -> bool| {
            let mut services = services();
            let found = services.find(|(_, service)| is_meant(service));
            found.map(|(index, _)| index)
        };
        match label {
            ServiceLabel::First => {
                find(&|it| it.private.is_none() && !matches!(it.target, ServiceTarget::Signaling))
            }
            ServiceLabel::Named(name) => self.named(name, id),
            ServiceLabel::Port(wanted) => find(
                &|it| matches!(it.config.exposure, Exposure::Tcp { port, .. } if port == wanted),
            ),
            ServiceLabel::UdpPort(wanted) => find(&|it| {
                let has_port =
                    matches!(it.config.exposure, Exposure::Udp { port, .. } if port == wanted);
                has_port && !it.config.is_udp_of_proxy()
            }),
            ServiceLabel::Private | ServiceLabel::PrivateUdp | ServiceLabel::Unknown => None,
        }
    }

    /// Returns the index of the service with this host prefix or TCP port.
    #[cfg(feature = "p2p")]
    fn named(&self, wanted: &str, id: &str) -> Option<ServiceIndex> {
        let mut services = ServiceIndex::all().zip(&self.list);
        let name = ascii(wanted);
        let has_name = |(_, service): &(ServiceIndex, &Service)| match &service.config.exposure {
            Exposure::Host { prefix: None, .. } => name == ascii(id),
            Exposure::Domains { domains, .. }
                if domains.iter().any(|domain| domain.as_str() == name) =>
            {
                true
            }
            Exposure::Domains { prefix: None, .. } => false,
            Exposure::Host {
                prefix: Some(prefix),
                ..
            }
            | Exposure::Domains {
                prefix: Some(prefix),
                ..
            } => name == *prefix || name == ascii(&format!("{id}-{prefix}")),
            Exposure::Tcp { port, .. } => wanted.parse() == Ok(*port),
            // It has a label of its own.
            Exposure::Udp { .. } | Exposure::Private { .. } => false,
        };
        let has_name = |it: &(ServiceIndex, &Service)| {
            !matches!(it.1.target, ServiceTarget::Signaling) && has_name(it)
        };
        services.find(has_name).map(|(index, _)| index)
    }

    /// Returns the index of the UDP port of a proxy, which is behind that of its TCP port.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    pub fn udp_of_proxy(&self, tcp: ServiceIndex) -> Option<ServiceIndex> {
        let udp = ServiceIndex(tcp.0.checked_add(1)?);
        let is_tcp =
            |it: &Service| matches!(it.target, ServiceTarget::Proxy(_)) && !it.config.is_udp();
        let is_udp = |it: &Service| it.config.is_udp_of_proxy();
        let is_pair = self.get(tcp).is_some_and(is_tcp) && self.get(udp).is_some_and(is_udp);
        is_pair.then_some(udp)
    }

    /// Returns the protocol of a service's port, as the log calls it.
    pub fn kind_of_port(&self, index: ServiceIndex) -> &'static str {
        match self.get(index).map(|service| service.config.is_udp()) {
            Some(true) => "udp",
            _ => "tcp",
        }
    }

    /// Returns a service as the user knows it.
    pub fn describe(&self, index: ServiceIndex) -> String {
        match self.get(index).map(|service| &*service.config) {
            Some(service) => match &service.exposure {
                Exposure::Tcp { port: 0, .. }
                | Exposure::Udp { port: 0, .. }
                | Exposure::Host { .. }
                | Exposure::Domains { .. }
                | Exposure::Private { .. } => service.local.to_string(),
                Exposure::Tcp { port, .. } | Exposure::Udp { port, .. } => {
                    format!("{} (port {port})", service.local)
                }
            },
            None => format!("service {index}"),
        }
    }

    /// Returns the shortest timeout of all services.
    pub fn shortest_timeout(&self) -> Duration {
        let limits = self.list.iter().filter_map(|s| s.config.local_timeout);
        limits.min().unwrap_or(CONNECT_TIMEOUT)
    }

    /// Logs, once, which services are not published because a server cannot, if there are any.
    pub fn log_unpublished(&self, ability: ServerAbility) {
        let unpublished = || {
            let services = self.configs();
            services.filter_map(|config| Some((config, lacks(ability, config)?)))
        };
        if unpublished().next().is_none() || self.said_unpublished.swap(true, Ordering::Relaxed) {
            return;
        }
        let why = match ability.version {
            Version::One => "the server speaks GT/1, which cannot carry it",
            Version::Two => "the server's version of gt cannot; update it",
        };
        for (config, what) in unpublished() {
            log::error!(
                "{} has {what}, but {why}; it is not published",
                config.local
            );
        }
    }

    /// Whether all services can be published by such a server, apart from what GT/1 cannot tell.
    pub fn fit(&self, ability: ServerAbility) -> bool {
        self.configs()
            .all(|config| lacks(ability, config).is_none())
    }

    /// Logs, once, that a server cannot be told which services are down, if any is checked.
    pub fn log_untold_health(&self, ability: ServerAbility) {
        let mut checked = self.list.iter().filter(|service| service.health.is_some());
        let first = checked.next().filter(|_| !ability.health);
        let Some(Service { config, .. }) = first else {
            return;
        };
        if self.said_health.swap(true, Ordering::Relaxed) {
            return;
        }
        let why = match ability.version {
            Version::One => "the server speaks GT/1, which cannot carry it",
            Version::Two => "the server's version of gt cannot; update it",
        };
        log::warn!(
            "healthCheck of {}: the server cannot be told when a service is down, because {why}; this client \
             refuses the visitors itself",
            config.local
        );
    }

    /// Logs, once, that a server does not tell where visitors come from, and what needs that.
    pub fn log_unknown_origins(&self, version: Version) {
        if self.said_origins.swap(true, Ordering::Relaxed) {
            return;
        }
        let why = match version {
            Version::One => "GT/1, in which the client speaks with it, cannot",
            Version::Two => "its version of gt cannot; update it",
        };
        if self.access_log.is_some() {
            log::warn!(
                "accessLog: the server does not tell where visitors come from, because {why}"
            );
        }
        for Service { config, .. } in &self.list {
            if !config.visitors.is_empty() {
                let outcome = match version {
                    Version::One => "it is not published",
                    Version::Two => "all of its visitors are refused",
                };
                log::error!(
                    "{} has allow or deny, but the server does not tell where visitors come from, \
                     because {why}; {outcome}",
                    config.local
                );
            } else if let Some(option) = config.needs_origins_for() {
                let outcome = match option {
                    "the UDP port" => "it serves nobody",
                    "visitorRate" => "they are not counted",
                    "private" => "wrong keys of all peers count together",
                    "password" => "their passwords are checked one after the other",
                    _ => "the service learns that they are unknown",
                };
                log::warn!(
                    "{option} of {}: the server does not tell where visitors come from, because \
                     {why}; {outcome}",
                    config.local
                );
            }
        }
    }

    /// Logs the address of a service, once, if the server is on this machine.
    pub fn log_address(&self, id: &str, remote: &Remote) {
        static SAID: AtomicBool = AtomicBool::new(false);
        let here = matches!(remote.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if !here || SAID.swap(true, Ordering::Relaxed) {
            return;
        }
        let scheme = match remote.transport {
            Transport::Tcp | Transport::Ws => "http",
            Transport::Tls | Transport::Wss => "https",
            // Its port is not for visitors.
            Transport::Quic => return,
        };
        for Service {
            config: service, ..
        } in &self.list
        {
            let is_proxy = matches!(service.local, Local::Proxy(_) | Local::Signaling);
            let exposure = Some(&service.exposure).filter(|_| !is_proxy);
            if let Some(Exposure::Host { tls: false, prefix }) = exposure {
                let prefix = prefix.as_deref().map_or_else(|| ascii(id), Cow::from);
                let url = format!("{scheme}://{prefix}.localhost:{}/", remote.port);
                let local = &service.local;
                log::info!("{local} is at {url} for a browser on this machine, or: curl {url}");
            }
        }
    }
}

/// Returns a service as the server sees it, without its group; `None` if it does not.
fn spec_of(exposure: &Exposure) -> Option<ServiceSpec> {
    Some(match exposure {
        Exposure::Host { tls, prefix } => ServiceSpec::Host {
            tls: *tls,
            prefix: prefix.as_deref().map(Into::into),
        },
        Exposure::Domains {
            tls,
            prefix,
            domains,
        } => ServiceSpec::Domains {
            tls: *tls,
            prefix: prefix.as_deref().map(Into::into),
            domains: domains
                .iter()
                .map(|domain| domain.as_str().into())
                .collect(),
        },
        Exposure::Tcp { port, random } => ServiceSpec::Tcp {
            random: *random,
            port: *port,
        },
        Exposure::Udp { port, random } => ServiceSpec::Udp {
            random: *random,
            port: *port,
        },
        Exposure::Private { .. } => return None,
    })
}

/// What a server can publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAbility {
    /// The version of the wire that it speaks.
    pub version: Version,
    /// The kinds of services, besides those of GT/1.
    pub kinds: ServiceKinds,
    /// Whether it can be told which services are down.
    pub health: bool,
}

/// Returns what a service has that such a server cannot publish, if anything.
fn lacks(ability: ServerAbility, service: &ServiceConfig) -> Option<&'static str> {
    let ServiceKinds {
        domains,
        udp,
        groups,
    } = ability.kinds;
    let needs = [
        (service.has_domains() && !domains, "a domain"),
        (service.has_udp_port() && !udp, "a UDP port"),
        (service.group.is_some() && !groups, "a serviceGroup"),
    ];
    needs
        .into_iter()
        .find_map(|(lacks, what)| lacks.then_some(what))
}

/// What is known of a visitor before its connection to a service.
pub struct Visitor {
    /// Where it comes from; `None` if nobody has told.
    pub origin: Option<VisitorOrigin>,
    /// Its bytes that have come already.
    pub come: Vec<u8>,
    /// The check of its requests; `None` if it needs no password.
    pub password: Option<PasswordCheck>,
    /// The record of its first request, if its requests are read and the visit is logged.
    pub first: Option<Arc<FirstRequest>>,
    /// Whether its connection has a window of its own, so that it can be made to wait.
    pub has_window: bool,
    /// How the visitor's datagrams reach the client, if the service is a proxy with a UDP port.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    pub udp: Option<UdpWay>,
}

impl Visitor {
    /// Returns what the file service has to know.
    pub fn of_files(self) -> FileVisitor {
        FileVisitor {
            password: self.password,
            first: self.first,
            inbox: self.come,
        }
    }
}

/// Connects to a service at `addr` and passes on what has come of the visitor. All streams, relayed
/// connections and data channels reach a service by this function, unless gt itself provides it.
pub async fn dial(service: &Service, addr: &LocalAddress, visitor: Visitor) -> io::Result<Conn> {
    let Visitor {
        origin,
        come,
        password,
        first,
        has_window,
        udp: _,
    } = visitor;
    if service.is_down() {
        let why = "it is down, as its health check says";
        return Err(io::Error::new(io::ErrorKind::NotConnected, why));
    }
    let limits = service.limits(has_window);
    let losses = service.losses.as_ref();
    let losses = losses
        .map(|losses| losses.counts.clone())
        .unwrap_or_default();
    let service = &service.config;
    let mut greeting = match service.proxy_protocol {
        Some(version) => version.encode(origin.as_ref()),
        None => Vec::new(),
    };
    let patience = service.local_timeout.unwrap_or(CONNECT_TIMEOUT);
    if let Some((host, port)) = addr.udp() {
        let conn = net::dial_udp(host, port, patience, greeting, losses).await?;
        return Ok(LimitedConn::start(conn.into(), limits));
    }
    let conn = addr.connect(patience).await?;
    // TLS is passed on unchanged.
    let rewrites = service.use_local_as_http_host && addr.scheme != Scheme::Https;
    if rewrites || service.forwarded || password.is_some() {
        conn.write_all(&greeting).await?;
        let rule = RequestEdits {
            first: first.clone(),
            password,
            host: rewrites.then(|| addr.name()),
            visitor: service.forwarded.then(|| ForwardedVisitor {
                origin: origin.map(Box::new),
            }),
        };
        return Ok(LimitedConn::start(
            RewritingConn::start(conn, rule, come, first, has_window),
            limits,
        ));
    }
    greeting.extend(come);
    conn.write_all(&greeting).await?;
    Ok(LimitedConn::start(conn, limits))
}

impl Service {
    /// Whether its checks say that it does not work.
    pub fn is_down(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.is_down())
    }

    /// Logs how many datagrams were lost here, at most once a minute.
    pub fn tell_losses(&self) {
        let Some(losses) = self.losses.as_ref().filter(|it| !it.counts.is_empty()) else {
            return;
        };
        if losses.lines.allow().is_some() {
            let (queue, socket) = losses.counts.take();
            log::warn!(
                "service {}: datagrams were dropped: {queue} of its answers, which came faster than the tunnel \
                 took them, and {socket} of its visitors, which the system did not send",
                self.config.local
            );
        }
    }

    /// Whether the requests of visitors are read. TLS is passed on unchanged.
    pub fn is_read(&self) -> bool {
        let config = &self.config;
        let rewrites = match &self.target {
            ServiceTarget::Server(addr) => {
                config.use_local_as_http_host && addr.scheme != Scheme::Https
            }
            ServiceTarget::Files(_) | ServiceTarget::Signaling => false,
            ServiceTarget::Proxy(_) => true,
        };
        rewrites || config.forwarded || !config.passwords.is_empty()
    }

    /// Returns the speed limits of a new connection; `None` if there are none.
    pub fn limits(&self, has_window: bool) -> Option<SpeedLimits> {
        self.speed.of_visitor(&self.config, has_window)
    }
}

/// Returns the code that tells the server why a service cannot be reached.
pub fn reset_code(e: &io::Error) -> ResetCode {
    match e.kind() {
        io::ErrorKind::TimedOut => ResetCode::TimedOut,
        _ => ResetCode::Unreachable,
    }
}
