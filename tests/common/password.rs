//! Hashes of passwords, made by `gt hash`.

use super::gt::GT;
use super::process::run_ok;
use std::process::Command;
use std::sync::OnceLock;

/// Returns alice's name and the hash of her password.
pub fn alice() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| hash("alice", "secret"))
}

/// Returns a name and the hash of a password.
pub fn hash(user: &str, password: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "printf %s \"$2\" | \"$0\" hash \"$1\"",
        GT,
        user,
        password,
    ]);
    run_ok(&mut shell).trim_end().to_owned()
}
