//! The receiving half of a tunnel over QUIC: reads lanes, and adds those that the server has opened.

use super::{reset_code, EarlyLane, Lane, LaneProgress, OpenedStream, PartialHeader};
use crate::net::clock::Tick;
use crate::net::quic::{QuicStreamId, QuicStreams, ReadEnd, StreamNews, Urgency};
use crate::net::with_read_buf;
use crate::tunnel::stream_state::CloseReason;
use crate::tunnel::tunnel_state::TunnelState;
use crate::tunnel::window::FIRST_WINDOW;
use crate::tunnel::{lock, PeerRole, Stream, Tunnel};
use crate::wire::frame::{ResetCode, StreamId};
use crate::wire::stream_header::{StreamHeader, StreamKind, LENGTH};
use crate::wire::Malformed;
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

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
/// Maximum number of streams whose headers have not come, or have come before a signal that they refer to.
const MAX_UNBORN: usize = 1024;
/// Maximum bytes that are kept of lanes whose headers have come before a signal.
const MAX_EARLY_BYTES: usize = 512 * 1024;

impl TunnelState {
    /// Delivers bytes that have come in a lane; the end of the peer's direction follows if they are the `last`. The
    /// error is that the peer had no credit for them.
    fn deliver_lane(
        &mut self,
        stream_id: StreamId,
        bytes: &[u8],
        last: bool,
        now: Tick,
    ) -> Result<(), Malformed> {
        // More than credit can be is no credit.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.spend(stream_id, length)?;
        let lane = self.streams.get_mut(stream_id);
        let lane = lane.and_then(|stream| stream.lane.as_mut());
        let Some(mut flow) = lane.and_then(|lane| lane.flow.take()) else {
            self.deliver(stream_id, &mut [IoSlice::new(bytes)], last, now);
            return Ok(());
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
        Ok(())
    }

    /// Notes how the peer has ended its direction of a lane, behind all bytes that were delivered.
    fn lane_has_ended(&mut self, stream_id: StreamId, end: ReadEnd) {
        let why = match end {
            ReadEnd::Finished => {
                let stream = self.streams.get_mut(stream_id);
                let lane = stream.and_then(|stream| stream.lane.as_ref());
                match lane.is_some_and(|lane| lane.is_stopped) {
                    true => CloseReason::Closed,
                    false => CloseReason::Finished,
                }
            }
            ReadEnd::Reset(code) => CloseReason::Reset(reset_code(code)),
            ReadEnd::More | ReadEnd::Blocked | ReadEnd::Gone => return,
        };
        self.ended_by_peer(stream_id, why);
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
        let (id, header) = (lane.id, lane.header);
        let is_of_previous = match header.registration.wrapping_sub(quic.registration) {
            0 => false,
            u16::MAX => true,
            1..=0x7FFF => {
                quic.early_bytes += lane.bytes.len();
                quic.early.push(lane);
                return self.read_early(id).map(|()| None);
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
        let mut new = Lane::new(header.kind == StreamKind::Flow);
        (new.id, new.urgency) = (Some(id), Urgency::Urgent);
        stream.lane = Some(new);
        quic.known.insert(id, stream_id);
        quic.streams.set_urgency(id, Urgency::Urgent);
        if lane.end.is_none() {
            quic.streams.read_again(id);
        }
        if !lane.bytes.is_empty() {
            let last = lane.end == Some(ReadEnd::Finished);
            self.deliver_lane(stream_id, &lane.bytes, last, Tick::now())?;
        }
        if let Some(end) = lane.end {
            self.lane_has_ended(stream_id, end);
        }
        if let Some(code) = lane.stopped {
            self.lane_is_stopped(id, code);
        }
        Ok(Some(OpenedStream {
            stream: Stream::new(tunnel.clone(), stream_id),
            service: header.service,
            is_of_previous,
        }))
    }

    /// Reads what has come of a lane that waits for a signal, since it must not hold the window of the connection: the
    /// signal itself may wait for that.
    fn read_early(&mut self, id: QuicStreamId) -> Result<(), Malformed> {
        let Some(quic) = &mut self.quic else {
            return Ok(());
        };
        let Some(lane) = quic.early.iter_mut().find(|lane| lane.id == id) else {
            return Ok(());
        };
        if lane.end.is_some() {
            return Ok(());
        }
        let most = usize::try_from(FIRST_WINDOW).unwrap_or(usize::MAX);
        let room = most.saturating_sub(lane.bytes.len());
        let (read, end) = with_read_buf(|buf| {
            // One byte more shows that the peer exceeds the window.
            let most = buf.len().min(room.saturating_add(1));
            let buf = buf.get_mut(..most).unwrap_or_default();
            let (n, end) = quic.streams.read(id, buf);
            lane.bytes
                .extend_from_slice(buf.get(..n).unwrap_or_default());
            (n, end)
        });
        quic.early_bytes += read;
        if read > room {
            return Err(Malformed::Overrun(lane.header.stream_id));
        }
        match end {
            ReadEnd::More => quic.streams.read_again(id),
            ReadEnd::Blocked => {}
            end => lane.end = Some(end),
        }
        if quic.early_bytes > MAX_EARLY_BYTES {
            quic.forget_early(id);
            quic.refuse(id, ResetCode::Overloaded);
            self.settle();
        }
        Ok(())
    }

    /// Reads the header of a lane, or what has come behind it of one that waits for a signal.
    fn read_header(
        &mut self,
        tunnel: &Tunnel,
        id: QuicStreamId,
    ) -> Result<Option<OpenedStream>, Malformed> {
        let Some(quic) = &mut self.quic else {
            return Ok(None);
        };
        let Some(header) = quic.headless.get_mut(&id) else {
            return self.read_early(id).map(|()| None);
        };
        let room = header.bytes.get_mut(header.len..).unwrap_or_default();
        let (n, end) = quic.streams.read(id, room);
        header.len += n;
        if header.len == LENGTH {
            let (since, stopped) = (header.since, header.stopped);
            let header = StreamHeader::parse(&header.bytes)?;
            quic.headless.remove(&id);
            let lane = EarlyLane {
                id,
                since,
                header,
                stopped,
                bytes: Vec::new(),
                end: None,
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
        quic.early_bytes = 0;
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
    pub(in crate::tunnel) fn early_streams(
        &self,
    ) -> Result<SmallVec<[OpenedStream; 2]>, Malformed> {
        let mut opened = SmallVec::new();
        let released = lock(&self.0).release_early(self, &mut opened);
        released.map(|()| opened)
    }

    /// Reads lanes, about `most` bytes at most, and handles what else has happened to them. Nothing may be left of
    /// those that have news then, or the task is woken.
    pub(in crate::tunnel) fn poll_lanes(
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
                let delivered = state.deliver_lane(stream_id, bytes, last, now);
                delivered.map_err(malformed)?;
            }
            match end {
                ReadEnd::More => streams.read_again(id),
                end => state.lane_has_ended(stream_id, end),
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
