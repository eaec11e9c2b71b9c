//! One stream of a tunnel, as the tunnel sees it: its backlog, credit and window, and how it ends.
//! The owner's side of it is [`Stream`](super::Stream).

use super::quic_carrier::Lane;
use super::recv_buffer::RecvBuffer;
use super::scheduler::Turn;
use super::stream_record::StreamRecord;
use super::window::{Budget, Window, MAX_CREDIT};
use crate::net::clock::{self, Tick};
use crate::net::Conn;
use crate::wire::frame::{Header, ResetCode, ServiceIndex, StreamId};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A stream with this many recent bytes is a bulk stream: one that sends 40 KB a second or more,
/// see [`StreamState::recent()`].
const BULK_BYTES: u32 = 8 * 1024;
/// Bytes that a stream sends as a short answer to what the peer has sent last.
const SHORT_ANSWER: u32 = 16 * 1024;
/// A stream with this many recent bytes sends no short answers: one that sends 320 KB a second or more, as answers or
/// not. Others would get nothing of a slow line.
const MAX_ANSWERS: u32 = 64 * 1024;
/// Credit in GT/1, which has no windows.
const UNLIMITED: u32 = u32::MAX;

/// Why no more bytes of a stream come from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has ended its direction, behind all its bytes; the other direction goes on.
    Finished,
    /// The peer has closed the stream, behind all its bytes.
    Closed,
    /// The peer has reset the stream.
    Reset(ResetCode),
    /// The tunnel ended before the stream; bytes may be missing.
    Lost,
    /// Nothing has moved for as long as the idle limit.
    TimedOut,
    /// The reader took nothing while other streams waited behind it.
    Stuck,
    /// The connection that the stream was attached to takes no more bytes.
    Refused,
    /// The peer changed its services before it learnt of the stream, whose service index may now
    /// mean another service.
    Outdated,
}

/// What has to be sent on a stream: the more, the less soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// Little of late, such as keystrokes.
    Interactive,
    /// A short answer to what the peer has sent last, such as a page, on a stream that has sent more before.
    Answer,
    /// Much.
    Bulk,
}

/// The tunnel's side of a stream.
pub(super) struct StreamState {
    /// Where payloads are written directly while the backlog is empty.
    pub sink: Option<Arc<Conn>>,
    pub backlog: RecvBuffer,
    /// The waker of the one task that owns the stream.
    pub waker: Option<Waker>,
    /// The service index, until the peer knows of the stream.
    pub unannounced: Option<ServiceIndex>,
    pub opened_here: bool,
    pub ended: Option<CloseReason>,
    /// Whether this end has ended its direction.
    pub finished: bool,
    /// Whether the end that did not open the stream has ended its direction.
    pub answered_whole: bool,
    /// Whether the visitor has ended its direction in GT/1, which cannot tell the peer.
    pub ending: bool,
    /// The reset code for the peer when the stream is dropped; `None` for a graceful end.
    pub failure: Option<ResetCode>,
    pub full: bool,
    pub turn: Turn,
    /// What the stream had to send when it asked for its turn.
    haste: Haste,
    /// Bytes sent up to `sent_at`, decayed; see [`StreamState::recent()`].
    recent: u32,
    /// Bytes sent since the peer last sent any.
    answer: u32,
    /// Bytes that may be sent before the peer gives more credit.
    pub credit: u32,
    /// The receive window: bytes that the peer may send.
    pub window: Window,
    /// Whether the peer has sent anything.
    pub answered: bool,
    /// Whether this end has sent something since the peer last did.
    pub awaits_answer: bool,
    pub received_at: Tick,
    pub sent_at: Tick,
    /// When the backlog last got shorter.
    pub taken_at: Tick,
    pub idle_limit: Option<Duration>,
    /// Whether `idle_limit` also applies to silence in one direction only.
    pub any_direction: bool,
    /// The record of a stream that is logged.
    pub record: Option<Arc<StreamRecord>>,
    /// What carries the stream over QUIC, if each one has a stream of QUIC.
    pub lane: Option<Box<Lane>>,
}

impl StreamState {
    fn new(unannounced: Option<ServiceIndex>) -> Self {
        let now = Tick::now();
        Self {
            sink: None,
            backlog: RecvBuffer::default(),
            waker: None,
            unannounced,
            opened_here: unannounced.is_some(),
            ended: None,
            finished: false,
            answered_whole: false,
            ending: false,
            failure: None,
            full: false,
            turn: Turn::None,
            haste: Haste::Interactive,
            recent: 0,
            answer: 0,
            credit: UNLIMITED,
            window: Window::default(),
            answered: false,
            awaits_answer: false,
            received_at: now,
            sent_at: now,
            taken_at: now,
            idle_limit: None,
            any_direction: false,
            record: None,
            lane: None,
        }
    }

    pub fn opened_here(service: ServiceIndex) -> Self {
        Self::new(Some(service))
    }

    pub fn opened_by_peer() -> Self {
        Self::new(None)
    }

    /// Sets the credit, for bytes to send, and the window, for bytes to receive.
    pub fn with_windows(self, credit: u32, window: Window) -> Self {
        let credit = credit.min(MAX_CREDIT);
        Self {
            credit,
            window,
            ..self
        }
    }

    /// Adds credit from the peer. False if that exceeds the maximum.
    pub fn credit(&mut self, bytes: u32) -> bool {
        if self.credit == 0 {
            self.wake();
        }
        self.credit = self.credit.saturating_add(bytes);
        self.credit <= MAX_CREDIT
    }

    /// Returns the frame that announces the stream to the peer, unless the peer knows of it.
    pub fn announcement(&mut self, stream_id: StreamId) -> Option<Header> {
        let service = self.unannounced.take()?;
        Some(Header::Open {
            stream_id,
            service,
            window: self.window.left(),
            len: 0,
        })
    }

    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Records why no more bytes come. The first reason stays unless it ended only one direction,
    /// or `why` means that the backlog is given up.
    pub fn end(&mut self, why: CloseReason) {
        let final_word = matches!(why, CloseReason::Stuck | CloseReason::TimedOut);
        if final_word || matches!(self.ended, None | Some(CloseReason::Finished)) {
            self.ended = Some(why);
            self.wake();
        }
    }

    /// Records that the tunnel has ended. A peer that had ended its direction before has sent
    /// everything: its bytes are not cut.
    pub fn lose(&mut self) {
        self.full = false;
        self.end(match self.ended {
            Some(CloseReason::Finished) => CloseReason::Closed,
            _ => CloseReason::Lost,
        });
        // The owner gets no other wake-up from the tunnel.
        self.wake();
    }

    /// Discards the backlog and returns its length.
    pub fn discard(&mut self) -> usize {
        std::mem::take(&mut self.backlog).len()
    }

    /// Returns the length of the backlog.
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Whether both directions have ended; the backlog may still have bytes.
    pub fn has_ended(&self) -> bool {
        self.cut().is_some()
    }

    /// Returns why both directions have ended, if they have.
    pub fn cut(&self) -> Option<CloseReason> {
        self.ended.filter(|why| *why != CloseReason::Finished)
    }

    /// True once: when the end that opened the stream is the only one that has not ended its
    /// direction.
    pub fn becomes_answered(&mut self) -> bool {
        let whole = if self.opened_here {
            self.ended == Some(CloseReason::Finished)
        } else {
            self.finished
        };
        whole && !std::mem::replace(&mut self.answered_whole, true)
    }

    /// Returns credit for the peer, see [`Window::grant`].
    pub fn grant(&mut self, on_the_way: bool, trip: Duration, budget: &mut Budget) -> Option<u32> {
        if !self.expects_more() {
            return None;
        }
        let waiting = self.waiting();
        self.window
            .grant(waiting, on_the_way, trip, clock::micros, budget)
    }

    /// Whether more bytes may come.
    pub fn expects_more(&self) -> bool {
        self.ended.is_none()
    }

    /// Returns the frame that tells the peer of the end when the stream is dropped.
    pub fn goodbye(&self, stream_id: StreamId) -> Option<Header> {
        if self.unannounced.is_some() {
            return None;
        }
        let reason = match self.ended {
            Some(CloseReason::Closed | CloseReason::Reset(_)) => return None,
            Some(CloseReason::Finished) if self.finished && self.failure.is_none() => return None,
            Some(CloseReason::TimedOut) => Some(ResetCode::TimedOut),
            Some(CloseReason::Stuck) => Some(ResetCode::Overloaded),
            _ => self.failure,
        };
        Some(match reason {
            Some(reason) => Header::Reset { stream_id, reason },
            None => Header::Close { stream_id },
        })
    }

    /// Whether the connection behind a half-closed stream has failed silently.
    pub fn has_lost_sink(&self) -> bool {
        self.finished && self.sink.as_ref().is_some_and(|sink| sink.has_failed())
    }

    /// Returns how long nothing was taken from the backlog; `None` if it is empty.
    pub fn waits_since(&self, now: Tick) -> Option<Duration> {
        (!self.backlog.is_empty()).then(|| self.taken_at.until(now))
    }

    /// Whether this is a bulk stream, or sends answers. Decided once for each turn.
    pub fn is_bulk(&mut self, now: Tick) -> bool {
        self.haste(now) != Haste::Interactive
    }

    /// Returns what the stream has to send. Decided once for each turn.
    pub fn haste(&mut self, now: Tick) -> Haste {
        if self.turn == Turn::None {
            self.haste = match self.recent(now) {
                ..BULK_BYTES => Haste::Interactive,
                ..MAX_ANSWERS if self.answer < SHORT_ANSWER => Haste::Answer,
                _ => Haste::Bulk,
            };
        }
        self.haste
    }

    /// Returns the number of bytes sent recently, which is halved every 100 ms.
    fn recent(&self, now: Tick) -> u32 {
        let tenths = self.sent_at.until(now).as_millis() / 100;
        // A shift by 32 bits or more leaves nothing.
        let tenths = u32::try_from(tenths).unwrap_or(u32::MAX);
        self.recent.checked_shr(tenths).unwrap_or(0)
    }

    /// Notes that `n` bytes were sent.
    pub fn sent(&mut self, n: usize, now: Tick) {
        if let Some(record) = &self.record {
            record.sent(n);
        }
        // `n` is at most one frame.
        let n = n as u32;
        self.recent = self.recent(now).saturating_add(n);
        self.answer = self.answer.saturating_add(n);
        self.sent_at = now;
        self.unannounced = None;
        self.awaits_answer = true;
        if self.credit != UNLIMITED {
            // A sender never exceeds its credit.
            self.credit = self.credit.saturating_sub(n);
        }
    }

    pub fn is_idle(&self, now: Tick) -> bool {
        match self.idle_limit {
            Some(limit) => {
                let (heard, said) = (self.received_at.until(now), self.sent_at.until(now));
                // Bytes that reach the reader are traffic too, even if they came long ago.
                let heard = heard.min(self.taken_at.until(now));
                let silence = if self.any_direction {
                    heard.max(said)
                } else {
                    heard.min(said)
                };
                silence >= limit
            }
            None => false,
        }
    }

    /// Whether nothing was taken from a non-empty backlog for `limit`.
    pub fn is_stuck(&self, now: Tick, limit: Duration) -> bool {
        self.waits_since(now).is_some_and(|time| time >= limit)
    }

    /// Delivers payload from the peer; the end of its direction follows if it is the `last`. True
    /// if the backlog has become full.
    pub fn deliver(
        &mut self,
        mut pieces: &mut [IoSlice<'_>],
        last: bool,
        now: Tick,
        limit: usize,
    ) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if let Some(record) = &self.record {
            record.received(pieces.iter().map(|piece| piece.len()).sum());
        }
        self.answered = true;
        self.awaits_answer = false;
        self.answer = 0;
        self.received_at = now;
        if self.backlog.is_empty() {
            self.taken_at = now;
            if let Some(sink) = &self.sink {
                while !pieces.is_empty() {
                    match sink.try_write_pieces(pieces, last) {
                        Ok(0) => break,
                        Ok(n) => IoSlice::advance_slices(&mut pieces, n),
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(_) => {
                            self.end(CloseReason::Refused);
                            return false;
                        }
                    }
                }
                if pieces.is_empty() {
                    if sink.holds_back() {
                        self.wake();
                    }
                    return false;
                }
            }
        }
        for piece in pieces {
            self.backlog.push(piece);
        }
        self.wake();
        let filled = !self.full && self.backlog.len() > limit;
        self.full |= filled;
        filled
    }

    pub fn keep_waker(&mut self, cx: &Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }
}

impl StreamState {
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Poll<CloseReason> {
        let at_once = matches!(
            self.ended,
            Some(CloseReason::TimedOut | CloseReason::Stuck | CloseReason::Reset(_))
        );
        while !self.backlog.is_empty() && !at_once {
            match conn.poll_write(cx, self.backlog.as_slice()) {
                Poll::Ready(Ok(n @ 1..)) => self.take(n),
                Poll::Ready(_) => return Poll::Ready(CloseReason::Refused),
                Poll::Pending => {
                    self.keep_waker(cx);
                    return Poll::Pending;
                }
            }
        }
        match (conn.poll_flush(cx), self.ended) {
            (Poll::Ready(Err(_)), _) => Poll::Ready(CloseReason::Refused),
            (Poll::Ready(Ok(())), Some(why)) => Poll::Ready(why),
            (Poll::Pending, Some(why)) if at_once => Poll::Ready(why),
            _ => {
                self.keep_waker(cx);
                Poll::Pending
            }
        }
    }

    pub fn poll_take(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let waiting = self.backlog.as_slice();
        if waiting.is_empty() {
            return match self.ended {
                Some(CloseReason::Closed | CloseReason::Finished) => Poll::Ready(Ok(0)),
                Some(CloseReason::TimedOut) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Some(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {
                    self.keep_waker(cx);
                    Poll::Pending
                }
            };
        }
        let n = waiting.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), waiting.get(..n)) {
            to.copy_from_slice(from);
        }
        self.take(n);
        Poll::Ready(Ok(n))
    }

    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_ended() && self.backlog.is_empty() {
            return Poll::Ready(());
        }
        self.keep_waker(cx);
        Poll::Pending
    }

    pub fn poll_starts_with(&mut self, cx: &mut Context<'_>, start: &[u8]) -> Poll<bool> {
        let waiting = self.backlog.as_slice();
        let begins = start.starts_with(waiting.get(..start.len()).unwrap_or(waiting));
        if !begins || waiting.len() >= start.len() || self.ended.is_some() {
            return Poll::Ready(begins && waiting.len() >= start.len());
        }
        self.keep_waker(cx);
        Poll::Pending
    }

    pub fn take(&mut self, n: usize) {
        self.backlog.consume(n);
        self.taken_at = Tick::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a stream that has sent these bytes, after a byte of the peer if it was `asked`.
    fn after(bytes: usize, is_asked: bool, now: Tick) -> StreamState {
        let mut stream = StreamState::opened_by_peer();
        stream.sent(bytes, now);
        if is_asked {
            stream.deliver(&mut [IoSlice::new(b"?")], false, now, usize::MAX);
        }
        stream
    }

    #[test]
    fn a_stream_that_is_asked_again_and_again_sends_answers_until_they_are_much() {
        let now = Tick::now();
        for (bytes, is_asked, haste) in [
            (8 * 1024 - 1, false, Haste::Interactive),
            (8 * 1024, false, Haste::Answer),
            (16 * 1024, false, Haste::Bulk),
            (16 * 1024, true, Haste::Answer),
            (64 * 1024, true, Haste::Bulk),
        ] {
            let mut stream = after(bytes, is_asked, now);
            assert_eq!(stream.haste(now), haste, "{bytes}, {is_asked}");
            assert_eq!(stream.is_bulk(now), haste != Haste::Interactive);
        }
        // Decided once for each turn.
        let mut stream = after(16 * 1024, true, now);
        stream.turn = Turn::Waiting;
        assert_eq!(stream.haste(now), Haste::Interactive);
        stream.turn = Turn::None;
        assert_eq!(stream.haste(now), Haste::Answer);
        stream.sent(16 * 1024, now);
        assert_eq!(stream.haste(now), Haste::Bulk);
    }
}
