//! Sample data: random-looking bytes, the same in every run. Large files are created once.

use super::process::run_ok;
use super::unique;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A generator of random-looking numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).unwrap()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.number().to_be_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Returns a file of random bytes that all tests share. Never write to it.
pub fn random_file(mebibytes: usize) -> PathBuf {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = shared.join(format!("random-{mebibytes}MiB"));
    // Tests may be threads of one process.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        // Written beside and renamed, so that no concurrent test sees half of it.
        let draft = shared.join(format!("draft-{mebibytes}-{}", unique()));
        let mut file = BufWriter::new(File::create(&draft).expect("create a sample"));
        let mut random = Random::new(mebibytes as u64);
        for _ in 0..mebibytes {
            file.write_all(&random.bytes(1 << 20))
                .expect("write a sample");
        }
        file.into_inner().expect("write a sample");
        fs::rename(&draft, &path).expect("rename a sample");
    }
    path
}

/// Returns the SHA-256 of a file in hexadecimal.
pub fn sha256(path: &Path) -> String {
    let line = run_ok(Command::new("sha256sum").arg(path));
    let sum = line.split_whitespace().next().unwrap_or_default();
    assert_eq!(sum.len(), 64, "{line}");
    sum.to_owned()
}

/// Fails unless both files have the same content.
pub fn assert_same(one: &Path, other: &Path) {
    let size = |path: &Path| fs::metadata(path).map(|m| m.len()).unwrap_or_default();
    assert_eq!(size(one), size(other), "sizes of {one:?} and {other:?}");
    assert_eq!(sha256(one), sha256(other), "sums of {one:?} and {other:?}");
}
