//! The session of a tunnel on the server: registration, signals, end.

mod changes;
mod events;
mod leaving;
mod start;

pub use start::{adopt, serve};

use super::auth_api::{AuthApi, GrantedPrefixes};
use super::ports::PortSocket;
use super::registry::{needs_siblings, Login, Registration};
use super::settings::Settings;
use super::state::ServerState;
use super::users::{Admission, Credentials, LoginVerdict};
use super::{flows, ports, visitor};
use crate::handover::MovedTunnel;
use crate::net::clock::Tick;
use crate::net::kernel::OwnedFd;
use crate::net::{self, timeout, TaskGuard};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::{self, Event, Inbox, Tunnel, DELIVERY_TIMEOUT};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
use async_std::channel::{self, Sender};
use log::Level;
use start::{Held, TunnelOrigin};
use std::future::{poll_fn, Future};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::Arc;
use std::time::Duration;

/// Time that the last bytes of a tunnel have to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of times per timeout that a silent GT/2 client is pinged (docs/wire.md, "The tunnel").
const PINGS_PER_TIMEOUT: u32 = 3;

/// The reason for the end of a tunnel that both ends have closed.
const CLOSED_NORMALLY: &str = "in good order";
/// Time that other tunnels of a client have to answer when a new one would be too many.
const SIGN_OF_LIFE_TIMEOUT: Duration = Duration::from_secs(2);
/// The reason for the end of a tunnel that has not answered a probe while its client came back.
const NO_SIGN_OF_LIFE: &str = "it gave no sign of life when its client came back";
/// Time that a draining tunnel without streams may stay open before the server ends it.
const DRAINED_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of changes of services that wait for the authAPI.
const MAX_CHANGES: usize = 4;

/// The session of one tunnel.
struct ServerSession {
    state: Arc<ServerState>,
    peer: SocketAddr,
    credentials: Arc<Credentials>,
    /// Whether this is the session of the server's self test.
    is_self_test: bool,
    /// Number of changes of services that wait for the authAPI.
    pending_changes: AtomicU32,
    auth_state: Mutex<AuthState>,
    tunnel: Tunnel,
}

/// The settings and decisions that entitle the client to its tunnel.
struct AuthState {
    settings: Arc<Settings>,
    admission: Admission,
    /// Present if the authAPI has admitted the client.
    api_grant: Option<Box<ApiGrant>>,
}

/// What an authAPI has decided about a client.
struct ApiGrant {
    api: Arc<AuthApi>,
    prefixes: GrantedPrefixes,
    /// All services that the client has requested.
    requested: Vec<ServiceSpec>,
}

/// The end of a session.
enum TunnelEnd {
    /// The tunnel has ended, for this reason.
    Ended(String),
    /// The tunnel moves to another process.
    Moves(MovedTunnel, OwnedFd),
}

/// What a session has noted of its client, and what it waits for besides the tunnel's events.
struct Watch<'a> {
    /// When a silent client was last pinged.
    pinged: Tick,
    /// Since when the tunnel has been closing without streams.
    drained: Option<Tick>,
    /// Whether the tunnel can move, and has not begun to.
    may_leave: bool,
    /// In a box: most sessions wait for nothing else.
    rare: Option<Box<RareWaits<'a>>>,
}

#[derive(Default)]
struct RareWaits<'a> {
    /// The time to move to another process. Present once this process stops.
    leaving: Option<BoxFuture<'a, ()>>,
    /// Present if the authAPI has admitted the client.
    review: Option<Review<'a>>,
}

/// The authAPI's decisions about changes of services.
struct Review<'a> {
    changes: Sender<Vec<ServiceSpec>>,
    /// Ends with the reason why the tunnel must end.
    decisions: BoxFuture<'a, String>,
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What follows from an event of a tunnel.
enum EventStep {
    /// Nothing: the next event.
    Next,
    /// The tunnel has ended, for this reason.
    End(String),
    /// The client changes its services to these.
    Apply(Vec<Option<ServiceSpec>>),
    /// The client takes no more streams on this tunnel.
    Release,
    /// The tunnel can move to another process.
    Move,
}

impl ServerSession {
    /// Returns the key of the client's registration.
    fn key(&self) -> &str {
        self.credentials.key()
    }

    fn auth(&self) -> MutexGuard<'_, AuthState> {
        self.auth_state.lock()
    }

    /// Calls `act` with the client's login under the current settings.
    fn as_login<T>(&self, act: impl FnOnce(&Login<'_>) -> T) -> T {
        let (settings, limits, proof) = {
            let auth = self.auth();
            let admission = &auth.admission;
            let limits = admission.limits.clone();
            // Domains that the authAPI has granted stay, too.
            let limits = match &auth.api_grant {
                Some(grant) => grant.prefixes.limits(limits),
                None => limits,
            };
            (auth.settings.clone(), limits, admission.proof())
        };
        act(&Login {
            id: &self.credentials.id,
            key: self.key(),
            limits: &limits,
            settings: &settings,
            proof,
            peer: self.peer,
            version: self.tunnel.version(),
        })
    }

    /// Registers the tunnel. Returns its inbox if the session can run.
    async fn join(
        &self,
        services: Vec<Option<ServiceSpec>>,
        inbox: Inbox,
        origin: TunnelOrigin,
        handshake_guard: Option<TaskGuard>,
    ) -> Option<Inbox> {
        let (id, peer, registry) = (&self.credentials.id, self.peer, &self.state.registry);
        if self.state.stop.is_triggered() {
            Box::pin(self.reject_after_stop(services, inbox, origin)).await;
            drop(handshake_guard);
            return None;
        }
        drop(handshake_guard);
        let joined = match origin {
            TunnelOrigin::Client => self.register(services).await,
            TunnelOrigin::Process { last_stream } => {
                let registration = Registration {
                    services,
                    last_stream,
                };
                self.as_login(|login| registry.adopt(login, registration, &self.tunnel))
            }
        };
        match joined {
            Ok(opened) => {
                registry.keep_credentials(&self.credentials);
                self.serve_ports(opened, true);
            }
            Err(code) => {
                self.auth().admission.end_lease();
                self.state.counters.refused(code);
                log::warn!("refused a tunnel id={id} addr={peer}: {code}");
                self.tunnel.signal(Signal::Error(code));
                Box::pin(self.close_tunnel(inbox, false)).await;
                return None;
            }
        }
        match origin {
            TunnelOrigin::Client => log::log!(self.level(), "tunnel opened id={id} addr={peer}"),
            TunnelOrigin::Process { .. } => log::info!("tunnel taken over id={id} addr={peer}"),
        }
        Some(inbox)
    }

    /// Returns the level of log lines on the tunnel's life.
    fn level(&self) -> Level {
        match self.is_self_test {
            true => Level::Debug,
            false => Level::Info,
        }
    }

    /// Serves the tunnel until it ends or moves. There may be ten thousand sessions, so what is rare
    /// is in boxes of its own, and what is not is polled by hand.
    // An `async fn` would hold its arguments twice.
    #[allow(clippy::manual_async_fn)]
    fn run(self, mut inbox: Inbox, held: Held) -> impl Future<Output = ()> {
        async move {
            let mut watch = self.watch();
            // What has changed since the login.
            self.tunnel.notify();
            let end = loop {
                let step = poll_fn(|cx| self.poll_step(&mut inbox, &mut watch, cx)).await;
                if let Some(end) = Box::pin(self.take(step, &mut inbox, &mut watch)).await {
                    break end;
                }
            };
            Box::pin(self.end(inbox, end)).await;
            drop(held);
        }
    }

    fn watch(&self) -> Watch<'_> {
        let reviews = self.auth().api_grant.is_some();
        let rare = reviews.then(|| {
            let (changes, queue) = channel::bounded(MAX_CHANGES);
            let review = Some(Review {
                changes,
                decisions: Box::pin(self.review_changes(queue)),
            });
            let leaving = None;
            Box::new(RareWaits { leaving, review })
        });
        Watch {
            pinged: Tick::now(),
            drained: None,
            rare,
            // Only GT/1 tunnels move: other clients reconnect when asked to.
            may_leave: self.tunnel.version() == Version::One && !self.is_self_test,
        }
    }

    /// Closes a tunnel that has ended, or moves it.
    async fn end(&self, inbox: Inbox, end: TunnelEnd) {
        let (id, peer) = (&self.credentials.id, self.peer);
        let why = match end {
            TunnelEnd::Ended(why) => {
                self.tunnel.finish();
                Some(why)
            }
            TunnelEnd::Moves(moved, socket) => {
                self.move_away(moved, socket).await;
                None
            }
        };
        self.state.registry.tunnel_ended(self.key(), &self.tunnel);
        self.state.client_left();
        self.state.release_if_done(id).await;
        self.auth().admission.end_lease();
        match why {
            Some(why) => {
                log::log!(self.level(), "tunnel closed id={id} addr={peer}: {why}");
                self.close_tunnel(inbox, why == CLOSED_NORMALLY).await;
            }
            None => log::info!("tunnel goes on in another process id={id} addr={peer}"),
        }
    }

    /// Registers the tunnel. If other tunnels of the client prevent that, pings these and replaces
    /// those that do not answer: the client may be back before the server has noticed its loss.
    async fn register(
        &self,
        services: Vec<Option<ServiceSpec>>,
    ) -> Result<Vec<ports::OpenedPort>, RejectCode> {
        let (key, registry) = (self.key(), &self.state.registry);
        let join =
            |services| self.as_login(|login| registry.register(login, services, &self.tunnel));
        let code = match join(services.clone()) {
            Err(code @ (RejectCode::TooManyConnections | RejectCode::OtherClientConnected)) => code,
            Err(code) if needs_siblings(code) => code,
            Ok(opened) => {
                self.probe_those_in_the_way();
                return Ok(opened);
            }
            decided => return decided,
        };
        let blocking = registry.blocking_tunnels(key, code);
        if blocking.is_empty() && needs_siblings(code) {
            return Err(code);
        }
        let gone = tunnel::find_dead(blocking, SIGN_OF_LIFE_TIMEOUT).await;
        if gone.is_empty() || self.state.stop.is_triggered() {
            return Err(code);
        }
        for tunnel in &gone {
            tunnel.abort(NO_SIGN_OF_LIFE);
            if code != RejectCode::TooManyConnections {
                registry.tunnel_of_id_ended(key, tunnel);
            }
        }
        join(services)
    }

    /// Looks whether other clients with the same id that have, perhaps, ports which this one misses have gone,
    /// and has these tried again then.
    fn probe_those_in_the_way(&self) {
        let blocking = self.state.registry.tunnels_in_the_way(self.key());
        if blocking.is_empty() {
            return;
        }
        let (state, tunnel) = (self.state.clone(), self.tunnel.clone());
        let key: Box<str> = self.key().into();
        net::spawn(async move {
            let gone = tunnel::find_dead(blocking, SIGN_OF_LIFE_TIMEOUT).await;
            if gone.is_empty() || state.stop.is_triggered() {
                return;
            }
            for tunnel in &gone {
                tunnel.abort(NO_SIGN_OF_LIFE);
                state.registry.tunnel_of_id_ended(&key, tunnel);
            }
            state.registry.retry_soon(&key);
            tunnel.end_rest();
        });
    }

    fn wait_to_move<'a>(&'a self, watch: &mut Watch<'a>, pause: Duration) {
        let rare = watch.rare.get_or_insert_default();
        rare.leaving = Some(Box::pin(self.wait_movable(pause)));
    }

    /// Looks at what may have changed at the server: its settings, and whether it stops. The error
    /// says why the tunnel must end.
    fn look_around<'a>(&'a self, watch: &mut Watch<'a>) -> Result<(), &'static str> {
        if self.state.stop.is_triggered() && std::mem::take(&mut watch.may_leave) {
            self.wait_to_move(watch, Duration::ZERO);
        }
        let newer = self.state.settings.newer(&self.auth().settings);
        let Some(settings) = newer.filter(|_| !self.is_self_test) else {
            return Ok(());
        };
        self.reauthorize(settings).map_err(|(code, why)| {
            self.state.counters.refused(code);
            self.tunnel.signal(Signal::Error(code));
            why
        })
    }

    /// Checks the client against changed settings. The error says why it may no longer connect.
    fn reauthorize(&self, settings: Arc<Settings>) -> Result<(), (RejectCode, &'static str)> {
        let verdict = settings
            .users
            .check_login(&self.credentials.id, &self.credentials.authenticator);
        let mut auth = self.auth();
        auth.settings = settings;
        match verdict {
            LoginVerdict::Admitted(admission) if !admission.admits(self.peer.ip()) => {
                let why = "the new configuration does not admit its address";
                return Err((RejectCode::AddressNotAllowed, why));
            }
            LoginVerdict::Admitted(admission) => {
                auth.admission = admission;
                auth.api_grant = None;
            }
            LoginVerdict::Ask(api, limits) => {
                // Prefixes granted by the API stay for the life of the tunnel.
                let grant = auth.api_grant.take();
                let mut grant = grant.ok_or((
                    RejectCode::BadCredentials,
                    "the authAPI decides about this client from now on",
                ))?;
                grant.api = api;
                auth.api_grant = Some(grant);
                auth.admission = Admission::new(limits);
            }
            LoginVerdict::Refused => {
                let why = "the new configuration does not admit the client";
                return Err((RejectCode::BadCredentials, why));
            }
        }
        let speed = auth.admission.limits.speed;
        drop(auth);
        self.tunnel.end_rest();
        self.state.rate_limits.for_user(&self.credentials.id, speed);
        let held = self.as_login(|login| self.state.registry.enforce(login));
        if let Err(code) = held {
            log::warn!(
                "the new configuration does not allow what id={} has registered; its tunnels \
                 drain: {code}",
                self.credentials.id
            );
        }
        Ok(())
    }

    /// Accepts visitors on the client's ports, and logs these if `logs`.
    fn serve_ports(&self, opened: Vec<ports::OpenedPort>, logs: bool) {
        let bbr = self.state.settings.get().bbr;
        for port in opened {
            port.listener.set_bbr(bbr);
            if logs {
                log::info!(
                    "Listening {} id={} addr={}",
                    port.listener.protocol(),
                    self.credentials.id,
                    port.listener.addr()
                );
            }
            let (state, id) = (self.state.clone(), Box::from(self.key()));
            match port.listener.clone() {
                PortSocket::Tcp(listener) => {
                    net::spawn(visitor::accept_port(state, id, port, listener));
                }
                PortSocket::Udp(udp) => net::spawn(flows::serve_port(state, id, port, udp)),
            }
        }
    }

    /// Sends the queued frames and lets the client read them: all of them if the tunnel has ended
    /// in good order. A client that does not read may keep as many such tunnels as it may have open
    /// (connections); they no longer count as open.
    async fn close_tunnel(&self, mut inbox: Inbox, orderly: bool) {
        self.tunnel.finish();
        let flushed = async { while !matches!(inbox.next().await, Event::End(_)) {} };
        timeout(CLOSE_TIMEOUT, flushed).await;
        if orderly {
            let most = self.auth().admission.limits.connections;
            let linger = self.state.lingering.begin(&self.credentials.id, most);
            let reading = inbox.conn().linger_for(DELIVERY_TIMEOUT, usize::MAX);
            linger.is_over.or(reading).await;
        } else {
            inbox.conn().linger(CLOSE_TIMEOUT).await;
        }
    }
}
