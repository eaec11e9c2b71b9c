//! One stream of a tunnel, as its owner sees it ([`Stream`]) and as the tunnel does
//! ([`Entry`]).

use super::backlog::Backlog;
use super::queue::Turn;
use super::window::{Window, MAX_CREDIT};
use super::{lock, Core, Tunnel};
use crate::net::clock::Tick;
use crate::net::Conn;
use crate::wire::frame::{Head, Reason};
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::Duration;

/// A stream that sends frames of so many bytes sends much,
const MUCH: usize = 4 * 1024;
/// unless it has sent nothing for so long.
const PAUSE: Duration = Duration::from_millis(200);
/// Credit in a wire that has none.
const UNLIMITED: u32 = u32::MAX;

/// Why no more bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The peer has ended its direction, behind all its bytes; ours goes on.
    Finished,
    /// The peer has closed the stream, behind all its bytes.
    Closed,
    /// The peer has cut the stream.
    Reset(Reason),
    /// The tunnel has ended before the stream did: bytes may be missing.
    Lost,
    /// Nothing has moved for the time allowed.
    TimedOut,
    /// The reader took nothing while others waited behind it.
    Stuck,
    /// The connection it was attached to takes no more bytes.
    Refused,
}

/// The tunnel's side of a stream.
pub(super) struct Entry {
    /// Where payloads go without a detour, while nothing waits before them.
    sink: Option<Arc<Conn>>,
    backlog: Backlog,
    /// The one task that owns the stream.
    waker: Option<Waker>,
    /// The service, until the peer knows it.
    unannounced: Option<u16>,
    opened_here: bool,
    ended: Option<Why>,
    /// We have ended our direction.
    finished: bool,
    /// The end that did not open it has said all it had to say.
    pub answered_whole: bool,
    /// What the peer is told when the stream goes, if it is not the end in good order.
    failure: Option<Reason>,
    pub full: bool,
    pub turn: Turn,
    /// It has sent a large frame last.
    much: bool,
    /// Bytes that may be sent.
    credit: u32,
    /// Bytes that may come.
    pub window: Window,
    /// The peer has sent something.
    answered: bool,
    /// We have sent something since.
    owed: bool,
    heard: Tick,
    said: Tick,
    /// The last time the backlog got shorter.
    taken: Tick,
    idle_limit: Option<Duration>,
    /// Silence in one direction is enough.
    any_direction: bool,
}

impl Entry {
    fn new(unannounced: Option<u16>) -> Self {
        let now = Tick::now();
        Self {
            sink: None,
            backlog: Backlog::default(),
            waker: None,
            unannounced,
            opened_here: unannounced.is_some(),
            ended: None,
            finished: false,
            answered_whole: false,
            failure: None,
            full: false,
            turn: Turn::None,
            much: false,
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

    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// No more bytes come, for this reason. The first reason stays, unless it was but half an
    /// end, or what waits is not to be waited for any more.
    pub fn end(&mut self, why: Why) {
        let final_word = matches!(why, Why::Stuck | Why::TimedOut);
        if final_word || matches!(self.ended, None | Some(Why::Finished)) {
            self.ended = Some(why);
            self.wake();
        }
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
    fn cut(&self) -> Option<Why> {
        self.ended.filter(|why| *why != Why::Finished)
    }

    /// Whether only the last word of the end that opened it is missing, and that is new.
    pub fn becomes_answered(&mut self) -> bool {
        let whole = if self.opened_here {
            self.ended == Some(Why::Finished)
        } else {
            self.finished
        };
        whole && !std::mem::replace(&mut self.answered_whole, true)
    }

    /// Whether more bytes may come.
    pub fn expects_more(&self) -> bool {
        self.ended.is_none()
    }

    /// What the peer has to be told when the stream goes.
    pub fn goodbye(&self, task: u32) -> Option<Head> {
        if self.unannounced.is_some() {
            return None;
        }
        let reason = match self.ended {
            Some(Why::Closed | Why::Reset(_)) => return None,
            Some(Why::Finished) if self.finished && self.failure.is_none() => return None,
            Some(Why::TimedOut) => Some(Reason::TimedOut),
            Some(Why::Stuck) => Some(Reason::Overloaded),
            _ => self.failure,
        };
        Some(match reason {
            Some(reason) => Head::Reset { task, reason },
            None => Head::Close { task },
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

    /// Whether it has sent much, and lately.
    fn sends_much(&self, now: Tick) -> bool {
        self.much && self.said.until(now) < PAUSE
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

    /// Takes payload from the peer. True if its backlog has become full.
    pub fn deliver(&mut self, mut bytes: &[u8], now: Tick, limit: usize) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.answered = true;
        self.owed = false;
        self.heard = now;
        if self.backlog.is_empty() {
            self.taken = now;
            if let Some(sink) = &self.sink {
                match sink.try_write(bytes) {
                    Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        self.end(Why::Refused);
                        return false;
                    }
                }
                if bytes.is_empty() {
                    if sink.holds_back() {
                        self.wake();
                    }
                    return false;
                }
            }
        }
        self.backlog.push(bytes);
        self.wake();
        let filled = !self.full && self.backlog.len() > limit;
        self.full |= filled;
        filled
    }

    fn keep_waker(&mut self, cx: &Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }
}

/// A stream, owned by one task: the only one that may poll it. Dropping it closes it.
pub struct Stream {
    tunnel: Tunnel,
    task: u32,
}

impl Stream {
    pub(super) fn new(tunnel: Tunnel, task: u32) -> Self {
        Self { tunnel, task }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Core, u32) -> T) -> T {
        f(&mut lock(&self.tunnel.0), self.task)
    }

    fn entry<T>(&self, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.with(|core, task| core.streams.get_mut(&task).map(f))
    }

    /// Bytes that wait for this stream's reader.
    #[cfg(test)]
    pub(super) fn entry_backlog(&self) -> usize {
        self.entry(|entry| entry.backlog.len()).unwrap_or_default()
    }

    /// Tells the peer of the stream now, before there is a byte for it.
    pub fn announce(&self) {
        self.with(|core, task| {
            let Some(entry) = core.streams.get_mut(&task) else {
                return;
            };
            if let Some(service) = entry.unannounced.take() {
                core.outbox.push(Head::Open {
                    task,
                    service,
                    window: entry.window.left(),
                    len: 0,
                });
            }
        });
    }

    /// Ends our direction, behind all that was sent; bytes may still come. False if the wire
    /// cannot say so.
    pub(super) fn finish(&self) -> bool {
        if self.with(|core, _| core.budget.is_none()) {
            return false;
        }
        self.announce();
        self.with(|core, task| {
            if let Some(entry) = core.streams.get_mut(&task) {
                if !std::mem::replace(&mut entry.finished, true) && !entry.has_ended() {
                    core.outbox.push(Head::Finish { task });
                }
                core.answered += usize::from(entry.becomes_answered());
            }
        });
        true
    }

    /// The peer is to learn this reason when the stream is dropped, and not that it ended in
    /// good order; where the wire can say it.
    pub fn fail(&self, reason: Reason) {
        self.entry(|entry| entry.failure = Some(reason));
    }

    /// The connection behind it takes no more bytes.
    pub(super) fn is_refused(&self) {
        self.entry(|entry| {
            // Who has ended its own direction before has seen all it wanted.
            if !entry.finished {
                entry.failure = Some(Reason::Aborted);
            }
        });
    }

    /// From now on payloads go straight into `conn`, while it takes them.
    pub fn attach(&self, conn: Arc<Conn>) {
        self.entry(|entry| entry.sink = Some(conn));
    }

    /// Ends the stream with [`Why::TimedOut`] when nothing has moved for `limit`: in either
    /// direction if `any`, else in both.
    pub fn limit_idle(&self, limit: Option<Duration>, any: bool) {
        self.entry(|entry| {
            entry.idle_limit = limit;
            entry.any_direction = any;
        });
    }

    /// The same in both, if that is sooner than what was said before.
    pub(super) fn limit_idle_further(&self, limit: Duration) {
        self.entry(|entry| {
            entry.idle_limit = Some(entry.idle_limit.map_or(limit, |before| before.min(limit)));
        });
    }

    /// Whether the first bytes are these; waits until it is certain. Takes none of them.
    pub async fn starts_with(&self, start: &[u8]) -> bool {
        let result = std::future::poll_fn(|cx| {
            self.poll_backlog(Poll::Ready(false), |entry| {
                entry.poll_starts_with(cx, start)
            })
        });
        result.await
    }

    /// Whether the peer has sent anything.
    pub fn is_answered(&self) -> bool {
        self.entry(|entry| entry.answered).unwrap_or(false)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.entry(|entry| entry.has_ended()).unwrap_or(true)
    }

    /// Waits until no more bytes come or go and none wait.
    pub async fn is_over(&self) {
        let gone = Poll::Ready(());
        let poll = |cx: &mut Context<'_>| self.poll_backlog(gone, |entry| entry.poll_over(cx));
        std::future::poll_fn(poll).await;
    }

    /// How long nothing that waits has been taken.
    pub(super) fn untaken(&self) -> Duration {
        let now = Tick::now();
        self.entry(|entry| entry.taken.until(now))
            .unwrap_or(Duration::MAX)
    }

    /// Whether bytes wait.
    pub(super) fn has_backlog(&self) -> bool {
        self.entry(|entry| !entry.backlog.is_empty())
            .unwrap_or(false)
    }

    /// How long nothing has come or been taken, and whether something of ours waits for an answer.
    pub(super) fn silence(&self) -> (Duration, bool) {
        let now = Tick::now();
        self.entry(|entry| {
            let came = entry.heard.until(now).min(entry.taken.until(now));
            (came, entry.owed)
        })
        .unwrap_or_default()
    }

    /// Sends one frame with what `fill` puts into the outbox; 0 bytes send nothing. Waits
    /// first for credit and room.
    fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.with(|core, task| {
            let Some(entry) = core.streams.get_mut(&task) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if entry.has_ended() || entry.finished {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let now = Tick::now();
            let much = entry.sends_much(now);
            let turn = entry.turn;
            if entry.credit == 0 {
                entry.keep_waker(cx);
                if turn == Turn::Comes {
                    entry.turn = Turn::None;
                    core.admit(1);
                }
                return Poll::Pending;
            }
            let must_wait = turn == Turn::Waits || turn == Turn::None && core.outbox.is_queue(much);
            let room = if must_wait {
                None
            } else {
                core.outbox.room(much)?
            };
            let Some(room) = room else {
                entry.keep_waker(cx);
                if turn != Turn::Waits {
                    entry.turn = Turn::Waits;
                    core.outbox.queue.push(task, much);
                }
                return Poll::Pending;
            };
            entry.turn = Turn::None;
            let room = room.min(usize::try_from(entry.credit).unwrap_or(usize::MAX));
            let (service, window) = (entry.unannounced, entry.window.left());
            let head = |len| match service {
                Some(service) => Head::Open {
                    task,
                    service,
                    window,
                    len,
                },
                None => Head::Data { task, len },
            };
            let filled = core.outbox.fill(room, head, |buf| fill(cx, buf));
            let Poll::Ready(Ok(n @ 1..)) = filled else {
                core.pass_on(turn);
                return filled;
            };
            entry.unannounced = None;
            entry.owed = true;
            entry.said = now;
            entry.much = n >= MUCH || n == room;
            if entry.credit != UNLIMITED {
                // Not more than the credit, which room was.
                entry.credit = entry.credit.saturating_sub(n as u32);
            }
            core.traffic.count_sent(n);
            core.give_credit(task, true);
            core.admit(1);
            Poll::Ready(Ok(n))
        })
    }

    /// Reads from `conn` straight into the tunnel: one frame. 0 is the end of `conn`.
    pub(super) fn poll_send_from(
        &self,
        cx: &mut Context<'_>,
        conn: &Conn,
    ) -> Poll<io::Result<usize>> {
        ready!(conn.poll_readable(cx))?;
        self.poll_fill(cx, |cx, buf| conn.poll_read(cx, buf))
    }

    /// Brings what waits into `conn`. Ready when no more comes and all has been written.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>, conn: &Conn) -> Poll<Why> {
        self.poll_backlog(Poll::Ready(Why::Lost), |entry| entry.poll_drain(cx, conn))
    }

    /// Ready when both directions have ended.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Why> {
        let poll = |entry: &mut Entry| match entry.cut() {
            Some(why) => Poll::Ready(why),
            None => {
                entry.keep_waker(cx);
                Poll::Pending
            }
        };
        self.entry(poll).unwrap_or(Poll::Ready(Why::Lost))
    }

    /// Copies what waits. 0 is the end in good order; others are errors.
    fn poll_take(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_backlog(Poll::Ready(Ok(0)), |entry| entry.poll_take(cx, buf))
    }

    /// Polls something that may shorten the backlog; `gone` if there is no stream any more.
    fn poll_backlog<T>(&self, gone: Poll<T>, poll: impl FnOnce(&mut Entry) -> Poll<T>) -> Poll<T> {
        self.with(|core, task| {
            let Some(entry) = core.streams.get_mut(&task) else {
                return gone;
            };
            let before = entry.waiting();
            let result = poll(entry);
            let taken = before - entry.waiting();
            let relieved = entry.full && entry.waiting() <= core.policy.backlog / 2;
            entry.full &= !relieved;
            core.relieve(taken, relieved);
            if taken > 0 {
                core.give_credit(task, false);
            }
            result
        })
    }
}

impl Entry {
    fn poll_drain(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Poll<Why> {
        let at_once = matches!(self.ended, Some(Why::TimedOut | Why::Stuck | Why::Reset(_)));
        while !self.backlog.is_empty() && !at_once {
            match conn.poll_write(cx, self.backlog.as_slice()) {
                Poll::Ready(Ok(n @ 1..)) => self.take(n),
                Poll::Ready(_) => return Poll::Ready(Why::Refused),
                Poll::Pending => {
                    self.keep_waker(cx);
                    return Poll::Pending;
                }
            }
        }
        match (conn.poll_flush(cx), self.ended) {
            (Poll::Ready(Err(_)), _) => Poll::Ready(Why::Refused),
            (Poll::Ready(Ok(())), Some(why)) => Poll::Ready(why),
            (Poll::Pending, Some(why)) if at_once => Poll::Ready(why),
            _ => {
                self.keep_waker(cx);
                Poll::Pending
            }
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let waiting = self.backlog.as_slice();
        if waiting.is_empty() {
            return match self.ended {
                Some(Why::Closed | Why::Finished) => Poll::Ready(Ok(0)),
                Some(Why::TimedOut) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
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

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_ended() && self.backlog.is_empty() {
            return Poll::Ready(());
        }
        self.keep_waker(cx);
        Poll::Pending
    }

    fn poll_starts_with(&mut self, cx: &mut Context<'_>, start: &[u8]) -> Poll<bool> {
        let waiting = self.backlog.as_slice();
        let begins = start.starts_with(waiting.get(..start.len()).unwrap_or(waiting));
        if !begins || waiting.len() >= start.len() || self.ended.is_some() {
            return Poll::Ready(begins && waiting.len() >= start.len());
        }
        self.keep_waker(cx);
        Poll::Pending
    }

    fn take(&mut self, n: usize) {
        self.backlog.consume(n);
        self.taken = Tick::now();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(Core::remove);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_take(cx, buf)
    }
}

impl AsyncWrite for Stream {
    /// What is written is on its way; there is nothing to flush.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_fill(cx, |_, room| {
            let n = bytes.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..n), bytes.get(..n)) {
                to.copy_from_slice(from);
            }
            Poll::Ready(Ok(n))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// GT/1 has no half-close: there the stream closes when it is dropped.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
