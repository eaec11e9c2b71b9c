//! A user's speed limit: kept in each direction, over all of the user's tunnels, without effect on
//! others. A busy machine makes a test only slower, so tests check only for transfers that are too
//! fast.

use crate::common::gt::{client, server, Gt};
use crate::common::peer::gt1::{data, hello, Frame, Peer, PING};
use crate::common::peer::{port_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::speed::{assert_limited, SPEED};
use crate::common::visitor::{connect, read};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that take a while at that speed.
const MUCH: usize = 300_000;

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Starts a server that limits all users but `free`; returns the TCP ports of `id1` and `free`.
fn limiting(more: &str) -> (Gt, SocketAddr, [u16; 2]) {
    let (scratch, ports) = (Scratch::new(), [free_port(), free_port()]);
    let config = scratch.file(
        "server.yaml",
        format!(
            "users:\n  id1: {{secret: s, tcp: {{range: {}}}}}\n  \
             free: {{secret: s, speed: 0, tcp: {{range: {}}}}}\noptions: {{addr: '127.0.0.1:0'}}\n",
            ports[0], ports[1]
        ),
    );
    let mut server = server(&format!(
        "-speed {SPEED} -config {} {more}",
        config.display()
    ));
    let addr = server.addr();
    (server, addr, ports)
}

/// Starts a client with one TCP service and `tunnels` tunnels.
fn serving(addr: SocketAddr, id: &str, service: &Service, tunnels: usize) -> Gt {
    let mut client = client(&format!(
        "-remote {addr} -id {id} -secret s -local tcp://{} -remoteTCPRandom \
         -remoteConnections {tunnels} -remoteIdleConnections {tunnels}",
        service.addr
    ));
    client.wait_for_tunnels(tunnels);
    client
}

#[test]
fn all_tunnels_of_a_user_share_a_speed_and_other_users_have_theirs() {
    let (_server, addr, [limited, free]) = limiting("");
    let bytes = Arc::new(Random::new(1).bytes(32 << 20));
    let source = service::source(bytes.clone());
    let _one = serving(addr, "id1", &source, 2);
    let _two = serving(addr, "free", &source, 1);

    let begun = Instant::now();
    // Each of the two has its own tunnel.
    let mut visitors = [connect(at(limited)), connect(at(limited))];
    read(&mut visitors[0], 1);
    // At the limited speed this would take five minutes.
    let all = read(&mut connect(at(free)), bytes.len());
    assert!(all == *bytes, "the bytes differ");
    std::thread::scope(|scope| {
        for visitor in &mut visitors {
            scope.spawn(|| read(visitor, MUCH / 2));
        }
    });
    assert_limited(begun, MUCH);
}

/// Connects a hand-written client as the limited user `id1`.
fn limited_peer(addr: SocketAddr) -> Peer {
    Peer::ready_client(addr, &hello("id1", "s", &port_option(true, 0)))
}

#[test]
fn what_visitors_send_is_limited_too() {
    let (_server, addr, [limited, _]) = limiting("");
    let mut peer = limited_peer(addr);
    let begun = Instant::now();
    let mut visitor = connect(at(limited));
    let mut writer = visitor.try_clone().expect("clone a socket");
    let sending = std::thread::spawn(move || writer.write_all(&[7; MUCH]).expect("send"));
    let (stream, _, some) = peer.opened();
    let rest = peer.gather(stream, MUCH - some.len());
    assert_limited(begun, some.len() + rest.len());
    // The other direction has its own bucket, which is full.
    peer.send(&data(stream, b"thanks"));
    assert_eq!(read(&mut visitor, 6), b"thanks");
    sending.join().unwrap();
}

#[test]
fn a_throttled_client_still_gets_pings() {
    let (_server, addr, _) = limiting("-timeout 4s");
    let mut peer = limited_peer(addr);
    let mut writer = peer.writer();
    // A ping behind so many bytes is not read for minutes. The test does not wait for the end of
    // this.
    std::thread::spawn(move || {
        let _ = writer.write_all(&data(1, &vec![7; 200 * SPEED as usize]));
        let _ = writer.write_all(&PING);
    });
    for _ in 0..3 {
        peer.expect(Frame::Ping);
    }
}

/// Reads the next frame other than a ping like an original client: under one deadline, after which
/// it gives up. The whole frame is there when it begins, however busy the machine is.
fn frame_in_time(peer: &mut Peer) -> Frame {
    loop {
        peer.wait_for_bytes();
        let begun = Instant::now();
        let frame = peer.frame();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?} for a frame");
        if frame != Frame::Ping {
            return frame;
        }
    }
}

#[test]
fn a_frame_of_gt_1_is_not_begun_before_all_of_it_may_go() {
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret s -speed 1024 -timeout 60s");
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "s", &ID_ALONE));
    for round in 0..2 {
        let mut visitor = connect(addr);
        let body = Random::new(round).bytes(4096);
        let head = "POST / HTTP/1.1\r\nHost: id1.a\r\nContent-Length: 4096\r\n\r\n";
        let asked = [head.as_bytes(), &body].concat();
        visitor.write_all(&asked).expect("ask");
        let (mut stream, mut came) = (0, Vec::new());
        let begun = Instant::now();
        while came.len() < asked.len() {
            match frame_in_time(&mut peer) {
                Frame::First(first, 0, bytes) => (stream, came) = (first, bytes),
                Frame::Data(of, bytes) if of == stream => came.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(came == asked, "other bytes");
        assert!(
            begun.elapsed() >= Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );

        let answer = [
            b"HTTP/1.1 200 Fine\r\nContent-Length: 4096\r\n\r\n",
            &body[..],
        ]
        .concat();
        for piece in answer.chunks(4096) {
            peer.send(&data(stream, piece));
        }
        let begun = Instant::now();
        assert!(read(&mut visitor, answer.len()) == answer, "other bytes");
        assert!(
            begun.elapsed() >= Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        drop(visitor);
        assert_eq!(frame_in_time(&mut peer), Frame::Closed(stream));
    }
    assert_eq!(server.closed(), 0);
}
