//! One stream of a tunnel, as the tunnel sees it: what waits, what may come and go, and how
//! it ends.

use super::recv_buffer::RecvBuffer;
use super::scheduler::Granted;
use super::window::{Budget, Window, MAX_CREDIT};
use crate::net::clock::{self, Tick};
use crate::net::Conn;
use crate::wire::frame::{Header, ResetCode};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A stream that has sent so many bytes lately sends much: 40 KB a second and more.
const BULK_BYTES: u32 = 8 * 1024;
/// Credit in a wire that has none.
const UNLIMITED: u32 = u32::MAX;

/// Why no more bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has ended its direction, behind all its bytes; ours goes on.
    Finished,
    /// The peer has closed the stream, behind all its bytes.
    Closed,
    /// The peer has cut the stream.
    Reset(ResetCode),
    /// The tunnel has ended before the stream did: bytes may be missing.
    Lost,
    /// Nothing has moved for the time allowed.
    TimedOut,
    /// The reader took nothing while others waited behind it.
    Stuck,
    /// The connection it was attached to takes no more bytes.
    Refused,
    /// The peer has changed its services before it was told of the stream, and the index of the
    /// stream's service may mean another one now.
    Outdated,
}

/// The tunnel's side of a stream.
pub(super) struct StreamState {
    /// Where payloads go without a detour, while nothing waits before them.
    pub sink: Option<Arc<Conn>>,
    pub backlog: RecvBuffer,
    /// The one task that owns the stream.
    pub waker: Option<Waker>,
    /// The service, until the peer knows it.
    pub unannounced: Option<u16>,
    pub opened_here: bool,
    pub ended: Option<CloseReason>,
    /// We have ended our direction.
    pub finished: bool,
    /// The end that did not open it has said all it had to say.
    pub answered_whole: bool,
    /// Its visitor has ended its direction, and the peer cannot be told.
    pub ending: bool,
    /// What the peer is told when the stream goes, if it is not the end in good order.
    pub failure: Option<ResetCode>,
    pub full: bool,
    pub turn: Granted,
    /// It has sent much when it asked for its turn.
    much: bool,
    /// Bytes sent until `said`, see [`Entry::lately`].
    lately: u32,
    /// Bytes that may be sent.
    pub credit: u32,
    /// Bytes that may come.
    pub window: Window,
    /// The peer has sent something.
    pub answered: bool,
    /// We have sent something since.
    pub owed: bool,
    pub heard: Tick,
    pub said: Tick,
    /// The last time the backlog got shorter.
    pub taken: Tick,
    pub idle_limit: Option<Duration>,
    /// Silence in one direction is enough.
    pub any_direction: bool,
}

impl StreamState {
    fn new(unannounced: Option<u16>) -> Self {
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
            turn: Granted::None,
            much: false,
            lately: 0,
            credit: UNLIMITED,
            window: Window::default(),
            answered: false,
            owed: false,
            heard: now,
            said: now,
            taken: now,
            idle_limit: None,
            any_direction: false,
        }
    }

    pub fn opened_here(service: u16) -> Self {
        Self::new(Some(service))
    }

    pub fn opened_by_peer() -> Self {
        Self::new(None)
    }

    /// `credit` bytes may be sent, and what `window` says may come.
    pub fn with_windows(self, credit: u32, window: Window) -> Self {
        let credit = credit.min(MAX_CREDIT);
        Self {
            credit,
            window,
            ..self
        }
    }

    /// The peer gives credit; false if that is more than there can be.
    pub fn credit(&mut self, bytes: u32) -> bool {
        if self.credit == 0 {
            self.wake();
        }
        self.credit = self.credit.saturating_add(bytes);
        self.credit <= MAX_CREDIT
    }

    /// What tells the peer of the stream before there is a byte for it, unless it knows.
    pub fn announcement(&mut self, task: u32) -> Option<Header> {
        let service = self.unannounced.take()?;
        Some(Header::Open {
            task,
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

    /// No more bytes come, for this reason. The first reason stays, unless it was but half an
    /// end, or what waits is not to be waited for any more.
    pub fn end(&mut self, why: CloseReason) {
        let final_word = matches!(why, CloseReason::Stuck | CloseReason::TimedOut);
        if final_word || matches!(self.ended, None | Some(CloseReason::Finished)) {
            self.ended = Some(why);
            self.wake();
        }
    }

    /// The tunnel has ended. A peer that had ended its direction has sent all there was to send:
    /// its bytes are not cut.
    pub fn lose(&mut self) {
        self.full = false;
        self.end(match self.ended {
            Some(CloseReason::Finished) => CloseReason::Closed,
            _ => CloseReason::Lost,
        });
        // Its owner has to look after itself from now on.
        self.wake();
    }

    /// Forgets what waits. Says how much that was.
    pub fn discard(&mut self) -> usize {
        std::mem::take(&mut self.backlog).len()
    }

    /// Bytes that wait for the reader.
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Whether no more bytes come or go, but for those that wait.
    pub fn has_ended(&self) -> bool {
        self.cut().is_some()
    }

    /// Why both directions have ended, if they have.
    pub fn cut(&self) -> Option<CloseReason> {
        self.ended.filter(|why| *why != CloseReason::Finished)
    }

    /// Whether only the last word of the end that opened it is missing, and that is new.
    pub fn becomes_answered(&mut self) -> bool {
        let whole = if self.opened_here {
            self.ended == Some(CloseReason::Finished)
        } else {
            self.finished
        };
        whole && !std::mem::replace(&mut self.answered_whole, true)
    }

    /// Credit for the peer, see [`Window::grant`].
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

    /// What the peer has to be told when the stream goes.
    pub fn goodbye(&self, task: u32) -> Option<Header> {
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
            Some(reason) => Header::Reset { task, reason },
            None => Header::Close { task },
        })
    }

    /// Whether the connection behind a stream that is half over has gone without a word.
    pub fn has_lost_sink(&self) -> bool {
        self.finished && self.sink.as_ref().is_some_and(|sink| sink.has_failed())
    }

    /// How long nothing that waits has been taken; `None` if nothing waits.
    pub fn waits_since(&self, now: Tick) -> Option<Duration> {
        (!self.backlog.is_empty()).then(|| self.taken.until(now))
    }

    /// Whether it has sent much lately, when it asks for its turn.
    pub fn sends_much(&mut self, now: Tick) -> bool {
        if self.turn == Granted::None {
            self.much = self.lately(now) >= BULK_BYTES;
        }
        self.much
    }

    /// Bytes sent lately: those before count half for every tenth of a second.
    fn lately(&self, now: Tick) -> u32 {
        let tenths = self.said.until(now).as_millis() / 100;
        // Shifting out all of it leaves nothing.
        let tenths = u32::try_from(tenths).unwrap_or(u32::MAX);
        self.lately.checked_shr(tenths).unwrap_or(0)
    }

    /// `n` bytes are on their way.
    pub fn sent(&mut self, n: usize, now: Tick) {
        // At most a frame.
        let n = n as u32;
        self.lately = self.lately(now).saturating_add(n);
        self.said = now;
        self.unannounced = None;
        self.owed = true;
        if self.credit != UNLIMITED {
            // Nobody sends more than the credit.
            self.credit = self.credit.saturating_sub(n);
        }
    }

    pub fn is_idle(&self, now: Tick) -> bool {
        match self.idle_limit {
            Some(limit) => {
                let (heard, said) = (self.heard.until(now), self.said.until(now));
                // Bytes that reach the reader are traffic too, even if they came long ago.
                let heard = heard.min(self.taken.until(now));
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

    /// Bytes wait, and none has been taken for `limit`.
    pub fn is_stuck(&self, now: Tick, limit: Duration) -> bool {
        self.waits_since(now).is_some_and(|time| time >= limit)
    }

    /// Takes payload from the peer; its end is right behind it if it is the `last`. True if its
    /// backlog has become full.
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
        self.answered = true;
        self.owed = false;
        self.heard = now;
        if self.backlog.is_empty() {
            self.taken = now;
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
        self.taken = Tick::now();
    }
}
