//! What an attack may cost, and what it has cost.

use crate::common::process::Process;
use std::fmt::{Debug, Display};

/// Prints a line of the table, and fails if it was more than it may be.
pub fn assert_at_most<T: PartialOrd + Debug>(attack: &str, bound: T, measured: T, unit: &str) {
    println!("{attack} | at most {bound:?} {unit} | {measured:?} {unit}");
    assert!(
        measured <= bound,
        "{attack}: {measured:?} {unit} are more than {bound:?}"
    );
}

/// The same for what has no number.
pub fn note(attack: &str, bound: impl Display, measured: impl Display) {
    println!("{attack} | {bound} | {measured}");
}

/// The memory of a process since a moment.
pub struct Memory {
    before: Now,
}

struct Now {
    /// All of it, and the part that is pages of files: how much of the program has run is not what
    /// an attack costs.
    rss: usize,
    file: usize,
    /// The most that there was at a time.
    peak: usize,
    /// What it has to itself, exactly.
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
        // Forgets the peak (proc(5), clear_refs).
        let path = format!("/proc/{}/clear_refs", process.pid());
        std::fs::write(&path, "5").unwrap_or_else(|e| panic!("{path}: {e}"));
        Memory {
            before: Now::of(process),
        }
    }

    /// KiB that it has more than then.
    pub fn growth(&self, process: &Process) -> usize {
        Now::of(process).own.saturating_sub(self.before.own)
    }

    /// The most KiB that it has had more than then. The kernel counts pages in batches: it is off
    /// by a few hundred KiB, which the bounds leave room for.
    pub fn peak(&self, process: &Process) -> usize {
        let now = Now::of(process);
        let files = now.file.saturating_sub(self.before.file);
        let peak = now.peak.saturating_sub(self.before.rss + files);
        peak.max(now.own.saturating_sub(self.before.own))
    }
}
