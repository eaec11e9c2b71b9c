//! Streams that wait for room in the outbox, and whose turn it is.

use std::collections::VecDeque;

/// Streams that send little go first, but so many turns in a row at most: others must not
/// starve behind a crowd of them.
const MAX_INTERACTIVE_IN_A_ROW: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// First come, first served: who sends much has a frame's turn, then all others have theirs.
    much: VecDeque<Ticket>,
    little: VecDeque<Ticket>,
    /// The number of the last that came.
    last: u32,
    in_a_row: u32,
    /// Streams whose turn it is.
    coming: usize,
}

/// A stream that waits, and its number among all that have. Numbers wrap.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    number: u32,
    task: u32,
}

/// Where a stream stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    /// It has not asked.
    #[default]
    None,
    Waits,
    /// It may send its frame now, before those that wait; its number is this.
    Comes(u32),
}

impl Scheduler {
    /// Whether somebody waits, or is about to send.
    pub fn is_empty(&self) -> bool {
        self.much.is_empty() && self.little.is_empty() && self.coming == 0
    }

    /// Streams whose turn it is.
    pub fn coming(&self) -> usize {
        self.coming
    }

    /// It is the turn of one that was popped.
    pub fn begin(&mut self) {
        self.coming += 1;
    }

    /// One has used its turn, or will not.
    pub fn end(&mut self) {
        self.coming = self.coming.saturating_sub(1);
    }

    pub fn push(&mut self, task: u32, much: bool) {
        self.last = self.last.wrapping_add(1);
        self.insert(task, much, self.last);
    }

    /// Gives a stream whose turn it was its place back.
    pub fn insert(&mut self, task: u32, much: bool, number: u32) {
        let line = if much {
            &mut self.much
        } else {
            &mut self.little
        };
        // It belongs to one end or very near it.
        let earlier = |other: &Ticket| other.number.wrapping_sub(number) > u32::MAX / 2;
        let at = match line.back() {
            Some(last) if !earlier(last) => line.iter().take_while(|other| earlier(other)).count(),
            _ => line.len(),
        };
        line.insert(at, Ticket { number, task });
    }

    /// Whose turn it is now.
    pub fn pop(&mut self) -> Option<(u32, Granted)> {
        let first = self.in_a_row < MAX_INTERACTIVE_IN_A_ROW || self.much.is_empty();
        let place = match first.then(|| self.little.pop_front()).flatten() {
            Some(place) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                place
            }
            None => {
                self.in_a_row = 0;
                self.much.pop_front()?
            }
        };
        Some((place.task, Granted::Comes(place.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_little_goes_first_and_starves_nobody() {
        let mut queue = Scheduler::default();
        for task in 1..=3 {
            queue.push(task, true);
        }
        for task in 10..20 {
            queue.push(task, false);
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(queue.pop()?.0)).collect();
        assert_eq!(order, [10, 11, 12, 13, 1, 14, 15, 16, 17, 2, 18, 19, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn places_that_are_given_back_are_the_same() {
        let mut queue = Scheduler {
            last: u32::MAX - 2,
            ..Scheduler::default()
        };
        for task in 1..=5 {
            queue.push(task, true);
        }
        let turns = [(); 4].map(|()| queue.pop().unwrap());
        for (task, turn) in [turns[2], turns[0], turns[3], turns[1]] {
            let Granted::Comes(number) = turn else {
                panic!("{turn:?}");
            };
            queue.insert(task, true, number);
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(queue.pop()?.0)).collect();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }
}
