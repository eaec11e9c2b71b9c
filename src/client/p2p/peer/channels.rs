//! The channels of a peer: opening, reading, writing and ending them.

use super::channel::{Channel, ChannelPhase, OpenedChannel, IN};
use super::credit::{Credits, CREDITED, CUT, WINDOW};
use super::{Peer, PeerState, Transport, RECEIVE};
use crate::client::p2p::resets::StreamResets;
use crate::client::p2p::{MAX_MESSAGE_IN, MAX_MESSAGE_OUT};
use crate::tunnel::{STUCK_ALONE_TIMEOUT, STUCK_TIMEOUT};
use bytes::Bytes;
use rtc_datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc_sctp::{Association, PayloadProtocolIdentifier};
use sansio::Protocol as _;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Maximum number of unacknowledged bytes of one channel.
pub(super) const OUT: usize = 256 * 1024;
/// Length in bytes up to which received messages are joined, so that small ones take little more
/// memory than their content.
pub(super) const JOINED: usize = 4 * 1024;
/// Maximum number of a peer's channels.
pub(super) const CHANNELS: usize = 256;

impl Peer {
    /// Returns the next channel that the peer has opened.
    pub fn opened(&mut self) -> Option<OpenedChannel> {
        if let Some(quic) = self.transport.quic() {
            return quic.opened();
        }
        self.opened.pop_front()
    }

    /// Returns the number of channels.
    pub fn channels(&self) -> usize {
        match &self.transport {
            Transport::Quic(quic) => quic.channels(),
            Transport::Sctp => self.channels.len(),
        }
    }

    /// Whether there are unused channel numbers.
    pub fn has_ids(&self) -> bool {
        self.is_quic() || self.next_id < self.ids
    }

    /// Opens a channel to the peer and returns its number; `None` if the peer is not connected or
    /// has its maximum of channels.
    pub fn open(&mut self, label: &str, now: Instant) -> Option<u16> {
        self.open_as(label, CREDITED, now)
    }

    pub(super) fn open_as(&mut self, label: &str, protocol: &str, now: Instant) -> Option<u16> {
        if self.state != PeerState::Connected || !self.has_ids() || self.channels.len() >= CHANNELS
        {
            return None;
        }
        if let Some(quic) = self.transport.quic() {
            return quic.open(label, now);
        }
        let (_, association) = self.association.as_mut()?;
        // Numbers are not reused: a peer that runs out of them is replaced.
        let id = self.next_id;
        let config = DataChannelConfig {
            label: label.to_owned(),
            protocol: protocol.to_owned(),
            ..DataChannelConfig::default()
        };
        association
            .open_stream(id, PayloadProtocolIdentifier::Binary)
            .ok()?;
        let mut dial = DataChannel::dial(config, 0, id).ok()?;
        while let Some(message) = dial.poll_write() {
            control(association, &mut self.resets, &message, now);
        }
        self.next_id = self.next_id.saturating_add(2);
        let channel = Channel {
            dialing: true,
            credits: (protocol == CREDITED).then(Credits::default),
            ..Channel::default()
        };
        self.channels.insert(id, channel);
        Some(id)
    }

    /// Reads a channel's messages from SCTP, as far as the channel may hold them.
    pub(super) fn take_in(&mut self, id: u16, now: Instant) {
        loop {
            let Some((_, association)) = &mut self.association else {
                return;
            };
            // Data for a channel that this end has ended is dropped. The peer may reuse the number
            // of an ended channel before its reader has dropped it.
            if self.channels.get(&id).is_some_and(Channel::holds_up) {
                return;
            }
            let Ok(mut stream) = association.stream(id) else {
                return;
            };
            let Ok(Some(message)) = stream.read_sctp() else {
                return;
            };
            self.packets.read(message.chunks.len(), message.len());
            let is_control = message.ppi == PayloadProtocolIdentifier::Dcep;
            let has_room = self.channels.len() < CHANNELS && !self.refuses;
            match self.channels.get_mut(&id) {
                None if is_control && has_room => {
                    let bytes = message.to_payload(4096).unwrap_or_default();
                    let Some(mut accepted) = accept(id, &bytes) else {
                        continue;
                    };
                    while let Some(message) = accepted.poll_write() {
                        control(association, &mut self.resets, &message, now);
                    }
                    let mut channel = Channel::default();
                    if accepted.config().protocol == CREDITED {
                        channel.credits = Some(Credits::of_opened());
                        say_credit(association, &mut self.resets, id, WINDOW, now);
                    }
                    self.channels.insert(id, channel);
                    let label = accepted.config().label.clone();
                    self.opened.push_back(OpenedChannel { id, label });
                }
                None => {
                    // There is no such channel, there are too many, or none are taken any more.
                    self.resets.end(id);
                }
                Some(channel) if is_control => {
                    channel.dialing = false;
                    channel.wake();
                }
                Some(channel)
                    if message.ppi == PayloadProtocolIdentifier::String
                        && channel.credits.is_some() =>
                {
                    let bytes = message.to_payload(16).unwrap_or_default();
                    if bytes == CUT {
                        channel.is_lost = true;
                        continue;
                    }
                    let credits = channel.credits.as_mut();
                    if credits.is_some_and(|credits| credits.receive(&bytes)) {
                        // The end that has opened the channel answers the first credit with its
                        // own.
                        say_credit(association, &mut self.resets, id, WINDOW, now);
                    }
                    if let Some(writer) = channel.writer.take() {
                        writer.wake();
                    }
                }
                Some(channel) => {
                    let is_empty = matches!(
                        message.ppi,
                        PayloadProtocolIdentifier::BinaryEmpty
                            | PayloadProtocolIdentifier::StringEmpty
                    );
                    if is_empty || channel.is_dropped || channel.phase == ChannelPhase::Closing {
                        continue;
                    }
                    let most = usize::try_from(MAX_MESSAGE_IN).unwrap_or(usize::MAX);
                    let Ok(bytes) = message.to_payload(most) else {
                        // The peer knows the limit and has exceeded it.
                        channel.end(id, &mut self.resets);
                        return;
                    };
                    channel.waiting += bytes.len();
                    self.memory.add(bytes.len());
                    channel.stalled.get_or_insert(now);
                    channel.moved = Some(now);
                    match channel.inbox.back_mut() {
                        Some(last) if last.len() + bytes.len() <= JOINED => {
                            last.extend_from_slice(&bytes);
                        }
                        _ => channel.inbox.push_back(bytes),
                    }
                    if let Some(reader) = channel.reader.take() {
                        reader.wake();
                    }
                }
            }
        }
    }

    /// Cuts channels whose readers take nothing, the longest first, while all peers together hold
    /// too much and this one the most.
    pub(super) fn shed(&mut self, now: Instant) {
        let Self {
            transport, memory, ..
        } = self;
        if let Some(quic) = transport.quic() {
            return quic.shed(memory);
        }
        while self.memory.is_too_much() {
            let stalled = self.channels.iter_mut();
            let stalled = stalled.filter(|(_, channel)| channel.held() > 0);
            let Some((id, _)) = stalled.min_by_key(|(_, channel)| channel.stalled) else {
                return;
            };
            let id = *id;
            self.cut(id, "peers hold too much, and its reader takes nothing", now);
        }
    }

    /// Ends a channel whose reader takes nothing, and discards the bytes held for the reader.
    pub(super) fn cut(&mut self, id: u16, why: &str, now: Instant) {
        self.tell_cut(id, now);
        if let Some(channel) = self.channels.get_mut(&id) {
            log::debug!("a channel is cut: {why}");
            self.memory.sub(channel.let_go());
            channel.is_cut = true;
            channel.end(id, &mut self.resets);
        }
    }

    /// Ends channels that have reached their idle limit, and forgets parts of datagrams.
    pub(super) fn end_idle(&mut self, now: Instant) {
        self.expire_pieces(now);
        let Self {
            transport, memory, ..
        } = self;
        if let Some(quic) = transport.quic() {
            return quic.end_idle(memory, now);
        }
        let is_idle = |channel: &Channel| {
            let limit = channel
                .idle_limit
                .filter(|_| channel.phase == ChannelPhase::Open);
            limit.is_some_and(|limit| is_past(channel.moved, limit, now))
        };
        while let Some((id, channel)) = self.channels.iter().find(|(_, it)| is_idle(it)) {
            let id = *id;
            match channel.held() {
                // The reader has everything that has come. The peer may miss something.
                0 => {
                    log::debug!("a channel is ended: nothing has moved in it for too long");
                    self.tell_cut(id, now);
                    if let Some(channel) = self.channels.get_mut(&id) {
                        channel.end(id, &mut self.resets);
                    }
                }
                _ => self.cut(id, "its reader has taken nothing for too long", now),
            }
        }
    }

    /// Empties SCTP's buffer if it has been full for too long, since all channels of the peer wait
    /// for it: ends channels whose readers have taken nothing meanwhile, or the peer if no reader
    /// is the cause (docs/p2p.md, "Channels").
    pub(super) fn end_stuck(&mut self, now: Instant) {
        if !self.packets.are_full(RECEIVE) {
            self.full_since = None;
            return;
        }
        self.full_since.get_or_insert(now);
        if !self.channels.values().any(Channel::holds_up) {
            if is_past(self.full_since, STUCK_ALONE_TIMEOUT, now) {
                self.end("what it has sent cannot be read");
            }
            return;
        }
        let limit = match self.channels.len() {
            0 | 1 => STUCK_ALONE_TIMEOUT,
            _ => STUCK_TIMEOUT,
        };
        if !is_past(self.full_since, limit, now) {
            return;
        }
        let is_stuck = |it: &Channel| it.holds_up() && is_past(it.stalled, limit, now);
        let stuck = self.channels.iter().filter(|(_, it)| is_stuck(it));
        for id in stuck.map(|(id, _)| *id).collect::<Vec<u16>>() {
            self.cut(
                id,
                "its reader takes nothing, and the others wait for it",
                now,
            );
            self.take_in(id, now);
        }
    }

    /// Ends a channel when nothing has moved in it for `limit`.
    pub fn limit_idle(&mut self, id: u16, limit: Option<Duration>, now: Instant) {
        if let Some(quic) = self.transport.quic() {
            return quic.limit_idle(id, limit, now);
        }
        if let Some(channel) = self.channels.get_mut(&id) {
            (channel.idle_limit, channel.moved) = (limit, Some(now));
        }
    }

    /// Returns the idle limit of a channel.
    pub fn idle_limit(&self, id: u16) -> Option<Duration> {
        if let Transport::Quic(quic) = &self.transport {
            return quic.idle_limit(id);
        }
        self.channels.get(&id)?.idle_limit
    }

    /// Notes that the reader of a channel is consuming the bytes that it was given last.
    pub fn goes_on(&mut self, id: u16, now: Instant) {
        if let Some(quic) = self.transport.quic() {
            return quic.goes_on(id, now);
        }
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.stalled = channel.stalled.and(Some(now));
            channel.moved = Some(now);
        }
    }

    /// Returns the number of a channel's unacknowledged bytes.
    pub fn unacknowledged(&self, id: u16) -> usize {
        self.channels.get(&id).map_or(0, |it| it.outstanding)
    }

    /// Whether both directions of a channel have ended; bytes may still be held.
    pub fn has_ended(&self, id: u16) -> bool {
        if let Transport::Quic(quic) = &self.transport {
            return quic.has_ended(id);
        }
        let is_over =
            |it: &Channel| matches!(it.phase, ChannelPhase::Closed | ChannelPhase::Closing);
        self.channels.get(&id).is_none_or(is_over)
    }

    /// Whether no bytes are held for readers. Cuts channels first if all peers hold too much.
    pub fn is_drained(&mut self, now: Instant) -> bool {
        self.shed(now);
        if let Transport::Quic(quic) = &self.transport {
            return quic.is_drained();
        }
        self.channels.values().all(|channel| channel.held() == 0)
    }

    pub(super) fn lost(&mut self, id: u16) {
        self.resets.ended(id);
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        self.window.lost(std::mem::take(&mut channel.outstanding));
        channel.phase = ChannelPhase::Closed;
        channel.wake();
        self.forget(id);
        self.admit();
    }

    /// Drops the state of a channel that is no longer used.
    pub(super) fn forget(&mut self, id: u16) {
        let over = |channel: &Channel| channel.is_dropped && channel.phase == ChannelPhase::Closed;
        if self.channels.get(&id).is_some_and(over) {
            self.channels.remove(&id);
        }
    }

    pub(super) fn released(&mut self, id: u16, bytes: usize) {
        if let Some(channel) = self.channels.get_mut(&id) {
            // The channel's opening messages were not counted.
            let bytes = bytes.min(channel.outstanding);
            channel.outstanding -= bytes;
            self.window.acknowledged(bytes);
        }
        let losses = self.association.as_ref().map_or(0, |(_, association)| {
            let mut stats = association.stats();
            stats.get_num_t3timeouts()
        });
        self.window.adapt(losses);
        self.admit();
    }

    /// Wakes channels that wait to send, as far as there is room.
    pub(super) fn admit(&mut self) {
        let mut room = self.window.room();
        while room >= MAX_MESSAGE_OUT {
            let Some(id) = self.waiting.pop_front() else {
                return;
            };
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.is_queued = false;
                if let Some(writer) = channel.writer.take() {
                    writer.wake();
                    room -= MAX_MESSAGE_OUT;
                }
            }
        }
    }

    /// Ends draining channels of which everything has been acknowledged.
    pub(super) fn close_drained(&mut self) {
        let drained = |channel: &Channel| {
            channel.phase == ChannelPhase::Draining && channel.outstanding == 0 && !channel.dialing
        };
        for (id, channel) in self.channels.iter_mut().filter(|(_, it)| drained(it)) {
            channel.phase = ChannelPhase::Closing;
            self.resets.end(*id);
        }
    }

    /// Reads the received bytes of a channel: `Some(None)` is its end.
    pub fn poll_read(
        &mut self,
        id: u16,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Option<Bytes>> {
        let Self {
            transport, memory, ..
        } = self;
        if let Some(quic) = transport.quic() {
            return quic.poll_read(id, memory, cx, now);
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        // A reader that asks for more has consumed the previous bytes.
        self.memory.sub(std::mem::take(&mut channel.reading));
        channel.stalled = (!channel.inbox.is_empty()).then_some(now);
        if let Some(bytes) = channel.inbox.pop_front() {
            channel.moved = Some(now);
            channel.waiting = channel.waiting.saturating_sub(bytes.len());
            channel.reading = bytes.len();
            let is_low = channel.waiting < IN / 2;
            self.taken(id, bytes.len(), now);
            if is_low {
                self.take_in(id, now);
            }
            return Poll::Ready(Some(bytes.freeze()));
        }
        if matches!(channel.phase, ChannelPhase::Closed | ChannelPhase::Closing) {
            return Poll::Ready(None);
        }
        channel.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Notes that the reader of a channel has taken bytes, so that the peer may send as many.
    pub(super) fn taken(&mut self, id: u16, bytes: usize, now: Instant) {
        let (Some(channel), Some((_, association))) =
            (self.channels.get_mut(&id), &mut self.association)
        else {
            return;
        };
        let credits = channel.credits.as_mut();
        if let Some(credit) = credits.and_then(|credits| credits.taken(bytes)) {
            say_credit(association, &mut self.resets, id, credit, now);
        }
    }

    /// Waits until the bytes held for a channel's reader are discarded.
    pub fn poll_cut(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(quic) = self.transport.quic() {
            return quic.poll_cut(id, cx);
        }
        match self.channels.get_mut(&id) {
            Some(channel) if !channel.is_cut => {
                channel.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether bytes for a channel's reader were discarded, or will never come.
    pub fn is_cut(&self, id: u16) -> bool {
        if let Transport::Quic(quic) = &self.transport {
            return quic.is_cut(id);
        }
        let channel = self.channels.get(&id);
        channel.is_some_and(|channel| channel.is_cut || channel.is_lost)
    }

    /// Returns bytes that the reader did not consume.
    pub fn unread(&mut self, id: u16, bytes: Bytes) {
        if let Some(quic) = self.transport.quic() {
            return quic.unread(id, bytes);
        }
        let channel = self.channels.get_mut(&id);
        if let Some(channel) = channel.filter(|channel| !channel.is_cut) {
            channel.waiting += bytes.len();
            channel.reading = channel.reading.saturating_sub(bytes.len());
            if let Some(credits) = &mut channel.credits {
                credits.given_back(bytes.len());
            }
            channel.inbox.push_front(bytes.into());
        }
    }

    /// Returns the number of bytes that a channel may send now, at least one; `None` if it has
    /// ended.
    pub fn poll_room(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        if let Some(quic) = self.transport.quic() {
            return quic.poll_room(id, cx);
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        if channel.phase != ChannelPhase::Open {
            return Poll::Ready(None);
        }
        let credit = channel.credits.as_ref().map_or(usize::MAX, Credits::left);
        if credit == 0 {
            channel.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let ours = channel.outstanding + MAX_MESSAGE_OUT <= OUT;
        let all = self.window.room() >= MAX_MESSAGE_OUT;
        if ours && all && !channel.dialing {
            return Poll::Ready(Some(self.max_message.min(credit)));
        }
        channel.writer = Some(cx.waker().clone());
        if !channel.is_queued {
            channel.is_queued = true;
            self.waiting.push_back(id);
        }
        Poll::Pending
    }

    /// Waits until the peer has answered the opening of a channel; false if the channel has ended.
    pub fn poll_answered(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(quic) = self.transport.quic() {
            return quic.poll_answered(id, cx);
        }
        match self.channels.get_mut(&id) {
            // It may have ended since, behind bytes for its reader.
            Some(channel) if !channel.dialing => Poll::Ready(true),
            Some(channel) if channel.phase == ChannelPhase::Open => {
                channel.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(false),
        }
    }

    /// Sends a message of at most as many bytes as there was room for. False if the channel has
    /// ended.
    pub fn write(&mut self, id: u16, bytes: Bytes, now: Instant) -> bool {
        if let Some(quic) = self.transport.quic() {
            return quic.write(id, bytes, now);
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return false;
        };
        let Some((_, association)) = &mut self.association else {
            return false;
        };
        let Ok(mut stream) = association.stream(id) else {
            return false;
        };
        let ppi = PayloadProtocolIdentifier::Binary;
        match stream.write_chunk_with_ppi(now, &bytes, ppi) {
            Ok(n) => {
                self.resets.written(id);
                channel.moved = Some(now);
                channel.outstanding += n;
                self.window.sent(n);
                if let Some(credits) = &mut channel.credits {
                    credits.sent(n);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Notes that everything was written to a channel: it ends when the peer has it.
    pub fn finish(&mut self, id: u16) {
        if let Some(quic) = self.transport.quic() {
            return quic.finish(id);
        }
        if let Some(channel) = self.channels.get_mut(&id) {
            if channel.phase == ChannelPhase::Open {
                channel.phase = ChannelPhase::Draining;
            }
        }
    }

    /// Copies received bytes of a channel of QUIC, as many as there are: zero at its end.
    pub fn poll_read_to(
        &mut self,
        id: u16,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        now: Instant,
    ) -> Poll<usize> {
        let Self {
            transport, memory, ..
        } = self;
        match transport.quic() {
            Some(quic) => quic.poll_read_to(id, memory, cx, buffer, now),
            None => Poll::Ready(0),
        }
    }

    /// Waits until the peer has everything that was written to a finished channel of QUIC, or
    /// wants nothing more.
    pub fn poll_delivered(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<()> {
        match self.transport.quic() {
            Some(quic) => quic.poll_delivered(id, cx),
            None => Poll::Ready(()),
        }
    }

    /// Cuts a channel because the connection behind it was cut: what was written may not arrive. A channel of SCTP
    /// without credit cannot tell the other end, which sees a graceful end.
    pub fn abort(&mut self, id: u16, now: Instant) {
        let Self {
            transport, memory, ..
        } = self;
        if let Some(quic) = transport.quic() {
            return quic.abort(id, memory);
        }
        self.tell_cut(id, now);
        self.finish(id);
    }

    /// Tells the peer that an open channel misses bytes, if it has credit.
    fn tell_cut(&mut self, id: u16, now: Instant) {
        let (Some(channel), Some((_, association))) =
            (self.channels.get(&id), &mut self.association)
        else {
            return;
        };
        if channel.phase == ChannelPhase::Open && channel.credits.is_some() {
            say(association, &mut self.resets, id, CUT, now);
        }
    }

    /// Creates a channel that holds `bytes`, with sent bytes that are not acknowledged.
    /// `is_closed`: the peer has ended it.
    #[cfg(test)]
    pub fn insert_silent(&mut self, bytes: &[u8], is_closed: bool) -> u16 {
        let (open, closed) = (ChannelPhase::Open, ChannelPhase::Closed);
        let channel = Channel {
            phase: if is_closed { closed } else { open },
            inbox: bytes
                .chunks(MAX_MESSAGE_OUT)
                .map(bytes::BytesMut::from)
                .collect(),
            waiting: bytes.len(),
            outstanding: 1,
            ..Channel::default()
        };
        self.memory.add(bytes.len());
        self.channels.insert(0, channel);
        0
    }

    /// Whether the peer has ended a channel, or is gone.
    #[cfg(test)]
    pub(super) fn is_closed(&self, id: u16) -> bool {
        let channel = self.channels.get(&id);
        channel.is_none_or(|channel| channel.phase == ChannelPhase::Closed)
    }

    /// Notes that a channel's owner has dropped it. One whose end was not written is cut.
    pub fn drop_channel(&mut self, id: u16, now: Instant) {
        self.end_flow(id);
        let Self {
            transport, memory, ..
        } = self;
        if let Some(quic) = transport.quic() {
            quic.drop_channel(id, memory);
            if quic.channels() == 0 {
                self.idle_since = now;
            }
            return;
        }
        self.abort(id, now);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.is_dropped = true;
            (channel.reader, channel.writer, channel.watcher) = (None, None, None);
            self.memory.sub(channel.let_go());
            // Further data is read and dropped, so that the end can come.
            self.take_in(id, now);
        }
        self.forget(id);
        // Its number may be in use by the next channel already.
        self.take_in(id, now);
        if self.channels.is_empty() {
            self.idle_since = now;
        }
    }
}

/// Whether `since` is at least `limit` ago.
fn is_past(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
}

/// Parses a message that opens a channel. Only DATA_CHANNEL_OPEN (RFC 8832, section 8.2.1) is
/// parsed: rtc-datachannel 0.21 panics at others that are too short.
pub(crate) fn accept(id: u16, message: &[u8]) -> Option<DataChannel> {
    const OPEN: u8 = 3;
    if message.first() != Some(&OPEN) {
        return None;
    }
    let config = DataChannelConfig::default();
    DataChannel::accept(config, 0, id, PayloadProtocolIdentifier::Dcep, message).ok()
}

/// Gives the peer credit for this many more bytes on a channel.
fn say_credit(
    association: &mut Association,
    resets: &mut StreamResets,
    id: u16,
    bytes: usize,
    now: Instant,
) {
    say(association, resets, id, bytes.to_string().as_bytes(), now);
}

/// Sends a text message on a channel with credit.
fn say(
    association: &mut Association,
    resets: &mut StreamResets,
    id: u16,
    text: &[u8],
    now: Instant,
) {
    if let Ok(mut stream) = association.stream(id) {
        let ppi = PayloadProtocolIdentifier::String;
        if stream.write_with_ppi(now, text, ppi).is_ok() {
            resets.written(id);
        }
    }
}

/// Sends a control message of a channel.
fn control(
    association: &mut Association,
    resets: &mut StreamResets,
    message: &DataChannelMessage,
    now: Instant,
) {
    if let Ok(mut stream) = association.stream(message.stream_id) {
        let written = stream.write_with_ppi(now, &message.payload, message.ppi);
        if written.is_ok() {
            resets.written(message.stream_id);
        }
    }
}
