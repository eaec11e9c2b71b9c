//! Two clients behind NAT routers whose path changes while a visitor downloads. Needs root, ip and nft.

use crate::common::gt::Gt;
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::process::run;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use std::process::Command;

const LENGTH: usize = 24 * 1024 * 1024;

struct Ends {
    forwarding: Gt,
    serving: Gt,
    _server: Gt,
    internet: Internet,
}

/// Starts a client behind `a` that serves the files of `home`, and one behind `b` that forwards to it directly;
/// `None` where that is not possible.
fn ends(a: Nat, b: Nat, home: &Scratch) -> Option<Ends> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return None;
    }
    let internet = Internet::new(a, b);
    let mut server = Gt::within(
        &internet.place("middle"),
        "server -addr 0.0.0.0:8080 -stunAddr 0.0.0.0:3478 -id id1 -secret secret1 \
         -id id2 -secret secret2",
    );
    server.addr();
    server.stun_addr();
    let start = |place: &str, line: &str| {
        let ways = format!("-remote tcp://{MIDDLE}:8080 -remoteSTUN stun:{MIDDLE}:3478");
        Gt::within(&internet.place(place), &format!("client {ways} {line}"))
    };
    let local = home.path().display();
    let line = format!("-id id1 -secret secret1 -logLevel debug -local file://{local}");
    let mut serving = start("home-a", &line);
    serving.wait_for_tunnel();
    let line = "-id id2 -secret secret2 -tcpForwardAddr 127.0.0.1:8000 -tcpForwardHostPrefix id1 \
                -logLevel debug";
    let mut forwarding = start("home-b", line);
    forwarding.forward_addr();
    let ends = Ends {
        forwarding,
        serving,
        _server: server,
        internet,
    };
    ends.fetch("small", "");
    Some(ends)
}

impl Ends {
    /// Downloads a file with more arguments of curl, while `meanwhile` runs, and returns its SHA-256.
    fn fetch(&self, file: &str, meanwhile: &str) -> String {
        let place = self.internet.place("home-b");
        let script = format!(
            "curl -sS --fail --limit-rate 4M http://127.0.0.1:8000/{file} | sha256sum & \
             {meanwhile}
             wait"
        );
        let mut command = Command::new("ip");
        let output = run(command.args(["netns", "exec", &place, "sh", "-c", &script]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let sum = String::from_utf8_lossy(&output.stdout).into_owned();
        sum.split(' ').next().unwrap_or_default().to_owned()
    }
}

/// Replaces the address of a home, twice, a second apart.
fn replaced(internet: &Internet, home: char, net: u8) -> String {
    let place = internet.place(&format!("home-{home}"));
    let replace = |from: u8, to: u8| {
        format!(
            "ip -n {place} addr add 10.{net}.0.{to}/24 dev eth0
             ip -n {place} addr del 10.{net}.0.{from}/24 dev eth0
             ip -n {place} route replace default via 10.{net}.0.1"
        )
    };
    format!("sleep 1; {}; sleep 2; {}", replace(2, 3), replace(3, 4))
}

/// Checks that a download survives changes of the address of a home.
fn assert_survives(a: Nat, b: Nat, home: char, net: u8) {
    let files = Scratch::new();
    let sample = Random::new(5).bytes(LENGTH);
    std::fs::write(files.path().join("large"), &sample).expect("write a file");
    files.file("small", "x");
    let Some(mut ends) = ends(a, b, &files) else {
        return;
    };
    ends.forwarding.wait_for_direct_way();
    let sum = run(Command::new("sha256sum").arg(files.path().join("large")));
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    let got = ends.fetch("large", &replaced(&ends.internet, home, net));
    assert!(sum.starts_with(&got), "{sum} {got}");
    // It was direct, and the peer is the same.
    for client in [&ends.forwarding, &ends.serving] {
        assert_eq!((client.peers(), client.gone_peers().len()), (1, 0));
    }
}

#[test]
fn a_download_survives_a_change_of_the_forwarding_client_s_address() {
    assert_survives(Nat::FullCone, Nat::PortRestricted, 'b', 114);
}

#[test]
fn a_download_survives_a_change_of_address_behind_routers_that_let_in_only_answers() {
    assert_survives(Nat::PortRestricted, Nat::PortRestricted, 'b', 114);
}

#[test]
fn a_download_survives_a_change_of_the_serving_client_s_address() {
    assert_survives(Nat::PortRestricted, Nat::FullCone, 'a', 113);
}
