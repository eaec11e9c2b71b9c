//! The state of one tunnel, behind its lock: its streams, and what they share.

use super::closing::{Closing, ClosingStep};
use super::liveness::Liveness;
use super::moment::Moment;
use super::outbox::{Outbox, MAX_SENDERS};
use super::quic_carrier::QuicCarrier;
use super::round_trip::RoundTrip;
use super::scheduler::Turn;
use super::stream_state::{CloseReason, StreamState};
use super::stream_table::StreamTable;
use super::window::Budget;
use super::{Policy, Traffic, TunnelShared, STUCK_ALONE_TIMEOUT, STUCK_TIMEOUT};
use crate::net::clock::Tick;
use crate::wire::frame::{Header, ResetCode, Signal, StreamId};
use crate::wire::{Malformed, Version};
use std::io::IoSlice;
use std::sync::Weak;
use std::task::Waker;
use std::time::Duration;

/// The round-trip time is measured again after this long, if bytes have moved.
const ROUND_TRIP_LIFETIME: Duration = Duration::from_secs(1);

/// The parts of [`Policy`] that are needed after the tunnel has been set up.
pub(super) struct PolicyLimits {
    pub backlog: u32,
    pub backlogs: u32,
    pub credit: u32,
    pub origins: bool,
}

/// Whether a tunnel takes no new streams, so that its connection can move to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(super) enum Parking {
    None,
    /// The tunnel will park when the last visitor has ended its direction.
    Due,
    Parked,
}

/// One tunnel's streams, and the resources that they share.
pub(super) struct TunnelState {
    pub version: Version,
    pub outbox: Outbox,
    pub streams: StreamTable,
    pub traffic: Traffic,
    pub closing: Closing,
    pub policy: PolicyLimits,
    /// The budget of the receive windows; `None` in GT/1, which has no windows.
    pub budget: Option<Budget>,
    /// What carries the streams over QUIC, if each one has a stream of QUIC.
    pub quic: Option<Box<QuicCarrier>>,
    pub round_trip: RoundTrip,
    pub liveness: Liveness,
    /// Bytes carried at the last round-trip measurement; in GT/1, which has none, at the last
    /// [`Self::expect_sign_of_life`].
    pub measured: u64,
    /// Number of streams whose opener is the only end that has not ended its direction.
    pub answered: u32,
    /// Number of streams whose visitor has ended its direction in GT/1, which cannot tell the peer.
    pub ending: u32,
    /// Number of streams whose backlog is full and may grow.
    pub full: u32,
    /// Bytes in all backlogs.
    pub waiting: usize,
    /// When the writer last took something to send.
    pub sent: Tick,
    /// The inbox's waker, while it must not read.
    pub inbox: Option<Waker>,
    /// Whether the inbox checks no deadlines of streams for now; see [`Self::end_rest`].
    pub rests: bool,
    /// Whether streams have been open since the tunnel last rested, so that more are likely.
    pub warm: bool,
    /// Whether the inbox is to return a notice.
    pub notified: bool,
    pub parking: Parking,
    /// The task that waits until the tunnel is parked or unused. In a box: few tunnels ever have one.
    pub parker: Option<Box<Waker>>,
    pub over: bool,
    /// Why the tunnel was aborted, if it was. In a box: each idle tunnel has this field.
    #[allow(clippy::redundant_allocation)]
    pub aborted: Option<Box<&'static str>>,
}

impl TunnelState {
    pub fn new(policy: &Policy, tunnel: Weak<TunnelShared>) -> Self {
        Self {
            version: policy.version,
            outbox: Outbox::new(
                tunnel,
                policy.version,
                policy.speed.as_ref().map(|speed| speed.send.clone()),
            ),
            streams: StreamTable::default(),
            traffic: Traffic::default(),
            closing: Closing::Open,
            policy: PolicyLimits {
                backlog: policy.backlog,
                backlogs: policy.backlogs,
                credit: policy.credit,
                origins: policy.origins,
            },
            budget: (policy.version == Version::Two).then(|| Budget::new(policy.growth)),
            quic: None,
            round_trip: RoundTrip::default(),
            liveness: Liveness::new(Moment::now()),
            measured: 0,
            answered: 0,
            ending: 0,
            full: 0,
            waiting: 0,
            sent: Tick::now(),
            inbox: None,
            rests: false,
            warm: false,
            notified: false,
            parking: Parking::None,
            parker: None,
            over: false,
            aborted: None,
        }
    }

    /// Sends the closes of a step of the closing handshake, and ends the outbox with the last one.
    pub fn apply(&mut self, step: ClosingStep) {
        let times = match step {
            ClosingStep::Nothing => return,
            ClosingStep::SendClose => 1,
            ClosingStep::Finish => 2,
            ClosingStep::SendAndFinish => 3,
            ClosingStep::End => {
                if !self.outlives_peer() {
                    self.end(true);
                }
                return;
            }
        };
        if let Some(opened) = self.streams_opened() {
            self.outbox.push(opened);
        }
        for _ in 0..times {
            self.outbox.push(Signal::Close);
        }
        if step != ClosingStep::SendClose {
            self.outbox.finish();
        }
    }

    /// Ends the tunnel and its streams. Streams that the peer had not closed count as cut; what
    /// they have received is still delivered.
    pub fn end(&mut self, orderly: bool) {
        self.over = true;
        self.closing = Closing::Over;
        if !orderly {
            self.outbox.fail();
        } else {
            self.outbox.finish();
        }
        self.cut_streams();
        self.wake_inbox();
    }

    pub fn cut_streams(&mut self) {
        self.cut_lanes();
        self.streams.values_mut().for_each(StreamState::lose);
        self.full = 0;
    }

    /// Ends the streams that the peer does not know of yet.
    pub fn outdate_unannounced(&mut self) {
        let streams = self.streams.values_mut();
        streams
            .filter(|stream| stream.unannounced.is_some())
            .for_each(|stream| stream.end(CloseReason::Outdated));
    }

    /// Notes that the visitor of a stream has ended its direction.
    pub fn visitor_ended(&mut self, stream_id: StreamId) {
        if let Some(stream) = self.streams.get_mut(stream_id) {
            self.ending += u32::from(!std::mem::replace(&mut stream.ending, true));
            self.park_if_due();
        }
    }

    /// Parks the tunnel if that is due, before the next visitor comes.
    pub fn park_if_due(&mut self) {
        if (self.ending as usize) < self.streams.len() {
            return;
        }
        if self.parking == Parking::Due {
            self.parking = Parking::Parked;
        }
        if let Some(parker) = self.parker.take() {
            parker.wake();
        }
    }

    /// Whether streams may be opened here.
    pub fn takes_streams(&self) -> bool {
        !self.over && self.closing == Closing::Open && self.parking != Parking::Parked
    }

    pub fn wake_inbox(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.wake();
        }
    }

    /// Whether no stream and no end of the tunnel has a deadline.
    pub fn is_quiet(&self) -> bool {
        let is_unused = self.streams.is_empty() && self.streamless_lanes() == 0;
        is_unused && self.closing == Closing::Open && !self.over
    }

    /// Gives back the memory that a tunnel without streams does not need.
    pub fn rest(&mut self) {
        self.warm = false;
        self.streams.tidy();
        self.outbox.rest();
    }

    /// Lets the inbox check deadlines at its usual interval again.
    pub fn end_rest(&mut self) {
        if std::mem::take(&mut self.rests) {
            self.wake_inbox();
        }
    }

    /// Grants turns to waiting streams, until `most` have one.
    pub fn admit(&mut self, most: usize) {
        if self.is_blocked() {
            return;
        }
        while self.outbox.scheduler.granted() < most {
            let Some((stream_id, turn)) = self.outbox.scheduler.pop() else {
                break;
            };
            // The stream may have ended meanwhile.
            if let Some(stream) = self.streams.get_mut(stream_id) {
                stream.turn = turn;
                self.outbox.scheduler.begin();
                stream.wake();
            }
        }
    }

    /// Ends a granted turn that was used or given up, and admits the next stream.
    pub fn pass_on(&mut self, turn: Turn) {
        if matches!(turn, Turn::Granted(_)) {
            self.outbox.scheduler.end();
            self.admit(MAX_SENDERS);
        }
    }

    pub fn ping(&mut self, now: Moment) {
        match self.version {
            Version::One => self.outbox.push(Signal::Ping),
            Version::Two => {
                let number = self.round_trip.ping(now);
                self.outbox.push(Header::Ping(number));
                self.liveness.asked(now);
            }
        }
    }

    /// Notes that a stream begins. A peer that was silent is asked for a sign of life: in GT/2 by a
    /// ping; in GT/1 its kernel has to acknowledge the stream's first bytes.
    pub fn begin_stream(&mut self) {
        let now = Moment::now();
        self.warm = true;
        self.end_rest();
        if self.liveness.begin_stream(now) {
            self.probe(now);
        }
    }

    /// Probes a peer that has sent nothing since a stream began, if it is time to.
    pub fn probe_if_due(&mut self) {
        let now = Moment::now();
        if self.liveness.is_probe_due(now) {
            self.probe(now);
        }
    }

    /// Has a peer probed that has been silent since bytes of open streams moved. Over QUIC, no kernel ends the
    /// connection of a program that was killed: its visitors would wait as long as the connection may be idle. To be
    /// called before [`Self::measure`].
    pub fn expect_sign_of_life(&mut self) {
        let bytes = self.traffic.bytes();
        let has_moved = self.measured != bytes;
        if self.version == Version::One {
            self.measured = bytes;
        }
        let now = Moment::now();
        if has_moved && !self.streams.is_empty() && self.liveness.begin_stream(now) {
            self.probe(now);
        }
    }

    fn probe(&mut self, now: Moment) {
        if self.version == Version::Two {
            self.ping(now);
        }
        // The inbox checks deadlines more often until there is an answer.
        self.wake_inbox();
    }

    /// Starts a round-trip measurement if the time is not known or bytes have moved since the last
    /// one.
    pub fn measure(&mut self) {
        if self.version == Version::One {
            return;
        }
        let (now, moved) = (Moment::now(), self.traffic.bytes());
        let wanted = self.round_trip.get().is_none() || moved != self.measured;
        if wanted && self.round_trip.is_due(now, ROUND_TRIP_LIFETIME) {
            self.measured = moved;
            self.ping(now);
        }
    }

    /// Gives the peer credit for the bytes that a stream's reader has taken, if it is worth a
    /// frame.
    pub fn give_credit(&mut self, stream_id: StreamId) {
        let (Some(budget), Some(stream)) = (&mut self.budget, self.streams.get_mut(stream_id))
        else {
            return;
        };
        if let Some(bytes) = stream.grant(false, self.round_trip.minimum(), budget) {
            self.outbox.push(Header::Credit { stream_id, bytes });
            self.measure();
        }
    }

    /// Cuts the stream whose reader has taken nothing for the longest time, because too many bytes
    /// wait.
    pub fn shed(&mut self, now: Tick) {
        let waiting = self.streams.values_mut().filter_map(|stream| {
            let key = (stream.waits_since(now)?, stream.waiting());
            Some((key, stream))
        });
        if let Some((_, stream)) = waiting.max_by_key(|(key, _)| *key) {
            stream.end(CloseReason::Stuck);
            self.waiting = self.waiting.saturating_sub(stream.discard());
        }
    }

    pub fn remove(&mut self, stream_id: StreamId) {
        let Some(mut stream) = self.streams.remove(stream_id) else {
            return;
        };
        if let Some(record) = &stream.record {
            record.end(stream.ended, stream.failure);
        }
        self.relieve(stream.waiting(), stream.full);
        self.answered -= u32::from(stream.answered_whole);
        self.ending -= u32::from(stream.ending);
        if let Some(budget) = &mut self.budget {
            budget.end(&stream.window);
        }
        if self.quic.is_some() {
            self.end_lane(stream_id, &mut stream);
        } else if let Some(goodbye) = stream.goodbye(stream_id) {
            self.outbox.push(goodbye);
        }
        self.pass_on(stream.turn);
        self.park_if_due();
        self.settle();
    }

    /// Goes on with the graceful end if that has waited for the last stream.
    pub fn settle(&mut self) {
        if self.streams.is_empty() && self.streamless_lanes() == 0 {
            let step = self.closing.idle();
            self.apply(step);
        }
        self.end_if_due();
    }

    /// Whether the backlogs together are longer than they may be.
    fn is_crowded(&self) -> bool {
        self.waiting > self.policy.backlogs as usize
    }

    /// Whether the inbox must not read.
    pub fn is_stalled(&self) -> bool {
        self.version == Version::One && (self.full > 0 || self.is_crowded())
    }

    /// Notes that `taken` bytes have left a backlog. `relieved`: it was full and no longer is.
    pub fn relieve(&mut self, taken: usize, relieved: bool) {
        let stalled = self.is_stalled();
        self.waiting = self.waiting.saturating_sub(taken);
        self.full = self.full.saturating_sub(u32::from(relieved));
        if stalled && !self.is_stalled() {
            self.wake_inbox();
        }
    }

    /// Checks the deadlines of all streams.
    pub fn sweep(&mut self, now: Tick) {
        let limit = if self.streams.len() > 1 {
            STUCK_TIMEOUT
        } else {
            STUCK_ALONE_TIMEOUT
        };
        self.sweep_lanes(now);
        let crowded = self.version == Version::One && self.is_crowded();
        for stream in self.streams.values_mut() {
            if stream.has_lost_sink() {
                stream.end(CloseReason::Refused);
            } else if (stream.full || crowded) && stream.is_stuck(now, limit) {
                stream.end(CloseReason::Stuck);
            } else if stream.is_idle(now) {
                stream.end(CloseReason::TimedOut);
            }
        }
    }

    /// Delivers payload for a stream, in pieces; the end of its direction follows if it is the
    /// `last`. Bytes for an unknown stream are dropped.
    pub fn deliver(
        &mut self,
        stream_id: StreamId,
        pieces: &mut [IoSlice<'_>],
        last: bool,
        now: Tick,
    ) {
        if let Some(stream) = self.streams.get_mut(stream_id) {
            let all: usize = pieces.iter().map(|piece| piece.len()).sum();
            if stream.expects_more() {
                self.traffic.count_received(all);
            }
            let before = stream.waiting();
            let filled = stream.deliver(pieces, last, now, self.policy.backlog as usize);
            let more = stream.waiting() - before;
            self.waiting += more;
            self.full += u32::from(filled);
            let Some(budget) = &mut self.budget else {
                return;
            };
            let credit = match more < all {
                true => stream.grant(false, self.round_trip.minimum(), budget),
                false => None,
            };
            if let Some(bytes) = credit {
                self.outbox.push(Header::Credit { stream_id, bytes });
                self.measure();
            }
            if self.is_crowded() {
                self.shed(now);
            }
        }
    }

    /// Takes the `len` bytes of a frame from the stream's window. A stream may be unknown because
    /// it has just ended here; its bytes are then dropped.
    pub fn spend(&mut self, stream_id: StreamId, len: u32) -> Result<(), Malformed> {
        match (&self.budget, self.streams.get_mut(stream_id)) {
            (Some(_), Some(stream)) if len > stream.window.left() => {
                Err(Malformed::Overrun(stream_id))
            }
            (Some(_), Some(stream)) => {
                stream.window.spend(len);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn credit(&mut self, stream_id: StreamId, bytes: u32) -> Result<(), Malformed> {
        let stream = self.streams.get_mut(stream_id);
        if stream.is_none_or(|stream| stream.credit(bytes)) {
            Ok(())
        } else {
            Err(Malformed::TooMuchCredit(stream_id))
        }
    }

    pub fn ended_by_peer(&mut self, stream_id: StreamId, why: CloseReason) {
        if let Some(stream) = self.streams.get_mut(stream_id) {
            stream.end(why);
            self.answered += u32::from(stream.becomes_answered());
            // The backlog cannot grow any more, so no other stream has to wait for it.
            let relieved = std::mem::take(&mut stream.full);
            self.relieve(0, relieved);
        }
        self.end_if_due();
    }

    /// Accepts a stream that the peer opens. False if it exists already, or if there are too many:
    /// then the stream is reset.
    pub fn accept(&mut self, stream_id: StreamId, credit: u32, most: usize) -> bool {
        if self.streams.contains(stream_id) {
            return false;
        }
        if self.over || self.streams.len() >= most {
            let reason = ResetCode::TooManyStreams;
            self.outbox.push(Header::Reset { stream_id, reason });
            return false;
        }
        let mut stream = StreamState::opened_by_peer();
        if let Some(budget) = &mut self.budget {
            stream = stream.with_windows(credit, budget.window_of_peer());
        }
        self.streams.insert(stream_id, stream);
        self.traffic.count_stream();
        (self.rests, self.warm) = (false, true);
        true
    }
}
