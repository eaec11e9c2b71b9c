//! The server: accepts tunnels and visitors on the same listeners, and forwards each visitor to the
//! client that publishes its destination.

#[cfg_attr(any(feature = "sim", not(feature = "acme")), path = "no_acme.rs")]
pub(crate) mod acme;
pub(crate) mod api;
mod auth_api;
pub(crate) mod client_hello;
mod connection_limit;
mod counters;
#[cfg(test)]
mod crowd;
mod departed;
mod error_page;
mod first_secrets;
mod flows;
mod forwarded_for;
mod handshake;
pub(crate) mod http_head;
mod incoming;
mod lingering;
mod listeners;
#[cfg_attr(not(feature = "web"), path = "no_live_visitors.rs")]
mod live_visitors;
mod login;
mod one_request;
mod ports;
mod process_links;
mod proxy_header;
#[cfg_attr(any(feature = "sim", not(feature = "quic")), path = "no_quic.rs")]
mod quic;
mod rate_limits;
mod registry;
mod restored_clients;
mod self_test;
mod session;
mod settings;
mod sniff;
mod state;
#[cfg_attr(not(feature = "p2p"), path = "no_stun.rs")]
pub(crate) mod stun;
mod transfer;
mod udp_port;
#[cfg_attr(not(feature = "ws"), path = "no_upgrade.rs")]
mod upgrade;
mod users;
mod visitor;
mod visitor_authorities;
#[cfg(feature = "web")]
mod web_view;

use crate::auth_lockout::AuthLockout;
use crate::config;
use crate::handover::{Inherited, Outgoing, ProcessLink};
use crate::keys::Fingerprint;
use crate::net::tls::{self, Acceptor, ClientCertificates, ServerIdentity};
use crate::net::{self, clock, timeout, timeout_at, Listener, ShardId, Shutdown, Socket};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::Tunnel;
use crate::wire::frame::Signal;
use crate::wire::Version;
use acme::Acme;
use api::{AllowedHosts, Api};
use first_secrets::FirstSecrets;
use incoming::{AcceptedConn, ListenerKind};
use listeners::{Front, Listeners, OpenListener, PlannedListener, Purpose};
pub use process_links::MessageOrigin;
use quic::Quic;
use restored_clients::RestoredClients;
use settings::Settings;
use state::ServerState;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun::Stun;
pub use transfer::Recipient;
#[cfg(feature = "web")]
pub use web_view::ServerView;

/// Time that clients have to reconnect when asked to, before their tunnels stop taking streams.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time that visitors accepted before a drain have after [`RECONNECT_TIMEOUT`] to send their
/// destination.
const HANDSHAKE_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Time that visitors accepted before a stop have to send their destination.
const HANDSHAKE_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Time before the deadline of a drain at which the tunnels that stay stop taking streams, so that
/// they may become free to move. Together with [`MOVE_TIMEOUT`], less than visitors wait in the other
/// process.
const STREAM_CUT_NOTICE: Duration = Duration::from_secs(7);
/// Time that tunnels have to move to the other process after their last streams were cut.
pub const MOVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that connections have to close after they were cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A running server.
pub struct Server {
    state: Arc<ServerState>,
    /// Empty once the server stops accepting.
    listeners: Mutex<Listeners>,
    quic: Mutex<Quic>,
    stun: Mutex<Stun>,
}

/// The plan to start or reconfigure a server: open listeners and the contents of files.
pub struct ServerPlan {
    settings: Settings,
    first_secrets: Arc<FirstSecrets>,
    listeners: Vec<PlannedListener>,
    quic: quic::QuicPlan,
    stun: stun::StunPlan,
    api: Option<ApiPlan>,
    /// Number of failed logins that an address may have, and the duration of a lockout.
    reconnect: (u32, Duration),
    /// Maximum numbers of connections, per address and in total.
    connection_limits: (u32, u32),
    /// The prefixes and ports that clients had in the parent process.
    restored: RestoredClients,
}

/// Settings of the API, without its listener.
struct ApiPlan {
    acceptor: Option<Acceptor>,
    hosts: AllowedHosts,
}

impl ApiPlan {
    /// Reads the TLS files. The error names the file that cannot be used.
    fn new(api: &config::ApiConfig) -> io::Result<Self> {
        let files = api.tls.as_ref();
        let acceptor = files.map(|(cert, key)| {
            let identity = ServerIdentity::from_files(cert, key)?;
            settings::acceptor(identity, api.tls_min, ClientCertificates::Unasked, None)
        });
        Ok(Self {
            acceptor: acceptor.transpose()?,
            hosts: AllowedHosts::new(&api.hosts),
        })
    }
}

/// Returns the fingerprint of the key by which clients with `remoteKey` know this server; makes the key
/// if the server has a `stateDir` and no certificate. `None` without both.
pub fn fingerprint(config: &config::ServerConfig) -> io::Result<Option<Fingerprint>> {
    let identity = settings::identity(config)?;
    identity
        .as_ref()
        .map(ServerIdentity::fingerprint)
        .transpose()
}

/// Checks whether the files that `config` names can be used. The error names the one that cannot.
pub fn check(config: &config::ServerConfig) -> io::Result<()> {
    let identity = settings::present_identity(config)?;
    if let Some(path) = &config.client_ca {
        // Without an identity so far, there is no acceptor that would read it.
        tls::check_client_ca(path)?;
    }
    for user in &config.users {
        let file = user.client_ca.as_deref();
        file.map(tls::check_client_ca).transpose().map_err(|e| {
            let text = format!("clientCA of the user {}: {e}", user.id);
            io::Error::new(e.kind(), text)
        })?;
    }
    Settings::new(config, identity, &Arc::default(), None)?;
    config.api.as_ref().map(ApiPlan::new).transpose()?;
    Ok(())
}

impl ServerPlan {
    /// Plans how to apply `config` to a `running` server, or to a new one, and changes nothing yet.
    /// The error names the listener or file that cannot be used.
    pub fn new(
        config: &config::ServerConfig,
        file: &Option<PathBuf>,
        running: Option<&Server>,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let state = running.map(|server| &server.state);
        let first_secrets = state.map_or_else(Arc::default, |state| state.first_secrets.clone());
        let before = state.map(|state| state.settings.get());
        let settings = Settings::with_logs(config, &first_secrets, before.as_deref())?;
        let api = config.api.as_ref().map(ApiPlan::new).transpose()?;
        let now = running.map(Server::listeners);
        let listeners = listeners::plan(config, file, now.as_deref(), inherited)?;
        let quic = running.map(Server::quic);
        let quic = quic::QuicPlan::new(config, file, quic.as_deref(), inherited)?;
        let stun = running.map(Server::stun);
        let stun = stun::StunPlan::new(config, file, stun.as_deref(), inherited)?;
        let restored = RestoredClients::take(inherited, file);
        if !restored.is_empty() {
            users::check_restart(config)?;
        }
        Ok(Self {
            settings,
            first_secrets,
            listeners,
            quic,
            stun,
            api,
            reconnect: (config.reconnect_times, config.reconnect_duration),
            connection_limits: (config.address_connections, config.total_connections),
            restored,
        })
    }
}

impl Server {
    /// Starts the server. Fails if the system has no random numbers.
    pub fn start(plan: ServerPlan) -> io::Result<Self> {
        let (times, duration) = plan.reconnect;
        let auth_lockout = AuthLockout::new(times, duration);
        let state = Arc::new(ServerState::new(
            plan.settings,
            plan.first_secrets,
            auth_lockout,
        )?);
        state
            .connection_limit
            .set(plan.connection_limits.0, plan.connection_limits.1);
        plan.restored.restore(&state);
        state.settings.get().log_fingerprint(None);
        let bbr = state.settings.get().bbr;
        let mut listeners = Listeners::default();
        listeners.change(plan.listeners, bbr, |open, front| {
            accept(&state, open, front, &plan.api)
        });
        let mut quic = Quic::default();
        quic.change(plan.quic, &state)?;
        let mut stun = Stun::default();
        stun.change(plan.stun, &state);
        Acme::start(&state);
        Ok(Self {
            state,
            listeners: Mutex::new(listeners),
            quic: Mutex::new(quic),
            stun: Mutex::new(stun),
        })
    }

    /// Lists visitors no longer: no page shows the server.
    #[cfg(feature = "web")]
    pub fn hide(&self) {
        self.state.live_visitors.watch(false);
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock()
    }

    fn quic(&self) -> MutexGuard<'_, Quic> {
        self.quic.lock()
    }

    fn stun(&self) -> MutexGuard<'_, Stun> {
        self.stun.lock()
    }

    /// Applies another configuration. Tunnels whose client may no longer connect are closed; all
    /// other connections stay.
    pub fn change(&self, plan: ServerPlan) {
        let state = &self.state;
        let (times, duration) = plan.reconnect;
        state.auth_lockout.set(times, duration);
        state
            .connection_limit
            .set(plan.connection_limits.0, plan.connection_limits.1);
        let before = state.settings.get().fingerprint;
        state.settings.replace(plan.settings);
        state.acme.notify();
        state.settings.get().log_fingerprint(before);
        net::spawn(settings::announce(state.registry.tunnels()));
        let bbr = state.settings.get().bbr;
        self.listeners().change(plan.listeners, bbr, |open, front| {
            accept(state, open, front, &plan.api)
        });
        state.registry.set_bbr(bbr);
        if let Err(e) = self.quic().change(plan.quic, state) {
            log::error!("quicAddr: {e}");
        }
        self.stun().change(plan.stun, state);
    }

    /// Returns the sockets and state to hand over to the child process.
    pub fn export(&self) -> Vec<Outgoing> {
        let mut items = self.listeners().share();
        items.extend(self.quic().share());
        items.extend(self.stun().share());
        items.extend(restored_clients::export(&self.state));
        items
    }

    /// Cancels a handover: the child process has failed.
    pub fn cancel_handover(&self) {
        self.state.registry.unshare_ports();
    }

    /// Returns the handler of messages from other processes.
    pub fn recipient(&self) -> Recipient {
        Recipient::new(self.state.clone())
    }

    /// Sets the link to the parent process, which drains.
    pub fn set_parent(&self, parent: ProcessLink) {
        self.state.transfer.set_parent(parent);
    }

    /// Drains the server after a child process has taken over its listeners: asks clients to
    /// reconnect, and moves the tunnels of those that cannot over the link. Returns when
    /// everything has ended, at the latest after `patience`.
    pub async fn drain(&self, patience: Duration, child: Option<ProcessLink>) {
        let state = &self.state;
        let deadline = clock::now() + patience;
        let has_link = child.is_some();
        if let Some(child) = child {
            state.transfer.set_child(child);
        }
        self.stop_accepting();
        match has_link {
            true => state.registry.close_ports_of_moved_clients(),
            false => state.registry.close_ports(),
        }
        for (id, secret) in state.registry.held() {
            state.announce(&id, secret).await;
        }
        for tunnel in state.registry.tunnels() {
            match tunnel.version() {
                Version::Two => tunnel.signal(Signal::Reconnect),
                // All versions of the original treat this signal as an error.
                Version::One if has_link => {}
                Version::One => tunnel.close(),
            }
        }
        // Closing a tunnel at once would leave its client without one for a moment.
        let idle = async {
            state.handshakes.idle().await;
            state.serving.idle().await;
        };
        timeout(RECONNECT_TIMEOUT.min(patience), idle).await;
        // These visitors find their clients only in this process.
        timeout(
            HANDSHAKE_DRAIN_TIMEOUT.min(patience),
            state.handshakes.idle(),
        )
        .await;
        if has_link {
            self.wait_for_staying_tunnels(deadline).await;
        }
        self.close(deadline.saturating_duration_since(clock::now()))
            .await;
    }

    /// Waits until the tunnels that stay here or in the parent process have moved or ended. Shortly
    /// before the deadline, it cuts their streams.
    async fn wait_for_staying_tunnels(&self, deadline: Instant) {
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
            state.transfer.parent_ended().await;
            state.serving.idle().await;
        };
        let let_go = deadline.checked_sub(STREAM_CUT_NOTICE).unwrap_or(deadline);
        if timeout_at(let_go, gone()).await.is_some() {
            return;
        }
        state.release_all().await;
        if timeout_at(deadline, gone()).await.is_none() {
            stay().for_each(|tunnel| tunnel.cut_streams());
            timeout(MOVE_TIMEOUT, gone()).await;
        }
    }

    /// Waits until this draining server has no more messages for the other process: no tunnel is
    /// left here or in the parent process, and no visitor waits to be forwarded.
    pub async fn transfer_finished(&self) {
        let state = &self.state;
        state.stop.wait().await;
        state.transfer.parent_ended().await;
        state.registry.all_moved().await;
        state.handshakes.idle().await;
    }

    /// Waits until every accepted visitor has been forwarded.
    pub async fn visitors_forwarded(&self, patience: Duration) {
        timeout(patience, self.state.handshakes.idle()).await;
    }

    /// Stops accepting and lets connections finish. Returns when they have, at the latest after
    /// `patience`.
    pub async fn stop(&self, patience: Duration) {
        let deadline = clock::now() + patience;
        self.stop_accepting();
        self.state.registry.close_ports();
        // A request that has come already is served; many connections never send one.
        let coming = self.state.handshakes.idle();
        timeout(HANDSHAKE_STOP_TIMEOUT.min(patience), coming).await;
        self.close(deadline.saturating_duration_since(clock::now()))
            .await;
    }

    fn stop_accepting(&self) {
        self.state.stop.trigger();
        // Their sessions look for a process to move to.
        self.state
            .registry
            .tunnels()
            .iter()
            .for_each(Tunnel::notify);
        // Another process, or this one later, may listen at the same addresses.
        *self.listeners() = Listeners::default();
        *self.quic() = Quic::default();
        *self.stun() = Stun::default();
    }

    /// Lets visitors finish that are served here or over a bridge to another process, and cuts those
    /// that have not after `patience`.
    pub async fn close(&self, patience: Duration) {
        for tunnel in self.state.registry.tunnels() {
            tunnel.close();
        }
        timeout(patience, self.state.serving.idle()).await;
        for tunnel in self.state.registry.tunnels() {
            tunnel.finish();
        }
        // Peers should see a reset, which the end of the process would not send.
        timeout(CLOSE_TIMEOUT, self.state.serving.idle()).await;
    }
}

/// Spawns the tasks that accept on a listener, for visitors one on each executor thread.
fn accept(state: &Arc<ServerState>, open: &OpenListener, front: Front, api: &Option<ApiPlan>) {
    let socket = || (open.listener.clone(), open.stop.clone());
    match (open.purpose, api) {
        (Purpose::Visitors(kind), _) => {
            for thread in ShardId::all() {
                let (listener, stop) = socket();
                net::spawn_on(thread, accept_visitors(state.clone(), listener, stop, kind));
            }
        }
        (Purpose::Api, Some(plan)) => {
            let (acceptor, hosts) = (plan.acceptor.clone(), plan.hosts.clone());
            match Api::new(state.clone(), acceptor, hosts, front) {
                Ok(api) => {
                    let (listener, stop) = socket();
                    net::spawn(api.accept(listener, stop));
                }
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
    kind: ListenerKind,
) {
    // A server that stops waits for what has come so far.
    let _coming = state.handshakes.begin();
    let accepting = async {
        loop {
            serve_visitor(&state, listener.accept().await, kind);
        }
    };
    state.stop.or(stop.or::<()>(accepting)).await;
    // A child process accepts those that wait. Without one, the close would reset them.
    if state.transfer.child().is_none() {
        for visitor in listener.waiting() {
            serve_visitor(&state, visitor, kind);
        }
    }
}

/// Spawns the task of a new connection.
fn serve_visitor(
    state: &Arc<ServerState>,
    (socket, peer): (Socket, SocketAddr),
    kind: ListenerKind,
) {
    let state = state.clone();
    let settings = state.settings.get();
    if settings.accepts_proxy_header(peer.ip()) {
        let handshake = state.handshakes.begin();
        net::spawn(async move {
            if let Some(accepted) = proxy_header::introduce(&state, socket, peer).await {
                serve_accepted(state, accepted, kind);
            }
            drop(handshake);
        });
        return;
    }
    if let Some(permit) = state.connection_limit.take(peer.ip()) {
        let accepted = AcceptedConn {
            socket,
            peer,
            origin: None,
            permit,
        };
        serve_accepted(state, accepted, kind);
    }
}

fn serve_accepted(state: Arc<ServerState>, accepted: AcceptedConn, kind: ListenerKind) {
    match state.settings.get().acceptor.clone() {
        Some(acceptor) if kind == ListenerKind::Https => {
            net::spawn(sniff::serve_tls(state, accepted, acceptor));
        }
        _ => net::spawn(sniff::serve_connection(state, accepted, kind)),
    }
}
