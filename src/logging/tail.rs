//! The last lines of the log, which the web page shows. They are kept only if there is a page. Builds without
//! it have `no_tail`.

use crate::net::clock;
use crate::sync::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

/// Maximum number of lines that are kept.
const MAX_LINES: usize = 400;
/// Maximum number of bytes of these lines together.
const MAX_BYTES: usize = 64 * 1024;

static IS_KEPT: AtomicBool = AtomicBool::new(false);
static TAIL: Mutex<Tail> = Mutex::new(Tail::new());

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The number of the line, from 1.
    pub number: u64,
    /// When it was written: Unix time in seconds.
    pub time: u64,
    /// The level in three letters, and the message.
    pub text: String,
}

struct Tail {
    lines: VecDeque<LogLine>,
    /// Number of bytes of the lines.
    bytes: usize,
    /// Number of lines so far.
    count: u64,
}

impl Tail {
    const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            count: 0,
        }
    }

    fn add(&mut self, time: u64, text: &str) {
        let end = text.floor_char_boundary(MAX_BYTES / 8);
        let text = text.get(..end).unwrap_or_default().to_owned();
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(text.len());
        self.lines.push_back(LogLine {
            number: self.count,
            time,
            text,
        });
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(oldest.text.len());
        }
    }
}

/// Sets whether lines are kept. Those that were kept before are forgotten if not.
pub fn keep_tail(is_kept: bool) {
    IS_KEPT.store(is_kept, Ordering::Relaxed);
    if !is_kept {
        let mut tail = TAIL.lock();
        (tail.lines, tail.bytes) = (VecDeque::new(), 0);
    }
}

/// Keeps a line, if lines are kept.
pub fn add(text: &str) {
    if IS_KEPT.load(Ordering::Relaxed) {
        let time = clock::time_of_day().duration_since(UNIX_EPOCH);
        TAIL.lock().add(time.unwrap_or_default().as_secs(), text);
    }
}

/// Returns the kept lines behind the one with this number.
pub fn tail_after(number: u64) -> Vec<LogLine> {
    let tail = TAIL.lock();
    let newer = tail.lines.iter().filter(|line| line.number > number);
    newer.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_in_lines_and_bytes() {
        let mut tail = Tail::new();
        for n in 0..1000 {
            tail.add(n, "INF x");
        }
        assert_eq!(tail.lines.len(), MAX_LINES);
        assert_eq!(tail.lines.back().unwrap().number, 1000);
        for _ in 0..100 {
            tail.add(1, &"ü".repeat(MAX_BYTES));
        }
        let bytes: usize = tail.lines.iter().map(|line| line.text.len()).sum();
        assert!(bytes <= MAX_BYTES && bytes == tail.bytes, "{bytes}");
        assert_eq!(tail.count, 1100);
    }
}
