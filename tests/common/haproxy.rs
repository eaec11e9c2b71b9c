//! HAProxy in front of servers, with a socket for commands.

use super::eventually;
use super::process::Process;
use super::scratch::Scratch;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

pub struct Haproxy {
    admin: PathBuf,
    _process: Process,
}

/// Starts HAProxy with the text that `config` returns for the path of the socket for commands, and
/// waits until it listens on `port`.
pub fn start(port: u16, config: impl FnOnce(&str) -> String) -> (Haproxy, SocketAddr) {
    let scratch = Scratch::new();
    let admin = scratch.join("admin.sock");
    let config = config(admin.to_str().expect("a path of text"));
    let path = scratch.file("haproxy.cfg", config);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path);
    let mut process = Process::spawn("haproxy", scratch, &mut command);
    let addr = process.wait_for_listener(port);
    let haproxy = Haproxy {
        admin,
        _process: process,
    };
    (haproxy, addr)
}

impl Haproxy {
    /// Runs a command and returns its output.
    pub fn run(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.admin).expect("connect to HAProxy");
        writeln!(stream, "{command}").expect("send a command to HAProxy");
        let mut output = String::new();
        stream
            .read_to_string(&mut output)
            .expect("read the output of HAProxy");
        output
    }

    /// Sets the state of a server, such as `drain` or `ready`.
    pub fn set_state(&self, server: &str, state: &str) {
        let output = self.run(&format!("set server {server} state {state}"));
        assert_eq!(output.trim(), "", "set the state of {server}");
    }

    /// Waits until a server has no connections.
    pub fn wait_for_idle(&self, server: &str) {
        eventually(&format!("{server} to have no connections"), || {
            (self.field(server, "scur") == "0").then_some(())
        });
    }

    /// Returns a field of a server (`backend/server`) in HAProxy's statistics.
    fn field(&self, server: &str, field: &str) -> String {
        let table = self.run("show stat");
        let mut lines = table.lines();
        let names = lines.next().unwrap_or_default();
        let at = names.split(',').position(|name| name == field);
        let begin = format!("{},", server.replace('/', ","));
        let line = lines.find(|line| line.starts_with(&begin));
        let value = line.zip(at).and_then(|(line, at)| line.split(',').nth(at));
        value
            .unwrap_or_else(|| panic!("no {field} of {server} in {table}"))
            .to_owned()
    }
}
