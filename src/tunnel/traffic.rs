//! How much a tunnel has carried: the payload of its streams, not the frames around it.

use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Streams that were opened, by either end.
    pub streams: u64,
    /// Bytes to the peer.
    pub sent: u64,
    /// Bytes from the peer.
    pub received: u64,
}

impl Traffic {
    pub(super) fn count_stream(&mut self) {
        self.streams = self.streams.saturating_add(1);
    }

    // No machine here has a `usize` longer than 64 bits.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Bytes in both directions.
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
