//! The task of a connection: it sends the connection's datagrams after every event, and wakes at its deadlines.

use super::connection::{wait, ConnectionShared, ConnectionState, ConnectionUse, Phase, CUT};
use super::endpoint::outgoing;
use super::mover::Mover;
use super::setup::{BBR_PROTOCOL, MAX_SEND_WINDOW, STREAMS_PROTOCOL};
use super::socket::OutgoingDatagrams;
use super::streams::{FurtherStreams, FIRST_STREAMS};
use crate::net::{clock, TaskGuard, Timer};
use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{ConnectionError, Dir, Event, StreamEvent, VarInt};
use smallvec::SmallVec;
use std::cell::Cell;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Maximum number of datagrams of one system call: 60 KB of those of Ethernet.
const MAX_SEGMENTS: usize = 40;
/// System calls in a row before other tasks run.
const MAX_CALLS_IN_A_ROW: u32 = 4;
/// Minimum number of bytes that may wait to be sent, beside those in flight.
const MIN_UNSENT: u64 = 16 * 1024;
/// Number of bytes like [`MIN_UNSENT`] where urgent bytes are sent before them.
const STREAMS_UNSENT: u64 = 128 * 1024;
/// Time in which the last bytes of a connection without a user have to arrive.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that the peer has to end its direction of the stream once all bytes have arrived: a close could discard what
/// the peer has not read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

thread_local! {
    /// The buffer of the thread for the datagrams that a connection is about to send.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The task of one connection.
pub struct Driver {
    shared: Arc<ConnectionShared>,
    /// Held until the last bytes are sent.
    guard: Option<TaskGuard>,
    /// The peer's address of the handshake that the endpoint counts.
    counted: Option<IpAddr>,
    timer: Timer,
    /// When `timer` fires.
    due: Option<Instant>,
    /// Datagrams for which the kernel had no room.
    left: Option<(OutgoingDatagrams, Vec<u8>)>,
    /// Whether the path of a client's connection still works.
    path: Mover,
}

/// The result of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All datagrams are sent.
    All,
    /// Some datagrams are left, for which the kernel may have room.
    Some,
    /// The kernel has no room.
    Blocked,
}

/// Wakers to wake once the connection is not locked.
type Woken = SmallVec<[Waker; 4]>;

impl Driver {
    /// Creates the task. The endpoint counts a handshake with `counted`.
    pub fn new(shared: Arc<ConnectionShared>, guard: TaskGuard, counted: Option<IpAddr>) -> Self {
        let is_server = shared.choice.is_some();
        Self {
            path: Mover::new(!is_server),
            shared,
            counted,
            guard: Some(guard),
            timer: Timer::never(),
            due: None,
            left: None,
        }
    }

    /// Handles what has happened to the connection.
    fn events(&mut self, state: &mut ConnectionState, woken: &mut Woken) {
        while let Some(event) = state.proto.poll_endpoint_events() {
            let answer = self.shared.endpoint.handle_event(self.shared.handle, event);
            if let Some(answer) = answer {
                state.proto.handle_event(answer);
            }
        }
        while let Some(event) = state.proto.poll() {
            match event {
                Event::HandshakeDataReady => self.choose(state),
                Event::Connected => {
                    state.phase = Phase::Established;
                    self.let_streams_come(state);
                    self.end_handshake();
                    woken.extend(state.user.take());
                }
                Event::ConnectionLost { reason } => {
                    state.phase = Phase::Over(reason);
                    self.end_handshake();
                    woken.extend(state.take_users());
                }
                Event::Stream(event) => self.stream_event(state, event, woken),
                Event::DatagramReceived => {
                    woken.extend(state.user.take());
                    tell(state, woken, FurtherStreams::datagrams);
                }
                Event::DatagramsUnblocked => {}
            }
        }
    }

    /// Lets a server open streams for visitors.
    fn let_streams_come(&self, state: &mut ConnectionState) {
        let is_server = self.shared.choice.is_some();
        if let Some(further) = state.further.as_mut().filter(|_| !is_server) {
            further.limit = FIRST_STREAMS;
            let limit = VarInt::from_u32(FIRST_STREAMS);
            state.proto.set_max_concurrent_streams(Dir::Bi, limit);
        }
    }

    /// Handles what has happened to streams.
    fn stream_event(&self, state: &mut ConnectionState, event: StreamEvent, woken: &mut Woken) {
        let is_first = |id| state.stream.is_none_or(|first| first == id);
        match event {
            StreamEvent::Readable { id } if is_first(id) => woken.extend(state.reader.take()),
            StreamEvent::Readable { id } => tell(state, woken, |it| it.readable(id)),
            // Its frames are what other streams wait for.
            StreamEvent::Writable { id } if is_first(id) => {
                woken.insert_many(0, state.writer.take());
            }
            StreamEvent::Writable { id } => tell(state, woken, |it| it.writable(id)),
            StreamEvent::Stopped { id, .. } if is_first(id) => {
                state.is_delivered = true;
                woken.extend(state.writer.take());
            }
            StreamEvent::Stopped { id, error_code } => {
                tell(state, woken, |it| it.stopped(id, error_code));
            }
            StreamEvent::Finished { id } if is_first(id) => state.is_delivered = true,
            StreamEvent::Finished { .. } => {}
            StreamEvent::Opened { .. } => {
                woken.extend(state.user.take());
                tell(state, woken, FurtherStreams::opened);
            }
            StreamEvent::Available { .. } => tell(state, woken, FurtherStreams::available),
        }
    }

    /// Chooses what the application protocol asks for: the congestion control, and streams for visitors.
    fn choose(&self, state: &mut ConnectionState) {
        let data = state.proto.crypto_session().handshake_data();
        let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
        let protocol = data.and_then(|data| data.protocol);
        let choice = &self.shared.choice;
        if let (Some(choice), Some(BBR_PROTOCOL)) = (choice, protocol.as_deref()) {
            choice.set_bbr();
        }
        if protocol.as_deref() == Some(STREAMS_PROTOCOL) {
            state.unsent = STREAMS_UNSENT;
            state.further = Some(Box::default());
        }
    }

    fn end_handshake(&mut self) {
        if let Some(peer) = self.counted.take() {
            self.shared.endpoint.handshake_ended(peer);
        }
    }

    /// Closes a connection that is not used any more. Returns when to call this again.
    fn close_unused(&mut self, state: &mut ConnectionState, now: Instant) -> Option<Instant> {
        let code = match state.is_used {
            _ if matches!(state.phase, Phase::Over(_)) => return None,
            ConnectionUse::Used => return None,
            ConnectionUse::Cut => CUT,
            ConnectionUse::Finishing(since) => {
                let farewell = since + FAREWELL_TIMEOUT;
                let end = since + DELIVERY_TIMEOUT;
                // What further streams have sent has to arrive, too.
                let is_all = state.further.is_none() || state.proto.streams().send_streams() == 0;
                let is_delivered = state.is_delivered && is_all;
                if is_delivered && (state.is_read || now >= farewell) {
                    VarInt::from_u32(0)
                } else if now >= end {
                    CUT
                } else {
                    return Some(if now < farewell { farewell } else { end });
                }
            }
        };
        state.proto.close(now, code, Bytes::new());
        state.phase = Phase::Over(ConnectionError::LocallyClosed);
        self.end_handshake();
        None
    }

    /// Sends datagrams.
    fn send(&mut self, cx: &mut Context<'_>, state: &mut ConnectionState, now: Instant) -> Sent {
        let socket = self.shared.endpoint.socket();
        if let Some((out, bytes)) = &self.left {
            if socket.poll_send(cx, bytes, *out).is_pending() {
                return Sent::Blocked;
            }
            self.left = None;
        }
        let mut bytes = OUT.take();
        let mut sent = Sent::Some;
        for _ in 0..MAX_CALLS_IN_A_ROW {
            bytes.clear();
            let Some(transmit) = state.proto.poll_transmit(now, MAX_SEGMENTS, &mut bytes) else {
                sent = Sent::All;
                break;
            };
            let out = outgoing(&transmit);
            let now = bytes.get(..transmit.size).unwrap_or_default();
            if socket.poll_send(cx, now, out).is_pending() {
                self.left = Some((out, now.to_vec()));
                sent = Sent::Blocked;
                break;
            }
        }
        OUT.set(bytes);
        sent
    }
}

/// Notes news of further streams and wakes the task that waits for them.
fn tell(state: &mut ConnectionState, woken: &mut Woken, note: impl FnOnce(&mut FurtherStreams)) {
    if let Some(further) = &mut state.further {
        note(further);
        woken.extend(further.take_waker());
    }
}

/// Returns how many bytes of a connection may be in flight or wait: what the network takes, and `unsent` bytes.
/// Those that wait delay all that is written later.
fn send_window(in_flight: u64, unsent: u64) -> u64 {
    let window = in_flight.saturating_add(unsent.max(MIN_UNSENT));
    window.min(MAX_SEND_WINDOW)
}

/// Ends the connection with its task, even if that panics.
impl Drop for Driver {
    fn drop(&mut self) {
        self.end_handshake();
        let mut state = self.shared.lock();
        if !matches!(state.phase, Phase::Over(_)) {
            state.phase = Phase::Over(ConnectionError::LocallyClosed);
        }
        let users = state.take_users();
        drop(state);
        users.into_iter().for_each(Waker::wake);
        self.shared.endpoint.remove(&self.shared);
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = this.shared.clone();
        let now = clock::now();
        let mut woken = Woken::new();
        let mut state = shared.lock();
        wait(&mut state.driver, cx);
        if state.proto.poll_timeout().is_some_and(|due| due <= now) {
            state.proto.handle_timeout(now);
        }
        this.events(&mut state, &mut woken);
        let limit = this.close_unused(&mut state, now);
        let sent = this.send(cx, &mut state, now);
        let moves = this.path.check(&this.shared, &mut state, now);
        let in_flight = state.proto.congestion_state().window();
        let window = send_window(in_flight, state.unsent);
        state.send_window = window;
        state.proto.set_send_window(window);
        // Sending may have made room, or have ended the connection.
        this.events(&mut state, &mut woken);
        let is_over = state.proto.is_drained();
        if sent == Sent::All && state.proto.is_closed() {
            this.guard = None;
        }
        let due = [state.proto.poll_timeout(), limit, moves.deadline];
        let due = due.into_iter().flatten();
        let due = due.min();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if is_over {
            return Poll::Ready(());
        }
        if due != this.due {
            this.due = due;
            match due {
                Some(due) => this.timer.set_at(due),
                None => this.timer = Timer::never(),
            }
        }
        let rings = Pin::new(&mut this.timer).poll(cx).is_ready();
        if rings {
            this.due = None;
        }
        if rings || sent == Sent::Some || moves.speaks {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_waits_behind_what_the_network_takes() {
        assert_eq!(send_window(100_000, 30_000), 130_000);
        assert_eq!(send_window(100_000, 0), 100_000 + MIN_UNSENT);
        assert_eq!(send_window(u64::MAX, u64::MAX), MAX_SEND_WINDOW);
    }
}
