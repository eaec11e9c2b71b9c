//! The public end: accepts tunnels and visitors on the same listeners, and brings each
//! visitor to the client that serves it.

pub(crate) mod api;
mod auth_api;
mod auth_lockout;
pub(crate) mod client_hello;
mod connection_limit;
mod counters;
mod error_page;
mod first_secrets;
pub(crate) mod http_head;
mod lingering;
mod listeners;
mod one_request;
mod ports;
mod rate_limits;
mod registry;
mod restored_clients;
mod self_test;
mod session;
mod settings;
#[cfg_attr(not(feature = "p2p"), path = "no_stun.rs")]
pub(crate) mod stun;
mod transfer;
mod users;
mod visitor;

use crate::config;
use crate::handover::{Inherited, Outgoing, ProcessLink};
use crate::net::tls::Acceptor;
use crate::net::{timeout, timeout_at, Listener, Shutdown, WaitGroup};
use crate::wire::frame::Signal;
use crate::wire::Version;
use api::{AllowedHosts, Api};
use auth_lockout::AuthLockout;
use connection_limit::ConnectionLimit;
use counters::Counters;
use first_secrets::FirstSecrets;
use lingering::Lingering;
use listeners::{Front, Listeners, OpenListener, PlannedListener, Purpose};
use rate_limits::RateLimits;
use registry::Registry;
use restored_clients::RestoredClients;
use self_test::SelfTest;
use settings::{Settings, Watch};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use stun::Stun;
use transfer::Transfer;
pub use transfer::{MessageOrigin, Recipient};
use visitor::ListenerKind;

/// Once clients have been asked to reconnect, they have so long to do it before their tunnels
/// take no more streams.
const RECONNECT_TIME: Duration = Duration::from_secs(3);
/// Visitors that have come before may take so long beyond that to say where they want to go.
const HANDSHAKE_DRAIN_TIME: Duration = Duration::from_secs(15);

/// Before what still runs is cut, visitors of clients whose tunnels stay wait so long in the other
/// process, which is a little less than they do wait: without new ones, tunnels may become free.
const LAST_STREAMS: Duration = Duration::from_secs(8);
/// How long tunnels whose last streams were cut may take to move to the other process.
const MOVE_TIME: Duration = Duration::from_secs(2);
/// How long what did not finish in time may take to be cut.
const CUT_TIME: Duration = Duration::from_secs(1);

/// A running server.
pub struct Server {
    state: Arc<ServerState>,
    /// None of them once it accepts no more.
    listeners: Mutex<Listeners>,
    stun: Mutex<Stun>,
}

/// All that a server needs to start, or to go on in another way: listeners are open, files
/// have been read.
pub struct ServerPlan {
    rules: Settings,
    claims: Arc<FirstSecrets>,
    listeners: Vec<PlannedListener>,
    stun: stun::StunPlan,
    api: Option<ApiPlan>,
    reconnect: (u32, Duration),
    /// Most connections of one address, and of all.
    places: (u32, u32),
    /// What clients had at a predecessor.
    estate: RestoredClients,
}

/// What the API needs, beside its listener.
struct ApiPlan {
    acceptor: Option<Acceptor>,
    hosts: AllowedHosts,
}

impl ApiPlan {
    /// The error names the file that cannot be used.
    fn new(api: &config::ApiConfig) -> io::Result<Self> {
        let files = api.tls.as_ref();
        let acceptor = files.map(|(cert, key)| settings::acceptor(cert, key, api.tls_min));
        Ok(Self {
            acceptor: acceptor.transpose()?,
            hosts: AllowedHosts::new(&api.hosts),
        })
    }
}

/// Whether the files that `config` names can be used. The error says which one cannot.
pub fn check(config: &config::ServerConfig) -> io::Result<()> {
    Settings::new(config, &Arc::default(), None)?;
    config.api.as_ref().map(ApiPlan::new).transpose()?;
    Ok(())
}

/// What every connection of a server needs.
pub(crate) struct ServerState {
    registry: Registry,
    rules: Watch,
    claims: Arc<FirstSecrets>,
    speeds: RateLimits,
    guard: AuthLockout,
    places: ConnectionLimit,
    lingering: Lingering,
    guest: SelfTest,
    counters: Counters,
    transfer: Transfer,
    started: Instant,
    /// It accepts no more.
    stop: Shutdown,
    /// Those who have not said yet where they want to go.
    greeting: WaitGroup,
    /// Tunnels to their last word, and visitors who are brought what is theirs.
    serving: WaitGroup,
}

impl ServerState {
    fn new(rules: Settings, claims: Arc<FirstSecrets>, guard: AuthLockout) -> io::Result<Self> {
        Ok(Self {
            registry: Registry::default(),
            rules: Watch::new(rules),
            claims,
            speeds: RateLimits::default(),
            guard,
            places: ConnectionLimit::default(),
            lingering: Lingering::default(),
            guest: SelfTest::new()?,
            counters: Counters::default(),
            transfer: Transfer::default(),
            started: Instant::now(),
            stop: Shutdown::default(),
            greeting: WaitGroup::default(),
            serving: WaitGroup::default(),
        })
    }
}

impl ServerPlan {
    /// How to become what `config` says, from a `running` server or from none. Nothing has
    /// changed if it cannot be done; the error says which listener or file is the reason.
    pub fn new(
        config: &config::ServerConfig,
        file: &Option<PathBuf>,
        running: Option<&Server>,
        legacy: &mut Inherited,
    ) -> io::Result<Self> {
        let state = running.map(|server| &server.state);
        let claims = state.map_or_else(Arc::default, |state| state.claims.clone());
        let before = state.map(|state| state.rules.get());
        let rules = Settings::new(config, &claims, before.as_deref())?;
        let api = config.api.as_ref().map(ApiPlan::new).transpose()?;
        let now = running.map(Server::listeners);
        let listeners = listeners::plan(config, file, now.as_deref(), legacy)?;
        let stun = running.map(Server::stun);
        let stun = stun::StunPlan::new(config, file, stun.as_deref(), legacy)?;
        let estate = RestoredClients::take(legacy, file);
        if !estate.is_empty() {
            users::check_inherited(config)?;
        }
        Ok(Self {
            rules,
            claims,
            listeners,
            stun,
            api,
            reconnect: (config.reconnect_times, config.reconnect_duration),
            places: (config.address_connections, config.total_connections),
            estate,
        })
    }
}

impl Server {
    /// Serves. The error says that the system has no random numbers.
    pub fn start(plan: ServerPlan) -> io::Result<Self> {
        let (times, duration) = plan.reconnect;
        let guard = AuthLockout::new(times, duration);
        let state = Arc::new(ServerState::new(plan.rules, plan.claims, guard)?);
        state.places.set(plan.places.0, plan.places.1);
        plan.estate.restore(&state);
        let mut listeners = Listeners::default();
        listeners.change(plan.listeners, |open, front| {
            accept(&state, open, front, &plan.api)
        });
        let mut stun = Stun::default();
        stun.change(plan.stun, &state);
        Ok(Self {
            state,
            listeners: Mutex::new(listeners),
            stun: Mutex::new(stun),
        })
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stun(&self) -> MutexGuard<'_, Stun> {
        self.stun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with another configuration. Clients whose right to be here it ends lose their
    /// tunnels; nothing else that runs is touched.
    pub fn change(&self, plan: ServerPlan) {
        let state = &self.state;
        let (times, duration) = plan.reconnect;
        state.guard.set(times, duration);
        state.places.set(plan.places.0, plan.places.1);
        state.rules.replace(plan.rules);
        let announced = state.clone();
        crate::spawn(async move { announced.rules.announce().await });
        self.listeners().change(plan.listeners, |open, front| {
            accept(state, open, front, &plan.api)
        });
        self.stun().change(plan.stun, state);
    }

    /// What a process that takes this one's place needs of it.
    pub fn export(&self) -> Vec<Outgoing> {
        let mut pieces = self.listeners().share();
        pieces.extend(self.stun().share());
        pieces.extend(restored_clients::of(&self.state));
        pieces
    }

    /// No process takes this one's place after all.
    pub fn keep(&self) {
        self.state.registry.keep_ports();
    }

    /// What takes the messages of other processes.
    pub fn recipient(&self) -> Recipient {
        Recipient::new(self.state.clone())
    }

    /// The process at the other end of the link makes way for this one.
    pub fn follow(&self, parent: ProcessLink) {
        self.state.transfer.set_parent(parent);
    }

    /// Another process accepts what comes from now on, and has all clients come there: those that
    /// can be asked to. The tunnels of the others go there over the link. What runs may finish for
    /// as long as `patience`; returns when it has, or then.
    pub async fn make_way(&self, patience: Duration, child: Option<ProcessLink>) {
        let state = &self.state;
        let deadline = Instant::now() + patience;
        let has_link = child.is_some();
        if let Some(child) = child {
            state.transfer.set_child(child);
        }
        self.accept_no_more();
        match has_link {
            true => state.registry.give_up_ports_but_of_those_that_stay(),
            false => state.registry.give_up_ports(),
        }
        for (id, secret) in state.registry.held() {
            state.announce(&id, secret).await;
        }
        for tunnel in state.registry.tunnels() {
            match tunnel.version() {
                Version::Two => tunnel.signal(Signal::Reconnect),
                // No version of the original takes that in its stride.
                Version::One if has_link => {}
                Version::One => tunnel.close(),
            }
        }
        // A tunnel that is closed at once would leave its client without any for a moment.
        let idle = async {
            state.greeting.idle().await;
            state.serving.idle().await;
        };
        timeout(RECONNECT_TIME.min(patience), idle).await;
        // Those who are here find their clients only here.
        timeout(HANDSHAKE_DRAIN_TIME.min(patience), state.greeting.idle()).await;
        if has_link {
            self.wait_for_those_that_stay(deadline).await;
        }
        self.close(deadline.saturating_duration_since(Instant::now()))
            .await;
    }

    /// Waits until the tunnels that stay have moved to the other process or ended, here and in the
    /// process before this one, or until the deadline is near. Then they lose their streams.
    async fn wait_for_those_that_stay(&self, deadline: Instant) {
        let state = &self.state;
        let stay = || {
            let tunnels = state.registry.tunnels().into_iter();
            tunnels.filter(|tunnel| tunnel.version() == Version::One)
        };
        for tunnel in state.registry.tunnels() {
            if tunnel.version() == Version::Two {
                tunnel.close();
            }
        }
        let gone = || async {
            state.transfer.parent_end().await;
            state.serving.idle().await;
        };
        let let_go = deadline.checked_sub(LAST_STREAMS).unwrap_or(deadline);
        if timeout_at(let_go, gone()).await.is_some() {
            return;
        }
        state.let_go().await;
        if timeout_at(deadline, gone()).await.is_none() {
            stay().for_each(|tunnel| tunnel.cut_streams());
            timeout(MOVE_TIME, gone()).await;
        }
    }

    /// Waits until this server, which makes way, has nothing more to say to the other process: no
    /// tunnel stays here, or in the process before this one, and no visitor has to be brought
    /// anywhere.
    pub async fn moved(&self) {
        let state = &self.state;
        state.stop.wait().await;
        state.transfer.parent_end().await;
        state.registry.nothing_stays().await;
        state.greeting.idle().await;
    }

    /// Waits until no visitor is left that has not been brought anywhere.
    pub async fn greeted(&self, patience: Duration) {
        timeout(patience, self.state.greeting.idle()).await;
    }

    /// Accepts no more, lets what runs finish for as long as `patience`, and returns when it
    /// has, or then.
    pub async fn stop(&self, patience: Duration) {
        self.accept_no_more();
        self.state.registry.give_up_ports();
        self.close(patience).await;
    }

    fn accept_no_more(&self) {
        self.state.stop.trigger();
        // Others may want to listen there, now or when another process does not any more.
        *self.listeners() = Listeners::default();
        *self.stun() = Stun::default();
    }

    async fn close(&self, patience: Duration) {
        for tunnel in self.state.registry.tunnels() {
            tunnel.close();
        }
        timeout(patience, self.state.serving.idle()).await;
        for tunnel in self.state.registry.tunnels() {
            tunnel.finish();
        }
        // What is cut is to be seen as cut, which the end of the process would not say.
        timeout(CUT_TIME, self.state.serving.idle()).await;
    }
}

/// Has somebody accept on the listener.
fn accept(state: &Arc<ServerState>, open: &OpenListener, front: Front, api: &Option<ApiPlan>) {
    let (listener, stop) = (open.listener.clone(), open.stop.clone());
    match (open.purpose, api) {
        (Purpose::Visitors(door), _) => {
            crate::spawn(accept_visitors(state.clone(), listener, stop, door));
        }
        (Purpose::Api, Some(plan)) => {
            let (acceptor, hosts) = (plan.acceptor.clone(), plan.hosts.clone());
            match Api::new(state.clone(), acceptor, hosts, front) {
                Ok(api) => crate::spawn(api.accept(listener, stop)),
                Err(e) => log::error!("the API cannot serve: {e}"),
            }
        }
        (Purpose::Api, None) => {}
    }
}

async fn accept_visitors(
    state: Arc<ServerState>,
    listener: Arc<Listener>,
    stop: Shutdown,
    door: ListenerKind,
) {
    let accepting = async {
        loop {
            let (socket, peer) = listener.accept().await;
            let Some(place) = state.places.take(peer.ip()) else {
                continue;
            };
            let state = state.clone();
            match state.rules.get().acceptor.clone() {
                Some(acceptor) if door == ListenerKind::Https => {
                    crate::spawn(visitor::greet_tls(state, socket, peer, acceptor, place));
                }
                _ => crate::spawn(visitor::greet(state, socket, peer, door, place)),
            }
        }
    };
    state.stop.or(stop.or::<()>(accepting)).await;
}
