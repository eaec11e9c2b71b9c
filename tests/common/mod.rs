//! What the end-to-end tests share: programs that are started, waited for and stopped again,
//! and the ends a tunnel is put between. There is no test in here.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

pub mod api;
pub mod certs;
#[cfg(feature = "p2p")]
pub mod chromium;
pub mod crowd;
pub mod curl;
pub mod faults;
pub mod gt;
pub mod hello;
pub mod machine;
pub mod nat;
pub mod nginx;
pub mod original;
pub mod peer;
pub mod peer2;
pub mod ports;
pub mod process;
pub mod program;
pub mod router;
pub mod samples;
pub mod scratch;
pub mod sentry;
pub mod service;
#[cfg(feature = "p2p")]
pub mod signal;
pub mod smbd;
pub mod sshd;
pub mod visitor;
#[cfg(feature = "p2p")]
pub mod webrtc;
pub mod websocket;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything that must happen may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A name that nothing else has which the tests make at the same time: tests may be processes, and
/// threads of one process. At most 12 letters.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{number:x}", std::process::id())
}

/// Asks `probe` until it has an answer; panics with `what` when patience is at its end.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// As [`eventually`], for what may take longer.
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command line as one writes it: words between blanks, `""` for an empty one.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .map(|word| if word == "\"\"" { "" } else { word })
        .collect()
}
