//! Each timeout ends what is silent, and nothing that only looks so. Connections that must stay
//! last many times their pauses.

use crate::common;
use crate::common::gt::{client, server_of_id1, tcp_tunnel, Gt};
use crate::common::peer::gt1::{data, first, hello, Frame, Peer, PeerServer, PING};
use crate::common::peer::port_option;
use crate::common::ports::free_port;
use crate::common::service::{self, Service};
use crate::common::visitor::{connect, read, read_to_end};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Pause between two pieces.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `piece` repeatedly for `time`.
fn go_on_for(time: Duration, mut piece: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        piece();
        std::thread::sleep(PAUSE);
    }
}

/// Starts a server and a hand-written client with a prefix and a port; returns the addresses for
/// visitors.
fn tunnel_to_server(flags: &str) -> (Gt, Peer, SocketAddr, SocketAddr) {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpRange {port} {flags}"));
    let addr = server.addr();
    let services = [&[0x02, 0x00], &port_option(false, port)[..]].concat();
    let peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    (server, peer, addr, ([127, 0, 0, 1], port).into())
}

/// Connects a visitor that asks for `id1`, and returns its stream.
fn visit(addr: SocketAddr, peer: &mut Peer) -> (TcpStream, u32) {
    let mut visitor = connect(addr);
    write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("send");
    (visitor, peer.opened().0)
}

/// Starts a client with a TCP service, and a hand-written server with its tunnel.
fn tunnel_to_client(service: &Service, flags: &str) -> (PeerServer, Gt, Peer) {
    let server = PeerServer::start();
    let client = client(&format!(
        "-wire 1 -remote {} -id id1 -secret secret1 -local tcp://{} {flags}",
        server.addr, service.addr
    ));
    let peer = server.accept_ready(&hello("id1", "secret1", &port_option(true, 0)));
    (server, client, peer)
}

#[test]
fn timeout_does_not_end_a_client_that_pings() {
    let (_server, mut peer, ..) = tunnel_to_server("-timeout 1500ms");
    go_on_for(Duration::from_secs(4), || peer.sync());
}

#[test]
fn a_timeout_of_0_disables_it() {
    let (_server, mut peer, ..) = tunnel_to_server("-timeout 0");
    assert!(peer.is_quiet_for(Duration::from_secs(1)));
    peer.sync();
}

#[test]
fn timeout_ends_only_silent_tunnels() {
    let (_server, mut peer, _, port) = tunnel_to_server("-timeout 1500ms");
    let mut visitor = connect(port);
    let (stream, ..) = peer.opened();
    // The client has nothing to send: all traffic goes to it.
    go_on_for(Duration::from_secs(4), || {
        visitor.write_all(b"x").expect("send");
        assert_eq!(peer.gather(stream, 1), b"x");
    });
    peer.sync();
    while let Some(frame) = peer.frame_or_end() {
        assert!(
            matches!(frame, Frame::Close | Frame::Closed(_)),
            "{frame:?}"
        );
    }
}

#[test]
fn traffic_to_the_client_only_counts_as_silence_if_configured() {
    let (mut server, mut peer, _, port) =
        tunnel_to_server("-timeout 1500ms -timeoutOnUnidirectionalTraffic");
    let mut visitor = connect(port);
    peer.opened();
    let over = |frame: Option<Frame>| !matches!(frame, Some(Frame::Data(..)));
    common::eventually("the tunnel to end", || {
        std::thread::sleep(PAUSE);
        let _ = visitor.write_all(b"x");
        over(peer.frame_or_end()).then_some(())
    });
    server.wait_for_silent_client();
}

#[test]
fn timeout_does_not_end_a_visitor_that_only_receives() {
    let (_server, mut peer, addr, _) = tunnel_to_server("-timeout 1500ms");
    let (mut visitor, stream) = visit(addr, &mut peer);
    go_on_for(Duration::from_secs(4), || {
        peer.send(&data(stream, b"x"));
        read(&mut visitor, 1);
    });
    // From here on both are silent, which ends the visitor but not the client, which pings.
    let frame = common::eventually("the visitor to be closed", || {
        std::thread::sleep(PAUSE);
        peer.send(&PING);
        Some(peer.frame()).filter(|frame| *frame != Frame::Ping)
    });
    assert_eq!(frame, Frame::Closed(stream));
    assert_eq!(read_to_end(&mut visitor), b"");
}

#[test]
fn a_visitor_that_only_receives_counts_as_silent_if_configured() {
    let (_server, mut peer, addr, _) =
        tunnel_to_server("-timeout 1500ms -timeoutOnUnidirectionalTraffic");
    let (_visitor, stream) = visit(addr, &mut peer);
    common::eventually("the visitor to be closed", || {
        peer.send(&data(stream, b"x"));
        (!peer.is_quiet_for(PAUSE)).then_some(())
    });
    peer.expect(Frame::Closed(stream));
    // The tunnel sends enough to stay.
    peer.sync();
}

#[test]
fn local_timeout_ends_a_connection_that_is_silent_in_both_directions() {
    let (service, reports) = service::sink();
    let (_server, _client, mut peer) = tunnel_to_client(&service, "-localTimeout 1500ms");
    peer.send(&first(1, 0, b"hello"));
    // The sink's acknowledgement.
    peer.gather(1, 1);
    peer.expect(Frame::Closed(1));
    let came = reports.recv_timeout(common::PATIENCE).expect("a report");
    assert_eq!(came, b"hello");
}

#[test]
fn local_timeout_does_not_end_a_service_that_answers_in_time() {
    let service = Service::start(0, |mut stream| {
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            std::thread::sleep(Duration::from_secs(1));
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let (_server, _client, mut peer) = tunnel_to_client(&service, "-localTimeout 4s");
    peer.send(&first(1, 0, b""));
    for byte in b"hello" {
        peer.send(&data(1, &[*byte]));
        assert_eq!(peer.gather(1, 1), [*byte]);
    }
}

#[test]
fn local_timeout_does_not_end_a_connection_with_one_way_traffic() {
    let listens = service::silent();
    let (_server, _client, mut peer) = tunnel_to_client(&listens, "-localTimeout 1500ms");
    peer.send(&first(1, 0, b""));
    go_on_for(Duration::from_secs(4), || peer.send(&data(1, b"x")));
    // The end comes only after the following silence.
    peer.expect(Frame::Closed(1));

    let speaks = Service::start(0, |mut stream| loop {
        stream.write_all(b"x")?;
        std::thread::sleep(PAUSE);
    });
    let (_server, _client, mut peer) = tunnel_to_client(&speaks, "-localTimeout 1500ms");
    peer.send(&first(1, 0, b""));
    go_on_for(Duration::from_secs(4), || {
        peer.gather(1, 1);
    });
}

#[test]
fn remote_timeout_is_how_long_a_server_may_take_to_answer() {
    let unanswering = service::unanswering();
    let mute = PeerServer::start();
    for (addr, why) in [
        (unanswering.addr, "no answer within 300ms"),
        (
            mute.addr,
            "the server did not answer the hello within 300ms",
        ),
    ] {
        let mut client = client(&format!(
            "-wire 1 -remote {addr} -id id1 -secret secret1 -remoteTimeout 300ms -local http://[::1]:1"
        ));
        let line = client.wait_for(why);
        assert!(line.contains(" WRN "), "{line}");
    }
}

#[test]
fn remote_timeout_does_not_end_a_server_that_sends_but_answers_no_ping() {
    let listens = service::silent();
    let (server, client, mut peer) = tunnel_to_client(&listens, "-remoteTimeout 1s");
    peer.send(&first(1, 0, b""));
    // Twice as long as it takes to give up a silent server.
    go_on_for(Duration::from_secs(6), || peer.send(&data(1, b"x")));
    assert_eq!(client.closed(), 0);
    // That is what comes next.
    while let Some(frame) = peer.frame_or_end() {
        assert!(matches!(frame, Frame::Ping | Frame::Close), "{frame:?}");
    }
    server.accept();
}

#[test]
fn remote_timeout_does_not_end_a_server_that_answers_late() {
    let service = service::silent();
    let (_server, mut client, mut peer) = tunnel_to_client(&service, "-remoteTimeout 2s");
    client.wait_for_tunnel();
    // Every second ping is lost, and the other answers are late.
    for _ in 0..3 {
        peer.expect(Frame::Ping);
        peer.expect(Frame::Ping);
        peer.send(&PING);
    }
    assert_eq!(client.closed(), 0);
}

#[test]
fn a_timeout_shorter_than_the_ping_interval_does_not_end_idle_connections() {
    let echo = service::echo();
    let (_server, client, at) = tcp_tunnel(echo.addr, "-timeout 1s", "");
    let mut visitor = connect(at);
    service::assert_echo(&mut visitor, b"before");
    go_on_for(Duration::from_secs(4), || ());
    service::assert_echo(&mut visitor, b"after");
    assert_eq!(client.closed(), 0);
}
