//! Private services: only clients with the key reach them, directly or through the server.

use crate::common::filed::Filed;
use crate::common::forwarder::Forwarder;
use crate::common::gt::{client, client_of_id1, gt, server, Gt};
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::{connect, get, read_to_end};
use crate::common::webrtc::{Peer, PLAIN};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const KEY: &str = "WyQk0vWSTl4Ei7CqYqCRPh9T1Q4mXc2a";
const OTHER_KEY: &str = "another-key-of-32-bytes-or-more.";
const DIRECT: &str = "-tcpForwardFallback=false";
/// What a client says that is refused.
const LOCKED_OUT: &str = "wrong keys came from this address too often";

/// A server, and a client with a private echo service in its file.
struct Ends {
    server: Gt,
    serving: Filed,
    remote: SocketAddr,
    stun: SocketAddr,
    _echo: Service,
}

fn ends() -> Ends {
    let echo = service::echo();
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun, local) = (server.addr(), server.stun_addr(), echo.addr);
    let text = move |key: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1, remoteSTUN: \"stun:{stun}\"}}\n\
             services:\n- {{local: \"tcp://{local}\", private: \"{key}\"}}\n"
        )
    };
    let mut serving = Filed::start("client", text, KEY);
    serving.gt.wait_for_tunnel();
    Ends {
        server,
        serving,
        remote,
        stun,
        _echo: echo,
    }
}

impl Ends {
    /// Starts a client that forwards with these options, by the server at `remote`.
    fn forwarding_by(&self, remote: SocketAddr, more: &str) -> (Gt, SocketAddr) {
        let mut forwarding = client(&format!(
            "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{} \
             -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 {more}",
            self.stun
        ));
        let addr = forwarding.forward_addr();
        (forwarding, addr)
    }

    fn forwarding(&self, more: &str) -> (Gt, SocketAddr) {
        self.forwarding_by(self.remote, more)
    }

    /// Starts a client with the key, and waits for its direct way, over which the connection that it returns goes.
    fn forwarding_directly(&self) -> (Gt, SocketAddr, TcpStream) {
        let (mut forwarding, addr) = self.forwarding(&format!("-tcpForwardKey {KEY}"));
        assert_echo(&mut connect(addr), b"through the server");
        forwarding.wait_for_direct_way();
        let mut direct = connect(addr);
        assert_echo(&mut direct, b"directly");
        (forwarding, addr, direct)
    }
}

#[test]
fn a_client_with_the_key_reaches_it_through_the_server_and_directly() {
    let ends = ends();
    let (mut forwarding, addr) = ends.forwarding(&format!("-tcpForwardKey {KEY}"));
    let mut relayed = connect(addr);
    assert_echo(&mut relayed, b"through the server");
    forwarding.wait_for_direct_way();
    let mut direct = connect(addr);
    assert_echo(&mut direct, b"directly");
    assert_echo(&mut relayed, &[7; 300_000]);
    assert_echo(&mut direct, &[7; 300_000]);
    // A half-close goes through the server.
    relayed.write_all(b"the end").unwrap();
    relayed.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut relayed), b"the end");
}

#[test]
fn a_key_may_be_in_a_file() {
    let ends = ends();
    let scratch = crate::common::scratch::Scratch::new();
    let file = scratch.file("key", format!("{KEY}\n"));
    let (_forwarding, addr) = ends.forwarding(&format!("-tcpForwardKeyFile {}", file.display()));
    assert_echo(&mut connect(addr), b"hello");
}

#[test]
fn a_client_with_another_key_or_none_does_not_reach_it() {
    let ends = ends();
    for (options, reason) in [
        (format!("-tcpForwardKey {OTHER_KEY}"), "the key is wrong"),
        (String::new(), ""),
    ] {
        for way in ["", DIRECT] {
            let (mut forwarding, addr) = ends.forwarding(&format!("{options} {way}"));
            let mut visitor = connect(addr);
            let _ = visitor.write_all(b"hello");
            let mut got = Vec::new();
            // Without a key, the client asks for a service that is published.
            let _ = visitor.read_to_end(&mut got);
            assert!(got.is_empty(), "{options} {way}: {got:?}");
            if !reason.is_empty() {
                forwarding.wait_for(reason);
            }
        }
    }
}

#[test]
fn wrong_keys_are_counted_and_refused() {
    let mut ends = ends();
    // A client tries a wrong key once on each way; the first connection of each goes through the server, if it may. A
    // direct path may have any of the machine's addresses.
    for (way, left) in [("", "for up to 10 minutes"), (DIRECT, " s more")] {
        let wrong = format!("-tcpForwardKey {OTHER_KEY} {way}");
        let is_refused = |_| {
            let (mut forwarding, addr) = ends.forwarding(&wrong);
            let mut got = Vec::new();
            let _ = connect(addr).read_to_end(&mut got);
            assert!(got.is_empty());
            let line = forwarding.wait_for("the private service of id1: ");
            let is_refused = !forwarding.lines_with(LOCKED_OUT).is_empty();
            assert!(is_refused || line.contains("the key is wrong"), "{line}");
            assert_eq!(forwarding.lines_with(left).is_empty(), !is_refused);
            is_refused
        };
        assert!((0..60).any(is_refused), "{way}");
    }
    ends.serving.gt.wait_for("too often: refused for 600s");
    // Another key makes a new start.
    ends.serving.reload(OTHER_KEY);
    for way in ["", DIRECT] {
        let (_forwarding, addr) = ends.forwarding(&format!("-tcpForwardKey {OTHER_KEY} {way}"));
        assert_echo(&mut connect(addr), b"hello");
    }
}

#[test]
fn a_client_that_the_rules_do_not_admit_is_told_so_on_both_ways() {
    let echo = service::echo();
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let _serving = client_of_id1(
        remote,
        &format!(
            "-remoteSTUN stun:{stun} -local tcp://{} -private {KEY} -allow 233.252.0.0/24",
            echo.addr
        ),
    );
    for way in ["", DIRECT] {
        let mut forwarding = client(&format!(
            "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
             -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 -tcpForwardKey {KEY} {way}"
        ));
        let addr = forwarding.forward_addr();
        for count in 1..=4 {
            let mut got = Vec::new();
            let _ = connect(addr).read_to_end(&mut got);
            assert!(got.is_empty());
            forwarding.wait_for_lines("the key is right, but the service's allow", count);
        }
    }
}

#[test]
fn a_connection_that_may_not_use_the_server_waits_for_the_next_attempt() {
    let echo = service::echo();
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 -tcpForwardKey {KEY} {DIRECT}"
    ));
    let mut visitor = connect(forwarding.forward_addr());
    forwarding.wait_for("no direct connection to id1");
    let local = format!(
        "-remoteSTUN stun:{stun} -local tcp://{} -private {KEY}",
        echo.addr
    );
    let _serving = client_of_id1(remote, &local);
    assert_echo(&mut visitor, b"at last");
}

#[test]
fn a_corrected_key_is_tried_at_once() {
    let ends = ends();
    let (remote, stun) = (ends.remote, ends.stun);
    let text = move |key: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id2, secret: secret2, remoteSTUN: \"stun:{stun}\", \
             tcpForwardAddr: \"127.0.0.1:0\", tcpForwardHostPrefix: id1, tcpForwardKey: \"{key}\"}}\n"
        )
    };
    let mut forwarding = Filed::start("client", text, OTHER_KEY);
    let addr = forwarding.gt.forward_addr();
    for _ in 0..8 {
        let mut got = Vec::new();
        let _ = connect(addr).read_to_end(&mut got);
        assert!(got.is_empty());
    }
    forwarding
        .gt
        .wait_for("a reload with another key tries that at once");
    forwarding.reload(KEY);
    assert_echo(&mut connect(addr), b"hello");
}

#[test]
fn visitors_and_peers_of_the_server_find_nothing() {
    let ends = ends();
    for path in ["/", "/anything"] {
        assert_eq!(get(ends.remote, "id1.example.com", path).status, 404);
    }
    for label in ["", "gt:id1", "anything"] {
        let peer = Peer::new();
        let channel = peer.channel(label);
        assert_eq!(
            peer.offer_to(ends.remote, "id1.example.com", PLAIN, |offer| offer),
            200
        );
        // It opens the connection, and no service is behind the channel.
        assert!(channel.read_to_end().is_empty(), "{label:?}");
    }
    let peer = Peer::new();
    let channel = peer.channel("gt:/private");
    assert_eq!(
        peer.offer_to(ends.remote, "id1.example.com", PLAIN, |offer| offer),
        200
    );
    channel.wait_open();
    channel.send(&[1; 33]);
    assert_eq!(channel.read_to_end(), [0, 1, 0, 0, 0, 0], "an unknown key");
}

#[test]
fn a_changed_key_ends_the_connections_of_the_one_before() {
    let mut ends = ends();
    let (mut forwarding, addr) = ends.forwarding(&format!("-tcpForwardKey {KEY}"));
    let mut relayed = connect(addr);
    assert_echo(&mut relayed, b"through the server");
    forwarding.wait_for_direct_way();
    let mut direct = connect(addr);
    assert_echo(&mut direct, b"directly");
    ends.serving.reload(KEY);
    assert_echo(&mut relayed, b"the same key");
    assert_echo(&mut direct, b"the same key");
    ends.serving.reload(OTHER_KEY);
    for visitor in [&mut relayed, &mut direct] {
        let end = visitor.read(&mut [0]);
        assert!(end.is_err(), "a cut does not look complete: {end:?}");
    }
    let _ = connect(addr).read(&mut [0]);
    forwarding.wait_for("the key is wrong");
    let (_forwarding, addr) = ends.forwarding(&format!("-tcpForwardKey {OTHER_KEY}"));
    assert_echo(&mut connect(addr), b"the new key");
}

#[test]
fn a_process_that_is_replaced_takes_no_connections_with_a_removed_key() {
    let mut ends = ends();
    let (mut forwarding, addr, mut before) = ends.forwarding_directly();
    let _successor = ends.serving.restart(OTHER_KEY);
    // The old process still has this one, and takes no others.
    assert_echo(&mut before, b"it goes on");
    let mut got = Vec::new();
    let mut after = connect(addr);
    let _ = after.write_all(b"hello");
    let _ = after.read_to_end(&mut got);
    assert!(got.is_empty(), "{got:?}");
    forwarding.wait_for("the key is wrong");
    assert_echo(&mut before, b"it goes on still");
}

#[test]
fn a_process_that_is_replaced_leaves_new_connections_to_the_other_one() {
    let mut ends = ends();
    let (_forwarding, addr, mut before) = ends.forwarding_directly();
    let _successor = ends.serving.restart(KEY);
    for _ in 0..5 {
        assert_echo(&mut connect(addr), b"a new one");
    }
    assert_echo(&mut before, b"it goes on");
}

#[test]
fn peers_reach_other_services_only_with_a_stun_server() {
    let echo = service::echo();
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, local) = (server.addr(), echo.addr);
    let text = move |stun: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1{stun}}}\n\
             services:\n- {{local: \"http://{local}\"}}\n- {{local: \"tcp://{local}\", private: \"{KEY}\"}}\n"
        )
    };
    let mut serving = Filed::start("client", text, "");
    serving.gt.wait_for_tunnel();
    let forwarding = |more: &str| {
        let mut forwarding = client(&format!(
            "-remote tcp://{remote} -id id2 -secret secret2 \
             -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 {more}"
        ));
        let addr = forwarding.forward_addr();
        (forwarding, addr)
    };
    for way in ["", DIRECT] {
        let (_private, addr) = forwarding(&format!("-tcpForwardKey {KEY} {way}"));
        assert_echo(&mut connect(addr), b"the private one");
        let (_forwarding, addr) = forwarding(way);
        let mut other = connect(addr);
        let _ = other.write_all(b"hello");
        let mut got = Vec::new();
        let _ = other.read_to_end(&mut got);
        assert!(got.is_empty(), "{way}: {got:?}");
    }
    let peer = Peer::new();
    let channel = peer.channel("");
    let status = peer.offer_to(remote, "id1.example.com", PLAIN, |offer| offer);
    assert_eq!(status, 200);
    assert!(channel.read_to_end().is_empty());
    serving.reload(&format!(", remoteSTUN: \"stun:{}\"", server.stun_addr()));
    for way in ["", DIRECT] {
        let (_forwarding, addr) = forwarding(way);
        assert_echo(&mut connect(addr), b"the other one");
    }
}

#[test]
fn a_connection_that_is_cut_on_its_way_does_not_look_complete() {
    let ends = ends();
    let way = Forwarder::start(0, ends.remote);
    // No direct way by a STUN server: the forwarding client's offers go by the same way.
    let (_forwarding, addr) = ends.forwarding_by(way.addr, &format!("-tcpForwardKey {KEY}"));
    let mut visitor = connect(addr);
    assert_echo(&mut visitor, b"hello");
    way.cut();
    let end = visitor.read(&mut [0]);
    assert!(end.is_err(), "an end without TLS's own is a cut: {end:?}");
    drop(ends.server);
}

#[test]
fn a_key_is_printed_by_a_command_and_checked() {
    let output = gt("keygen -shared");
    let key = String::from_utf8(output.stdout).unwrap();
    assert_eq!(key.trim().len(), 43, "{key}");
    for (service, why) in [
        ("-private short", "easy to guess"),
        ("-private aaaaaaaaaaaaaaaaaaaaaaaa", "easy to guess"),
        (
            &*format!("-private {KEY} -hostPrefix x"),
            "remove its hostPrefix",
        ),
        (
            &*format!("-private {KEY} -remoteTCPPort 22"),
            "remove its remoteTCPPort",
        ),
        (
            &*format!("-private {KEY} -privateFile /dev/null"),
            "both name the key",
        ),
        (
            &*format!("-private {KEY} -local tcp://127.0.0.1:23 -private {KEY}"),
            "have the same key",
        ),
    ] {
        let line = format!("check client -remote h -id id1 -local tcp://127.0.0.1:22 {service}");
        let output = gt(&line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{service}: {error}");
        assert!(error.contains(why), "{service}: {error}");
        assert!(!error.contains(KEY), "{error}");
    }
    let line = format!("check client -remote h -id id1 -local tcp://127.0.0.1:22 -private {KEY}");
    let output = gt(&line);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
