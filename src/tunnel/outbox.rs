//! What a tunnel has to send. Streams append frames; one writer sends all that has gathered
//! in one system call, and more gathers meanwhile.

use super::buffer::{Buffer, ROOM};
use super::core::FEW;
use super::pace::{self, Pace};
use super::queue::Queue;
use super::throttle::Throttle;
use super::{lock, Shared};
use crate::net::clock::Tick;
use crate::net::{Bucket, Conn};
use crate::wire::frame::{Head, MAX_ENCODED};
use crate::wire::Version;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::Instant;

/// A frame is not begun for less room than this.
const WORTHWHILE: usize = 4 * 1024;
/// Where streams have their turns: most payload of one frame,
const TURN: usize = 16 * 1024;
/// what is gathered of them,
const SHARED: usize = 3 * TURN;
/// what is kept free for streams that send little,
const RESERVE: usize = 16 * 1024;
/// and most payload of one of their frames in there.
const LITTLE: usize = 2 * 1024;
/// Frames that wait for no room (closes, signals) may take the outbox to here; above it the
/// inbox reads no more, so that a peer cannot make us gather answers it does not read.
pub(super) const FLOODED: usize = 2 * ROOM;

#[derive(Debug)]
pub(super) struct Outbox {
    gathering: Buffer,
    version: Version,
    /// The writer, when it has nothing to send.
    writer: Option<Waker>,
    /// The writer, when the connection takes nothing: only a failure wakes it.
    blocked: Option<Waker>,
    /// The connection did not take all of what the writer had last.
    pub congested: bool,
    /// Bytes that the connection gets at a time.
    burst: u32,
    pub queue: Queue,
    end: End,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// Send what is there, then shut the socket for writing.
    Flush,
    /// Nobody listens.
    Broken,
}

impl Outbox {
    pub fn new(version: Version) -> Self {
        Self {
            gathering: Buffer::default(),
            version,
            writer: None,
            blocked: None,
            congested: false,
            burst: pace::FIRST,
            queue: Queue::default(),
            end: End::Open,
        }
    }

    /// Appends a frame without payload, whether or not there is room.
    pub fn push(&mut self, head: impl Into<Head>) {
        let head = self.version.encode(head);
        self.push_bytes(head.as_slice());
    }

    /// The same for bytes that are whole frames, or a hello.
    pub fn push_bytes(&mut self, frames: &[u8]) {
        if self.end == End::Open {
            self.gathering.push(frames);
            self.wake_writer();
        }
    }

    /// The room for one frame of a stream that sends `much` or not; `None` if it is too little
    /// to begin one.
    pub fn room(&self, much: bool) -> io::Result<Option<usize>> {
        if self.end != End::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (most, worthwhile, frame) = match (self.version, much) {
            (Version::One, _) if self.congested => (ROOM / 2, WORTHWHILE, 2 * TURN),
            (Version::One, _) => (ROOM, WORTHWHILE, ROOM),
            (Version::Two, false) if self.gathering.len() < ROOM - RESERVE => (ROOM, 1, TURN),
            // A stream that has just begun may turn out to send much.
            (Version::Two, false) => (ROOM, 1, LITTLE),
            // What is in here already goes before what a keystroke will bring: on a
            // connection that is slow to take it, that should be little.
            (Version::Two, true) if self.congested => {
                let turn = TURN.min(self.burst as usize);
                (turn + WORTHWHILE, WORTHWHILE, turn)
            }
            // Nobody else wants to send, and the connection is not known to be slow.
            (Version::Two, true) if self.queue.is_empty() && self.burst >= pace::FIRST => {
                (ROOM - RESERVE, WORTHWHILE, ROOM)
            }
            (Version::Two, true) if self.queue.is_empty() => (SHARED, WORTHWHILE, ROOM),
            (Version::Two, true) => (SHARED, TURN, TURN),
        };
        let room = most.saturating_sub(self.gathering.len() + MAX_ENCODED);
        Ok((room >= worthwhile).then_some(room.min(frame)))
    }

    /// Whether a stream that sends `much` or not has to wait for its turn, room or none.
    pub fn is_queue(&self, much: bool) -> bool {
        // An idle writer admits nobody.
        self.version == Version::Two && much && self.writer.is_none() && !self.queue.is_empty()
    }

    /// Appends a frame whose payload, at most `room` bytes, `fill` puts in place; it says how
    /// many there are. With none there is no frame.
    pub fn fill(
        &mut self,
        room: usize,
        head: impl Fn(u32) -> Head,
        fill: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let head_len = self.version.encode(head(0)).as_slice().len();
        let frame = self.gathering.room(head_len + room);
        let Some((head_room, payload)) = frame.split_at_mut_checked(head_len) else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let filled = fill(payload);
        if let Poll::Ready(Ok(n @ 1..)) = filled {
            // At most ROOM.
            head_room.copy_from_slice(self.version.encode(head(n as u32)).as_slice());
            self.gathering.grow(head_len + n);
            self.wake_writer();
        } else {
            // Gives the memory back if there was nothing before either.
            self.gathering.consume(0);
        }
        filled
    }

    /// Whether all has been given to the connection.
    #[cfg(feature = "server")]
    pub fn is_idle(&self) -> bool {
        self.gathering.is_empty() && self.writer.is_some()
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// No more frames; what is there is still sent.
    pub fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Flush;
        }
        self.wake_writer();
    }

    /// Nothing can be sent any more.
    pub fn fail(&mut self) {
        self.end = End::Broken;
        self.gathering = Buffer::default();
        self.wake_writer();
        if let Some(blocked) = self.blocked.take() {
            blocked.wake();
        }
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        self.gathering.capacity()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.gathering.len()
    }

    pub fn is_flooded(&self) -> bool {
        self.gathering.len() > FLOODED
    }

    /// Takes all that has gathered, or keeps the waker until there is something.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Taken> {
        if self.end == End::Broken {
            return Poll::Ready(Taken::Broken);
        }
        if !self.gathering.is_empty() {
            self.congested = false;
            return Poll::Ready(Taken::Frames(std::mem::take(&mut self.gathering)));
        }
        if self.end == End::Flush {
            return Poll::Ready(Taken::End);
        }
        match &self.writer {
            Some(writer) if writer.will_wake(cx.waker()) => {}
            _ => self.writer = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

pub(super) enum Taken {
    Frames(Buffer),
    End,
    Broken,
}

/// The future that sends what the outbox gathers. Ends when the tunnel does.
pub(super) struct Writer {
    tunnel: Arc<Shared>,
    conn: Arc<Conn>,
    sending: Buffer,
    step: Step,
    throttle: Option<Box<Throttle>>,
    /// Where streams have their turns.
    pace: Option<Pace>,
}

enum Step {
    Send,
    /// TLS may hold back the last record.
    Flush,
    Shutdown,
}

impl Writer {
    pub fn new(
        tunnel: Arc<Shared>,
        conn: Arc<Conn>,
        version: Version,
        limit: Option<Arc<Bucket>>,
    ) -> Self {
        let pace = (version == Version::Two).then(Pace::new);
        if pace.is_some() {
            conn.limit_unsent(pace::FIRST);
        }
        Self {
            pace,
            tunnel,
            conn,
            sending: Buffer::default(),
            step: Step::Send,
            throttle: limit.map(|bucket| Box::new(Throttle::new(bucket))),
        }
    }

    /// `Ok`: all is sent and the end too.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.step {
                Step::Send => {
                    while !self.sending.is_empty() {
                        let mut bytes = self.sending.as_slice();
                        if let Some(throttle) = &mut self.throttle {
                            let granted = ready!(throttle.poll_grant(cx, bytes.len()));
                            bytes = bytes.get(..granted).unwrap_or(bytes);
                        }
                        let n = ready!(self.conn.poll_write(cx, bytes))?;
                        if n == 0 {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        self.sending.consume(n);
                        if let Some(throttle) = &mut self.throttle {
                            throttle.take(n);
                        }
                        if let Some(pace) = &mut self.pace {
                            if pace.sent(n, Instant::now()) {
                                self.conn.limit_unsent(pace.burst());
                                lock(&self.tunnel).outbox.burst = pace.burst();
                            }
                        }
                    }
                    self.step = Step::Flush;
                }
                Step::Flush => {
                    ready!(self.conn.poll_flush(cx))?;
                    let mut core = lock(&self.tunnel);
                    let was_flooded = core.outbox.is_flooded();
                    let taken = core.outbox.poll_take(cx);
                    // A stream that sends admits the next, so few are enough to keep the
                    // outbox full. With nothing to send, those that were admitted may have
                    // ended without a word, so all of them may try.
                    core.admit(if taken.is_pending() { usize::MAX } else { FEW });
                    if let (Poll::Pending, Some(pace)) = (&taken, &mut self.pace) {
                        if pace.idle(Instant::now()) {
                            self.conn.limit_unsent(pace.burst());
                            core.outbox.burst = pace.burst();
                        }
                    }
                    match ready!(taken) {
                        Taken::Frames(frames) => {
                            self.sending = frames;
                            self.step = Step::Send;
                            core.sent = Tick::now();
                            if was_flooded {
                                core.wake_inbox();
                            }
                        }
                        Taken::End => self.step = Step::Shutdown,
                        Taken::Broken => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    }
                }
                Step::Shutdown => return self.conn.poll_shutdown(cx),
            }
        }
    }
}

impl Future for Writer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_send(cx);
        let sending_is_over = self.sending.is_empty();
        let Poll::Ready(result) = polled else {
            // The connection may never take anything again; then somebody has to say so.
            let mut core = lock(&self.tunnel);
            if core.outbox.end != End::Broken {
                core.outbox.congested = !sending_is_over;
                match &core.outbox.blocked {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    _ => core.outbox.blocked = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            return Poll::Ready(());
        };
        self.tunnel.end(result.is_ok());
        Poll::Ready(())
    }
}
