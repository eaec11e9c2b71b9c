//! The tunnels to one server: some that are always there, more under load.

use super::backoff::Backoff;
use super::id_conflict::IdConflict;
use super::offered_services::OfferedServices;
use super::remote_api::RemoteApi;
use super::service::Services;
use super::session::{self, ClientSession, ConnectFailure};
use super::ClientContext;
use crate::config::{Remote, Wire};
use crate::net::{Conn, Shutdown};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::{Inbox, Tunnel};
use crate::wire::frame::RejectCode;
use crate::wire::hello::{Hello, ServiceSpec};
use crate::wire::Version;
use async_io::Timer;
use futures_lite::future;
use log::Level;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Another tunnel is opened when each one carries this many streams.
const STREAMS_PER_TUNNEL: usize = 3;
/// After the server has refused another tunnel, none is asked for so long.
const REFUSED_INTERVAL: Duration = Duration::from_secs(300);
/// A server that does not speak GT/2 is not asked again for so long.
const GT1_MEMORY: Duration = Duration::from_secs(3600);
/// A tunnel that lasted less was no success.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

pub struct Pool {
    pub me: Arc<ClientContext>,
    source: ServerSource,
    inner: Mutex<PoolState>,
    /// A first tunnel is there, or could not be had.
    pub settled: Shutdown,
}

/// What says where the server is.
pub enum ServerSource {
    Fixed(Remote),
    Asked(RemoteApi),
}

impl fmt::Display for ServerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(remote) => remote.fmt(f),
            Self::Asked(api) => api.url.fmt(f),
        }
    }
}

#[derive(Default)]
struct PoolState {
    members: Vec<Arc<PooledTunnel>>,
    /// Some are always there.
    keeping: bool,
    /// A tunnel beyond those that are always there is being opened.
    growing: bool,
    /// A server that does not speak GT/2, and when that was found.
    old: Option<(Remote, Instant)>,
    /// No more tunnels before this.
    grow_again: Option<Instant>,
    last_id: u32,
    rivalry: IdConflict,
}

/// One tunnel of the pool.
pub struct PooledTunnel {
    /// For the log.
    pub id: u32,
    /// Where it leads.
    pub remote: Remote,
    pub tunnel: Tunnel,
    /// The services that its streams are for.
    offered: Mutex<OfferedServices>,
    /// The first reason why a replacement is due.
    leaving: OnceLock<ReplaceReason>,
    /// There is one.
    has_left: Shutdown,
    /// It is always there, so nobody closes it for being idle.
    pub kept: bool,
}

/// Why a tunnel is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaceReason {
    /// The server is about to go away, and another one takes its place.
    Asked,
    /// The server wants it to end. It stops, or prefers another client with this id: coming
    /// back at once would only start a fight.
    Dismissed,
    Lost,
}

impl Pool {
    pub fn start(me: Arc<ClientContext>, source: ServerSource) -> Arc<Self> {
        let pool = Arc::new(Self {
            me,
            source,
            inner: Mutex::default(),
            settled: Shutdown::default(),
        });
        pool.clone().keep_tunnels();
        pool
    }

    /// Begins to keep tunnels, if there is anything to serve and it has not begun before.
    pub fn keep_tunnels(self: Arc<Self>) {
        if self.me.services().is_empty() {
            // There is nobody to come for; a tunnel would be a registration of nothing.
            self.settled.trigger();
            return;
        }
        if !std::mem::replace(&mut self.lock().keeping, true) {
            for _ in 0..self.me.idle_connections {
                crate::spawn(self.clone().keep());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.inner.lock()
    }

    /// Keeps one tunnel until the client stops.
    async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new(self.me.reconnect_delay);
        let mut failing = false;
        while !self.me.stop.is_triggered() {
            let connected = self.connect(true, failing).await;
            self.settled.trigger();
            let delay = match connected {
                Ok(member) => {
                    failing = false;
                    let begun = Instant::now();
                    match member.left().await {
                        ReplaceReason::Dismissed => backoff.delay(),
                        // At once, but not for a server that goes on asking.
                        ReplaceReason::Asked => MIN_LIFETIME.saturating_sub(begun.elapsed()),
                        ReplaceReason::Lost if begun.elapsed() < MIN_LIFETIME => backoff.delay(),
                        ReplaceReason::Lost => {
                            backoff.reset();
                            Duration::ZERO
                        }
                    }
                }
                Err(failure) => {
                    failing = true;
                    let delay = backoff.delay();
                    if !self.me.stop.is_triggered() {
                        let seconds = delay.as_secs_f64();
                        log::warn!("{failure}; trying {} again in {seconds:.1}s", self.source);
                    }
                    delay
                }
            };
            if !delay.is_zero() {
                let hurry = self.me.hurry.listen();
                let delayed = async {
                    Timer::after(delay).await;
                };
                self.me.stop.or(future::or(hurry, delayed)).await;
            }
        }
    }

    /// Opens one tunnel and leaves it to a task of its own.
    async fn connect(
        self: &Arc<Self>,
        kept: bool,
        quietly: bool,
    ) -> Result<Arc<PooledTunnel>, ConnectFailure> {
        let connected = self.open(kept, quietly).await;
        let rivalry = &mut self.lock().rivalry;
        match &connected {
            Ok(_) => rivalry.connected(),
            // The other one is still there.
            Err(ConnectFailure::Refused(RejectCode::OtherClientConnected, _)) => {}
            Err(_) => rivalry.failed(),
        }
        connected
    }

    async fn open(
        self: &Arc<Self>,
        kept: bool,
        quietly: bool,
    ) -> Result<Arc<PooledTunnel>, ConnectFailure> {
        let id = {
            let mut inner = self.lock();
            inner.last_id = inner.last_id.wrapping_add(1);
            inner.last_id
        };
        let level = if quietly { Level::Debug } else { Level::Info };
        log::log!(level, "trying to connect to remote connID={id}");
        let connecting = Box::pin(async {
            let remote = self.remote(kept).await?;
            let connected = self.connect_to(&remote, id).await?;
            Ok((remote, connected))
        });
        let Some(connected) = self.me.stop.or(connecting).await else {
            return Err(ConnectFailure::Stopped);
        };
        let (remote, (inbox, tunnel, services)) = connected?;
        let member = Arc::new(PooledTunnel {
            id,
            remote,
            tunnel,
            offered: Mutex::new(OfferedServices::new(services)),
            leaving: OnceLock::new(),
            has_left: Shutdown::default(),
            kept,
        });
        self.lock().members.push(member.clone());
        // They may have changed while it connected.
        member.offer(&self.me, &self.me.services());
        if self.me.stop.is_triggered() {
            member.tunnel.close();
        }
        let session = ClientSession::new(self.clone(), member.clone());
        crate::spawn(session.run(inbox));
        Ok(member)
    }

    /// Connects in the version that the server speaks, as far as that is known. One that does
    /// not answer GT/2 is asked in GT/1 at once.
    async fn connect_to(
        &self,
        remote: &Remote,
        id: u32,
    ) -> Result<(Inbox, Tunnel, Arc<Services>), ConnectFailure> {
        let me = &self.me;
        let version = match me.wire {
            Wire::One => Version::One,
            Wire::Auto if self.is_old(remote) => Version::One,
            Wire::Two | Wire::Auto => Version::Two,
        };
        let mut result = session::connect(me, remote, version, id).await;
        let falls_back = me.wire == Wire::Auto && matches!(result, Err(ConnectFailure::NotSpoken));
        if falls_back {
            log::debug!("{remote} does not speak GT/2 connID={id}");
            result = session::connect(me, remote, Version::One, id).await;
        }
        match result {
            Ok(_) | Err(ConnectFailure::Refused(..)) if !falls_back => {}
            Ok(_) | Err(ConnectFailure::Refused(..)) => {
                self.lock().old = Some((remote.clone(), Instant::now()));
            }
            // Whoever comes back there may have learnt it.
            Err(_) => self.lock().old = None,
        }
        result
    }

    /// Whether the server spoke GT/1 alone, not long ago.
    fn is_old(&self, remote: &Remote) -> bool {
        let inner = self.lock();
        let old = inner.old.as_ref();
        old.is_some_and(|(old, since)| old == remote && since.elapsed() < GT1_MEMORY)
    }

    /// Where the server is, if that can be found out.
    #[cfg(feature = "p2p")]
    pub async fn place(&self) -> Option<Remote> {
        self.remote(false).await.ok()
    }

    /// Where to connect to. A tunnel that is opened because the others are busy goes where
    /// those go.
    async fn remote(&self, kept: bool) -> Result<Remote, ConnectFailure> {
        match &self.source {
            ServerSource::Fixed(remote) => Ok(remote.clone()),
            ServerSource::Asked(api) => match api.known() {
                Some(remote) if !kept => Ok(remote),
                _ => {
                    let asking = api.ask(&self.me.id, self.me.remote_timeout);
                    let (remote, is_news) = asking.await.map_err(ConnectFailure::Nowhere)?;
                    let told = api.stun();
                    self.me.p2p.set_stun_server(&told);
                    if is_news {
                        let stun = self.me.p2p.servers(&told);
                        log::info!("remote url remote={remote} stun={stun}");
                    }
                    Ok(remote)
                }
            },
        }
    }

    /// A stream has come: is it time for another tunnel?
    pub fn busier(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.growing || self.me.stop.is_triggered() {
            return;
        }
        if inner.grow_again.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let mut loads = inner.members.iter().filter_map(|m| m.tunnel.load());
        let open = inner.members.iter().filter(|m| m.tunnel.is_open()).count();
        if open >= self.me.connections || loads.any(|streams| streams < STREAMS_PER_TUNNEL) {
            return;
        }
        inner.growing = true;
        drop(inner);
        let pool = self.clone();
        crate::spawn(async move {
            let result = pool.connect(false, false).await;
            let mut inner = pool.lock();
            inner.growing = false;
            if let Err(failure) = result {
                let pause = match failure {
                    ConnectFailure::Refused(..) => REFUSED_INTERVAL,
                    _ => pool.me.reconnect_delay,
                };
                inner.grow_again = Some(Instant::now() + pause);
                drop(inner);
                match failure {
                    ConnectFailure::Refused(RejectCode::TooManyConnections, _) => log::info!(
                        "the server allows no more tunnels; going on with those there are"
                    ),
                    failure => log::warn!("another tunnel: {failure}"),
                }
            }
        });
    }

    /// The server has closed a tunnel that is to be there, at this end of the connection.
    pub fn dismissed(&self, member: &PooledTunnel, conn: &Conn) {
        if self.me.stop.is_triggered() || !self.lock().rivalry.dismissed(Instant::now()) {
            return;
        }
        let addr = |addr: io::Result<SocketAddr>| {
            addr.map_or_else(|_| "unknown".to_owned(), |addr| addr.to_string())
        };
        log::warn!(
            "the server {} has closed the tunnels of this client again after it had let it in: \
             another client with id={} and different services probably takes turns with it; give \
             each an id of its own (this client's address is {}, the server's {})",
            member.remote,
            self.me.id,
            addr(conn.local_addr()),
            addr(conn.peer_addr())
        );
    }

    pub fn leave(&self, member: &PooledTunnel) {
        self.lock().members.retain(|other| other.id != member.id);
    }

    /// Goes on with these services, on every tunnel.
    pub fn offer(&self, services: &Arc<Services>) {
        for member in &self.lock().members {
            member.offer(&self.me, services);
        }
    }

    /// Registers the client's id as its only prefix, on every tunnel, in place of its services.
    /// Their streams go on; no new ones are to come after this.
    pub fn give_up(&self) {
        let hello = Hello {
            offers: vec![ServiceSpec::Host {
                tls: false,
                prefix: None,
            }],
            ..self.me.services().hello(&self.me)
        };
        for member in &self.lock().members {
            let tunnel = &member.tunnel;
            tunnel.send_bytes(&hello.encode_change(tunnel.version()));
        }
    }

    /// Begins the graceful end of every tunnel.
    pub fn close(&self) {
        for member in &self.lock().members {
            member.tunnel.close();
        }
    }

    /// Ends every tunnel, whatever still runs.
    pub fn finish(&self) {
        for member in &self.lock().members {
            member.tunnel.finish();
        }
    }
}

impl PooledTunnel {
    /// A replacement is due; only the first reason counts. Returns whether this is it.
    pub fn leave(&self, why: ReplaceReason) -> bool {
        let is_first = self.leaving.set(why).is_ok();
        self.has_left.trigger();
        is_first
    }

    /// Waits until a replacement is due.
    async fn left(&self) -> ReplaceReason {
        self.has_left.wait().await;
        self.leaving.get().copied().unwrap_or(ReplaceReason::Lost)
    }

    pub fn offered(&self) -> MutexGuard<'_, OfferedServices> {
        self.offered.lock()
    }

    /// Goes on with these services, and tells the server if it would see a difference.
    fn offer(&self, me: &ClientContext, services: &Arc<Services>) {
        let mut offered = self.offered();
        if offered.change(services.clone()) {
            let hello = services.hello(me);
            self.tunnel
                .send_bytes(&hello.encode_change(self.tunnel.version()));
        }
    }
}
