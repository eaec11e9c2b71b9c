//! Forwarding to another client over paths that break and lose packets. Needs root, ip, nft and unshare.

use super::nat::{assert_served, internet, start, start_client};
use crate::common::gt::Gt;
use crate::common::nat::{Internet, Nat};
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::{eventually_within, PATIENCE};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

const KEY: &str = "WyQk0vWSTl4Ei7CqYqCRPh9T1Q4mXc2a";
/// Number of datagrams that the visitor sends.
const SENT: usize = 500;

/// Runs a test of this file in a namespace.
fn within(internet: &Internet, place: &str, test: &str) -> Process {
    let mut command = Command::new("ip");
    let program = std::env::current_exe().expect("this program");
    command.args(["netns", "exec", &internet.place(place)]);
    command.arg(program);
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    Process::spawn(test, Scratch::new(), &mut command)
}

/// The service in the first home: it answers each datagram with itself.
#[test]
#[ignore = "run by the others"]
fn echo() {
    let socket = UdpSocket::bind("127.0.0.1:9000").expect("a socket");
    println!("it answers");
    let mut buf = [0; 2000];
    while let Ok((n, from)) = socket.recv_from(&mut buf) {
        let _ = socket.send_to(&buf[..n], from);
    }
}

/// The visitor in the second home: it counts answers.
#[test]
#[ignore = "run by the others"]
fn visitor() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect("127.0.0.1:8001").expect("connect");
    let pause = Duration::from_millis(2);
    socket.set_read_timeout(Some(pause)).expect("a timeout");
    let mut answers = std::collections::HashSet::new();
    let mut buf = [0; 2000];
    let mut receive = |answers: &mut std::collections::HashSet<u16>| match socket.recv(&mut buf) {
        Ok(1000) => answers.insert(u16::from_be_bytes([buf[0], buf[1]])),
        Ok(n) => panic!("{n} bytes"),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::WouldBlock);
            false
        }
    };
    let mut datagram = [0; 1000];
    for number in 0..u16::try_from(SENT).expect("a number") {
        datagram[..2].copy_from_slice(&number.to_be_bytes());
        let _ = socket.send(&datagram);
        receive(&mut answers);
    }
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    while receive(&mut answers) {}
    println!("answers={}", answers.len());
}

/// Another visitor in the second home: it asks on and on, and says each answer.
#[test]
#[ignore = "run by the others"]
fn insistent_visitor() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect("127.0.0.1:8001").expect("connect");
    let pause = Duration::from_millis(100);
    socket.set_read_timeout(Some(pause)).expect("a timeout");
    for number in 0u32.. {
        let _ = socket.send(&number.to_be_bytes());
        let mut answer = [0; 4];
        if socket.recv(&mut answer).is_ok() {
            println!("answer {}", u32::from_be_bytes(answer));
            std::thread::sleep(pause);
        }
    }
}

/// Starts a UDP service in the first home, private, and a client in the second one that forwards to it. Returns
/// that client, and what else has to run.
fn start_udp(internet: &Internet, home: &Scratch) -> (Gt, (Process, (Gt, Gt), Gt)) {
    let mut echo = within(internet, "home-a", "forward::echo");
    echo.wait_for("it answers");
    let ends = start(internet, home);
    let line = format!("-id id3 -secret secret3 -local udp://127.0.0.1:9000 -private {KEY}");
    let mut serving = start_client(internet, "home-a", &line);
    serving.wait_for_tunnel();
    let line = format!(
        "-id id2 -secret secret2 -udpForwardAddr 127.0.0.1:8001 -udpForwardHostPrefix id3 \
         -udpForwardKey {KEY}"
    );
    let mut forwarding = start_client(internet, "home-b", &line);
    forwarding.udp_forward_addr();
    (forwarding, (echo, ends, serving))
}

fn answers(internet: &Internet) -> usize {
    let mut visitor = within(internet, "home-b", "forward::visitor");
    let line = visitor.wait_for("answers=");
    let (_, count) = line.split_once("answers=").expect("a count");
    count.trim().parse().expect("a number")
}

#[test]
fn loss_costs_datagrams_and_none_waits_for_another() {
    let Some(internet) = internet(Nat::PortRestricted, Nat::PortRestricted) else {
        return;
    };
    let home = Scratch::new();
    let (mut forwarding, _others) = start_udp(&internet, &home);
    // It begins through the server, and moves.
    assert!(answers(&internet) > SENT * 9 / 10);
    forwarding.wait_for("the way to id3 is direct");
    internet.shell(
        "ip netns exec $N-router-b nft insert rule ip filter forward meta l4proto udp \
         numgen random mod 100 '<' 5 drop",
    );
    let got = answers(&internet);
    // Nothing is sent again: about a tenth is lost there and back.
    assert!((SENT * 3 / 4..SENT).contains(&got), "{got} of {SENT}");
}

#[test]
fn a_flow_leaves_a_path_that_is_dead_long_before_the_peer_is_given_up() {
    let Some(internet) = internet(Nat::PortRestricted, Nat::PortRestricted) else {
        return;
    };
    let home = Scratch::new();
    let (mut forwarding, _others) = start_udp(&internet, &home);
    let mut visitor = within(&internet, "home-b", "forward::insistent_visitor");
    visitor.wait_for("answer ");
    forwarding.wait_for("the way to id3 is direct");
    let before = visitor.lines_with("answer ").len();
    visitor.wait_for_lines("answer ", before + 20);
    internet
        .shell("ip netns exec $N-router-b nft insert rule ip filter forward meta l4proto udp drop");
    let before = visitor.lines_with("answer ").len();
    visitor.wait_for_lines("answer ", before + 10);
    let ended = forwarding.lines_with("the direct way to id3 has ended");
    assert!(ended.is_empty(), "it had to end first: {ended:?}");
    // It comes back once the path works.
    internet.shell(
        "ip netns exec $N-router-b nft delete rule ip filter forward handle $(ip netns exec \
         $N-router-b nft -a list chain ip filter forward | sed -n 's/.*udp drop # handle //p' | head -n 1)",
    );
    let before = visitor.lines_with("answer ").len();
    visitor.wait_for_lines("answer ", before + 10);
    assert!(forwarding.gone_peers().is_empty());
}

#[test]
fn connections_go_through_the_server_as_soon_as_the_path_is_broken() {
    let Some(internet) = internet(Nat::PortRestricted, Nat::PortRestricted) else {
        return;
    };
    let home = Scratch::new();
    let _others = start(&internet, &home);
    let line = "-id id2 -secret secret2 -tcpForwardAddr 127.0.0.1:8000 -tcpForwardHostPrefix id1";
    let mut forwarding = start_client(&internet, "home-b", line);
    forwarding.forward_addr();
    let url = ["http://127.0.0.1:8000/it.txt"];
    assert_served(&internet, &url);
    forwarding.wait_for_direct_way();
    assert_served(&internet, &url);
    internet
        .shell("ip netns exec $N-router-b nft insert rule ip filter forward meta l4proto udp drop");
    // ICE does not know yet.
    assert_served(&internet, &url);
    assert!(forwarding
        .lines_with("the direct way to id1 has ended")
        .is_empty());
    // QUIC goes on for 30 s, in case that the path comes back.
    eventually_within(3 * PATIENCE, "the direct way to end", || {
        let ended = forwarding.lines_with("the direct way to id1 has ended");
        (!ended.is_empty()).then_some(())
    });
    assert_served(&internet, &url);
    internet.shell(
        "ip netns exec $N-router-b nft delete rule ip filter forward handle $(ip netns exec \
         $N-router-b nft -a list chain ip filter forward | sed -n 's/.*udp drop # handle //p' | head -n 1)",
    );
    forwarding.wait_for_lines("the way to id1 is direct", 2);
}
