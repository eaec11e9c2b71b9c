//! The pool of tunnels to one server: a fixed number is always kept, more are opened under load.

mod better_way;
#[cfg(feature = "web")]
mod status;

use super::backoff::Backoff;
use super::connect::{connect, ConnectFailure, Connected};
use super::context::ClientContext;
use super::health::ServiceHealth;
use super::hello_turn::HelloTurn;
use super::id_conflict::IdConflict;
use super::p2p::P2p;
use super::pooled_tunnel::{PooledTunnel, ReplaceReason};
use super::remote_api::RemoteApi;
use super::services::{ServerAbility, Services};
use super::session::{ClientSession, SessionEvent};
use super::ways::Ways;
use crate::config::{Remote, Wire};
use crate::net::{self, clock, Conn, ShardId, Shutdown, Timer};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::Traffic;
use crate::wire::frame::RejectCode;
use crate::wire::hello::ServiceKinds;
use crate::wire::hello::{Hello, ServiceSpec};
use crate::wire::Version;
use futures_lite::future;
use log::Level;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Number of streams of each tunnel at which another tunnel is opened.
const STREAMS_PER_TUNNEL: usize = 3;
/// Time in which no further tunnel is requested after the server has refused one.
const REFUSED_INTERVAL: Duration = Duration::from_secs(300);
/// Time in which a server is not asked for GT/2 again after it did not support it (docs/wire.md,
/// "Version detection").
const GT1_MEMORY: Duration = Duration::from_secs(3600);
/// A tunnel that was lost within this number of `remoteTimeout` may speak against its way: if nothing gets through any
/// more, the loss is noticed after two and a half.
const EARLY_TIMEOUTS: u32 = 4;
/// The least time like [`EARLY_TIMEOUTS`], since servers have a patience of their own.
const MIN_EARLY: Duration = Duration::from_secs(30);
/// Time in which other tunnels do not log the failure of one again; the longest delay between its attempts is a minute.
const FAILURE_MEMORY: Duration = Duration::from_secs(90);
/// A tunnel that lasted less than this counts as a failed attempt.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// The tunnels to one server.
pub struct Pool {
    /// The state that all tunnels of the client share.
    context: Arc<ClientContext>,
    p2p: Arc<P2p>,
    source: ServerSource,
    inner: Mutex<PoolState>,
    /// Triggered when the first tunnel is up or has failed.
    pub settled: Shutdown,
}

#[cfg(feature = "web")]
pub use status::PoolStatus;

/// The source of the server's address.
pub enum ServerSource {
    /// The configured addresses.
    Fixed(Ways),
    /// The remoteAPI.
    Requested(RemoteApi),
}

impl fmt::Display for ServerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(ways) => ways.fmt(f),
            Self::Requested(api) => api.url.fmt(f),
        }
    }
}

#[derive(Default)]
struct PoolState {
    members: Vec<Arc<PooledTunnel>>,
    /// Whether the tunnels that are always kept have been started.
    is_started: bool,
    /// Whether a tunnel beyond those is being opened.
    growing: bool,
    /// Servers that do not support GT/2, by the way to them, and when that was found.
    gt1_servers: Vec<(Remote, Instant)>,
    /// No further tunnels before this time.
    grow_again: Option<Instant>,
    last_id: u32,
    /// Why the last attempt has failed; `None` if it has not.
    last_failure: Option<String>,
    /// What tunnels that have ended have carried.
    past: Traffic,
    id_conflict: IdConflict,
    /// The failure that was logged last.
    failure: Option<LoggedFailure>,
}

/// A failure that was logged.
struct LoggedFailure {
    /// The number of the tunnel that could not be opened.
    keeper: usize,
    text: String,
    at: Instant,
}

impl Pool {
    /// Creates a pool and starts to keep tunnels.
    pub fn start(p2p: Arc<P2p>, source: ServerSource) -> Arc<Self> {
        let pool = Arc::new(Self {
            context: p2p.context().clone(),
            p2p,
            source,
            inner: Mutex::default(),
            settled: Shutdown::default(),
        });
        pool.clone().keep_tunnels();
        pool
    }

    /// Starts to keep tunnels, if there are services and it has not started before.
    pub fn keep_tunnels(self: Arc<Self>) {
        if self.context.services().is_empty() {
            // Without services a tunnel would have no purpose.
            self.settled.trigger();
            return;
        }
        if !std::mem::replace(&mut self.lock().is_started, true) {
            for keeper in 0..self.context.idle_connections {
                net::spawn_on(ShardId::next(), self.clone().keep(keeper));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.inner.lock()
    }

    /// Keeps one tunnel, that of this number, until the client stops.
    async fn keep(self: Arc<Self>, keeper: usize) {
        let mut backoff = Backoff::new(self.context.reconnect_delay);
        let mut failing = false;
        // Whether the tunnel before this one was lost.
        let mut is_back = false;
        while !self.context.stop.is_triggered() {
            let connected = self.connect(true, failing).await;
            self.settled.trigger();
            let delay = match connected {
                Ok(member) => {
                    failing = false;
                    self.lock().last_failure = None;
                    let (begun, why) = self.hold(member, is_back).await;
                    is_back = why == ReplaceReason::Lost;
                    match why {
                        ReplaceReason::ClosedByServer => backoff.delay(),
                        // Soon, but not in a loop for a server that keeps asking.
                        ReplaceReason::Asked => {
                            MIN_LIFETIME.saturating_sub(clock::since(begun)) + backoff.restart()
                        }
                        ReplaceReason::Lost if clock::since(begun) < MIN_LIFETIME => {
                            backoff.delay()
                        }
                        ReplaceReason::Lost => backoff.restart(),
                        ReplaceReason::BetterWay => Duration::ZERO,
                    }
                }
                Err(failure) => {
                    failing = true;
                    self.lock().last_failure = Some(failure.to_string());
                    let delay = backoff.delay();
                    if !self.context.stop.is_triggered() {
                        self.log_failure(&failure, keeper, delay);
                    }
                    delay
                }
            };
            if !delay.is_zero() {
                let hurry = self.context.retry.listen();
                let delayed = async {
                    Timer::after(delay).await;
                };
                self.context.stop.or(future::or(hurry, delayed)).await;
            }
        }
    }

    /// Logs that the tunnel of this number cannot be opened. Tunnels that fail for one reason log it once.
    fn log_failure(&self, failure: &ConnectFailure, keeper: usize, delay: Duration) {
        let text = failure.to_string();
        let known = &mut self.lock().failure;
        let is_known = known.as_ref().is_some_and(|known| {
            let is_recent = clock::since(known.at) < FAILURE_MEMORY;
            known.keeper != keeper && known.text == text && is_recent
        });
        let level = match is_known {
            true => Level::Debug,
            false => Level::Warn,
        };
        let seconds = delay.as_secs_f64();
        log::log!(
            level,
            "{text}; trying {} again in {seconds:.1}s",
            self.source
        );
        if !is_known {
            let at = clock::now();
            *known = Some(LoggedFailure { keeper, text, at });
        }
    }

    /// Opens one tunnel and starts its task.
    async fn connect(
        self: &Arc<Self>,
        kept: bool,
        quietly: bool,
    ) -> Result<Arc<PooledTunnel>, ConnectFailure> {
        let connected = self.open(kept, quietly).await;
        let id_conflict = &mut self.lock().id_conflict;
        match &connected {
            Ok(_) => id_conflict.connected(),
            // The other client is still there.
            Err(ConnectFailure::Refused(RejectCode::OtherClientConnected, _)) => {}
            Err(_) => id_conflict.failed(),
        }
        connected
    }

    async fn open(
        self: &Arc<Self>,
        kept: bool,
        quietly: bool,
    ) -> Result<Arc<PooledTunnel>, ConnectFailure> {
        let id = self.next_id();
        let level = if quietly { Level::Debug } else { Level::Info };
        log::log!(level, "trying to connect to remote connID={id}");
        let (remote, connected) = match &self.source {
            ServerSource::Fixed(ways) if ways.are_several() => {
                Box::pin(self.connect_by(ways, &ways.order(), id)).await?
            }
            _ => {
                let remote = self.context.stop.or(Box::pin(self.remote(kept))).await;
                let remote = remote.unwrap_or(Err(ConnectFailure::Stopped))?;
                let turn = HelloTurn::default();
                let connected = Box::pin(self.connect_to(&remote, &turn, id)).await?;
                (remote, connected)
            }
        };
        Ok(self.add(connected, remote, id, kept))
    }

    /// Returns the number of the next tunnel.
    fn next_id(&self) -> u32 {
        let mut inner = self.lock();
        inner.last_id = inner.last_id.wrapping_add(1);
        inner.last_id
    }

    /// Starts the task of a tunnel that has just been opened.
    fn add(
        self: &Arc<Self>,
        connected: Connected,
        remote: Remote,
        id: u32,
        kept: bool,
    ) -> Arc<PooledTunnel> {
        let Connected {
            inbox,
            tunnel,
            offered,
            ability,
            link,
        } = connected;
        log::debug!("connected to {remote}{link} connID={id}");
        let member = PooledTunnel::new(id, (remote, link), (tunnel, ability), offered, kept);
        self.lock().members.push(member.clone());
        // The services may have changed while it connected.
        member.offer(&self.context, &self.context.services());
        if self.context.stop.is_triggered() {
            member.tunnel.close();
        }
        let session = ClientSession::new(self.p2p.clone(), member.clone(), inbox);
        net::spawn(self.clone().run(session));
        member
    }

    /// Serves a tunnel until it ends.
    async fn run(self: Arc<Self>, mut session: ClientSession) {
        loop {
            match session.next().await {
                SessionEvent::StreamOpened => self.stream_added(),
                SessionEvent::ClosedByServer => {
                    self.closed_by_server(&session.member, session.conn());
                }
                SessionEvent::Ended => break,
            }
        }
        if session.is_lost() {
            self.note_loss(&session.member);
        }
        session.member.link.end();
        self.forget(&session.member);
        session.finish().await;
    }

    /// Notes that a tunnel was lost: other links and ways may be better.
    fn note_loss(&self, member: &PooledTunnel) {
        member.link.note_failure();
        let ServerSource::Fixed(ways) = &self.source else {
            return;
        };
        let early = self.context.remote_timeout.saturating_mul(EARLY_TIMEOUTS);
        let early = early.max(MIN_EARLY);
        if let Some(pause) = ways.note_loss(&member.remote, member.begun, early) {
            log::warn!(
                "tunnels by {} are lost soon after they were opened, though they can be opened: a filter or a router on \
                 the way may cut them, or drop large packets; the other ways come first for {pause:?}",
                member.remote
            );
        }
    }

    /// Removes a tunnel that has ended.
    fn forget(&self, member: &PooledTunnel) {
        let mut inner = self.lock();
        inner.members.retain(|other| other.id != member.id);
        inner.past += member.tunnel.traffic();
    }

    /// Connects with the version that the server supports, as far as known. A server that does not
    /// answer GT/2 is asked for GT/1 at once.
    pub(super) async fn connect_to(
        &self,
        remote: &Remote,
        turn: &HelloTurn,
        id: u32,
    ) -> Result<Connected, ConnectFailure> {
        let context = &self.context;
        let version = match context.wire {
            Wire::One => Version::One,
            Wire::Auto if self.is_gt1_server(remote) => Version::One,
            Wire::Two | Wire::Auto => Version::Two,
        };
        let of = |version, kinds| ServerAbility {
            version,
            kinds,
            health: version == Version::Two,
        };
        let kinds = match version {
            Version::One => ServiceKinds::NONE,
            Version::Two => ServiceKinds::ALL,
        };
        let mut result = connect(context, remote, turn, of(version, kinds), id).await;
        if let Err(ConnectFailure::LacksKinds(kinds)) = result {
            log::debug!("{remote} can publish {kinds:?} connID={id}");
            result = connect(context, remote, turn, of(version, kinds), id).await;
        }
        let falls_back =
            context.wire == Wire::Auto && matches!(result, Err(ConnectFailure::WrongVersion));
        if falls_back {
            log::debug!("{remote} does not speak GT/2 connID={id}");
            result = connect(
                context,
                remote,
                turn,
                of(Version::One, ServiceKinds::NONE),
                id,
            )
            .await;
        }
        match result {
            Ok(_) | Err(ConnectFailure::Refused(..)) if !falls_back => {}
            Ok(_) | Err(ConnectFailure::Refused(..)) => {
                self.forget_gt1_server(remote);
                let found = (remote.clone(), clock::now());
                self.lock().gt1_servers.push(found);
            }
            // The server that comes back there may support GT/2.
            Err(_) => self.forget_gt1_server(remote),
        }
        result
    }

    /// Whether the server recently supported only GT/1.
    fn is_gt1_server(&self, remote: &Remote) -> bool {
        let inner = self.lock();
        let mut old = inner.gt1_servers.iter();
        old.any(|(old, since)| old == remote && clock::since(*since) < GT1_MEMORY)
    }

    /// Forgets that the server supported only GT/1, and all entries that have expired: the remoteAPI may name
    /// other servers each time.
    fn forget_gt1_server(&self, remote: &Remote) {
        let is_known =
            |(old, since): &(Remote, Instant)| old != remote && clock::since(*since) < GT1_MEMORY;
        self.lock().gt1_servers.retain(is_known);
    }

    /// Returns the server's address, if it can be found.
    #[cfg(feature = "p2p")]
    pub async fn place(&self) -> Option<Remote> {
        self.remote(false).await.ok()
    }

    /// Returns the address to connect to. A tunnel that is opened because the others are busy goes
    /// to the same server.
    async fn remote(&self, kept: bool) -> Result<Remote, ConnectFailure> {
        match &self.source {
            ServerSource::Fixed(ways) => Ok(ways.current().clone()),
            ServerSource::Requested(api) => match api.known() {
                Some(remote) if !kept => Ok(remote),
                _ => {
                    let asking = api.ask(&self.context.id, self.context.remote_timeout);
                    let (remote, is_news) = asking.await.map_err(ConnectFailure::UnknownAddress)?;
                    let stun = api.stun();
                    self.p2p.set_stun_server(&stun);
                    if is_news {
                        let stun = self.p2p.servers(&stun);
                        log::info!("remote url remote={remote} stun={stun}");
                    }
                    Ok(remote)
                }
            },
        }
    }

    /// Opens another tunnel if the tunnels are busy, after a stream was added.
    fn stream_added(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.growing || self.context.stop.is_triggered() {
            return;
        }
        if inner.grow_again.is_some_and(|at| clock::now() < at) {
            return;
        }
        let mut loads = inner.members.iter().filter_map(|m| m.tunnel.load());
        let open = inner.members.iter().filter(|m| m.tunnel.is_open()).count();
        if open >= self.context.connections || loads.any(|streams| streams < STREAMS_PER_TUNNEL) {
            return;
        }
        inner.growing = true;
        drop(inner);
        let pool = self.clone();
        net::spawn_on(ShardId::next(), async move {
            let result = pool.connect(false, false).await;
            let mut inner = pool.lock();
            inner.growing = false;
            if let Err(failure) = result {
                let pause = match failure {
                    ConnectFailure::Refused(..) => REFUSED_INTERVAL,
                    _ => pool.context.reconnect_delay,
                };
                inner.grow_again = Some(clock::now() + pause);
                drop(inner);
                match failure {
                    ConnectFailure::Refused(RejectCode::TooManyConnections, _) => log::info!(
                        "the server allows no more tunnels; continuing with the existing ones"
                    ),
                    failure => log::warn!("cannot open another tunnel: {failure}"),
                }
            }
        });
    }

    /// Handles the end of a needed tunnel that the server has closed. `conn` is this end of the
    /// connection.
    fn closed_by_server(&self, member: &PooledTunnel, conn: &Conn) {
        if self.context.stop.is_triggered()
            || !self.lock().id_conflict.closed_by_server(clock::now())
        {
            return;
        }
        let addr = |addr: io::Result<SocketAddr>| {
            addr.map_or_else(|_| "unknown".to_owned(), |addr| addr.to_string())
        };
        log::warn!(
            "the server {} has closed the tunnels of this client again after accepting it: \
             another client with id={} and different services probably takes turns with it; give \
             each its own id (this client's address is {}, the server's {})",
            member.remote,
            self.context.id,
            addr(conn.local_addr()),
            addr(conn.peer_addr())
        );
    }

    /// Changes the services of every tunnel.
    pub fn offer(&self, services: &Arc<Services>) {
        for member in &self.lock().members {
            member.offer(&self.context, services);
        }
    }

    /// Tells the server of a service that is down, or that is up again.
    pub fn tell_health(&self, health: &Arc<ServiceHealth>) {
        for member in &self.lock().members {
            member.tell_health(health);
        }
    }

    /// Lets the tasks of all visitors look at what has changed around them.
    pub fn wake_visitors(&self) {
        for member in &self.lock().members {
            member.tunnel.wake_streams();
        }
    }

    /// Registers the client's id as its only prefix on every tunnel, in place of its services.
    /// Their streams go on; no new ones should come after this.
    pub fn give_up(&self) {
        let hello = Hello {
            services: vec![ServiceSpec::Host {
                tls: false,
                prefix: None,
            }],
            ..self
                .context
                .services()
                .hello(&self.context.id, self.context.credential.proof())
        };
        for member in &self.lock().members {
            let tunnel = &member.tunnel;
            tunnel.send_bytes(&hello.encode_change(tunnel.version()));
        }
    }

    /// Starts the graceful end of every tunnel.
    pub fn close(&self) {
        for member in &self.lock().members {
            member.tunnel.close();
        }
    }

    /// Ends every tunnel and cuts its streams.
    pub fn finish(&self) {
        for member in &self.lock().members {
            member.tunnel.finish();
        }
    }
}
