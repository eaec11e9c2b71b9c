//! What a tunnel has to send. Streams append frames; one writer sends all that has gathered
//! in one system call, and more gathers meanwhile.

use super::buffer::{Buffer, ROOM};
use super::pacer::{self, Pacer};
use super::scheduler::Scheduler;
use super::throttle::Throttle;
use super::tunnel_state::MAX_SENDERS;
use super::{lock, TunnelShared};
use crate::net::clock::Tick;
use crate::net::{Conn, TokenBucket};
use crate::wire::frame::{Header, MAX_ENCODED};
use crate::wire::Version;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::Instant;

/// A frame is not begun for less room than this.
const WORTHWHILE: usize = 4 * 1024;
/// The longest payload of a frame of GT/1 on a connection that is not known to be fast. Some peers
/// give up when a frame takes long, however much of it they have got.
const GT1_FRAME: usize = 32 * 1024;
/// The shortest frame that a speed limit asks for.
const MIN_FRAME: usize = 64;
/// Where streams have their turns: most payload of one frame,
const MAX_SHARED_PAYLOAD: usize = 16 * 1024;
/// what is gathered of them,
const SHARED: usize = 3 * MAX_SHARED_PAYLOAD;
/// what is kept free for streams that send little,
const RESERVE: usize = 16 * 1024;
/// and most payload of one of their frames in there.
const MAX_INTERACTIVE_PAYLOAD: usize = 2 * 1024;
/// Frames that wait for no room (closes, signals) may take the outbox to here; above it the
/// inbox reads no more, so that a peer cannot make us gather answers it does not read.
pub(super) const FLOODED: usize = 2 * ROOM;

pub(super) struct Outbox {
    gathering: Buffer,
    version: Version,
    /// The writer, when it has nothing to send.
    writer: Option<Waker>,
    /// The writer, when the connection takes nothing: only a failure wakes it.
    blocked: Option<Waker>,
    /// The connection did not take all of what the writer had last.
    pub congested: bool,
    /// Bytes that the connection takes in about a millisecond, see [`Pace`].
    burst: u32,
    /// The speed limit, where a frame must not be begun before all of it may go.
    limit: Option<Arc<TokenBucket>>,
    pub queue: Scheduler,
    end: OutboxEnd,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum OutboxEnd {
    #[default]
    Open,
    /// Send what is there, then shut the socket for writing.
    Flush,
    /// Nobody listens.
    Broken,
}

impl Outbox {
    pub fn new(version: Version, limit: Option<Arc<TokenBucket>>) -> Self {
        Self {
            limit: limit.filter(|_| version == Version::One),
            gathering: Buffer::default(),
            version,
            writer: None,
            blocked: None,
            congested: false,
            burst: pacer::DEFAULT_BURST,
            queue: Scheduler::default(),
            end: OutboxEnd::Open,
        }
    }

    /// Appends a frame without payload, whether or not there is room.
    pub fn push(&mut self, head: impl Into<Header>) {
        let head = self.version.encode(head);
        self.push_bytes(head.as_slice());
    }

    /// The same for bytes that are whole frames, or a hello.
    pub fn push_bytes(&mut self, frames: &[u8]) {
        if self.end == OutboxEnd::Open {
            self.gathering.push(frames);
            self.wake_writer();
        }
    }

    /// The room for one frame of a stream that sends `much` or not; `None` if it is too little
    /// to begin one.
    pub fn room(&self, much: bool) -> io::Result<Option<usize>> {
        if self.end != OutboxEnd::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (most, worthwhile, frame) = match (self.version, much) {
            (Version::One, _) => {
                let frame = self.gt1_frame();
                let most = if self.congested { ROOM / 2 } else { ROOM };
                (most, WORTHWHILE.min(frame), frame)
            }
            (Version::Two, false) if self.gathering.len() < ROOM - RESERVE => {
                (ROOM, 1, MAX_SHARED_PAYLOAD)
            }
            // A stream that has just begun may turn out to send much.
            (Version::Two, false) => (ROOM, 1, MAX_INTERACTIVE_PAYLOAD),
            // What is in here already goes before what a keystroke will bring: on a
            // connection that is slow to take it, that should be little.
            (Version::Two, true) if self.congested => {
                let turn = MAX_SHARED_PAYLOAD.min(self.burst as usize);
                (turn + WORTHWHILE, WORTHWHILE, turn)
            }
            // Nobody else wants to send, and the connection is not known to be slow.
            (Version::Two, true) if self.queue.is_empty() && self.burst >= pacer::DEFAULT_BURST => {
                (ROOM - RESERVE, WORTHWHILE, ROOM)
            }
            (Version::Two, true) if self.queue.is_empty() => (SHARED, WORTHWHILE, ROOM),
            (Version::Two, true) => (SHARED, MAX_SHARED_PAYLOAD, MAX_SHARED_PAYLOAD),
        };
        let room = most.saturating_sub(self.gathering.len() + MAX_ENCODED);
        Ok((room >= worthwhile).then_some(room.min(frame)))
    }

    /// The longest payload of a frame of GT/1: what the connection takes, or the speed limit lets
    /// go, at once.
    fn gt1_frame(&self) -> usize {
        let taken = match self.burst {
            fast if fast > pacer::DEFAULT_BURST => ROOM,
            burst => GT1_FRAME.min(usize::try_from(burst).unwrap_or(GT1_FRAME)),
        };
        match self.limit.as_ref().and_then(|limit| limit.piece()) {
            Some(piece) => taken.min(piece.max(MIN_FRAME) - MAX_ENCODED),
            None => taken,
        }
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
        head: impl Fn(u32) -> Header,
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
        if self.end == OutboxEnd::Open {
            self.end = OutboxEnd::Flush;
        }
        self.wake_writer();
    }

    /// Nothing can be sent any more.
    pub fn fail(&mut self) {
        self.end = OutboxEnd::Broken;
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
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Drained> {
        if self.end == OutboxEnd::Broken {
            return Poll::Ready(Drained::Broken);
        }
        if !self.gathering.is_empty() {
            self.congested = false;
            return Poll::Ready(Drained::Frames(std::mem::take(&mut self.gathering)));
        }
        if self.end == OutboxEnd::Flush {
            return Poll::Ready(Drained::End);
        }
        match &self.writer {
            Some(writer) if writer.will_wake(cx.waker()) => {}
            _ => self.writer = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

pub(super) enum Drained {
    Frames(Buffer),
    End,
    Broken,
}

/// The future that sends what the outbox gathers. Ends when the tunnel does.
pub(super) struct OutboxWriter {
    tunnel: Arc<TunnelShared>,
    conn: Arc<Conn>,
    sending: Buffer,
    step: WriteStep,
    throttle: Option<Box<Throttle>>,
    /// Bytes that the throttle has let through and that have not been sent.
    granted: usize,
    pace: Pacer,
    version: Version,
}

enum WriteStep {
    Send,
    /// TLS may hold back the last record.
    Flush,
    Shutdown,
}

impl OutboxWriter {
    pub fn new(
        tunnel: Arc<TunnelShared>,
        conn: Arc<Conn>,
        version: Version,
        limit: Option<Arc<TokenBucket>>,
    ) -> Self {
        let writer = Self {
            pace: Pacer::new(),
            version,
            tunnel,
            conn,
            sending: Buffer::default(),
            step: WriteStep::Send,
            throttle: limit.map(|bucket| Box::new(Throttle::new(bucket))),
            granted: 0,
        };
        writer.keep_pace();
        writer
    }

    /// Where streams have their turns, what the kernel holds should be little.
    fn keep_pace(&self) {
        if self.version == Version::Two {
            self.conn.limit_unsent(self.pace.burst());
        }
    }

    /// `Ok`: all is sent and the end too.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.step {
                WriteStep::Send => {
                    while !self.sending.is_empty() {
                        let mut bytes = self.sending.as_slice();
                        if let Some(throttle) = &mut self.throttle {
                            if self.granted == 0 {
                                let granted = ready!(throttle.poll_grant(cx, bytes.len()));
                                self.granted = match self.version {
                                    Version::One => whole_frames(bytes, granted),
                                    Version::Two => granted.min(bytes.len()),
                                };
                                throttle.take(self.granted);
                            }
                            bytes = bytes.get(..self.granted).unwrap_or(bytes);
                        }
                        let n = ready!(self.conn.poll_write(cx, bytes))?;
                        if n == 0 {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        self.sending.consume(n);
                        self.granted = self.granted.saturating_sub(n);
                        if self.pace.sent(n, Instant::now()) {
                            self.keep_pace();
                            lock(&self.tunnel).outbox.burst = self.pace.burst();
                        }
                    }
                    self.step = WriteStep::Flush;
                }
                WriteStep::Flush => {
                    ready!(self.conn.poll_flush(cx))?;
                    let mut core = lock(&self.tunnel);
                    let was_flooded = core.outbox.is_flooded();
                    let taken = core.outbox.poll_take(cx);
                    // A stream that sends admits the next, so few are enough to keep the
                    // outbox full. With nothing to send, those that were admitted may have
                    // ended without a word, so all of them may try.
                    core.admit(if taken.is_pending() {
                        usize::MAX
                    } else {
                        MAX_SENDERS
                    });
                    if taken.is_pending() && self.pace.idle(Instant::now()) {
                        core.outbox.burst = self.pace.burst();
                        if self.version == Version::Two {
                            self.conn.limit_unsent(self.pace.burst());
                        }
                    }
                    match ready!(taken) {
                        Drained::Frames(frames) => {
                            self.sending = frames;
                            self.step = WriteStep::Send;
                            core.sent = Tick::now();
                            if was_flooded {
                                core.wake_inbox();
                            }
                        }
                        Drained::End => self.step = WriteStep::Shutdown,
                        Drained::Broken => {
                            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
                        }
                    }
                }
                WriteStep::Shutdown => return self.conn.poll_shutdown(cx),
            }
        }
    }
}

/// The length of the frames of GT/1 at the start of `bytes` that are whole within `most` bytes; of
/// the first one if none is.
fn whole_frames(bytes: &[u8], most: usize) -> usize {
    if most >= bytes.len() {
        return bytes.len();
    }
    let mut whole = 0usize;
    loop {
        let rest = bytes.get(whole..).unwrap_or_default();
        let Ok(Some((head, used))) = Version::One.parse(rest) else {
            // Not frames: there is nothing to be kept together.
            return if whole > 0 { whole } else { bytes.len() };
        };
        let payload = match head {
            Header::Data { len, .. } | Header::Open { len, .. } => len,
            _ => 0,
        };
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        let next = whole.saturating_add(used).saturating_add(payload);
        if whole > 0 && next > most {
            return whole;
        }
        whole = next.min(bytes.len());
        if whole >= most {
            return whole;
        }
    }
}

impl Future for OutboxWriter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_send(cx);
        let sending_is_over = self.sending.is_empty();
        let Poll::Ready(result) = polled else {
            // The connection may never take anything again; then somebody has to say so.
            let mut core = lock(&self.tunnel);
            if core.outbox.end != OutboxEnd::Broken {
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
