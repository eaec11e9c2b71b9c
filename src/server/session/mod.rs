//! One tunnel's life on the server: hello, registration, signals, end.

mod changes;
mod leaving;

use super::auth_api::{AuthApi, GrantedPrefixes};
use super::handshake::{LoginRejection, VerifiedHello};
use super::incoming::Incoming;
use super::login::{admit, all, refuse, Authenticated};
use super::registry::{Login, LoginProof, Registration};
use super::settings::Settings;
use super::users::{Admission, LoginVerdict};
use super::{ports, visitor, ServerState};
use crate::handover::MovedTunnel;
use crate::net::{timeout, Conn, Socket, TaskGuard};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::{self, Event, Inbox, PeerRole, Policy, Tunnel, DELIVERY_TIMEOUT};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::{Hello, HelloReader, ServiceSpec};
use crate::wire::Version;
use async_std::channel::{self, Sender};
use futures_lite::future;
use leaving::{LeaveResult, MOVE_RETRY_INTERVAL};
use log::Level;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A client of GT/2 that was silent for this part of the timeout is asked for a sign of life.
const PINGS_PER_TIMEOUT: u32 = 3;
/// A visitor that begins while its client is silent waits this long for a sign of life before
/// the tunnel is taken for dead. The limit is 10 s, and it is looked at every half second.
const BLACK_HOLE_TIMEOUT: Duration = Duration::from_secs(8);

/// Why a tunnel has ended that both sides wanted to end.
const IN_GOOD_ORDER: &str = "in good order";
/// How long the tunnels of a client may take to answer when another one would be too many.
const SIGN_OF_LIFE_TIMEOUT: Duration = Duration::from_secs(2);
/// A tunnel that takes no more streams and has none is ended after this time if its client does
/// not end it.
const DRAINED_TIMEOUT: Duration = Duration::from_secs(5);

/// Changes of services that wait for the authAPI, at most.
const MAX_CHANGES: usize = 4;

/// Lets a client in and serves its tunnel, or tells it why not. There is nothing that it has
/// `met` if the time is over.
pub async fn serve(
    caller: Incoming,
    conn: Arc<Conn>,
    version: Version,
    met: Option<VerifiedHello>,
) {
    let Incoming {
        state,
        rules,
        peer,
        head: rest,
        greeting,
        place: _place,
        ..
    } = caller;
    let met = met.unwrap_or(Err(LoginRejection::Silent));
    let greeted = match met {
        Ok((hello, verdict)) => admit(&state, peer, hello, verdict).await,
        Err(rejected) => Err(rejected),
    };
    let _serving = state.serving.begin();
    let connection = Connection {
        conn,
        peer,
        version,
        rest,
        origin: Origin::Client,
        greeting,
    };
    begin(state, rules, connection, greeted).await;
}

/// Goes on with a tunnel that another process has served.
pub async fn adopt(state: Arc<ServerState>, moved: MovedTunnel, socket: Socket) {
    let (_serving, greeting) = (state.serving.begin(), state.greeting.begin());
    let (Some(hello), Ok(peer)) = (read_registration(&moved.hello), socket.peer_addr()) else {
        return log::warn!("a tunnel of another process is of no use, it is closed");
    };
    let _place = state.places.take(peer.ip());
    let rules = state.rules.get();
    let verdict = rules.users.check_login(&hello.id, &hello.secret);
    let greeted = admit(&state, peer, hello, verdict).await;
    let connection = Connection {
        conn: Arc::new(socket.into()),
        peer,
        version: Version::One,
        rest: moved.unread,
        origin: match moved.is_ready {
            true => Origin::Process {
                last_task: moved.last_stream,
            },
            false => Origin::Client,
        },
        greeting,
    };
    begin(state, rules, connection, greeted).await;
}

fn read_registration(bytes: &[u8]) -> Option<Hello> {
    let (mut reader, mut used) = (HelloReader::registration(), 0);
    loop {
        // It stops behind the credentials once.
        let n = reader.feed(bytes.get(used..)?).ok()?;
        used += n;
        match reader.finish() {
            Ok(hello) => return Some(hello),
            Err(_) if n == 0 => return None,
            Err(unfinished) => reader = unfinished,
        }
    }
}

/// A connection whose client has said hello.
struct Connection {
    conn: Arc<Conn>,
    peer: SocketAddr,
    version: Version,
    /// What has been read behind the hello.
    rest: Vec<u8>,
    origin: Origin,
    /// Until it is known where the tunnel is served.
    greeting: TaskGuard,
}

/// Where a tunnel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Its client waits to be told that it is ready.
    Client,
    /// Another process has served it; this was its last stream's id.
    Process { last_task: u32 },
}

/// Serves the tunnel of a client that may come in, or tells it why it may not.
async fn begin(
    state: Arc<ServerState>,
    rules: Arc<Settings>,
    connection: Connection,
    greeted: Result<Authenticated, LoginRejection>,
) {
    let Connection {
        conn,
        peer,
        version,
        rest,
        origin,
        greeting,
    } = connection;
    let greeting = greeted.is_ok().then_some(greeting);
    match greeted {
        Ok(greeted) => {
            if greeted.admission.trust() == LoginProof::Known {
                state.guard.succeeded(peer.ip());
            }
            let shortest = rules.timeout.unwrap_or(Duration::from_secs(60));
            let speed = state.speeds.of(&greeted.id, greeted.admission.limits.speed);
            let policy = Policy {
                speed: Some(speed),
                credit: greeted.window,
                ..Policy::new(version, PeerRole::Client, shortest)
            };
            let (tunnel, inbox) = Tunnel::new(conn, rest, policy);
            let session = ServerSession {
                state,
                peer,
                id: greeted.id,
                secret: greeted.secret,
                guest: greeted.admission.guest,
                standing: Mutex::new(AuthState {
                    rules,
                    admission: greeted.admission,
                    judge: greeted.judge,
                    asked: greeted.asked,
                    judging: 0,
                }),
                tunnel,
            };
            session.run(greeted.offers, inbox, origin, greeting).await;
        }
        Err(LoginRejection::Silent) => log::debug!("{peer}: the hello of a tunnel did not come"),
        Err(LoginRejection::TooLate) => log::debug!("{peer}: the server's look at itself is over"),
        Err(LoginRejection::Malformed(e)) => log::debug!("{peer}: bad hello: {e}"),
        Err(LoginRejection::Unheard(why)) => {
            state.counters.refused(RejectCode::BadCredentials);
            log::debug!("{peer}: a tunnel is refused: {why}");
            refuse(&conn, version, RejectCode::BadCredentials).await;
        }
        Err(LoginRejection::LockedOut(left)) => {
            let whole = left.as_secs();
            let seconds = whole.saturating_add(u64::from(left.subsec_nanos() > 0));
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            let refusal = RejectCode::LockedOut(seconds);
            state.counters.refused(refusal);
            log::debug!(
                "{peer}: a tunnel is refused: its address failed to authenticate too often, \
                 {seconds} s left"
            );
            refuse(&conn, version, refusal).await;
        }
        Err(LoginRejection::Refused(id, refusal)) => {
            state.counters.refused(refusal);
            log::warn!("refused a client id={id} addr={peer}: {refusal}");
            if refusal == RejectCode::BadCredentials {
                state.guard.failed(peer.ip());
            }
            refuse(&conn, version, refusal).await;
        }
    }
}

struct ServerSession {
    state: Arc<ServerState>,
    peer: SocketAddr,
    id: Box<str>,
    secret: Box<[u8]>,
    /// It is the server itself.
    guest: bool,
    standing: Mutex<AuthState>,
    tunnel: Tunnel,
}

/// What the client owes its tunnel to.
struct AuthState {
    rules: Arc<Settings>,
    admission: Admission,
    /// Who has admitted it if the configuration did not, and the prefixes it may have.
    judge: Option<(Arc<AuthApi>, GrantedPrefixes)>,
    /// All that it asked for, where that had to be judged.
    asked: Vec<ServiceSpec>,
    /// Changes of what it asks for that are being judged.
    judging: usize,
}

/// Why a tunnel is not served here any more.
enum TunnelEnd {
    /// It has ended: why.
    Ended(String),
    /// It goes on in another process.
    Moves(MovedTunnel, OwnedFd),
}

impl ServerSession {
    fn auth(&self) -> MutexGuard<'_, AuthState> {
        self.standing.lock()
    }

    /// Calls `act` with what the client may have now.
    fn as_login<T>(&self, act: impl FnOnce(&Login<'_>) -> T) -> T {
        let (rules, limits, trust) = {
            let standing = self.auth();
            let admission = &standing.admission;
            let limits = admission.limits.clone();
            (standing.rules.clone(), limits, admission.trust())
        };
        act(&Login {
            id: &self.id,
            limits: &limits,
            rules: &rules,
            trust,
            peer: self.peer,
        })
    }

    async fn run(
        self,
        offers: Vec<Option<ServiceSpec>>,
        mut inbox: Inbox,
        origin: Origin,
        greeting: Option<TaskGuard>,
    ) {
        let (id, peer, guest) = (&self.id, self.peer, self.guest);
        let registry = &self.state.registry;
        let level = if guest { Level::Debug } else { Level::Info };
        if self.state.stop.is_triggered() {
            self.refuse_after_stop(offers, inbox, origin).await;
            return drop(greeting);
        }
        drop(greeting);
        let joined = match origin {
            Origin::Client => Box::pin(self.join(offers)).await,
            Origin::Process { last_task } => {
                let registration = Registration { offers, last_task };
                self.as_login(|login| registry.adopt(login, registration, &self.tunnel))
            }
        };
        match joined {
            Ok(opened) => self.serve_ports(opened),
            Err(refusal) => {
                self.auth().admission.give_up();
                self.state.counters.refused(refusal);
                log::warn!("refused a tunnel id={id} addr={peer}: {refusal}");
                self.tunnel.signal(Signal::Error(refusal));
                return self.close_tunnel(inbox, false).await;
            }
        }
        match origin {
            Origin::Client => log::log!(level, "tunnel opened id={id} addr={peer}"),
            Origin::Process { .. } => log::info!("tunnel taken over id={id} addr={peer}"),
        }
        let judged = self.auth().judge.is_some();
        let end = if judged {
            let (changes, queue) = channel::bounded(MAX_CHANGES);
            let listening = self.run_tunnel(&mut inbox, Some(changes));
            let ending = future::or(self.review_changes(queue), self.follow_settings());
            future::or(listening, async { TunnelEnd::Ended(ending.await) }).await
        } else {
            let listening = self.run_tunnel(&mut inbox, None);
            let ending = self.follow_settings();
            future::or(listening, async { TunnelEnd::Ended(ending.await) }).await
        };
        let why = match end {
            TunnelEnd::Ended(why) => {
                self.tunnel.finish();
                Some(why)
            }
            TunnelEnd::Moves(moved, socket) => {
                self.send_away(moved, socket).await;
                None
            }
        };
        registry.tunnel_ended(id, &self.tunnel);
        self.state.settle(id).await;
        self.auth().admission.give_up();
        match why {
            Some(why) => {
                log::log!(level, "tunnel closed id={id} addr={peer}: {why}");
                self.close_tunnel(inbox, why == IN_GOOD_ORDER).await;
            }
            None => log::info!("tunnel goes on in another process id={id} addr={peer}"),
        }
    }

    /// Registers the tunnel. If others of its client are in its way, these have to answer first,
    /// and those that do not are replaced: the client is back before the server has noticed that
    /// it was gone.
    async fn join(
        &self,
        offers: Vec<Option<ServiceSpec>>,
    ) -> Result<Vec<ports::OpenedPort>, RejectCode> {
        let (id, registry) = (&self.id, &self.state.registry);
        let join = |offers| self.as_login(|login| registry.register(login, offers, &self.tunnel));
        let refusal = match join(offers.clone()) {
            Err(refusal @ (RejectCode::TooManyConnections | RejectCode::OtherClientConnected)) => {
                refusal
            }
            decided => return decided,
        };
        let gone = tunnel::find_dead(
            registry.tunnels_in_the_way(id, refusal),
            SIGN_OF_LIFE_TIMEOUT,
        )
        .await;
        if gone.is_empty() || self.state.stop.is_triggered() {
            return Err(refusal);
        }
        for tunnel in &gone {
            tunnel.abort("it gave no sign of life when its client came back");
            if refusal == RejectCode::OtherClientConnected {
                registry.tunnel_ended(id, tunnel);
            }
        }
        join(offers)
    }

    /// Goes with the rules as they change. Says why if the tunnel is to end.
    async fn follow_settings(&self) -> String {
        if self.guest {
            return future::pending().await;
        }
        loop {
            let known = self.auth().rules.clone();
            let rules = self.state.rules.changed(&known).await;
            drop(known);
            if let Err(why) = self.reauthorize(rules) {
                self.state.counters.refused(RejectCode::BadCredentials);
                self.tunnel
                    .signal(Signal::Error(RejectCode::BadCredentials));
                return why.to_owned();
            }
        }
    }

    /// The error says why the client may not be here any more.
    fn reauthorize(&self, rules: Arc<Settings>) -> Result<(), &'static str> {
        let verdict = rules.users.check_login(&self.id, &self.secret);
        let mut standing = self.auth();
        standing.rules = rules;
        match verdict {
            LoginVerdict::Admitted(admission) => {
                standing.admission = admission;
                standing.judge = None;
            }
            LoginVerdict::Ask(api, limits) => {
                // What the API has granted it keeps as long as the tunnel lives.
                let grant = standing.judge.take();
                let (_, grant) = grant.ok_or("from now on the authAPI decides about it")?;
                standing.judge = Some((api, grant));
                standing.admission = Admission::new(limits);
            }
            LoginVerdict::Refused => return Err("the new configuration does not let it in"),
        }
        let speed = standing.admission.limits.speed;
        drop(standing);
        self.state.speeds.of(&self.id, speed);
        let held = self.as_login(|login| self.state.registry.enforce(login));
        if let Err(refusal) = held {
            log::warn!(
                "the new configuration does not give id={} what it has, its tunnels drain: \
                 {refusal}",
                self.id
            );
        }
        Ok(())
    }

    /// Acts on what the client says until the tunnel ends, or leaves this process. Changes of
    /// services go to `changes` if somebody has to be asked about them.
    async fn run_tunnel(
        &self,
        inbox: &mut Inbox,
        changes: Option<Sender<Vec<ServiceSpec>>>,
    ) -> TunnelEnd {
        let registry = &self.state.registry;
        let mut pinged = Instant::now();
        let mut drained = None;
        // Only clients that cannot be asked to come back have to be taken there.
        let stays = self.tunnel.version() == Version::One && !self.guest;
        let mut leaving = stays.then(|| Box::pin(self.may_leave(Duration::ZERO)));
        loop {
            let event = {
                let leaving = async {
                    match &mut leaving {
                        Some(leaving) => leaving.await,
                        None => future::pending().await,
                    }
                    None
                };
                let next = async { Some(inbox.next().await) };
                future::or(next, leaving).await
            };
            let Some(event) = event else {
                match self.leave(inbox).await {
                    LeaveResult::Moves(moved, socket) => return TunnelEnd::Moves(moved, socket),
                    LeaveResult::Closes => {
                        registry.changed();
                        leaving = None;
                    }
                    LeaveResult::Stays => {
                        leaving = Some(Box::pin(self.may_leave(MOVE_RETRY_INTERVAL)))
                    }
                }
                continue;
            };
            match event {
                Event::Ping if registry.is_current(&self.id, &self.tunnel) => {
                    self.tunnel.signal(Signal::Ping);
                }
                Event::Ping => self.tunnel.signal(Signal::Close),
                Event::Services(Some(hello)) => {
                    if hello.id != self.id || hello.secret != self.secret {
                        return TunnelEnd::Ended(self.refuse_change(RejectCode::BadCredentials));
                    }
                    match &changes {
                        None => self.apply_change(all(hello.offers)).await,
                        Some(changes) if changes.try_send(hello.offers).is_ok() => {
                            self.auth().judging += 1;
                        }
                        Some(_) => {
                            return TunnelEnd::Ended(self.refuse_change(RejectCode::TooManyOptions))
                        }
                    }
                }
                Event::Tick => {
                    // Its own pings wait behind all that it has sent: it would give up.
                    if inbox.is_held_back() {
                        self.tunnel.signal(Signal::Ping);
                    }
                    if let Some(why) = self.death_reason(inbox.silence(), &mut pinged) {
                        return TunnelEnd::Ended(why);
                    }
                    let stopped = self.state.stop.is_triggered();
                    if self.tunnel.is_open() || self.tunnel.streams() > 0 || stopped {
                        drained = None;
                    } else if drained.get_or_insert_with(Instant::now).elapsed() >= DRAINED_TIMEOUT
                    {
                        let why = "it has no streams, and its client does not close it";
                        return TunnelEnd::Ended(why.to_owned());
                    }
                    if !stopped && registry.is_retry_due(&self.id) {
                        self.serve_ports(self.as_login(|login| registry.retry_ports(login)));
                    }
                }
                Event::End(Ok(())) => return TunnelEnd::Ended(IN_GOOD_ORDER.to_owned()),
                Event::End(Err(e)) => return TunnelEnd::Ended(e.to_string()),
                // It takes no more visitors.
                Event::Close => self.state.settle(&self.id).await,
                // A client has no business with the other signals, and they do no harm.
                Event::Signal(_) | Event::Services(None) | Event::Opened(..) => {}
            }
        }
    }

    /// Says why a client that has been silent for this long is taken for gone, if it is; asks
    /// it for a sign of life before.
    fn death_reason(&self, silence: Duration, pinged: &mut Instant) -> Option<String> {
        let (unidirectional, timeout) = {
            let rules = &self.auth().rules;
            (rules.unidirectional, rules.timeout)
        };
        let timeout = timeout?;
        let tunnel = &self.tunnel;
        let answers = tunnel.version() == Version::Two;
        // A client of GT/1 that only receives, as in an upload, has nothing to say. One of GT/2
        // answers pings.
        let silent = answers || unidirectional;
        let since = if silent {
            silence
        } else {
            silence.min(tunnel.sent())
        };
        if since >= timeout {
            return Some(format!("nothing was heard for {silence:?}"));
        }
        if tunnel.is_black_hole(BLACK_HOLE_TIMEOUT) {
            return Some(format!(
                "nothing was heard for {silence:?} while visitors wait"
            ));
        }
        let pause = timeout / PINGS_PER_TIMEOUT;
        if answers && silence >= pause && pinged.elapsed() >= pause {
            *pinged = Instant::now();
            tunnel.ping();
        }
        None
    }

    fn serve_ports(&self, opened: Vec<ports::OpenedPort>) {
        for port in opened {
            log::info!("Listening TCP id={} addr={}", self.id, port.listener.addr());
            crate::spawn(visitor::accept_port(
                self.state.clone(),
                self.id.clone(),
                port,
            ));
        }
    }

    /// Sends what is left to say and lets the client read it: all of it, if the tunnel has ended
    /// in good order. A client that does not read can hold as many such tunnels as it may have
    /// (connections), which do not count any more.
    async fn close_tunnel(&self, mut inbox: Inbox, orderly: bool) {
        self.tunnel.finish();
        let flushed = async { while !matches!(inbox.next().await, Event::End(_)) {} };
        timeout(CLOSE_TIMEOUT, flushed).await;
        if orderly {
            let most = self.auth().admission.limits.connections;
            let linger = self.state.lingering.begin(&self.id, most);
            let reading = inbox.conn().linger_for(DELIVERY_TIMEOUT, usize::MAX);
            linger.is_over.or(reading).await;
        } else {
            inbox.conn().linger(CLOSE_TIMEOUT).await;
        }
    }
}
