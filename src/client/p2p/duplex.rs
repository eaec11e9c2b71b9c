//! The relay between a channel of QUIC and a connection. Each direction ends by itself, like those of TCP.

use super::channel::ChannelConn;
use crate::net::{with_read_buf, Conn, Timer};
use crate::tunnel::DRAIN_TIMEOUT;
use bytes::Bytes;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// Time that one direction may pause when the other has ended: as long as a relay keeps a silent visitor.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(600);
/// Pieces of one direction in a row before other tasks run.
const MAX_PIECES_IN_A_ROW: u32 = 8;

/// Moves bytes between a channel and a connection until both directions have ended, and passes each end on. When one
/// side is cut, so is the other; both are when the relay is dropped before its end.
pub struct DuplexRelay {
    channel: ChannelConn,
    conn: Arc<Conn>,
    inward: Inward,
    outward: Outward,
    /// When nothing has moved for too long since one direction has ended.
    timer: Option<Timer>,
    /// Whether both directions have ended in good order.
    is_whole: bool,
}

/// The direction from the channel to the connection.
enum Inward {
    Open {
        /// Bytes that the connection has not taken yet.
        stuck: Bytes,
    },
    /// The channel has ended; the end is being passed on.
    Ending,
    Ended,
}

/// The direction from the connection to the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outward {
    Open,
    /// The connection has ended; the peer does not have everything yet.
    Delivering,
    Ended,
}

/// What a step has found.
enum Step {
    Moved,
    Ended,
}

impl DuplexRelay {
    /// Creates the relay.
    pub fn new(channel: ChannelConn, conn: Arc<Conn>) -> Self {
        Self {
            channel,
            conn,
            inward: Inward::Open {
                stuck: Bytes::new(),
            },
            outward: Outward::Open,
            timer: None,
            is_whole: false,
        }
    }

    /// Moves a piece from the channel to the connection.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        match &mut self.inward {
            Inward::Open { stuck } if stuck.is_empty() => {
                let (channel, conn) = (&self.channel, &self.conn);
                let step = with_read_buf(|buffer| {
                    let Poll::Ready(count) = channel.poll_read_to(cx, buffer) else {
                        // What the connection holds back for more must not wait for it.
                        ready!(conn.poll_flush(cx))?;
                        return Poll::Pending;
                    };
                    let mut bytes = buffer.get(..count?).unwrap_or_default();
                    if bytes.is_empty() {
                        return Poll::Ready(io::Result::Ok(Step::Ended));
                    }
                    while !bytes.is_empty() {
                        let Poll::Ready(written) = conn.poll_write(cx, bytes)? else {
                            *stuck = Bytes::copy_from_slice(bytes);
                            ready!(channel.poll_cut(cx));
                            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                        };
                        if written == 0 {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        bytes = bytes.get(written..).unwrap_or_default();
                    }
                    Poll::Ready(Ok(Step::Moved))
                });
                let step = ready!(step)?;
                if matches!(step, Step::Ended) {
                    self.inward = Inward::Ending;
                }
                Poll::Ready(Ok(Step::Moved))
            }
            Inward::Open { stuck } => {
                let Poll::Ready(written) = self.conn.poll_write(cx, stuck)? else {
                    ready!(self.channel.poll_cut(cx));
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                };
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                drop(stuck.split_to(written));
                if stuck.is_empty() {
                    *stuck = Bytes::new();
                }
                self.channel.goes_on();
                Poll::Ready(Ok(Step::Moved))
            }
            Inward::Ending => {
                ready!(self.conn.poll_flush(cx))?;
                ready!(self.conn.poll_shutdown(cx))?;
                self.inward = Inward::Ended;
                Poll::Ready(Ok(Step::Moved))
            }
            Inward::Ended => Poll::Ready(Ok(Step::Ended)),
        }
    }

    /// Moves a piece from the connection to the channel.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        match self.outward {
            Outward::Open => {
                let Ok(room) = ready!(self.channel.poll_room(cx)) else {
                    // The peer wants nothing more; what it has sent may still come.
                    self.outward = Outward::Ended;
                    return Poll::Ready(Ok(Step::Moved));
                };
                let count = with_read_buf(|buffer| {
                    let buffer = match buffer.len() > room {
                        true => buffer.get_mut(..room).unwrap_or_default(),
                        false => buffer,
                    };
                    let count = ready!(self.conn.poll_read(cx, buffer))?;
                    if count > 0 {
                        // Fails if the peer wants nothing more, which the next room tells.
                        let _ = self.channel.send(buffer.get(..count).unwrap_or_default());
                    }
                    Poll::Ready(io::Result::Ok(count))
                });
                if ready!(count)? == 0 {
                    self.channel.finish();
                    self.outward = Outward::Delivering;
                }
                Poll::Ready(Ok(Step::Moved))
            }
            Outward::Delivering => {
                ready!(self.channel.poll_delivered(cx));
                self.outward = Outward::Ended;
                Poll::Ready(Ok(Step::Moved))
            }
            Outward::Ended => Poll::Ready(Ok(Step::Ended)),
        }
    }

    /// Returns for how long nothing may move, once one direction has ended.
    fn patience(&self) -> Option<Duration> {
        let limit = match (&self.inward, self.outward) {
            (Inward::Open { .. }, Outward::Open) => return None,
            // Only the last bytes or the end are left.
            (Inward::Ending, Outward::Ended | Outward::Delivering)
            | (Inward::Ended, Outward::Delivering) => DRAIN_TIMEOUT,
            (Inward::Open { stuck }, Outward::Ended) if !stuck.is_empty() => DRAIN_TIMEOUT,
            _ => HALF_CLOSE_TIMEOUT,
        };
        let idle = self.channel.idle_limit();
        Some(idle.map_or(limit, |idle| idle.min(limit)))
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut has_moved, mut is_over) = (false, [false; 2]);
        for side in [0, 1] {
            let mut rounds = 0;
            loop {
                let step = match side {
                    0 => self.poll_in(cx)?,
                    _ => self.poll_out(cx)?,
                };
                match step {
                    Poll::Ready(Step::Moved) if rounds < MAX_PIECES_IN_A_ROW => {
                        (has_moved, rounds) = (true, rounds + 1);
                    }
                    Poll::Ready(Step::Moved) => {
                        cx.waker().wake_by_ref();
                        break;
                    }
                    Poll::Ready(Step::Ended) => {
                        if let Some(is_over) = is_over.get_mut(side) {
                            *is_over = true;
                        }
                        break;
                    }
                    Poll::Pending => break,
                }
            }
        }
        if is_over == [true; 2] {
            return Poll::Ready(Ok(()));
        }
        if has_moved {
            self.timer = None;
        }
        let Some(patience) = self.patience() else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Timer::after(patience));
        ready!(Pin::new(timer).poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Future for DuplexRelay {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(self.poll_both(cx));
        self.is_whole = result.is_ok();
        Poll::Ready(result)
    }
}

impl Drop for DuplexRelay {
    fn drop(&mut self) {
        if !self.is_whole {
            self.conn.reset_on_close();
            self.channel.abort();
        }
    }
}
