//! `bbr`: which connections use it. Needs root, ip, ss and a kernel with BBR.

use crate::common::gt::Gt;
use crate::common::nat::missing;
use crate::common::process::{run, run_ok, Process};
use crate::common::scratch::Scratch;
use crate::common::{eventually, unique};
use std::process::Command;

/// A network namespace whose connections use Reno, which every kernel has, unless they choose otherwise.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let namespace = Self(format!("bbr-{}", unique()));
        run_ok(Command::new("ip").args(["netns", "add", &namespace.0]));
        let setup = "ip link set lo up && sysctl -qw net.ipv4.tcp_congestion_control=reno";
        run_ok(&mut namespace.command(&["sh", "-c", setup]));
        namespace
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(words);
        command
    }

    /// Waits until the established connections for which `filter` holds are `count` and all use this
    /// congestion control.
    fn wait_for(&self, filter: &str, count: usize, name: &str) {
        eventually(
            &format!("{count} connections with {filter} to use {name}"),
            || {
                let words = ["ss", "-tinH", "state", "established", filter];
                let shown = run_ok(&mut self.command(&words));
                let details = shown.lines().filter(|line| line.starts_with([' ', '\t']));
                let uses = details.map(|line| line.split_whitespace().any(|word| word == name));
                let uses: Vec<bool> = uses.collect();
                (uses.len() == count && uses.iter().all(|uses| *uses)).then_some(())
            },
        );
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "del", &self.0]));
    }
}

#[test]
fn tunnels_and_visitors_use_bbr_if_it_is_set_and_new_ones_go_by_a_reload() {
    let known = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let known = std::fs::read_to_string(known).unwrap_or_default();
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    if !known.contains("bbr") {
        eprintln!("skipped: the kernel has no BBR, but {known}");
        return;
    }
    let namespace = Namespace::new();
    let scratch = Scratch::new();
    let config = |bbr: bool| {
        scratch.file(
            "gt.yaml",
            format!(
                "type: server\noptions: {{addr: '127.0.0.1:8080', apiAddr: '127.0.0.1:8081', id: id1, \
                 secret: s, tcpNumber: 1, tcpRange: '7001', bbr: {bbr}}}\n"
            ),
        )
    };
    let path = config(true);
    let mut server = Gt::within(&namespace.0, &format!("server -config {}", path.display()));
    server.addr();
    let client = |more: &str| {
        let line = format!(
            "client -remote tcp://127.0.0.1:8080 -id id1 -secret s {more} -remoteConnections 1 \
             -local tcp://127.0.0.1:7000 -remoteTCPPort 7001"
        );
        let mut client = Gt::within(&namespace.0, &line);
        client.wait_for_tunnel();
        client
    };
    // Visitors that stay: of a port they would end, since there is no service.
    let visitor = || {
        let visit = "exec 3<>/dev/tcp/127.0.0.1/8080; printf GET >&3; exec sleep 100";
        let mut command = namespace.command(&["bash", "-c", visit]);
        Process::spawn("a visitor", Scratch::new(), &mut command)
    };
    let page = |path: &str| {
        let url = format!("http://127.0.0.1:8081{path}");
        run_ok(&mut namespace.command(&["curl", "-s", &url]))
    };
    let first = client("-bbr");
    // Of the client.
    namespace.wait_for("dport = :8080", 1, "bbr");
    let held = visitor();
    namespace.wait_for("sport = :8080", 2, "bbr");
    assert!(page("/clients").contains("\"congestion\": [\"bbr\"]"));
    assert!(page("/metrics").contains("gt_congestion_control{name=\"bbr\"} 1"));
    drop((first, held));

    config(false);
    server.reload();
    let _second = client("");
    let _held = visitor();
    namespace.wait_for("sport = :8080", 2, "reno");
    assert!(page("/clients").contains("\"congestion\": [\"reno\"]"));
    assert!(page("/metrics").contains("gt_congestion_control{name=\"reno\"} 1"));
}
