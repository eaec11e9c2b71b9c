//! Several ways to one server: the first that works up to the server's answer is used, and a tunnel moves
//! to a better one without a loss.

use crate::common::eventually;
use crate::common::forwarder::Forwarder;
use crate::common::gt::{client, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::{connect, get};
use std::io::{Read, Write};
use std::net::SocketAddr;

/// Starts a client of id1 with these ports of `localhost` as the ways to its server.
fn client_by(ways: &[u16], more: &str) -> Gt {
    let remotes = ways
        .iter()
        .map(|port| format!("-remote tcp://localhost:{port} "));
    client(&format!(
        "{}-id id1 -secret secret1 -reconnectDelay 100ms -logLevel debug {more}",
        remotes.collect::<String>()
    ))
}

/// What a client says when it uses another way.
fn by(port: u16) -> String {
    format!("connected by tcp://localhost:{port}")
}

/// A server, with an echo behind the TCP port of its client.
fn echo_server() -> (Gt, SocketAddr, Service, String, SocketAddr) {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let echo = service::echo();
    let local = format!("-local tcp://{} -remoteTCPPort {port}", echo.addr);
    let visitors = SocketAddr::from(([127, 0, 0, 1], port));
    (server, addr, echo, local, visitors)
}

#[test]
fn a_way_that_accepts_and_never_answers_delays_the_next_one_only() {
    let portal = service::silent();
    let mut server = server_of_id1("");
    let web = service::http(0, "web");
    let local = format!("-local http://{}", web.addr);
    let (dead, addr) = (free_port(), server.addr());
    let mut client = client_by(&[dead, portal.addr.port(), addr.port()], &local);
    // The limit of an attempt is as long as half of the patience here, and no other attempt follows.
    client.wait_for_first_tunnel();
    let line = client.wait_for(&by(addr.port()));
    let silent = format!("tcp://localhost:{} did not answer", portal.addr.port());
    assert!(line.contains(&silent), "{line}");
    assert!(
        line.contains(&format!("tcp://localhost:{dead}: cannot reach")),
        "{line}"
    );
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    assert_eq!((client.attempts(), server.opened().len()), (1, 1));
}

#[test]
fn a_portal_that_answers_everything_with_its_page_is_no_server() {
    let page = Service::start(0, |mut stream| {
        let _ = stream.read(&mut [0; 1024])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Log in</html>")
    });
    let (web, mut server) = (service::http(0, "web"), server_of_id1(""));
    let (portal, addr) = (page.addr.port(), server.addr());
    let mut client = client(&format!(
        "-remote tcp://localhost:{portal} -remote localhost:{} -id id1 -secret secret1 -local http://{}",
        addr.port(),
        web.addr
    ));
    client.wait_for_first_tunnel();
    let line = client.wait_for(&by(addr.port()));
    let why = format!("tcp://localhost:{portal}: not a gt server: ");
    assert!(line.contains(&why), "{line}");
    assert_eq!(get(addr, "id1.a", "/").status, 200);
}

#[test]
fn several_ways_make_one_tunnel() {
    let (mut server, addr, _echo, local, visitors) = echo_server();
    let other = Forwarder::start(0, addr);
    let mut client = client_by(&[other.addr.port(), addr.port()], &local);
    client.wait_for_tunnel();
    assert_echo(&mut connect(visitors), b"by one way");
    client.stop();
    server.stop();
    assert_eq!(server.opened().len(), 1);
    assert_eq!(client.lines_with("connected by").len(), 0);
}

#[test]
fn a_tunnel_moves_to_a_better_way_and_its_streams_go_on() {
    let (mut server, addr, _echo, local, visitors) = echo_server();
    let better = free_port();
    let mut client = client_by(&[better, addr.port()], &local);
    client.wait_for_tunnel();
    let mut stream = connect(visitors);
    assert_echo(&mut stream, b"before");

    let forwarder = Forwarder::start(better, addr);
    client.signal("USR1");
    client.wait_for(&by(better));
    server.wait_for_opened(2);
    assert_echo(&mut stream, b"after");
    assert_echo(&mut connect(visitors), b"a new one");
    assert!(client.lines_with("tunnel closed").is_empty());
    drop(stream);
    // The first tunnel has nothing to do any more.
    client.wait_for("tunnel closed connID=1");
    assert_echo(&mut connect(visitors), b"by the better way");
    drop(forwarder);
    assert_eq!(server.opened().len(), 2);
}

#[test]
fn a_client_that_may_have_one_tunnel_moves_to_a_better_way_too() {
    let port = free_port();
    let limits = format!("-connections 1 -tcpNumber 1 -tcpRange {port}");
    let (mut server, echo) = (server_of_id1(&limits), service::echo());
    let (better, addr) = (free_port(), server.addr());
    let visitors = SocketAddr::from(([127, 0, 0, 1], port));
    let local = format!("-local tcp://{} -remoteTCPPort {port}", echo.addr);
    let mut client = client_by(&[better, addr.port()], &local);
    client.wait_for_tunnel();
    let mut stream = connect(visitors);
    assert_echo(&mut stream, b"before");
    let _forwarder = Forwarder::start(better, addr);
    client.signal("USR1");
    client.wait_for(&format!("connected to tcp://localhost:{better} "));
    assert_echo(&mut stream, b"after");
    assert_echo(&mut connect(visitors), b"by the better way");
}

#[test]
fn after_a_loss_the_known_way_is_used_at_once_and_then_a_better_one() {
    let (_server, addr, _echo, local, visitors) = echo_server();
    let (better, known) = (free_port(), Forwarder::start(0, addr));
    let mut client = client_by(&[better, known.addr.port()], &local);
    client.wait_for(&by(known.addr.port()));
    let _forwarder = Forwarder::start(better, addr);
    known.cut();
    client.wait_for(&by(better));
    let lines = client.lines_with("connected to tcp://localhost:");
    let used = |port: u16| format!("connected to tcp://localhost:{port} ");
    let expected = [known.addr.port(), known.addr.port(), better];
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, port) in lines.iter().zip(expected) {
        assert!(line.contains(&used(port)), "{line}");
    }
    assert_echo(&mut connect(visitors), b"by the better way");
}

#[test]
fn a_hello_that_is_answered_too_late_leaves_no_second_tunnel() {
    let (mut server, addr, _echo, local, visitors) = echo_server();
    let slow = Forwarder::holding(addr);
    // Visitors in a row would have it open others.
    let alone = format!("{local} -remoteConnections 1");
    let mut client = client_by(&[slow.addr.port(), addr.port()], &alone);
    client.wait_for(&by(addr.port()));
    client.wait_for_tunnel();
    slow.release();
    for round in 0..20 {
        assert_echo(&mut connect(visitors), format!("round {round}").as_bytes());
    }
    // Closed when it was answered, or ended before.
    eventually("the surplus to end", || {
        let opened = server.opened().len();
        let closed = server.lines_with("tunnel closed").len();
        (opened == closed + 1).then_some(())
    });
    assert_echo(&mut connect(visitors), b"by the way that was used");
    client.stop();
    server.stop();
}

#[test]
fn a_refusal_is_the_servers_over_any_way() {
    let mut server = server_of_id1("-reconnectTimes 0");
    let addr = server.addr();
    let other = Forwarder::start(0, addr);
    let ways = [other.addr.port(), addr.port()];
    let mut client = client_by(&ways, "-id other -local http://127.0.0.1:1");
    client.wait_for_bad_login();
    client.wait_for_failures(2);
    client.stop();
    assert_eq!(server.lines_with("other").len(), client.attempts());
}

#[test]
fn the_failures_of_all_ways_are_one_message() {
    let portal = Service::start(0, |_| Ok(()));
    let (dead, closing) = (free_port(), portal.addr.port());
    let mut client = client_by(&[dead, closing], "-local http://127.0.0.1:1");
    let line = client.wait_for_failure();
    for text in [
        "no way to the server works; tcp://localhost:".to_owned(),
        format!("tcp://localhost:{dead}: cannot reach the server"),
        format!("tcp://localhost:{closing}: the server ended the hello"),
        format!("trying tcp://localhost:{dead},tcp://localhost:{closing} again"),
    ] {
        assert!(line.contains(&text), "{line} should say {text}");
    }
}

#[test]
fn two_ports_of_one_address_are_two_servers() {
    let mut servers = [server_of_id1(""), server_of_id1("")];
    let [one, other] = servers.each_mut().map(Gt::addr);
    let mut client = client(&format!(
        "-remote tcp://{one} -remote tcp://{other} -id id1 -secret secret1 -local http://127.0.0.1:1"
    ));
    client.wait_for_tunnels(2);
    servers
        .iter_mut()
        .for_each(|server| server.wait_for_opened(1));
}
