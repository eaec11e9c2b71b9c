//! Programs that a test installs in a folder and runs from there.
//!
//! The kernel runs no file that any process has open for writing (execve(2), ETXTBSY). Tests may be
//! threads of one process, and a forked child has all descriptors of that process until it runs its
//! own program. So programs are written by a child process, never by the test's process.

use super::gt::GT;
use super::process::run_ok;
use super::unique;
use std::path::Path;
use std::process::Command;

/// Copies the program `from` to `to`, replacing what is there.
pub fn install(from: impl AsRef<Path>, to: &Path) {
    let mut command = Command::new("install");
    command.args(["-m", "755"]).arg(from.as_ref()).arg(to);
    run_ok(&mut command);
}

/// Copies the gt under test to `to`.
pub fn install_gt(to: &Path) {
    install(GT, to);
}

/// Writes `text` as an executable file at `to`, replacing what is there.
pub fn install_script(to: &Path, text: &str) {
    let draft = to.with_extension(format!("draft-{}", unique()));
    std::fs::write(&draft, text).expect("write a script");
    install(&draft, to);
    std::fs::remove_file(draft).expect("remove a draft");
}
