//! One connection that carries many streams, whatever its ends are for.
//!
//! A [`Tunnel`] is the handle that streams and sessions share; its state stands behind one
//! lock that is never held across an await. Two tasks drive it: the [`Inbox`], which its
//! session polls, reads and hands payloads on, and a writer sends what the outbox gathers.
//!
//! GT/1 has no windows. A stream whose reader does not take its bytes gets a bounded
//! backlog, and when one is full the inbox reads no more until it is not; a reader that
//! takes nothing for [`STUCK`] while others wait is cut off. In GT/2 the window of a stream
//! bounds what waits for its reader, and the inbox always reads.

mod buffer;
mod closing;
mod inbox;
mod liveness;
#[cfg(feature = "server")]
mod moving;
mod outbox;
mod pacer;
mod recv_buffer;
mod relay;
mod round_trip;
mod scheduler;
mod stream;
mod stream_state;
#[cfg(test)]
mod tests;
mod throttle;
mod traffic;
mod tunnel_state;
mod window;

pub use inbox::{Event, Inbox};
pub use relay::{Relay, RelayOutcome, CLOSE_TIMEOUT, LAST_BYTES};
pub use stream::Stream;
pub use stream_state::CloseReason;
pub use traffic::Traffic;
pub use window::{Growth, FIRST_WINDOW};

use self::tunnel_state::TunnelState;
use crate::net::clock::Tick;
use crate::net::{Conn, Delivery, TokenBucket};
use crate::wire::frame::Signal;
use crate::wire::Version;
use async_io::Timer;
use closing::Closing;
use outbox::OutboxWriter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use stream_state::StreamState;

/// A reader that makes the tunnel wait and has taken nothing for this long is cut off: when
/// there are other streams behind it,
pub const STUCK: Duration = Duration::from_secs(10);
/// and when it is alone.
pub const STUCK_ALONE: Duration = Duration::from_secs(90);

/// How long a tunnel that has ended in good order waits for its peer to end the connection: what
/// was sent may still be on its way, and a close before the peer has it all would reset it.
pub const DELIVERY: Duration = Duration::from_secs(120);

/// What one tunnel may hold and how long it waits. Where wire versions or roles differ, they
/// differ here.
#[derive(Clone)]
pub struct Policy {
    pub version: Version,
    /// Bytes a stream may have waiting before the inbox of GT/1 stops reading. One more read,
    /// 128 KiB, may come on top. In GT/2 its window says how many may come.
    pub backlog: usize,
    /// The same for all streams of the tunnel together. In GT/2 the inbox does not stop: who
    /// has taken nothing for the longest time is cut off.
    pub backlogs: usize,
    /// What windows may grow to.
    pub growth: Growth,
    /// What we may send on a stream of ours before the peer gives credit.
    pub credit: u32,
    pub peer: PeerRole,
    /// How often [`Event::Tick`] comes and deadlines are looked at.
    pub tick: Duration,
    /// What the tunnel may send and receive in a second, shared with others or not.
    pub speed: Option<SpeedLimit>,
}

/// A bucket for each direction.
#[derive(Clone)]
pub struct SpeedLimit {
    pub send: Arc<TokenBucket>,
    pub receive: Arc<TokenBucket>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// It opens no streams, and sends its registration behind a services signal.
    Client,
    /// It opens streams, so many at a time.
    Server { streams: usize },
}

impl Policy {
    /// `shortest` is the shortest time-out that is to be kept on this tunnel.
    pub fn new(version: Version, peer: PeerRole, shortest: Duration) -> Self {
        let (backlog, backlogs) = match version {
            Version::One => (256 * 1024, 4 * 1024 * 1024),
            // Where all windows are full there is more than what they may grow by.
            Version::Two => (usize::MAX, 8 * 1024 * 1024),
        };
        Self {
            version,
            backlog,
            backlogs,
            growth: Growth {
                most: 1024 * 1024,
                reserve: 4 * 1024 * 1024,
            },
            credit: 0,
            peer,
            tick: (shortest / 8).clamp(Duration::from_millis(50), Duration::from_secs(5)),
            speed: None,
        }
    }
}

/// A handle of one tunnel. Clones are the same tunnel.
#[derive(Clone)]
pub struct Tunnel(Arc<TunnelShared>);

struct TunnelShared {
    core: Mutex<TunnelState>,
    /// Whose state the kernel is asked for. A handle of a tunnel that has ended keeps no
    /// socket open.
    conn: Weak<Conn>,
}

fn lock(shared: &TunnelShared) -> MutexGuard<'_, TunnelState> {
    // A panic elsewhere leaves the state whole: every change to it is one step.
    shared.core.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tunnel {
    /// A tunnel over `conn`, whose reader has `already` taken some bytes. Its writer runs
    /// until the tunnel ends; its session has to poll the inbox.
    pub fn new(conn: Arc<Conn>, already: Vec<u8>, policy: Policy) -> (Self, Inbox) {
        let shared = Arc::new(TunnelShared {
            core: Mutex::new(TunnelState::new(&policy)),
            conn: Arc::downgrade(&conn),
        });
        let (send, receive) = match policy.speed {
            Some(speed) => (Some(speed.send), Some(speed.receive)),
            None => (None, None),
        };
        crate::spawn(OutboxWriter::new(
            shared.clone(),
            conn.clone(),
            policy.version,
            send,
        ));
        let tunnel = Self(shared);
        // While there is nothing on the way that would lengthen it.
        lock(&tunnel.0).measure();
        let inbox = Inbox::new(
            tunnel.clone(),
            conn,
            already,
            (policy.version, policy.peer),
            policy.tick,
            receive,
        );
        (tunnel, inbox)
    }

    /// Opens a stream to the peer's service `service`; the peer learns of it with the first
    /// bytes, or by [`Stream::announce`]. `None` if the tunnel takes no new streams or `task`
    /// is in use.
    pub fn open(&self, task: u32, service: u16) -> Option<Stream> {
        let mut core = lock(&self.0);
        if !core.takes_streams() || core.streams.contains_key(&task) {
            return None;
        }
        let mut entry = StreamState::opened_here(service);
        let credit = core.policy.credit;
        if let Some(budget) = &mut core.budget {
            entry = entry.with_windows(credit, budget.window());
        }
        core.streams.insert(task, entry);
        core.traffic.count_stream();
        core.begin_stream();
        Some(Stream::new(self.clone(), task))
    }

    /// Sends a signal. With [`Signal::Services`] the peer's services get new indexes: streams it
    /// has not been told of end with [`Why::Outdated`].
    pub fn signal(&self, signal: Signal) {
        let mut core = lock(&self.0);
        if signal == Signal::Services {
            core.outdate_unannounced();
        }
        core.outbox.push(signal);
    }

    /// Bytes that are whole frames, or a hello.
    pub fn say(&self, bytes: &[u8]) {
        lock(&self.0).outbox.push_bytes(bytes);
    }

    pub fn version(&self) -> Version {
        lock(&self.0).version
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&self) {
        lock(&self.0).ping(Instant::now());
    }

    /// How long a frame takes to the peer and its answer back, smoothed; once it is known,
    /// and never in GT/1.
    pub fn round_trip(&self) -> Option<Duration> {
        lock(&self.0).round_trip.get()
    }

    /// Begins the graceful end: no new streams; those that run may finish.
    pub fn close(&self) {
        let mut core = lock(&self.0);
        let step = core.closing.ask();
        core.take(step);
    }

    /// Sends what is there and ends, whatever still runs.
    pub fn finish(&self) {
        let mut core = lock(&self.0);
        core.closing = Closing::Over;
        core.outbox.finish();
        core.cut_streams();
    }

    /// Streams that run.
    pub fn streams(&self) -> usize {
        lock(&self.0).streams.len()
    }

    /// What it has carried so far. A server's stays as it is after [`Tunnel::finish`].
    pub fn traffic(&self) -> Traffic {
        lock(&self.0).traffic
    }

    /// How busy the tunnel is, to choose the least busy one; `None` if it takes no streams.
    /// A tunnel that cannot read at the moment is busier than any that can.
    pub fn load(&self) -> Option<usize> {
        let core = lock(&self.0);
        let open = core.takes_streams();
        let stalled = if core.is_stalled() { usize::MAX / 2 } else { 0 };
        open.then(|| core.streams.len().saturating_sub(core.answered) + stalled)
    }

    /// Whether new streams are better off in another tunnel: the peer is late with a sign of
    /// life, or the kernel knows that bytes do not reach it.
    pub fn is_doubtful(&self) -> bool {
        let core = lock(&self.0);
        let liveness = &core.liveness;
        match core.version {
            Version::One => liveness.is_lost(),
            Version::Two => liveness.is_late(core.round_trip.get(), Instant::now()),
        }
    }

    /// Whether a stream has begun while the peer was silent and has waited for a sign of life
    /// for `patience`, in vain.
    pub fn is_black_hole(&self, patience: Duration) -> bool {
        let waited = lock(&self.0).liveness.watched(Instant::now());
        waited.is_some_and(|time| time >= patience) && self.is_silent()
    }

    /// Asks the peer for a sign of life: a program of GT/2 answers, and of GT/1 the kernel does.
    fn ask(&self) {
        let mut core = lock(&self.0);
        let now = Instant::now();
        match core.version {
            Version::One => core.liveness.asked(now),
            Version::Two => core.ping(now),
        }
        drop(core);
        self.probe(true);
    }

    /// Whether the peer has left a question for a sign of life unanswered.
    fn owes_answer(&self) -> bool {
        let core = lock(&self.0);
        !core.over && core.liveness.unanswered(Instant::now()).is_some()
    }

    /// Has the kernel look often whether an idle peer of GT/1 is there.
    fn probe(&self, often: bool) {
        let conn = self.0.conn.upgrade();
        if let Some(conn) = conn.filter(|_| self.version() == Version::One) {
            conn.probe(often);
        }
    }

    /// Whether a peer that has not answered for a while is taken for gone.
    fn is_silent(&self) -> bool {
        let delivery = self.0.conn.upgrade().and_then(|conn| conn.delivery());
        match delivery {
            Some(Delivery::Lost) => true,
            Some(Delivery::Moving | Delivery::Blocked) => false,
            // A question that waits behind a speed limit has not been asked.
            Some(Delivery::Acknowledged) | None => {
                let core = lock(&self.0);
                core.version == Version::Two && core.outbox.is_idle()
            }
        }
    }

    /// Ends at once, whatever still runs, and has its session say `why`.
    pub fn abort(&self, why: &'static str) {
        let mut core = lock(&self.0);
        if !core.over {
            core.aborted = Some(why);
            core.end(false);
        }
    }

    /// Whether nothing comes or goes any more.
    pub fn is_over(&self) -> bool {
        lock(&self.0).over
    }

    /// Whether it neither is closing nor has ended.
    pub fn is_open(&self) -> bool {
        self.load().is_some()
    }

    /// How long nothing of ours has left.
    pub fn sent(&self) -> Duration {
        lock(&self.0).sent.until(Tick::now())
    }

    /// Same tunnel?
    pub fn is(&self, other: &Tunnel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn heard_close(&self) {
        let mut core = lock(&self.0);
        let streams = core.streams.len();
        let step = core.closing.heard(streams);
        core.take(step);
    }
}

/// Asks the peers of these tunnels for a sign of life, and returns those that have given none
/// within `patience`: over GT/2, where programs answer, nothing came; over GT/1, where they do
/// not, the peer's kernel does not answer either. A peer that takes what is sent is alive,
/// however slow it is.
pub async fn find_dead(mut tunnels: Vec<Tunnel>, patience: Duration) -> Vec<Tunnel> {
    const STEP: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    tunnels.iter().for_each(Tunnel::ask);
    while begun.elapsed() < patience && tunnels.iter().any(Tunnel::owes_answer) {
        Timer::after(STEP).await;
    }
    tunnels.retain(|tunnel| {
        let gone = tunnel.owes_answer() && tunnel.is_silent();
        tunnel.probe(false);
        gone
    });
    tunnels
}

impl TunnelShared {
    /// The connection is gone, or its end has been sent (`orderly`).
    fn end(&self, orderly: bool) {
        lock(self).end(orderly);
    }
}
