//! One tunnel's life on the server: hello, registration, signals, end.

use super::auth_api::{AuthApi, AuthDecision, GrantedPrefixes};
use super::registry::{Login, LoginProof, Registration};
use super::self_test::LoginOrigin;
use super::settings::Settings;
use super::users::{Admission, LoginVerdict};
use super::visitor::{self, Incoming};
use super::{ports, ServerState};
use crate::config::Secret;
use crate::handover::MovedTunnel;
use crate::net::{timeout, Conn, Socket, TaskGuard};
use crate::tunnel::{self, Event, Inbox, PeerRole, Policy, Tunnel, DELIVERY_TIMEOUT};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::{self, Hello, HelloReader, ServiceSpec};
use crate::wire::{Malformed, Version};
use async_io::Timer;
use async_std::channel::{self, Receiver, Sender};
use futures_lite::future;
use log::Level;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a client has for reading a refusal.
const REFUSAL_READ_TIMEOUT: Duration = Duration::from_secs(15);
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

/// Longest hello that is held before its credentials have been judged.
const MAX_UNJUDGED: usize = 16 * 1024;
/// Changes of services that wait for the authAPI, at most.
const MAX_CHANGES: usize = 4;

/// A tunnel whose magic and version have been read, and whose hello is being read.
pub struct Handshake {
    version: Version,
    reader: Option<HelloReader>,
    /// Bytes that have been used.
    length: usize,
    /// What has been found about its credentials.
    verdict: Option<LoginVerdict>,
}

/// A hello, and what is to be thought of it as far as that is known without asking.
pub type VerifiedHello = Result<(Hello, LoginVerdict), LoginRejection>;

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

/// A client that may come in.
struct Authenticated {
    id: Box<str>,
    secret: Box<[u8]>,
    admission: Admission,
    /// Who has admitted it if the configuration did not, and the prefixes it may have.
    judge: Option<(Arc<AuthApi>, GrantedPrefixes)>,
    offers: Vec<Option<ServiceSpec>>,
    /// All that it asked for, where that had to be judged.
    asked: Vec<ServiceSpec>,
    /// What may go on a new stream before the client gives credit.
    window: u32,
}

pub enum LoginRejection {
    /// It did not come in time, or not at all.
    Silent,
    /// The server's own, whose look at itself is over.
    TooLate,
    Malformed(Malformed),
    Refused(Box<str>, RejectCode),
    /// As if it had bad credentials, whatever they are.
    Unheard(&'static str),
    /// Its address has failed to authenticate too often, and is refused for so long.
    LockedOut(Duration),
}

impl Handshake {
    pub fn new(version: Version) -> Self {
        Self {
            version,
            reader: Some(HelloReader::new(version)),
            length: 0,
            verdict: None,
        }
    }

    /// Reads the hello, and judges its credentials as far as that is possible without asking.
    pub async fn read_hello(&mut self, caller: &mut Incoming, conn: &Conn) -> VerifiedHello {
        if self.version == Version::Two {
            // The client learns from it that it need not try GT/1, whatever becomes of the login. In a
            // box, since every client that has not said who it is would hold the place for it.
            let answered = Box::pin(async { conn.write_all(&hello::answer()).await }).await;
            answered.map_err(|_| LoginRejection::Silent)?;
        }
        let state = &caller.state;
        // The server's own look at itself may come from the same address.
        let lockout = state.guard.lockout(caller.peer.ip());
        if let Some(left) = lockout.filter(|_| !state.guest.is_expected()) {
            return Err(LoginRejection::LockedOut(left));
        }
        loop {
            if let Some(met) = self.step(caller)? {
                return Ok(met);
            }
            match visitor::read_more(conn, &mut caller.head, 1024).await {
                Ok(1..) => {}
                _ => return Err(LoginRejection::Silent),
            }
        }
    }

    /// Uses what has been read. The credentials are judged before the rest is held.
    fn step(
        &mut self,
        caller: &mut Incoming,
    ) -> Result<Option<(Hello, LoginVerdict)>, LoginRejection> {
        let (state, rules, peer) = (&caller.state, &caller.rules, caller.peer);
        loop {
            let Some(reader) = &mut self.reader else {
                return Err(LoginRejection::Silent);
            };
            let fed = reader.feed(&caller.head);
            let who = reader.credentials();
            let id = || who.map_or("", |who| who.id).into();
            let used = fed.map_err(|e| match (&self.verdict, e) {
                (Some(_), Malformed::TooManyOptions) => {
                    LoginRejection::Refused(id(), RejectCode::TooManyOptions)
                }
                _ => LoginRejection::Malformed(e),
            })?;
            self.length = self.length.saturating_add(used);
            if self.length > MAX_UNJUDGED && matches!(self.verdict, Some(LoginVerdict::Ask(..))) {
                return Err(LoginRejection::Refused(id(), RejectCode::TooManyOptions));
            }
            caller.head.drain(..used.min(caller.head.len()));
            if caller.head.is_empty() {
                // The reader holds what is not whole.
                caller.head = Vec::new();
            }
            if let (None, Some(who)) = (&self.verdict, who) {
                let judged = match state.guest.origin_of(who.id, who.secret) {
                    LoginOrigin::Guest(admission) => LoginVerdict::Admitted(admission),
                    LoginOrigin::TooLate => return Err(LoginRejection::TooLate),
                    // Others that came with this one may have failed meanwhile.
                    LoginOrigin::SomebodyElse => match state.guard.lockout(peer.ip()) {
                        Some(left) => return Err(LoginRejection::LockedOut(left)),
                        None => rules.users.check_login(who.id, who.secret),
                    },
                };
                if matches!(judged, LoginVerdict::Refused) {
                    return Err(LoginRejection::Refused(
                        who.id.into(),
                        RejectCode::BadCredentials,
                    ));
                }
                self.verdict = Some(judged);
                // There may be more of it already.
                continue;
            }
            match self.reader.take().map(HelloReader::finish) {
                Some(Ok(hello)) => {
                    let verdict = self.verdict.take().ok_or(LoginRejection::Silent)?;
                    return Ok(Some((hello, verdict)));
                }
                Some(Err(unfinished)) => self.reader = Some(unfinished),
                None => {}
            }
            return Ok(None);
        }
    }
}

/// Asks about the credentials where that is needed.
async fn admit(
    state: &ServerState,
    peer: SocketAddr,
    hello: Hello,
    verdict: LoginVerdict,
) -> Result<Authenticated, LoginRejection> {
    let Hello {
        id,
        secret,
        offers,
        window,
    } = hello;
    let mut asked = Vec::new();
    let (admission, judge, offers) = match verdict {
        LoginVerdict::Admitted(admission) => (admission, None, all(offers)),
        LoginVerdict::Ask(api, limits) => {
            let judging = Box::pin(api.judge(&id, &secret, &offers));
            let judgement = judging.await;
            if let Some(left) = state.guard.lockout(peer.ip()) {
                // Others that were judged meanwhile have failed: it is not told of a success.
                return Err(LoginRejection::LockedOut(left));
            }
            match judgement {
                AuthDecision::Granted(grant) => {
                    asked = offers.clone();
                    let offers = grant.of(&id, offers);
                    (Admission::new(limits), Some((api, grant)), offers)
                }
                AuthDecision::Denied => {
                    return Err(LoginRejection::Refused(id, RejectCode::BadCredentials))
                }
                AuthDecision::Failed => {
                    return Err(LoginRejection::Unheard("the authAPI has failed"))
                }
            }
        }
        LoginVerdict::Refused => {
            return Err(LoginRejection::Refused(id, RejectCode::BadCredentials))
        }
    };
    Ok(Authenticated {
        id,
        secret,
        admission,
        judge,
        offers,
        asked,
        window,
    })
}

fn all(offers: Vec<ServiceSpec>) -> Vec<Option<ServiceSpec>> {
    offers.into_iter().map(Some).collect()
}

async fn refuse(conn: &Conn, version: Version, refusal: RejectCode) {
    let signal = version.encode(Signal::Error(refusal));
    let telling = async {
        if conn.write_all(signal.as_slice()).await.is_ok() {
            conn.linger(CLOSE_TIMEOUT).await;
        }
    };
    timeout(REFUSAL_READ_TIMEOUT, telling).await;
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

/// What has become of a tunnel that was to leave this process.
enum LeaveResult {
    Moves(MovedTunnel, OwnedFd),
    /// It ends here, and its client comes back to the newer process.
    Closes,
    /// It is in the middle of something.
    Stays,
}

/// Visitors that have ended their direction keep their streams for a little less than this after
/// the last answer.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// If they keep them for longer, so long other visitors are served before the next try.
const NEXT_TRY: Duration = Duration::from_secs(10);
/// How long it takes until a frame that has begun is whole.
const MOVE_RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl ServerSession {
    fn auth(&self) -> MutexGuard<'_, AuthState> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Sees off a client that has said hello while this server began to make way. What it wants to
    /// register may be another process's by now.
    async fn refuse_after_stop(
        &self,
        offers: Vec<Option<ServiceSpec>>,
        mut inbox: Inbox,
        origin: Origin,
    ) {
        log::debug!("{}: a tunnel of {} comes too late", self.peer, self.id);
        let checked = self.as_login(|login| self.state.registry.check_hosts(login, &offers));
        if let Err(refusal) = checked {
            // It is not told that it is ready under names that are another client's.
            self.state.counters.refused(refusal);
            self.tunnel.signal(Signal::Error(refusal));
            return self.close_tunnel(inbox, false).await;
        }
        let of_original = self.tunnel.version() == Version::One && !self.guest;
        if of_original && self.state.transfer.child().is_some() {
            future::poll_once(self.tunnel.park()).await;
            // Its writer has first to find that there is nothing to send.
            for _ in 0..10 {
                let registration = Registration {
                    offers: offers.clone(),
                    last_task: 0,
                };
                match self.take_tunnel(&mut inbox, registration, origin) {
                    Some(Ok((moved, socket))) => return self.send_away(moved, socket).await,
                    Some(Err(_)) => return,
                    None if inbox.is_movable() => Timer::after(MOVE_RETRY_INTERVAL).await,
                    None => break,
                };
            }
        }
        if origin == Origin::Client {
            self.tunnel.signal(Signal::Ready);
        }
        if self.tunnel.version() == Version::Two {
            self.tunnel.signal(Signal::Reconnect);
        }
        self.tunnel.close();
        self.close_tunnel(inbox, false).await;
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

    /// Gives the tunnel to the newer process.
    async fn send_away(&self, moved: MovedTunnel, socket: OwnedFd) {
        if !self.state.give_tunnel(&self.id, moved, socket).await {
            log::warn!("a tunnel of {} is lost, the new process is gone", self.id);
        }
    }

    /// Takes the tunnel out of this process, if it can be done now.
    fn take_tunnel(
        &self,
        inbox: &mut Inbox,
        registration: Registration,
        origin: Origin,
    ) -> Option<io::Result<(MovedTunnel, OwnedFd)>> {
        let Registration { offers, last_task } = registration;
        let offers = {
            let standing = self.auth();
            match standing.judge {
                Some(_) => standing.asked.clone(),
                None => offers.into_iter().collect::<Option<_>>()?,
            }
        };
        let taken = inbox.take_conn()?;
        let hello = Hello {
            id: self.id.clone(),
            secret: self.secret.clone(),
            offers,
            window: 0,
        };
        let (is_ready, last_task) = match origin {
            Origin::Client => (false, 0),
            Origin::Process { last_task: first } => (true, first.max(last_task)),
        };
        let moved = |(socket, unread)| {
            let moved = MovedTunnel {
                is_ready,
                last_stream: last_task,
                unread,
                hello: hello.encode_registration(),
            };
            (moved, socket)
        };
        Some(taken.map(moved))
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

    /// Waits until another process has taken over, and no stream needs this tunnel here. Until
    /// then that process brings the client's visitors here.
    async fn may_leave(&self, pause: Duration) {
        self.state.stop.wait().await;
        if self.state.transfer.child().is_none() {
            return future::pending().await;
        }
        if !pause.is_zero() {
            Timer::after(pause).await;
        }
        let registry = &self.state.registry;
        let parked = future::poll_once(self.tunnel.park()).await;
        if parked.is_none() || !pause.is_zero() {
            self.state
                .announce(&self.id, Secret::new(&*self.secret))
                .await;
        }
        loop {
            self.tunnel.park().await;
            if timeout(LAST_ANSWERS, self.tunnel.unused()).await.is_some() {
                return;
            }
            // A visitor that has ended its direction still gets much.
            self.tunnel.unpark();
            registry.changed();
            future::or(self.tunnel.unused(), async {
                Timer::after(NEXT_TRY).await;
            })
            .await;
        }
    }

    /// Takes the tunnel to the newer process, or closes it if that cannot be done, so that its
    /// client comes there.
    async fn leave(&self, inbox: &mut Inbox) -> LeaveResult {
        if !inbox.is_movable() {
            self.tunnel.close();
            self.state.settle(&self.id).await;
            return LeaveResult::Closes;
        }
        // While its services change, nobody knows what it offers.
        let judging = self.auth().judging > 0;
        let registration = self.state.registry.registration(&self.id, &self.tunnel);
        let Some(registration) = registration.filter(|_| !judging) else {
            self.tunnel.unpark();
            self.state.registry.changed();
            return LeaveResult::Stays;
        };
        let ready = Origin::Process { last_task: 0 };
        match self.take_tunnel(inbox, registration, ready) {
            Some(Ok((moved, socket))) => LeaveResult::Moves(moved, socket),
            Some(Err(e)) => {
                log::warn!("a tunnel of {} cannot be moved: {e}", self.id);
                self.tunnel.finish();
                LeaveResult::Closes
            }
            None => LeaveResult::Stays,
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

    /// Asks the API about changed services, one change after the other, while the tunnel
    /// goes on. Says why if it is to end. If the API fails, what was granted stays granted:
    /// what runs must not suffer.
    async fn review_changes(&self, queue: Receiver<Vec<ServiceSpec>>) -> String {
        while let Ok(offers) = queue.recv().await {
            let api = self.auth().judge.as_ref().map(|(api, _)| api.clone());
            let new = match &api {
                Some(api) => match Box::pin(api.judge(&self.id, &self.secret, &offers)).await {
                    AuthDecision::Granted(new) => Some(new),
                    AuthDecision::Denied => return self.refuse_change(RejectCode::BadCredentials),
                    AuthDecision::Failed => None,
                },
                None => None,
            };
            let granted = {
                let mut standing = self.auth();
                standing.asked = offers.clone();
                match &mut standing.judge {
                    Some((_, grant)) => {
                        if let Some(new) = new {
                            *grant = new;
                        }
                        grant.of(&self.id, offers)
                    }
                    // Meanwhile the configuration knows it.
                    None => all(offers),
                }
            };
            self.apply_change(granted).await;
            let mut standing = self.auth();
            standing.judging = standing.judging.saturating_sub(1);
        }
        future::pending().await
    }

    /// The services signal: the same client with other services. If it cannot have them, the
    /// tunnel ends, but not before what runs.
    async fn apply_change(&self, offers: Vec<Option<ServiceSpec>>) {
        let (id, peer) = (&self.id, self.peer);
        let registry = &self.state.registry;
        if self.state.stop.is_triggered() {
            let stays =
                self.tunnel.version() == Version::One && self.state.transfer.child().is_some();
            let is_new = || self.as_login(|login| registry.is_new(login, &offers));
            if !stays || is_new() {
                // The newer process alone knows what is free, and there the client says so again.
                // Here it gets nothing new, and what it has must not suffer.
                registry.set_aside(id, &self.tunnel);
                self.tunnel.signal(Signal::Services);
                if stays {
                    // It is not asked to come there in another way.
                    self.tunnel.close();
                    self.state.settle(id).await;
                }
                return;
            }
        }
        let updated = self.as_login(|login| registry.update(login, offers, &self.tunnel));
        match updated {
            Ok(opened) => {
                self.serve_ports(opened);
                log::info!("services changed id={id} addr={peer}");
                self.state
                    .announce_again(id, Secret::new(&*self.secret))
                    .await;
            }
            Err(refusal) => {
                let why = self.refuse_change(refusal);
                log::warn!("a tunnel drains id={id} addr={peer}: {why}");
                self.tunnel.close();
            }
        }
    }

    fn refuse_change(&self, refusal: RejectCode) -> String {
        self.state.counters.refused(refusal);
        self.tunnel.signal(Signal::Error(refusal));
        format!("its new services were refused: {refusal}")
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
