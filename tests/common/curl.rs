//! A visitor that uses curl.

use super::process::run;
use super::words;
use std::process::Command;

pub struct Reply {
    /// curl's exit code, 0 for success.
    pub code: i32,
    pub body: Vec<u8>,
    pub errors: String,
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
