//! One stream of a tunnel, as its owner sees it. The tunnel's side of it is [`StreamState`].

use super::moment::Moment;
use super::scheduler::Turn;
use super::stream_record::StreamRecord;
use super::stream_state::{CloseReason, StreamState};
use super::tunnel_state::TunnelState;
use super::{lock, Tunnel};
use crate::net::clock::Tick;
use crate::net::{Conn, ShardId};
use crate::wire::frame::{Header, ResetCode, StreamId};
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// A stream, owned by the one task that may poll it. Dropping it closes the stream.
pub struct Stream {
    tunnel: Tunnel,
    stream_id: StreamId,
}

impl Stream {
    pub(super) fn new(tunnel: Tunnel, stream_id: StreamId) -> Self {
        Self { tunnel, stream_id }
    }

    /// Returns the number of the stream.
    #[cfg(test)]
    pub(super) fn id(&self) -> StreamId {
        self.stream_id
    }

    /// Returns the executor thread of the tunnel.
    pub fn thread(&self) -> ShardId {
        self.tunnel.thread()
    }

    /// Whether the data of the stream begin with its visitor's origin.
    pub fn has_origin(&self) -> bool {
        self.with(|state, _| state.policy.origins)
    }

    /// Whether the stream has a window, as in GT/2.
    pub fn has_window(&self) -> bool {
        self.with(|state, _| state.budget.is_some())
    }

    /// Notes that the stream carries datagrams: over QUIC, they can go as such.
    #[cfg(feature = "server")]
    pub fn carry_datagrams(&self) {
        self.with_state(|stream| {
            if let Some(lane) = &mut stream.lane {
                lane.carry_datagrams();
            }
        });
    }

    /// Records what becomes of the stream from now on, besides the bytes that have come already.
    pub fn record(&self, record: Arc<StreamRecord>) {
        self.with_state(|stream| {
            record.received(stream.backlog.len());
            stream.record = Some(record);
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut TunnelState, StreamId) -> T) -> T {
        f(&mut lock(&self.tunnel.0), self.stream_id)
    }

    pub(super) fn with_state<T>(&self, f: impl FnOnce(&mut StreamState) -> T) -> Option<T> {
        self.with(|state, stream_id| state.streams.get_mut(stream_id).map(f))
    }

    /// Returns the number of bytes that wait for this stream's reader.
    #[cfg(test)]
    pub(super) fn backlog_len(&self) -> usize {
        self.with_state(|stream| stream.backlog.len())
            .unwrap_or_default()
    }

    /// Announces the stream to the peer before there is a byte for it.
    pub fn announce(&self) {
        self.with(|state, stream_id| {
            let stream = state.streams.get_mut(stream_id);
            let Some(stream) = stream.filter(|stream| !stream.has_ended()) else {
                return;
            };
            if state.quic.is_some() {
                return state.announce_lane(stream_id);
            }
            if let Some(head) = stream.announcement(stream_id) {
                state.outbox.push(head);
            }
        });
    }

    /// Notes that the visitor has ended its direction in GT/1, which cannot tell the peer.
    pub(super) fn visitor_ended(&self) {
        self.with(TunnelState::visitor_ended);
    }

    /// Ends this end's direction behind all bytes sent before; bytes may still come. False in GT/1,
    /// which has no half-close.
    pub(super) fn finish(&self) -> bool {
        if self.with(|state, _| state.budget.is_none()) {
            return false;
        }
        self.announce();
        self.with(|state, stream_id| {
            if let Some(stream) = state.streams.get_mut(stream_id) {
                let ends = !std::mem::replace(&mut stream.finished, true) && !stream.has_ended();
                state.answered += u32::from(stream.becomes_answered());
                match state.quic {
                    _ if !ends => {}
                    Some(_) => state.finish_lane(stream_id),
                    None => state.outbox.push(Header::Finish { stream_id }),
                }
            }
        });
        true
    }

    /// Sets the reset code that the peer gets when the stream is dropped, instead of a graceful
    /// end. Has no effect in GT/1.
    pub fn fail(&self, reason: ResetCode) {
        self.with_state(|stream| stream.failure = Some(reason));
    }

    /// Notes that the connection behind the stream takes no more bytes.
    pub(super) fn is_refused(&self) {
        self.with_state(|stream| {
            // A connection that ended its own direction before has got all it needs.
            if !stream.finished {
                stream.failure = Some(ResetCode::Aborted);
            }
        });
    }

    /// Delivers payloads straight into `conn` from now on, while it takes them.
    pub fn attach(&self, conn: Arc<Conn>) {
        self.with_state(|stream| stream.sink = Some(conn));
    }

    /// Ends the stream with [`CloseReason::TimedOut`] when one direction (`any`) or both have moved
    /// nothing for `limit`. `None`: never.
    pub fn limit_idle(&self, limit: Option<Duration>, any: bool) {
        self.with_state(|stream| {
            stream.idle_limit = limit;
            stream.any_direction = any;
        });
    }

    /// Shortens the idle limit to `limit` if it is longer.
    pub(super) fn limit_idle_further(&self, limit: Duration) {
        self.with_state(|stream| {
            stream.idle_limit = Some(stream.idle_limit.map_or(limit, |before| before.min(limit)));
        });
    }

    /// Returns the idle limit of the stream.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.with_state(|stream| stream.idle_limit).flatten()
    }

    /// Whether the first bytes are `start`; waits until that is certain. Consumes nothing.
    pub async fn starts_with(&self, start: &[u8]) -> bool {
        let result = std::future::poll_fn(|cx| {
            self.poll_backlog(Poll::Ready(false), |stream| {
                stream.poll_starts_with(cx, start)
            })
        });
        result.await
    }

    /// Whether the peer has sent any bytes.
    pub fn is_answered(&self) -> bool {
        self.with_state(|stream| stream.answered).unwrap_or(false)
    }

    /// Whether the peer has reset the stream, so that its backlog is obsolete.
    pub fn is_reset(&self) -> bool {
        let cut = self.with_state(|stream| stream.cut()).flatten();
        matches!(cut, Some(CloseReason::Reset(_)))
    }

    /// Whether the peer changed its services before it learnt of the stream. It never will; the
    /// service has to be looked up again.
    pub fn is_outdated(&self) -> bool {
        let cut = self.with_state(|stream| stream.cut()).flatten();
        cut == Some(CloseReason::Outdated)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.with_state(|stream| stream.has_ended()).unwrap_or(true)
    }

    /// Waits until both directions have ended and the backlog is empty.
    pub async fn is_over(&self) {
        std::future::poll_fn(|cx| self.poll_over(cx)).await;
    }

    /// Ready when both directions have ended and the backlog is empty.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_backlog(Poll::Ready(()), |stream| stream.poll_over(cx))
    }

    /// Returns how long nothing has been taken from the backlog.
    pub(super) fn untaken(&self) -> Duration {
        let now = Tick::now();
        self.with_state(|stream| stream.taken_at.until(now))
            .unwrap_or(Duration::MAX)
    }

    /// Whether the backlog has bytes.
    pub(super) fn has_backlog(&self) -> bool {
        self.with_state(|stream| !stream.backlog.is_empty())
            .unwrap_or(false)
    }

    /// Returns how long nothing has come or been taken, and whether more is due: bytes sent last still
    /// await an answer, or more may wait unread in the tunnel's connection.
    pub(super) fn silence(&self) -> (Duration, bool) {
        let now = Tick::now();
        self.with(|state, stream_id| {
            let is_stalled = state.liveness.is_stalled();
            let stream = state.streams.get_mut(stream_id)?;
            let came = stream.received_at.until(now);
            let silence = came.min(stream.taken_at.until(now));
            Some((silence, stream.awaits_answer || is_stalled))
        })
        .unwrap_or_default()
    }

    /// Whether the peer was heard lately, measured by the stream's idle limit, which is the server's
    /// `timeout`: a peer that lives answers a ping in each third of it.
    pub(super) fn hears_peer(&self) -> bool {
        let now = Moment::now();
        self.with(|state, stream_id| {
            let stream = state.streams.get_mut(stream_id);
            let limit = stream.and_then(|stream| stream.idle_limit);
            limit.is_none_or(|limit| state.liveness.silence(now) < limit / 2)
        })
    }

    /// Sends one frame whose payload `fill` writes into the outbox; 0 bytes send nothing. Waits for
    /// credit, a turn and room first.
    fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.with(|state, stream_id| {
            if state.quic.is_some() {
                return state.poll_fill_lane(stream_id, cx, fill);
            }
            let Some(stream) = state.streams.get_mut(stream_id) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if stream.has_ended() || stream.finished {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let now = Tick::now();
            let bulk = stream.is_bulk(now);
            let turn = stream.turn;
            if stream.credit == 0 {
                stream.keep_waker(cx);
                // The peer gives credit only to streams that it knows of.
                if let Some(head) = stream.announcement(stream_id) {
                    state.outbox.push(head);
                }
                if matches!(turn, Turn::Granted(_)) {
                    stream.turn = Turn::None;
                    state.pass_on(turn);
                }
                return Poll::Pending;
            }
            let must_wait =
                turn == Turn::Waiting || turn == Turn::None && state.outbox.must_queue(bulk);
            let room = if must_wait {
                None
            } else {
                state.outbox.room(bulk)?
            };
            let Some(room) = room else {
                stream.keep_waker(cx);
                stream.turn = Turn::Waiting;
                match turn {
                    Turn::None => state.outbox.scheduler.push(stream_id, bulk),
                    Turn::Granted(number) => {
                        state.outbox.scheduler.end();
                        state.outbox.scheduler.insert(stream_id, bulk, number);
                    }
                    Turn::Waiting => {}
                }
                return Poll::Pending;
            };
            stream.turn = Turn::None;
            let room = room.min(usize::try_from(stream.credit).unwrap_or(usize::MAX));
            let (service, window) = (stream.unannounced, stream.window.left());
            let head = |len| match service {
                Some(service) => Header::Open {
                    stream_id,
                    service,
                    window,
                    len,
                },
                None => Header::Data { stream_id, len },
            };
            let filled = state.outbox.fill(room, head, |buf| fill(cx, buf));
            let Poll::Ready(Ok(n @ 1..)) = filled else {
                state.pass_on(turn);
                return filled;
            };
            stream.sent(n, now);
            state.traffic.count_sent(n);
            if let Some(budget) = &mut state.budget {
                if let Some(bytes) = stream.grant(true, state.round_trip.minimum(), budget) {
                    state.outbox.push(Header::Credit { stream_id, bytes });
                }
            }
            state.pass_on(turn);
            Poll::Ready(Ok(n))
        })
    }

    /// Reads one frame from `conn` straight into the tunnel. 0 is the end of `conn`.
    pub(super) fn poll_send_from(
        &self,
        cx: &mut Context<'_>,
        conn: &Conn,
    ) -> Poll<io::Result<usize>> {
        ready!(conn.poll_readable(cx))?;
        self.poll_fill(cx, |cx, buf| conn.poll_read(cx, buf))
    }

    /// Writes the backlog into `conn`. Ready when no more bytes come and all have been written.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>, conn: &Conn) -> Poll<CloseReason> {
        self.poll_backlog(Poll::Ready(CloseReason::Lost), |stream| {
            stream.poll_drain(cx, conn)
        })
    }

    /// Ready when both directions have ended.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let poll = |stream: &mut StreamState| match stream.cut() {
            Some(why) => Poll::Ready(why),
            None => {
                stream.keep_waker(cx);
                Poll::Pending
            }
        };
        self.with_state(poll)
            .unwrap_or(Poll::Ready(CloseReason::Lost))
    }

    /// Copies from the backlog into `buf`. 0 is a graceful end; other ends are errors.
    fn poll_take(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_backlog(Poll::Ready(Ok(0)), |stream| stream.poll_take(cx, buf))
    }

    /// Polls an operation that may shorten the backlog, and gives the peer credit for it. Returns
    /// `gone` if the stream no longer exists.
    fn poll_backlog<T>(
        &self,
        gone: Poll<T>,
        poll: impl FnOnce(&mut StreamState) -> Poll<T>,
    ) -> Poll<T> {
        self.with(|state, stream_id| {
            let Some(stream) = state.streams.get_mut(stream_id) else {
                return gone;
            };
            let before = stream.waiting();
            let result = poll(stream);
            let taken = before - stream.waiting();
            let relieved = stream.full && stream.waiting() <= state.policy.backlog as usize / 2;
            stream.full &= !relieved;
            state.relieve(taken, relieved);
            if taken > 0 {
                state.give_credit(stream_id);
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
    /// Sends a copy of `bytes`. There is nothing to flush afterwards.
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

    /// Ends this direction. GT/1 has no half-close: there the stream closes when it is dropped.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
