//! Streams of a tunnel over QUIC with the application protocol `gt/2` (docs/wire.md, "QUIC"): each has a stream of
//! QUIC, its lane, so that a lost packet of one holds up no other. Signals and credit go in the connection's first
//! stream, as frames in other tunnels.

mod lane;
mod receiving;
mod sending;

pub(super) use lane::Lane;

use super::closing::Closing;
use super::stream_state::{CloseReason, StreamState};
use super::tunnel_state::TunnelState;
use super::{PeerRole, Stream};
use crate::collections::HashMap;
use crate::net::clock::Tick;
use crate::net::quic::{QuicStreamId, QuicStreams, ReadEnd, Urgency};
use crate::net::Conn;
use crate::wire::frame::{Header, ResetCode, ServiceIndex, Signal, StreamId};
use crate::wire::stream_header::{StreamHeader, StreamKind, LENGTH};
use smallvec::SmallVec;
use std::time::Duration;

/// Time that the header of a stream has to arrive after the stream was opened, and the signal that it refers to.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that the last bytes of a stream that has ended have to be sent.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum bytes that are kept of streams that have ended.
const MAX_ORPHANED: usize = 4 * 1024 * 1024;
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
    /// Number of bytes in `early`.
    early_bytes: usize,
    /// Number of lanes opened so far, by the server.
    opened: u32,
    /// The number of lanes that the server has told before it closed.
    told: Option<u32>,
    /// Lanes whose streams have ended here and whose last bytes the connection has not taken.
    orphans: HashMap<QuicStreamId, Orphan>,
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

/// A lane that outlives its stream until its last bytes are sent.
struct Orphan {
    since: Tick,
    stream_id: StreamId,
    lane: Box<Lane>,
}

/// A lane whose header has overtaken a signal.
struct EarlyLane {
    id: QuicStreamId,
    since: Tick,
    header: StreamHeader,
    stopped: Option<u64>,
    /// What has come behind the header.
    bytes: Vec<u8>,
    /// The end behind the bytes, if it has come.
    end: Option<ReadEnd>,
}

/// A header that has not come whole.
struct PartialHeader {
    since: Tick,
    /// The code with which the peer reads no more of the lane, if it has said so.
    stopped: Option<u64>,
    bytes: [u8; LENGTH],
    len: usize,
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
            early_bytes: 0,
            opened: 0,
            told: None,
            orphans: HashMap::default(),
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

    /// Keeps the lane of a stream that has ended until its last bytes are sent. False if there are too many of them.
    fn adopt(&mut self, id: QuicStreamId, stream_id: StreamId, mut lane: Box<Lane>) -> bool {
        let bytes = |lane: &Lane| lane.unsent.len();
        let held: usize = self.orphans.values().map(|it| bytes(&it.lane)).sum();
        if held.saturating_add(bytes(&lane)) > MAX_ORPHANED {
            return false;
        }
        lane.finishes = true;
        let since = Tick::now();
        let orphan = Orphan {
            since,
            stream_id,
            lane,
        };
        self.orphans.insert(id, orphan);
        true
    }

    /// Removes a lane that has waited for a signal.
    fn forget_early(&mut self, id: QuicStreamId) {
        if let Some(at) = self.early.iter().position(|lane| lane.id == id) {
            let lane = self.early.remove(at);
            self.early_bytes = self.early_bytes.saturating_sub(lane.bytes.len());
        }
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
        (lane.id, lane.is_awaited, lane.urgency) = (Some(id), false, Urgency::Urgent);
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
    pub fn end_lane(&mut self, stream_id: StreamId, stream: &mut StreamState) {
        let (Some(quic), Some(lane)) = (&mut self.quic, stream.lane.take()) else {
            return;
        };
        let Some(id) = lane.id else {
            return;
        };
        quic.known.remove(&id);
        let is_whole = lane.head.is_empty() && lane.unsent.is_empty() && !lane.finishes;
        let is_graceful = match stream.goodbye(stream_id) {
            Some(Header::Reset { reason, .. }) => {
                quic.refuse(id, reason);
                return self.lane_is_writable(id);
            }
            Some(_) => !lane.is_stopped,
            // It may have been reset only by a STOP_SENDING.
            None => stream.finished && (is_whole || !lane.is_stopped),
        };
        match (is_graceful, is_whole) {
            (true, true) => {
                quic.streams.finish(id);
                quic.streams.stop(id, NORMAL_CLOSE);
            }
            (true, false) if quic.adopt(id, stream_id, lane) => {
                quic.streams.stop(id, NORMAL_CLOSE);
            }
            _ => {
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
        for (id, _) in std::mem::take(&mut quic.orphans) {
            quic.refuse(id, ResetCode::Aborted);
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

    /// Returns the number of lanes without a stream: those that the peer has opened and that are on the way, and
    /// those whose last bytes are not sent yet.
    pub fn streamless_lanes(&self) -> usize {
        let quic = self.quic.as_ref();
        quic.map_or(0, |quic| quic.unborn().saturating_add(quic.orphans.len()))
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

    /// Resets lanes whose headers, or the signals that these refer to, have not come in time.
    pub fn sweep_lanes(&mut self, now: Tick) {
        let Some(quic) = &mut self.quic else {
            return;
        };
        let is_late = |since: Tick| since.until(now) >= HEADER_TIMEOUT;
        let headless = quic.headless.iter();
        let headless = headless.filter(|(_, header)| is_late(header.since));
        let early = quic.early.iter().filter(|lane| is_late(lane.since));
        let late = headless.map(|(id, _)| *id).chain(early.map(|lane| lane.id));
        let late: SmallVec<[QuicStreamId; 4]> = late.collect();
        for id in &late {
            quic.headless.remove(id);
            quic.forget_early(*id);
            quic.refuse(*id, ResetCode::Aborted);
        }
        let stale = quic.orphans.iter();
        let stale = stale.filter(|(_, orphan)| orphan.since.until(now) >= ORPHAN_TIMEOUT);
        let stale: SmallVec<[QuicStreamId; 4]> = stale.map(|(id, _)| *id).collect();
        for id in &stale {
            quic.orphans.remove(id);
            quic.refuse(*id, ResetCode::Aborted);
        }
        for id in &stale {
            self.lane_is_writable(*id);
        }
        if !late.is_empty() || !stale.is_empty() {
            self.settle();
        }
        // Those that have their turn may have ended without using it.
        if !self.is_blocked() && !self.outbox.scheduler.is_empty() {
            self.admit(usize::MAX);
        }
    }
}
