//! The local services: which ones are offered to the server, and how a stream reaches its service.

use super::context::ClientContext;
use super::files::{self, FolderRoot};
use super::host_rewriter::{HostRewriter, RewritingConn};
use super::p2p;
use crate::config::label::ascii;
use crate::config::{Exposure, Local, Remote, Scheme, ServiceConfig};
use crate::net::http::reply;
use crate::net::{self, Conn, TaskGuard};
use crate::sync::Mutex;
use crate::tunnel::{Relay, Stream, FIRST_WINDOW};
use crate::wire::frame::{ResetCode, ServiceIndex};
use crate::wire::hello::{Hello, ServiceSpec};
use futures_lite::{future, AsyncWriteExt};
use log::Level;
use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Timeout for connecting to a service without localTimeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Time after a warning about a failed service in which further failures are logged at a lower
/// level.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);
/// The method of P2P signaling (docs/p2p.md, "Signaling").
const P2P_METHOD: &[u8] = b"XP ";
/// The method of a CORS preflight, which asks whether a page may use P2P.
const OPTIONS_METHOD: &[u8] = b"OPTIONS ";

/// All services of a client, in the order of their indexes.
pub struct Services {
    list: Vec<(ServiceConfig, ServiceTarget)>,
    /// When a failure was last reported.
    failed: Mutex<Option<Instant>>,
}

enum ServiceTarget {
    Tcp(LocalAddress),
    Files(Arc<FolderRoot>),
}

/// The address of a local service.
struct LocalAddress {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Services {
    /// Creates the services. The error names a folder that cannot be served.
    pub fn new(services: &[ServiceConfig]) -> io::Result<Self> {
        let list = services.iter().map(|service| {
            let target = match &service.local {
                Local::Tcp { scheme, host, port } => ServiceTarget::Tcp(LocalAddress {
                    scheme: *scheme,
                    host: host.clone(),
                    port: *port,
                }),
                Local::Files(path) => {
                    let root = FolderRoot::open(path, service.follow_links_outside)?;
                    ServiceTarget::Files(Arc::new(root))
                }
            };
            Ok((service.clone(), target))
        });
        let list = list.collect::<io::Result<_>>()?;
        Ok(Self {
            list,
            failed: Mutex::default(),
        })
    }

    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the log level for a failure, so that a service that is down is not reported for each
    /// visitor.
    fn level_of_failure(&self) -> Level {
        let mut failed = self.failed.lock();
        if failed.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
            return Level::Debug;
        }
        *failed = Some(Instant::now());
        Level::Warn
    }

    /// Returns the services as the server sees them.
    pub fn specs(&self) -> Vec<ServiceSpec> {
        let specs = self
            .list
            .iter()
            .map(|(service, _)| match &service.exposure {
                Exposure::Host { tls, prefix } => ServiceSpec::Host {
                    tls: *tls,
                    prefix: prefix.as_deref().map(Into::into),
                },
                Exposure::Tcp { port, random } => ServiceSpec::Tcp {
                    random: *random,
                    port: *port,
                },
            });
        specs.collect()
    }

    /// Returns the hello with the client's identity and these services.
    pub(super) fn hello(&self, me: &ClientContext) -> Hello {
        Hello {
            id: me.id.as_str().into(),
            secret: me.secret.as_bytes().into(),
            services: self.specs(),
            window: FIRST_WINDOW,
        }
    }

    /// Returns the index of the service that a data channel's label names: by its host prefix, as
    /// configured or as registered at the server, or by its TCP port; the first service if it names
    /// none.
    #[cfg(feature = "p2p")]
    fn labelled(&self, label: &str, id: &str) -> Option<usize> {
        let Some(wanted) = p2p::prefix_of(label) else {
            return (!self.list.is_empty()).then_some(0);
        };
        let name = ascii(wanted);
        self.list
            .iter()
            .position(|(service, _)| match &service.exposure {
                Exposure::Host { prefix: None, .. } => name == ascii(id),
                Exposure::Host {
                    prefix: Some(prefix),
                    ..
                } => name == *prefix || name == ascii(&format!("{id}-{prefix}")),
                Exposure::Tcp { port, .. } => wanted.parse() == Ok(*port),
            })
    }

    /// Returns a service as the user knows it.
    pub fn describe(&self, index: ServiceIndex) -> String {
        match self.list.get(index.as_usize()) {
            Some((service, _)) => match &service.exposure {
                Exposure::Tcp { port: 0, .. } | Exposure::Host { .. } => service.local.to_string(),
                Exposure::Tcp { port, .. } => format!("{} (port {port})", service.local),
            },
            None => format!("service {index}"),
        }
    }

    /// Returns the shortest timeout of all services.
    pub fn shortest_timeout(&self) -> Duration {
        let limits = self.list.iter().filter_map(|(s, _)| s.local_timeout);
        limits.min().unwrap_or(CONNECT_TIMEOUT)
    }

    /// Logs the address of a service, once, if the server is on this machine.
    pub fn log_address(&self, id: &str, remote: &Remote) {
        static SAID: AtomicBool = AtomicBool::new(false);
        let here = matches!(remote.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if !here || SAID.swap(true, Ordering::Relaxed) {
            return;
        }
        let scheme = if remote.tls { "https" } else { "http" };
        for (service, _) in &self.list {
            if let Exposure::Host { tls: false, prefix } = &service.exposure {
                let prefix = prefix.as_deref().map_or_else(|| ascii(id), Cow::from);
                let url = format!("{scheme}://{prefix}.localhost:{}/", remote.port);
                let local = &service.local;
                log::info!("{local} is at {url} for a browser on this machine, or: curl {url}");
            }
        }
    }
}

/// Connects one stream to its service, and relays it to its end.
pub async fn serve(
    me: Arc<ClientContext>,
    services: Arc<Services>,
    index: ServiceIndex,
    mut stream: Stream,
    _serving: TaskGuard,
) {
    let Some((service, target)) = services.list.get(index.as_usize()) else {
        stream.fail(ResetCode::UnknownService);
        return log::debug!("the server opened a stream to service {index}, which does not exist");
    };
    stream.limit_idle(service.local_timeout, false);
    // The state for connecting is large; the relay that stays is small.
    if is_http(service) && stream.starts_with(P2P_METHOD).await {
        if let Err(e) = Box::pin(p2p::answer(&me, stream)).await {
            log::debug!("P2P signaling: {e}");
        }
        return;
    }
    match Box::pin(connect(&me, service, target, &mut stream)).await {
        Ok(ReachedService::Conn(conn)) => {
            Relay::service(stream, conn).await;
        }
        Ok(ReachedService::Files(root)) => {
            if let Err(e) = Box::pin(files::serve(root, &mut stream)).await {
                // A part of a file must not look complete.
                stream.fail(ResetCode::Aborted);
                log::debug!("{}: {e}", service.local);
            }
        }
        Ok(ReachedService::Done) => {}
        Err(e) => {
            stream.fail(reset_code(&e));
            let level = services.level_of_failure();
            log::log!(level, "service {}: {e}", service.local);
        }
    }
}

/// The target that a stream was connected to.
enum ReachedService<'a> {
    Conn(Arc<Conn>),
    Files(&'a FolderRoot),
    /// The stream has been served already, or is over.
    Done,
}

fn is_http(service: &ServiceConfig) -> bool {
    matches!(service.exposure, Exposure::Host { tls: false, .. })
}

async fn connect<'a>(
    me: &Arc<ClientContext>,
    service: &ServiceConfig,
    target: &'a ServiceTarget,
    stream: &mut Stream,
) -> io::Result<ReachedService<'a>> {
    let mut head = Vec::new();
    if is_http(service) && p2p::is_on(me) && stream.starts_with(OPTIONS_METHOD).await {
        match p2p::preflight(stream).await? {
            Some(_) if matches!(target, ServiceTarget::Files(_)) => {
                let refusal =
                    reply::head("405 Method Not Allowed", "Allow: GET, HEAD\r\n", Some(0));
                stream.write_all(refusal.as_bytes()).await?;
                return Ok(ReachedService::Done);
            }
            Some(read) => head = read,
            None => return Ok(ReachedService::Done),
        }
    }
    match target {
        ServiceTarget::Files(root) => Ok(ReachedService::Files(root)),
        ServiceTarget::Tcp(addr) => {
            let dialing = async { dial(service, addr, head).await.map(Some) };
            let given_up = async {
                stream.is_over().await;
                Ok(None)
            };
            let Some(conn) = future::or(dialing, given_up).await? else {
                return Ok(ReachedService::Done);
            };
            Ok(ReachedService::Conn(Arc::new(conn)))
        }
    }
}

/// Connects a data channel to the service that its label names, or to the first, and relays it to
/// its end.
#[cfg(feature = "p2p")]
pub fn serve_channel(me: &Arc<ClientContext>, label: &str, channel: p2p::ChannelConn) {
    let services = me.services();
    let Some(index) = services.labelled(label, &me.id) else {
        return log::debug!("a peer asks for an unknown service: {label:?}");
    };
    let serving = me.serving.begin();
    crate::net::spawn(async move {
        let Some((service, target)) = services.list.get(index) else {
            return;
        };
        channel.limit_idle(service.local_timeout);
        if let Err(e) = Box::pin(carry(service, target, channel)).await {
            let level = match e.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Level::Debug,
                _ => services.level_of_failure(),
            };
            log::log!(level, "service {}: {e}", service.local);
        }
        drop(serving);
    });
}

/// Connects a stream to the service that `label` names: sends `head` to the stream, passes the
/// bytes that have come already on to the service, and relays to the end.
#[cfg(feature = "p2p")]
pub async fn relay(
    me: &Arc<ClientContext>,
    label: &str,
    mut stream: Stream,
    head: &[u8],
    already: &[u8],
) -> io::Result<()> {
    let services = me.services();
    let found = services.labelled(label, &me.id);
    let Some((service, target)) = found.and_then(|index| services.list.get(index)) else {
        stream.fail(ResetCode::UnknownService);
        return Ok(());
    };
    let addr = match target {
        ServiceTarget::Tcp(addr) => addr,
        ServiceTarget::Files(root) => {
            stream.write_all(head).await?;
            let served = files::serve_after(root, &mut stream, already.to_vec()).await;
            return served.inspect_err(|_| stream.fail(ResetCode::Aborted));
        }
    };
    let conn = match dial(service, addr, already.to_vec()).await {
        Ok(conn) => conn,
        Err(e) => {
            stream.fail(reset_code(&e));
            return Err(e);
        }
    };
    stream.write_all(head).await?;
    Relay::service(stream, Arc::new(conn)).await;
    Ok(())
}

#[cfg(feature = "p2p")]
async fn carry(
    service: &ServiceConfig,
    target: &ServiceTarget,
    channel: p2p::ChannelConn,
) -> io::Result<()> {
    match target {
        ServiceTarget::Files(root) => files::serve(root, channel).await,
        ServiceTarget::Tcp(addr) => {
            let conn = channel.unless_cut(dial(service, addr, Vec::new())).await?;
            p2p::carry(channel, Arc::new(conn)).await
        }
    }
}

/// Connects to a service at `addr` and passes on the visitor's bytes that have `come` already. All
/// streams, relayed connections and data channels reach a service by this function.
async fn dial(service: &ServiceConfig, addr: &LocalAddress, come: Vec<u8>) -> io::Result<Conn> {
    let patience = service.local_timeout.unwrap_or(CONNECT_TIMEOUT);
    let socket = net::dial(&addr.host, addr.port, patience).await?;
    // TLS is passed on unchanged.
    if service.use_local_as_http_host && addr.scheme != Scheme::Https {
        return Ok(RewritingConn::start(
            socket,
            HostRewriter(addr.name()),
            come,
        ));
    }
    let conn = Conn::from(socket);
    if !come.is_empty() {
        conn.write_all(&come).await?;
    }
    Ok(conn)
}

/// Returns the code that tells the server why a service cannot be reached.
fn reset_code(e: &io::Error) -> ResetCode {
    match e.kind() {
        io::ErrorKind::TimedOut => ResetCode::TimedOut,
        _ => ResetCode::Unreachable,
    }
}

impl LocalAddress {
    /// Returns the host that requests name with useLocalAsHTTPHost: the local address, without the
    /// scheme's default port.
    fn name(&self) -> String {
        let Self { scheme, host, port } = self;
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        match (scheme, port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            _ => format!("{host}:{port}"),
        }
    }
}
