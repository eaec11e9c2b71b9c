//! A hierarchical timer wheel: entries by their deadline, in constant time to insert and to remove.
//! It knows no clock; times are milliseconds since its start.

use super::table::Table;

/// Number of slots of one level, a power of two: the occupied ones fit the bits of a `u64`.
const SLOTS: usize = 64;
/// Number of bits of a time that one level covers.
const BITS: u32 = 6;
/// Number of levels. A slot of the first one is a millisecond, of the last one 4.7 hours; together
/// they reach 12 days.
const LEVELS: usize = 5;
/// The longest time ahead that fits the levels. Later deadlines are sorted in again on the way.
const REACH: u64 = (1 << (BITS * LEVELS as u32)) - 1;
/// Maximum number of entries of one slot that are read for their earliest deadline. The thread wakes
/// at the beginning of a slot with more, to sort them into finer ones.
const MAX_READ: usize = 16;
/// Interval of [`Wheel::tidy`].
const TIDY_INTERVAL: u64 = 1000;
/// The end of a slot's list.
const NONE: u32 = u32::MAX;

/// The handle of an entry. It does not match an entry that takes the place later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    at: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    generation: u32,
    /// Neighbours in the list of the entry's slot.
    before: u32,
    after: u32,
    level: u8,
    slot: u8,
    value: T,
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel<T> {
    entries: Table<Entry<T>>,
    /// The first entry of each slot.
    heads: [[u32; SLOTS]; LEVELS],
    /// A bit for each slot that has entries.
    occupied: [u64; LEVELS],
    /// The time of the last advance: nothing is due before it.
    now: u64,
    generation: u32,
    /// When memory is given back next.
    tidy_at: u64,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            entries: Table::default(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            now: 0,
            generation: 0,
            tidy_at: 0,
        }
    }
}

impl<T> Wheel<T> {
    /// Inserts a value that is due at `deadline`. A deadline in the past is due at once.
    pub fn insert(&mut self, deadline: u64, value: T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let at = self.entries.insert(Entry {
            deadline,
            generation,
            before: NONE,
            after: NONE,
            level: 0,
            slot: 0,
            value,
        });
        // 2^32 timers do not fit the memory of any machine that gt runs on.
        let at = u32::try_from(at).unwrap_or(NONE);
        self.link(at);
        Key { at, generation }
    }

    /// Returns the value of an entry that is not yet due.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(index(key.at))?;
        (entry.generation == key.generation).then_some(&mut entry.value)
    }

    /// Removes an entry that is not yet due, and returns its value.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.unlink(key.at);
        self.entries.remove(index(key.at)).map(|entry| entry.value)
    }

    /// Returns the time of the next [`advance`](Self::advance) that has something to do; `None` if
    /// there are no entries.
    pub fn next(&self) -> Option<u64> {
        let next = (0..LEVELS).filter_map(|level| self.next_of(level));
        next.min()
    }

    /// Returns when the next entry of a level is due, or its slot begins.
    fn next_of(&self, level: usize) -> Option<u64> {
        let occupied = *self.occupied.get(level)?;
        if occupied == 0 {
            return None;
        }
        let shift = BITS * level as u32;
        let present = self.now >> shift;
        // The slots from the present one on, each at most one turn of the level ahead. On a level
        // above the first, the present slot holds what is due in the next turn.
        let from = if level == 0 { present } else { present + 1 };
        let ahead = occupied
            .rotate_right((from % SLOTS as u64) as u32)
            .trailing_zeros();
        let turn = from + u64::from(ahead);
        let start = (turn << shift).max(self.now);
        // A deadline beyond the reach of the levels waits in the last slot, to be sorted in again.
        let mut earliest = start + (1 << shift);
        let mut at = self.head(level, (turn % SLOTS as u64) as usize);
        for _ in 0..MAX_READ {
            let Some(entry) = self.entries.get(index(at)) else {
                return Some(earliest.max(start));
            };
            earliest = earliest.min(entry.deadline);
            at = entry.after;
        }
        Some(start)
    }

    /// Gives memory back, at most once a second. Returns whether it has.
    pub fn tidy(&mut self) -> bool {
        let is_due = self.now >= self.tidy_at;
        if is_due {
            self.tidy_at = self.now.saturating_add(TIDY_INTERVAL);
            self.entries.tidy();
        }
        is_due
    }

    /// Takes the entries out that are due at `now`, in the order of the milliseconds, and passes
    /// their values to `due`.
    pub fn advance(&mut self, now: u64, mut due: impl FnMut(T)) {
        while let Some(next) = self.next_slot().filter(|next| *next <= now) {
            self.now = next;
            // From the coarsest level down: an entry may be due in this very millisecond.
            for level in (0..LEVELS).rev() {
                let shift = BITS * level as u32;
                if next & ((1 << shift) - 1) == 0 {
                    let slot = ((next >> shift) % SLOTS as u64) as usize;
                    self.empty(level, slot, &mut due);
                }
            }
        }
        self.now = self.now.max(now);
    }

    /// Returns the earliest time at which a slot with entries begins.
    fn next_slot(&self) -> Option<u64> {
        let starts = (0..LEVELS).filter_map(|level| {
            let occupied = *self.occupied.get(level)?;
            let shift = BITS * level as u32;
            // The first slot that begins now or later.
            let from = (self.now + (1 << shift) - 1) >> shift;
            let ahead = occupied
                .rotate_right((from % SLOTS as u64) as u32)
                .trailing_zeros();
            (occupied != 0).then(|| (from + u64::from(ahead)) << shift)
        });
        starts.min()
    }

    /// Empties a slot: takes out what is due and sorts the rest into finer slots.
    fn empty(&mut self, level: usize, slot: usize, due: &mut impl FnMut(T)) {
        let mut at = self.head(level, slot);
        self.set_head(level, slot, NONE);
        while let Some(entry) = self.entries.get(index(at)) {
            let after = entry.after;
            if entry.deadline <= self.now {
                if let Some(entry) = self.entries.remove(index(at)) {
                    due(entry.value);
                }
            } else {
                self.link(at);
            }
            at = after;
        }
    }

    /// Puts an entry into the slot of its deadline.
    fn link(&mut self, at: u32) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(index(at)) else {
            return;
        };
        let place = entry.deadline.clamp(now, now.saturating_add(REACH));
        // The level whose bits are the highest that differ from the present.
        let differing = place ^ now;
        let level = ((63 - (differing | 1).leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let slot = (place >> (BITS * level)) % SLOTS as u64;
        (entry.level, entry.slot) = (level as u8, slot as u8);
        let (level, slot) = (level as usize, slot as usize);
        let head = self.head(level, slot);
        if let Some(entry) = self.entries.get_mut(index(at)) {
            (entry.before, entry.after) = (NONE, head);
        }
        if let Some(next) = self.entries.get_mut(index(head)) {
            next.before = at;
        }
        self.set_head(level, slot, at);
    }

    fn unlink(&mut self, at: u32) {
        let Some(entry) = self.entries.get(index(at)) else {
            return;
        };
        let (before, after) = (entry.before, entry.after);
        let (level, slot) = (usize::from(entry.level), usize::from(entry.slot));
        if let Some(next) = self.entries.get_mut(index(after)) {
            next.before = before;
        }
        match self.entries.get_mut(index(before)) {
            Some(previous) => previous.after = after,
            None => self.set_head(level, slot, after),
        }
    }

    fn head(&self, level: usize, slot: usize) -> u32 {
        let slots = self.heads.get(level);
        *slots.and_then(|slots| slots.get(slot)).unwrap_or(&NONE)
    }

    fn set_head(&mut self, level: usize, slot: usize, at: u32) {
        let slots = self.heads.get_mut(level);
        if let (Some(head), Some(occupied)) = (
            slots.and_then(|slots| slots.get_mut(slot)),
            self.occupied.get_mut(level),
        ) {
            *head = at;
            match at {
                NONE => *occupied &= !(1 << slot),
                _ => *occupied |= 1 << slot,
            }
        }
    }
}

/// [`NONE`] becomes an index that no entry has.
fn index(at: u32) -> usize {
    match at {
        NONE => usize::MAX,
        at => at as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Returns the values that are due up to `now`.
    fn due(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
        let mut values = Vec::new();
        wheel.advance(now, |value| values.push(value));
        values
    }

    #[test]
    fn an_entry_is_due_at_its_millisecond_and_not_before() {
        for deadline in [0, 1, 63, 64, 65, 4095, 4096, 262_143, 262_144, 1 << 31] {
            let mut wheel = Wheel::default();
            wheel.insert(deadline, 1);
            if deadline > 0 {
                assert!(due(&mut wheel, deadline - 1).is_empty(), "{deadline}");
            }
            assert_eq!(due(&mut wheel, deadline), [1], "{deadline}");
            assert_eq!(wheel.next(), None);
        }
    }

    #[test]
    fn a_lone_entry_wakes_the_thread_once() {
        for deadline in [1, 70, 5000, 22_500, 3_600_000] {
            let mut wheel = Wheel::default();
            wheel.insert(deadline, 1);
            assert_eq!(wheel.next(), Some(deadline));
        }
    }

    #[test]
    fn a_removed_entry_is_not_due_and_its_key_does_not_match_the_next_one() {
        let mut wheel = Wheel::default();
        let first = wheel.insert(10, 1);
        assert_eq!(wheel.remove(first), Some(1));
        let second = wheel.insert(20, 2);
        assert_eq!((wheel.remove(first), wheel.get_mut(first)), (None, None));
        assert_eq!(wheel.get_mut(second), Some(&mut 2));
        assert_eq!(due(&mut wheel, 100), [2]);
        assert_eq!(wheel.remove(second), None);
    }

    proptest! {
        #[test]
        fn a_wheel_is_a_sorted_map(
            steps in proptest::collection::vec((0..3u8, 0..1u64 << 33, 0..40u32), 1..200),
        ) {
            let mut wheel = Wheel::default();
            // Deadline and number, and the key.
            let mut model = BTreeMap::new();
            let (mut now, mut number) = (0, 0);
            for (step, time, bits) in steps {
                let span = time >> bits.min(32);
                match step {
                    0 => {
                        number += 1;
                        let deadline = now + span;
                        model.insert((deadline, number), wheel.insert(deadline, number));
                    }
                    1 => {
                        let at = (span % (model.len() as u64 + 1)) as usize;
                        if let Some((&place, &key)) = model.iter().nth(at) {
                            model.remove(&place);
                            prop_assert_eq!(wheel.remove(key), Some(place.1));
                        }
                    }
                    _ => {
                        now += span;
                        let later = model.split_off(&(now + 1, 0));
                        let mut expected: Vec<u32> = model.keys().map(|place| place.1).collect();
                        let mut values = due(&mut wheel, now);
                        values.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(values, expected);
                        model = later;
                    }
                }
                let first = model.keys().next().map(|place| place.0);
                match (wheel.next(), first) {
                    (None, None) => {}
                    (Some(next), Some(first)) => prop_assert!(now <= next && next <= first),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
