//! A restart with a new process that fails or is disturbed.

use crate::common::eventually;
use crate::common::gt::{Gt, GT};
use crate::common::peer::gt1::{hello, Peer};
use crate::common::peer::ID_ALONE;
use crate::common::program::{install_gt, install_script};
use crate::common::scratch::Scratch;
use std::net::SocketAddr;

/// A server that runs from a copy of gt, which tests replace.
struct Installed {
    scratch: Scratch,
    server: Gt,
    peer: Peer,
}

impl Installed {
    fn new() -> Installed {
        let scratch = Scratch::new();
        let program = scratch.join("gt");
        install_gt(&program);
        let file = scratch.file("server.yaml", config(1));
        let mut server = Gt::of_program(&program, &format!("-config {}", file.display()));
        let addr: SocketAddr = server.addr();
        let peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
        Installed {
            scratch,
            server,
            peer,
        }
    }

    /// Installs a shell script. `$PID` is a file for its process number, `$GT` a working gt.
    fn replace(&self, script: &str) {
        let script = format!(
            "#!/bin/sh\nPID={pid} GT={GT} GO={go}\n{script}\n",
            pid = self.scratch.join("pid").display(),
            go = self.scratch.join("go").display(),
        );
        let new = self.scratch.join("new");
        install_script(&new, &script);
        std::fs::rename(new, self.scratch.join("gt")).expect("replace the program");
    }

    /// Returns the process number of the script once it runs.
    fn pid(&self) -> u32 {
        eventually("the new process to begin", || {
            let pid = std::fs::read_to_string(self.scratch.join("pid")).ok()?;
            pid.trim().parse().ok()
        })
    }

    /// Asks for a restart, asks for a reload while the script waits, and then lets it go on.
    fn restart_and_reload(&mut self) {
        self.server.signal("QUIT");
        self.pid();
        self.server.signal("HUP");
        self.peer.sync();
        self.scratch.file("go", "");
    }
}

fn config(idle: u32) -> String {
    format!("type: server\noptions: {{addr: '127.0.0.1:0', id: id1, secret: secret1, reconnectTimes: {idle}}}\n")
}

fn runs(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[test]
fn a_child_without_restart_support_is_not_waited_for() {
    let mut gt = Installed::new();
    gt.replace("echo $$ > $PID; exec sleep 1000 < /dev/null");
    gt.server.signal("QUIT");
    let line = gt.server.wait_for_failed_restart();
    assert!(line.contains("does not know how to take over"), "{line}");
    let pid = gt.pid();
    eventually("it to be ended", || (!runs(pid)).then_some(()));
    gt.peer.sync();
}

#[test]
fn a_stop_works_while_the_new_process_is_silent() {
    let mut gt = Installed::new();
    gt.replace("echo $$ > $PID; exec sleep 1000");
    gt.server.signal("QUIT");
    let pid = gt.pid();
    gt.peer.sync();
    gt.server.signal("TERM");
    gt.server.wait_for_stopping();
    assert!(!runs(pid), "it is ended");
    drop(gt.peer);
    assert_eq!(gt.server.exit().code(), Some(0));
    assert_eq!(gt.server.failed_restarts(), 0);
}

#[test]
fn a_reload_during_a_restart_is_not_lost() {
    let mut gt = Installed::new();
    // A child that fails: the old process reloads.
    gt.replace("echo $$ > $PID; until [ -e $GO ]; do sleep 0.01; done; exit 3");
    gt.restart_and_reload();
    gt.server.wait_for_failed_restart();
    gt.server.wait_for_reloaded(1);
    // A child that works: the new process reloads.
    std::fs::remove_file(gt.scratch.join("go")).expect("remove a file");
    std::fs::remove_file(gt.scratch.join("pid")).expect("remove a file");
    gt.replace("echo $$ > $PID; until [ -e $GO ]; do sleep 0.01; done; exec $GT \"$@\"");
    gt.restart_and_reload();
    let _new = gt.server.wait_for_successor();
    gt.server.wait_for_reloaded(2);
}

#[test]
fn a_child_killed_by_an_early_signal_is_started_again() {
    for signal in ["HUP", "USR1"] {
        let mut gt = Installed::new();
        gt.replace(&format!(
            "[ -e $GO ] && exec $GT \"$@\"; : > $GO; kill -{signal} $$"
        ));
        let _new = gt.server.restart();
        assert_eq!(gt.server.failed_restarts(), 0);
    }
    // The number of attempts is limited.
    let mut gt = Installed::new();
    gt.replace("kill -HUP $$");
    gt.server.signal("QUIT");
    let line = gt.server.wait_for_failed_restart();
    assert!(line.contains("signal: 1"), "{line}");
    gt.peer.sync();
}
