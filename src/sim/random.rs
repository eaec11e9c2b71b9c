//! The random numbers of a world.

use super::world;

/// A sequence of numbers that follows from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// Creates the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        let count = most.saturating_sub(least).saturating_add(1);
        least + self.number() % count
    }
}

/// Returns a number from `least` to `most` that follows from the world's seed.
pub fn between(least: u64, most: u64) -> u64 {
    world::with(|world| world.random.between(least, most))
}

/// Returns true in one of `count` cases.
pub fn chance(count: u64) -> bool {
    between(1, count) == 1
}

/// Returns one of the items.
pub fn pick<T>(items: &[T]) -> Option<&T> {
    let last = items.len().checked_sub(1)?;
    items.get(usize::try_from(between(0, last as u64)).ok()?)
}
