//! Helpers of the end-to-end tests: programs that are started, waited for and stopped, and
//! hand-written peers. No tests.

// Every test program uses only a part of this module.
#![allow(dead_code)]

pub mod api;
pub mod authority;
pub mod certs;
#[cfg(feature = "p2p")]
pub mod chromium;
pub mod chroot;
pub mod crowd;
pub mod curl;
pub mod debian;
pub mod dnsmasq;
pub mod events;
pub mod faults;
pub mod filed;
pub mod forwarder;
pub mod gt;
pub mod haproxy;
pub mod hello;
pub mod internet6;
pub mod links;
pub mod machine;
pub mod miniupnpd;
pub mod nat;
pub mod nginx;
pub mod original;
pub mod password;
pub mod pebble;
pub mod peer;
pub mod ports;
pub mod process;
pub mod program;
pub mod release;
pub mod router;
pub mod samples;
pub mod scratch;
pub mod sentry;
pub mod service;
#[cfg(feature = "p2p")]
pub mod signal;
pub mod smbd;
pub mod socks;
pub mod speed;
pub mod sshd;
pub mod udp;
pub mod upgrade;
pub mod visitor;
#[cfg(feature = "p2p")]
pub mod webrtc;
pub mod websocket;

use ::gt::cli::{self, Command};
use ::gt::config::RoleConfig;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a name that is unique among concurrent tests, which may be processes or threads of one
/// process. At most 12 characters.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{number:x}", std::process::id())
}

/// Polls `probe` until it returns a value; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// [`eventually`] with another limit.
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

/// Splits a command line at spaces; `""` is an empty argument.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .map(|word| if word == "\"\"" { "" } else { word })
        .collect()
}

/// Parses the command line of one role, for tests that run it in their own process.
pub fn role(line: &str) -> RoleConfig {
    let argv: Vec<String> = words(line).into_iter().map(str::to_owned).collect();
    match cli::parse(&argv) {
        Ok(Command::Run(mut roles)) => roles.remove(0),
        _ => panic!("these are the flags of one role: {line}"),
    }
}
