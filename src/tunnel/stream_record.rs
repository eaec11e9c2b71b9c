//! What has become of a stream, for a log of visitors. Streams without one cost nothing.

use super::stream_state::CloseReason;
use crate::sync::Mutex;
use crate::wire::frame::ResetCode;

/// The record of a stream, which outlives it.
#[derive(Debug, Default)]
pub struct StreamRecord(Mutex<StreamTotals>);

/// What a record says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamTotals {
    /// Bytes sent to the peer.
    pub sent: u64,
    /// Bytes that came from the peer.
    pub received: u64,
    /// Why no more bytes came; `None` while they may.
    pub ended: Option<CloseReason>,
    /// The reset code that the peer gets, if any.
    pub failure: Option<ResetCode>,
}

impl StreamRecord {
    /// Returns what the record says so far.
    pub fn totals(&self) -> StreamTotals {
        *self.0.lock()
    }

    pub(super) fn sent(&self, n: usize) {
        let mut totals = self.0.lock();
        // A `usize` has at most 64 bits on every supported target.
        totals.sent = totals.sent.saturating_add(n as u64);
    }

    pub(super) fn received(&self, n: usize) {
        let mut totals = self.0.lock();
        totals.received = totals.received.saturating_add(n as u64);
    }

    pub(super) fn end(&self, ended: Option<CloseReason>, failure: Option<ResetCode>) {
        let mut totals = self.0.lock();
        (totals.ended, totals.failure) = (ended, failure);
    }
}
