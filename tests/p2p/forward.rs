//! The ways of forwarded connections: through the server at once, directly as soon as that is possible.

use crate::common::eventually;
use crate::common::filed::Filed;
use crate::common::gt::{client, client_of_id1, gt, server, Gt};
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::connect;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

/// A server, a client with an echo service, and one that forwards to it.
struct Ends {
    server: Gt,
    serving: Gt,
    forwarding: Gt,
    /// The forwarding address.
    addr: SocketAddr,
    _echo: Service,
}

fn ends(more: &str) -> Ends {
    let echo = service::echo();
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let local = format!("-local http://{} -remoteSTUN stun:{stun}", echo.addr);
    let serving = client_of_id1(remote, &local);
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 {more}"
    ));
    let addr = forwarding.forward_addr();
    Ends {
        server,
        serving,
        forwarding,
        addr,
        _echo: echo,
    }
}

/// Returns what `gt status` says of a process. Other tests have processes, too.
fn status(of: &Gt) -> String {
    let output = gt("status");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = format!("gt: process {} tcpForwardAddr=", of.pid());
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    let line = lines.next().unwrap_or_else(|| panic!("{text}"));
    line.to_owned()
}

impl Ends {
    fn visit(&self) -> TcpStream {
        connect(self.addr)
    }

    /// Checks how many connections have taken which way.
    fn assert_counts(&self, direct: u32, relayed: u32) {
        let status = status(&self.forwarding);
        let counts = format!(" direct={direct} relayed={relayed} ");
        assert!(status.contains(&counts), "{counts} {status}");
    }
}

#[test]
fn the_first_connection_goes_through_the_server_and_later_ones_directly() {
    let mut ends = ends("");
    let idle = status(&ends.forwarding);
    let addr = ends.addr;
    assert_eq!(
        idle,
        format!("{addr} to=id1 state=relay way=server direct=0 relayed=0 relaying=0")
    );
    let mut first = ends.visit();
    assert_echo(&mut first, b"at once");
    ends.assert_counts(0, 1);
    let line = ends.forwarding.wait_for_direct_way();
    assert!(
        line.contains("way=") && line.contains("loss=0.0%"),
        "{line}"
    );
    let mut second = ends.visit();
    assert_echo(&mut second, b"directly");
    ends.assert_counts(1, 1);
    assert_echo(&mut first, b"still through the server");
    let status = status(&ends.forwarding);
    let start = format!("{addr} to=id1 state=direct+relay way=");
    assert!(status.starts_with(&start), "{status}");
    assert!(status.contains(" relaying=1"), "{status}");
    drop(first);
    eventually("nothing to be relayed", || {
        let status = self::status(&ends.forwarding);
        let is_direct = status.contains(" state=direct way=") && status.ends_with(" relaying=0");
        is_direct.then_some(())
    });
}

#[test]
fn direct_connections_need_no_server() {
    let mut ends = ends("");
    assert_echo(&mut ends.visit(), b"through the server");
    ends.forwarding.wait_for_direct_way();
    let mut before = ends.visit();
    assert_echo(&mut before, b"directly");
    ends.server.kill();
    assert_echo(&mut before, b"it goes on");
    assert_echo(&mut ends.visit(), b"new ones come");
}

#[test]
fn connections_go_through_the_server_again_when_the_direct_way_has_ended() {
    let mut ends = ends("-webrtcConnectionIdleTimeout 300ms");
    assert_echo(&mut ends.visit(), b"through the server");
    ends.forwarding.wait_for_direct_way();
    // A peer without channels ends.
    ends.forwarding.wait_for("the direct way to id1 has ended");
    assert_echo(&mut ends.visit(), b"through the server again");
    ends.assert_counts(0, 2);
    ends.serving.stop();
    ends.forwarding.wait_for_gone_peers(2);
    let _refused = ends.visit();
    ends.forwarding.wait_for("no direct connection to id1: ");
    let status = status(&ends.forwarding);
    assert!(status.contains(" state=relay way=server "), "{status}");
    assert!(status.contains("s: no direct connection: "), "{status}");
}

/// A client whose file tests change forwards to the ends' echo service; a reload leaves its peer or closes it.
#[test]
fn a_reload_keeps_the_peer_unless_the_forwarder_changes() {
    let mut ends = ends("");
    let (remote, stun) = (ends.server.addr(), ends.server.stun_addr());
    let text = move |more: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id2, secret: secret2, remoteSTUN: \"stun:{stun}\", \
             tcpForwardAddr: \"127.0.0.1:0\", tcpForwardHostPrefix: id1{more}}}\n"
        )
    };
    let mut filed = Filed::start("client", text, "");
    let addr = filed.gt.forward_addr();
    assert_echo(&mut connect(addr), b"through the server");
    filed.gt.wait_for_direct_way();
    let mut before = connect(addr);
    assert_echo(&mut before, b"directly");
    filed.reload(", webrtcConnectionIdleTimeout: 11m");
    assert_echo(&mut connect(addr), b"directly, by the same peer");
    let status = status(&filed.gt);
    assert!(status.contains(" state=direct "), "{status}");
    // A connection goes on by the peer of a forwarder that has changed, and then the peer ends.
    let gone = ends.serving.gone_peers().len();
    filed.reload(", webrtcConnectionIdleTimeout: 11m, tcpForwardFallback: false");
    assert_echo(&mut before, b"it goes on");
    assert_echo(&mut connect(addr), b"by a new peer");
    assert_eq!(ends.serving.gone_peers().len(), gone);
    drop(before);
    ends.serving.wait_for_gone_peers(gone + 1);
}

#[test]
fn a_client_that_stops_tells_the_other_end() {
    let mut ends = ends("");
    assert_echo(&mut ends.visit(), b"through the server");
    ends.forwarding.wait_for_direct_way();
    let mut direct = ends.visit();
    assert_echo(&mut direct, b"directly");
    ends.forwarding.stop();
    let line = ends.serving.wait_for("peer gone: ");
    assert!(line.contains("the peer has ended it"), "{line}");
    let end = direct.read(&mut [0]);
    assert!(end.is_err(), "a cut does not look complete: {end:?}");
}

#[test]
fn visitors_of_a_client_that_stops_see_a_cut() {
    let mut ends = ends("");
    let mut relayed = ends.visit();
    assert_echo(&mut relayed, b"through the server");
    ends.forwarding.wait_for_direct_way();
    let mut direct = ends.visit();
    assert_echo(&mut direct, b"directly");
    ends.serving.stop();
    for visitor in [&mut relayed, &mut direct] {
        let end = visitor.read(&mut [0]);
        assert!(end.is_err(), "a cut does not look complete: {end:?}");
    }
}

#[test]
fn status_needs_a_client_that_forwards() {
    let output = gt("status now");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("Write gt status"), "{error}");
}
