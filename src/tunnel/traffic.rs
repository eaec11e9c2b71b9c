//! What a tunnel has carried: the payload of its streams, without frame headers.

use std::ops::AddAssign;

/// Counters of one tunnel, or their sums over several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Streams opened by either end.
    pub streams: u64,
    /// Bytes sent to the peer.
    pub sent: u64,
    /// Bytes received from the peer.
    pub received: u64,
}

impl Traffic {
    pub(super) fn count_stream(&mut self) {
        self.streams = self.streams.saturating_add(1);
    }

    // A `usize` has at most 64 bits on every supported target.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Returns the bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.sent.saturating_add(self.received)
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.streams = self.streams.saturating_add(more.streams);
        self.sent = self.sent.saturating_add(more.sent);
        self.received = self.received.saturating_add(more.received);
    }
}
