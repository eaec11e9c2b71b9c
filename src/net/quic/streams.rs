//! The further streams of a connection and its datagrams, with the application protocol `gt/2`: each visitor has
//! a stream of its own. Not the first stream, which is a [`Conn`](crate::net::Conn), nor what streams mean.

use super::connection::{wait, ConnectionShared, ConnectionState};
use crate::collections::HashSet;
use bytes::Bytes;
use quinn_proto::{Dir, ReadError, StreamId, VarInt, WriteError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The number of a stream in its connection.
pub type QuicStreamId = StreamId;

/// Number of streams that a server may open in a connection at first. The protocol keeps memory for as many.
pub const FIRST_STREAMS: u32 = 64;
/// Bytes that an urgent write may exceed the send window by.
const RESERVE: u64 = 64 * 1024;

/// How urgent a write is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Bytes that wait until there is room in the send window.
    #[default]
    Bulk,
    /// Bytes that others need not make room for, and that are sent before them.
    Urgent,
}

/// What has happened to a stream, or to all of them.
#[derive(Debug)]
pub enum StreamNews {
    /// The peer has opened this stream.
    Opened(QuicStreamId),
    /// The stream may have bytes, its end or a reset to read.
    Readable(QuicStreamId),
    /// The stream, which was blocked, may take bytes again.
    Writable(QuicStreamId),
    /// The peer reads no more of the stream, with this code.
    Stopped(QuicStreamId, u64),
    /// More streams may be opened.
    Available,
    /// A datagram has come.
    Datagram(Bytes),
}

/// What follows the bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadEnd {
    /// More bytes, perhaps.
    More,
    /// Nothing yet.
    Blocked,
    /// The end of the stream.
    Finished,
    /// A reset with this code.
    Reset(u64),
    /// Nothing: the stream has been read to its end, or was stopped.
    Gone,
}

/// Streams in order, each once.
#[derive(Debug, Default)]
struct StreamQueue {
    order: VecDeque<StreamId>,
    queued: HashSet<StreamId>,
}

impl StreamQueue {
    fn push(&mut self, id: StreamId) {
        if self.order.back() != Some(&id) && self.queued.insert(id) {
            self.order.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<StreamId> {
        let id = self.order.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }
}

/// The state of the further streams of a connection.
#[derive(Debug, Default)]
pub struct FurtherStreams {
    /// Streams that may be read.
    readable: StreamQueue,
    /// Streams that may take bytes.
    writable: StreamQueue,
    stopped: VecDeque<(StreamId, VarInt)>,
    /// Whether the peer has opened streams that were not accepted.
    opened: bool,
    available: bool,
    /// Whether datagrams wait.
    datagrams: bool,
    /// Number of streams that the peer may have open now.
    pub limit: u32,
    /// Number of streams that the peer may ever have open.
    max: u32,
    waker: Option<Waker>,
}

impl FurtherStreams {
    /// Notes that the stream may be read.
    pub fn readable(&mut self, id: StreamId) {
        self.readable.push(id);
    }

    /// Notes that the stream may take bytes.
    pub fn writable(&mut self, id: StreamId) {
        self.writable.push(id);
    }

    /// Notes that the peer reads no more of the stream.
    pub fn stopped(&mut self, id: StreamId, code: VarInt) {
        self.stopped.push_back((id, code));
    }

    /// Notes that the peer has opened streams.
    pub fn opened(&mut self) {
        self.opened = true;
    }

    /// Notes that more streams may be opened.
    pub fn available(&mut self) {
        self.available = true;
    }

    /// Notes that datagrams wait.
    pub fn datagrams(&mut self) {
        self.datagrams = true;
    }

    /// Returns the waker of the task that waits for news.
    pub fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    fn pop(&mut self) -> Option<StreamNews> {
        if let Some((id, code)) = self.stopped.pop_front() {
            return Some(StreamNews::Stopped(id, code.into_inner()));
        }
        if let Some(id) = self.writable.pop() {
            return Some(StreamNews::Writable(id));
        }
        if std::mem::take(&mut self.available) {
            return Some(StreamNews::Available);
        }
        self.readable.pop().map(StreamNews::Readable)
    }
}

/// The further streams of a connection. Clones refer to the same connection, and do not keep it open.
#[derive(Clone, Debug)]
pub struct QuicStreams(Arc<ConnectionShared>);

impl QuicStreams {
    pub(super) fn new(shared: Arc<ConnectionShared>) -> Self {
        Self(shared)
    }

    /// Lets the peer, a server, have up to `max` streams open at a time.
    pub fn accept_up_to(&self, max: u32) {
        if let Some(further) = &mut self.0.lock().further {
            further.max = max;
        }
    }

    /// Returns what has happened next.
    pub fn poll_news(&self, cx: &mut Context<'_>) -> Poll<StreamNews> {
        let state = &mut *self.0.lock();
        let ConnectionState { proto, further, .. } = state;
        let Some(further) = further else {
            return Poll::Pending;
        };
        if further.opened {
            if let Some(id) = proto.streams().accept(Dir::Bi) {
                let open = proto.streams().remote_open_streams(Dir::Bi);
                if open.saturating_mul(2) >= u64::from(further.limit) && further.limit < further.max
                {
                    further.limit = further.limit.saturating_mul(2).min(further.max);
                    let limit = VarInt::from_u32(further.limit);
                    proto.set_max_concurrent_streams(Dir::Bi, limit);
                    state.wake_driver();
                }
                return Poll::Ready(StreamNews::Opened(id));
            }
            further.opened = false;
        }
        if further.datagrams {
            if let Some(bytes) = proto.datagrams().recv() {
                return Poll::Ready(StreamNews::Datagram(bytes));
            }
            further.datagrams = false;
        }
        if let Some(news) = further.pop() {
            return Poll::Ready(news);
        }
        wait(&mut further.waker, cx);
        Poll::Pending
    }

    /// Returns the next datagram that has come.
    pub fn next_datagram(&self) -> Option<Bytes> {
        self.0.lock().proto.datagrams().recv()
    }

    /// Has [`Self::poll_news`] return once more that the stream may be read.
    pub fn read_again(&self, id: QuicStreamId) {
        if let Some(further) = &mut self.0.lock().further {
            further.readable(id);
        }
    }

    /// Opens a stream; `None` while the peer allows no more.
    pub fn open(&self) -> Option<QuicStreamId> {
        let mut state = self.0.lock();
        match state.failure() {
            None => state.proto.streams().open(Dir::Bi),
            Some(_) => None,
        }
    }

    /// Reads bytes that have come into `buf`.
    pub fn read(&self, id: QuicStreamId, buf: &mut [u8]) -> (usize, ReadEnd) {
        let mut state = self.0.lock();
        let mut stream = state.proto.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return (0, ReadEnd::Gone);
        };
        let mut count = 0;
        let end = loop {
            let Some(room) = buf.get_mut(count..).filter(|room| !room.is_empty()) else {
                break ReadEnd::More;
            };
            match chunks.next(room.len()) {
                Ok(Some(chunk)) => {
                    let bytes = &chunk.bytes;
                    if let Some(room) = room.get_mut(..bytes.len()) {
                        room.copy_from_slice(bytes);
                    }
                    count += bytes.len();
                }
                Ok(None) => break ReadEnd::Finished,
                Err(ReadError::Blocked) => break ReadEnd::Blocked,
                Err(ReadError::Reset(code)) => break ReadEnd::Reset(code.into_inner()),
            }
        };
        if chunks.finalize().should_transmit() {
            state.wake_driver();
        }
        (count, end)
    }

    /// Writes bytes and returns how many the stream takes now. If it does not take all, there will be
    /// [`StreamNews::Writable`]. The error is that it never takes any.
    pub fn write(&self, id: QuicStreamId, bytes: &[u8], urgency: Urgency) -> io::Result<usize> {
        let mut state = self.0.lock();
        let window = state.send_window;
        if urgency == Urgency::Urgent {
            state.proto.set_send_window(window.saturating_add(RESERVE));
        }
        let mut count = 0;
        let result = loop {
            let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) else {
                break Ok(count);
            };
            match state.proto.send_stream(id).write(rest) {
                Ok(n) => count += n,
                Err(WriteError::Blocked) => break Ok(count),
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    break Err(io::ErrorKind::BrokenPipe.into())
                }
            }
        };
        state.proto.set_send_window(window);
        if count > 0 {
            state.wake_driver();
        }
        result
    }

    /// Sets whether what is sent on the stream goes before what others send.
    pub fn set_urgency(&self, id: QuicStreamId, urgency: Urgency) {
        let priority = match urgency {
            Urgency::Bulk => 0,
            Urgency::Urgent => 1,
        };
        // Fails if the stream has ended.
        let _ = self.0.lock().proto.send_stream(id).set_priority(priority);
    }

    /// Ends this end's direction of the stream.
    pub fn finish(&self, id: QuicStreamId) {
        let mut state = self.0.lock();
        // Fails if the peer reads no more.
        let _ = state.proto.send_stream(id).finish();
        state.wake_driver();
    }

    /// Cuts this end's direction of the stream.
    pub fn reset(&self, id: QuicStreamId, code: u16) {
        let mut state = self.0.lock();
        // Fails if it has ended and all has arrived.
        let _ = state
            .proto
            .send_stream(id)
            .reset(VarInt::from_u32(code.into()));
        state.wake_driver();
    }

    /// Reads no more of the stream.
    pub fn stop(&self, id: QuicStreamId, code: u16) {
        let mut state = self.0.lock();
        // Fails if it was read to its end.
        let _ = state
            .proto
            .recv_stream(id)
            .stop(VarInt::from_u32(code.into()));
        state.wake_driver();
    }

    /// Sends a datagram. False if it is too large, or if too many wait.
    pub fn send_datagram(&self, parts: [&[u8]; 2]) -> bool {
        let mut state = self.0.lock();
        let mut datagrams = state.proto.datagrams();
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if datagrams.max_size().is_none_or(|most| length > most) {
            return false;
        }
        let sent = datagrams.send(Bytes::from(parts.concat()), false).is_ok();
        if sent {
            state.wake_driver();
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_told_of_once_and_again_after_it_was() {
        let mut queue = StreamQueue::default();
        let id = |n: u32| StreamId::from(VarInt::from_u32(n));
        for n in [1, 2, 2, 1, 3, 1] {
            queue.push(id(n));
        }
        assert_eq!(queue.pop(), Some(id(1)));
        queue.push(id(1));
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [id(2), id(3), id(1)]);
        assert!(queue.queued.is_empty());
    }
}
