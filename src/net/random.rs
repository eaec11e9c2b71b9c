//! Random numbers for spreading load and delays. Not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns a random number that is good enough to spread load.
pub fn random() -> u32 {
    // The low half is as good as the high one.
    RandomState::new().build_hasher().finish() as u32
}
