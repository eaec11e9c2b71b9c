//! A visitor with the real curl.

use super::process::run;
use super::words;
use std::process::Command;

pub struct Reply {
    /// curl's exit code, 0 for success.
    pub code: i32,
    pub body: Vec<u8>,
    pub errors: String,
}

/// Runs curl with these words (`-sS --max-time 120` are given already).
pub fn curl(line: &str) -> Reply {
    let mut command = Command::new("curl");
    // Neither a user's settings nor a proxy of the surroundings may take part.
    command.args(["-q", "-sS", "--max-time", "120", "--noproxy", "*"]);
    let output = run(command.args(words(line)));
    Reply {
        code: output.status.code().unwrap_or(-1),
        body: output.stdout,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Reply {
    /// The body of a reply that came, as text.
    pub fn text(&self) -> &str {
        assert_eq!(self.code, 0, "curl: {}", self.errors);
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}
