//! Checks of speed limits.

use std::time::{Duration, Instant};

/// The limit in bytes a second.
pub const SPEED: u32 = 100_000;

/// Fails if `bytes` have moved since `begun` faster than the limit allows.
pub fn assert_limited(begun: Instant, bytes: usize) {
    let burst = SPEED / 10;
    let least = (u32::try_from(bytes).unwrap() - burst) as f32 / SPEED as f32;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs_f32(least),
        "{bytes} bytes in {took:?}"
    );
}
