//! Moves bytes between a connection and a stream, both ways, until both have ended. The one
//! place where that is done, for visitors and services alike.
//!
//! From the stream to the connection there is mostly nothing to do: the inbox writes
//! straight into the connection, and the relay only brings what got stuck.

use super::{CloseReason, Stream, STUCK_ALONE};
use crate::net::{poll_stalled, with_read_buf, Conn};
use crate::wire::frame::ResetCode;
use async_io::Timer;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// Reads before others have their turn.
const READS_PER_TURN: usize = 4;
/// After the stream has ended: how long the connection's peer has for its own goodbye.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that takes nothing of what is left for it for this long is cut: a stream's last
/// bytes, or the end itself.
pub const LAST_BYTES: Duration = Duration::from_secs(30);
/// A visitor that has ended its direction, in a wire that cannot say so, keeps the stream
/// for this long after the last answer,
const ANSWERED: Duration = Duration::from_secs(2);
/// and this long for an answer that is due.
const UNANSWERED: Duration = Duration::from_secs(30);
/// In a wire that can say so, a visitor that has heard the service's end and says nothing any
/// more keeps the stream for this long: many programs wait for others to close.
const LAST_WORD: Duration = Duration::from_secs(600);

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub enum RelayOutcome {
    /// There is nobody to tell anything any more.
    Done,
    /// The stream ended for this reason before a byte of an answer had come; the connection
    /// is still open.
    Unanswered(CloseReason),
}

/// Which end the connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RelaySide {
    Visitor,
    /// A visitor that is owed an answer if none came.
    Asking,
    Service,
}

/// The future of one relay.
pub struct Relay {
    conn: Arc<Conn>,
    side: RelaySide,
    state: RelayState,
    timer: Option<Timer>,
}

enum RelayState {
    Both(Stream),
    /// The connection has ended its direction, and the peer cannot be told; answers may still
    /// come.
    Answer(Stream),
    /// The connection has ended its direction, and the peer knows.
    Receive(Stream),
    /// The stream has ended the peer's direction; the connection is told.
    Tell(Stream),
    /// And knows.
    Send(Stream),
    /// The stream has ended, and the connection has not taken all of it yet.
    Rest {
        stream: Stream,
        heard_end: bool,
    },
    /// The stream is done, all its bytes are written; the connection may have ended its direction,
    /// and all of that been read.
    Shutdown {
        heard_end: bool,
        patience: Duration,
    },
    /// Read and forget: a close with bytes unread would reset the connection.
    Goodbye(usize),
}

enum Pumped {
    /// The connection has ended its direction.
    End,
    /// Nothing more can be read or sent.
    Broken,
}

enum Next {
    Go(RelayState),
    Finish(RelayOutcome),
}

impl Relay {
    /// For a visitor's connection. If it is `asking`, the relay stops before the goodbye when
    /// no answer has come.
    pub fn visitor(stream: Stream, conn: Arc<Conn>, asking: bool) -> Self {
        let side = if asking {
            RelaySide::Asking
        } else {
            RelaySide::Visitor
        };
        Self::new(stream, conn, side)
    }

    /// For the connection to a local service.
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

    fn ended(&self, stream: &Stream, why: CloseReason) -> Next {
        if matches!(self.state, RelayState::Rest { .. }) {
            self.conn.end_on_close();
        }
        let ask =
            self.side == RelaySide::Asking && why != CloseReason::Refused && !stream.is_answered();
        if ask {
            return Next::Finish(RelayOutcome::Unanswered(why));
        }
        match why {
            CloseReason::Closed | CloseReason::Finished => Next::Go(self.shutdown(stream)),
            // What has been written may still be on its way.
            CloseReason::TimedOut if !stream.has_backlog() => Next::Go(self.shutdown(stream)),
            CloseReason::Refused => {
                stream.is_refused();
                Next::Finish(RelayOutcome::Done)
            }
            // Its peer must not take the cut for the end.
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
    fn has_heard_end(&self) -> bool {
        match self.state {
            RelayState::Answer(_) | RelayState::Receive(_) => true,
            RelayState::Rest { heard_end, .. } => heard_end,
            _ => false,
        }
    }

    fn shutdown(&self, stream: &Stream) -> RelayState {
        RelayState::Shutdown {
            heard_end: self.has_heard_end(),
            patience: stream
                .idle_limit()
                .map_or(LAST_BYTES, |limit| limit.min(LAST_BYTES)),
        }
    }

    /// The stream has ended; what is left of it waits for the connection.
    fn rest(&mut self) -> Next {
        // If this process ends first, the peer must not take a part for all.
        self.conn.reset_on_close();
        let heard_end = self.has_heard_end();
        self.go(|stream| RelayState::Rest { stream, heard_end })
    }

    /// The stream, to go on with it in another state.
    fn go(&mut self, on: impl FnOnce(Stream) -> RelayState) -> Next {
        match std::mem::replace(&mut self.state, RelayState::Goodbye(0)) {
            RelayState::Both(stream)
            | RelayState::Answer(stream)
            | RelayState::Receive(stream)
            | RelayState::Tell(stream)
            | RelayState::Send(stream)
            | RelayState::Rest { stream, .. } => Next::Go(on(stream)),
            state @ (RelayState::Shutdown { .. } | RelayState::Goodbye(_)) => Next::Go(state),
        }
    }

    /// Brings what the connection has into the stream, for a turn.
    fn poll_pump(conn: &Conn, stream: &Stream, cx: &mut Context<'_>) -> Poll<Pumped> {
        for _ in 0..READS_PER_TURN {
            match ready!(stream.poll_send_from(cx, conn)) {
                Ok(0) => return Poll::Ready(Pumped::End),
                Ok(_) => {}
                // The stream's end comes out of the next drain.
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
                        return Poll::Ready(self.go(RelayState::Tell));
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
                        stream.ends();
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
            RelayState::Tell(stream) => {
                if let Poll::Ready(why) = stream.poll_cut(cx) {
                    return Poll::Ready(self.ended_in_state(why));
                }
                match self.conn.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => {
                        if self.side != RelaySide::Service {
                            stream.limit_idle_further(LAST_WORD);
                        }
                        return Poll::Ready(self.go(RelayState::Send));
                    }
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => {
                        ready!(poll_stalled(&mut self.timer, LAST_BYTES, cx));
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
                let timer = self.timer.get_or_insert_with(|| Timer::interval(ANSWERED));
                while futures_lite::Stream::poll_next(Pin::new(&mut *timer), cx).is_ready() {
                    if stream.has_backlog() || self.conn.holds_back() {
                        if stream.untaken() >= STUCK_ALONE {
                            return Poll::Ready(self.ended_in_state(CloseReason::TimedOut));
                        }
                        continue;
                    }
                    let (silence, owed) = stream.silence();
                    if silence >= if owed { UNANSWERED } else { ANSWERED } {
                        let next = self.ended_in_state(CloseReason::TimedOut);
                        return Poll::Ready(next);
                    }
                }
                Poll::Pending
            }
            RelayState::Rest { stream, .. } => {
                if let Poll::Ready(why) = stream.poll_drain(cx, &self.conn) {
                    return Poll::Ready(self.ended_in_state(why));
                }
                ready!(poll_stalled(&mut self.timer, LAST_BYTES, cx));
                Poll::Ready(Next::Finish(RelayOutcome::Done))
            }
            // The close says it.
            RelayState::Shutdown {
                heard_end: true, ..
            } if self.conn.ends_by_close() => Poll::Ready(Next::Finish(RelayOutcome::Done)),
            RelayState::Shutdown {
                heard_end,
                patience,
            } => Poll::Ready(match self.conn.poll_shutdown(cx) {
                Poll::Ready(Ok(())) if *heard_end => Next::Finish(RelayOutcome::Done),
                Poll::Ready(Ok(())) => Next::Go(RelayState::Goodbye(256 * 1024)),
                Poll::Ready(Err(_)) => Next::Finish(RelayOutcome::Done),
                Poll::Pending => {
                    ready!(poll_stalled(&mut self.timer, *patience, cx));
                    self.conn.reset_on_close();
                    Next::Finish(RelayOutcome::Done)
                }
            }),
            RelayState::Goodbye(left) => {
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
            | RelayState::Tell(stream)
            | RelayState::Send(stream)
            | RelayState::Rest { stream, .. } => self.ended(stream, why),
            RelayState::Shutdown { .. } | RelayState::Goodbye(_) => {
                Next::Finish(RelayOutcome::Done)
            }
        }
    }
}

impl Future for Relay {
    type Output = RelayOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayOutcome> {
        loop {
            match ready!(self.poll_state(cx)) {
                Next::Go(state) => {
                    self.state = state;
                    // Each state has a deadline of its own.
                    self.timer = None;
                }
                Next::Finish(finish) => return Poll::Ready(finish),
            }
        }
    }
}
