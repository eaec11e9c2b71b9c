//! The channels of a QUIC connection: opening, reading, writing and ending them.

use super::channel::{QuicChannel, Receiving, Sending, IN};
use super::header::{self, HeaderRead, HeaderReader, ACCEPTED, CHANNELS};
use super::{code, QuicTransport};
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::peer::{OpenedChannel, RECEIVE};
use bytes::{Buf, Bytes};
use quinn_proto::{Connection, Dir, ReadError, StreamId, VarInt, WriteError};
use smallvec::SmallVec;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Time that a peer has to send the label of a stream.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes of one write.
const MAX_WRITE: usize = 64 * 1024;
/// Bytes that the connection has not taken yet, of all channels together, from which further writes are small.
const MANY_LEFT: usize = 256 * 1024;
/// Maximum bytes of a small write. A channel is held up by its own bytes only; all 256 leave less than 2.5 MiB.
const SMALL_WRITE: usize = 8 * 1024;
/// Time for which a reader may be behind before what waits for it is allowed for.
const SLOW_TIME: Duration = Duration::from_millis(100);
/// What a slow reader adds to the connection's window: the window of its stream, which it may fill, and an eighth of
/// the sum. quinn-proto tells the peer of a window only when it has grown by an eighth of the whole, which would be
/// more than what is left for other streams.
const RELIEF: u32 = RECEIVE.saturating_mul(8).div_ceil(7);

impl QuicTransport {
    /// Returns the next channel that the peer has opened.
    pub(in super::super) fn opened(&mut self) -> Option<OpenedChannel> {
        self.opened.pop_front()
    }

    /// Returns the number of channels.
    pub(in super::super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Whether another channel may be opened.
    fn has_room(&self) -> bool {
        self.channels.len() < CHANNELS as usize
    }

    /// Adds a channel under a number that is free.
    fn insert(&mut self, channel: QuicChannel) -> u16 {
        let mut id = self.next_id;
        while self.channels.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.next_id = id.wrapping_add(1);
        self.ids.insert(channel.stream, id);
        self.channels.insert(id, channel);
        id
    }

    /// Opens a channel; `None` if there are too many, or the label is too long.
    pub(in super::super) fn open(&mut self, label: &str, now: Instant) -> Option<u16> {
        let header = header::write(label)?;
        if !self.has_room() {
            return None;
        }
        let connection = self.phase.connection()?;
        let stream = connection.streams().open(Dir::Bi)?;
        let id = self.insert(QuicChannel::new(stream, Receiving::Answer));
        self.write(id, header.into(), now);
        Some(id)
    }

    /// Refuses channels that the peer opens from now on.
    pub(in super::super) fn refuse_channels(&mut self) {
        self.refuses = true;
    }

    /// Accepts the streams that the peer has opened.
    pub(super) fn accept(&mut self, memory: &MemoryShare, now: Instant) {
        while let Some(connection) = self.phase.connection() {
            let Some(stream) = connection.streams().accept(Dir::Bi) else {
                return;
            };
            let receiving = Receiving::Header(HeaderReader::default(), now);
            let id = self.insert(QuicChannel::new(stream, receiving));
            self.take_in(id, memory, now);
        }
    }

    pub(super) fn readable(&mut self, stream: StreamId, memory: &MemoryShare, now: Instant) {
        if let Some(id) = self.ids.get(&stream) {
            self.take_in(*id, memory, now);
        }
    }

    /// Reads a channel's bytes from the connection, as far as the channel may hold them.
    fn take_in(&mut self, id: u16, memory: &MemoryShare, now: Instant) {
        let (Some(channel), Some(connection)) =
            (self.channels.get_mut(&id), self.phase.connection())
        else {
            return;
        };
        let stream = channel.stream;
        let mut receiver = connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else {
            return;
        };
        let (mut refusal, mut is_opened) = (None, false);
        let before = channel.waiting;
        let mut was_header = matches!(channel.receiving, Receiving::Header(..));
        while refusal.is_none() && channel.waiting < IN {
            let mut bytes = match chunks.next(IN) {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) => {
                    channel.receiving = match channel.receiving {
                        Receiving::Open => Receiving::Ended,
                        _ => Receiving::Lost,
                    };
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_)) => {
                    channel.receiving = Receiving::Lost;
                    break;
                }
            };
            match &mut channel.receiving {
                Receiving::Header(reader, _) => match reader.read(&mut bytes) {
                    HeaderRead::More => {}
                    HeaderRead::Label(_) if self.refuses => refusal = Some(code::CLOSED),
                    HeaderRead::Label(label) => {
                        channel.receiving = Receiving::Open;
                        (channel.moved, is_opened, was_header) = (Some(now), true, false);
                        self.opened.push_back(OpenedChannel { id, label });
                    }
                    HeaderRead::Malformed => refusal = Some(code::MALFORMED),
                },
                Receiving::Answer if bytes.first() == Some(&ACCEPTED) => {
                    bytes.advance(1);
                    channel.receiving = Receiving::Open;
                    channel.wake_reader();
                }
                Receiving::Answer => refusal = Some(code::MALFORMED),
                Receiving::Open | Receiving::Ended | Receiving::Lost => {}
            }
            if !bytes.is_empty() && refusal.is_none() {
                channel.push(bytes, now);
            }
        }
        let _ = chunks.finalize();
        memory.add(channel.waiting.saturating_sub(before));
        // A stream without a label has no owner.
        let is_headless = matches!(channel.receiving, Receiving::Header(..));
        let is_headless = is_headless && refusal.is_some() || was_header && channel.is_received();
        let is_ended = channel.is_received();
        let is_full = !is_ended && channel.waiting >= IN;
        if channel.waiting > before || is_ended {
            channel.wake_reader();
        }
        if is_ended {
            channel.wake();
        }
        if is_opened {
            self.write(id, Bytes::from_static(&[ACCEPTED]), now);
        }
        if let Some(code) = refusal {
            self.reset(id, code, memory);
        }
        if is_headless {
            self.reset(id, code::MALFORMED, memory);
            self.drop_channel(id, memory);
        }
        self.set_full(id, is_full, memory, Some(now));
        self.forget(id);
    }

    /// Notes whether a channel's bytes wait in the connection.
    fn set_full(&mut self, id: u16, is_full: bool, memory: &MemoryShare, now: Option<Instant>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if is_full {
            channel.full = channel.full.or(now);
            return;
        }
        channel.full = None;
        if std::mem::take(&mut channel.is_relieved) {
            self.relieved = self.relieved.saturating_sub(1);
            memory.sub(RELIEF as usize);
            self.set_window();
        }
    }

    /// Sets the connection's window: it is larger by what waits for slow readers, so that other streams do not.
    fn set_window(&mut self) {
        let window = RELIEF.saturating_mul(self.relieved).saturating_add(RECEIVE);
        if let Some(connection) = self.phase.connection() {
            connection.set_receive_window(VarInt::from_u32(window));
        }
    }

    /// Allows for the bytes of slow readers that fill the connection's window, as far as there is memory. Cuts
    /// channels whose readers take nothing for too long if there is none and other channels wait.
    pub(super) fn relieve(&mut self, memory: &MemoryShare, now: Instant) {
        let is_behind = |it: &QuicChannel| {
            let due = it.full.map(|since| since + SLOW_TIME);
            !it.is_relieved && due.is_some_and(|due| due <= now)
        };
        let behind = self.channels.iter().filter(|(_, it)| is_behind(it));
        let is_alone = self.channels.len() < 2;
        for id in behind.map(|(id, _)| *id).collect::<SmallVec<[u16; 4]>>() {
            let Some(channel) = self.channels.get_mut(&id) else {
                continue;
            };
            if memory.try_add(RELIEF as usize) {
                channel.is_relieved = true;
                self.relieved = self.relieved.saturating_add(1);
                self.set_window();
                continue;
            }
            // The next try.
            channel.full = Some(now);
            let since = channel.stalled.unwrap_or(now);
            let limit = self.crowd.limit(now);
            if !is_alone && now.saturating_duration_since(since) >= limit {
                log::debug!("a channel is cut: its reader takes nothing, and the others wait");
                self.reset(id, code::TOO_SLOW, memory);
            }
        }
    }

    /// Returns when [`QuicTransport::relieve`] or [`QuicTransport::end_headless`] is due.
    pub(super) fn channel_deadline(&self) -> Option<Instant> {
        let slow = self.channels.values().filter(|it| !it.is_relieved);
        let slow = slow.filter_map(|it| it.full).min();
        let slow = slow.map(|since| since + SLOW_TIME);
        [slow, self.header_deadline()].into_iter().flatten().min()
    }

    /// Returns when the next stream without a label is reset.
    fn header_deadline(&self) -> Option<Instant> {
        let since = self.channels.values().filter_map(header_since);
        since.min().map(|since| since + HEADER_TIMEOUT)
    }

    /// Resets streams whose label has not come in time.
    pub(super) fn end_headless(&mut self, memory: &MemoryShare, now: Instant) {
        if self.header_deadline().is_none_or(|due| due > now) {
            return;
        }
        let late = |channel: &QuicChannel| {
            header_since(channel).is_some_and(|since| since + HEADER_TIMEOUT <= now)
        };
        let late = self.channels.iter().filter(|(_, it)| late(it));
        for id in late.map(|(id, _)| *id).collect::<Vec<u16>>() {
            self.reset(id, code::MALFORMED, memory);
            self.drop_channel(id, memory);
        }
    }

    /// Cuts channels whose readers take nothing, the longest first, while all peers together hold too much and this
    /// one the most.
    pub(in super::super) fn shed(&mut self, memory: &MemoryShare) {
        while memory.is_too_much() {
            let holding = self.channels.iter();
            let holding = holding.filter(|(_, it)| it.held() > 0 || it.is_relieved);
            let Some((id, _)) = holding.min_by_key(|(_, it)| it.stalled) else {
                return;
            };
            let id = *id;
            log::debug!("a channel is cut: peers hold too much, and its reader takes nothing");
            self.reset(id, code::TOO_SLOW, memory);
        }
    }

    /// Ends channels that have reached their idle limit.
    pub(in super::super) fn end_idle(&mut self, memory: &MemoryShare, now: Instant) {
        let is_idle = |channel: &QuicChannel| {
            let limit = channel.idle_limit.filter(|_| !channel.has_ended());
            let since = limit.and(channel.moved);
            since.is_some_and(|since| Some(now.saturating_duration_since(since)) >= limit)
        };
        let idle = self.channels.iter().filter(|(_, it)| is_idle(it));
        for id in idle.map(|(id, _)| *id).collect::<Vec<u16>>() {
            log::debug!("a channel is ended: nothing has moved in it for too long");
            let holds = self.channels.get(&id).is_some_and(|it| it.held() > 0);
            match holds {
                true => self.reset(id, code::TOO_SLOW, memory),
                // The reader has everything that has come. The peer may miss something.
                false => {
                    self.stop(id, code::CLOSED, memory);
                    self.stop_sending(id, code::ABORTED);
                }
            }
        }
    }

    /// Cuts a channel: its bytes are discarded in both directions.
    pub(in super::super) fn reset(&mut self, id: u16, code: VarInt, memory: &MemoryShare) {
        self.stop(id, code, memory);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.is_cut = true;
        }
        self.stop_sending(id, code);
    }

    /// Cuts the direction to the peer, unless the peer has all of it.
    fn stop_sending(&mut self, id: u16, code: VarInt) {
        let (Some(channel), Some(connection)) =
            (self.channels.get_mut(&id), self.phase.connection())
        else {
            return;
        };
        if channel.sending != Sending::Ended {
            // Fails if it has ended.
            let _ = connection.send_stream(channel.stream).reset(code);
            channel.sending = Sending::Ended;
        }
        let left = std::mem::take(&mut channel.unsent).len();
        self.unsent = self.unsent.saturating_sub(left);
        channel.wake();
        self.forget(id);
    }

    /// Cuts a channel because the connection behind it was cut.
    pub(in super::super) fn abort(&mut self, id: u16, memory: &MemoryShare) {
        self.reset(id, code::ABORTED, memory);
    }

    /// Reads nothing more from a channel, and discards what it holds.
    fn stop(&mut self, id: u16, code: VarInt, memory: &MemoryShare) {
        let (Some(channel), Some(connection)) =
            (self.channels.get_mut(&id), self.phase.connection())
        else {
            return;
        };
        if !channel.is_received() {
            // Fails if it has ended.
            let _ = connection.recv_stream(channel.stream).stop(code);
            channel.receiving = Receiving::Ended;
        }
        memory.sub(channel.let_go());
        channel.wake();
        self.set_full(id, false, memory, None);
    }

    /// Ends a channel when nothing has moved in it for `limit`.
    pub(in super::super) fn limit_idle(&mut self, id: u16, limit: Option<Duration>, now: Instant) {
        if let Some(channel) = self.channels.get_mut(&id) {
            (channel.idle_limit, channel.moved) = (limit, Some(now));
        }
    }

    /// Returns the idle limit of a channel.
    pub(in super::super) fn idle_limit(&self, id: u16) -> Option<Duration> {
        self.channels.get(&id)?.idle_limit
    }

    /// Notes that the reader of a channel is consuming the bytes that it was given last.
    pub(in super::super) fn goes_on(&mut self, id: u16, now: Instant) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.stalled = channel.stalled.and(Some(now));
            channel.moved = Some(now);
        }
    }

    /// Whether both directions of a channel have ended; bytes may still be held.
    pub(in super::super) fn has_ended(&self, id: u16) -> bool {
        self.channels.get(&id).is_none_or(QuicChannel::has_ended)
    }

    /// Whether no bytes are held for readers.
    pub(in super::super) fn is_drained(&self) -> bool {
        self.channels.values().all(|channel| channel.held() == 0)
    }

    /// Reads the received bytes of a channel: `Some(None)` is its end.
    pub(in super::super) fn poll_read(
        &mut self,
        id: u16,
        memory: &MemoryShare,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Option<Bytes>> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        // A reader that asks for more has consumed the previous bytes.
        memory.sub(std::mem::take(&mut channel.reading));
        channel.stalled = (channel.waiting > 0).then_some(now);
        if channel.waiting == 0 && channel.full.is_some() {
            self.take_in(id, memory, now);
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        if let Some(bytes) = channel.pop() {
            channel.moved = Some(now);
            channel.reading = bytes.len();
            if channel.full.is_some() && channel.waiting < IN / 2 {
                self.take_in(id, memory, now);
            }
            return Poll::Ready(Some(bytes));
        }
        if channel.is_received() {
            return Poll::Ready(None);
        }
        channel.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Copies received bytes of a channel, as many as there are: `Some(0)` is its end.
    pub(in super::super) fn poll_read_to(
        &mut self,
        id: u16,
        memory: &MemoryShare,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        now: Instant,
    ) -> Poll<usize> {
        let mut count = 0;
        while let Some(room) = buffer.get_mut(count..).filter(|room| !room.is_empty()) {
            // Before the first piece, all that was read is consumed.
            let before = self.channels.get(&id).map_or(0, |it| it.reading);
            if count > 0 && self.channels.get(&id).is_none_or(|it| it.waiting == 0) {
                break;
            }
            let mut bytes = match self.poll_read(id, memory, cx, now) {
                Poll::Ready(Some(bytes)) => bytes,
                Poll::Ready(None) => return Poll::Ready(0),
                Poll::Pending => return Poll::Pending,
            };
            let length = room.len().min(bytes.len());
            if let Some(room) = room.get_mut(..length) {
                room.copy_from_slice(&bytes.split_to(length));
            }
            if !bytes.is_empty() {
                self.unread(id, bytes);
            }
            if let Some(channel) = self.channels.get_mut(&id).filter(|_| count > 0) {
                // The earlier pieces are being read, too.
                channel.reading += before;
                memory.add(before);
            }
            count += length;
        }
        Poll::Ready(count)
    }

    /// Waits until the peer has answered the opening of a channel; false if the channel has ended.
    pub(in super::super) fn poll_answered(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<bool> {
        match self.channels.get_mut(&id) {
            Some(channel) if matches!(channel.receiving, Receiving::Answer) => {
                channel.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(channel) => Poll::Ready(!matches!(channel.receiving, Receiving::Lost)),
            None => Poll::Ready(false),
        }
    }

    /// Waits until the bytes held for a channel's reader are discarded.
    pub(in super::super) fn poll_cut(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<()> {
        match self.channels.get_mut(&id) {
            Some(channel) if !channel.is_cut => {
                channel.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether bytes for a channel's reader were discarded, or will never come.
    pub(in super::super) fn is_cut(&self, id: u16) -> bool {
        let is_cut = |it: &QuicChannel| it.is_cut || matches!(it.receiving, Receiving::Lost);
        self.channels.get(&id).is_some_and(is_cut)
    }

    /// Returns bytes that the reader did not consume.
    pub(in super::super) fn unread(&mut self, id: u16, bytes: Bytes) {
        if let Some(channel) = self.channels.get_mut(&id) {
            // Bytes of a reader that was cut meanwhile are not accounted for any more.
            if channel.reading >= bytes.len() {
                channel.reading -= bytes.len();
                channel.put_back(bytes);
            }
        }
    }

    /// Returns the number of bytes that a channel may send now, at least one; `None` if it has ended.
    pub(in super::super) fn poll_room(
        &mut self,
        id: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Option<usize>> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        if channel.sending != Sending::Open {
            return Poll::Ready(None);
        }
        if channel.unsent.is_empty() {
            return Poll::Ready(Some(match self.unsent < MANY_LEFT {
                true => MAX_WRITE,
                false => SMALL_WRITE,
            }));
        }
        channel.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Writes bytes, at most as many as there was room for. False if the channel has ended.
    pub(in super::super) fn write(&mut self, id: u16, bytes: Bytes, now: Instant) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else {
            return false;
        };
        if channel.sending != Sending::Open {
            return false;
        }
        channel.moved = Some(now);
        self.unsent += bytes.len();
        channel.unsent = match channel.unsent.is_empty() {
            true => bytes,
            false => [&channel.unsent[..], &bytes[..]].concat().into(),
        };
        self.flush(id);
        true
    }

    /// Passes bytes that are left to the connection, and the end behind them.
    fn flush(&mut self, id: u16) {
        let (Some(channel), Some(connection)) =
            (self.channels.get_mut(&id), self.phase.connection())
        else {
            return;
        };
        let before = channel.unsent.len();
        if !send(connection, channel) {
            channel.sending = Sending::Ended;
            channel.unsent = Bytes::new();
            channel.wake_writer();
        }
        let left = channel.unsent.len();
        self.unsent = self.unsent.saturating_sub(before - left);
    }

    pub(super) fn writable(&mut self, stream: StreamId, now: Instant) {
        let Some(id) = self.ids.get(&stream).copied() else {
            return;
        };
        self.flush(id);
        if let Some(channel) = self.channels.get_mut(&id) {
            if channel.unsent.is_empty() {
                channel.moved = Some(now);
                channel.wake_writer();
            }
        }
    }

    /// Notes that the peer has everything that was written to a stream.
    pub(super) fn delivered(&mut self, stream: StreamId) {
        let Some(id) = self.ids.get(&stream).copied() else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.sending = Sending::Ended;
            channel.wake_writer();
        }
        self.forget(id);
    }

    /// Notes that the peer wants nothing more of a stream.
    pub(super) fn stopped(&mut self, stream: StreamId) {
        let (Some(id), Some(connection)) =
            (self.ids.get(&stream).copied(), self.phase.connection())
        else {
            return;
        };
        // The peer waits for that (RFC 9000, section 3.5). Fails if all has been sent.
        let _ = connection.send_stream(stream).reset(code::CLOSED);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.sending = Sending::Ended;
            let left = std::mem::take(&mut channel.unsent).len();
            self.unsent = self.unsent.saturating_sub(left);
            channel.wake();
        }
        self.forget(id);
    }

    /// Notes that everything was written to a channel: the peer sees the end behind it.
    pub(in super::super) fn finish(&mut self, id: u16) {
        if let Some(channel) = self.channels.get_mut(&id) {
            if channel.sending == Sending::Open {
                channel.sending = Sending::Finishing;
                self.flush(id);
            }
        }
    }

    /// Waits until the peer has everything that was written to a finished channel, or wants nothing more.
    pub(in super::super) fn poll_delivered(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<()> {
        match self.channels.get_mut(&id) {
            Some(channel) if channel.sending != Sending::Ended => {
                channel.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Notes that a channel's owner has dropped it: what was written before its end still arrives. Without an end, the
    /// channel is cut, so that a part does not look complete.
    pub(in super::super) fn drop_channel(&mut self, id: u16, memory: &MemoryShare) {
        let sending = self.channels.get(&id).map(|it| it.sending);
        if sending == Some(Sending::Open) {
            self.reset(id, code::ABORTED, memory);
        }
        self.stop(id, code::CLOSED, memory);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.is_dropped = true;
            (channel.reader, channel.writer, channel.watcher) = (None, None, None);
        }
        self.forget(id);
    }

    /// Drops the state of a channel that is no longer used.
    fn forget(&mut self, id: u16) {
        let is_over = |channel: &QuicChannel| {
            channel.is_dropped && channel.sending == Sending::Ended && channel.has_ended()
        };
        if self.channels.get(&id).is_some_and(is_over) {
            if let Some(channel) = self.channels.remove(&id) {
                self.ids.remove(&channel.stream);
            }
        }
    }

    /// Ends all channels with the connection. Readers get what has come, and then an error unless it was all.
    pub(in super::super) fn end(&mut self, memory: &MemoryShare) {
        let ids: Vec<u16> = self.channels.keys().copied().collect();
        for id in ids {
            self.set_full(id, false, memory, None);
            if let Some(channel) = self.channels.get_mut(&id) {
                if !channel.is_received() {
                    channel.receiving = Receiving::Lost;
                }
                channel.sending = Sending::Ended;
                channel.unsent = Bytes::new();
                channel.wake();
            }
            self.forget(id);
        }
        self.unsent = 0;
        self.phase = super::Phase::Over;
    }
}

/// Returns since when the label of a channel is waited for.
fn header_since(channel: &QuicChannel) -> Option<Instant> {
    match channel.receiving {
        Receiving::Header(_, since) => Some(since),
        _ => None,
    }
}

/// Writes what is left of a channel's bytes, and its end. False if the peer wants nothing more.
fn send(connection: &mut Connection, channel: &mut QuicChannel) -> bool {
    let mut stream = connection.send_stream(channel.stream);
    while !channel.unsent.is_empty() {
        let mut pieces = [std::mem::take(&mut channel.unsent)];
        let written = stream.write_chunks(&mut pieces);
        let [rest] = pieces;
        channel.unsent = rest;
        match written {
            Ok(_) => {}
            Err(WriteError::Blocked) => return true,
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return false,
        }
    }
    match channel.sending {
        Sending::Finishing => stream.finish().is_ok(),
        Sending::Open | Sending::Ended => true,
    }
}
