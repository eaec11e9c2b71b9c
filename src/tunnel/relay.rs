//! Moves bytes between a connection and a stream, in both directions, until both have ended.
//! Visitors and services use the same relay.
//!
//! The inbox writes payloads straight into the connection, so from stream to connection the relay
//! only moves bytes that the connection did not take.

use super::{CloseReason, Stream, STUCK_ALONE_TIMEOUT};
use crate::net::{poll_stalled, with_read_buf, Conn, Timer};
use crate::wire::frame::ResetCode;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// Reads in a row before other tasks run.
const READS_PER_TURN: usize = 4;
/// Time that a connection's peer has to close it after the stream has ended.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that takes nothing for this long is cut once only the stream's last bytes or its
/// end are left to be written.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a half-closed GT/1 visitor, whose end cannot be sent, keeps the stream after the last
/// byte of an answer (docs/wire.md, "What GT/1 cannot do").
const ANSWERED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a half-closed GT/1 visitor, whose end cannot be sent, keeps the stream while its last
/// bytes are unanswered, or a speed limit holds up what may be the rest of the answer.
const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a silent GT/2 visitor keeps the stream after the service has ended its direction. Many
/// programs wait for the other end to close, so it is long.
const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(600);

/// How a relay ended.
#[derive(Debug, PartialEq, Eq)]
pub enum RelayOutcome {
    /// The connection is finished; nothing is left to send to it.
    Done,
    /// The stream ended for this reason before a byte of an answer came; the connection is still
    /// open.
    Unanswered(CloseReason),
}

/// The end that the connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RelaySide {
    Visitor,
    /// A visitor that gets an error page if the service does not answer.
    Asking,
    Service,
}

/// The future of one relay. The states below name what is still open.
pub struct Relay {
    conn: Arc<Conn>,
    side: RelaySide,
    state: RelayState,
    timer: Option<Timer>,
}

enum RelayState {
    Both(Stream),
    /// The connection has ended its direction, which GT/1 cannot tell the peer; answers may still
    /// come.
    Answer(Stream),
    /// The connection has ended its direction, and the peer knows.
    Receive(Stream),
    /// The stream has ended the peer's direction, which is being passed on to the connection.
    PassEnd(Stream),
    /// The end of the peer's direction has been passed on; the connection may still send.
    Send(Stream),
    /// The stream has ended, and the connection has not taken all of its bytes yet.
    Drain {
        stream: Stream,
        conn_ended: bool,
    },
    /// The stream has ended and all its bytes are written. `conn_ended`: the connection has ended
    /// its direction, and all of that has been read.
    Shutdown {
        conn_ended: bool,
        patience: Duration,
    },
    /// Bytes are read and dropped, at most this many: a close with unread bytes would reset the
    /// connection.
    Linger(usize),
}

enum Pumped {
    /// The connection has ended its direction.
    End,
    /// The connection or the stream has failed.
    Broken,
}

enum Next {
    Go(RelayState),
    Finish(RelayOutcome),
}

impl Relay {
    /// Creates the relay of a visitor's connection. If it is `asking` and no answer comes, the
    /// relay ends with [`RelayOutcome::Unanswered`] and leaves the connection open.
    pub fn visitor(stream: Stream, conn: Arc<Conn>, asking: bool) -> Self {
        let side = if asking {
            RelaySide::Asking
        } else {
            RelaySide::Visitor
        };
        Self::new(stream, conn, side)
    }

    /// Creates the relay of a connection to a local service.
    pub fn service(stream: Stream, conn: Arc<Conn>) -> Self {
        Self::new(stream, conn, RelaySide::Service)
    }

    fn new(stream: Stream, conn: Arc<Conn>, side: RelaySide) -> Self {
        stream.attach(conn.clone());
        Self {
            conn,
            side,
            state: RelayState::Both(stream),
            timer: None,
        }
    }

    /// Relays until the end, or until the visitor is no longer admitted: then both of its ends are
    /// reset. Looks whenever the relay is polled, as after [`Tunnel::wake_streams`].
    ///
    /// [`Tunnel::wake_streams`]: super::Tunnel::wake_streams
    pub fn while_admitted<F: FnMut() -> bool + Unpin>(self, is_admitted: F) -> AdmittedRelay<F> {
        AdmittedRelay {
            relay: self,
            is_admitted,
        }
    }

    /// Resets both ends.
    fn cut(&mut self, reason: ResetCode) {
        self.conn.reset_on_close();
        self.state = match std::mem::replace(&mut self.state, RelayState::Linger(0)) {
            RelayState::Both(stream)
            | RelayState::Answer(stream)
            | RelayState::Receive(stream)
            | RelayState::PassEnd(stream)
            | RelayState::Send(stream)
            | RelayState::Drain { stream, .. } => {
                stream.fail(reason);
                RelayState::Linger(0)
            }
            state @ (RelayState::Shutdown { .. } | RelayState::Linger(_)) => state,
        };
    }

    fn ended(&self, stream: &Stream, why: CloseReason) -> Next {
        if matches!(self.state, RelayState::Drain { .. }) {
            self.conn.end_on_close();
        }
        let ask =
            self.side == RelaySide::Asking && why != CloseReason::Refused && !stream.is_answered();
        if ask {
            return Next::Finish(RelayOutcome::Unanswered(why));
        }
        match why {
            CloseReason::Closed | CloseReason::Finished => Next::Go(self.shutdown(stream)),
            // Written bytes may still be in flight. A visitor whose tunnel is silent, too, may have
            // missed the rest.
            CloseReason::TimedOut
                if !stream.has_backlog()
                    && (self.side == RelaySide::Service || stream.hears_peer()) =>
            {
                Next::Go(self.shutdown(stream))
            }
            CloseReason::Refused => {
                stream.is_refused();
                Next::Finish(RelayOutcome::Done)
            }
            // The connection's peer must not take the cut for an end.
            CloseReason::Lost
            | CloseReason::TimedOut
            | CloseReason::Stuck
            | CloseReason::Reset(_)
            | CloseReason::Outdated => {
                self.conn.reset_on_close();
                Next::Finish(RelayOutcome::Done)
            }
        }
    }

    /// Whether the connection has ended its direction, and all of that has been read.
    fn has_conn_ended(&self) -> bool {
        match self.state {
            RelayState::Answer(_) | RelayState::Receive(_) => true,
            RelayState::Drain { conn_ended, .. } => conn_ended,
            _ => false,
        }
    }

    fn shutdown(&self, stream: &Stream) -> RelayState {
        RelayState::Shutdown {
            conn_ended: self.has_conn_ended(),
            patience: stream
                .idle_limit()
                .map_or(DRAIN_TIMEOUT, |limit| limit.min(DRAIN_TIMEOUT)),
        }
    }

    /// Starts to drain the bytes that are left of an ended stream.
    fn rest(&mut self) -> Next {
        // If this process ends first, the peer must not take a part for the whole.
        self.conn.reset_on_close();
        let conn_ended = self.has_conn_ended();
        self.go(|stream| RelayState::Drain { stream, conn_ended })
    }

    /// Moves the stream into another state.
    fn go(&mut self, on: impl FnOnce(Stream) -> RelayState) -> Next {
        match std::mem::replace(&mut self.state, RelayState::Linger(0)) {
            RelayState::Both(stream)
            | RelayState::Answer(stream)
            | RelayState::Receive(stream)
            | RelayState::PassEnd(stream)
            | RelayState::Send(stream)
            | RelayState::Drain { stream, .. } => Next::Go(on(stream)),
            state @ (RelayState::Shutdown { .. } | RelayState::Linger(_)) => Next::Go(state),
        }
    }

    /// Moves bytes from the connection into the stream, at most [`READS_PER_TURN`] reads.
    fn poll_pump(conn: &Conn, stream: &Stream, cx: &mut Context<'_>) -> Poll<Pumped> {
        for _ in 0..READS_PER_TURN {
            match ready!(stream.poll_send_from(cx, conn)) {
                Ok(0) => return Poll::Ready(Pumped::End),
                Ok(_) => {}
                // The next drain returns the stream's end.
                Err(_) if stream.has_ended() => break,
                Err(_) => return Poll::Ready(Pumped::Broken),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_state(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match &mut self.state {
            RelayState::Both(stream) => {
                match stream.poll_drain(cx, &self.conn) {
                    Poll::Ready(CloseReason::Finished)
                        if self.side != RelaySide::Asking || stream.is_answered() =>
                    {
                        return Poll::Ready(self.go(RelayState::PassEnd));
                    }
                    Poll::Ready(why) => return Poll::Ready(self.ended_in_state(why)),
                    Poll::Pending => {}
                }
                if stream.has_ended() {
                    return Poll::Ready(self.rest());
                }
                Poll::Ready(match ready!(Self::poll_pump(&self.conn, stream, cx)) {
                    Pumped::End if stream.finish() => self.go(RelayState::Receive),
                    Pumped::End if self.side == RelaySide::Service => {
                        Next::Finish(RelayOutcome::Done)
                    }
                    Pumped::End => {
                        stream.visitor_ended();
                        self.go(RelayState::Answer)
                    }
                    Pumped::Broken => {
                        stream.fail(ResetCode::Aborted);
                        Next::Finish(RelayOutcome::Done)
                    }
                })
            }
            RelayState::Receive(stream) => {
                if let Poll::Ready(why) = stream.poll_drain(cx, &self.conn) {
                    return Poll::Ready(self.ended_in_state(why));
                }
                if stream.has_ended() {
                    return Poll::Ready(self.rest());
                }
                Poll::Pending
            }
            RelayState::PassEnd(stream) => {
                if let Poll::Ready(why) = stream.poll_cut(cx) {
                    return Poll::Ready(self.ended_in_state(why));
                }
                match self.conn.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => {
                        if self.side != RelaySide::Service {
                            stream.limit_idle_further(HALF_OPEN_TIMEOUT);
                        }
                        return Poll::Ready(self.go(RelayState::Send));
                    }
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => {
                        ready!(poll_stalled(&mut self.timer, DRAIN_TIMEOUT, cx));
                        self.conn.reset_on_close();
                    }
                }
                stream.fail(ResetCode::Aborted);
                Poll::Ready(Next::Finish(RelayOutcome::Done))
            }
            RelayState::Send(stream) => {
                if let Poll::Ready(why) = stream.poll_cut(cx) {
                    return Poll::Ready(self.ended_in_state(why));
                }
                match ready!(Self::poll_pump(&self.conn, stream, cx)) {
                    Pumped::End => {
                        stream.finish();
                    }
                    Pumped::Broken => stream.fail(ResetCode::Aborted),
                }
                Poll::Ready(Next::Finish(RelayOutcome::Done))
            }
            RelayState::Answer(stream) => {
                if let Poll::Ready(why) = stream.poll_drain(cx, &self.conn) {
                    let next = self.ended_in_state(why);
                    return Poll::Ready(next);
                }
                if stream.has_ended() {
                    return Poll::Ready(self.rest());
                }
                let timer = self
                    .timer
                    .get_or_insert_with(|| Timer::after(ANSWERED_TIMEOUT));
                while Pin::new(&mut *timer).poll(cx).is_ready() {
                    timer.set_after(ANSWERED_TIMEOUT);
                    if stream.has_backlog() || self.conn.holds_back() {
                        if stream.untaken() >= STUCK_ALONE_TIMEOUT {
                            return Poll::Ready(self.ended_in_state(CloseReason::TimedOut));
                        }
                        continue;
                    }
                    let (silence, is_due) = stream.silence();
                    let patience = match is_due {
                        true => UNANSWERED_TIMEOUT,
                        false => ANSWERED_TIMEOUT,
                    };
                    if silence >= patience {
                        let next = self.ended_in_state(CloseReason::TimedOut);
                        return Poll::Ready(next);
                    }
                }
                Poll::Pending
            }
            RelayState::Drain { stream, .. } => {
                if let Poll::Ready(why) = stream.poll_drain(cx, &self.conn) {
                    return Poll::Ready(self.ended_in_state(why));
                }
                ready!(poll_stalled(&mut self.timer, DRAIN_TIMEOUT, cx));
                Poll::Ready(Next::Finish(RelayOutcome::Done))
            }
            // The close passes the end on.
            RelayState::Shutdown {
                conn_ended: true, ..
            } if self.conn.ends_by_close() => Poll::Ready(Next::Finish(RelayOutcome::Done)),
            RelayState::Shutdown {
                conn_ended,
                patience,
            } => Poll::Ready(match self.conn.poll_shutdown(cx) {
                Poll::Ready(Ok(())) if *conn_ended => Next::Finish(RelayOutcome::Done),
                Poll::Ready(Ok(())) => Next::Go(RelayState::Linger(256 * 1024)),
                Poll::Ready(Err(_)) => Next::Finish(RelayOutcome::Done),
                Poll::Pending => {
                    ready!(poll_stalled(&mut self.timer, *patience, cx));
                    self.conn.reset_on_close();
                    Next::Finish(RelayOutcome::Done)
                }
            }),
            RelayState::Linger(left) => {
                loop {
                    match with_read_buf(|buf| self.conn.poll_read(cx, buf)) {
                        Poll::Ready(Ok(n)) if n > 0 && n < *left => *left -= n,
                        Poll::Ready(_) => return Poll::Ready(Next::Finish(RelayOutcome::Done)),
                        Poll::Pending => break,
                    }
                }
                let timer = self
                    .timer
                    .get_or_insert_with(|| Timer::after(CLOSE_TIMEOUT));
                ready!(Pin::new(timer).poll(cx));
                Poll::Ready(Next::Finish(RelayOutcome::Done))
            }
        }
    }

    fn ended_in_state(&self, why: CloseReason) -> Next {
        match &self.state {
            RelayState::Both(stream)
            | RelayState::Answer(stream)
            | RelayState::Receive(stream)
            | RelayState::PassEnd(stream)
            | RelayState::Send(stream)
            | RelayState::Drain { stream, .. } => self.ended(stream, why),
            RelayState::Shutdown { .. } | RelayState::Linger(_) => Next::Finish(RelayOutcome::Done),
        }
    }
}

/// The future of [`Relay::while_admitted`].
pub struct AdmittedRelay<F> {
    relay: Relay,
    is_admitted: F,
}

impl<F: FnMut() -> bool + Unpin> Future for AdmittedRelay<F> {
    type Output = RelayOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayOutcome> {
        if !(self.is_admitted)() {
            self.relay.cut(ResetCode::NotAllowed);
            return Poll::Ready(RelayOutcome::Done);
        }
        Pin::new(&mut self.relay).poll(cx)
    }
}

impl Future for Relay {
    type Output = RelayOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayOutcome> {
        loop {
            match ready!(self.poll_state(cx)) {
                Next::Go(state) => {
                    self.state = state;
                    // Each state has its own deadline.
                    self.timer = None;
                }
                Next::Finish(finish) => return Poll::Ready(finish),
            }
        }
    }
}
