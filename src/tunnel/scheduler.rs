//! Grants turns to the streams that wait for room in the outbox.

use crate::wire::frame::StreamId;
use std::collections::VecDeque;

/// Interactive streams go first, but at most this many in a row while bulk streams wait, which must
/// not starve.
const MAX_INTERACTIVE_IN_A_ROW: u32 = 4;

/// The streams of a tunnel that wait for their turns. In a box, since most tunnels have none most of
/// the time.
#[derive(Debug, Default)]
pub(super) struct Scheduler(Option<Box<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    /// Waiting bulk streams, in order. Each gets one frame, then all others get theirs.
    bulk: VecDeque<Ticket>,
    interactive: VecDeque<Ticket>,
    /// The number of the last ticket.
    last: u32,
    in_a_row: u32,
    /// Streams whose turn has been granted and not used.
    granted: usize,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.bulk.is_empty() && self.interactive.is_empty() && self.granted == 0
    }

    fn insert(&mut self, stream_id: StreamId, bulk: bool, number: u32) {
        let line = if bulk {
            &mut self.bulk
        } else {
            &mut self.interactive
        };
        // It belongs at one end of the line or very near it.
        let earlier = |other: &Ticket| other.number.wrapping_sub(number) > u32::MAX / 2;
        let at = match line.back() {
            Some(last) if !earlier(last) => line.iter().take_while(|other| earlier(other)).count(),
            _ => line.len(),
        };
        line.insert(at, Ticket { number, stream_id });
    }

    fn pop(&mut self) -> Option<(StreamId, Turn)> {
        let first = self.in_a_row < MAX_INTERACTIVE_IN_A_ROW || self.bulk.is_empty();
        let place = match first.then(|| self.interactive.pop_front()).flatten() {
            Some(place) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                place
            }
            None => {
                self.in_a_row = 0;
                self.bulk.pop_front()?
            }
        };
        Some((place.stream_id, Turn::Granted(place.number)))
    }
}

/// A waiting stream and its number in the order of arrival. Numbers wrap.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    number: u32,
    stream_id: StreamId,
}

/// The state of a stream in the scheduler.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The stream has not asked for a turn.
    #[default]
    None,
    Waiting,
    /// The stream may send one frame before those that wait; this is its ticket number.
    Granted(u32),
}

impl Scheduler {
    /// Whether no stream waits or is about to send.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|lines| lines.is_empty())
    }

    /// Gives all memory back if no stream waits or is about to send.
    pub fn tidy(&mut self) {
        self.0.take_if(|lines| lines.is_empty());
    }

    /// Returns the number of streams whose turn has been granted.
    pub fn granted(&self) -> usize {
        self.0.as_ref().map_or(0, |lines| lines.granted)
    }

    /// Notes that a stream taken by [`Scheduler::pop`] has its turn.
    pub fn begin(&mut self) {
        self.0.get_or_insert_default().granted += 1;
    }

    /// Notes that a turn has been used or given up.
    pub fn end(&mut self) {
        if let Some(lines) = &mut self.0 {
            lines.granted = lines.granted.saturating_sub(1);
        }
    }

    pub fn push(&mut self, stream_id: StreamId, bulk: bool) {
        let lines = self.0.get_or_insert_default();
        lines.last = lines.last.wrapping_add(1);
        lines.insert(stream_id, bulk, lines.last);
    }

    /// Returns a stream to its place after a turn that it could not use.
    pub fn insert(&mut self, stream_id: StreamId, bulk: bool, number: u32) {
        let lines = self.0.get_or_insert_default();
        lines.insert(stream_id, bulk, number);
    }

    /// Takes the stream whose turn is next.
    pub fn pop(&mut self) -> Option<(StreamId, Turn)> {
        self.0.as_mut()?.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interactive_streams_go_first_and_do_not_starve_bulk_streams() {
        let mut queue = Scheduler::default();
        for stream_id in 1..=3 {
            queue.push(StreamId(stream_id), true);
        }
        for stream_id in 10..20 {
            queue.push(StreamId(stream_id), false);
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(queue.pop()?.0 .0)).collect();
        assert_eq!(order, [10, 11, 12, 13, 1, 14, 15, 16, 17, 2, 18, 19, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_stream_that_returns_its_turn_keeps_its_place() {
        let mut queue = Scheduler::default();
        queue.0.get_or_insert_default().last = u32::MAX - 2;
        for stream_id in 1..=5 {
            queue.push(StreamId(stream_id), true);
        }
        let turns = [(); 4].map(|()| queue.pop().unwrap());
        for (stream_id, turn) in [turns[2], turns[0], turns[3], turns[1]] {
            let Turn::Granted(number) = turn else {
                panic!("{turn:?}");
            };
            queue.insert(stream_id, true, number);
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(queue.pop()?.0 .0)).collect();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }
}
