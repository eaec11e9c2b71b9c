//! The state of one channel of a peer.

use super::credit::{Credits, WINDOW};
use crate::client::p2p::resets::StreamResets;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Maximum bytes held for the reader of a channel without credit; others wait in SCTP's buffer.
pub(super) const IN: usize = 192 * 1024;

/// A channel that the peer has opened.
pub struct OpenedChannel {
    /// The channel's number.
    pub id: u16,
    /// The label, which chooses a service.
    pub label: String,
}

#[derive(Default)]
pub(super) struct Channel {
    pub(super) phase: ChannelPhase,
    pub(super) inbox: VecDeque<BytesMut>,
    /// Number of bytes in `inbox`.
    pub(super) waiting: usize,
    /// Number of bytes that the reader was given last and has not consumed.
    pub(super) reading: usize,
    /// When bytes began to wait for the reader, or it last took some; `None` if none wait.
    pub(super) stalled: Option<Instant>,
    /// When bytes were last received, taken or sent.
    pub(super) moved: Option<Instant>,
    /// Maximum time since `moved`.
    pub(super) idle_limit: Option<Duration>,
    /// The task that waits for the channel to be cut.
    pub(super) watcher: Option<Waker>,
    /// Whether the bytes for the reader were discarded.
    pub(super) is_cut: bool,
    /// Whether bytes for the reader will never come: the peer has cut the channel, or is gone.
    pub(super) is_lost: bool,
    /// Number of bytes that were sent and not acknowledged.
    pub(super) outstanding: usize,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Whether this end has opened the channel and waits for the answer.
    pub(super) dialing: bool,
    pub(super) is_queued: bool,
    /// Whether the owner has dropped the channel.
    pub(super) is_dropped: bool,
    pub(super) credits: Option<Credits>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelPhase {
    #[default]
    Open,
    /// The owner has written everything; some sent bytes are not acknowledged yet.
    Draining,
    /// This end has sent its end; the peer has not.
    Closing,
    /// The peer has ended the channel, or is gone.
    Closed,
}

impl Channel {
    /// Whether further data has to wait in SCTP's buffer.
    pub(super) fn is_full(&self) -> bool {
        match self.credits {
            // A peer that keeps to its credit never sends more.
            Some(_) => self.waiting > WINDOW,
            None => self.waiting >= IN,
        }
    }

    /// Whether the channel's data stays in SCTP's buffer until its reader takes some.
    pub(super) fn holds_up(&self) -> bool {
        match self.phase {
            ChannelPhase::Open | ChannelPhase::Draining => self.is_full(),
            ChannelPhase::Closing => false,
            // The data is for the next channel of the same number.
            ChannelPhase::Closed => true,
        }
    }

    /// Ends both directions, unless the channel has ended already.
    pub(super) fn end(&mut self, id: u16, resets: &mut StreamResets) {
        if self.phase != ChannelPhase::Closed {
            self.phase = ChannelPhase::Closing;
            resets.end(id);
        }
        self.wake();
    }

    /// Returns the number of bytes held for the reader.
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

    pub(super) fn wake(&mut self) {
        let wakers = [&mut self.reader, &mut self.writer, &mut self.watcher];
        wakers
            .into_iter()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }
}
