//! The cost of attacks, and their bounds.

use crate::common::process::Process;
use std::fmt::{Debug, Display};

/// Prints a line of the table, and fails if the measurement exceeds its bound.
pub fn assert_at_most<T: PartialOrd + Debug>(attack: &str, bound: T, measured: T, unit: &str) {
    println!("{attack} | at most {bound:?} {unit} | {measured:?} {unit}");
    assert!(
        measured <= bound,
        "{attack}: {measured:?} {unit} are more than {bound:?}"
    );
}

/// Prints a line of the table without a numeric bound.
pub fn note(attack: &str, bound: impl Display, measured: impl Display) {
    println!("{attack} | {bound} | {measured}");
}

/// The memory of a process relative to an earlier moment.
pub struct Memory {
    before: Now,
}

struct Now {
    /// Resident memory, and the part that is pages of files: how much of the program has been
    /// loaded is not a cost of the attack.
    rss: usize,
    file: usize,
    /// Peak resident memory.
    peak: usize,
    /// Exact private memory.
    own: usize,
}

impl Now {
    fn of(process: &Process) -> Now {
        let path = format!("/proc/{}/status", process.pid());
        let status = std::fs::read_to_string(path).expect("read a status");
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            kib.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        Now {
            rss: kib("VmRSS:"),
            file: kib("RssFile:"),
            peak: kib("VmHWM:"),
            own: process.anonymous_kib(),
        }
    }
}

impl Memory {
    pub fn since_now(process: &Process) -> Memory {
        // Resets the peak (proc(5), clear_refs).
        let path = format!("/proc/{}/clear_refs", process.pid());
        std::fs::write(&path, "5").unwrap_or_else(|e| panic!("{path}: {e}"));
        Memory {
            before: Now::of(process),
        }
    }

    /// Returns how many KiB it has grown.
    pub fn growth(&self, process: &Process) -> usize {
        Now::of(process).own.saturating_sub(self.before.own)
    }

    /// Returns by how many KiB its peak has grown. The kernel counts pages in batches: the result
    /// is off by a few hundred KiB, which the bounds allow for.
    pub fn peak(&self, process: &Process) -> usize {
        let now = Now::of(process);
        let files = now.file.saturating_sub(self.before.file);
        let peak = now.peak.saturating_sub(self.before.rss + files);
        peak.max(now.own.saturating_sub(self.before.own))
    }
}
