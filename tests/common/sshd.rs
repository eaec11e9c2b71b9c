//! sshd as the service behind a tunnel, and ssh and scp as its visitors.

use super::ports::free_port;
use super::process::{run, run_ok, Process};
use super::scratch::Scratch;
use super::words;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

pub struct Sshd {
    pub addr: SocketAddr,
    user: String,
    process: Process,
}

/// Starts sshd with its own keys, for the user who runs the tests.
pub fn start() -> Sshd {
    let scratch = Scratch::new();
    let port = free_port();
    for key in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", key]);
        run_ok(keygen.current_dir(scratch.path()));
    }
    // sshd does not start without this folder for privilege separation.
    let _ = fs::create_dir_all("/run/sshd");
    let root = scratch.path().display();
    let config = scratch.file(
        "sshd_config",
        format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {root}/host\nPidFile {root}/pid\n\
             AuthorizedKeysFile {root}/user.pub\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             Subsystem sftp internal-sftp\n"
        ),
    );
    // sshd executes itself for each connection and has to be called by its absolute path.
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(config);
    let mut process = Process::spawn("sshd", scratch, &mut command);
    let addr = process.wait_for_listener(port);
    Sshd {
        addr,
        user: run_ok(Command::new("id").arg("-un")).trim().to_owned(),
        process,
    }
}

impl Sshd {
    fn options(&self) -> String {
        format!(
            "-F none -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            self.process.scratch().join("user").display()
        )
    }

    /// Runs a shell command by ssh to `port` and returns its standard output.
    pub fn ssh(&self, port: u16, line: &str) -> String {
        let mut ssh = Command::new("ssh");
        ssh.args(words(&self.options()))
            .args(["-p", &port.to_string()])
            .arg(format!("{}@127.0.0.1", self.user))
            .arg(line);
        run_ok(&mut ssh)
    }

    /// Runs a shell command by ssh to `port` over what this command connects to.
    pub fn ssh_by(&self, command: &str, port: u16, line: &str) -> String {
        let mut ssh = Command::new("ssh");
        ssh.args(words(&self.options()))
            .args(["-o", &format!("ProxyCommand={command}")])
            .args(["-p", &port.to_string()])
            .arg(format!("{}@localhost", self.user))
            .arg(line);
        run_ok(&mut ssh)
    }

    /// Runs a shell command by ssh from this address to `port`.
    pub fn ssh_from(&self, from: Ipv4Addr, port: u16, line: &str) {
        let mut ssh = self.command(from, port, "user");
        run_ok(ssh.arg(format!("{}@127.0.0.1", self.user)).arg(line));
    }

    /// Tries to log in by ssh from this address to `port` with a key that is not allowed.
    pub fn fail_from(&self, from: Ipv4Addr, port: u16) {
        let mut ssh = self.command(from, port, "host");
        let output = run(ssh.arg(format!("{}@127.0.0.1", self.user)).arg("true"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("Permission denied"), "{error}");
    }

    fn command(&self, from: Ipv4Addr, port: u16, key: &str) -> Command {
        let key = self.process.scratch().join(key);
        let mut ssh = Command::new("ssh");
        ssh.args(words(
            "-F none -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        ));
        ssh.args(["-b", &from.to_string(), "-p", &port.to_string(), "-i"]);
        ssh.arg(key);
        ssh
    }

    /// Copies the local file `from` to `to` by scp to `port`.
    pub fn copy_to(&self, port: u16, from: &Path, to: &Path) {
        let there = format!("{}@127.0.0.1:{}", self.user, to.display());
        self.scp(port, &from.display().to_string(), &there);
    }

    /// Copies the remote file `from` to `to` by scp from `port`.
    pub fn copy_from(&self, port: u16, from: &Path, to: &Path) {
        let there = format!("{}@127.0.0.1:{}", self.user, from.display());
        self.scp(port, &there, &to.display().to_string());
    }

    fn scp(&self, port: u16, from: &str, to: &str) {
        let mut scp = Command::new("scp");
        scp.args(words(&self.options()))
            .args(["-P", &port.to_string(), from, to]);
        run_ok(&mut scp);
    }
}
