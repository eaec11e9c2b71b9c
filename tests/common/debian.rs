//! Debian packages with stand-ins for the programs, and a machine in a folder with one of them
//! installed, where programs of the system only record how they are called.

use super::chroot;
use super::process::{run, run_ok};
use super::program::install_script;
use super::router::REPOSITORY;
use super::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The version of the packages.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");

/// The targets whose programs are packed, and Debian's names of the architectures.
pub const TARGETS: [(&str, &str); 3] = [
    ("x86_64", "amd64"),
    ("aarch64", "arm64"),
    ("armv7", "armhf"),
];

/// The commands of a shell that the package's scripts use, besides those that are recorded.
const APPLETS: [&str; 5] = ["sh", "cat", "grep", "rm", "stat"];

/// Records its call.
const RECORDER: &str = "#!/bin/sh\necho \"${0##*/} $*\" >>/tmp/calls\n";

/// Creates stand-ins for the programs of all architectures, in a folder. A stand-in contains its
/// target.
pub fn stand_ins(scratch: &Scratch) -> PathBuf {
    let programs = scratch.dir("programs");
    for (target, _) in TARGETS {
        scratch.file(&format!("programs/gt-full-{target}"), target);
    }
    programs
}

/// Returns a command that packs the programs in `programs` into `out`, in this tree of sources.
pub fn packer(sources: &Path, programs: &Path, out: &Path) -> Command {
    let mut command = Command::new(sources.join("release/debian"));
    command
        .env("GT_OUT", programs)
        .env("GT_RELEASE_OUT", out)
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .env_remove("DEBEMAIL")
        .env_remove("DEBFULLNAME");
    command
}

/// Packs one architecture; returns the package.
pub fn make_deb(scratch: &Scratch, arch: &str) -> PathBuf {
    let out = scratch.join("packages");
    let sources = Path::new(REPOSITORY);
    run_ok(packer(sources, &stand_ins(scratch), &out).arg(arch));
    out.join(format!("gt_{VERSION}_{arch}.deb"))
}

pub struct Machine {
    scratch: Scratch,
}

impl Machine {
    /// Creates a machine with systemd on which the package is unpacked and not configured.
    pub fn new() -> Machine {
        let machine = Machine {
            scratch: Scratch::new(),
        };
        let deb = make_deb(&machine.scratch, "amd64");
        let root = machine.path("");
        run_ok(Command::new("dpkg-deb").arg("-x").args([&deb, &root]));
        run_ok(
            Command::new("dpkg-deb")
                .arg("-e")
                .arg(&deb)
                .arg(root.join("DEBIAN")),
        );
        chroot::add_busybox(&root, &APPLETS);
        for folder in ["dev", "tmp", "run/systemd/system", "usr/sbin"] {
            fs::create_dir_all(root.join(folder)).expect("make a folder");
        }
        // A file suffices where scripts only write.
        machine.write("dev/null", "");
        machine.write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
        machine.write("etc/group", "root:x:0:\n");
        for name in ["systemd-sysusers", "chgrp", "deb-systemd-invoke"] {
            machine.record(name, "");
        }
        // Which paths have an override, and which units run.
        machine.record("dpkg-statoverride", "exec grep -qx \"$2\" /tmp/overrides\n");
        machine.record("systemctl", "[ \"$1\" != list-units ] || cat /tmp/units\n");
        machine.write("tmp/overrides", "");
        machine.write("tmp/units", "");
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.join("root").join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Installs a program that records its calls and then does what `script` says.
    pub fn record(&self, name: &str, script: &str) {
        let text = format!("{RECORDER}{script}");
        install_script(&self.path("usr/sbin").join(name), &text);
    }

    /// Runs one of the package's scripts as dpkg does; returns its output and its calls.
    pub fn run_script(&self, words: &[&str]) -> (Output, Vec<String>) {
        let _ = fs::remove_file(self.path("tmp/calls"));
        let script = format!("/DEBIAN/{}", words[0]);
        let mut all = vec![script.as_str()];
        all.extend(&words[1..]);
        let output = run(&mut chroot::command(&self.path(""), &all));
        let calls = fs::read_to_string(self.path("tmp/calls")).unwrap_or_default();
        (output, calls.lines().map(str::to_owned).collect())
    }

    /// Runs one of the package's scripts, which must succeed without a word; returns its calls.
    pub fn calls_of(&self, words: &[&str]) -> Vec<String> {
        let (output, calls) = self.run_script(words);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(
            (output.status.code(), said.as_str()),
            (Some(0), ""),
            "{words:?}"
        );
        calls
    }
}
