//! The sending half of a tunnel. Streams append frames; one writer sends all of them in one system
//! call, while more are appended. A tunnel that only waits has no writer: the next frame starts one.

use super::buffer::{Buffer, ROOM};
use super::pacer::{self, Pacer};
use super::scheduler::Scheduler;
use super::{lock, TunnelShared};
use crate::net::clock::Tick;
use crate::net::{self, clock, Conn, Throttle, TokenBucket};
use crate::wire::frame::{Header, MAX_ENCODED};
use crate::wire::Version;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{ready, Context, Poll, Waker};

/// Maximum number of streams that have a granted turn at the same time: two, so that one is ready
/// to send while the other one sends.
pub(super) const MAX_SENDERS: usize = 2;
/// Minimum room in bytes for which a bulk frame is begun.
const WORTHWHILE: usize = 4 * 1024;
/// Maximum payload in bytes of a GT/1 frame on a connection that is not known to be fast. The
/// original drops the tunnel when one frame takes long, even if it keeps arriving (docs/gt1.md,
/// "Frames").
const GT1_FRAME: usize = 32 * 1024;
/// Minimum length in bytes of a frame under a speed limit.
const MIN_FRAME: usize = 64;
/// Maximum payload in bytes of one frame while streams take turns (docs/wire.md, "Scheduling").
const MAX_SHARED_PAYLOAD: usize = 16 * 1024;
/// Bytes up to which bulk streams that take turns fill the outbox.
const SHARED: usize = 3 * MAX_SHARED_PAYLOAD;
/// Room kept free for interactive streams, in bytes.
const RESERVE: usize = 16 * 1024;
/// Maximum payload in bytes of an interactive frame that uses [`RESERVE`].
const MAX_INTERACTIVE_PAYLOAD: usize = 2 * 1024;
/// Maximum bytes in the outbox for which the inbox reads. Closes, signals and answers do not wait
/// for room: a peer that reads none of them must not make this end gather ever more.
pub(super) const FLOODED: usize = 2 * ROOM;

/// The frames that wait to be sent, and the streams that wait to append some.
pub(super) struct Outbox {
    gathered: Buffer,
    version: Version,
    /// The tunnel of this outbox, for its writer.
    tunnel: Weak<TunnelShared>,
    writer: WriterState,
    /// Wakes the writer. While that has something to send, only a failure does.
    waker: Option<Waker>,
    /// Whether the connection did not take all of the writer's last bytes.
    pub congested: bool,
    /// Bytes that the connection takes in about a millisecond, see [`Pacer`].
    burst: u32,
    /// The speed limit of what is sent.
    limit: Option<Arc<TokenBucket>>,
    pub scheduler: Scheduler,
    end: OutboxEnd,
}

/// What the task of the writer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    /// There is none, until there is something to send.
    None,
    /// It waits for something to send.
    Idle,
    /// It sends.
    Busy,
    /// It has ended with the tunnel.
    Ended,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum OutboxEnd {
    #[default]
    Open,
    /// Send the frames that wait, then shut down the socket for writing.
    Flush,
    /// Nothing can be sent.
    Broken,
}

impl Outbox {
    pub fn new(
        tunnel: Weak<TunnelShared>,
        version: Version,
        limit: Option<Arc<TokenBucket>>,
    ) -> Self {
        Self {
            gathered: Buffer::default(),
            version,
            tunnel,
            writer: WriterState::None,
            waker: None,
            congested: false,
            burst: pacer::DEFAULT_BURST,
            limit,
            scheduler: Scheduler::default(),
            end: OutboxEnd::Open,
        }
    }

    /// Appends a frame without payload, even if there is no room.
    pub fn push(&mut self, head: impl Into<Header>) {
        let head = self.version.encode(head);
        self.push_bytes(head.as_slice());
    }

    /// Appends bytes that are whole frames, or a hello.
    pub fn push_bytes(&mut self, frames: &[u8]) {
        if self.end == OutboxEnd::Open {
            self.gathered.push(frames);
            self.wake_writer();
        }
    }

    /// Returns the speed limit of what is sent.
    #[cfg_attr(any(feature = "sim", not(feature = "quic")), allow(dead_code))]
    pub fn limit(&self) -> Option<&Arc<TokenBucket>> {
        self.limit.as_ref()
    }

    /// Returns the room for one frame of a bulk or interactive stream; `None` if it is too little
    /// to begin one.
    pub fn room(&self, bulk: bool) -> io::Result<Option<usize>> {
        if self.end != OutboxEnd::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (most, worthwhile, frame) = match (self.version, bulk) {
            (Version::One, _) => {
                let frame = self.gt1_frame();
                let most = if self.congested { ROOM / 2 } else { ROOM };
                (most, WORTHWHILE.min(frame), frame)
            }
            (Version::Two, false) if self.gathered.len() < ROOM - RESERVE => {
                (ROOM, 1, MAX_SHARED_PAYLOAD)
            }
            // A stream that has just begun may turn out to be a bulk stream.
            (Version::Two, false) => (ROOM, 1, MAX_INTERACTIVE_PAYLOAD),
            // Gathered bytes are sent before the next keystroke: on a connection that is slow to
            // take them, they should be few.
            (Version::Two, true) if self.congested => {
                let turn = MAX_SHARED_PAYLOAD.min(self.burst as usize);
                (turn + WORTHWHILE, WORTHWHILE, turn)
            }
            // No other stream waits, and the connection is not known to be slow.
            (Version::Two, true)
                if self.scheduler.is_empty() && self.burst >= pacer::DEFAULT_BURST =>
            {
                (ROOM - RESERVE, WORTHWHILE, ROOM)
            }
            (Version::Two, true) if self.scheduler.is_empty() => (SHARED, WORTHWHILE, ROOM),
            (Version::Two, true) => (SHARED, MAX_SHARED_PAYLOAD, MAX_SHARED_PAYLOAD),
        };
        let room = most.saturating_sub(self.gathered.len() + MAX_ENCODED);
        Ok((room >= worthwhile).then_some(room.min(frame)))
    }

    /// Returns the maximum payload of a GT/1 frame: as many bytes as the connection takes and the
    /// speed limit allows at once, since a frame must not begin before all of it may be sent.
    fn gt1_frame(&self) -> usize {
        let taken = match self.burst {
            fast if fast > pacer::DEFAULT_BURST => ROOM,
            burst => GT1_FRAME.min(usize::try_from(burst).unwrap_or(GT1_FRAME)),
        };
        match self.limit.as_ref().and_then(|limit| limit.guaranteed()) {
            Some(piece) => taken.min(piece.max(MIN_FRAME) - MAX_ENCODED),
            None => taken,
        }
    }

    /// Whether a bulk or interactive stream has to wait for its turn even if there is room.
    pub fn must_queue(&self, bulk: bool) -> bool {
        // An idle writer admits no stream.
        self.version == Version::Two
            && bulk
            && self.writer == WriterState::Busy
            && !self.scheduler.is_empty()
    }

    /// Appends a frame. `fill` writes its payload of at most `room` bytes and returns the length; 0
    /// appends no frame.
    pub fn fill(
        &mut self,
        room: usize,
        head: impl Fn(u32) -> Header,
        fill: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let head_len = self.version.encode(head(0)).as_slice().len();
        let frame = self.gathered.room(head_len + room);
        let Some((head_room, payload)) = frame.split_at_mut_checked(head_len) else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let filled = fill(payload);
        if let Poll::Ready(Ok(n @ 1..)) = filled {
            // `n` is at most ROOM.
            head_room.copy_from_slice(self.version.encode(head(n as u32)).as_slice());
            self.gathered.grow(head_len + n);
            self.wake_writer();
        } else {
            // Returns the memory if the buffer is empty.
            self.gathered.consume(0);
        }
        filled
    }

    /// Whether everything has been given to the connection.
    pub fn is_idle(&self) -> bool {
        self.gathered.is_empty() && matches!(self.writer, WriterState::None | WriterState::Idle)
    }

    /// Lets the writer send, or end. Starts one if there is none.
    fn wake_writer(&mut self) {
        match self.writer {
            WriterState::None => {
                if let Some(tunnel) = self.tunnel.upgrade() {
                    OutboxWriter::start(tunnel, self);
                }
            }
            WriterState::Idle => self.wake(),
            WriterState::Busy | WriterState::Ended => return,
        }
        self.writer = WriterState::Busy;
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Gives back the memory that a tunnel without streams does not need.
    pub fn rest(&mut self) {
        self.scheduler.tidy();
        if self.writer == WriterState::Idle {
            // It finds that nothing is likely to be sent soon, and ends.
            self.wake();
        }
    }

    /// Accepts no more frames; those that wait are still sent.
    pub fn finish(&mut self) {
        if self.end == OutboxEnd::Open {
            self.end = OutboxEnd::Flush;
            self.wake_writer();
        }
    }

    /// Discards everything: nothing can be sent any more.
    pub fn fail(&mut self) {
        self.end = OutboxEnd::Broken;
        self.gathered = Buffer::default();
        match self.writer {
            WriterState::None => self.writer = WriterState::Ended,
            WriterState::Idle | WriterState::Busy => self.wake(),
            WriterState::Ended => {}
        }
    }

    /// Returns the bytes of memory held.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        self.gathered.capacity()
    }

    /// Whether a writer has started and not ended.
    #[cfg(test)]
    pub fn has_writer(&self) -> bool {
        matches!(self.writer, WriterState::Idle | WriterState::Busy)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.gathered.len()
    }

    pub fn is_flooded(&self) -> bool {
        self.gathered.len() > FLOODED
    }

    /// Takes all frames that wait. While there are none, keeps the waker, or, unless the tunnel is
    /// `warm`, ends the writer.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, warm: bool) -> Poll<Drained> {
        if self.end == OutboxEnd::Broken {
            return Poll::Ready(Drained::Broken);
        }
        if !self.gathered.is_empty() {
            self.congested = false;
            return Poll::Ready(Drained::Frames(std::mem::take(&mut self.gathered)));
        }
        if self.end == OutboxEnd::Flush {
            return Poll::Ready(Drained::End);
        }
        if !warm {
            (self.writer, self.waker) = (WriterState::None, None);
            return Poll::Ready(Drained::Nothing);
        }
        self.writer = WriterState::Idle;
        self.keep_waker(cx);
        Poll::Pending
    }

    fn keep_waker(&mut self, cx: &mut Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }
}

/// What the writer takes from the outbox.
pub(super) enum Drained {
    Frames(Buffer),
    /// Nothing, and the writer ends.
    Nothing,
    End,
    Broken,
}

/// The future that sends the frames of the outbox. It ends with the tunnel, or
/// while that only waits.
pub(super) struct OutboxWriter {
    tunnel: Arc<TunnelShared>,
    conn: Arc<Conn>,
    sending: Buffer,
    step: WriteStep,
    throttle: Option<Throttle>,
    /// Bytes that the throttle has granted and that have not been sent.
    granted: usize,
    pacer: Pacer,
    version: Version,
}

enum WriteStep {
    Send,
    /// Flush the last record that TLS may hold back.
    Flush,
    Shutdown,
}

/// Why a writer has ended without an error.
enum WriterEnd {
    /// Nothing is likely to be sent soon.
    Nothing,
    /// All frames are sent, and the socket is shut down for writing.
    Shutdown,
}

/// Limits the bytes that the kernel holds unsent in GT/2, where streams take turns.
pub(super) fn limit_unsent(conn: &Conn, version: Version, burst: u32) {
    if version == Version::Two {
        conn.limit_unsent(burst);
    }
}

impl OutboxWriter {
    /// Spawns the writer of a tunnel whose connection is open.
    fn start(tunnel: Arc<TunnelShared>, outbox: &Outbox) {
        let Some(conn) = tunnel.conn.upgrade() else {
            return;
        };
        let thread = tunnel.thread;
        let writer = Self {
            pacer: Pacer::new(outbox.burst),
            version: outbox.version,
            tunnel,
            conn,
            sending: Buffer::default(),
            step: WriteStep::Send,
            throttle: outbox.limit.clone().map(Throttle::new),
            granted: 0,
        };
        net::spawn_on(thread, writer);
    }

    fn limit_unsent(&self) {
        limit_unsent(&self.conn, self.version, self.pacer.burst());
    }

    /// Sends until there is nothing to send for good.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<WriterEnd>> {
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
                        if self.pacer.sent(n, clock::now()) {
                            self.limit_unsent();
                            lock(&self.tunnel).outbox.burst = self.pacer.burst();
                        }
                    }
                    self.step = WriteStep::Flush;
                }
                WriteStep::Flush => {
                    ready!(self.conn.poll_flush(cx))?;
                    let mut state = lock(&self.tunnel);
                    let was_flooded = state.outbox.is_flooded();
                    let warm = state.warm;
                    let taken = state.outbox.poll_take(cx, warm);
                    let is_idle = matches!(taken, Poll::Pending | Poll::Ready(Drained::Nothing));
                    // A stream that sends admits the next one, so MAX_SENDERS are enough to keep
                    // the outbox full. With nothing to send, the admitted ones may have ended
                    // silently, so all may try.
                    state.admit(if is_idle { usize::MAX } else { MAX_SENDERS });
                    if is_idle && self.pacer.idle(clock::now()) {
                        state.outbox.burst = self.pacer.burst();
                        self.limit_unsent();
                    }
                    match ready!(taken) {
                        Drained::Frames(frames) => {
                            self.sending = frames;
                            self.step = WriteStep::Send;
                            state.sent = Tick::now();
                            if was_flooded {
                                state.wake_inbox();
                            }
                        }
                        Drained::Nothing => return Poll::Ready(Ok(WriterEnd::Nothing)),
                        Drained::End => self.step = WriteStep::Shutdown,
                        Drained::Broken => {
                            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
                        }
                    }
                }
                WriteStep::Shutdown => {
                    ready!(self.conn.poll_shutdown(cx))?;
                    return Poll::Ready(Ok(WriterEnd::Shutdown));
                }
            }
        }
    }
}

/// Returns the length of the whole GT/1 frames within the first `most` bytes; the length of the
/// first frame if none fits.
fn whole_frames(bytes: &[u8], most: usize) -> usize {
    if most >= bytes.len() {
        return bytes.len();
    }
    let mut whole = 0usize;
    loop {
        let rest = bytes.get(whole..).unwrap_or_default();
        let Ok(Some((head, used))) = Version::One.parse(rest) else {
            // These are not frames, so there is nothing to keep together.
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
        if matches!(polled, Poll::Ready(Ok(WriterEnd::Nothing))) {
            return Poll::Ready(());
        }
        let mut state = lock(&self.tunnel);
        if polled.is_pending() && state.outbox.end != OutboxEnd::Broken {
            // The connection may never take anything again; then only `fail` wakes this task.
            state.outbox.congested = !self.sending.is_empty();
            state.outbox.keep_waker(cx);
            return Poll::Pending;
        }
        (state.outbox.writer, state.outbox.waker) = (WriterState::Ended, None);
        if let Poll::Ready(result) = polled {
            match result {
                Ok(_) => state.all_sent(),
                Err(_) => state.end(false),
            }
        }
        Poll::Ready(())
    }
}
