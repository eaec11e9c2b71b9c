//! A gt started by root changes to the configured user once it listens. Needs root.

use crate::common::eventually;
use crate::common::gt::{client_of_id1, gt, Gt};
use crate::common::program::install_gt;
use crate::common::scratch::Scratch;
use crate::common::service;
use crate::common::visitor::get;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A user and a group that have no name on any machine.
pub const USER: &str = "54321";
pub const GROUP: &str = "54322";

/// Whether this is not root, and gt has reported that it cannot change the user.
fn is_refused() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let output = gt(&format!("server -addr 127.0.0.1:0 -user {USER}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("only root can become another user"), "{said}");
    true
}

/// Returns a free port that only root may open.
pub fn low_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 200;
    const COUNT: u32 = 1024 - FIRST;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports = (0..COUNT).map(|_| {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(64).wrapping_add(step) % COUNT;
        u16::try_from(FIRST + offset).expect("below 1024")
    });
    ports.find(free).expect("a free port below 1024")
}

/// Checks that every thread of the process is that user, without other groups and capabilities.
fn assert_is_user(pid: u32) {
    let list = || std::fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
    // It says that it runs as that user before it has started them.
    eventually("threads beside the first", || {
        (list().count() > 1).then_some(())
    });
    for task in list() {
        let path = task.expect("a thread").path().join("status");
        // A thread that has just ended has no status.
        let Ok(status) = std::fs::read_to_string(path) else {
            continue;
        };
        let four = |number: &str| [number; 4].join("\t");
        for (name, value) in [
            ("Uid", four(USER)),
            ("Gid", four(GROUP)),
            ("Groups", GROUP.to_owned()),
            ("CapPrm", "0".repeat(16)),
            ("CapEff", "0".repeat(16)),
            ("NoNewPrivs", "1".to_owned()),
        ] {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
            assert_eq!(
                line.trim_start_matches(':').trim(),
                value,
                "{name} in {status}"
            );
        }
    }
}

#[test]
fn a_server_listens_as_root_and_serves_as_another_user() {
    if is_refused() {
        return;
    }
    let (scratch, port) = (Scratch::new(), low_port());
    // The user may have no access to the folder where the tests are built.
    let program = scratch.join("gt");
    install_gt(&program);
    let config = scratch.file(
        "server.yaml",
        format!(
            "type: server\nusers:\n  id1: {{secret: secret1}}\noptions:\n  addr: 127.0.0.1:{port}\n  \
             user: {USER}\n  group: {GROUP}\n"
        ),
    );
    let line = format!("-config {}", config.display());
    let mut server = Gt::of_program(&program, &line);
    let addr = server.addr();
    server.wait_for(&format!("running as the user {USER}"));
    assert_is_user(server.pid());
    let web = service::http(0, "here");
    let _client = client_of_id1(addr, &format!("-local http://{}", web.addr));
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    assert!(server
        .lines_with("can neither reload nor restart")
        .is_empty());

    // Files are readable on a reload, and the socket is passed on to the next process.
    server.reload();
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    let successor = server.restart();
    assert_is_user(successor.pid);
    assert_eq!(get(addr, "id1.a", "/").status, 200);

    // A new port below 1024 cannot be opened, and everything goes on as before.
    let other = low_port();
    assert_ne!(other, port);
    let text = std::fs::read_to_string(&config).expect("read a file");
    let more = format!("  apiAddr: 127.0.0.1:{other}\n");
    std::fs::write(&config, text + &more).expect("write a file");
    successor.signal("HUP");
    let line = server.wait_for_failed_reload();
    assert!(
        line.contains(&format!("apiAddr 127.0.0.1:{other}")),
        "{line}"
    );
    assert_eq!(get(addr, "id1.a", "/").status, 200);
}

#[test]
fn a_file_that_the_user_cannot_read_is_reported_at_once() {
    if is_refused() {
        return;
    }
    let scratch = Scratch::new();
    let config = scratch.file(
        "server.yaml",
        format!("type: server\noptions:\n  addr: 127.0.0.1:0\n  user: {USER}\n"),
    );
    std::fs::set_permissions(&config, PermissionsExt::from_mode(0o600)).expect("hide a file");
    let mut server = Gt::start("gt", &["-config"], config.to_str().expect("a path"));
    let line = server.wait_for("this user can neither reload nor restart gt");
    assert!(line.contains("server.yaml"), "{line}");
    server.addr();
}

#[test]
fn an_unknown_user_is_an_error_of_check_and_start() {
    for check in ["check ", ""] {
        let output = gt(&format!(
            "{check}server -addr 127.0.0.1:0 -user no-such-user"
        ));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("user: this machine has no \"no-such-user\""),
            "{said}"
        );
    }
}
