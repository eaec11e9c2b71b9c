//! gt gets no rights from program files (`no_new_privs`), unless its own file gives some. Needs root
//! for the latter.

use crate::account::{low_port, GROUP, USER};
use crate::common::eventually;
use crate::common::gt::{server_of_id1, Gt};
use crate::common::program::install_gt;
use crate::common::scratch::Scratch;
use rustix::fs::{setxattr, XattrFlags};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cap_net_bind_service+ep`, in the format of the attribute (capabilities(7), version 2).
const CAPABILITIES: [u8; 20] = {
    let mut bytes = [0; 20];
    bytes[0] = 1;
    bytes[3] = 2;
    bytes[5] = 4;
    bytes
};
/// The mask of `cap_net_bind_service`.
const NET_BIND_SERVICE: &str = "0000000000000400";

/// Returns the values of a field in the status of each thread.
fn fields(pid: u32, name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
    let value = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that has just ended has no status.
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        Some(line.expect(name).trim_start_matches(':').trim().to_owned())
    };
    tasks.filter_map(value).collect()
}

fn assert_all(pid: u32, name: &str, value: &str) {
    let values = fields(pid, name);
    assert!(!values.is_empty());
    assert!(
        values.iter().all(|other| other == value),
        "{name} {values:?}"
    );
}

#[test]
fn no_thread_gets_rights_from_program_files() {
    let mut server = server_of_id1("-threads 2");
    server.addr();
    assert_all(server.pid(), "NoNewPrivs", "1");
    let new = server.restart();
    assert_all(new.pid, "NoNewPrivs", "1");
}

#[test]
fn a_program_that_becomes_its_owner_may_do_so_again() {
    let scratch = Scratch::new();
    let program = scratch.join("gt");
    install_gt(&program);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).expect("set a mode");
    let mut server = Gt::of_program(&program, "server -addr 127.0.0.1:0");
    server.addr();
    assert_all(server.pid(), "NoNewPrivs", "0");
}

/// A server with a file, whose program has the capability to open any port.
struct Capable {
    scratch: Scratch,
    program: PathBuf,
}

impl Capable {
    /// Returns `None` if the system gives a program no capabilities.
    fn new() -> Option<Capable> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: only root can give a program capabilities");
            return None;
        }
        let scratch = Scratch::new();
        let program = scratch.join("gt");
        install_gt(&program);
        let given = setxattr(
            &program,
            "security.capability",
            &CAPABILITIES,
            XattrFlags::empty(),
        );
        if let Err(e) = given {
            eprintln!("not tested: giving a program capabilities: {e}");
            return None;
        }
        Some(Capable { scratch, program })
    }

    /// Writes the server's file.
    fn file(&self, options: &str) -> PathBuf {
        let text = format!(
            "type: server\nusers:\n  id1: {{secret: secret1}}\noptions:\n  addr: 127.0.0.1:0\n{options}"
        );
        self.scratch.file("server.yaml", text)
    }

    /// Checks that a restarted server opens a port below 1024 that it did not open before.
    fn opens_a_low_port(&self, server: &mut Gt, options: &str) {
        assert_all(server.pid(), "NoNewPrivs", "0");
        let new = server.restart();
        assert_all(new.pid, "NoNewPrivs", "0");
        assert_all(new.pid, "CapEff", NET_BIND_SERVICE);
        let port = low_port();
        self.file(&format!("{options}  apiAddr: 127.0.0.1:{port}\n"));
        let newest = server.restart_again(&new);
        assert_all(newest.pid, "Uid", &[USER; 4].join("\t"));
        eventually("the new port to be open", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
    }
}

fn of_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    let number = |text: &str| text.parse().expect("a number");
    command.uid(number(USER)).gid(number(GROUP));
    command
}

#[test]
fn a_program_with_capabilities_has_them_after_a_restart() {
    let Some(capable) = Capable::new() else {
        return;
    };
    let line = format!("-config {}", capable.file("").display());
    let mut server = Gt::spawn("gt server", of_user(&capable.program), &line);
    server.addr();
    if fields(server.pid(), "CapEff")[0] != NET_BIND_SERVICE {
        eprintln!("not tested: this file system gives programs no capabilities");
        return;
    }
    capable.opens_a_low_port(&mut server, "");
}

#[test]
fn a_program_with_capabilities_has_them_again_after_a_change_of_user() {
    let Some(capable) = Capable::new() else {
        return;
    };
    let options = format!("  user: {USER}\n  group: {GROUP}\n");
    let line = format!("-config {}", capable.file(&options).display());
    let mut server = Gt::of_program(&capable.program, &line);
    server.addr();
    assert_all(server.pid(), "CapEff", &"0".repeat(16));
    capable.opens_a_low_port(&mut server, &options);
}
