//! The state of one channel of a QUIC connection: a bidirectional stream.

use super::header::HeaderReader;
use bytes::Bytes;
use quinn_proto::StreamId;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Bytes that are held for a reader before further ones wait in the connection.
pub(super) const IN: usize = 64 * 1024;
/// Length up to which received pieces are copied together: the memory of a piece is that of a whole packet.
const JOINED: usize = 1000;
/// Maximum length of joined pieces.
const MAX_JOINED: usize = 4 * 1024;

/// A channel.
pub(super) struct QuicChannel {
    pub(super) stream: StreamId,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    inbox: VecDeque<Piece>,
    /// Number of bytes in `inbox`.
    pub(super) waiting: usize,
    /// Number of bytes that the reader was given last and has not consumed.
    pub(super) reading: usize,
    /// Since when further bytes may wait in the connection; `None` if none do.
    pub(super) full: Option<Instant>,
    /// Whether the connection's window is larger by the bytes that wait.
    pub(super) is_relieved: bool,
    /// When bytes began to wait for the reader, or it last took some; `None` if none wait.
    pub(super) stalled: Option<Instant>,
    /// When bytes were last received, taken or sent.
    pub(super) moved: Option<Instant>,
    /// Maximum time since `moved`.
    pub(super) idle_limit: Option<Duration>,
    /// Whether bytes for the reader were discarded.
    pub(super) is_cut: bool,
    /// Bytes that the connection has not taken yet.
    pub(super) unsent: Bytes,
    /// Whether the owner has dropped the channel.
    pub(super) is_dropped: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// The task that waits for the channel to be cut.
    pub(super) watcher: Option<Waker>,
}

/// The direction from the peer.
pub(super) enum Receiving {
    /// The label has not come yet; with the time since when it is waited for.
    Header(HeaderReader, Instant),
    /// The peer has not answered this end's header yet.
    Answer,
    /// The bytes of the connection behind the channel.
    Open,
    /// The peer has sent everything, or nothing more is read.
    Ended,
    /// Bytes are missing: the peer has cut the stream, or the connection has ended.
    Lost,
}

/// The direction to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Bytes may be written.
    Open,
    /// Everything was written; some of it may not be acknowledged.
    Finishing,
    /// The peer has everything, or wants nothing more.
    Ended,
}

/// Bytes for the reader.
enum Piece {
    Whole(Bytes),
    Joined(Vec<u8>),
}

impl QuicChannel {
    pub(super) fn new(stream: StreamId, receiving: Receiving) -> Self {
        Self {
            stream,
            receiving,
            sending: Sending::Open,
            inbox: VecDeque::new(),
            waiting: 0,
            reading: 0,
            full: None,
            is_relieved: false,
            stalled: None,
            moved: None,
            idle_limit: None,
            is_cut: false,
            unsent: Bytes::new(),
            is_dropped: false,
            reader: None,
            writer: None,
            watcher: None,
        }
    }

    /// Adds bytes for the reader.
    pub(super) fn push(&mut self, bytes: Bytes, now: Instant) {
        self.waiting += bytes.len();
        self.stalled.get_or_insert(now);
        self.moved = Some(now);
        if bytes.len() > JOINED {
            self.inbox.push_back(Piece::Whole(bytes));
            return;
        }
        match self.inbox.back_mut() {
            Some(Piece::Joined(last)) if last.len() + bytes.len() <= MAX_JOINED => {
                last.extend_from_slice(&bytes);
            }
            _ => self.inbox.push_back(Piece::Joined(bytes.to_vec())),
        }
    }

    /// Takes the next bytes.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let bytes = match self.inbox.pop_front()? {
            Piece::Whole(bytes) => bytes,
            Piece::Joined(bytes) => bytes.into(),
        };
        self.waiting = self.waiting.saturating_sub(bytes.len());
        Some(bytes)
    }

    /// Puts bytes back that the reader did not consume.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.inbox.push_front(Piece::Whole(bytes));
    }

    /// Returns the number of bytes held for the reader here.
    pub(super) fn held(&self) -> usize {
        self.waiting + self.reading
    }

    /// Discards the bytes held for the reader and returns their number.
    pub(super) fn let_go(&mut self) -> usize {
        let held = self.held();
        self.inbox = VecDeque::new();
        (self.waiting, self.reading, self.stalled) = (0, 0, None);
        held
    }

    /// Whether nothing more comes.
    pub(super) fn is_received(&self) -> bool {
        matches!(self.receiving, Receiving::Ended | Receiving::Lost)
    }

    /// Whether nothing more comes or goes.
    pub(super) fn has_ended(&self) -> bool {
        self.is_received() && self.sending != Sending::Open
    }

    pub(super) fn wake(&mut self) {
        let wakers = [&mut self.reader, &mut self.writer, &mut self.watcher];
        wakers
            .into_iter()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
