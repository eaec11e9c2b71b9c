//! Streams of a tunnel over QUIC with the application protocol `gt/2` (docs/wire.md, "QUIC"): each has a stream of
//! QUIC, its lane, so that a lost packet of one holds up no other. Signals and credit go in the connection's first
//! stream, as frames in other tunnels.

use super::closing::Closing;
use super::flow_records::{FlowRecords, SentRecords};
use super::outbox::MAX_SENDERS;
use super::scheduler::Turn;
use super::stream_state::{CloseReason, StreamState};
use super::tunnel_state::TunnelState;
use super::{lock, PeerRole, Stream, Tunnel};
use crate::collections::HashMap;
use crate::net::clock::Tick;
use crate::net::quic::{QuicStreamId, QuicStreams, ReadEnd, StreamNews, Urgency};
use crate::net::{with_read_buf, Conn, Throttle};
use crate::wire::frame::{Header, ResetCode, ServiceIndex, Signal, StreamId};
use crate::wire::stream_header::{StreamHeader, StreamKind, LENGTH};
use crate::wire::Malformed;
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;

/// Time that the header of a stream has to arrive after the stream was opened.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of streams whose headers have not come, or have come before a signal that they refer to.
const MAX_UNBORN: usize = 1024;
/// Maximum bytes of one write while streams take turns.
const SHARED_WRITE: usize = 16 * 1024;
/// Maximum bytes of one write of a bulk stream while no other one waits.
const WRITE: usize = 64 * 1024;
/// Maximum bytes of one write of an interactive stream while the connection takes no more of bulk streams.
const URGENT_WRITE: usize = 2 * 1024;
/// Maximum bytes of one read of a stream.
const READ: usize = 64 * 1024;
/// News handled in a row before other tasks run.
const NEWS_PER_TURN: u32 = 64;
/// Maximum bytes of DATAGRAM frames that wait for the reader of a flow, in front of those of its stream.
const MAX_FLOW_BACKLOG: usize = 64 * 1024;
/// Datagrams of a flow that are delivered together.
const MAX_RUN: usize = 32;
/// Bytes of a record before its datagram.
const RECORD_LENGTH: usize = 2;
/// The code with which a stream is closed gracefully.
const NORMAL_CLOSE: u16 = 0;

/// The lanes of a tunnel, and how far both ends agree about them.
pub(super) struct QuicCarrier {
    streams: QuicStreams,
    peer: PeerRole,
    known: HashMap<QuicStreamId, StreamId>,
    /// How many times the server has sent *ready* or *services*, modulo 65536.
    registration: u16,
    /// Lanes that the peer has opened and whose headers have not come whole.
    headless: HashMap<QuicStreamId, PartialHeader>,
    /// Lanes whose headers have overtaken the signal that they refer to.
    early: Vec<EarlyLane>,
    /// Number of lanes opened so far, by the server.
    opened: u32,
    /// The number of lanes that the server has told before it closed.
    told: Option<u32>,
    /// What the connection takes at the moment.
    room: SendRoom,
    /// Whether the peer is finished with the tunnel; what it has sent may still be on the way.
    is_peer_over: bool,
}

/// What a connection takes at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendRoom {
    /// Bytes of all streams, as far as is known.
    Free,
    /// Nothing of bulk streams, until this lane may be written.
    Little(QuicStreamId),
    /// Nothing, until this lane may be written.
    None(QuicStreamId),
}

impl SendRoom {
    fn blocked_by(self) -> Option<QuicStreamId> {
        match self {
            Self::Free => None,
            Self::Little(id) | Self::None(id) => Some(id),
        }
    }
}

/// A lane whose header has overtaken a signal.
struct EarlyLane {
    id: QuicStreamId,
    header: StreamHeader,
    stopped: Option<u64>,
}

/// A header that has not come whole.
struct PartialHeader {
    since: Tick,
    /// The code with which the peer reads no more of the lane, if it has said so.
    stopped: Option<u64>,
    bytes: [u8; LENGTH],
    len: usize,
}

/// The lane of one stream.
#[derive(Default)]
pub(super) struct Lane {
    /// `None` until the stream has been announced.
    id: Option<QuicStreamId>,
    /// What has to be opened as soon as the peer allows more streams.
    is_awaited: bool,
    /// The rest of the header, and bytes that were read from the stream's connection and not taken.
    head: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether this end's direction ends behind them.
    finishes: bool,
    /// Whether the peer reads no more, and has sent everything.
    is_stopped: bool,
    is_urgent: bool,
    /// Present if the stream carries datagrams.
    flow: Option<Box<FlowRecords>>,
    throttle: Option<Box<Throttle>>,
}

impl Lane {
    fn new(is_flow: bool) -> Box<Self> {
        Box::new(Self {
            flow: is_flow.then(Box::default),
            ..Self::default()
        })
    }

    /// Makes the lane one of datagrams.
    #[cfg(feature = "server")]
    pub fn carry_datagrams(&mut self) {
        self.flow.get_or_insert_default();
    }

    /// Whether the peer reads no more, and has sent everything.
    #[cfg(all(test, feature = "server", feature = "client"))]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    fn urgency(&self) -> Urgency {
        match self.is_urgent {
            true => Urgency::Urgent,
            false => Urgency::Bulk,
        }
    }

    /// Sends bytes, as many as the lane takes.
    fn send(
        &mut self,
        (streams, id, stream_id): (&QuicStreams, QuicStreamId, StreamId),
        bytes: &[u8],
        (is_answered, waits): (bool, bool),
    ) -> SentRecords {
        let urgency = self.urgency();
        let sent = match &mut self.flow {
            None => streams.write(id, bytes, urgency).map(|taken| SentRecords {
                taken,
                in_stream: taken,
            }),
            Some(flow) => flow.send(
                (streams, id, stream_id),
                bytes,
                urgency,
                (is_answered, waits),
            ),
        };
        // The peer reads no more: there will be news of it.
        sent.unwrap_or(SentRecords {
            taken: bytes.len(),
            in_stream: bytes.len(),
        })
    }

    /// Sends what was left. True if nothing is left.
    fn flush(&mut self, streams: &QuicStreams, stream_id: StreamId) -> bool {
        let Some(id) = self.id else {
            return false;
        };
        if !self.head.is_empty() {
            let head = std::mem::take(&mut self.head);
            let n = streams.write(id, &head, Urgency::Urgent);
            let n = n.unwrap_or(head.len());
            self.head = head.get(n..).unwrap_or_default().to_vec();
            if !self.head.is_empty() {
                return false;
            }
        }
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            // It was not sent as a DATAGRAM at once, since others wait.
            let sent = self.send((streams, id, stream_id), &unsent, (true, true));
            self.unsent = unsent.get(sent.taken..).unwrap_or_default().to_vec();
            if !self.unsent.is_empty() {
                return false;
            }
        }
        if std::mem::take(&mut self.finishes) {
            streams.finish(id);
        }
        true
    }
}

/// What reading the lanes has brought.
#[derive(Default)]
pub(super) struct LaneProgress {
    /// Streams that the peer has opened.
    pub opened: SmallVec<[OpenedStream; 2]>,
    /// Number of bytes that have come.
    pub bytes: usize,
    /// Whether there was anything.
    pub any: bool,
}

/// A stream that the peer has opened.
pub(super) struct OpenedStream {
    pub stream: Stream,
    pub service: ServiceIndex,
    /// Whether the service is of the registration before the last one that was confirmed.
    pub is_of_previous: bool,
}

impl QuicCarrier {
    /// Returns the carrier of a connection whose visitors have streams of their own; `None` for others.
    pub fn of(conn: &Conn, peer: PeerRole) -> Option<Box<Self>> {
        let Conn::Quic(stream) = conn else {
            return None;
        };
        let streams = stream.streams()?;
        if let PeerRole::Server { streams: most } = peer {
            streams.accept_up_to(most);
        }
        Some(Box::new(Self {
            streams,
            peer,
            known: HashMap::default(),
            registration: 0,
            headless: HashMap::default(),
            early: Vec::new(),
            opened: 0,
            told: None,
            room: SendRoom::Free,
            is_peer_over: false,
        }))
    }

    /// Returns the lane of a new stream.
    pub fn lane(&self) -> Box<Lane> {
        Lane::new(false)
    }

    /// Notes the number of lanes that the server has opened.
    pub fn told(&mut self, opened: u32) {
        self.told = Some(opened);
    }

    /// Whether streams have to wait before they may send.
    pub fn is_blocked(&self) -> bool {
        self.room != SendRoom::Free
    }

    /// Returns the number of streams that the peer has opened and that are not known yet.
    fn unborn(&self) -> usize {
        let missing = match self.told {
            // A larger difference is that of a server that has told too few.
            Some(told) => match told.wrapping_sub(self.opened) {
                missing @ ..=0x7FFF_FFFF => usize::try_from(missing).unwrap_or(usize::MAX),
                _ => 0,
            },
            None => 0,
        };
        let begun = self.headless.len() + self.early.len();
        missing.saturating_add(begun)
    }

    fn refuse(&self, id: QuicStreamId, reason: ResetCode) {
        self.streams.stop(id, reason.code());
        self.streams.reset(id, reason.code());
    }
}

/// Returns the reset code that a peer has sent.
fn reset_code(code: u64) -> ResetCode {
    match u16::try_from(code) {
        Ok(code @ 1..) => ResetCode::from_code(code),
        _ => ResetCode::Aborted,
    }
}

impl TunnelState {
    /// Opens the lane of a stream that the peer does not know of. False while it cannot be opened.
    fn open_lane(&mut self, stream_id: StreamId) -> bool {
        let (Some(quic), Some(stream)) = (&mut self.quic, self.streams.get_mut(stream_id)) else {
            return false;
        };
        let Some(lane) = &mut stream.lane else {
            return false;
        };
        if lane.id.is_some() {
            return true;
        }
        let Some(service) = stream.unannounced.filter(|_| stream.ended.is_none()) else {
            return false;
        };
        let Some(id) = quic.streams.open() else {
            lane.is_awaited = true;
            return false;
        };
        let kind = match lane.flow {
            None => StreamKind::Connection,
            Some(_) => StreamKind::Flow,
        };
        let header = StreamHeader {
            kind,
            stream_id,
            registration: quic.registration,
            service,
            window: stream.window.left(),
        };
        stream.unannounced = None;
        (lane.id, lane.is_awaited, lane.is_urgent) = (Some(id), false, true);
        lane.head = header.encode().to_vec();
        quic.known.insert(id, stream_id);
        quic.opened = quic.opened.wrapping_add(1);
        quic.streams.set_urgency(id, Urgency::Urgent);
        lane.flush(&quic.streams, stream_id);
        true
    }

    /// Announces a stream to the peer over QUIC.
    pub fn announce_lane(&mut self, stream_id: StreamId) {
        self.open_lane(stream_id);
    }

    /// Ends this end's direction of a stream, behind what was sent.
    pub fn finish_lane(&mut self, stream_id: StreamId) {
        self.open_lane(stream_id);
        let (Some(quic), Some(stream)) = (&mut self.quic, self.streams.get_mut(stream_id)) else {
            return;
        };
        if let Some(lane) = &mut stream.lane {
            lane.finishes = true;
            lane.flush(&quic.streams, stream_id);
        }
    }

    /// Ends the lane of a stream that is removed.
    pub fn end_lane(&mut self, stream_id: StreamId, stream: &StreamState) {
        let (Some(quic), Some(lane)) = (&mut self.quic, &stream.lane) else {
            return;
        };
        let Some(id) = lane.id else {
            return;
        };
        quic.known.remove(&id);
        let is_whole = lane.head.is_empty() && lane.unsent.is_empty() && !lane.finishes;
        match stream.goodbye(stream_id) {
            Some(Header::Reset { reason, .. }) => quic.refuse(id, reason),
            Some(_) if is_whole && !lane.is_stopped => {
                quic.streams.finish(id);
                quic.streams.stop(id, NORMAL_CLOSE);
            }
            // It may have been reset only by a STOP_SENDING.
            None if is_whole && stream.finished => quic.streams.stop(id, NORMAL_CLOSE),
            Some(_) | None => {
                quic.streams.stop(id, NORMAL_CLOSE);
                quic.streams.reset(id, NORMAL_CLOSE);
            }
        }
        self.lane_is_writable(id);
    }

    /// Cuts all lanes of a tunnel that is over.
    pub fn cut_lanes(&mut self) {
        let Some(quic) = &mut self.quic else {
            return;
        };
        for stream in self.streams.values_mut() {
            let id = stream.lane.as_ref().and_then(|lane| lane.id);
            if let Some(id) = id.filter(|_| !stream.finished) {
                quic.refuse(id, ResetCode::Aborted);
            }
        }
    }

    /// Notes a signal of the server, from which on its streams may be of other services.
    pub fn note_registration(&mut self, signal: Signal) {
        if let Some(quic) = &mut self.quic {
            if matches!(signal, Signal::Ready | Signal::Services) {
                quic.registration = quic.registration.wrapping_add(1);
            }
        }
    }

    /// Returns what a server tells before it closes: how many lanes it has opened.
    pub fn streams_opened(&mut self) -> Option<Header> {
        let quic = self.quic.as_ref()?;
        if quic.peer != PeerRole::Client {
            return None;
        }
        // What opens later would not be counted.
        let unannounced: SmallVec<[StreamId; 4]> = self.streams.unannounced().collect();
        for stream_id in unannounced {
            if self.open_lane(stream_id) {
                continue;
            }
            if let Some(stream) = self.streams.get_mut(stream_id) {
                stream.end(CloseReason::Outdated);
            }
        }
        Some(Header::StreamsOpened(self.quic.as_ref()?.opened))
    }

    /// Returns the number of streams that the peer has opened and that are on the way.
    pub fn unborn(&self) -> usize {
        self.quic.as_ref().map_or(0, |quic| quic.unborn())
    }

    /// Whether bytes of streams are on the way of a peer that is finished with the tunnel.
    pub fn awaits_lanes(&mut self) -> bool {
        let Some(quic) = &self.quic else {
            return false;
        };
        quic.unborn() > 0 || self.streams.values_mut().any(|it| it.expects_more())
    }

    /// Notes that the peer is finished with the tunnel. True if something of it is on the way, with whose end the
    /// tunnel ends.
    pub fn outlives_peer(&mut self) -> bool {
        let awaits = self.awaits_lanes();
        if let Some(quic) = self.quic.as_mut().filter(|_| awaits) {
            quic.is_peer_over = true;
            self.closing = Closing::Over;
            self.outbox.finish();
        }
        awaits
    }

    /// Ends the tunnel, whose last signals are sent, unless something of its peer is on the way.
    pub fn all_sent(&mut self) {
        match &self.quic {
            Some(quic) if quic.is_peer_over => self.end_if_due(),
            _ => self.end(true),
        }
    }

    /// Ends the tunnel if its peer is finished with it and nothing is on the way any more.
    pub fn end_if_due(&mut self) {
        let is_peer_over = self.quic.as_ref().is_some_and(|quic| quic.is_peer_over);
        if is_peer_over && !self.over && !self.awaits_lanes() {
            self.end(true);
        }
    }

    /// Whether streams have to wait because the connection takes nothing at the moment.
    pub fn is_blocked(&self) -> bool {
        self.quic.as_ref().is_some_and(|quic| quic.is_blocked())
    }

    /// Resets lanes whose headers have not come in time.
    pub fn sweep_lanes(&mut self, now: Tick) {
        let Some(quic) = &mut self.quic else {
            return;
        };
        let headless = &mut quic.headless;
        let late = headless
            .iter()
            .filter(|(_, header)| header.since.until(now) >= HEADER_TIMEOUT);
        let late: SmallVec<[QuicStreamId; 4]> = late.map(|(id, _)| *id).collect();
        for id in &late {
            quic.headless.remove(id);
            quic.refuse(*id, ResetCode::Aborted);
        }
        if !late.is_empty() {
            self.settle();
        }
        // Those that have their turn may have ended without using it.
        if !self.is_blocked() && !self.outbox.scheduler.is_empty() {
            self.admit(usize::MAX);
        }
    }

    /// Sends bytes that `fill` writes, as [`Stream::poll_fill`] does.
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
        let bulk = stream.is_bulk(now);
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
        if lane.is_urgent == bulk {
            lane.is_urgent = !bulk;
            quic.streams.set_urgency(id, lane.urgency());
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
    fn give_up_turn<T>(&mut self, stream_id: StreamId, turn: Turn) -> Poll<T> {
        if matches!(turn, Turn::Granted(_)) {
            if let Some(stream) = self.streams.get_mut(stream_id) {
                stream.turn = Turn::None;
            }
            self.pass_on(turn);
        }
        Poll::Pending
    }

    /// Sends what is left of a lane that may be written again, and lets others write if it was in their way.
    fn lane_is_writable(&mut self, id: QuicStreamId) {
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
        }
        if quic.room.blocked_by() == Some(id) {
            quic.room = SendRoom::Free;
            self.admit(MAX_SENDERS);
        }
    }

    /// Opens the lanes that wait for the peer to allow more.
    fn open_awaited(&mut self) {
        let unannounced: SmallVec<[StreamId; 4]> = self.streams.unannounced().collect();
        for stream_id in unannounced {
            let stream = self.streams.get_mut(stream_id);
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
    fn lane_is_stopped(&mut self, id: QuicStreamId, code: u64) {
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

    /// Delivers bytes that have come in a lane; the end of the peer's direction follows if they are the `last`.
    fn deliver_lane(&mut self, stream_id: StreamId, bytes: &[u8], last: bool, now: Tick) {
        let lane = self.streams.get_mut(stream_id);
        let lane = lane.and_then(|stream| stream.lane.as_mut());
        let Some(mut flow) = lane.and_then(|lane| lane.flow.take()) else {
            return self.deliver(stream_id, &mut [IoSlice::new(bytes)], last, now);
        };
        flow.reader.feed::<MAX_RUN>(bytes, |run| {
            flow.has_begun = true;
            let mut records = Vec::new();
            for datagram in run {
                push_record(&mut records, datagram);
            }
            self.deliver(stream_id, &mut [IoSlice::new(&records)], false, now);
        });
        let lane = self.streams.get_mut(stream_id);
        if let Some(lane) = lane.and_then(|stream| stream.lane.as_mut()) {
            lane.flow = Some(flow);
        }
        // Bytes of a record that has not come whole do not wait for the reader.
        self.give_credit(stream_id);
    }

    /// Delivers records of datagrams that have come as DATAGRAM frames, or drops them.
    fn deliver_datagrams(&mut self, stream_id: StreamId, records: &[u8], now: Tick) {
        // Origins come from the server alone.
        let is_of_server = self
            .quic
            .as_ref()
            .is_some_and(|it| it.peer != PeerRole::Client);
        let must_begin = self.policy.origins && is_of_server;
        let Some(stream) = self.streams.get_mut(stream_id) else {
            return;
        };
        let flow = stream.lane.as_ref().and_then(|lane| lane.flow.as_ref());
        let takes = flow.is_some_and(|flow| flow.has_begun || !must_begin);
        if takes && stream.waiting() + records.len() <= MAX_FLOW_BACKLOG {
            self.deliver(stream_id, &mut [IoSlice::new(records)], false, now);
        }
    }

    /// Adds a lane whose header has come, or keeps it until the signal has come that the header refers to.
    fn header_came(
        &mut self,
        tunnel: &Tunnel,
        lane: EarlyLane,
    ) -> Result<Option<OpenedStream>, Malformed> {
        let Some(quic) = &mut self.quic else {
            return Ok(None);
        };
        let EarlyLane {
            id,
            header,
            stopped,
        } = lane;
        let is_of_previous = match header.registration.wrapping_sub(quic.registration) {
            0 => false,
            u16::MAX => true,
            1..=0x7FFF => {
                quic.early.push(lane);
                return Ok(None);
            }
            _ => {
                quic.refuse(id, ResetCode::UnknownService);
                return Ok(None);
            }
        };
        if header.kind == StreamKind::Unknown {
            quic.refuse(id, ResetCode::UnknownService);
            return Ok(None);
        }
        let stream_id = header.stream_id;
        if self.streams.contains(stream_id) {
            return Err(Malformed::StreamInUse(stream_id));
        }
        let most = match quic.peer {
            PeerRole::Client => 0,
            PeerRole::Server { streams } => usize::try_from(streams).unwrap_or(usize::MAX),
        };
        if self.over || self.streams.len() >= most {
            quic.refuse(id, ResetCode::TooManyStreams);
            return Ok(None);
        }
        self.accept(stream_id, header.window, most);
        let (Some(quic), Some(stream)) = (&mut self.quic, self.streams.get_mut(stream_id)) else {
            return Ok(None);
        };
        let mut lane = Lane::new(header.kind == StreamKind::Flow);
        (lane.id, lane.is_urgent) = (Some(id), true);
        stream.lane = Some(lane);
        quic.known.insert(id, stream_id);
        quic.streams.set_urgency(id, Urgency::Urgent);
        quic.streams.read_again(id);
        if let Some(code) = stopped {
            self.lane_is_stopped(id, code);
        }
        Ok(Some(OpenedStream {
            stream: Stream::new(tunnel.clone(), stream_id),
            service: header.service,
            is_of_previous,
        }))
    }

    /// Reads the header of a lane.
    fn read_header(
        &mut self,
        tunnel: &Tunnel,
        id: QuicStreamId,
    ) -> Result<Option<OpenedStream>, Malformed> {
        let Some(quic) = &mut self.quic else {
            return Ok(None);
        };
        let Some(header) = quic.headless.get_mut(&id) else {
            return Ok(None);
        };
        let room = header.bytes.get_mut(header.len..).unwrap_or_default();
        let (n, end) = quic.streams.read(id, room);
        header.len += n;
        if header.len == LENGTH {
            let (bytes, stopped) = (header.bytes, header.stopped);
            quic.headless.remove(&id);
            let header = StreamHeader::parse(&bytes)?;
            let lane = EarlyLane {
                id,
                header,
                stopped,
            };
            let opened = self.header_came(tunnel, lane)?;
            self.settle();
            return Ok(opened);
        }
        if matches!(end, ReadEnd::Finished | ReadEnd::Reset(_) | ReadEnd::Gone) {
            quic.headless.remove(&id);
            quic.refuse(id, ResetCode::Aborted);
            self.settle();
        }
        Ok(None)
    }

    /// Adds the lanes whose headers have waited for the signal that has come.
    fn release_early(
        &mut self,
        tunnel: &Tunnel,
        opened: &mut SmallVec<[OpenedStream; 2]>,
    ) -> Result<(), Malformed> {
        let Some(quic) = &mut self.quic else {
            return Ok(());
        };
        for lane in std::mem::take(&mut quic.early) {
            opened.extend(self.header_came(tunnel, lane)?);
        }
        self.settle();
        Ok(())
    }
}

/// Appends the record of a datagram.
fn push_record(records: &mut Vec<u8>, datagram: &[u8]) {
    // Longer ones come from nowhere: a packet is shorter.
    let length = u16::try_from(datagram.len()).unwrap_or_default();
    records.extend_from_slice(&length.to_be_bytes());
    let datagram = datagram.get(..usize::from(length));
    records.extend_from_slice(datagram.unwrap_or_default());
}

fn malformed(e: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl Tunnel {
    /// Returns the streams whose headers have waited for a signal that has just come.
    pub(super) fn early_streams(&self) -> Result<SmallVec<[OpenedStream; 2]>, Malformed> {
        let mut opened = SmallVec::new();
        let released = lock(&self.0).release_early(self, &mut opened);
        released.map(|()| opened)
    }

    /// Reads lanes, about `most` bytes at most, and handles what else has happened to them. Nothing may be left of
    /// those that have news then, or the task is woken.
    pub(super) fn poll_lanes(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        now: Tick,
    ) -> io::Result<LaneProgress> {
        let mut progress = LaneProgress::default();
        let streams = lock(&self.0).quic.as_ref().map(|quic| quic.streams.clone());
        let Some(streams) = streams else {
            return Ok(progress);
        };
        for _ in 0..NEWS_PER_TURN {
            if progress.bytes >= most {
                break;
            }
            let Poll::Ready(news) = streams.poll_news(cx) else {
                return Ok(progress);
            };
            progress.any = true;
            match news {
                StreamNews::Opened(id) => {
                    let mut state = lock(&self.0);
                    let opened = state.lane_opened(self, id, now).map_err(malformed)?;
                    drop(state);
                    progress.opened.extend(opened);
                }
                StreamNews::Readable(id) => self.read_lane(&streams, id, now, &mut progress)?,
                StreamNews::Writable(id) => lock(&self.0).lane_is_writable(id),
                StreamNews::Stopped(id, code) => lock(&self.0).lane_is_stopped(id, code),
                StreamNews::Available => lock(&self.0).open_awaited(),
                StreamNews::Datagram(bytes) => {
                    progress.bytes += self.take_datagrams(&streams, bytes, now);
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(progress)
    }

    fn read_lane(
        &self,
        streams: &QuicStreams,
        id: QuicStreamId,
        now: Tick,
        progress: &mut LaneProgress,
    ) -> io::Result<()> {
        let mut state = lock(&self.0);
        let Some(quic) = &state.quic else {
            return Ok(());
        };
        let Some(stream_id) = quic.known.get(&id).copied() else {
            let opened = state.read_header(self, id).map_err(malformed)?;
            drop(state);
            progress.opened.extend(opened);
            return Ok(());
        };
        with_read_buf(|buf| {
            let most = READ.min(buf.len());
            let (n, end) = streams.read(id, buf.get_mut(..most).unwrap_or_default());
            progress.bytes += n;
            let last = end == ReadEnd::Finished;
            if let Some(bytes @ [_, ..]) = buf.get(..n) {
                // At most READ.
                state.spend(stream_id, n as u32).map_err(malformed)?;
                state.deliver_lane(stream_id, bytes, last, now);
            }
            match end {
                ReadEnd::More => streams.read_again(id),
                ReadEnd::Finished => {
                    let stream = state.streams.get_mut(stream_id);
                    let lane = stream.and_then(|stream| stream.lane.as_ref());
                    let is_stopped = lane.is_some_and(|lane| lane.is_stopped);
                    let why = match is_stopped {
                        true => CloseReason::Closed,
                        false => CloseReason::Finished,
                    };
                    state.ended_by_peer(stream_id, why);
                }
                ReadEnd::Reset(code) => {
                    let why = CloseReason::Reset(reset_code(code));
                    state.ended_by_peer(stream_id, why);
                }
                ReadEnd::Blocked | ReadEnd::Gone => {}
            }
            Ok(())
        })
    }

    /// Takes DATAGRAM frames, the `first` one and all others that wait, and returns the number of their bytes.
    fn take_datagrams(&self, streams: &QuicStreams, first: bytes::Bytes, now: Tick) -> usize {
        let mut count = 0;
        let mut next = Some(first);
        let (mut of, mut records) = (StreamId(0), Vec::new());
        while let Some(bytes) = next {
            count += bytes.len();
            if let Some((number, datagram)) = bytes.split_first_chunk::<4>() {
                let stream_id = StreamId(u32::from_be_bytes(*number));
                let is_full = records.len() + RECORD_LENGTH + datagram.len() > MAX_FLOW_BACKLOG;
                if (stream_id != of || is_full) && !records.is_empty() {
                    lock(&self.0).deliver_datagrams(of, &records, now);
                    records.clear();
                }
                of = stream_id;
                push_record(&mut records, datagram);
            }
            next = streams.next_datagram();
        }
        if !records.is_empty() {
            lock(&self.0).deliver_datagrams(of, &records, now);
        }
        count
    }
}

impl TunnelState {
    /// Adds a lane that the peer has opened.
    fn lane_opened(
        &mut self,
        tunnel: &Tunnel,
        id: QuicStreamId,
        now: Tick,
    ) -> Result<Option<OpenedStream>, Malformed> {
        let Some(quic) = &mut self.quic else {
            return Ok(None);
        };
        if quic.peer == PeerRole::Client {
            quic.refuse(id, ResetCode::Aborted);
            return Ok(None);
        }
        quic.opened = quic.opened.wrapping_add(1);
        if quic.headless.len() + quic.early.len() >= MAX_UNBORN {
            quic.refuse(id, ResetCode::Overloaded);
            self.settle();
            return Ok(None);
        }
        let header = PartialHeader {
            since: now,
            stopped: None,
            bytes: [0; LENGTH],
            len: 0,
        };
        quic.headless.insert(id, header);
        self.end_rest();
        self.read_header(tunnel, id)
    }
}
