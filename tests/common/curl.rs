//! A visitor that uses curl.

use super::process::run;
use super::words;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

pub struct Reply {
    /// curl's exit code, 0 for success.
    pub code: i32,
    pub body: Vec<u8>,
    pub errors: String,
}

/// Returns curl's arguments for a page of the host `name`, which is at `addr`.
pub fn url(scheme: &str, name: &str, addr: SocketAddr, path: &str) -> String {
    let port = addr.port();
    format!("--resolve {name}:{port}:127.0.0.1 {scheme}://{name}:{port}{path}")
}

/// Runs curl for `https://<name>/` at `addr`, trusting `ca`.
pub fn https(name: &str, addr: SocketAddr, ca: &Path, more: &str) -> Reply {
    let url = url("https", name, addr, "/");
    curl(&format!("{more} --cacert {} {url}", ca.display()))
}

/// Runs curl with these arguments, besides `-sS --max-time 120`.
pub fn curl(line: &str) -> Reply {
    let mut command = Command::new("curl");
    // Neither a user's settings nor the environment's proxy may interfere.
    command.args(["-q", "-sS", "--max-time", "120", "--noproxy", "*"]);
    let output = run(command.args(words(line)));
    Reply {
        code: output.status.code().unwrap_or(-1),
        body: output.stdout,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Reply {
    /// Returns the body as text.
    pub fn text(&self) -> &str {
        assert_eq!(self.code, 0, "curl: {}", self.errors);
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}
