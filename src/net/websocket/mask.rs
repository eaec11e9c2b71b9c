//! Masks of WebSocket frames (RFC 6455, section 5.3), which clients put on what they send.

use crate::net::tls;
use std::io;

/// Number of masks that are drawn at once, so that few frames ask the system for random numbers.
const DRAWN: usize = 32;

/// The mask of one frame, rotated so that it begins with the mask of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask([u8; 4]);

/// Bytes that are masked at a time. A multiple of a key's length.
const WORD: usize = 16;

fn xor(bytes: [u8; WORD], word: u128) -> [u8; WORD] {
    (u128::from_ne_bytes(bytes) ^ word).to_ne_bytes()
}

/// Returns the [`WORD`] bytes at the offset `done` of the `length` bytes from `at` on; `None` if fewer are left.
fn piece(bytes: &[u8], at: usize, done: usize, length: usize) -> Option<&[u8; WORD]> {
    if length.saturating_sub(done) < WORD {
        return None;
    }
    bytes.get(at.saturating_add(done)..)?.first_chunk()
}

impl Mask {
    /// Creates the mask of the first byte.
    pub fn new(key: [u8; 4]) -> Self {
        Self(key)
    }

    /// Masks or unmasks the next bytes, which are `length` bytes from `at` on, and moves them to `to`, which
    /// is not behind `at`. One pass does both, since each alone would cost as much.
    pub fn apply_moving(&mut self, bytes: &mut [u8], at: usize, length: usize, to: usize) {
        let word = self.word();
        let mut done = 0;
        while let Some(piece) = piece(bytes, at, done, length) {
            let masked = xor(*piece, word);
            if let Some(target) = bytes.get_mut(to.saturating_add(done)..) {
                if let Some(target) = target.first_chunk_mut() {
                    *target = masked;
                }
            }
            done = done.saturating_add(WORD);
        }
        let mut key = self.0.iter().cycle();
        for offset in done..length {
            let byte = bytes
                .get(at.saturating_add(offset))
                .copied()
                .unwrap_or_default();
            let key = key.next().copied().unwrap_or_default();
            if let Some(target) = bytes.get_mut(to.saturating_add(offset)) {
                *target = byte ^ key;
            }
        }
        self.skip(length);
    }

    /// Masks the next bytes into `to`, which is as long as they are.
    pub fn apply_into(&mut self, bytes: &[u8], to: &mut [u8]) {
        let word = self.word();
        let (words, rest) = bytes.as_chunks::<WORD>();
        let (target_words, target_rest) = to.as_chunks_mut::<WORD>();
        for (to, bytes) in target_words.iter_mut().zip(words) {
            *to = xor(*bytes, word);
        }
        let key = self.0.iter().cycle();
        for ((to, byte), key) in target_rest.iter_mut().zip(rest).zip(key) {
            *to = byte ^ key;
        }
        self.skip(bytes.len());
    }

    fn word(&self) -> u128 {
        let [a, b, c, d] = self.0;
        u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d])
    }

    /// Passes over the next bytes.
    pub fn skip(&mut self, bytes: usize) {
        self.0.rotate_left(bytes % 4);
    }
}

/// Unpredictable masks for frames.
#[derive(Debug)]
pub struct Masks {
    drawn: [[u8; 4]; DRAWN],
    /// Number of masks in `drawn` that are not used yet.
    left: usize,
}

impl Default for Masks {
    fn default() -> Self {
        Self {
            drawn: [[0; 4]; DRAWN],
            left: 0,
        }
    }
}

impl Masks {
    /// Returns the next mask. Fails if the system has no random numbers.
    pub fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.left == 0 {
            tls::fill_random(self.drawn.as_flattened_mut())?;
            self.left = DRAWN;
        }
        self.left = self.left.saturating_sub(1);
        Ok(self.drawn.get(self.left).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_does_not_depend_on_how_the_bytes_are_cut() {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        let plain: Vec<u8> = (0..60).collect();
        let each = plain.iter().zip(key.iter().cycle());
        let masked: Vec<u8> = each.map(|(byte, key)| byte ^ key).collect();
        for first in 0..plain.len() {
            for second in first..plain.len() {
                let (mut bytes, mut mask) = (vec![0; plain.len()], Mask::new(key));
                mask.apply_into(&plain[..first], &mut bytes[..first]);
                mask.apply_into(&plain[first..second], &mut bytes[first..second]);
                mask.apply_into(&plain[second..], &mut bytes[second..]);
                assert_eq!(bytes, masked, "cut at {first} and {second}");
            }
        }
        for gap in 0..20 {
            for length in 0..=plain.len() {
                let mut bytes = [&vec![0xAA; gap], &masked[..]].concat();
                Mask::new(key).apply_moving(&mut bytes, gap, length, 0);
                assert_eq!(bytes[..length], plain[..length], "moved by {gap}");
            }
        }
    }

    #[test]
    fn masks_do_not_repeat() {
        let mut masks = Masks::default();
        let mut drawn: Vec<_> = (0..3 * DRAWN).map(|_| masks.next().unwrap()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        // Two of 96 are equal by chance once in a million runs.
        assert!(drawn.len() >= 3 * DRAWN - 1);
    }
}
