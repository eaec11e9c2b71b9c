//! Port numbers for programs that cannot listen on port 0.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

/// The locks of the ports of this process.
static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Returns a port that is free now and that no other test uses before this process ends, even while
/// its owner restarts.
///
/// It is below the system's ephemeral range, so that no outgoing connection takes it before its
/// owner listens; concurrent tests start at different ports.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(64);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).unwrap();
        if let Some(claim) = claim(port) {
            CLAIMS.lock().unwrap().push(claim);
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}

/// Returns the first of `count` such ports in a row.
pub fn free_ports(count: u16) -> u16 {
    loop {
        let first = free_port();
        let more: Vec<_> = (1..count).map_while(|n| claim(first + n)).collect();
        if more.len() + 1 == usize::from(count) {
            CLAIMS.lock().unwrap().extend(more);
            return first;
        }
    }
}

/// Locks the file of a port that nobody uses.
fn claim(port: u16) -> Option<File> {
    let folder = std::env::temp_dir().join("gt-test-ports");
    std::fs::create_dir_all(&folder).expect("create the folder of ports");
    let file = File::create(folder.join(port.to_string())).expect("create the file of a port");
    file.try_lock().ok()?;
    TcpListener::bind(("0.0.0.0", port)).ok()?;
    TcpListener::bind(("::", port)).ok()?;
    Some(file)
}
