//! A table of entries by number that gives memory back after many have gone.

use slab::Slab;

/// Number of places that are kept in any case.
const FEW: usize = 64;

/// A table of entries. Their numbers are used again.
#[derive(Debug)]
pub struct Table<T> {
    entries: Slab<T>,
    /// Whether entries have gone since the last [`Self::tidy`].
    some_gone: bool,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            some_gone: false,
        }
    }
}

impl<T> Table<T> {
    /// Adds an entry and returns its number.
    pub fn insert(&mut self, entry: T) -> usize {
        self.entries.insert(entry)
    }

    /// Returns the entry with this number.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.entries.get(number)
    }

    /// Returns the entry with this number.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.entries.get_mut(number)
    }

    /// Removes the entry with this number.
    pub fn remove(&mut self, number: usize) -> Option<T> {
        self.some_gone = true;
        self.entries.try_remove(number)
    }

    /// Gives memory back if most places are empty. It visits all of them, so call it now and then.
    pub fn tidy(&mut self) {
        let places = self.entries.capacity();
        if std::mem::take(&mut self.some_gone) && places > FEW && self.entries.len() < places / 4 {
            self.entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_memory_back_and_keeps_the_numbers_of_what_stays() {
        let mut table = Table::default();
        let numbers: Vec<usize> = (0..10_000).map(|entry| table.insert(entry)).collect();
        let (kept, gone) = numbers.split_at(10);
        for number in gone {
            assert_eq!(table.remove(*number), Some(*number));
        }
        table.tidy();
        assert!(table.entries.capacity() < 100);
        assert_eq!(table.remove(gone[0]), None);
        for number in kept {
            assert_eq!(table.get(*number), Some(number));
        }
        for entry in 0..1000 {
            let number = table.insert(entry);
            assert_eq!(table.get_mut(number), Some(&mut { entry }));
        }
    }
}
