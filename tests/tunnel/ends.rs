//! Both real ends of a tunnel: what a visitor and a service can rely on.

use crate::common;
use crate::common::gt::{client_of_id1, server_of_id1, tcp_tunnel};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, assert_echo, assert_echo_at, Service};
use crate::common::visitor::{connect, read, read_to_end};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};

#[test]
fn a_service_that_speaks_first_is_heard() {
    let service = service::banner("220 welcome\r\n");
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    let mut visitor = connect(at);
    assert_eq!(read(&mut visitor, 13), b"220 welcome\r\n");
    assert_echo(&mut visitor, b"HELO");
}

#[test]
fn transfers_of_any_length_are_complete() {
    let service = service::echo();
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    let mut random = Random::new(1);
    let mut visitor = connect(at);
    for amount in [
        1,
        2,
        4095,
        4096,
        4097,
        32767,
        32768,
        65536,
        1 << 20,
        9 << 20,
    ] {
        assert_echo(&mut visitor, &random.bytes(amount));
    }
}

#[test]
fn the_end_of_a_service_comes_behind_its_bytes() {
    let bytes = Arc::new(Random::new(2).bytes(20 << 20));
    let service = service::source(bytes.clone());
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    let mut visitor = connect(at);
    assert!(read_to_end(&mut visitor) == *bytes, "the bytes differ");
}

#[test]
fn the_end_of_a_visitor_comes_behind_its_bytes() {
    let (service, reports) = service::sink();
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    let bytes = Random::new(3).bytes(20 << 20);
    let mut visitor = connect(at);
    let mut sender = visitor.try_clone().expect("clone a socket");
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).expect("send");
        sender.shutdown(Shutdown::Write).expect("shut down");
    });
    read_to_end(&mut visitor);
    sending.join().unwrap();
    let came = reports.recv_timeout(common::PATIENCE).expect("a report");
    assert!(came == bytes, "the bytes differ");
}

#[test]
fn a_visitor_that_stops_reading_loses_nothing_and_stalls_no_other_for_good() {
    let bytes = Arc::new(Random::new(4).bytes(32 << 20));
    let service = service::source(bytes.clone());
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    let mut slow = connect(at);
    let mut quick = connect(at);
    read(&mut slow, 1);
    // The slow visitor waits while the other is served, then reads.
    let reading = std::thread::spawn(move || read_to_end(&mut quick));
    let rest = read_to_end(&mut slow);
    assert!(rest == bytes[1..], "the slow one's bytes differ");
    assert!(
        reading.join().unwrap() == *bytes,
        "the quick one's bytes differ"
    );
}

#[test]
fn two_hundred_visitors_at_once_get_their_own_bytes() {
    let service = service::echo();
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    std::thread::scope(|scope| {
        for n in 0..200 {
            scope.spawn(move || {
                let bytes = Random::new(n).bytes(50_000);
                let mut visitor = connect(at);
                for piece in bytes.chunks(10_000) {
                    assert_echo(&mut visitor, piece);
                }
            });
        }
    });
}

#[test]
fn five_thousand_connections_leave_no_descriptors() {
    let service = service::echo();
    let (server, client, at) = tcp_tunnel(service.addr, "", "-remoteConnections 1");
    assert_echo_at(at);
    let before = (server.fds(), client.fds());
    for n in 0..5000u32 {
        let mut visitor = connect(at);
        visitor.write_all(&n.to_be_bytes()).expect("send");
        assert_eq!(read(&mut visitor, 4), n.to_be_bytes());
    }
    server.wait_for_fds(before.0);
    client.wait_for_fds(before.1);
    assert_echo_at(at);
}

#[test]
fn a_visitor_s_reset_reaches_the_service_as_an_end_in_gt_1() {
    let (service, reports) = service::sink();
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "-wire 1");
    let mut visitor = connect(at);
    visitor.write_all(b"then gone").expect("send");
    // After the acknowledgement only the end is missing.
    read(&mut visitor, 1);
    let visitor = socket2::Socket::from(visitor);
    visitor
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("choose a reset");
    drop(visitor);
    let came = reports.recv_timeout(common::PATIENCE).expect("a report");
    assert_eq!(came, b"then gone");
}

#[test]
fn a_half_closed_visitor_still_gets_its_answer() {
    let service = service::http(0, "here");
    let (_server, _client, at) = tcp_tunnel(service.addr, "", "");
    let mut visitor = connect(at);
    visitor
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("send");
    visitor.shutdown(Shutdown::Write).expect("shut down");
    let answer = String::from_utf8(read_to_end(&mut visitor)).expect("text");
    assert!(answer.ends_with("here /x a"), "{answer}");
}

#[test]
fn an_http_service_may_have_a_tcp_port() {
    let service = service::http(0, "here");
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}-{port}"));
    let local = format!("-local http://{} -remoteTCPPort {port}", service.addr);
    let _client = client_of_id1(server.addr(), &local);
    let answer = common::visitor::get(([127, 0, 0, 1], port).into(), "any.host", "/x");
    assert_eq!(answer.text(), "here /x any.host");
}

#[test]
fn everything_works_over_ipv6_too() {
    let service = service::echo();
    let port = free_port();
    let mut server = common::gt::server(&format!(
        "-addr [::1]:0 -id id1 -secret secret1 -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let addr = server.addr();
    let local = format!("-local tcp://{} -remoteTCPPort {port}", service.addr);
    let _client = client_of_id1(addr, &local);
    assert_echo_at(format!("[::1]:{port}").parse().unwrap());
}

/// A service that sends the second half of its output on request.
fn in_two_steps() -> (Service, Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let service = Service::start(0, move |mut stream| {
        stream.write_all(b"begun, ")?;
        let _ = wait.lock().unwrap().recv();
        stream.write_all(b"done")
    });
    (service, go)
}

#[test]
fn a_server_that_is_stopped_lets_its_visitors_finish() {
    let (service, go) = in_two_steps();
    let (mut server, _client, at) = tcp_tunnel(service.addr, "", "");
    let mut visitor = connect(at);
    assert_eq!(read(&mut visitor, 7), b"begun, ");
    server.signal("TERM");
    server.wait_for_stopping();
    go.send(()).expect("let it finish");
    assert_eq!(read_to_end(&mut visitor), b"done");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_client_that_is_stopped_lets_its_visitors_finish() {
    let (service, go) = in_two_steps();
    let (_server, mut client, at) = tcp_tunnel(service.addr, "", "");
    let mut visitor = connect(at);
    assert_eq!(read(&mut visitor, 7), b"begun, ");
    client.signal("TERM");
    client.wait_for_stopping();
    go.send(()).expect("let it finish");
    assert_eq!(read_to_end(&mut visitor), b"done");
    assert_eq!(client.exit().code(), Some(0));
}

#[test]
fn a_service_may_answer_after_the_visitor_s_end() {
    let counting = Service::start(0, |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        write!(stream, "{} bytes", bytes.len())
    });
    let (_server, _client, at) = tcp_tunnel(counting.addr, "", "");
    for count in [0, 1, 300_000] {
        let mut visitor = connect(at);
        visitor.write_all(&vec![7; count]).expect("send");
        visitor.shutdown(Shutdown::Write).expect("shut down");
        let answer = String::from_utf8(read_to_end(&mut visitor)).expect("text");
        assert_eq!(answer, format!("{count} bytes"));
    }
}
