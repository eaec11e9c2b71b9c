//! Limits of the bytes sent to a peer: on one channel between two ends of gt, and on all of its
//! channels together.

/// The protocol name of a channel with credit, between two ends of gt (docs/p2p.md, "Channels"). A
/// channel whose reader stops then does not fill SCTP's buffer.
pub(super) const CREDITED: &str = "gt-credit";
/// The message of a channel with credit that is about to end, although bytes are missing.
pub(super) const CUT: &[u8] = b"cut";
/// Maximum bytes of a channel with credit that are in flight or wait for the reader.
pub(super) const WINDOW: usize = 256 * 1024;
/// Number of bytes that are taken before credit is sent.
const CREDIT: usize = 64 * 1024;
/// Number of bytes that the dialled end may send before the first credit.
const UNKNOWN: usize = 64 * 1024;
/// Initial limit of bytes in flight to a peer, which may have small buffers.
pub(super) const FIRST_WINDOW: usize = 64 * 1024;
/// Maximum limit of bytes in flight to a peer that keeps up.
pub(super) const MOST_WINDOW: usize = 1024 * 1024;

/// The credit of a channel between two ends of gt.
#[derive(Default)]
pub(super) struct Credits {
    /// Bytes that may be sent; `None` until the other end has shown that it uses credit.
    left: Option<usize>,
    /// Bytes taken and not reported to the peer yet, less those returned.
    owed: i64,
}

impl Credits {
    /// Creates the credit of a channel that the peer has opened with this protocol.
    pub(super) fn of_opened() -> Self {
        Self {
            left: Some(UNKNOWN),
            owed: 0,
        }
    }

    /// Returns the bytes that may be sent now.
    pub(super) fn left(&self) -> usize {
        self.left.unwrap_or(usize::MAX)
    }

    /// Takes credit for a message of `n` bytes.
    pub(super) fn sent(&mut self, n: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(n);
        }
    }

    /// Adds credit from the peer. True if it is the first.
    pub(super) fn receive(&mut self, text: &[u8]) -> bool {
        let more = std::str::from_utf8(text).ok();
        let more = more.and_then(|text| text.parse::<u32>().ok());
        let more = usize::try_from(more.unwrap_or(0)).unwrap_or(0);
        let is_first = self.left.is_none();
        let left = self.left.unwrap_or(0);
        self.left = Some(left.saturating_add(more).min(1 << 24));
        is_first
    }

    /// Notes that the reader has taken `bytes` bytes. Returns the credit to send, if it is worth a
    /// message.
    pub(super) fn taken(&mut self, bytes: usize) -> Option<usize> {
        self.owed += bytes as i64;
        let owed = usize::try_from(self.owed).ok()?;
        if owed < CREDIT {
            return None;
        }
        self.owed = 0;
        Some(owed)
    }

    /// Notes that the reader has returned `bytes` of the bytes that it had taken.
    pub(super) fn given_back(&mut self, bytes: usize) {
        self.owed -= bytes as i64;
    }
}

/// The limit of unacknowledged bytes of all channels of a peer. It grows as the peer acknowledges
/// bytes, and starts over when a timeout shows a loss.
pub(super) struct SendWindow {
    pub(super) limit: usize,
    /// Unacknowledged bytes of all channels.
    pub(super) outstanding: usize,
    /// Bytes acknowledged since the limit changed.
    acknowledged: usize,
    pub(super) losses: u64,
}

impl SendWindow {
    pub(super) fn new() -> Self {
        Self {
            limit: FIRST_WINDOW,
            outstanding: 0,
            acknowledged: 0,
            losses: 0,
        }
    }

    /// Returns the bytes that may be sent now.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.outstanding)
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.outstanding += bytes;
    }

    /// Removes unacknowledged bytes whose channel is gone.
    pub(super) fn lost(&mut self, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
    }

    pub(super) fn acknowledged(&mut self, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
        self.acknowledged = self.acknowledged.saturating_add(bytes);
    }

    /// Adjusts the limit by what was acknowledged, and by the association's timeouts so far.
    pub(super) fn adapt(&mut self, losses: u64) {
        if losses != self.losses {
            self.losses = losses;
            (self.limit, self.acknowledged) = (FIRST_WINDOW, 0);
        } else if self.acknowledged >= self.limit {
            self.acknowledged = 0;
            self.limit = (self.limit * 2).min(MOST_WINDOW);
        }
    }
}
