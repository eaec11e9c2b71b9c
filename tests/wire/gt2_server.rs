//! The server's end of GT/2: a client written by hand from docs/wire.md against the real server.

use crate::common;
use crate::common::gt::{server_of_id1, Gt};
use crate::common::peer::gt2::{
    credit, data, field, finish, frame, hello, hello_with, identity, open, reset, Frame, Peer,
};
use crate::common::peer::{gt1, port_option, prefix_option, ID_ALONE, WRONG_LOGINS};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::visitor::{connect, read, read_to_end};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

const WINDOW: u32 = 32768;

fn id1() -> Vec<u8> {
    hello("id1", "secret1", &ID_ALONE, WINDOW)
}

/// Starts a server with a ready tunnel.
fn with_tunnel(more: &str) -> (Gt, SocketAddr, Peer) {
    let mut server = server_of_id1(more);
    let addr = server.addr();
    let peer = Peer::ready_client(addr, &id1());
    (server, addr, peer)
}

/// Starts a server and a ready tunnel with a TCP port that gives `window`; returns the port's
/// address.
fn with_port(window: u32) -> (Gt, SocketAddr, Peer) {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}-{port}"));
    let hello = hello("id1", "secret1", &port_option(true, 0), window);
    let peer = Peer::ready_client(server.addr(), &hello);
    (server, ([127, 0, 0, 1], port).into(), peer)
}

/// Connects a visitor that asks for id1, and returns its stream.
fn visit(addr: SocketAddr, peer: &mut Peer) -> (TcpStream, u32) {
    let mut visitor = connect(addr);
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    visitor.write_all(request).expect("send a request");
    let (stream, _, bytes) = peer.opened();
    assert_eq!(bytes, request);
    (visitor, stream)
}

fn expect_reset(visitor: &mut TcpStream) {
    let error = visitor.read(&mut [0]).expect_err("a reset, not an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn both_versions_are_served_on_one_listener_at_once() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let mut old = gt1::Peer::ready_client(addr, &gt1::hello("id1", "secret1", &ID_ALONE));
    let mut new = Peer::ready_client(addr, &id1());
    // The less busy one gets the next.
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    let mut visitors = [(); 2].map(|()| connect(addr));
    for visitor in &mut visitors {
        visitor.write_all(request).expect("send a request");
    }
    assert_eq!(old.opened().2, request);
    assert_eq!(new.opened().2, request);
}

/// Returns a hello with unknown fields and capabilities.
fn later_hello() -> Vec<u8> {
    let fields = [
        field(0x55, &[1; 3000]),
        identity("id1", "secret1", &ID_ALONE),
        field(0xFE, b""),
    ];
    let mut hello = hello_with(&fields.concat());
    hello[6..10].copy_from_slice(&[0xFF; 4]);
    hello
}

#[test]
fn a_hello_in_single_bytes_is_accepted() {
    let hello = later_hello();
    let mut server = server_of_id1("");
    let mut peer = Peer::client(server.addr(), &hello[..2]);
    for byte in &hello[2..] {
        peer.send(&[*byte]);
    }
    peer.expect(Frame::Ready);
}

#[test]
fn unknown_fields_and_capabilities_of_a_hello_are_ignored() {
    let mut server = server_of_id1("");
    Peer::client(server.addr(), &later_hello()).expect(Frame::Ready);
}

#[test]
fn error_1_answers_a_wrong_id_or_secret() {
    let mut server = server_of_id1("-reconnectTimes 0");
    let addr = server.addr();
    for (id, secret) in WRONG_LOGINS {
        let mut peer = Peer::client(addr, &hello(id, secret, &ID_ALONE, WINDOW));
        peer.expect(Frame::Error(vec![0, 1]));
        peer.expect_end();
    }
    Peer::ready_client(addr, &id1());
}

#[test]
fn the_wire_option_disables_a_version() {
    let mut one = server_of_id1("-wire 1");
    let addr = one.addr();
    let mut stranger = connect(addr);
    stranger.write_all(&id1()).expect("send");
    assert_eq!(read_to_end(&mut stranger), b"");
    gt1::Peer::ready_client(addr, &gt1::hello("id1", "secret1", &ID_ALONE));

    let mut two = server_of_id1("-wire 2");
    let addr = two.addr();
    let mut stranger = connect(addr);
    let old = gt1::hello("id1", "secret1", &ID_ALONE);
    stranger.write_all(&old).expect("send");
    assert_eq!(read_to_end(&mut stranger), b"");
    Peer::ready_client(addr, &id1());
}

#[test]
fn a_reset_before_the_first_byte_becomes_an_error_page() {
    let (_server, addr, mut peer) = with_tunnel("");
    for (bytes, status) in [
        (Some(1), "502"),
        (Some(2), "502"),
        (Some(3), "504"),
        (Some(4), "502"),
        (Some(0), "502"),
        (Some(999), "502"),
        (None, "502"),
    ] {
        let (mut visitor, stream) = visit(addr, &mut peer);
        peer.send(&bytes.map_or(finish(stream), |reason| reset(stream, reason)));
        let answer = String::from_utf8(read_to_end(&mut visitor)).expect("text");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        if bytes.is_none() {
            peer.expect(Frame::Reset(stream, 0));
        }
    }
}

#[test]
fn a_visitor_is_reset_after_the_first_byte() {
    let (_server, addr, mut peer) = with_tunnel("");
    for reason in [1, 2, 3, 6, 999] {
        let (mut visitor, stream) = visit(addr, &mut peer);
        peer.send(&data(stream, b"HTTP/1.1 200 OK"));
        read(&mut visitor, 15);
        peer.send(&reset(stream, reason));
        expect_reset(&mut visitor);
    }
    let (mut visitor, stream) = visit(addr, &mut peer);
    peer.send(&[data(stream, b"all"), reset(stream, 0)].concat());
    assert_eq!(read_to_end(&mut visitor), b"all", "the end in good order");
}

#[test]
fn a_visitor_that_cuts_its_connection_resets_the_stream() {
    let (_server, at, mut peer) = with_port(WINDOW);
    let visitor = connect(at);
    let (stream, ..) = peer.opened();
    let visitor = socket2::Socket::from(visitor);
    let now = Some(std::time::Duration::ZERO);
    visitor.set_linger(now).expect("choose a reset");
    drop(visitor);
    peer.expect(Frame::Reset(stream, 1));
}

#[test]
fn each_direction_ends_independently() {
    let (_server, at, mut peer) = with_port(WINDOW);
    let mut visitor = connect(at);
    let (stream, ..) = peer.opened();
    visitor.write_all(b"question").expect("send");
    visitor.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(peer.gather(stream, 8), b"question");
    peer.expect(Frame::Finish(stream));
    peer.send(&[data(stream, b"answer"), finish(stream)].concat());
    assert_eq!(read_to_end(&mut visitor), b"answer");

    let mut visitor = connect(at);
    let (stream, ..) = peer.opened();
    peer.send(&[data(stream, b"banner"), finish(stream)].concat());
    assert_eq!(read_to_end(&mut visitor), b"banner");
    visitor.write_all(b"and yet").expect("send");
    assert_eq!(peer.gather(stream, 7), b"and yet");
    drop(visitor);
    peer.expect(Frame::Finish(stream));
}

#[test]
fn a_stream_has_the_credit_of_the_hello_and_what_it_is_given() {
    let (_server, at, mut peer) = with_port(10);
    let mut visitor = connect(at);
    let (stream, ..) = peer.opened();
    let bytes = Random::new(1).bytes(100_000);
    visitor.write_all(&bytes).expect("send");
    let mut came = peer.gather(stream, 10);
    assert_eq!(came.len(), 10);
    // The answer to this would come behind more data, if there were any.
    peer.sync();
    while came.len() < bytes.len() {
        let more = u32::try_from(bytes.len() - came.len()).unwrap().min(9000);
        peer.send(&credit(stream, more));
        came.extend(peer.gather(stream, usize::try_from(more).unwrap()));
    }
    assert!(came == bytes, "the bytes differ");
}

#[test]
fn a_stream_is_announced_even_without_initial_credit() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE, 0));
    let mut visitor = connect(addr);
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    visitor.write_all(request).expect("send a request");
    let (stream, _, bytes) = peer.opened();
    assert_eq!(bytes, b"");
    peer.send(&credit(stream, 1000));
    assert_eq!(peer.gather(stream, request.len()), request);
    peer.send(&[data(stream, b"hello"), finish(stream)].concat());
    assert_eq!(read(&mut visitor, 5), b"hello");
}

#[test]
fn credit_is_returned_and_exceeding_it_ends_the_tunnel() {
    let (mut server, at, mut peer) = with_port(WINDOW);
    let mut visitor = connect(at);
    let (stream, window, _) = peer.opened();
    let mut left = window;
    let bytes = Random::new(2).bytes(1 << 20);
    for piece in bytes.chunks(1 << 14) {
        let len = u32::try_from(piece.len()).unwrap();
        peer.send(&data(stream, piece));
        assert!(read(&mut visitor, piece.len()) == piece, "the bytes differ");
        left -= len;
        while left < 1 << 14 {
            match peer.frame() {
                Frame::Credit(of, more) if of == stream => left += more,
                other => panic!("{other:?}"),
            }
        }
    }
    // The visitor reads no more, so the excess is detected.
    for _ in 0..10_000 {
        if peer_is_gone(&mut peer, &data(stream, &[7; 1 << 16])) {
            break;
        }
    }
    server.wait_for_overrun();
}

/// Whether the tunnel no longer takes bytes.
fn peer_is_gone(peer: &mut Peer, bytes: &[u8]) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| peer.send(bytes))).is_err()
}

#[test]
fn streams_opened_by_a_client_are_refused() {
    let (_server, _, mut peer) = with_tunnel("");
    peer.send(&open(5, 0, 1000, b"hello"));
    peer.expect(Frame::Reset(5, 5));
}

#[test]
fn a_change_of_services_ends_no_stream() {
    let (_server, addr, mut peer) = with_tunnel("");
    let (mut visitor, stream) = visit(addr, &mut peer);
    let other = identity("id1", "secret1", &prefix_option("other"));
    peer.send(&frame(0x0C, 0, &other));
    peer.expect(Frame::Services(Vec::new()));
    peer.send(&[data(stream, b"still here"), finish(stream)].concat());
    assert_eq!(read_to_end(&mut visitor), b"still here");
    let mut visitor = connect(addr);
    let request = b"GET / HTTP/1.1\r\nHost: other.a\r\n\r\n";
    visitor.write_all(request).expect("send a request");
    loop {
        match peer.frame() {
            Frame::Open(_, 0, _, bytes) => break assert_eq!(bytes, request),
            Frame::Finish(of) | Frame::Reset(of, 0) if of == stream => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_closes_without_streams_ends_at_once() {
    let (_server, _, mut peer) = with_tunnel("");
    peer.send(&frame(8, 0, b""));
    // The answer, and two for the end.
    for _ in 0..3 {
        peer.expect(Frame::Close);
    }
    peer.expect_end();
}

#[test]
fn a_client_that_answers_no_ping_is_dropped_despite_visitors() {
    let (server, addr, _peer) = with_tunnel("-timeout 1s");
    common::eventually("the tunnel to end", || {
        let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
        connect(addr).write_all(request).expect("send a request");
        server.has_closed_silent().then_some(())
    });
}

#[test]
fn visitors_prefer_a_tunnel_that_answers() {
    let (_server, addr, _mute) = with_tunnel("");
    let mut alive = Peer::ready_client(addr, &id1());
    let (arrived, arrivals) = std::sync::mpsc::channel();
    std::thread::spawn(move || loop {
        match alive.frame_or_end() {
            Some(Frame::Open(..)) if arrived.send(()).is_ok() => {}
            Some(_) => {}
            None => return,
        }
    });
    // The busier this tunnel gets, the more visitors the other one would get if it were not
    // avoided.
    let mut visitors = Vec::new();
    let mut in_a_row = 0;
    common::eventually("five visitors in a row to reach the same tunnel", || {
        let mut visitor = connect(addr);
        let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
        visitor.write_all(request).expect("send a request");
        visitors.push(visitor);
        let came = arrivals.recv_timeout(std::time::Duration::from_millis(500));
        in_a_row = if came.is_ok() { in_a_row + 1 } else { 0 };
        (in_a_row == 5).then_some(())
    });
}

#[test]
fn visitors_of_a_black_hole_are_answered_long_before_the_timeout() {
    let (server, addr, _peer) = with_tunnel("-timeout 1h");
    common::eventually("the tunnel to end", || {
        let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
        connect(addr).write_all(request).expect("send a request");
        std::thread::sleep(std::time::Duration::from_millis(200));
        server.has_closed_silent_with_visitors().then_some(())
    });
    assert_eq!(common::visitor::get(addr, "id1.a", "/").status, 503);
}

#[test]
fn the_one_visitor_of_a_client_that_has_just_gone_is_answered_long_before_the_timeout() {
    // The flows of datagrams have the shortest deadline, by which the server looks at its tunnels.
    let (_server, addr, _peer) = with_tunnel("-timeout 1h -udpTimeout 1s");
    // The client has been heard just now, and no other visitor comes.
    assert_eq!(common::visitor::get(addr, "id1.a", "/").status, 502);
}

/// Connects a GT/2 client with `services` and reads until its tunnel is ready.
fn told_at_start(addr: SocketAddr, services: &[u8]) -> (Peer, Vec<Frame>) {
    let mut peer = Peer::client(addr, &hello("id1", "secret1", services, WINDOW));
    let mut told = Vec::new();
    loop {
        match peer.frame() {
            Frame::Ready => return (peer, told),
            frame => told.push(frame),
        }
    }
}

#[test]
fn a_port_in_use_affects_no_other_service_and_is_opened_when_free() {
    let (free, taken, outside) = (free_port(), free_port(), free_port());
    let holder = std::net::TcpListener::bind(("0.0.0.0", taken)).expect("hold a port");
    let mut server = server_of_id1(&format!(
        "-tcpNumber 1 -tcpRange {free} -tcpNumber 1 -tcpRange {taken} -timeout 10s"
    ));
    let addr = server.addr();
    let services = [
        &[0x02][..],
        &ID_ALONE,
        &[0x02],
        &port_option(false, taken),
        &[0x02],
        &port_option(false, outside),
        &port_option(false, free),
    ];
    let services = services.concat();
    let (mut peer, told) = told_at_start(addr, &services);
    let expected = [
        Frame::PortOpened(3, free),
        Frame::PortUnavailable(1, 1),
        Frame::PortUnavailable(2, 2),
    ];
    assert_eq!(told, expected);
    let line = server.wait_for_unopened_port(taken);
    assert!(line.contains("in use") && line.contains("id=id1"), "{line}");
    let line = server.wait_for_unopened_port(outside);
    assert!(line.contains("tcpRange"), "{line}");
    let (mut visitor, stream) = visit(addr, &mut peer);
    peer.send(&[data(stream, b"here"), finish(stream)].concat());
    assert_eq!(read_to_end(&mut visitor), b"here");
    // Another tunnel of the same client gets the same notice.
    let (_second, told) = told_at_start(addr, &services);
    assert_eq!(told, expected);

    drop(holder);
    loop {
        match peer.frame() {
            Frame::PortOpened(1, port) => break assert_eq!(port, taken),
            Frame::Reset(of, _) | Frame::Finish(of) if of == stream => {}
            other => panic!("{other:?}"),
        }
    }
    let _visitor = connect(([127, 0, 0, 1], taken).into());
    server.wait_for(&format!("Listening TCP id=id1 addr=[::]:{taken}"));
}

#[test]
fn error_2_names_the_service_whose_port_is_unavailable() {
    let taken = free_port();
    let _held = std::net::TcpListener::bind(("0.0.0.0", taken)).expect("hold a port");
    let mut server = server_of_id1(&format!("-tcpRange {taken}"));
    let services = port_option(false, taken);
    let hello = hello("id1", "secret1", &services, WINDOW);
    let mut peer = Peer::client(server.addr(), &hello);
    peer.expect(Frame::Error(vec![0, 2, 0, 0]));
    peer.expect_end();
    let line = server.wait_for_unopened_port(taken);
    assert!(line.contains("in use"), "{line}");
}

#[test]
fn a_change_of_services_keeps_those_that_can_be_published() {
    let taken = free_port();
    let _held = std::net::TcpListener::bind(("0.0.0.0", taken)).expect("hold a port");
    let mut server = server_of_id1(&format!("-tcpRange {taken}"));
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &id1());
    let services = [&[0x02][..], &ID_ALONE, &port_option(false, taken)].concat();
    peer.send(&frame(0x0C, 0, &identity("id1", "secret1", &services)));
    peer.expect(Frame::PortUnavailable(1, 1));
    peer.expect(Frame::Services(Vec::new()));
    visit(addr, &mut peer);
}

#[test]
fn a_change_and_its_reversal_over_a_slow_tunnel_leave_the_others_in_use() {
    let mut server = server_of_id1("-connections 2");
    let addr = server.addr();
    let mut fast = Peer::ready_client(addr, &id1());
    let mut slow = Peer::ready_client(addr, &id1());
    let there = frame(
        0x0C,
        0,
        &identity("id1", "secret1", &prefix_option("other")),
    );
    let back = frame(0x0C, 0, &identity("id1", "secret1", &ID_ALONE));
    for peer in [&mut fast, &mut slow] {
        for change in [&there, &back] {
            peer.send(change);
            peer.expect(Frame::Services(Vec::new()));
        }
    }
    // Visitors go to the less busy tunnel.
    let _first = visit(addr, &mut fast);
    visit(addr, &mut slow);
}

#[test]
fn a_dead_tunnel_is_replaced_by_its_client_s_new_one() {
    let mut server = server_of_id1("-connections 1 -timeout 1h");
    let addr = server.addr();
    let _mute = Peer::ready_client(addr, &id1());
    let mut back = Peer::ready_client(addr, &id1());
    server.wait_for_dead_tunnel();
    let (_visitor, _) = visit(addr, &mut back);
    // This client answers.
    let answering = std::thread::spawn(move || back.frame_or_end());
    let mut more = Peer::client(addr, &id1());
    more.expect(Frame::Error(vec![0, 3]));
    more.expect_end();
    server.kill();
    assert_eq!(answering.join().expect("it has answered"), None);
}

#[test]
fn a_dead_registration_is_replaced() {
    let mut server = server_of_id1("-timeout 1h");
    let addr = server.addr();
    let mut mute = Peer::ready_client(addr, &id1());
    let (_visitor, _) = visit(addr, &mut mute);
    let other = hello("id1", "secret1", &prefix_option("other"), WINDOW);
    let _other = Peer::ready_client(addr, &other);
    Peer::ready_client(addr, &id1());
}

#[test]
fn a_client_that_returns_to_former_services_is_no_second_one() {
    let mut server = server_of_id1("-timeout 1h");
    let addr = server.addr();
    let mut first = Peer::ready_client(addr, &id1());
    let (mut visitor, stream) = visit(addr, &mut first);
    let other = hello("id1", "secret1", &prefix_option("other"), WINDOW);
    let second = Peer::ready_client(addr, &other);
    first.expect(Frame::Close);
    second.shutdown();
    server.wait_for("tunnel closed");
    // The tunnel with the visitor still drains, and needs to give no sign of life.
    Peer::ready_client(addr, &id1());
    first.send(&data(stream, b"answer"));
    let mut answer = [0; 6];
    visitor.read_exact(&mut answer).expect("the answer");
    assert_eq!(&answer, b"answer");
}
