//! Streams that wait for room in the outbox, and whose turn it is.

use std::collections::VecDeque;

/// Streams that send little go first, but so many turns in a row at most: others must not
/// starve behind a crowd of them.
const IN_A_ROW: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// First come, first served: who sends much has a frame's turn, then all others have theirs.
    much: VecDeque<u32>,
    little: VecDeque<u32>,
    in_a_row: u32,
}

/// Where a stream stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has not asked.
    #[default]
    None,
    Waits,
    /// It may send its frame now, before those that wait.
    Comes,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.much.is_empty() && self.little.is_empty()
    }

    pub fn push(&mut self, task: u32, much: bool) {
        if much {
            self.much.push_back(task);
        } else {
            self.little.push_back(task);
        }
    }

    pub fn pop(&mut self) -> Option<u32> {
        if self.in_a_row < IN_A_ROW || self.much.is_empty() {
            if let Some(task) = self.little.pop_front() {
                self.in_a_row = self.in_a_row.saturating_add(1);
                return Some(task);
            }
        }
        self.in_a_row = 0;
        self.much.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_little_goes_first_and_starves_nobody() {
        let mut queue = Queue::default();
        for task in 1..=3 {
            queue.push(task, true);
        }
        for task in 10..20 {
            queue.push(task, false);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [10, 11, 12, 13, 1, 14, 15, 16, 17, 2, 18, 19, 3]);
        assert!(queue.is_empty());
    }
}
