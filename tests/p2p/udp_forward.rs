//! Datagrams that one client forwards to another: through the server at once, directly as soon as that is possible.

use crate::common::gt::{client, client_of_id1, gt, server, Gt};
use crate::common::udp::{UdpService, UdpVisitor};
use std::net::SocketAddr;

const KEY: &str = "WyQk0vWSTl4Ei7CqYqCRPh9T1Q4mXc2a";
/// Up to the largest datagram of IPv4, and around the largest that fits one packet.
const LENGTHS: [usize; 9] = [0, 1, 64, 1180, 1181, 1452, 2361, 9000, 65_507];

struct Ends {
    server: Gt,
    serving: Gt,
    forwarding: Gt,
    addr: SocketAddr,
    service: UdpService,
}

/// Starts a server, a client with a UDP service and one that forwards to it.
fn ends(service: UdpService, of_server: &str, of_service: &str, of_forward: &str) -> Ends {
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0 {of_server}"
    ));
    let (remote, stun) = (server.addr(), server.stun_addr());
    let local = format!(
        "-remoteSTUN stun:{stun} -local udp://{} {of_service}",
        service.addr
    );
    let serving = client_of_id1(remote, &local);
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -udpForwardAddr 127.0.0.1:0 -udpForwardHostPrefix id1 {of_forward}"
    ));
    let addr = forwarding.udp_forward_addr();
    Ends {
        server,
        serving,
        forwarding,
        addr,
        service,
    }
}

fn private(service: UdpService) -> Ends {
    ends(
        service,
        "",
        &format!("-private {KEY}"),
        &format!("-udpForwardKey {KEY}"),
    )
}

fn datagram(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + length) as u8).collect()
}

fn assert_all_lengths(visitor: &UdpVisitor) {
    for length in LENGTHS {
        visitor.insist_on_echo(&datagram(length));
    }
}

fn status(of: &Gt) -> String {
    let output = gt("status");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = format!("gt: process {} udpForwardAddr=", of.pid());
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    let line = lines.next().unwrap_or_else(|| panic!("{text}"));
    line.to_owned()
}

#[test]
fn datagrams_go_through_the_server_at_once_and_a_flow_moves_to_the_direct_way() {
    let mut ends = private(UdpService::echo());
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(visitor.ask(b"at once"), b"at once");
    let (_, relayed) = ends.service.next();
    ends.forwarding.wait_for_direct_way();
    // The service sees the same visitor at another port from then on.
    let (_, direct) = crate::common::eventually("the flow to move", || {
        visitor.insist(b"again");
        let (datagram, from) = ends.service.next();
        (from != relayed).then_some((datagram, from))
    });
    assert_all_lengths(&visitor);
    let status = status(&ends.forwarding);
    assert!(status.contains(" state=direct way="), "{status}");
    assert!(
        status.contains(" direct=1 relayed=1 relaying=0"),
        "{status}"
    );
    // All of these came by the flow that is direct.
    while let Ok((_, from)) = ends.service.seen.try_recv() {
        assert_eq!(from, direct);
    }
}

#[test]
fn datagrams_of_all_lengths_go_through_the_server() {
    let mut ends = private(UdpService::echo());
    // Datagrams of the peers would have to pass the client that is stopped here and there.
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(visitor.ask(b"first"), b"first");
    assert_all_lengths(&visitor);
    ends.forwarding.wait_for_direct_way();
}

#[test]
fn each_source_is_a_flow_and_gets_its_own_answers() {
    let ends = private(UdpService::echo());
    let visitors: Vec<_> = (0..20)
        .map(|_| UdpVisitor::from("127.0.0.1", ends.addr))
        .collect();
    for (number, visitor) in visitors.iter().enumerate() {
        visitor.send(format!("question {number}").as_bytes());
    }
    for (number, visitor) in visitors.iter().enumerate() {
        assert_eq!(visitor.receive(), format!("question {number}").as_bytes());
    }
}

#[test]
fn a_published_service_is_reached_by_its_port() {
    let port = crate::common::ports::free_port();
    let echo = UdpService::echo();
    // Peers are introduced at a host prefix.
    let web = crate::common::service::http(0, "web");
    let mut ends = ends(
        echo,
        &format!("-udpRange {port}"),
        &format!("-remoteUDPPort {port} -local http://{}", web.addr),
        &format!("-udpForwardPort {port}"),
    );
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(visitor.insist(b"at once"), b"at once");
    ends.forwarding.wait_for_direct_way();
    assert_all_lengths(&visitor);
}

#[test]
fn direct_flows_need_no_server_and_new_ones_come() {
    let mut ends = private(UdpService::echo());
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(visitor.ask(b"at once"), b"at once");
    ends.forwarding.wait_for_direct_way();
    ends.server.kill();
    assert_eq!(visitor.insist(b"it goes on"), b"it goes on");
    let other = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(other.insist(b"a new one"), b"a new one");
}

#[test]
fn a_flow_goes_on_through_the_server_when_the_direct_way_has_ended() {
    let mut ends = private(UdpService::echo());
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(visitor.ask(b"at once"), b"at once");
    ends.forwarding.wait_for_direct_way();
    visitor.insist(b"directly");
    let remote = ends.server.addr();
    ends.serving.stop();
    let stun = ends.server.stun_addr();
    let local = format!(
        "-remoteSTUN stun:{stun} -local udp://{} -private {KEY}",
        ends.service.addr
    );
    let _again = client_of_id1(remote, &local);
    assert_eq!(visitor.insist(b"again"), b"again");
    ends.forwarding.wait_for("the direct way to id1 has ended");
}

#[test]
fn another_key_gets_no_answer() {
    let mut ends = ends(
        UdpService::echo(),
        "",
        &format!("-private {KEY}"),
        "-udpForwardKey another-key-of-32-bytes-or-more.",
    );
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    visitor.send(b"hello");
    ends.forwarding.wait_for("the key is wrong");
    assert!(ends.service.is_silent());
}

#[test]
fn a_service_that_cannot_be_reached_is_tried_with_pauses_and_warned_of_once() {
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2");
    let remote = server.addr();
    let local = format!("-local udp://nosuch.invalid:7001 -private {KEY}");
    let mut serving = client_of_id1(remote, &local);
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 \
         -udpForwardAddr 127.0.0.1:0 -udpForwardHostPrefix id1 -udpForwardKey {KEY}"
    ));
    let visitor = UdpVisitor::from("127.0.0.1", forwarding.udp_forward_addr());
    visitor.send(b"one");
    forwarding.wait_for("it cannot reach the service, as its log tells");
    serving.wait_for("service udp://nosuch.invalid:7001: ");
    for _ in 0..3 {
        visitor.send(b"more");
        assert!(visitor.is_silent());
    }
    let warnings = forwarding.lines_with("it cannot reach the service");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let status = status(&forwarding);
    let counts = |name: &str| {
        let count = status.split(' ').find_map(|it| it.strip_prefix(name));
        count.unwrap().parse::<u32>().unwrap()
    };
    let tries = counts("direct=") + counts("relayed=");
    assert!((1..=9).contains(&tries), "{status}");
}

#[test]
fn a_port_that_the_other_client_does_not_have_costs_one_connection_of_peers() {
    let port = crate::common::ports::free_port();
    let web = crate::common::service::http(0, "web");
    let mut ends = ends(
        UdpService::echo(),
        &format!("-udpRange {port}"),
        &format!("-remoteUDPPort {port} -local http://{}", web.addr),
        "-udpForwardPort 1 -udpForwardFallback=false",
    );
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    // Each flow that ends without a way makes way for a new one.
    let sending = |_: u32| {
        visitor.send(b"hello");
        visitor.is_silent()
    };
    assert!((0..20).all(sending));
    ends.forwarding
        .wait_for("the other client has no such service");
    for of in [&ends.forwarding, &ends.serving] {
        let peers = of.lines_with("peer connected in");
        assert_eq!(peers.len(), 1, "{peers:?}");
    }
    let warnings = ends.forwarding.lines_with("has no such service");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_restart_keeps_the_socket() {
    let mut ends = private(UdpService::echo());
    let visitor = UdpVisitor::from("127.0.0.1", ends.addr);
    assert_eq!(visitor.ask(b"before"), b"before");
    let _successor = ends.forwarding.restart();
    assert_eq!(visitor.insist(b"after"), b"after");
}
