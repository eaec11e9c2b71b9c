//! The server's end of GT/1: a client written by hand from docs/gt1.md against the real server.

use crate::common;
use crate::common::eventually;
use crate::common::gt::{server, server_of_id1, Gt};
use crate::common::hello::{client_hello, record};
use crate::common::peer::gt1::{
    closed, data, data_head, first, hello, identity, Frame, Peer, CLOSE, PING, READY, SERVICES,
};
use crate::common::peer::{port_option, prefix_option, ID_ALONE, WRONG_LOGINS};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::visitor::{connect, get, read, read_to_end};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Returns the hello of a client whose only prefix is its id.
fn id1() -> Vec<u8> {
    hello("id1", "secret1", &ID_ALONE)
}

/// Starts a server and a client with a ready tunnel.
fn with_tunnel(more: &str) -> (Gt, SocketAddr, Peer) {
    let mut server = server_of_id1(more);
    let addr = server.addr();
    let peer = Peer::ready_client(addr, &id1());
    (server, addr, peer)
}

/// Starts a server and a ready tunnel with a TCP port; returns the port's address.
fn with_port(more: &str) -> (Gt, SocketAddr, Peer) {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}-{port} {more}"));
    let peer = Peer::ready_client(
        server.addr(),
        &hello("id1", "secret1", &port_option(true, 0)),
    );
    (server, ([127, 0, 0, 1], port).into(), peer)
}

fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Connects as a visitor, asks for `host` and does not read the response.
fn visit(addr: SocketAddr, host: &str) -> TcpStream {
    let mut visitor = connect(addr);
    visitor.write_all(&request(host)).expect("send a request");
    visitor
}

/// Connects as a visitor with minimal kernel buffers, so that bytes stay in the server.
fn connect_narrow(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("set a buffer");
    socket.connect(&addr.into()).expect("connect");
    let stream = TcpStream::from(socket);
    common::visitor::set_limits(&stream);
    stream
}

/// Takes the next stream, which must carry `bytes` to `service`; returns its number.
fn take(peer: &mut Peer, service: u16, bytes: &[u8]) -> u32 {
    let (stream, to, mut came) = peer.opened();
    if came.len() < bytes.len() {
        came.extend(peer.gather(stream, bytes.len() - came.len()));
    }
    assert_eq!((to, came.as_slice()), (service, bytes));
    stream
}

/// Waits for the other end's close signals up to the end of the connection.
fn expect_closing(peer: &mut Peer) {
    let mut closes = 0;
    while let Some(frame) = peer.frame_or_end() {
        assert_eq!(frame, Frame::Close);
        closes += 1;
    }
    assert!(closes > 0, "it ended without a word");
}

#[test]
fn the_example_hello_of_the_page_opens_its_services() {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-hostNumber 2 -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let addr = server.addr();
    let [high, low] = port.to_be_bytes();
    let mut bytes = b"\xF0\x01\x03id1\x07secret1".to_vec();
    bytes.extend([0x02, 0x01, 0x00, high, low]);
    bytes.extend([0x02, 0x03, 0x01, 0x31]);
    bytes.extend([0x03, 0x01, 0x32]);
    let mut peer = Peer::client(addr, &bytes);
    let info = [0xFF, 0xFF, 0xFF, 0xFB, 0x00, 0x01, 0x00, 0x00, high, low];
    assert_eq!(peer.read(10), info);
    assert_eq!(peer.read(4), READY);

    let _visitor = visit(addr, "1.example.com");
    let asked = request("1.example.com");
    let mut frame = vec![0, 0, 0, 1, 0, 2, 0, 1];
    frame.extend(u32::try_from(asked.len()).unwrap().to_be_bytes());
    frame.extend(&asked);
    assert_eq!(
        peer.read(frame.len()),
        frame,
        "the first frame of the first stream"
    );

    let _visitor = visit(addr, "2.example.com");
    assert_eq!(take(&mut peer, 2, &request("2.example.com")), 2);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    visitor.write_all(b"hello").expect("send");
    assert_eq!(take(&mut peer, 0, b"hello"), 3);
}

#[test]
fn a_hello_in_single_bytes_is_accepted() {
    let mut server = server_of_id1("");
    let mut peer = Peer::client(server.addr(), &[]);
    for byte in id1() {
        peer.send(&[byte]);
    }
    peer.expect(Frame::Ready);
}

#[test]
fn a_hello_and_frames_may_come_in_one_segment() {
    let mut server = server_of_id1("");
    let mut peer = Peer::client(server.addr(), &[&id1()[..], &PING].concat());
    peer.expect(Frame::Ready);
    peer.expect(Frame::Ping);
}

#[test]
fn a_ping_is_answered_with_the_same() {
    let (_server, _, mut peer) = with_tunnel("");
    for _ in 0..3 {
        peer.send(&PING);
        assert_eq!(peer.read(4), PING);
    }
}

#[test]
fn bytes_go_both_ways_and_the_client_ends_the_stream_behind_them() {
    let (_server, addr, mut peer) = with_port("");
    let mut visitor = connect(addr);
    visitor.write_all(b"one").expect("send");
    let stream = take(&mut peer, 0, b"one");
    visitor.write_all(b"two").expect("send");
    assert_eq!(peer.gather(stream, 3), b"two");
    peer.send(&data(stream, b"three"));
    assert_eq!(read(&mut visitor, 5), b"three");
    let last = Random::new(1).bytes(300_000);
    peer.send(&[data(stream, &last), closed(stream)].concat());
    assert!(read_to_end(&mut visitor) == last, "the last bytes differ");
}

#[test]
fn a_visitor_that_waits_for_a_banner_is_announced_without_bytes() {
    let (_server, addr, mut peer) = with_port("");
    let mut visitor = connect(addr);
    let (stream, service, bytes) = peer.opened();
    assert_eq!((stream, service, bytes.as_slice()), (1, 0, &b""[..]));
    peer.send(&data(stream, b"SSH-2.0-banner\r\n"));
    assert_eq!(read(&mut visitor, 16), b"SSH-2.0-banner\r\n");
}

#[test]
fn the_end_of_a_visitor_comes_behind_its_bytes() {
    let (_server, addr, mut peer) = with_port("");
    let bytes = Random::new(2).bytes(4 << 20);
    let mut visitor = connect(addr);
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        visitor.write_all(&sent).expect("send");
        // The visitor only ends its own direction; it still reads.
        visitor.shutdown(Shutdown::Write).expect("shut down");
        visitor
    });
    let (stream, _, mut came) = peer.opened();
    came.extend(peer.gather(stream, bytes.len() - came.len()));
    assert!(came == bytes, "the bytes differ");
    // GT/1 has no half-close: the server ends the stream after the answer.
    peer.send(&data(stream, b"thank you"));
    assert_eq!(peer.gather_to_close(stream), b"");
    assert_eq!(read_to_end(&mut sending.join().unwrap()), b"thank you");
}

#[test]
fn a_frame_is_passed_on_before_it_is_complete() {
    let (_server, addr, mut peer) = with_port("");
    let mut visitor = connect(addr);
    let (stream, ..) = peer.opened();
    let bytes = Random::new(3).bytes(8 << 20);
    let (some, rest) = bytes.split_at(100_000);
    peer.send(&data_head(stream, bytes.len()));
    peer.send(some);
    assert!(
        read(&mut visitor, some.len()) == some,
        "the first bytes differ"
    );
    let mut writer = peer.writer();
    let rest_sent = rest.to_vec();
    let sending = std::thread::spawn(move || writer.write_all(&rest_sent).expect("send"));
    assert!(
        read(&mut visitor, rest.len()) == rest,
        "the last bytes differ"
    );
    sending.join().unwrap();
}

#[test]
fn frames_in_single_bytes_are_parsed() {
    let (_server, addr, mut peer) = with_port("");
    let mut visitor = connect(addr);
    let (stream, ..) = peer.opened();
    let frames = [
        &data(stream, b"abc")[..],
        &PING,
        &data(stream, b""),
        &data(stream, b"def"),
    ]
    .concat();
    for byte in frames {
        peer.send(&[byte]);
    }
    assert_eq!(read(&mut visitor, 6), b"abcdef");
    peer.expect(Frame::Ping);
    for byte in closed(stream) {
        peer.send(&[byte]);
    }
    assert_eq!(read_to_end(&mut visitor), b"");
}

#[test]
fn bytes_of_an_unknown_stream_are_dropped() {
    let (_server, addr, mut peer) = with_port("");
    peer.send(&data(77, &[7; 100_000]));
    peer.send(&closed(77));
    peer.send(&data(0, b"zero"));
    peer.sync();
    let mut visitor = connect(addr);
    let (stream, ..) = peer.opened();
    peer.send(
        &[
            data(stream, b"known"),
            closed(stream),
            data(stream, b"late"),
        ]
        .concat(),
    );
    assert_eq!(read_to_end(&mut visitor), b"known");
    peer.sync();
}

#[test]
fn a_visitor_that_stops_reading_loses_nothing() {
    let (_server, addr, mut peer) = with_port("");
    let mut visitor = connect_narrow(addr);
    let (stream, ..) = peer.opened();
    let bytes = Arc::new(Random::new(4).bytes(24 << 20));
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut writer, counter, source) = (peer.writer(), sent.clone(), bytes.clone());
    let sending = std::thread::spawn(move || {
        for chunk in source.chunks(4096) {
            writer.write_all(&data(stream, chunk)).expect("send");
            counter.fetch_add(chunk.len(), Ordering::SeqCst);
        }
        writer.write_all(&closed(stream)).expect("send");
    });
    // Nothing is read until the sender is held back, or has sent everything.
    let mut before = usize::MAX;
    common::eventually("the sender to be held back", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = sent.load(Ordering::SeqCst);
        let held = now > 0 && now == before;
        before = now;
        held.then_some(())
    });
    assert!(
        before < bytes.len(),
        "the server holds all of {before} bytes"
    );
    assert!(read_to_end(&mut visitor) == *bytes, "the bytes differ");
    sending.join().unwrap();
}

#[test]
fn the_end_of_a_stream_travels_behind_bytes_that_still_wait_for_the_visitor() {
    let (_server, addr, mut peer) = with_port("");
    let all = Random::new(9).bytes(16 << 20);
    // How much the kernel takes is not known: more each time, until the server itself holds a part
    // when it hears of the end, and then enough to make it stop reading.
    for amount in (1_000_000..all.len()).step_by(100_000) {
        let mut visitor = connect_narrow(addr);
        let (stream, ..) = peer.opened();
        let (mut writer, bytes) = (peer.writer(), all[..amount].to_vec());
        let sending = std::thread::spawn(move || {
            let frames = [&data(stream, &bytes)[..], &closed(stream), &PING].concat();
            writer.write_all(&frames).expect("send");
        });
        let stalled = peer.is_quiet_for(Duration::from_millis(500));
        assert!(
            read_to_end(&mut visitor) == all[..amount],
            "{amount} bytes differ"
        );
        peer.expect(Frame::Ping);
        sending.join().unwrap();
        if stalled {
            return;
        }
    }
    panic!("the server never stopped reading");
}

#[test]
fn a_slow_visitor_does_not_stall_the_others() {
    let (_server, addr, mut peer) = with_port("");
    let mut slow = connect_narrow(addr);
    let (slow_stream, ..) = peer.opened();
    let bytes = Random::new(5).bytes(100_000);
    peer.send(&data(slow_stream, &bytes));
    for _ in 0..3 {
        let mut visitor = connect(addr);
        let (stream, ..) = peer.opened();
        peer.send(&[data(stream, b"at once"), closed(stream)].concat());
        assert_eq!(read_to_end(&mut visitor), b"at once");
    }
    peer.send(&closed(slow_stream));
    assert!(read_to_end(&mut slow) == bytes, "the bytes differ");
}

#[test]
fn a_visitor_that_never_reads_is_cut_off_for_the_others() {
    let (_server, addr, mut peer) = with_port("");
    let mut stuck = connect(addr);
    let (stuck_stream, ..) = peer.opened();
    // More than the kernel and the server hold: the tunnel itself is stalled.
    let bytes = Arc::new(Random::new(8).bytes(32 << 20));
    let (mut writer, sent) = (peer.writer(), bytes.clone());
    let sending = std::thread::spawn(move || {
        for chunk in sent.chunks(30_000) {
            writer.write_all(&data(stuck_stream, chunk)).expect("send");
        }
    });
    let mut visitor = connect(addr);
    let (stream, ..) = peer.opened();
    peer.expect(Frame::Closed(stuck_stream));
    sending.join().unwrap();
    peer.send(&[data(stream, b"at last"), closed(stream)].concat());
    assert_eq!(read_to_end(&mut visitor), b"at last");
    // It gets the first part, and an error instead of the end.
    let mut got = Vec::new();
    let end = std::io::Read::read_to_end(&mut stuck, &mut got);
    assert!(
        end.is_err() && got.len() < bytes.len(),
        "{} bytes, {end:?}",
        got.len()
    );
    assert!(got == bytes[..got.len()], "the bytes differ");
}

#[test]
fn the_ports_of_a_client_are_closed_when_its_last_tunnel_ends() {
    let (mut server, addr, one) = with_port("");
    let hello = hello("id1", "secret1", &port_option(true, 0));
    let two = Peer::ready_client(server.addr(), &hello);
    one.shutdown();
    connect(addr);
    two.shutdown();
    common::eventually("the port to be closed", || {
        TcpListener::bind(("0.0.0.0", addr.port())).ok()
    });
    assert_eq!(server.stop(), Some(0));
    assert_eq!(server.warnings(), [""; 0], "all of that is normal");
}

#[test]
fn a_port_option_that_is_the_same_in_every_tunnel_opens_one_port() {
    let (mut server, addr, mut one) = with_port("");
    let services = port_option(true, 0);
    let mut two = Peer::client(server.addr(), &hello("id1", "secret1", &services));
    two.expect(Frame::PortOpened(0, addr.port()));
    two.expect(Frame::Ready);
    let _visitors = [connect(addr), connect(addr)];
    let mut streams = [one.opened().0, two.opened().0];
    streams.sort_unstable();
    assert_eq!(streams, [1, 2]);
}

#[test]
fn streams_are_counted_up_from_one() {
    let (_server, addr, mut peer) = with_port("");
    for number in 1..=5 {
        let mut visitor = connect(addr);
        let (stream, ..) = peer.opened();
        assert_eq!(stream, number);
        peer.send(&closed(stream));
        assert_eq!(read_to_end(&mut visitor), b"");
    }
}

#[test]
fn a_stream_goes_to_the_tunnel_with_the_fewest() {
    let (_server, addr, mut one) = with_tunnel("");
    let mut two = Peer::ready_client(addr, &id1());
    let asked = request("id1.a");
    // Stream numbers count for the client, not for the tunnel.
    let _visitors = [(); 4].map(|()| visit(addr, "id1.a"));
    let in_one = [take(&mut one, 0, &asked), take(&mut one, 0, &asked)];
    let in_two = [take(&mut two, 0, &asked), take(&mut two, 0, &asked)];
    let mut all = [in_one, in_two].concat();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4]);
    // When both streams of the second tunnel are over, the next two go there.
    for stream in in_two {
        two.send(&[data(stream, b"over"), closed(stream)].concat());
    }
    two.sync();
    let _more = [(); 2].map(|()| visit(addr, "id1.a"));
    assert_eq!(take(&mut two, 0, &asked).max(take(&mut two, 0, &asked)), 6);
}

#[test]
fn a_tunnel_that_breaks_ends_its_visitors_and_no_others() {
    let (_server, addr, one) = with_tunnel("");
    let mut one = one;
    let mut lost = visit(addr, "id1.a");
    take(&mut one, 0, &request("id1.a"));
    let mut two = Peer::ready_client(addr, &id1());
    let mut kept = visit(addr, "id1.a");
    let stream = take(&mut two, 0, &request("id1.a"));
    one.shutdown();
    read_to_end(&mut lost);
    two.send(&[data(stream, b"still here"), closed(stream)].concat());
    assert_eq!(read_to_end(&mut kept), b"still here");
}

#[test]
fn a_client_that_closes_gets_no_new_stream_and_ends_with_its_last() {
    let (_server, addr, mut one) = with_tunnel("");
    let mut visitor = visit(addr, "id1.a");
    let stream = take(&mut one, 0, &request("id1.a"));
    let mut two = Peer::ready_client(addr, &id1());
    one.send(&CLOSE);
    one.expect(Frame::Close);
    for _ in 0..3 {
        let _visitor = visit(addr, "id1.a");
        take(&mut two, 0, &request("id1.a"));
    }
    one.send(&data(stream, b"bye"));
    assert_eq!(read(&mut visitor, 3), b"bye");
    drop(visitor);
    one.expect(Frame::Closed(stream));
    one.expect(Frame::Close);
    one.expect(Frame::Close);
    one.expect_end();
}

#[test]
fn a_client_that_closes_without_streams_ends_at_once() {
    let (_server, _, mut peer) = with_tunnel("");
    peer.send(&CLOSE);
    expect_closing(&mut peer);
}

#[test]
fn a_second_close_ends_at_once() {
    let (_server, addr, mut peer) = with_tunnel("");
    let mut visitor = visit(addr, "id1.a");
    take(&mut peer, 0, &request("id1.a"));
    peer.send(&CLOSE);
    peer.expect(Frame::Close);
    peer.send(&CLOSE);
    read_to_end(&mut visitor);
    while let Some(frame) = peer.frame_or_end() {
        assert!(
            matches!(frame, Frame::Close | Frame::Closed(_)),
            "{frame:?}"
        );
    }
}

#[test]
fn a_silent_client_is_closed_after_the_timeout() {
    let (_server, _, mut peer) = with_tunnel("-timeout 1s");
    while let Some(frame) = peer.frame_or_end() {
        assert_eq!(frame, Frame::Close);
    }
}

#[test]
fn other_services_replace_the_registration_and_open_streams_go_on() {
    let (_server, addr, mut old) = with_tunnel("");
    let mut visitor = visit(addr, "id1.a");
    let stream = take(&mut old, 0, &request("id1.a"));

    let other = hello("id1", "secret1", &prefix_option("other"));
    let mut new = Peer::ready_client(addr, &other);
    old.expect(Frame::Close);
    let _visitor = visit(addr, "other.a");
    take(&mut new, 0, &request("other.a"));
    // The old services are refused until the last tunnel with them has ended.
    let mut again = Peer::client(addr, &id1());
    again.expect(Frame::Error(7));
    again.expect_end();
    // A ping on a tunnel that is no longer current is answered with close.
    old.send(&PING);
    old.expect(Frame::Close);

    old.send(&[data(stream, b"done"), closed(stream)].concat());
    assert_eq!(read_to_end(&mut visitor), b"done");
    old.send(&CLOSE);
    old.send(&CLOSE);
    while old.frame_or_end().is_some() {}
    let _back = common::eventually("the old services to be taken again", || {
        let mut peer = Peer::client(addr, &id1());
        (peer.frame() == Frame::Ready).then_some(peer)
    });
    new.expect(Frame::Close);
}

#[test]
fn a_change_of_services_ends_no_stream() {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-hostNumber 2 -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &id1());
    let mut visitor = visit(addr, "id1.a");
    let stream = take(&mut peer, 0, &request("id1.a"));

    let mut services = vec![0x02];
    services.extend(port_option(false, port));
    services.extend(prefix_option("new"));
    peer.send(&SERVICES);
    peer.send(&identity("id1", "secret1", &services));
    peer.expect(Frame::PortOpened(0, port));
    peer.expect(Frame::Services);

    peer.send(&data(stream, b"still here"));
    assert_eq!(read(&mut visitor, 10), b"still here");
    // The client had a tunnel a moment ago, so the visitor may wait for it.
    let status = get(addr, "id1.a", "/").status;
    assert!(matches!(status, 404 | 503), "{status}");
    let _visitor = visit(addr, "new.a");
    take(&mut peer, 1, &request("new.a"));
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    visitor.write_all(b"tcp").expect("send");
    take(&mut peer, 0, b"tcp");
    // A second tunnel must offer the new services now.
    let mut second = Peer::client(addr, &hello("id1", "secret1", &services));
    loop {
        match second.frame() {
            Frame::PortOpened(0, of) if of == port => {}
            frame => break assert_eq!(frame, Frame::Ready),
        }
    }
    peer.sync();
}

/// Sends `visitor`'s bytes until the server takes no more: its outbox for the tunnel is full.
fn flood(visitor: &TcpStream) {
    visitor.set_nonblocking(true).expect("not wait");
    let mut refused_since = None::<Instant>;
    eventually("the tunnel to be full", || {
        while let Ok(1..) = (&*visitor).write(&[7; 64 * 1024]) {
            refused_since = None;
        }
        let since = *refused_since.get_or_insert_with(Instant::now);
        (since.elapsed() > Duration::from_millis(300)).then_some(())
    });
}

#[test]
fn a_request_that_waits_while_the_services_change_reaches_its_own_service() {
    let mut server = server_of_id1("-hostNumber 2 -apiAddr 127.0.0.1:0");
    let (addr, api) = (server.addr(), server.api_addr());
    let in_order = |one, other| [&[2], &prefix_option(one)[..], &prefix_option(other)].concat();
    let hello = hello("id1", "secret1", &in_order("a", "b"));
    let mut peer = Peer::ready_client(addr, &hello);
    let upload = visit(addr, "a.x");
    flood(&upload);
    let _waiting = visit(addr, "b.x");
    eventually("its stream", || {
        let page = get(api, "localhost", "/clients").text();
        page.contains("\"streams\": 2").then_some(())
    });

    let swapped = identity("id1", "secret1", &in_order("b", "a"));
    peer.send(&[&SERVICES[..], &swapped].concat());
    drop(upload);
    let (mut changed, mut services) = (false, Vec::new());
    while services.len() < 2 {
        match peer.frame() {
            Frame::Services => changed = true,
            Frame::First(_, service, bytes) => {
                let to_b = bytes.windows(3).any(|some| some == b"b.x");
                services.push((to_b, changed, service));
            }
            Frame::Data(..) | Frame::Closed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(services, [(false, false, 0), (true, true, 0)]);
}

#[test]
fn a_visitor_of_a_port_that_waits_for_its_client_reaches_the_service_the_port_has_then() {
    let (mut server, addr, mut before) = with_port("");
    let _running = connect(addr);
    let (stream, ..) = before.opened();
    before.send(&CLOSE);
    before.expect(Frame::Close);
    let mut waiting = connect(addr);
    waiting.write_all(b"hello").expect("the port is open");
    let services = [
        &[2],
        &prefix_option("a")[..],
        &port_option(false, addr.port()),
    ];
    let hello = hello("id1", "secret1", &services.concat());
    let mut after = Peer::ready_client(server.addr(), &hello);
    let (_, service, _) = after.opened();
    assert_eq!(service, 1);
    before.send(&closed(stream));
}

#[test]
fn a_prefix_with_its_id_is_matched_by_the_regex_without_it() {
    let mut server = server_of_id1("-hostWithID -hostRegex ^[0-9]+$ -hostNumber 2");
    let addr = server.addr();
    let services = [&[0x02][..], &ID_ALONE, &prefix_option("1")].concat();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    let _visitor = visit(addr, "id1-1.example.com");
    take(&mut peer, 1, &request("id1-1.example.com"));
    let _visitor = visit(addr, "id1.example.com");
    take(&mut peer, 0, &request("id1.example.com"));
    assert_eq!(get(addr, "1.example.com", "/").status, 404);
}

#[test]
fn a_client_hello_reaches_its_service_untouched() {
    let mut server =
        server("-addr \"\" -sniAddr 127.0.0.1:0 -id id1 -secret secret1 -hostNumber 2");
    let addr = server.sni_addr();
    let services = [0x02, 0x04, 0x05, 0x04, b's', b'a', b'f', b'e'];
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    for (name, service) in [("id1.example.com", 0), ("safe.example.com", 1)] {
        let whole = client_hello(name);
        let mut visitor = connect(addr);
        visitor.write_all(&whole).expect("send");
        take(&mut peer, service, &whole);
        // The same in records of a few bytes, in segments of one.
        let pieces: Vec<u8> = whole[5..].chunks(3).flat_map(record).collect();
        let mut visitor = connect(addr);
        for byte in &pieces {
            visitor.write_all(&[*byte]).expect("send");
        }
        take(&mut peer, service, &pieces);
    }
}

/// Checks that the answer to the hello is this frame and the end.
fn assert_refused(addr: SocketAddr, hello: &[u8], with: Frame) {
    let mut peer = Peer::client(addr, hello);
    peer.expect(with);
    peer.expect_end();
}

#[test]
fn error_1_answers_a_wrong_id_or_secret() {
    let mut server = server_of_id1("-reconnectTimes 0");
    let addr = server.addr();
    for (id, secret) in WRONG_LOGINS {
        assert_refused(addr, &hello(id, secret, &ID_ALONE), Frame::Error(1));
    }
    Peer::ready_client(addr, &id1());
}

#[test]
fn error_2_names_the_service_whose_port_is_unavailable() {
    let (free, taken) = (free_port(), free_port());
    let _held = TcpListener::bind(("0.0.0.0", taken)).expect("hold a port");
    let mut server = server_of_id1(&format!(
        "-tcpNumber 2 -tcpRange {free}-{free} -tcpNumber 1 -tcpRange {taken}-{taken}"
    ));
    let addr = server.addr();
    for bad in [taken, 1] {
        let services = [
            [&[0x02][..], &port_option(false, bad)].concat(),
            port_option(false, bad),
        ];
        assert_refused(
            addr,
            &hello("id1", "secret1", &services.concat()),
            Frame::PortError(0),
        );
    }
    // The client's other services are published; GT/1 cannot report the failed one.
    let services = [&[0x02][..], &ID_ALONE, &port_option(false, taken)].concat();
    let mut peer = Peer::client(addr, &hello("id1", "secret1", &services));
    peer.expect(Frame::Ready);
    let _visitor = visit(addr, "id1.a");
    take(&mut peer, 0, &request("id1.a"));
    peer.shutdown();
    // With a random port allowed, the server chooses one.
    let services = port_option(true, taken);
    let mut peer = Peer::client(addr, &hello("id1", "secret1", &services));
    peer.expect(Frame::PortOpened(0, free));
    peer.expect(Frame::Ready);
}

#[test]
fn error_3_answers_one_tunnel_too_many() {
    let mut server = server_of_id1("-connections 2");
    let addr = server.addr();
    let one = Peer::ready_client(addr, &id1());
    let _two = Peer::ready_client(addr, &id1());
    assert_refused(addr, &id1(), Frame::Error(3));
    one.shutdown();
    common::eventually("a place to be free again", || {
        (Peer::client(addr, &id1()).frame() == Frame::Ready).then_some(())
    });
}

#[test]
fn error_4_answers_one_prefix_too_many() {
    let mut server = server_of_id1("");
    let services = [&[0x02][..], &ID_ALONE, &prefix_option("x")].concat();
    let hello = hello("id1", "secret1", &services);
    assert_refused(server.addr(), &hello, Frame::Error(4));
}

#[test]
fn error_5_answers_a_prefix_that_another_client_has() {
    let mut server = server_of_id1("-id id2 -secret secret2");
    let addr = server.addr();
    let services = prefix_option("web");
    let first = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    let second = hello("id2", "secret2", &services);
    assert_refused(addr, &second, Frame::Error(5));
    server.wait_for("id=id2 cannot have the host prefix \"web\": another client has it");
    // Tunnels get lost, and clients restart: the prefix is reserved for its id.
    first.shutdown();
    server.wait_for_closed_of("id1", 1);
    assert_refused(addr, &second, Frame::Error(5));
    let mut first = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    first.send(&CLOSE);
    while first.frame_or_end().is_some() {}
    server.wait_for_closed_of("id1", 2);
    assert_refused(addr, &second, Frame::Error(5));
    // A prefix that the returning client does not ask for is free.
    let mut first = Peer::ready_client(addr, &id1());
    Peer::ready_client(addr, &second);
    first.sync();
}

#[test]
fn the_id_of_a_user_is_no_other_client_s_prefix() {
    let mut server = server_of_id1("-id Id2 -secret secret2 -hostNumber 0 -allowAnyClient");
    let addr = server.addr();
    for prefix in ["id1", "ID1"] {
        for option in [0x03, 0x05] {
            let mut services = prefix_option(prefix);
            services[0] = option;
            for (id, secret) in [("Id2", "secret2"), ("stranger", "s")] {
                assert_refused(addr, &hello(id, secret, &services), Frame::Error(5));
            }
        }
    }
    // Another client with the same id in another case.
    assert_refused(addr, &hello("ID1", "s", &ID_ALONE), Frame::Error(5));
    assert_refused(addr, &hello("id2", "s", &ID_ALONE), Frame::Error(5));
    let all = [&[0x02][..], &ID_ALONE, &prefix_option("own")].concat();
    Peer::ready_client(addr, &hello("Id2", "secret2", &all));
    Peer::ready_client(addr, &hello("id1", "secret1", &prefix_option("ID1")));
}

#[test]
fn the_ports_of_a_client_that_is_away_are_no_other_client_s() {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-id id2 -secret secret2 -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let addr = server.addr();
    let first = hello("id1", "secret1", &port_option(true, 0));
    Peer::ready_client(addr, &first).shutdown();
    server.wait_for_closed_of("id1", 1);
    common::eventually("the port to be closed", || {
        TcpListener::bind(("0.0.0.0", port)).ok()
    });
    for other in [port_option(false, port), port_option(true, 0)] {
        let hello = hello("id2", "secret2", &other);
        assert_refused(addr, &hello, Frame::PortError(0));
    }
    let mut back = Peer::client(addr, &first);
    back.expect(Frame::PortOpened(0, port));
    back.expect(Frame::Ready);
}

#[test]
fn one_name_for_http_and_tls_is_one_prefix() {
    let mut server = server("-addr 127.0.0.1:0 -sniAddr 127.0.0.1:0 -id id1 -secret secret1");
    let (addr, sni) = (server.addr(), server.sni_addr());
    let mut tls = prefix_option("web");
    tls[0] = 0x05;
    let services = [&[0x02][..], &prefix_option("web"), &tls].concat();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    let _visitor = visit(addr, "web.a");
    take(&mut peer, 0, &request("web.a"));
    let whole = client_hello("web.a");
    let mut visitor = connect(sni);
    visitor.write_all(&whole).expect("send");
    take(&mut peer, 1, &whole);
}

#[test]
fn prefixes_that_no_visitor_can_ask_for_are_refused() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    for (prefix, why) in [
        ("a.b", "it has a dot,"),
        (&*"x".repeat(64), "the maximum is 63"),
        ("a b", "it has ' ' in it"),
    ] {
        let hello = hello("id1", "secret1", &prefix_option(prefix));
        assert_refused(addr, &hello, Frame::Error(6));
        let line = server.wait_for(&format!("cannot have the host prefix {prefix:?}: "));
        assert!(line.contains(why), "{line}");
    }
    // With another header, its whole value is the prefix.
    let mut by_header =
        common::gt::server("-addr 127.0.0.1:0 -httpMUXHeader X-Device -id id1 -secret secret1");
    let hello = hello("id1", "secret1", &prefix_option("a.b"));
    Peer::ready_client(by_header.addr(), &hello);
}

#[test]
fn a_prefix_with_its_id_is_a_label_too() {
    let mut server = server_of_id1("-hostWithID");
    let addr = server.addr();
    let with = |length: usize| hello("id1", "secret1", &prefix_option(&"x".repeat(length)));
    assert_refused(addr, &with(60), Frame::Error(6));
    Peer::ready_client(addr, &with(59));
}

#[test]
fn the_name_of_another_script_that_an_older_client_offers_is_published_as_browsers_write_it() {
    let (mut server, regex) = (
        server_of_id1("-hostRegex ^xn--[a-z0-9-]+$"),
        "xn--mller-kva",
    );
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &prefix_option("müller")));
    let host = format!("{regex}.a");
    let _visitor = visit(addr, &host);
    take(&mut peer, 0, &request(&host));
}

#[test]
fn error_6_answers_a_prefix_that_matches_no_regex() {
    let mut server = server_of_id1("-hostRegex ^[0-9]+$ -hostRegex ^[a-z]+$");
    let addr = server.addr();
    for (prefix, good) in [("12", true), ("ab", true), ("a1", false), ("A", false)] {
        let hello = hello("id1", "secret1", &prefix_option(prefix));
        if good {
            let mut peer = Peer::ready_client(addr, &hello);
            peer.send(&CLOSE);
            while peer.frame_or_end().is_some() {}
        } else {
            assert_refused(addr, &hello, Frame::Error(6));
        }
    }
}

#[test]
fn error_8_answers_too_many_options() {
    let mut server = server_of_id1("-hostNumber 0");
    let addr = server.addr();
    let services = |count: usize| {
        let mut bytes = Vec::new();
        for n in 1..=count {
            if n < count {
                bytes.push(0x02);
            }
            bytes.extend(prefix_option(&format!("p{n}")));
        }
        hello("id1", "secret1", &bytes)
    };
    assert_refused(addr, &services(601), Frame::Error(8));
    let mut peer = Peer::ready_client(addr, &services(300));
    let _visitor = visit(addr, "p300.a");
    take(&mut peer, 299, &request("p300.a"));
}

#[test]
fn error_9_answers_one_tcp_port_too_many() {
    let (one, two) = (free_port(), free_port());
    let mut server = server_of_id1(&format!(
        "-tcpNumber 1 -tcpRange {}-{}",
        one.min(two),
        one.max(two)
    ));
    let services = [
        &[0x02][..],
        &port_option(false, one),
        &port_option(false, two),
    ]
    .concat();
    let mut peer = Peer::client(server.addr(), &hello("id1", "secret1", &services));
    loop {
        match peer.frame() {
            Frame::PortOpened(0, port) if port == one => {}
            frame => break assert_eq!(frame, Frame::Error(9)),
        }
    }
    peer.expect_end();
    // The ports that were opened for it are closed again.
    common::eventually("the port to be closed", || {
        TcpListener::bind(("0.0.0.0", one)).ok()
    });
}

#[test]
fn a_malformed_hello_is_closed() {
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let addr = server.addr();
    let with = |services: &[u8]| hello("id1", "secret1", services);
    for lie in [
        b"\xF0\x02".to_vec(),
        b"\xF0\x03\x03id1\x07secret1\x00".to_vec(),
        b"\xF0\x01\x00\x07secret1\x00".to_vec(),
        b"\xF0\x01\x03id1\x00\x00".to_vec(),
        hello(&"i".repeat(201), "secret1", &ID_ALONE),
        hello("id1", &"s".repeat(201), &ID_ALONE),
        hello("id1", &"s".repeat(255), &ID_ALONE),
        with(&[0x06]),
        with(&[0x3F]),
        with(&[0x41, 0x00]),
        with(&[0xFF, 0xFF, 0xFF, 0xFF]),
        with(&[0x03, 0x00]),
        with(&[0x03, 0xC9, b'x']),
        with(&[0x02, 0x02, 0x00]),
    ] {
        let mut peer = Peer::client(addr, &lie);
        // An error may show only with the next byte, so no more are sent.
        let _ = peer.writer().shutdown(Shutdown::Write);
        loop {
            match peer.frame_or_end() {
                None => break,
                Some(Frame::Error(1 | 8)) => {}
                Some(frame) => panic!("{frame:?} for {lie:02X?}"),
            }
        }
    }
    Peer::ready_client(addr, &id1());
}

#[test]
fn an_unknown_signal_ends_only_its_tunnel() {
    let (_server, addr, mut good) = with_tunnel("");
    for bad in [
        vec![0xFF, 0xFF, 0xF5, 0x00],
        vec![0xFF, 0xFF, 0xFF, 0xF8],
        [&[0, 0, 0, 1, 0, 9][..], &[0; 8]].concat(),
        first(1, 0, b"the client may not begin a stream"),
    ] {
        let mut peer = Peer::ready_client(addr, &id1());
        peer.send(&bad);
        let _ = peer.writer().shutdown(Shutdown::Write);
        while let Some(frame) = peer.frame_or_end() {
            assert!(
                matches!(frame, Frame::Close | Frame::Closed(_)),
                "{frame:?}"
            );
        }
    }
    good.sync();
}

#[test]
fn the_number_of_draining_tunnels_is_bounded() {
    let mut server = server_of_id1("-connections 1 -timeout 1h");
    let addr = server.addr();
    let mut peers = Vec::new();
    let mut visitors = Vec::new();
    for number in 0..8 {
        let prefix = format!("p{number}");
        let services = prefix_option(&prefix);
        let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
        visitors.push(visit(addr, &prefix));
        take(&mut peer, 0, &request(&prefix));
        peers.push(peer);
    }
    // Two are left: the current one, and one that drains with its visitor.
    server.wait_for_closed(6);
    let (last, draining) = (peers.pop(), peers.pop());
    let (mut last, mut draining) = (last.expect("a peer"), draining.expect("a peer"));
    last.sync();
    draining.expect(Frame::Close);
    draining.send(&[data(1, b"x"), closed(1)].concat());
    for mut peer in peers {
        while peer.frame_or_end().is_some() {}
    }
    assert_eq!(server.closed(), 6);
}

#[test]
fn a_replaced_tunnel_without_streams_ends_though_its_client_pings() {
    let mut server = server_of_id1("-timeout 8s");
    let addr = server.addr();
    let old = Peer::ready_client(addr, &id1());
    let other = hello("id1", "secret1", &prefix_option("other"));
    let mut new = Peer::ready_client(addr, &other);
    common::eventually("the old tunnel to end", || {
        new.sync();
        let _ = old.writer().write_all(&PING);
        std::thread::sleep(Duration::from_millis(200));
        (server.closed() > 0).then_some(())
    });
}
