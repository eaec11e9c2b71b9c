//! The WebSocket server and client of python3-websockets (`websocket.py`).

use super::process::{run, run_ok, Process};
use super::scratch::Scratch;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/websocket.py");

pub struct WebSocketServer {
    pub addr: SocketAddr,
    _process: Process,
}

pub fn start() -> WebSocketServer {
    let mut python = python();
    let mut process = Process::spawn("websocket.py", Scratch::new(), python.arg("serve"));
    let line = process.wait_for("listening on ");
    let addr = line.trim_start_matches("listening on ").parse();
    WebSocketServer {
        addr: addr.expect("an address"),
        _process: process,
    }
}

/// Talks to the server at `addr` by `url`; fails unless every message is echoed.
pub fn talk(url: &str, addr: SocketAddr, ca: Option<&Path>) -> String {
    let mut python = python();
    python
        .args(["talk", url, "127.0.0.1"])
        .arg(addr.port().to_string());
    if let Some(ca) = ca {
        python.arg(ca);
    }
    run_ok(&mut python)
}

/// Tries to connect to the server at `addr` by `url` and returns what the client says of its failure.
pub fn refusal(url: &str, addr: SocketAddr) -> String {
    let mut python = python();
    python.args(["talk", url, "127.0.0.1"]);
    let output = run(python.arg(addr.port().to_string()));
    assert!(!output.status.success(), "{url} was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn python() -> Command {
    // Debian's own Python, for which python3-websockets is installed.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-u", SCRIPT]);
    command
}
