//! The state of one tunnel, behind its lock: its streams, and what they share.

use super::closing::{Closing, ClosingStep};
use super::liveness::Liveness;
use super::outbox::Outbox;
use super::round_trip::RoundTrip;
use super::scheduler::Granted;
use super::stream_state::{CloseReason, StreamState};
use super::window::Budget;
use super::{Policy, Traffic, STUCK, STUCK_ALONE};
use crate::net::clock::Tick;
use crate::wire::frame::{Header, ResetCode, Signal};
use crate::wire::{Malformed, Version};
use std::collections::HashMap;
use std::io::IoSlice;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Streams whose turn it is at the same time, so that there is always one that sends.
pub(super) const MAX_SENDERS: usize = 2;
/// The round-trip time that windows go by is at most so old.
const ROUND_TRIP_LIFETIME: Duration = Duration::from_secs(1);

/// What of [`Policy`] is asked for again and again.
pub(super) struct PolicyLimits {
    pub backlog: usize,
    pub backlogs: usize,
    pub credit: u32,
}

/// Whether a tunnel takes new streams, or has to be without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(super) enum Parking {
    None,
    /// It takes none once its last visitor has ended.
    Due,
    Parked,
}

pub(super) struct TunnelState {
    pub version: Version,
    pub outbox: Outbox,
    pub streams: HashMap<u32, StreamState>,
    pub traffic: Traffic,
    pub closing: Closing,
    pub policy: PolicyLimits,
    /// Of the windows, where there are any.
    pub budget: Option<Budget>,
    pub round_trip: RoundTrip,
    pub liveness: Liveness,
    /// Bytes moved when it was last measured.
    pub measured: u64,
    /// Streams that only wait for the last word of who asked.
    pub answered: usize,
    /// Streams of visitors that have ended their direction in a wire that cannot say so.
    pub ending: usize,
    /// Streams whose backlog is full and may grow.
    pub full: usize,
    /// Bytes in all backlogs.
    pub waiting: usize,
    /// When the writer last got rid of something.
    pub sent: Tick,
    /// The inbox, while it must not read.
    pub inbox: Option<Waker>,
    pub parking: Parking,
    /// What waits until the tunnel is parked.
    pub parker: Option<Waker>,
    pub over: bool,
    /// Why it was ended before its time, if it was.
    pub aborted: Option<&'static str>,
}

impl TunnelState {
    pub fn new(policy: &Policy) -> Self {
        Self {
            version: policy.version,
            outbox: Outbox::new(
                policy.version,
                policy.speed.as_ref().map(|speed| speed.send.clone()),
            ),
            streams: HashMap::new(),
            traffic: Traffic::default(),
            closing: Closing::Open,
            policy: PolicyLimits {
                backlog: policy.backlog,
                backlogs: policy.backlogs,
                credit: policy.credit,
            },
            budget: (policy.version == Version::Two).then(|| Budget::new(policy.growth)),
            round_trip: RoundTrip::default(),
            liveness: Liveness::new(Instant::now()),
            measured: 0,
            answered: 0,
            ending: 0,
            full: 0,
            waiting: 0,
            sent: Tick::now(),
            inbox: None,
            parking: Parking::None,
            parker: None,
            over: false,
            aborted: None,
        }
    }

    pub fn take(&mut self, step: ClosingStep) {
        let times = match step {
            ClosingStep::Nothing => return,
            ClosingStep::SayClose => 1,
            ClosingStep::Finish => 2,
            ClosingStep::SayAndFinish => 3,
            ClosingStep::End => return self.end(true),
        };
        for _ in 0..times {
            self.outbox.push(Signal::Close);
        }
        if step != ClosingStep::SayClose {
            self.outbox.finish();
        }
    }

    /// The end of everything. Streams learn that theirs was cut, unless the peer had closed
    /// them; what they have received they still deliver.
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
        self.streams.values_mut().for_each(StreamState::lose);
        self.full = 0;
    }

    /// Ends the streams that the peer has not been told of.
    pub fn outdate_unannounced(&mut self) {
        let streams = self.streams.values_mut();
        streams
            .filter(|entry| entry.unannounced.is_some())
            .for_each(|entry| entry.end(CloseReason::Outdated));
    }

    /// A stream's visitor has ended its direction.
    pub fn ends(&mut self, task: u32) {
        if let Some(entry) = self.streams.get_mut(&task) {
            self.ending += usize::from(!std::mem::replace(&mut entry.ending, true));
            self.park_if_due();
        }
    }

    /// Takes no more streams if that is due: before the next visitor comes.
    pub fn park_if_due(&mut self) {
        if self.ending < self.streams.len() {
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

    /// Lets streams that wait for room try again, until it is the turn of `most`.
    pub fn admit(&mut self, most: usize) {
        while self.outbox.queue.coming() < most {
            let Some((task, turn)) = self.outbox.queue.pop() else {
                break;
            };
            // It may have ended meanwhile.
            if let Some(entry) = self.streams.get_mut(&task) {
                entry.turn = turn;
                self.outbox.queue.begin();
                entry.wake();
            }
        }
    }

    /// A stream whose turn it was, if it was, has used it or will not.
    pub fn pass_on(&mut self, turn: Granted) {
        if matches!(turn, Granted::Comes(_)) {
            self.outbox.queue.end();
            self.admit(MAX_SENDERS);
        }
    }

    pub fn ping(&mut self, now: Instant) {
        match self.version {
            Version::One => self.outbox.push(Signal::Ping),
            Version::Two => {
                let number = self.round_trip.ping(now);
                self.outbox.push(Header::Ping(number));
                self.liveness.asked(now);
            }
        }
    }

    /// A stream of ours begins. A peer that was silent is asked for a sign of life: in GT/2 by
    /// a ping; in GT/1 its kernel has to acknowledge the stream's first bytes.
    pub fn begin_stream(&mut self) {
        let now = Instant::now();
        if self.liveness.begin_stream(now) {
            if self.version == Version::Two {
                self.ping(now);
            }
            // It looks at the time more often until there is an answer.
            self.wake_inbox();
        }
    }

    /// Asks how far away the peer is, if that is not known or bytes have moved since.
    pub fn measure(&mut self) {
        if self.version == Version::One {
            return;
        }
        let (now, moved) = (Instant::now(), self.traffic.bytes());
        let wanted = self.round_trip.get().is_none() || moved != self.measured;
        if wanted && self.round_trip.is_due(now, ROUND_TRIP_LIFETIME) {
            self.measured = moved;
            self.ping(now);
        }
    }

    /// Gives the peer credit for what a stream's reader has taken, if it is worth it.
    pub fn give_credit(&mut self, task: u32) {
        let (Some(budget), Some(entry)) = (&mut self.budget, self.streams.get_mut(&task)) else {
            return;
        };
        if let Some(bytes) = entry.grant(false, self.round_trip.least(), budget) {
            self.outbox.push(Header::Credit { task, bytes });
            self.measure();
        }
    }

    /// Too many bytes wait: who has taken nothing for the longest time loses all.
    pub fn shed(&mut self, now: Tick) {
        let waiting = self.streams.values_mut().filter_map(|entry| {
            let key = (entry.waits_since(now)?, entry.waiting());
            Some((key, entry))
        });
        if let Some((_, entry)) = waiting.max_by_key(|(key, _)| *key) {
            entry.end(CloseReason::Stuck);
            self.waiting = self.waiting.saturating_sub(entry.discard());
        }
    }

    pub fn remove(&mut self, task: u32) {
        let Some(entry) = self.streams.remove(&task) else {
            return;
        };
        self.relieve(entry.waiting(), entry.full);
        self.answered -= usize::from(entry.answered_whole);
        self.ending -= usize::from(entry.ending);
        if let Some(budget) = &mut self.budget {
            budget.end(&entry.window);
        }
        if let Some(goodbye) = entry.goodbye(task) {
            self.outbox.push(goodbye);
        }
        self.pass_on(entry.turn);
        self.park_if_due();
        if self.streams.is_empty() {
            self.streams.shrink_to(16);
            let step = self.closing.idle();
            self.take(step);
        }
    }

    /// The tunnel must not read.
    pub fn is_stalled(&self) -> bool {
        self.version == Version::One && (self.full > 0 || self.waiting > self.policy.backlogs)
    }

    /// `taken` bytes have left a backlog, which is (`relieved`) not full any more.
    pub fn relieve(&mut self, taken: usize, relieved: bool) {
        let stalled = self.is_stalled();
        self.waiting = self.waiting.saturating_sub(taken);
        self.full = self.full.saturating_sub(usize::from(relieved));
        if stalled && !self.is_stalled() {
            self.wake_inbox();
        }
    }

    /// Looks at the deadlines of all streams.
    pub fn sweep(&mut self, now: Tick) {
        let limit = if self.streams.len() > 1 {
            STUCK
        } else {
            STUCK_ALONE
        };
        let crowded = self.version == Version::One && self.waiting > self.policy.backlogs;
        for entry in self.streams.values_mut() {
            if entry.has_lost_sink() {
                entry.end(CloseReason::Refused);
            } else if (entry.full || crowded) && entry.is_stuck(now, limit) {
                entry.end(CloseReason::Stuck);
            } else if entry.is_idle(now) {
                entry.end(CloseReason::TimedOut);
            }
        }
    }

    /// Payload for a stream, in pieces, with its end right behind if it is the `last`. Bytes of a
    /// stream nobody knows are dropped.
    pub fn deliver(&mut self, task: u32, pieces: &mut [IoSlice<'_>], last: bool, now: Tick) {
        if let Some(entry) = self.streams.get_mut(&task) {
            let all: usize = pieces.iter().map(|piece| piece.len()).sum();
            if entry.expects_more() {
                self.traffic.count_received(all);
            }
            let before = entry.waiting();
            let filled = entry.deliver(pieces, last, now, self.policy.backlog);
            let more = entry.waiting() - before;
            self.waiting += more;
            self.full += usize::from(filled);
            let Some(budget) = &mut self.budget else {
                return;
            };
            let credit = match more < all {
                true => entry.grant(false, self.round_trip.least(), budget),
                false => None,
            };
            if let Some(bytes) = credit {
                self.outbox.push(Header::Credit { task, bytes });
                self.measure();
            }
            if self.waiting > self.policy.backlogs {
                self.shed(now);
            }
        }
    }

    /// The peer sends `len` bytes of a stream. Those of one that nobody knows, as when it has
    /// ended here a moment ago, are dropped when they come.
    pub fn spend(&mut self, task: u32, len: u32) -> Result<(), Malformed> {
        match (&self.budget, self.streams.get_mut(&task)) {
            (Some(_), Some(entry)) if len > entry.window.left() => Err(Malformed::Overrun(task)),
            (Some(_), Some(entry)) => {
                entry.window.spend(len);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn credit(&mut self, task: u32, bytes: u32) -> Result<(), Malformed> {
        let entry = self.streams.get_mut(&task);
        if entry.is_none_or(|entry| entry.credit(bytes)) {
            Ok(())
        } else {
            Err(Malformed::TooMuchCredit(task))
        }
    }

    pub fn ended_by_peer(&mut self, task: u32, why: CloseReason) {
        if let Some(entry) = self.streams.get_mut(&task) {
            entry.end(why);
            self.answered += usize::from(entry.becomes_answered());
            // What waits cannot grow any more: nobody has to wait for it.
            let relieved = std::mem::take(&mut entry.full);
            self.relieve(0, relieved);
        }
    }

    /// A stream of the peer's begins; false if it is not new or there may be no more. The
    /// peer is told of the latter.
    pub fn accept(&mut self, task: u32, credit: u32, most: usize) -> bool {
        if self.streams.contains_key(&task) {
            return false;
        }
        if self.over || self.streams.len() >= most {
            let reason = ResetCode::TooManyStreams;
            self.outbox.push(Header::Reset { task, reason });
            return false;
        }
        let mut entry = StreamState::opened_by_peer();
        if let Some(budget) = &mut self.budget {
            entry = entry.with_windows(credit, budget.window_of_peer());
        }
        self.streams.insert(task, entry);
        self.traffic.count_stream();
        true
    }
}
