//! dnsmasq as the service behind a tunnel, and dig as its visitor.

use super::ports::free_port;
use super::process::{run, run_ok, Process};
use super::scratch::Scratch;
use std::net::SocketAddr;
use std::process::Command;

/// The answer to each question for a name below `test`.
pub const ANSWER: &str = "192.0.2.1";

pub struct Dnsmasq {
    /// Where it answers over UDP and TCP.
    pub addr: SocketAddr,
    _process: Process,
}

/// Starts dnsmasq, which answers for all names below `test` and asks nobody.
pub fn start() -> Dnsmasq {
    let port = free_port();
    let mut command = Command::new("dnsmasq");
    command.args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--listen-address=127.0.0.1",
        &format!("--port={port}"),
        &format!("--address=/test/{ANSWER}"),
    ]);
    let mut process = Process::spawn("dnsmasq", Scratch::new(), &mut command);
    let addr = process.wait_for_listener(port);
    Dnsmasq {
        addr,
        _process: process,
    }
}

/// Asks for a name with these options of dig; returns what it prints.
pub fn dig(at: SocketAddr, options: &[&str], name: &str) -> String {
    let mut command = of(at);
    run_ok(command.args(options).args([name, "A"]))
}

/// Asks for this many names, one after another, each from a port of its own; returns how many were answered.
pub fn ask_for_names(at: SocketAddr, count: usize) -> usize {
    let scratch = Scratch::new();
    let names: String = (0..count).map(|n| format!("name{n}.test A\n")).collect();
    let file = scratch.file("names", names);
    let mut command = of(at);
    command.args(["+tries=4", "+timeout=1", "-f"]).arg(file);
    let said = run(&mut command).stdout;
    let said = String::from_utf8_lossy(&said);
    said.lines().filter(|line| *line == ANSWER).count()
}

fn of(at: SocketAddr) -> Command {
    let mut command = Command::new("dig");
    let (server, port) = (format!("@{}", at.ip()), at.port().to_string());
    command.args(["-r", &server, "-p", &port, "+short"]);
    command
}
