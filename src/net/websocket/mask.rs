//! Masks of WebSocket frames (RFC 6455, section 5.3), which clients put on what they send.

use crate::net::tls;
use std::io;

/// Number of masks that are drawn at once, so that few frames ask the system for random numbers.
const DRAWN: usize = 32;

/// The mask of one frame, at the place that its next byte has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask([u8; 4]);

impl Mask {
    /// Creates the mask of the first byte.
    pub fn new(key: [u8; 4]) -> Self {
        Self(key)
    }

    /// Masks or unmasks the next bytes.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.0;
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let length = bytes.len();
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= key;
        }
        self.skip(length);
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
                let (mut bytes, mut mask) = (plain.clone(), Mask::new(key));
                mask.apply(&mut bytes[..first]);
                mask.apply(&mut bytes[first..second]);
                mask.apply(&mut bytes[second..]);
                assert_eq!(bytes, masked, "cut at {first} and {second}");
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
