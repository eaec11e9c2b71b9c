//! The direct way to another client: the peers that connections are spread over, and the attempts to have
//! one. Not the way through the server.

use super::error::ForwardError;
use super::other_client::OtherClient;
use super::status;
use crate::client::backoff::Backoff;
use crate::client::p2p::endpoint::Endpoint;
use crate::client::p2p::link::PeerHandle;
use crate::client::p2p::peer::{Peer, PeerPath, PeerState, ENDED_HERE};
use crate::client::p2p::ChannelConn;
use crate::net::{clock, timeout, Shutdown, Timer};
use crate::sync::{Mutex, MutexGuard};
use event_listener::Event;
use futures_lite::future;
use log::Level;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that a direct connection has to come up (docs/p2p.md, "From another gt").
pub const DIRECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a peer has to answer the opening of a channel, before the server is used. A path that has just
/// broken is only noticed after seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which a peer that has not answered in time gets no further connections. By then, its path has
/// failed or works again.
const DOUBT_TIME: Duration = Duration::from_secs(10);
/// Delay of the first attempt after one that has failed.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The direct way to another client.
pub struct DirectWay {
    other: OtherClient,
    /// What is forwarded, as `tcpForwardAddr=127.0.0.1:8000`.
    name: String,
    stop: Shutdown,
    inner: Mutex<DirectState>,
    /// Notified when a slot has changed.
    changed: Event,
}

struct DirectState {
    slots: Vec<PeerSlot>,
    backoff: Backoff,
    /// Up to when no attempt begins, after one that has failed.
    retry_at: Option<Instant>,
    /// Number of open connections that would rather have taken the direct way.
    relayed: usize,
    /// Whether a connection has gone through the server since the last attempt.
    is_wanted: bool,
    counts: ForwardCounts,
    /// What was logged last; `None` before the first line.
    is_direct: Option<bool>,
    /// Why the last attempt has failed.
    failure: Option<String>,
    /// Why there was no way at all, as the last warning has told.
    warned: Option<String>,
}

/// How many connections or flows have taken which way. They may wrap.
#[derive(Default, Clone, Copy)]
pub struct ForwardCounts {
    pub direct: u32,
    pub relayed: u32,
}

/// One of the peers that connections are spread over.
#[derive(Clone)]
enum PeerSlot {
    Empty,
    Connecting,
    Up {
        link: PeerHandle,
        /// When the peer did not answer in time.
        doubted: Option<Instant>,
    },
}

/// What may bring a usable peer, when there is none.
enum NextChance {
    /// A change of one that is connecting, or has lost its path.
    Change,
    /// An attempt, which is due then.
    Attempt(Instant),
    Never,
}

/// A connection that goes through the server, for which attempts go on.
pub struct RelayedUse(Arc<DirectWay>);

impl Drop for RelayedUse {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.relayed = inner.relayed.saturating_sub(1);
    }
}

/// The state of a direct way, for `gt status`.
pub struct DirectStatus {
    /// What is forwarded.
    pub name: String,
    /// The host prefix of the other client.
    pub host_prefix: String,
    /// Whether connections may go through the server.
    pub may_relay: bool,
    /// The paths of the peers that are connected.
    pub paths: Vec<PeerPath>,
    /// Whether an attempt runs.
    pub is_connecting: bool,
    /// Time until the next attempt, if one has failed.
    pub retry: Option<Duration>,
    /// Why the last attempt has failed.
    pub failure: Option<String>,
    /// How many connections have taken which way.
    pub counts: ForwardCounts,
    /// Number of connections through the server that are open.
    pub relayed: usize,
}

impl DirectWay {
    /// Creates the way, over at most `peers` peers. No attempt begins before it is asked for.
    pub fn new(other: OtherClient, name: String, peers: usize, stop: Shutdown) -> Arc<Self> {
        let way = Arc::new(Self {
            other,
            name,
            stop,
            inner: Mutex::new(DirectState {
                slots: vec![PeerSlot::Empty; peers.max(1)],
                backoff: Backoff::new(FIRST_RETRY_DELAY),
                retry_at: None,
                relayed: 0,
                is_wanted: false,
                counts: ForwardCounts::default(),
                is_direct: None,
                failure: None,
                warned: None,
            }),
            changed: Event::new(),
        });
        status::expose(&way);
        way
    }

    /// Returns the other client.
    pub fn other(&self) -> &OtherClient {
        &self.other
    }

    fn lock(&self) -> MutexGuard<'_, DirectState> {
        self.inner.lock()
    }

    /// Opens a channel of the peer that has the fewest channels, if one is up and answers; else begins an
    /// attempt to have one, unless the last one has failed a moment ago.
    pub async fn open(self: &Arc<Self>, label: &str) -> Option<ChannelConn> {
        let link = self.link()?;
        let channel = ChannelConn::open(&link, label)?;
        match timeout(ANSWER_TIMEOUT, channel.answered()).await {
            Some(true) => {
                let mut inner = self.lock();
                inner.counts.direct = inner.counts.direct.wrapping_add(1);
                Some(channel)
            }
            Some(false) => {
                self.replace(&link);
                None
            }
            None => {
                self.doubt(&link);
                None
            }
        }
    }

    /// The same, but waits up to `patience` for a peer that is connecting or whose path is lost, and for an attempt that
    /// is due; `None` if none is to be expected.
    pub async fn wait_open(
        self: &Arc<Self>,
        label: &str,
        patience: Duration,
    ) -> Option<ChannelConn> {
        let end = clock::now() + patience;
        let waiting = async {
            loop {
                let changed = self.changed.listen();
                if let Some(channel) = self.open(label).await {
                    return Some(channel);
                }
                match self.next_chance() {
                    NextChance::Change => changed.await,
                    NextChance::Attempt(at) if at <= end => {
                        let attempt = async {
                            Timer::after(at.saturating_duration_since(clock::now())).await;
                        };
                        future::or(changed, attempt).await;
                    }
                    NextChance::Attempt(_) | NextChance::Never => return None,
                }
            }
        };
        timeout(patience, waiting).await.flatten()
    }

    /// Returns what may bring a usable peer.
    fn next_chance(&self) -> NextChance {
        let inner = self.lock();
        let is_there = |slot: &PeerSlot| !matches!(slot, PeerSlot::Empty);
        match (inner.slots.iter().any(is_there), inner.retry_at) {
            // One that is up may have lost its path, or has not answered.
            (true, _) => NextChance::Change,
            (false, Some(at)) => NextChance::Attempt(at),
            (false, None) => NextChance::Never,
        }
    }

    /// Notes that a connection goes through the server. While it does, attempts go on.
    pub fn relayed(self: &Arc<Self>) -> RelayedUse {
        let mut inner = self.lock();
        inner.relayed += 1;
        inner.is_wanted = true;
        inner.counts.relayed = inner.counts.relayed.wrapping_add(1);
        drop(inner);
        RelayedUse(self.clone())
    }

    /// Returns the connected peer with the fewest channels. Begins an attempt if there is an empty slot.
    fn link(self: &Arc<Self>) -> Option<PeerHandle> {
        let now = clock::now();
        let mut inner = self.lock();
        for slot in &mut inner.slots {
            let is_over = |link: &PeerHandle| {
                let peer = link.lock();
                *peer.state() != PeerState::Connected || !peer.has_ids()
            };
            if matches!(slot, PeerSlot::Up { link, .. } if is_over(link)) {
                *slot = PeerSlot::Empty;
            }
        }
        let pauses = inner.retry_at.is_some_and(|at| at > now) || self.stop.is_triggered();
        let is_doubted = |doubted: &Option<Instant>| {
            doubted.is_some_and(|at| now.saturating_duration_since(at) < DOUBT_TIME)
        };
        let is_usable = |slot: &PeerSlot| match slot {
            PeerSlot::Up { link, doubted } => !is_doubted(doubted) && !link.lock().is_lost(),
            PeerSlot::Empty | PeerSlot::Connecting => false,
        };
        // One peer is enough for QUIC, whose channels do not wait for each other.
        let suffices = |slot: &PeerSlot| {
            let has_room = |slot: &PeerSlot| match slot {
                PeerSlot::Up { link, .. } => link.lock().has_room(),
                PeerSlot::Empty | PeerSlot::Connecting => false,
            };
            is_usable(slot) && has_room(slot)
        };
        let pauses = pauses || inner.slots.iter().any(suffices);
        let is_empty = |slot: &PeerSlot| matches!(slot, PeerSlot::Empty);
        let empty = inner.slots.iter_mut().position(|slot| is_empty(slot));
        let connects = |slot: &PeerSlot| matches!(slot, PeerSlot::Connecting);
        let is_connecting = inner.slots.iter().any(connects);
        // One at a time: each new connection may add a peer.
        if let (Some(at), false, false) = (empty, pauses, is_connecting) {
            inner.is_wanted = false;
            if let Some(slot) = inner.slots.get_mut(at) {
                *slot = PeerSlot::Connecting;
                crate::net::spawn(self.clone().fill(at));
            }
        }
        let up = inner.slots.iter().filter(|slot| is_usable(slot));
        let up = up.filter_map(|slot| match slot {
            PeerSlot::Up { link, .. } => Some(link.clone()),
            PeerSlot::Empty | PeerSlot::Connecting => None,
        });
        let up: Vec<PeerHandle> = up.collect();
        drop(inner);
        up.into_iter().min_by_key(|link| link.lock().channels())
    }

    /// Opens no more channels of a peer that refuses them, as a process that is about to end does, and begins to look
    /// for another one.
    fn replace(self: &Arc<Self>, refusing: &PeerHandle) {
        log::debug!(
            "a peer of {} takes no more connections",
            self.other.host_prefix
        );
        refusing.with(Peer::retire);
        for slot in &mut self.lock().slots {
            if matches!(slot, PeerSlot::Up { link, .. } if link.is(refusing)) {
                *slot = PeerSlot::Empty;
            }
        }
        self.link();
    }

    /// Notes that a peer has not answered in time.
    fn doubt(&self, doubtful: &PeerHandle) {
        log::debug!("a peer of {} does not answer", self.other.host_prefix);
        for slot in &mut self.lock().slots {
            match slot {
                PeerSlot::Up { link, doubted } if link.is(doubtful) => {
                    *doubted = Some(clock::now());
                }
                _ => {}
            }
        }
    }

    /// Connects the peer of one slot.
    async fn fill(self: Arc<Self>, at: usize) {
        let connecting = timeout(DIRECT_TIMEOUT, self.other.connect());
        let Some(connected) = self.stop.or(connecting).await else {
            self.set(at, PeerSlot::Empty);
            return;
        };
        match connected.unwrap_or(Err(ForwardError::TooLate)) {
            Ok((link, endpoint)) => {
                self.set(
                    at,
                    PeerSlot::Up {
                        link: link.clone(),
                        doubted: None,
                    },
                );
                self.came_up(&link);
                crate::net::spawn(self.clone().watch(link, endpoint));
            }
            Err(e) => {
                self.set(at, PeerSlot::Empty);
                let delay = self.failed(&e);
                crate::net::spawn(self.clone().retry(delay));
            }
        }
        self.changed.notify(usize::MAX);
    }

    fn set(&self, at: usize, slot: PeerSlot) {
        if let Some(place) = self.lock().slots.get_mut(at) {
            *place = slot;
        }
    }

    /// Logs that there is a direct way, if that is news.
    fn came_up(&self, link: &PeerHandle) {
        let path = link.lock().path();
        let mut inner = self.lock();
        inner.retry_at = None;
        inner.failure = None;
        inner.backoff.restart();
        if inner.is_direct.replace(true) != Some(true) {
            let path = path.map_or_else(String::new, |path| format!(": {path}"));
            log::info!("the way to {} is direct{path}", self.other.host_prefix);
        }
    }

    /// Logs that an attempt has failed, if that is news, and returns the delay before the next one.
    fn failed(&self, e: &ForwardError) -> Duration {
        let prefix = &self.other.host_prefix;
        let why = match e {
            ForwardError::TooLate => " came up in time".to_owned(),
            e => format!(": {e}"),
        };
        let mut inner = self.lock();
        let delay = inner.backoff.delay();
        inner.retry_at = Some(clock::now() + delay);
        let is_up = inner
            .slots
            .iter()
            .any(|slot| matches!(slot, PeerSlot::Up { .. }));
        let is_news = !is_up && inner.is_direct.replace(false) != Some(false);
        let level = match is_news || inner.failure.as_ref() != Some(&why) {
            true => Level::Info,
            false => Level::Debug,
        };
        log::log!(
            level,
            "no direct connection to {prefix}{why}; the next attempt is in {delay:.0?}"
        );
        inner.failure = Some(why);
        delay
    }

    /// Begins another attempt after `delay`, or once the network has changed, if a connection would use it.
    async fn retry(self: Arc<Self>, delay: Duration) {
        let changed = self.other.p2p.context().retry.listen();
        let due = async {
            Timer::after(delay).await;
        };
        let woken = async {
            changed.await;
        };
        self.stop.or(future::or(due, woken)).await;
        let mut inner = self.lock();
        inner.retry_at = None;
        let is_useful = inner.relayed > 0 || inner.is_wanted;
        drop(inner);
        self.changed.notify(usize::MAX);
        if is_useful {
            self.link();
        }
    }

    /// Waits for the end of a peer. Without another one, the way has changed. When the forwarder stops, the peer ends
    /// with its last channel.
    async fn watch(self: Arc<Self>, link: PeerHandle, endpoint: Arc<Endpoint>) {
        let over = async {
            self.other.follow(&link, &endpoint).await;
            link.over().await
        };
        let recovering = async {
            while link.lost().await.is_some() {
                link.found().await;
                self.changed.notify(usize::MAX);
            }
            link.over().await
        };
        let mut over = Box::pin(future::or(over, recovering));
        let Some(why) = self.stop.or(over.as_mut()).await else {
            link.with(Peer::retire);
            over.await;
            return;
        };
        let mut inner = self.lock();
        for slot in &mut inner.slots {
            if matches!(slot, PeerSlot::Up { link: its, .. } if its.is(&link)) {
                *slot = PeerSlot::Empty;
            }
        }
        let is_up = inner
            .slots
            .iter()
            .any(|slot| matches!(slot, PeerSlot::Up { .. }));
        // One that was idle was not needed.
        let is_useful = inner.relayed > 0 && why != ENDED_HERE;
        if !is_up && inner.is_direct.replace(false) == Some(true) {
            log::info!(
                "the direct way to {} has ended: {why}",
                self.other.host_prefix
            );
        }
        drop(inner);
        self.changed.notify(usize::MAX);
        if is_useful {
            self.link();
        }
    }

    /// Returns the present state.
    pub fn status(&self) -> DirectStatus {
        let inner = self.lock();
        let links: Vec<PeerHandle> = inner
            .slots
            .iter()
            .filter_map(|slot| match slot {
                PeerSlot::Up { link, .. } => Some(link.clone()),
                PeerSlot::Empty | PeerSlot::Connecting => None,
            })
            .collect();
        let connects = |slot: &PeerSlot| matches!(slot, PeerSlot::Connecting);
        let is_lost = |link: &PeerHandle| link.lock().is_lost();
        let now = clock::now();
        let mut status = DirectStatus {
            name: self.name.clone(),
            host_prefix: self.other.host_prefix.clone(),
            may_relay: self.other.may_relay,
            paths: Vec::new(),
            is_connecting: inner.slots.iter().any(connects) || links.iter().any(is_lost),
            retry: inner.retry_at.map(|at| at.saturating_duration_since(now)),
            failure: inner.failure.clone(),
            counts: inner.counts,
            relayed: inner.relayed,
        };
        drop(inner);
        let connected = |link: &PeerHandle| {
            let peer = link.lock();
            peer.path()
                .filter(|_| *peer.state() == PeerState::Connected && !peer.is_lost())
        };
        status.paths = links.iter().filter_map(connected).collect();
        status
    }

    /// Waits until a peer is up that answers. If one is up that has just not taken a channel, waits a while first.
    pub async fn until_up(self: &Arc<Self>) {
        if self.link().is_some() {
            Timer::after(DOUBT_TIME).await;
        }
        loop {
            let changed = self.changed.listen();
            if self.link().is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Warns that there is no way at all, once until the service was reached again.
    pub fn warn_unreachable(&self, e: &ForwardError) {
        let prefix = &self.other.host_prefix;
        let mut text = e.to_string();
        // The time that is left is no news.
        text.retain(|sign| !sign.is_ascii_digit());
        let mut inner = self.lock();
        if inner.warned.as_ref() != Some(&text) {
            log::warn!("cannot reach {prefix}, neither directly nor through the server: {e}");
            inner.warned = Some(text);
        }
    }

    /// Notes that the service was reached: the next failure is news.
    pub fn reached(&self) {
        self.lock().warned = None;
    }

    /// Whether the forwarder has stopped.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_triggered()
    }
}
