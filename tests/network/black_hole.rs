//! A client whose packets stop arriving, over either wire. Needs root, ip and nft.

use crate::common;
use crate::common::gt::Gt;
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use std::process::Command;

/// Visits `id1` from within the middle until the server closes the silent tunnel.
fn visit_until_closed(internet: &Internet, server: &Gt) {
    let middle = internet.place("middle");
    common::eventually("the tunnel to be closed", || {
        let ask = "printf 'GET / HTTP/1.1\\r\\nHost: id1.a\\r\\n\\r\\n' >/dev/tcp/127.0.0.1/8080";
        let mut visitor = Command::new("ip");
        visitor.args(["netns", "exec", &middle, "bash", "-c", ask]);
        run_ok(&mut visitor);
        std::thread::sleep(std::time::Duration::from_millis(200));
        server.has_closed_silent_with_visitors().then_some(())
    });
}

#[test]
fn a_client_behind_a_black_hole_is_detected_and_replaced_when_it_reconnects() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let internet = Internet::new(Nat::PortRestricted, Nat::PortRestricted);
    let folder = Scratch::new();
    let client = |home: &str, wire: u8| {
        let line = format!(
            "client -wire {wire} -remote tcp://{MIDDLE}:8080 -id id1 -secret secret1 \
             -reconnectDelay 500ms -local file://{}",
            folder.path().display()
        );
        Gt::within(&internet.place(home), &line)
    };
    let cut = |yes: bool| {
        let router = internet.place("router-a");
        let rule = match yes {
            true => "add rule ip filter forward meta l4proto tcp drop",
            false => "flush chain ip filter forward",
        };
        run_ok(Command::new("ip").args(["netns", "exec", &router, "nft", rule]));
    };
    for wire in [1, 2] {
        let line = "server -addr 0.0.0.0:8080 -id id1 -secret secret1 -timeout 1h -connections 1";
        let mut server = Gt::within(&internet.place("middle"), line);
        server.addr();

        let mut lost = client("home-a", wire);
        lost.wait_for_tunnel();
        cut(true);
        client("home-b", wire).wait_for_tunnel();
        server.wait_for_dead_tunnel();
        cut(false);
        lost.kill();

        let mut lost = client("home-a", wire);
        lost.wait_for_tunnel();
        cut(true);
        visit_until_closed(&internet, &server);
        cut(false);
    }
}
