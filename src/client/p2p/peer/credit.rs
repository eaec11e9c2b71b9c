//! How much may be sent to a peer before it says more: on one channel between two ends of gt, and
//! on all of its channels together.

/// The protocol of a channel between two ends of gt. Each end says how much it has taken, so that
/// a channel whose reader stops does not fill SCTP's buffer.
pub(super) const CREDITED: &str = "gt-credit";
/// Bytes of a channel with credit that may be on their way or wait.
pub(super) const WINDOW: usize = 256 * 1024;
/// Bytes that are taken before the peer is told.
const CREDIT: usize = 64 * 1024;
/// Bytes that may be sent before the first credit, by an end that knows that it comes.
const UNKNOWN: usize = 64 * 1024;
/// Bytes that may be on their way to a peer of which nothing is known; it may have small buffers.
pub(super) const FIRST_WINDOW: usize = 64 * 1024;
/// Bytes that may be on their way to a peer that has shown that it keeps up.
pub(super) const MOST_WINDOW: usize = 1024 * 1024;

/// The credit of a channel between two ends of gt.
#[derive(Default)]
pub(super) struct Credits {
    /// Bytes that may be sent; `None` until the other end has shown that it knows of credit.
    left: Option<usize>,
    /// Bytes that were taken and of which the peer was not told yet, less those given back.
    owed: i64,
}

impl Credits {
    /// The credit of a channel that the peer has opened with it.
    pub(super) fn of_opened() -> Self {
        Self {
            left: Some(UNKNOWN),
            owed: 0,
        }
    }

    /// Bytes that may be sent now.
    pub(super) fn left(&self) -> usize {
        self.left.unwrap_or(usize::MAX)
    }

    /// Uses up credit for a message of `n` bytes.
    pub(super) fn sent(&mut self, n: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(n);
        }
    }

    /// Takes the peer's message of how much more it has room for. True if it is the first one.
    pub(super) fn receive(&mut self, text: &[u8]) -> bool {
        let more = std::str::from_utf8(text).ok();
        let more = more.and_then(|text| text.parse::<u32>().ok());
        let more = usize::try_from(more.unwrap_or(0)).unwrap_or(0);
        let is_first = self.left.is_none();
        let left = self.left.unwrap_or(0);
        self.left = Some(left.saturating_add(more).min(1 << 24));
        is_first
    }

    /// The reader has taken a message of `bytes`. Returns what the peer is to be told, if it is
    /// enough for that.
    pub(super) fn taken(&mut self, bytes: usize) -> Option<usize> {
        self.owed += bytes as i64;
        let owed = usize::try_from(self.owed).ok()?;
        if owed < CREDIT {
            return None;
        }
        self.owed = 0;
        Some(owed)
    }

    /// The reader has given back `bytes` of what it had taken.
    pub(super) fn given_back(&mut self, bytes: usize) {
        self.owed -= bytes as i64;
    }
}

/// What all channels of a peer may have sent and not acknowledged. It grows with what the peer
/// acknowledges, and starts again when a timeout shows a loss.
pub(super) struct SendWindow {
    pub(super) limit: usize,
    /// Bytes of all channels that are not acknowledged.
    pub(super) outstanding: usize,
    /// Bytes that were acknowledged since the limit changed.
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

    /// Bytes that may be sent now.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.outstanding)
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.outstanding += bytes;
    }

    /// Bytes that are acknowledged no more: their channel is gone.
    pub(super) fn lost(&mut self, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
    }

    pub(super) fn acknowledged(&mut self, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
        self.acknowledged = self.acknowledged.saturating_add(bytes);
    }

    /// Sets the limit by what was acknowledged, and by the association's timeouts so far.
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
