//! A full disk at the moment at which gt writes into its `stateDir`. Needs root.

use crate::common::certs;
use crate::common::gt::{server, Gt, GT};
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns a command that runs `script` in a namespace in which `disk` is a system of files of 16 KiB. `$GT` is gt.
fn on_a_small_disk(scratch: &Scratch, disk: &Path, script: &str) -> Command {
    let disk = disk.display();
    let script = scratch.file(
        "script.sh",
        format!(
            "set -e\nmkdir {disk}\nmount -t tmpfs -o size=16k tmpfs {disk}\ncd {disk}\n{script}\n"
        ),
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh"]).arg(script).env("GT", GT);
    command
}

/// Fills the disk.
const FILL: &str = "dd if=/dev/zero of=fill bs=1k count=64 2>/dev/null || true";

#[test]
fn a_key_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let scratch = Scratch::new();
    let disk = scratch.join("disk");
    let make = "$GT fingerprint server -tlsAddr 443 -stateDir state";
    let script = format!(
        "mkdir state\ntouch state/.lock\n{FILL}\n{make} 2>&1 && exit 9\nls -A state\nrm fill\n{make}\n{make}\n{FILL}\n{make}\n\
         $GT keygen client.key 2>&1 && exit 9\nls"
    );
    let said = run_ok(&mut on_a_small_disk(&scratch, &disk, &script));
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].contains("writing state/identity.pem: No space left on device"),
        "{said}"
    );
    assert_eq!(lines[1], ".lock", "{said}");
    let keys: Vec<&&str> = lines
        .iter()
        .filter(|line| line.starts_with("SHA256:"))
        .collect();
    // The same before and after the disk has become full.
    assert!(
        keys.len() == 3 && keys[0] == keys[1] && keys[1] == keys[2],
        "{said}"
    );
    assert!(
        said.contains("no key was made: writing client.key: No space left on device"),
        "{said}"
    );
    assert!(said.ends_with("fill\nstate\n"), "{said}");
}

#[test]
fn a_server_s_key_that_cannot_be_remembered_is_not_trusted_and_those_known_stay() {
    let certs = certs::make();
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.flags()
    ));
    let addr = server.tls_addr();
    let scratch = Scratch::new();
    let disk: PathBuf = scratch.join("disk");
    let known = format!("other.example.com SHA256:{}", "A".repeat(43));
    let script = format!(
        "mkdir state\necho '{known}' >state/known_servers\nchmod 600 state/known_servers\ntouch state/.lock\n{FILL}\nexec $GT \"$@\""
    );
    let mut client = Gt::spawn(
        "gt client",
        on_a_small_disk(&scratch, &disk, &script),
        &format!("client -remote tls://{addr} -remoteKey first -stateDir state -id id1 -secret secret1 -local http://127.0.0.1:1"),
    );
    let told = client.wait_for("No space left on device");
    assert!(told.contains("known_servers"), "{told}");
    let folder = format!("/proc/{}/root{}/state", client.pid(), disk.display());
    let left = fs::read_to_string(Path::new(&folder).join("known_servers")).unwrap();
    assert_eq!(left, known + "\n");
    assert!(client.lines_with("tunnel started").is_empty());
}
