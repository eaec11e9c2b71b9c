//! Bytes that follow from a number, so that a receiver can tell each one from any other.

/// Returns the byte at a place of the sequence of a key.
pub fn byte(key: u64, at: usize) -> u8 {
    let mut mixed = key ^ (at as u64 / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^= mixed >> 27;
    mixed.to_le_bytes()[at % 8]
}

/// Returns a part of the sequence of a key.
pub fn bytes(key: u64, from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| byte(key, at)).collect()
}

/// Returns the first place at which bytes differ from a part of the sequence.
pub fn difference(key: u64, from: usize, bytes: &[u8]) -> Option<usize> {
    let places = bytes.iter().zip(from..);
    let mut wrong = places.filter(|(got, at)| **got != byte(key, *at));
    wrong.next().map(|(_, at)| at)
}
