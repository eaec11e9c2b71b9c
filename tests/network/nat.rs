//! Peers behind NAT routers: which connect directly, and that the server is used where they cannot.
//! Needs root, ip, nft and unshare.

use crate::common::gt::Gt;
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::process::{run, Process};
use crate::common::scratch::Scratch;
use crate::common::webrtc::{Peer, PLAIN};
use crate::common::{eventually_within, PATIENCE};
use std::process::{Command, Output};

const HOST: &str = "id1.example.com";
const TEXT: &str = "what is at home";
const REQUEST: &[u8] = b"GET /it.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// The peer in the second home: this program, in a namespace, with this test only.
#[test]
#[ignore = "run by the others"]
fn other_end() {
    let peer = Peer::behind("10.114.0.2:0", &format!("stun:{MIDDLE}:3478"));
    let channel = peer.channel("");
    let server = format!("{MIDDLE}:8080").parse().expect("an address");
    assert_eq!(peer.offer_to(server, HOST, PLAIN, |offer| offer), 200);
    println!("the offer is taken");
    channel.wait_open();
    channel.send(REQUEST);
    let answer = channel.read_to_end();
    assert!(answer.ends_with(TEXT.as_bytes()));
    println!("all is there");
}

struct Ends {
    // The fields are dropped in this order.
    other: Process,
    client: Gt,
    _server: Gt,
    internet: Internet,
}

/// Creates two homes behind `a` and `b`; `None` where that is not possible.
pub fn internet(a: Nat, b: Nat) -> Option<Internet> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return None;
    }
    Some(Internet::new(a, b))
}

/// Starts a server in the middle, and a client in the first home that serves the files of `home`.
pub fn start(internet: &Internet, home: &Scratch) -> (Gt, Gt) {
    home.file("it.txt", TEXT);
    let mut server = Gt::within(
        &internet.place("middle"),
        "server -addr 0.0.0.0:8080 -stunAddr 0.0.0.0:3478 -id id1 -secret secret1 \
         -id id2 -secret secret2 -id id3 -secret secret3",
    );
    server.addr();
    server.stun_addr();
    let local = home.path().display();
    let line = format!("-id id1 -secret secret1 -logLevel debug -local file://{local}");
    let mut client = start_client(internet, "home-a", &line);
    client.wait_for_tunnel();
    (server, client)
}

pub fn start_client(internet: &Internet, home: &str, line: &str) -> Gt {
    let ways = format!("-remote tcp://{MIDDLE}:8080 -remoteSTUN stun:{MIDDLE}:3478");
    Gt::within(&internet.place(home), &format!("client {ways} {line}"))
}

/// Visits from the second home.
fn visit(internet: &Internet, curl: &[&str]) -> Output {
    let mut visitor = Command::new("ip");
    let place = internet.place("home-b");
    visitor.args(["netns", "exec", &place, "curl", "-sS"]);
    run(visitor.args(curl))
}

/// Checks that a visitor from the second home gets the file.
pub fn assert_served(internet: &Internet, curl: &[&str]) {
    let output = visit(internet, curl);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), TEXT, "{said}");
}

/// Starts a client behind `a` and a peer behind `b`.
fn ends(a: Nat, b: Nat) -> Option<Ends> {
    let internet = internet(a, b)?;
    let home = Scratch::new();
    let (server, client) = start(&internet, &home);
    let mut command = Command::new("ip");
    let program = std::env::current_exe().expect("this program");
    command.args(["netns", "exec", &internet.place("home-b")]);
    command.arg(program);
    command.args(["--exact", "nat::other_end", "--ignored", "--nocapture"]);
    let other = Process::spawn("the other end", home, &mut command);
    Some(Ends {
        other,
        client,
        _server: server,
        internet,
    })
}

fn assert_direct(a: Nat, b: Nat) {
    let Some(mut ends) = ends(a, b) else {
        return;
    };
    ends.client.wait_for_peers(1);
    assert!(ends.other.exit().success());
    assert_eq!(ends.other.lines_with("all is there").len(), 1);
}

fn assert_relayed(a: Nat, b: Nat) {
    let Some(mut ends) = ends(a, b) else {
        return;
    };
    ends.other.wait_for("the offer is taken");
    // A failed search takes 20 s and more.
    eventually_within(3 * PATIENCE, "the search for a way to end", || {
        (!ends.client.gone_peers().is_empty()).then_some(())
    });
    assert_eq!(ends.client.peers(), 0);
    let url = format!("http://{MIDDLE}:8080/it.txt");
    assert_served(&ends.internet, &["-H", &format!("Host: {HOST}"), &url]);
}

#[test]
fn peers_behind_port_restricted_routers_connect_directly() {
    assert_direct(Nat::PortRestricted, Nat::PortRestricted);
}

#[test]
fn a_peer_behind_a_full_cone_router_is_reached_from_any_router() {
    assert_direct(Nat::FullCone, Nat::PortRestricted);
    assert_direct(Nat::FullCone, Nat::Symmetric);
}

#[test]
fn the_server_is_used_where_udp_is_blocked() {
    assert_relayed(Nat::PortRestricted, Nat::Blocked);
}

#[test]
fn the_server_is_used_between_symmetric_routers() {
    assert_relayed(Nat::Symmetric, Nat::Symmetric);
}

/// Starts a client behind `b` that forwards to one behind `a`, and forwards a connection.
fn forwarded(a: Nat, b: Nat) -> Option<(Gt, (Gt, Gt), Internet)> {
    let internet = internet(a, b)?;
    let home = Scratch::new();
    let others = start(&internet, &home);
    let line = "-id id2 -secret secret2 -logLevel debug -tcpForwardAddr 127.0.0.1:8000 -tcpForwardHostPrefix id1";
    let mut forwarding = start_client(&internet, "home-b", line);
    forwarding.forward_addr();
    assert_served(&internet, &["http://127.0.0.1:8000/it.txt"]);
    // It has not waited for an attempt to fail.
    assert!(forwarding.is_always_direct());
    Some((forwarding, others, internet))
}

#[test]
fn a_client_behind_one_router_forwards_to_one_behind_another_directly() {
    if let Some((mut forwarding, ..)) = forwarded(Nat::PortRestricted, Nat::PortRestricted) {
        forwarding.wait_for_peers(1);
        assert!(forwarding.is_always_direct());
    }
}

#[test]
fn a_client_behind_a_hard_router_and_one_behind_an_easy_one_connect_directly() {
    for (a, b) in [
        (Nat::Symmetric, Nat::PortRestricted),
        (Nat::PortRestricted, Nat::Symmetric),
        (Nat::AddressRestricted, Nat::Symmetric),
        (Nat::SymmetricRegular, Nat::PortRestricted),
        (Nat::PortRestricted, Nat::SymmetricRegular),
        (Nat::SymmetricRegular, Nat::SymmetricRegular),
    ] {
        let Some((forwarding, _others, internet)) = forwarded(a, b) else {
            return;
        };
        // An attempt may fail where ports are predicted; visitors cause the next one.
        eventually_within(3 * PATIENCE, &format!("a direct way: {a:?} {b:?}"), || {
            visit(&internet, &["http://127.0.0.1:8000/it.txt"]);
            (forwarding.peers() > 0).then_some(())
        });
    }
}

#[test]
fn a_client_whose_router_blocks_udp_forwards_through_the_server() {
    if let Some((mut forwarding, ..)) = forwarded(Nat::PortRestricted, Nat::Blocked) {
        forwarding.wait_for_no_direct_connection();
        assert_eq!(forwarding.peers(), 0);
    }
}
