//! A channel of a peer: what it holds, and how far it is.

use super::credit::{Credits, WINDOW};
use crate::client::p2p::resets::StreamResets;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Bytes of a channel without credit that are held for its reader; more wait in SCTP's own buffer.
pub(super) const IN: usize = 192 * 1024;

/// A channel that the peer has opened.
pub struct OpenedChannel {
    pub id: u16,
    pub label: String,
}

#[derive(Default)]
pub(super) struct Channel {
    pub(super) phase: ChannelPhase,
    pub(super) inbox: VecDeque<BytesMut>,
    /// Bytes in it.
    pub(super) waiting: usize,
    /// Bytes that the reader was given last, and holds.
    pub(super) reading: usize,
    /// Since when the reader has taken nothing although something waits.
    pub(super) stalled: Option<Instant>,
    /// When bytes came, were taken or were sent last.
    pub(super) moved: Option<Instant>,
    /// How long ago that may be.
    pub(super) idle_limit: Option<Duration>,
    /// Waits for the channel to be cut.
    pub(super) watcher: Option<Waker>,
    /// What was held for the reader is lost: too much was held in all channels.
    pub(super) is_cut: bool,
    /// Not acknowledged.
    pub(super) outstanding: usize,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Who has opened it waits for the answer.
    pub(super) dialing: bool,
    pub(super) is_queued: bool,
    /// Nobody reads and writes it any more.
    pub(super) is_dropped: bool,
    pub(super) credits: Option<Credits>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelPhase {
    #[default]
    Open,
    /// We have said all; what is on its way is waited for.
    Draining,
    /// We have said that it ends; the peer has not yet.
    Closing,
    /// The peer has ended it, or is gone.
    Closed,
}

impl Channel {
    /// Whether what else comes has to wait in SCTP's buffer.
    pub(super) fn is_full(&self) -> bool {
        match self.credits {
            // Who keeps to it never sends more.
            Some(_) => self.waiting > WINDOW,
            None => self.waiting >= IN,
        }
    }

    /// Whether what has come for it stays in SCTP's buffer until its reader goes on.
    pub(super) fn holds_up(&self) -> bool {
        match self.phase {
            ChannelPhase::Open | ChannelPhase::Draining => self.is_full(),
            ChannelPhase::Closing => false,
            // It is for the next channel of the same number.
            ChannelPhase::Closed => true,
        }
    }

    /// Nothing more is sent or read, unless it has ended already.
    pub(super) fn end(&mut self, id: u16, resets: &mut StreamResets) {
        if self.phase != ChannelPhase::Closed {
            self.phase = ChannelPhase::Closing;
            resets.end(id);
        }
        self.wake();
    }

    /// Bytes that are held for the reader.
    pub(super) fn held(&self) -> usize {
        self.waiting + self.reading
    }

    /// Drops what is held; returns how much that was.
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
