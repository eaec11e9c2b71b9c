//! Numbers of datagrams that were lost at this end. Not their log lines.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Datagrams of several flows that were lost at this end, beside those that the kernel drops itself.
#[derive(Debug, Default)]
pub struct DatagramLosses {
    /// Number of datagrams that came when the reader had no room for more.
    queue: AtomicUsize,
    /// Number of datagrams that the system did not send.
    socket: AtomicUsize,
}

impl DatagramLosses {
    /// Counts a datagram that there was no room for.
    pub fn count_queue(&self) {
        self.queue.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts datagrams that were not sent.
    pub fn count_socket(&self, count: usize) {
        if count > 0 {
            self.socket.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Whether none were lost since the last [`take`](Self::take).
    pub fn is_empty(&self) -> bool {
        [&self.queue, &self.socket]
            .iter()
            .all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// Returns the numbers of datagrams without room and of those not sent, and resets both.
    pub fn take(&self) -> (usize, usize) {
        (
            self.queue.swap(0, Ordering::Relaxed),
            self.socket.swap(0, Ordering::Relaxed),
        )
    }
}
