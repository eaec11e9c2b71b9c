//! Frames in the bytes that an inbox has read: payloads go to their streams, and what concerns the session becomes an
//! [`Event`].

use super::{malformed, Event, Inbox, ReadState, READ_LIMIT};
use crate::net::clock::{self, Tick};
use crate::tunnel::moment::Moment;
use crate::tunnel::{lock, CloseReason, PeerRole, Stream, Tunnel};
use crate::wire::codec::{HelloReader, MAX_HEAD};
use crate::wire::frame::{Header, Signal, StreamId};
use crate::wire::{Malformed, Version};
use smallvec::SmallVec;
use std::io::{self, IoSlice};

/// Maximum number of payload slices that are delivered together. One read of a bulk stream brings
/// fewer.
const MAX_BATCH: usize = 6;

impl Inbox {
    /// Parses bytes that were read and delivers what they carry.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = clock::now();
        self.heard = Tick::at(now);
        self.unreported = Some(Moment::at(now));
        let mut batch = Batch::default();
        let result = self.parse_into(&mut batch, bytes);
        batch.deliver(&self.tunnel, false, self.heard);
        self.bulk = bytes.len() >= READ_LIMIT / 2 && !self.has_events();
        result
    }

    fn parse_into<'a>(&mut self, batch: &mut Batch<'a>, mut bytes: &'a [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.reading {
                ReadState::Payload { stream_id, left } => {
                    let (payload, rest) = split(bytes, *left);
                    if batch.is_full() {
                        batch.deliver(&self.tunnel, false, self.heard);
                    }
                    batch.push(*stream_id, payload);
                    bytes = rest;
                    // The slice is at most `left` bytes long.
                    *left -= payload.len() as u32;
                    if *left == 0 {
                        self.reading = ReadState::Head(Vec::new());
                    }
                }
                ReadState::Skip(left) => {
                    let (skipped, rest) = split(bytes, *left);
                    bytes = rest;
                    // The slice is at most `left` bytes long.
                    *left -= skipped.len() as u32;
                    if *left == 0 {
                        self.reading = ReadState::Head(Vec::new());
                    }
                }
                ReadState::Registration { reader, left } => {
                    let (piece, _) = split(bytes, *left);
                    let n = reader.feed(piece).map_err(malformed)?;
                    bytes = bytes.get(n..).unwrap_or_default();
                    // The slice is at most `left` bytes long.
                    *left -= n as u32;
                    let unread = Box::new(HelloReader::new(self.version));
                    match std::mem::replace(reader, unread).finish() {
                        Ok(hello) => {
                            self.push_event(Event::Services(Some(hello)));
                            self.reading = ReadState::Head(Vec::new());
                        }
                        Err(unfinished) => **reader = unfinished,
                    }
                }
                ReadState::Head(begun) if begun.is_empty() => {
                    match self.version.parse(bytes).map_err(malformed)? {
                        Some((head, n)) => {
                            bytes = bytes.get(n..).unwrap_or_default();
                            if !batch.goes_on_with(&head) {
                                let last = batch.ends_with(&head);
                                batch.deliver(&self.tunnel, last, self.heard);
                            }
                            self.handle_header(head).map_err(malformed)?;
                        }
                        None => {
                            begun.extend_from_slice(bytes);
                            bytes = &[];
                        }
                    }
                }
                ReadState::Begin(_) | ReadState::LanesAlone | ReadState::Ended(_) => break,
                ReadState::Head(begun) => {
                    // Completes a header that the end of a read cut off.
                    let before = begun.len();
                    begun.extend(bytes.iter().copied().take(MAX_HEAD - before.min(MAX_HEAD)));
                    match self.version.parse(begun).map_err(malformed)? {
                        Some((head, n)) => {
                            bytes = bytes.get(n - before..).unwrap_or_default();
                            begun.clear();
                            // The header begins this read, so no batch is pending.
                            self.handle_header(head).map_err(malformed)?;
                        }
                        None => bytes = &[],
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_header(&mut self, head: Header) -> Result<(), Malformed> {
        match head {
            // A services signal of a GT/2 client must carry fields.
            Header::Signal(Signal::Services)
                if self.version == Version::Two && self.peer == PeerRole::Client =>
            {
                return Err(Malformed::HelloLength(0));
            }
            Header::Signal(signal) => {
                self.handle_signal(signal);
                self.begin_registration(signal)?;
            }
            // These are for other tunnels.
            Header::Open { .. } | Header::Data { .. } if self.has_lanes => {
                return Err(Malformed::NotOverQuic);
            }
            Header::Close { .. } | Header::Finish { .. } | Header::Reset { .. }
                if self.has_lanes =>
            {
                return Err(Malformed::NotOverQuic);
            }
            Header::Data { stream_id, len } => {
                lock(&self.tunnel.0).spend(stream_id, len)?;
                self.expect_payload(stream_id, len);
            }
            Header::Close { stream_id } => {
                lock(&self.tunnel.0).ended_by_peer(stream_id, CloseReason::Closed)
            }
            Header::Finish { stream_id } => {
                lock(&self.tunnel.0).ended_by_peer(stream_id, CloseReason::Finished)
            }
            Header::Reset { stream_id, reason } => {
                lock(&self.tunnel.0).ended_by_peer(stream_id, CloseReason::Reset(reason));
            }
            Header::Credit { stream_id, bytes } => lock(&self.tunnel.0).credit(stream_id, bytes)?,
            Header::Ping(number) => lock(&self.tunnel.0).outbox.push(Header::Pong(number)),
            Header::Pong(number) => {
                lock(&self.tunnel.0).round_trip.pong(number, Moment::now());
            }
            Header::Open {
                stream_id,
                service,
                window,
                len,
            } => {
                let most = match self.peer {
                    PeerRole::Client => 0,
                    PeerRole::Server { streams } => usize::try_from(streams).unwrap_or(usize::MAX),
                };
                let mut state = lock(&self.tunnel.0);
                let accepted = state.accept(stream_id, window, most);
                state.spend(stream_id, len)?;
                drop(state);
                if accepted {
                    let stream = Stream::new(self.tunnel.clone(), stream_id);
                    self.push_event(Event::Opened(stream, service));
                }
                self.expect_payload(stream_id, len);
            }
            Header::Registration { len } if self.peer == PeerRole::Client => {
                let reader = Box::new(HelloReader::registration_of(len));
                self.reading = ReadState::Registration { reader, left: len };
            }
            Header::Registration { len } | Header::Skip { len } if len > 0 => {
                self.reading = ReadState::Skip(len);
            }
            Header::StreamsOpened(number) => {
                let mut state = lock(&self.tunnel.0);
                // A client opens none.
                if let Some(quic) = state
                    .quic
                    .as_mut()
                    .filter(|_| self.peer != PeerRole::Client)
                {
                    quic.told(number);
                }
            }
            Header::Registration { .. } | Header::Skip { .. } => {}
        }
        Ok(())
    }

    /// Returns the streams that have come before the signal that their services depend on.
    fn begin_registration(&mut self, signal: Signal) -> Result<(), Malformed> {
        if !self.has_lanes || self.peer == PeerRole::Client {
            return Ok(());
        }
        if matches!(signal, Signal::Ready | Signal::Services) {
            lock(&self.tunnel.0).note_registration(signal);
            for opened in self.tunnel.early_streams()? {
                self.push_opened(opened);
            }
        }
        Ok(())
    }

    fn expect_payload(&mut self, stream_id: StreamId, left: u32) {
        self.reading = if left > 0 {
            ReadState::Payload { stream_id, left }
        } else {
            ReadState::Head(Vec::new())
        };
    }

    fn handle_signal(&mut self, signal: Signal) {
        let event = match signal {
            // One answer is enough for pings that came together.
            Signal::Ping
                if matches!(
                    self.events.as_ref().and_then(|events| events.back()),
                    Some(Event::Ping)
                ) =>
            {
                return
            }
            Signal::Ping => Event::Ping,
            Signal::Close => {
                self.tunnel.peer_closed();
                Event::Close
            }
            Signal::Services if self.peer == PeerRole::Client => {
                let reader = Box::new(HelloReader::registration());
                let left = u32::MAX;
                self.reading = ReadState::Registration { reader, left };
                return;
            }
            Signal::Services => Event::Services(None),
            state @ Signal::ServiceState { .. } if self.peer == PeerRole::Client => {
                Event::Signal(state)
            }
            // A client should not send other signals; they are harmless.
            _ if self.peer == PeerRole::Client => return,
            other => Event::Signal(other),
        };
        self.push_event(event);
    }
}

/// Consecutive payload slices of one stream from one read, delivered in one call.
#[derive(Default)]
struct Batch<'a> {
    stream_id: StreamId,
    pieces: SmallVec<[IoSlice<'a>; MAX_BATCH]>,
}

impl<'a> Batch<'a> {
    fn is_full(&self) -> bool {
        self.pieces.len() >= MAX_BATCH
    }

    /// Whether the payload behind this header belongs to the batch.
    fn goes_on_with(&self, head: &Header) -> bool {
        matches!(head, Header::Data { stream_id, .. } if *stream_id == self.stream_id)
    }

    /// Whether this header ends the peer's direction of the batch's stream.
    fn ends_with(&self, head: &Header) -> bool {
        matches!(head, Header::Finish { stream_id } | Header::Close { stream_id } if *stream_id == self.stream_id)
    }

    fn push(&mut self, stream_id: StreamId, payload: &'a [u8]) {
        self.stream_id = stream_id;
        self.pieces.push(IoSlice::new(payload));
    }

    fn deliver(&mut self, tunnel: &Tunnel, last: bool, now: Tick) {
        if !self.pieces.is_empty() {
            lock(&tunnel.0).deliver(self.stream_id, &mut self.pieces, last, now);
            self.pieces.clear();
        }
    }
}

/// Splits off the first `n` bytes, or all if there are fewer.
fn split(bytes: &[u8], n: u32) -> (&[u8], &[u8]) {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    bytes.split_at(n.min(bytes.len()))
}
