//! Tells the program its version: `gt VERSION - COMMIT TARGET`, as `-version` prints it.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let target = env::var("TARGET").unwrap_or_default();
    let commit = commit().unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=GT_VERSION=gt {version} - {commit} {target}");
}

/// The short commit; `None` in a tree that is not a git checkout of this very crate (a tarball,
/// or a copy that was unpacked inside somebody else's repository).
fn commit() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // `--git-path` also finds them where `.git` is a file (a worktree, a submodule). A path that
    // does not exist would make cargo build again every time, so the branch is watched with its
    // directory: before the first commit, or when git has packed it away, it has no file.
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            if Path::new(&path).exists() {
                println!("cargo:rerun-if-changed={path}");
            }
        }
    }
    git(&["rev-parse", "--short=9", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
