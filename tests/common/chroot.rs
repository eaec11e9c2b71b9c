//! A folder as the root of a file system: its shell is busybox.

use super::process::run;
use super::program::install;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Installs busybox with these commands.
pub fn add_busybox(root: &Path, applets: &[&str]) {
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("make /bin");
    install("/bin/busybox", &bin.join("busybox"));
    add_libraries_of(root, Path::new("/bin/busybox"));
    for applet in applets {
        symlink("busybox", bin.join(applet)).expect("link an applet");
    }
}

/// Copies the libraries that the system's loader needs to run `program`.
pub fn add_libraries_of(root: &Path, program: &Path) {
    let output = run(Command::new("ldd").arg(program));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(&library[1..]);
        fs::create_dir_all(place.parent().expect("a folder")).expect("make a folder");
        fs::copy(library, place).expect("copy a library");
    }
}

/// Returns a command with this root. Needs root, or user namespaces.
pub fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("chroot")
    } else {
        let mut command = Command::new("unshare");
        command.args(["-r", "chroot"]);
        command
    };
    command.arg(root);
    with_environment(command, words)
}

/// Adds the words of a command, and the environment that it has in such a root.
pub fn with_environment(mut command: Command, words: &[&str]) -> Command {
    command
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
