//! `speed` and `visitorSpeed` of a service: limits that the client keeps, in each direction. A busy
//! machine makes a test only slower, so tests check only for transfers that are too fast.

use crate::common::gt::{client_of_id1, server_of_id1, tcp_tunnel};
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service;
use crate::common::speed::{assert_limited, SPEED};
use crate::common::visitor::{connect, get, read};
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Bytes that take a while at that speed.
const MUCH: usize = 200_000;

/// Downloads by this many visitors at once.
fn download(addr: SocketAddr, visitors: usize, expected: &[u8]) {
    std::thread::scope(|scope| {
        for _ in 0..visitors {
            scope.spawn(|| {
                let all = read(&mut connect(addr), expected.len());
                assert!(all == expected, "the bytes differ");
            });
        }
    });
}

#[test]
fn all_visitors_of_a_service_share_its_speed() {
    let bytes = Arc::new(Random::new(1).bytes(MUCH / 2));
    let source = service::source(bytes.clone());
    let (_server, _client, addr) = tcp_tunnel(source.addr, "", &format!("-speed {SPEED}"));
    let begun = Instant::now();
    download(addr, 2, &bytes);
    assert_limited(begun, MUCH);
}

#[test]
fn each_visitor_has_a_speed_of_its_own() {
    let bytes = Arc::new(Random::new(2).bytes(MUCH));
    let source = service::source(bytes.clone());
    let options = format!("-visitorSpeed {SPEED} -speed {}", 100 * SPEED);
    let (_server, _client, addr) = tcp_tunnel(source.addr, "", &options);
    let begun = Instant::now();
    download(addr, 8, &bytes);
    assert_limited(begun, MUCH);
}

#[test]
fn what_visitors_send_is_limited_and_whole() {
    for option in ["-speed", "-visitorSpeed"] {
        let (sink, received) = service::sink();
        let (_server, _client, addr) = tcp_tunnel(sink.addr, "", &format!("{option} {SPEED}"));
        let begun = Instant::now();
        let bytes = Random::new(3).bytes(MUCH);
        let mut visitor = connect(addr);
        visitor.write_all(&bytes).expect("send");
        visitor.shutdown(Shutdown::Write).expect("end");
        assert!(received.recv().unwrap() == bytes, "the bytes differ");
        assert_limited(begun, MUCH);
    }
}

#[test]
fn other_services_of_the_client_are_not_limited() {
    let bytes = Arc::new(Random::new(4).bytes(32 << 20));
    let source = service::source(bytes.clone());
    let mut server = server_of_id1("-tcpNumber 2 -tcpRange 1024-65535");
    let mut client = client_of_id1(
        server.addr(),
        &format!(
            "-local tcp://{0} -remoteTCPRandom -speed {SPEED} -local tcp://{0} -remoteTCPRandom",
            source.addr
        ),
    );
    let [limited, free] = [0, 1].map(|index| client.wait_for_port(index));
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut slow = connect(at(limited));
    read(&mut slow, 1);
    // At the limited speed this would take five minutes.
    download(at(free), 1, &bytes);
    read(&mut slow, 1000);
}

#[test]
fn over_gt1_an_upload_does_not_stop_the_other_visitors_of_its_tunnel() {
    let (sink, received) = service::sink();
    let web = service::http(0, "web");
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let addr = server.addr();
    let mut client = client_of_id1(
        addr,
        &format!(
            "-wire 1 -remoteConnections 1 -local tcp://{} -remoteTCPRandom -visitorSpeed 1000 \
             -local http://{}",
            sink.addr, web.addr
        ),
    );
    let port = client.wait_for_port(0);
    let bytes = Random::new(5).bytes(8 << 20);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            visitor.write_all(&bytes).expect("send");
            visitor.shutdown(Shutdown::Write).expect("end");
        });
        // At the limited speed this would have to wait for more than two hours.
        for _ in 0..10 {
            assert_eq!(get(addr, "id1.a", "/").text(), "web / id1.a");
        }
    });
    assert!(received.recv().unwrap() == bytes, "the bytes differ");
}

#[test]
fn a_folder_has_speeds_too() {
    let scratch = Scratch::new();
    let text = "x".repeat(MUCH);
    scratch.file("much", &text);
    for option in ["-speed", "-visitorSpeed"] {
        let mut server = server_of_id1("");
        let addr = server.addr();
        let folder = scratch.path().display();
        let _client = client_of_id1(addr, &format!("-local file://{folder} {option} {SPEED}"));
        let begun = Instant::now();
        assert!(
            get(addr, "id1.a", "/much").text() == text,
            "the bytes differ"
        );
        assert_limited(begun, MUCH);
    }
}
