//! The backlog of one stream: received bytes that its reader has not taken yet.

/// A queue of bytes that holds memory only while it holds bytes.
#[derive(Debug, Default)]
pub(super) struct RecvBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl RecvBuffer {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub fn push(&mut self, more: &[u8]) {
        // Consumed bytes are dropped before the buffer grows.
        if self.start > 0 && self.bytes.len() + more.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    pub fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.bytes.len());
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_in_the_order_they_went_in(
            steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), 0usize..400), 1..60),
        ) {
            let mut backlog = RecvBuffer::default();
            let mut reference = std::collections::VecDeque::new();
            for (more, take) in steps {
                backlog.push(&more);
                reference.extend(more);
                let take = take.min(reference.len());
                let taken: Vec<u8> = reference.drain(..take).collect();
                prop_assert_eq!(&backlog.as_slice()[..take], &taken[..]);
                backlog.consume(take);
                prop_assert_eq!(backlog.len(), reference.len());
                if backlog.is_empty() {
                    prop_assert_eq!(backlog.bytes.capacity(), 0);
                }
            }
        }
    }
}
