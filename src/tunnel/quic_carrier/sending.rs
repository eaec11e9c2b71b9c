//! The sending half of a tunnel over QUIC: streams write into their lanes when it is their turn.

use super::{reset_code, SendRoom, NORMAL_CLOSE};
use crate::net::clock::Tick;
use crate::net::quic::{QuicStreamId, Urgency};
use crate::net::{with_read_buf, Throttle};
use crate::tunnel::outbox::MAX_SENDERS;
use crate::tunnel::scheduler::Turn;
use crate::tunnel::stream_state::{CloseReason, Haste};
use crate::tunnel::tunnel_state::TunnelState;
use crate::wire::frame::{Header, StreamId};
use smallvec::SmallVec;
use std::io;
use std::task::{Context, Poll};

/// Maximum bytes of one write while streams take turns.
const SHARED_WRITE: usize = 16 * 1024;
/// Maximum bytes of one write of a bulk stream while no other one waits.
const WRITE: usize = 64 * 1024;
/// Maximum bytes of one write of an interactive stream while the connection takes no more of bulk streams.
const URGENT_WRITE: usize = 2 * 1024;

impl TunnelState {
    /// Sends bytes that `fill` writes, as [`Stream::poll_fill`](crate::tunnel::Stream::poll_fill) does.
    pub fn poll_fill_lane(
        &mut self,
        stream_id: StreamId,
        cx: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let now = Tick::now();
        let is_open = self.open_lane(stream_id);
        let (Some(quic), Some(stream)) = (&mut self.quic, self.streams.get_mut(stream_id)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if stream.has_ended() || stream.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let haste = stream.haste(now);
        let bulk = haste == Haste::Bulk;
        let (turn, credit) = (stream.turn, stream.credit);
        stream.keep_waker(cx);
        let Some(lane) = &mut stream.lane else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some(id) = lane.id.filter(|_| is_open) else {
            return self.give_up_turn(stream_id, turn);
        };
        if lane.is_stopped || !lane.head.is_empty() || !lane.unsent.is_empty() || credit == 0 {
            return self.give_up_turn(stream_id, turn);
        }
        let urgency = match haste {
            // One of them before the other would make answers late, each time one of another stream.
            Haste::Interactive | Haste::Answer => Urgency::Urgent,
            Haste::Bulk => Urgency::Bulk,
        };
        if lane.urgency != urgency {
            lane.urgency = urgency;
            quic.streams.set_urgency(id, urgency);
        }
        let others_wait = !self.outbox.scheduler.is_empty();
        let must_wait = match (quic.room, turn) {
            (_, Turn::Waiting) | (SendRoom::None(_), _) => true,
            (SendRoom::Little(_), _) => bulk,
            (SendRoom::Free, Turn::None) => bulk && others_wait,
            (SendRoom::Free, Turn::Granted(_)) => false,
        };
        if must_wait {
            stream.turn = Turn::Waiting;
            match turn {
                Turn::None => self.outbox.scheduler.push(stream_id, bulk),
                Turn::Granted(number) => {
                    self.outbox.scheduler.end();
                    self.outbox.scheduler.insert(stream_id, bulk, number);
                }
                Turn::Waiting => {}
            }
            return Poll::Pending;
        }
        let mut room = match quic.room {
            SendRoom::Free if bulk && !others_wait => WRITE,
            SendRoom::Free => SHARED_WRITE,
            SendRoom::Little(_) | SendRoom::None(_) => URGENT_WRITE,
        };
        room = room.min(usize::try_from(credit).unwrap_or(usize::MAX));
        let limit = self.outbox.limit().filter(|limit| limit.is_limited());
        if let Some(limit) = limit {
            let throttle = lane
                .throttle
                .get_or_insert_with(|| Box::new(Throttle::new(limit.clone())));
            match throttle.poll_grant(cx, room) {
                Poll::Ready(granted) => room = room.min(granted),
                Poll::Pending => return self.give_up_turn(stream_id, turn),
            }
        }
        let waits = bulk && turn != Turn::None;
        let filled = with_read_buf(|buf| {
            let most = room.min(buf.len());
            let buf = buf.get_mut(..most).unwrap_or_default();
            let filled = fill(cx, buf);
            let Poll::Ready(Ok(n @ 1..)) = filled else {
                return filled.map_ok(|n| (n, 0));
            };
            let bytes = buf.get(..n).unwrap_or_default();
            let flags = (stream.answered, waits);
            let sent = lane.send((&quic.streams, id, stream_id), bytes, flags);
            if sent.taken < n {
                lane.unsent = bytes.get(sent.taken..).unwrap_or_default().to_vec();
                quic.room = match bulk {
                    true => SendRoom::Little(id),
                    false => SendRoom::None(id),
                };
            }
            Poll::Ready(Ok((n, sent.taken - sent.in_stream)))
        });
        let (n, as_datagrams) = match filled {
            Poll::Ready(Ok((n @ 1.., as_datagrams))) => (n, as_datagrams),
            other => {
                stream.turn = Turn::None;
                self.pass_on(turn);
                return other.map_ok(|(n, _)| n);
            }
        };
        if let Some(throttle) = &mut lane.throttle {
            throttle.take(n);
        }
        stream.turn = Turn::None;
        stream.sent(n, now);
        // A DATAGRAM needs no credit.
        let spared = u32::try_from(as_datagrams).unwrap_or_default();
        stream.credit = stream.credit.saturating_add(spared);
        self.traffic.count_sent(n);
        self.sent = now;
        if let Some(budget) = &mut self.budget {
            if let Some(bytes) = stream.grant(true, self.round_trip.minimum(), budget) {
                self.outbox.push(Header::Credit { stream_id, bytes });
            }
        }
        self.pass_on(turn);
        Poll::Ready(Ok(n))
    }

    /// Lets the next stream have the turn of one that cannot use it.
    pub(super) fn give_up_turn<T>(&mut self, stream_id: StreamId, turn: Turn) -> Poll<T> {
        if matches!(turn, Turn::Granted(_)) {
            if let Some(stream) = self.streams.get_mut(stream_id) {
                stream.turn = Turn::None;
            }
            self.pass_on(turn);
        }
        Poll::Pending
    }

    /// Sends what is left of a lane that may be written again, and lets others write if it was in their way.
    pub(super) fn lane_is_writable(&mut self, id: QuicStreamId) {
        let Some(quic) = &mut self.quic else {
            return;
        };
        if let Some(stream_id) = quic.known.get(&id).copied() {
            if let Some(stream) = self.streams.get_mut(stream_id) {
                if let Some(lane) = &mut stream.lane {
                    if !lane.flush(&quic.streams, stream_id) {
                        return;
                    }
                }
                stream.wake();
            }
        } else if let Some(orphan) = quic.orphans.get_mut(&id) {
            if !orphan.lane.flush(&quic.streams, orphan.stream_id) {
                return;
            }
            quic.orphans.remove(&id);
        }
        if quic.room.blocked_by() == Some(id) {
            quic.room = SendRoom::Free;
            self.admit(MAX_SENDERS);
        }
        self.settle();
    }

    /// Opens the lanes that wait for the peer to allow more.
    pub(super) fn open_awaited(&mut self) {
        let unannounced: SmallVec<[StreamId; 4]> = self.streams.unannounced().collect();
        for stream_id in unannounced {
            let stream = self.streams.get_mut(stream_id);
            // One that has ended meanwhile is never opened.
            let stream = stream.filter(|stream| stream.ended.is_none());
            let lane = stream.and_then(|stream| stream.lane.as_ref());
            if !lane.is_some_and(|lane| lane.is_awaited) {
                continue;
            }
            if !self.open_lane(stream_id) {
                return;
            }
            if let (Some(quic), Some(stream)) = (&self.quic, self.streams.get_mut(stream_id)) {
                if let Some(lane) = &mut stream.lane {
                    lane.flush(&quic.streams, stream_id);
                }
                stream.wake();
            }
        }
    }

    /// Notes that the peer reads no more of a lane.
    pub(super) fn lane_is_stopped(&mut self, id: QuicStreamId, code: u64) {
        let Some(quic) = &mut self.quic else {
            return;
        };
        let Some(stream_id) = quic.known.get(&id).copied() else {
            if let Some(header) = quic.headless.get_mut(&id) {
                header.stopped = Some(code);
            } else if let Some(lane) = quic.early.iter_mut().find(|lane| lane.id == id) {
                lane.stopped = Some(code);
            } else {
                quic.streams.reset(id, NORMAL_CLOSE);
            }
            if quic.orphans.remove(&id).is_some() {
                self.lane_is_writable(id);
            }
            return;
        };
        if let Some(stream) = self.streams.get_mut(stream_id) {
            let has_all = stream.ended == Some(CloseReason::Finished);
            if let Some(lane) = &mut stream.lane {
                lane.unsent = Vec::new();
                lane.is_stopped = true;
            }
            match (code, has_all) {
                (0, false) => {}
                (0, true) => self.ended_by_peer(stream_id, CloseReason::Closed),
                (code, _) => {
                    let why = CloseReason::Reset(reset_code(code));
                    self.ended_by_peer(stream_id, why);
                }
            }
        }
        self.lane_is_writable(id);
    }
}
