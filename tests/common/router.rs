//! The file system of a router with gt's package, in a folder: its shell is busybox, and procd's
//! helpers only record how they are called.

use super::chroot;
use super::gt::{Gt, GT};
use super::process::run;
use super::program::install_gt;
use super::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The commands of a router's shell that gt's scripts use.
const APPLETS: [&str; 9] = [
    "sh", "cat", "chgrp", "chmod", "chown", "grep", "mkdir", "sed", "tr",
];

pub struct Router {
    scratch: Scratch,
}

impl Router {
    /// Creates a router with the package, the gt under test and the user gt.
    pub fn new() -> Router {
        let router = Router {
            scratch: Scratch::new(),
        };
        let ipk = make_ipk(&router.scratch);
        let root = router.root();
        fs::create_dir(&root).expect("make the root");
        for archive in ["data", "control"] {
            unpack_part(&ipk, archive, &root);
        }
        // The package contains only a stand-in: packing a debug build takes long.
        let program = router.path("usr/bin/gt");
        fs::remove_file(&program).expect("gt is in the package");
        install_gt(&program);
        chroot::add_busybox(&root, &APPLETS);
        chroot::add_libraries_of(&root, Path::new(GT));
        for folder in ["tmp", "lib", "dev"] {
            fs::create_dir_all(root.join(folder)).expect("make a folder");
        }
        // A file suffices where scripts only write.
        router.write("dev/null", "");
        let rc_common = Path::new(REPOSITORY).join("tests/common/router/rc.common");
        fs::copy(rc_common, root.join("etc/rc.common")).expect("copy rc.common");
        router.write(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\ngt:x:1000:1000::/:/bin/false\n",
        );
        router.write("etc/group", "root:x:0:\ngt:x:1000:\n");
        router
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Runs `/etc/init.d/gt` with these arguments; returns its output and its calls of procd.
    pub fn init(&self, words: &[&str]) -> (Output, Vec<String>) {
        self.run_init(self.command(&Self::init_line(words)))
    }

    /// Runs `/etc/init.d/gt` where nothing in `/etc` can be changed.
    pub fn init_with_read_only_etc(&self, words: &[&str]) -> (Output, Vec<String>) {
        let script = "mount --bind \"$0/etc\" \"$0/etc\" && \
                      mount -o remount,ro,bind \"$0/etc\" && exec chroot \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.arg("-m");
        if !rustix::process::geteuid().is_root() {
            command.arg("-r");
        }
        command.args(["sh", "-c", script]).arg(self.root());
        self.run_init(chroot::with_environment(command, &Self::init_line(words)))
    }

    /// Runs a script of the router's shell.
    pub fn script(&self, script: &str) -> (Output, Vec<String>) {
        self.run_init(self.command(&["/bin/busybox", "ash", "-c", script]))
    }

    fn init_line<'a>(words: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["/bin/busybox", "ash", "/etc/rc.common", "/etc/init.d/gt"];
        all.extend(words);
        all
    }

    fn run_init(&self, mut command: Command) -> (Output, Vec<String>) {
        let _ = fs::remove_file(self.path("tmp/calls"));
        let output = run(&mut command);
        let calls = fs::read_to_string(self.path("tmp/calls")).unwrap_or_default();
        (output, calls.lines().map(str::to_owned).collect())
    }

    /// Starts what procd was told to start.
    pub fn spawn(&self, words: &[&str]) -> Gt {
        Gt::spawn("gt", self.command(words), "")
    }

    /// Returns a command with this root. Needs root, or user namespaces.
    pub fn command(&self, words: &[&str]) -> Command {
        chroot::command(&self.root(), words)
    }
}

/// Builds the package of a gt with both roles.
pub fn make_ipk(scratch: &Scratch) -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    make_package(scratch, "ipk").join(format!("gt_{version}-r1_x86_64.ipk"))
}

/// Builds a package in this form from a stand-in program; returns the folder that it is in.
pub fn make_package(scratch: &Scratch, form: &str) -> PathBuf {
    let out = scratch.dir("out");
    scratch.file("out/gt-full-x86_64", "the program\n");
    let output = run(package_script()
        .args([form, "full", "x86_64"])
        .env("GT_OUT", &out));
    assert!(output.status.success(), "{output:?}");
    out
}

/// Returns `openwrt/package`, for files of a certain time.
pub fn package_script() -> Command {
    let mut script = Command::new(Path::new(REPOSITORY).join("openwrt/package"));
    script.env("SOURCE_DATE_EPOCH", "1000000000");
    script
}

/// Unpacks `control` or `data` of a package as opkg does; `control` goes where opkg keeps it.
pub fn unpack_part(ipk: &Path, part: &str, root: &Path) {
    let place = match part {
        "control" => root.join("usr/lib/opkg/info"),
        _ => root.to_owned(),
    };
    fs::create_dir_all(&place).expect("make a folder");
    let unpack = format!(
        "set -e; tar -xzOf '{}' ./{part}.tar.gz | tar -xzf - -C '{}'",
        ipk.display(),
        place.display()
    );
    let output = run(Command::new("sh").args(["-c", &unpack]));
    assert!(output.status.success(), "{output:?}");
}
