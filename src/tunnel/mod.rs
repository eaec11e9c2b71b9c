//! Many streams over one connection: framing, windows, scheduling and liveness, but not the meaning
//! of services.
//!
//! A [`Tunnel`] is the handle that streams and sessions share; its state is behind one lock that is
//! never held across an await. Two tasks drive it: the session polls the [`Inbox`], which reads
//! frames and delivers payloads, and a writer sends the frames that wait in the outbox. Before the
//! first stream, and while the tunnel rests ([`Inbox::rest`]), the writer ends when it has nothing to
//! send.
//!
//! GT/1 has no windows. A stream whose reader does not take its bytes has a bounded backlog; while
//! one is full, the inbox does not read. A reader that takes nothing for [`STUCK_TIMEOUT`] while
//! other streams wait is cut off. In GT/2 the window of a stream bounds what waits for its reader,
//! and the inbox always reads.

mod buffer;
mod closing;
#[cfg(all(feature = "quic", not(feature = "sim")))]
mod flow_records;
mod inbox;
mod liveness;
mod moment;
#[cfg(feature = "server")]
mod moving;
mod outbox;
mod pacer;
#[cfg_attr(
    any(feature = "sim", not(feature = "quic")),
    path = "no_quic_carrier.rs"
)]
mod quic_carrier;
mod recv_buffer;
mod relay;
mod round_trip;
mod scheduler;
mod stream;
mod stream_record;
mod stream_state;
mod stream_table;
#[cfg(test)]
mod tests;
mod traffic;
mod tunnel_state;
mod window;

pub use inbox::{Event, Inbox};
pub use liveness::Lateness;
pub use relay::{Relay, RelayOutcome, CLOSE_TIMEOUT, DRAIN_TIMEOUT};
pub use stream::Stream;
pub use stream_record::{StreamRecord, StreamTotals};
pub use stream_state::CloseReason;
pub use traffic::Traffic;
pub use window::{Growth, FIRST_WINDOW};

use self::tunnel_state::TunnelState;
use crate::net::clock::Tick;
use crate::net::{clock, Conn, Delivery, ShardId, Timer, TokenBucket};
use crate::sync::{Mutex, MutexGuard};
use crate::wire::frame::{ServiceIndex, Signal, StreamId};
use crate::wire::Version;
use closing::Closing;
use moment::Moment;
use quic_carrier::QuicCarrier;
use std::sync::{Arc, Weak};
use std::time::Duration;
use stream_state::StreamState;

/// A reader that stalls a tunnel with other streams is cut off after taking nothing for this long
/// (docs/wire.md, "What GT/1 cannot do").
pub const STUCK_TIMEOUT: Duration = Duration::from_secs(10);
/// A reader that stalls a tunnel with no other stream is cut off after taking nothing for this
/// long.
pub const STUCK_ALONE_TIMEOUT: Duration = Duration::from_secs(90);

/// Time that a stream waits for a silent peer before the tunnel counts as dead (docs/wire.md, "The tunnel"). The check
/// runs every half second.
const BLACK_HOLE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a gracefully ended tunnel waits for its peer to close the connection: sent bytes may
/// still be in flight, and closing before the peer has them all would reset it.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// The limits and intervals of one tunnel, by wire version and role.
#[derive(Clone)]
pub struct Policy {
    /// The wire version, as the handshake has established it.
    pub version: Version,
    /// Maximum bytes in a stream's backlog before the inbox of GT/1 stops reading; one more read of
    /// 128 KiB may follow. Unlimited in GT/2, where the stream's window bounds it.
    pub backlog: u32,
    /// Maximum bytes in all backlogs of the tunnel. In GT/2 the inbox does not stop at it: the
    /// stream whose reader has taken nothing for the longest time is cut off.
    pub backlogs: u32,
    /// How far receive windows may grow.
    pub growth: Growth,
    /// Bytes that may be sent on a stream opened here before the peer gives credit.
    pub credit: u32,
    /// The role of the other end.
    pub peer: PeerRole,
    /// Whether each stream begins with its visitor's origin.
    pub origins: bool,
    /// Interval of [`Event::Tick`] and of deadline checks.
    pub tick: Duration,
    /// Speed limit of the tunnel; its buckets may be shared with other tunnels.
    pub speed: Option<SpeedLimit>,
}

/// The token buckets of a speed limit, one for each direction.
#[derive(Clone)]
pub struct SpeedLimit {
    /// Limits bytes sent to the peer.
    pub send: Arc<TokenBucket>,
    /// Limits bytes received from the peer.
    pub receive: Arc<TokenBucket>,
}

/// The role of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// Opens no streams, and sends its registration behind a services signal.
    Client,
    /// Opens streams.
    Server {
        /// Maximum number of streams that may be open at a time.
        streams: u32,
    },
}

impl Policy {
    /// Returns the defaults for this version and role (docs/wire.md, "Windows"). `shortest` is the
    /// shortest timeout that the tunnel has to keep.
    pub fn new(version: Version, peer: PeerRole, shortest: Duration) -> Self {
        let (backlog, backlogs) = match version {
            Version::One => (256 * 1024, 4 * 1024 * 1024),
            // More than the reserve: full windows also hold their first sizes.
            Version::Two => (u32::MAX, 8 * 1024 * 1024),
        };
        Self {
            version,
            backlog,
            backlogs,
            growth: Growth {
                max: 1024 * 1024,
                reserve: 4 * 1024 * 1024,
            },
            credit: 0,
            peer,
            origins: false,
            tick: (shortest / 8).clamp(Duration::from_millis(50), Duration::from_secs(5)),
            speed: None,
        }
    }
}

/// A handle of one tunnel. Clones refer to the same tunnel.
#[derive(Clone)]
pub struct Tunnel(Arc<TunnelShared>);

struct TunnelShared {
    state: Mutex<TunnelState>,
    /// The executor thread of its tasks, and of those that use its streams.
    thread: ShardId,
    /// The connection, to ask the kernel about it. Weak, so that a handle of an ended tunnel keeps
    /// no socket open.
    conn: Weak<Conn>,
}

fn lock(shared: &TunnelShared) -> MutexGuard<'_, TunnelState> {
    // A panic elsewhere leaves the state consistent: every change to it is one step.
    shared.state.lock()
}

impl Tunnel {
    /// Creates a tunnel over `conn`, from which `already` was read before. The session has to poll
    /// the inbox, on this executor thread.
    pub fn new(conn: Arc<Conn>, already: Vec<u8>, policy: Policy) -> (Self, Inbox) {
        Self::on(ShardId::current(), conn, already, policy)
    }

    /// Creates a tunnel whose session runs on another executor thread.
    pub fn on(thread: ShardId, conn: Arc<Conn>, already: Vec<u8>, policy: Policy) -> (Self, Inbox) {
        let tunnel = Self(Arc::new_cyclic(|tunnel| TunnelShared {
            state: Mutex::new(TunnelState::new(&policy, tunnel.clone())),
            thread,
            conn: Arc::downgrade(&conn),
        }));
        lock(&tunnel.0).quic = QuicCarrier::of(&conn, policy.peer);
        outbox::limit_unsent(&conn, policy.version, pacer::DEFAULT_BURST);
        // Measured while no payload in flight can lengthen the round trip.
        lock(&tunnel.0).measure();
        let inbox = Inbox::new(
            tunnel.clone(),
            conn,
            already,
            (policy.version, policy.peer),
            policy.tick,
            policy.speed.map(|speed| speed.receive),
        );
        (tunnel, inbox)
    }

    /// Opens a stream to the peer's service with index `service`; the peer learns of it with the
    /// first bytes, or by [`Stream::announce`]. `None` if the tunnel takes no new streams or
    /// `stream_id` is in use.
    pub fn open(&self, stream_id: StreamId, service: ServiceIndex) -> Option<Stream> {
        let mut state = lock(&self.0);
        if !state.takes_streams() || state.streams.contains(stream_id) {
            return None;
        }
        let mut stream = StreamState::opened_here(service);
        let credit = state.policy.credit;
        if let Some(budget) = &mut state.budget {
            stream = stream.with_windows(credit, budget.window());
        }
        stream.lane = state.quic.as_ref().map(|quic| quic.lane());
        state.streams.insert(stream_id, stream);
        state.traffic.count_stream();
        state.begin_stream();
        Some(Stream::new(self.clone(), stream_id))
    }

    /// Sends a signal. With [`Signal::Services`] the peer's services get new indexes: streams that
    /// it does not know of yet end with [`CloseReason::Outdated`].
    pub fn signal(&self, signal: Signal) {
        let mut state = lock(&self.0);
        if signal == Signal::Services {
            state.outdate_unannounced();
        }
        state.note_registration(signal);
        state.outbox.push(signal);
    }

    /// Sends bytes that are whole frames, or a hello.
    pub fn send_bytes(&self, bytes: &[u8]) {
        lock(&self.0).outbox.push_bytes(bytes);
    }

    /// Returns the tunnel's wire version.
    pub fn version(&self) -> Version {
        lock(&self.0).version
    }

    /// Sends a ping. In GT/2 it also measures the round-trip time.
    pub fn ping(&self) {
        lock(&self.0).ping(Moment::now());
    }

    /// Returns the smoothed round-trip time; `None` before the first answer and in GT/1.
    pub fn round_trip(&self) -> Option<Duration> {
        lock(&self.0).round_trip.get()
    }

    /// Returns the congestion control of the tunnel's connection, where the kernel can be asked.
    #[cfg(feature = "server")]
    pub fn congestion(&self) -> Option<String> {
        self.0.conn.upgrade()?.congestion()
    }

    /// Returns how many of a thousand packets to the peer are lost; `None` unless QUIC carries the tunnel.
    #[cfg(feature = "web")]
    pub fn loss_per_mille(&self) -> Option<u64> {
        self.0.conn.upgrade()?.loss_per_mille()
    }

    /// Returns what carries the tunnel; `None` once it has ended.
    pub fn transport(&self) -> Option<&'static str> {
        Some(self.0.conn.upgrade()?.transport())
    }

    /// Starts the graceful end: the tunnel takes no new streams, and those that are open may
    /// finish.
    pub fn close(&self) {
        let mut state = lock(&self.0);
        let step = state.closing.begin();
        state.apply(step);
        state.end_rest();
    }

    /// Makes the session check its deadlines soon, after these may have changed.
    pub fn end_rest(&self) {
        lock(&self.0).end_rest();
    }

    /// Gives the session an [`Event::Notice`] of changes outside of the tunnel; one for several.
    #[cfg(feature = "server")]
    pub fn notify(&self) {
        let mut state = lock(&self.0);
        state.notified = true;
        state.wake_inbox();
    }

    /// Sends the frames that wait in the outbox and ends the tunnel, cutting its open streams.
    pub fn finish(&self) {
        let mut state = lock(&self.0);
        state.closing = Closing::Over;
        state.outbox.finish();
        state.cut_streams();
    }

    /// Returns the number of open streams.
    pub fn streams(&self) -> usize {
        lock(&self.0).streams.len()
    }

    /// Returns what the tunnel has carried so far. A server's totals stay fixed after
    /// [`Tunnel::finish`].
    pub fn traffic(&self) -> Traffic {
        lock(&self.0).traffic
    }

    /// Returns the tunnel's load, to select the least busy one; `None` if it takes no streams. A
    /// tunnel that cannot read at the moment has a higher load than any that can.
    pub fn load(&self) -> Option<usize> {
        let state = lock(&self.0);
        let open = state.takes_streams();
        let stalled = if state.is_stalled() {
            usize::MAX / 2
        } else {
            0
        };
        open.then(|| state.streams.len().saturating_sub(state.answered as usize) + stalled)
    }

    /// Returns how late the peer is with a sign of life. Over GT/1, only the kernel says whether
    /// bytes reach the peer.
    pub fn lateness(&self) -> Lateness {
        let mut state = lock(&self.0);
        if state.liveness.is_doubted() {
            drop(state);
            let conn = self.0.conn.upgrade();
            let delivery = conn.and_then(|conn| conn.delivery());
            state = lock(&self.0);
            match delivery {
                Some(Delivery::Acknowledged) => state.liveness.answered(),
                Some(Delivery::Lost) => return Lateness::Overdue,
                Some(Delivery::Moving | Delivery::Blocked) | None => return Lateness::Late,
            }
        }
        let liveness = &state.liveness;
        match state.version {
            Version::One if liveness.is_lost() => Lateness::Overdue,
            Version::One => Lateness::InTime,
            Version::Two => liveness.lateness(state.round_trip.get(), Moment::now()),
        }
    }

    /// Asks the peer over QUIC for a sign of life; new streams prefer other tunnels until there is one. Over
    /// other transports, the kernel of a program that was killed ends the tunnel.
    #[cfg(feature = "server")]
    pub fn doubt(&self) {
        let conn = self.0.conn.upgrade();
        if let Some(conn) = conn.filter(|conn| conn.is_quic()) {
            conn.probe(true);
            lock(&self.0).liveness.doubt();
        }
    }

    /// Whether a stream has waited for a sign of life for [`BLACK_HOLE_TIMEOUT`]: one that began during the peer's
    /// silence or, over QUIC, one whose bytes moved before it.
    pub fn is_black_hole(&self) -> bool {
        let waited = lock(&self.0).liveness.watched(Moment::now());
        waited.is_some_and(|time| time >= BLACK_HOLE_TIMEOUT) && self.is_silent()
    }

    /// Polls the tasks of all streams, so that they look at what has changed around them.
    pub fn wake_streams(&self) {
        let mut state = lock(&self.0);
        state.streams.values_mut().for_each(StreamState::wake);
    }

    /// Asks the peer for a sign of life: the program in GT/2, the kernel in GT/1.
    fn ask(&self) {
        let mut state = lock(&self.0);
        let now = Moment::now();
        match state.version {
            Version::One => state.liveness.asked(now),
            Version::Two => state.ping(now),
        }
        drop(state);
        self.probe(true);
    }

    /// Whether the peer has left a probe unanswered.
    fn owes_answer(&self) -> bool {
        let state = lock(&self.0);
        !state.over && state.liveness.unanswered(Moment::now()).is_some()
    }

    /// Sets whether the kernel probes an idle GT/1 peer often.
    fn probe(&self, often: bool) {
        let conn = self.0.conn.upgrade();
        if let Some(conn) = conn.filter(|_| self.version() == Version::One) {
            conn.probe(often);
        }
    }

    /// Whether a peer that has not answered for a while counts as gone.
    fn is_silent(&self) -> bool {
        let delivery = self.0.conn.upgrade().and_then(|conn| conn.delivery());
        match delivery {
            Some(Delivery::Lost) => true,
            Some(Delivery::Moving | Delivery::Blocked) => false,
            // A ping that waits behind a speed limit has not been sent.
            Some(Delivery::Acknowledged) | None => {
                let state = lock(&self.0);
                state.version == Version::Two && state.outbox.is_idle()
            }
        }
    }

    /// Ends the tunnel at once; its session gets the error `why`.
    pub fn abort(&self, why: &'static str) {
        let mut state = lock(&self.0);
        if !state.over {
            state.aborted = Some(Box::new(why));
            state.end(false);
        }
    }

    /// Whether the tunnel has ended.
    pub fn is_over(&self) -> bool {
        lock(&self.0).over
    }

    /// Whether the tunnel is neither closing nor ended.
    pub fn is_open(&self) -> bool {
        self.load().is_some()
    }

    /// Returns how long ago the writer last had something to send.
    pub fn sent(&self) -> Duration {
        lock(&self.0).sent.until(Tick::now())
    }

    /// Whether the session looks at deadlines of the tunnel only.
    #[cfg(all(test, feature = "server"))]
    pub fn rests(&self) -> bool {
        lock(&self.0).rests
    }

    /// Returns the executor thread of the tunnel.
    pub fn thread(&self) -> ShardId {
        self.0.thread
    }

    /// Whether both handles refer to the same tunnel.
    pub fn is(&self, other: &Tunnel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn peer_closed(&self) {
        let mut state = lock(&self.0);
        let streams = state.streams.len() + state.streamless_lanes();
        let step = state.closing.received(streams);
        state.apply(step);
        state.rests = false;
    }
}

/// Probes the peers of these tunnels and returns the tunnels without a sign of life within
/// `patience`: over GT/2, nothing was received; over GT/1, where programs do not answer, the peer's
/// kernel does not answer either. A peer that takes the bytes sent to it is alive, however slow.
pub async fn find_dead(mut tunnels: Vec<Tunnel>, patience: Duration) -> Vec<Tunnel> {
    const STEP: Duration = Duration::from_millis(50);
    let begun = clock::now();
    tunnels.iter().for_each(Tunnel::ask);
    while clock::since(begun) < patience && tunnels.iter().any(Tunnel::owes_answer) {
        Timer::after(STEP).await;
    }
    tunnels.retain(|tunnel| {
        let gone = tunnel.owes_answer() && tunnel.is_silent();
        tunnel.probe(false);
        gone
    });
    tunnels
}
