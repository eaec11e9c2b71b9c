//! One stream of a tunnel, as its owner sees it. As the tunnel sees it, it is an [`Entry`].

use super::scheduler::Granted;
use super::stream_state::{CloseReason, StreamState};
use super::tunnel_state::TunnelState;
use super::{lock, Tunnel};
use crate::net::clock::Tick;
use crate::net::Conn;
use crate::wire::frame::{Header, ResetCode};
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// A stream, owned by one task: the only one that may poll it. Dropping it closes it.
pub struct Stream {
    tunnel: Tunnel,
    task: u32,
}

impl Stream {
    pub(super) fn new(tunnel: Tunnel, task: u32) -> Self {
        Self { tunnel, task }
    }

    fn with<T>(&self, f: impl FnOnce(&mut TunnelState, u32) -> T) -> T {
        f(&mut lock(&self.tunnel.0), self.task)
    }

    pub(super) fn entry<T>(&self, f: impl FnOnce(&mut StreamState) -> T) -> Option<T> {
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
            let entry = core.streams.get_mut(&task);
            let Some(entry) = entry.filter(|entry| !entry.has_ended()) else {
                return;
            };
            if let Some(head) = entry.announcement(task) {
                core.outbox.push(head);
            }
        });
    }

    /// Notes that our direction has ended, in a wire that cannot say so.
    pub(super) fn ends(&self) {
        self.with(TunnelState::ends);
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
                    core.outbox.push(Header::Finish { task });
                }
                core.answered += usize::from(entry.becomes_answered());
            }
        });
        true
    }

    /// The peer is to learn this reason when the stream is dropped, and not that it ended in
    /// good order; where the wire can say it.
    pub fn fail(&self, reason: ResetCode) {
        self.entry(|entry| entry.failure = Some(reason));
    }

    /// The connection behind it takes no more bytes.
    pub(super) fn is_refused(&self) {
        self.entry(|entry| {
            // Who has ended its own direction before has seen all it wanted.
            if !entry.finished {
                entry.failure = Some(ResetCode::Aborted);
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

    /// How long nothing may move before the stream ends.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.entry(|entry| entry.idle_limit).flatten()
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

    /// Whether the peer has reset it: what waits is not wanted any more.
    pub fn is_reset(&self) -> bool {
        let cut = self.entry(|entry| entry.cut()).flatten();
        matches!(cut, Some(CloseReason::Reset(_)))
    }

    /// Whether the peer changed its services before it was told of the stream, and so never will
    /// be: the service has to be looked up again.
    pub fn is_outdated(&self) -> bool {
        let cut = self.entry(|entry| entry.cut()).flatten();
        cut == Some(CloseReason::Outdated)
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
                // The peer gives credit only to what it knows.
                if let Some(head) = entry.announcement(task) {
                    core.outbox.push(head);
                }
                if matches!(turn, Granted::Comes(_)) {
                    entry.turn = Granted::None;
                    core.pass_on(turn);
                }
                return Poll::Pending;
            }
            let must_wait =
                turn == Granted::Waits || turn == Granted::None && core.outbox.is_queue(much);
            let room = if must_wait {
                None
            } else {
                core.outbox.room(much)?
            };
            let Some(room) = room else {
                entry.keep_waker(cx);
                entry.turn = Granted::Waits;
                match turn {
                    Granted::None => core.outbox.queue.push(task, much),
                    Granted::Comes(number) => {
                        core.outbox.queue.end();
                        core.outbox.queue.insert(task, much, number);
                    }
                    Granted::Waits => {}
                }
                return Poll::Pending;
            };
            entry.turn = Granted::None;
            let room = room.min(usize::try_from(entry.credit).unwrap_or(usize::MAX));
            let (service, window) = (entry.unannounced, entry.window.left());
            let head = |len| match service {
                Some(service) => Header::Open {
                    task,
                    service,
                    window,
                    len,
                },
                None => Header::Data { task, len },
            };
            let filled = core.outbox.fill(room, head, |buf| fill(cx, buf));
            let Poll::Ready(Ok(n @ 1..)) = filled else {
                core.pass_on(turn);
                return filled;
            };
            entry.sent(n, now);
            core.traffic.count_sent(n);
            if let Some(budget) = &mut core.budget {
                if let Some(bytes) = entry.grant(true, core.round_trip.least(), budget) {
                    core.outbox.push(Header::Credit { task, bytes });
                }
            }
            core.pass_on(turn);
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
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>, conn: &Conn) -> Poll<CloseReason> {
        self.poll_backlog(Poll::Ready(CloseReason::Lost), |entry| {
            entry.poll_drain(cx, conn)
        })
    }

    /// Ready when both directions have ended.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let poll = |entry: &mut StreamState| match entry.cut() {
            Some(why) => Poll::Ready(why),
            None => {
                entry.keep_waker(cx);
                Poll::Pending
            }
        };
        self.entry(poll).unwrap_or(Poll::Ready(CloseReason::Lost))
    }

    /// Copies what waits. 0 is the end in good order; others are errors.
    fn poll_take(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_backlog(Poll::Ready(Ok(0)), |entry| entry.poll_take(cx, buf))
    }

    /// Polls something that may shorten the backlog; `gone` if there is no stream any more.
    fn poll_backlog<T>(
        &self,
        gone: Poll<T>,
        poll: impl FnOnce(&mut StreamState) -> Poll<T>,
    ) -> Poll<T> {
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
                core.give_credit(task);
            }
            result
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(TunnelState::remove);
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
