//! smbd as the service behind a tunnel, and smbclient as its visitor.

use super::ports::free_port;
use super::process::{run_ok, Process};
use super::scratch::Scratch;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

pub struct Smbd {
    pub addr: SocketAddr,
    process: Process,
}

/// Starts smbd with its own share, password file and folders. Needs root.
pub fn start() -> Smbd {
    let scratch = Scratch::new();
    let port = free_port();
    let root = scratch.path().display().to_string();
    let folders: String = ["private", "lock", "state", "cache", "pid", "ncalrpc"]
        .map(|name| {
            scratch.dir(name);
            let dir = if name == "ncalrpc" || name == "private" {
                "dir"
            } else {
                "directory"
            };
            format!("{name} {dir} = {root}/{name}\n")
        })
        .concat();
    scratch.dir("share");
    let config = scratch.file(
        "smb.conf",
        format!(
            "[global]\nserver role = standalone server\nsmb ports = {port}\n\
             interfaces = 127.0.0.1\nbind interfaces only = yes\n{folders}\
             passdb backend = tdbsam:{root}/private/passdb.tdb\nlog file = {root}/log\n\
             load printers = no\ndisable spoolss = yes\nserver signing = mandatory\n\
             [share]\npath = {root}/share\nread only = no\n"
        ),
    );
    let mut add_user = Command::new("sh");
    add_user.args([
        "-c",
        "printf 'pass\\npass\\n' | smbpasswd -c \"$0\" -s -a root",
    ]);
    run_ok(add_user.arg(&config));
    let mut command = Command::new("smbd");
    command.args(["-F", "--debug-stdout", "-s"]);
    let mut process = Process::spawn("smbd", scratch, command.arg(&config));
    let addr = process.wait_for_listener(port);
    Smbd { addr, process }
}

impl Smbd {
    /// Runs smbclient's commands on the share at `port` and returns its output.
    pub fn smbclient(&self, port: u16, commands: &str) -> String {
        let mut smbclient = Command::new("smbclient");
        smbclient
            .arg("-s")
            .arg(self.process.scratch().join("smb.conf"))
            .args(["-p", &port.to_string(), "-U", "root%pass"])
            .args(["//127.0.0.1/share", "-c", commands]);
        run_ok(&mut smbclient)
    }

    /// Returns the path of a file of the share.
    pub fn shared(&self, name: &str) -> PathBuf {
        self.process.scratch().join("share").join(name)
    }
}

impl Drop for Smbd {
    fn drop(&mut self) {
        // Only smbd itself can end its children.
        if self.process.has_ended().is_none() {
            self.process.signal("TERM");
            self.process.exit();
        }
    }
}
