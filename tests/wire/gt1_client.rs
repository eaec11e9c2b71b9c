//! The client's end of GT/1: a server written by hand from docs/gt1.md against the real client.

use crate::common;
use crate::common::gt::{client, Gt};
use crate::common::peer::gt1::{
    closed, data, data_head, first, hello, Frame, Peer, PeerServer, CLOSE, ERROR, INFO, PING,
    READY, RECONNECT, SERVICES,
};
use crate::common::peer::{port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, Service};
use std::io::Write;
use std::sync::Arc;

/// Starts a client with `more` flags for its only service, and accepts its tunnel.
fn with_tunnel(service: &Service, more: &str) -> (PeerServer, Gt, Peer) {
    let server = PeerServer::start();
    let client = client(&format!(
        "-wire 1 -remote tcp://{} -id id1 -secret secret1 -reconnectDelay 10ms -local tcp://{} {more}",
        server.addr, service.addr
    ));
    let peer = server.accept_ready(&tcp_hello());
    (server, client, peer)
}

/// Returns the hello of a client with one TCP service on any port.
fn tcp_hello() -> Vec<u8> {
    hello("id1", "secret1", &port_option(true, 0))
}

/// Starts a client with an HTTP service at `local`, and accepts its tunnel.
fn with_http(local: &str, more: &str) -> (PeerServer, Gt, Peer) {
    let server = PeerServer::start();
    let client = client(&format!(
        "-wire 1 -remote tcp://{} -id id1 -secret secret1 -reconnectDelay 10ms -local http://{local} {more}",
        server.addr
    ));
    let peer = server.accept_ready(&hello("id1", "secret1", &ID_ALONE));
    (server, client, peer)
}

#[test]
fn the_hello_lists_the_services_in_order() {
    let port = free_port();
    let [high, low] = port.to_be_bytes();
    let cases: [(&str, &str, &[u8]); 6] = [
        ("id1", "-local http://127.0.0.1", &[0x00]),
        ("id1", "-local https://127.0.0.1", &[0x04]),
        (
            "id1",
            "-local https://127.0.0.1 -hostPrefix ab",
            &[0x05, 2, b'a', b'b'],
        ),
        ("id1", "-local tcp://127.0.0.1:22", &[0x01, 0x01, 0, 0]),
        (
            "id1",
            &format!("-local tcp://127.0.0.1:22 -remoteTCPPort {port}"),
            &[0x01, 0x00, high, low],
        ),
        (
            "long-id",
            &format!(
                "-local tcp://127.0.0.1:22 -remoteTCPPort {port} -remoteTCPRandom \
                 -local http://127.0.0.1 -hostPrefix 1 -local http://127.0.0.1 -hostPrefix 2"
            ),
            &[
                0x02, 0x01, 0x01, high, low, 0x02, 0x03, 0x01, 0x31, 0x03, 0x01, 0x32,
            ],
        ),
    ];
    for (id, flags, services) in cases {
        let server = PeerServer::start();
        let mut client = client(&format!(
            "-wire 1 -remote {} -id {id} -secret secret1 {flags}",
            server.addr
        ));
        let mut bytes = vec![0xF0, 0x01, u8::try_from(id.len()).unwrap()];
        bytes.extend(id.as_bytes());
        bytes.extend(b"\x07secret1");
        bytes.extend(services);
        let _peer = server.accept_ready(&bytes);
        client.wait_for_attempt();
        client.wait_for_first_tunnel();
    }
}

#[test]
fn a_client_without_a_secret_generates_one() {
    let said = || {
        let server = PeerServer::start();
        let _client = client(&format!(
            "-wire 1 -remote {} -id id1 -local http://127.0.0.1",
            server.addr
        ));
        let mut peer = server.accept();
        assert_eq!(peer.read(6), b"\xF0\x01\x03id1");
        let length = usize::from(peer.read(1)[0]);
        assert!((1..=200).contains(&length), "{length}");
        peer.read(length)
    };
    assert_ne!(said(), said());
}

#[test]
fn infos_may_come_in_pieces_before_ready() {
    let server = PeerServer::start();
    let mut client = client(&format!(
        "-wire 1 -remote {} -id id1 -secret secret1 -local tcp://127.0.0.1:22",
        server.addr
    ));
    let mut peer = server.accept();
    assert_eq!(peer.read(tcp_hello().len()), tcp_hello());
    let info = [&INFO[..], &[0x00, 0x01, 0x00, 0x00, 0x08, 0xAE], &READY].concat();
    for byte in info {
        peer.send(&[byte]);
    }
    client.wait_for(
        "receive server information: tcp port 2222 opened successfully connID=1 tcp port=2222",
    );
    client.wait_for_first_tunnel();
}

#[test]
fn a_stream_reaches_its_service_and_the_answer_comes_back() {
    let service = service::http(0, "here");
    let (_server, _client, mut peer) = with_http(&service.addr.to_string(), "");
    for (stream, target) in [(1, "/one"), (7, "/two")] {
        let asked = format!("GET {target} HTTP/1.1\r\nHost: id1.a\r\n\r\n");
        let body = format!("here {target} id1.a");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        peer.send(&first(stream, 0, asked.as_bytes()));
        assert_eq!(peer.gather(stream, answer.len()), answer.as_bytes());
        // The connection is kept: a second request on it is data of the same stream.
        peer.send(&data(stream, asked.as_bytes()));
        assert_eq!(peer.gather(stream, answer.len()), answer.as_bytes());
    }
}

#[test]
fn an_empty_first_frame_opens_the_connection() {
    let service = service::banner("220 welcome\r\n");
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&first(1, 0, b""));
    assert_eq!(peer.gather(1, 13), b"220 welcome\r\n");
    peer.send(&data(1, b"echo"));
    assert_eq!(peer.gather(1, 4), b"echo");
}

#[test]
fn the_end_of_a_service_comes_behind_its_bytes() {
    let bytes = Arc::new(Random::new(1).bytes(8 << 20));
    let service = service::source(bytes.clone());
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&first(1, 0, b""));
    assert!(peer.gather_to_close(1) == *bytes, "the bytes differ");
}

#[test]
fn a_close_reaches_the_service_behind_the_bytes() {
    let (service, reports) = service::sink();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    let bytes = Random::new(2).bytes(8 << 20);
    let (head, tail) = bytes.split_at(1000);
    peer.send(&first(1, 0, head));
    // One frame larger than any buffer.
    peer.send(&data(1, tail));
    peer.send(&closed(1));
    let came = reports.recv_timeout(common::PATIENCE).expect("a report");
    assert!(came == bytes, "the bytes differ");
}

#[test]
fn many_streams_in_one_tunnel_get_their_own_bytes() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "-remoteConnections 1");
    let streams = 1..=50u32;
    let bytes: Vec<Vec<u8>> = streams
        .clone()
        .map(|stream| Random::new(stream.into()).bytes(20_000))
        .collect();
    let mut writer = peer.writer();
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        for stream in 1..=50u32 {
            writer.write_all(&first(stream, 0, b"")).expect("send");
        }
        for piece in 0..20 {
            for (stream, bytes) in (1..).zip(&sent) {
                let piece = &bytes[piece * 1000..][..1000];
                writer.write_all(&data(stream, piece)).expect("send");
            }
        }
    });
    let mut came = vec![Vec::new(); 50];
    while came.iter().any(|bytes| bytes.len() < 20_000) {
        match peer.frame() {
            Frame::Data(stream, more) => came[stream as usize - 1].extend(more),
            other => panic!("{other:?}"),
        }
    }
    sending.join().unwrap();
    assert!(came == bytes, "the bytes differ");
}

#[test]
fn frames_in_single_bytes_are_parsed() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    let frames = [first(5, 0, b"ab"), data(5, b""), data(5, b"cd")].concat();
    for byte in frames {
        peer.send(&[byte]);
    }
    assert_eq!(peer.gather(5, 4), b"abcd");
    for byte in closed(5) {
        peer.send(&[byte]);
    }
}

#[test]
fn a_frame_is_passed_on_before_it_is_complete() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&first(1, 0, b""));
    peer.send(&data_head(1, 1 << 30));
    peer.send(b"some of it");
    assert_eq!(peer.gather(1, 10), b"some of it");
}

#[test]
fn bytes_of_an_unknown_stream_are_dropped() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&[data(9, &[9; 100_000]), closed(9), data(0, b"zero")].concat());
    peer.send(&first(10, 0, b"known"));
    assert_eq!(peer.gather(10, 5), b"known");
}

#[test]
fn a_service_that_refuses_ends_its_stream_and_is_named() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let (_server, mut client, mut peer) = with_http(&nobody, "");
    peer.send(&first(1, 0, b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n"));
    // Either end may send the error page; what matters is that the stream is over.
    let answer = String::from_utf8(peer.gather_to_close(1)).expect("text");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 502 "),
        "{answer}"
    );
    client.wait_for(&nobody);

    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    drop(service);
    peer.send(&first(1, 0, b"hello"));
    assert_eq!(peer.gather_to_close(1), b"");
}

#[test]
fn an_unknown_service_index_ends_only_its_stream() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&first(1, 1, b"who"));
    peer.expect(Frame::Closed(1));
    peer.send(&first(2, 65535, b"who"));
    peer.expect(Frame::Closed(2));
    peer.send(&first(3, 0, b"you"));
    assert_eq!(peer.gather(3, 3), b"you");
}

#[test]
fn the_host_is_rewritten_even_if_it_comes_in_pieces() {
    let service = service::http(0, "here");
    let local = service.addr.to_string();
    let (_server, _client, mut peer) = with_http(&local, "-useLocalAsHTTPHost");
    let pieces = [
        &b"GET / HTTP/1.1\r\nHo"[..],
        b"st: id",
        b"1.a\r",
        b"\n\r",
        b"\n",
    ];
    peer.send(&first(1, 0, pieces[0]));
    for piece in &pieces[1..] {
        peer.send(&data(1, piece));
    }
    let body = format!("here / {local}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let came = peer.gather(1, answer.len());
    assert_eq!(String::from_utf8_lossy(&came), answer);
}

#[test]
fn a_request_that_cannot_be_followed_gets_400_or_431_behind_the_answers_before_it() {
    let service = service::http(0, "here");
    let local = service.addr.to_string();
    let (_server, _client, mut peer) = with_http(&local, "-useLocalAsHTTPHost");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(33 * 1024));
    let cases = [
        ("GET / HTTP/1.1\nHost: evil\n\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ];
    for (stream, (head, status)) in (1..).zip(cases) {
        let good = "GET /good HTTP/1.1\r\nHost: id1.a\r\n\r\n";
        peer.send(&first(stream, 0, format!("{good}{good}{head}").as_bytes()));
        let came = peer.gather_to_close(stream);
        let came = String::from_utf8_lossy(&came);
        let answers: Vec<&str> = came.split("HTTP/1.1 ").collect();
        let body = format!("here /good {local}");
        let ["", one, two, last] = answers[..] else {
            panic!("{came}");
        };
        assert!(one.ends_with(&body) && two.ends_with(&body), "{came}");
        assert!(last.starts_with(status), "{came}");
    }
}

#[test]
fn an_idle_tunnel_is_pinged_and_a_dead_one_replaced() {
    let service = service::echo();
    let (server, _client, mut peer) = with_tunnel(&service, "-remoteTimeout 1s");
    for _ in 0..5 {
        peer.expect(Frame::Ping);
        peer.send(&PING);
    }
    // From here on nothing is answered.
    let mut unanswered = 0;
    while let Some(frame) = peer.frame_or_end() {
        match frame {
            Frame::Ping => {
                unanswered += 1;
                assert!(unanswered < 20, "it never gives up");
            }
            Frame::Close => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(unanswered >= 3, "{unanswered} pings before it gave up");
    server.accept_ready(&tcp_hello());
}

#[test]
fn a_close_from_the_server_drains_and_a_new_tunnel_comes() {
    let service = service::echo();
    let (server, _client, mut old) = with_tunnel(&service, "");
    old.send(&first(1, 0, b"one"));
    assert_eq!(old.gather(1, 3), b"one");
    old.send(&CLOSE);
    old.expect(Frame::Close);
    let mut new = server.accept_ready(&tcp_hello());
    new.send(&first(2, 0, b"two"));
    assert_eq!(new.gather(2, 3), b"two");
    old.send(&data(1, b"still here"));
    assert_eq!(old.gather(1, 10), b"still here");
    old.send(&closed(1));
    loop {
        match old.frame_or_end() {
            // The client may confirm the stream's end.
            Some(Frame::Closed(1)) => {}
            Some(frame) => {
                assert_eq!(frame, Frame::Close);
                break;
            }
            None => panic!("it ended without a word"),
        }
    }
    old.expect(Frame::Close);
    old.expect_end();
}

#[test]
fn a_second_close_ends_at_once() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&first(1, 0, b"one"));
    assert_eq!(peer.gather(1, 3), b"one");
    peer.send(&[CLOSE, CLOSE].concat());
    while let Some(frame) = peer.frame_or_end() {
        assert!(
            matches!(frame, Frame::Close | Frame::Closed(1)),
            "{frame:?}"
        );
    }
}

#[test]
fn a_reconnect_signal_brings_a_new_tunnel_before_the_old_one_ends() {
    let service = service::echo();
    let (server, _client, mut old) = with_tunnel(&service, "");
    old.send(&first(1, 0, b"one"));
    assert_eq!(old.gather(1, 3), b"one");
    old.send(&RECONNECT);
    let mut new = server.accept_ready(&tcp_hello());
    old.send(&data(1, b"still here"));
    let mut came = Vec::new();
    while came.len() < 10 {
        match old.frame() {
            Frame::Data(1, more) => came.extend(more),
            Frame::Close | Frame::Ping => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, b"still here");
    new.send(&first(2, 0, b"two"));
    assert_eq!(new.gather(2, 3), b"two");
}

#[test]
fn a_client_told_to_stop_ends_its_tunnel_gracefully() {
    let service = service::echo();
    let (_server, mut client, mut peer) = with_tunnel(&service, "");
    client.wait_for_tunnel();
    client.signal("TERM");
    peer.expect(Frame::Close);
    peer.send(&CLOSE);
    while let Some(frame) = peer.frame_or_end() {
        assert_eq!(frame, Frame::Close);
    }
    assert_eq!(client.exit().code(), Some(0));
}

#[test]
fn every_error_is_one_clear_line_and_a_new_attempt() {
    for (code, says) in [
        (1, "invalid id and secret"),
        (3, "max connections"),
        (4, "host number"),
        (5, "host conflict"),
        (6, "regex"),
        (7, "another client"),
        (8, "options"),
        (9, "max ports"),
        (4711, "4711"),
    ] {
        let server = PeerServer::start();
        let mut client = client(&format!(
            "-wire 1 -remote {} -id id1 -secret secret1 -reconnectDelay 10ms -local http://127.0.0.1",
            server.addr
        ));
        for _ in 0..2 {
            let mut peer = server.accept();
            peer.read(13);
            peer.send(&[&ERROR[..], &u16::to_be_bytes(code)].concat());
        }
        let lines = client.wait_for_lines(says, 2);
        for line in &lines {
            let level = line.contains(" WRN ") || line.contains(" ERR ");
            assert!(level, "{line}");
        }
        assert_eq!(client.tunnels(), 0);
    }
}

#[test]
fn error_2_names_the_port_that_could_not_be_opened() {
    let server = PeerServer::start();
    let mut client = client(&format!(
        "-wire 1 -remote {} -id id1 -secret secret1 -reconnectDelay 10ms \
         -local http://127.0.0.1 -local tcp://127.0.0.1:22 -remoteTCPPort 2222",
        server.addr
    ));
    for _ in 0..2 {
        server.accept().send(&[&ERROR[..], &[0, 2, 0, 1]].concat());
    }
    client.wait_for("2222");
}

#[test]
fn the_pool_grows_when_every_tunnel_has_three_streams() {
    let service = service::echo();
    let (server, _client, mut one) = with_tunnel(&service, "-remoteConnections 2");
    for stream in 1..=3 {
        one.send(&first(stream, 0, b"x"));
        assert_eq!(one.gather(stream, 1), b"x");
    }
    let mut two = server.accept_ready(&tcp_hello());
    for stream in 4..=6 {
        two.send(&first(stream, 0, b"x"));
        assert_eq!(two.gather(stream, 1), b"x");
    }
    two.send(&first(7, 0, b"x"));
    assert_eq!(two.gather(7, 1), b"x");
}

#[test]
fn idle_tunnels_are_kept_as_many_as_asked_for() {
    let service = service::echo();
    let server = PeerServer::start();
    let _client = client(&format!(
        "-wire 1 -remote tcp://{} -id id1 -secret secret1 -local tcp://{} \
         -remoteConnections 3 -remoteIdleConnections 3",
        server.addr, service.addr
    ));
    let _peers = [(); 3].map(|()| server.accept_ready(&tcp_hello()));
}

#[test]
fn several_remotes_have_a_tunnel_each() {
    let (one, two) = (PeerServer::start(), PeerServer::start());
    let _client = client(&format!(
        "-wire 1 -remote {} -remote {} -id id1 -secret secret1 -local http://127.0.0.1 -hostPrefix x",
        one.addr, two.addr
    ));
    let hello = hello("id1", "secret1", &prefix_option("x"));
    let _peers = [one.accept_ready(&hello), two.accept_ready(&hello)];
}

#[test]
fn a_service_that_stops_reading_loses_nothing() {
    let (report, reports) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (report, wait) = (std::sync::Mutex::new(report), std::sync::Mutex::new(wait));
    let service = Service::start(0, move |mut stream| {
        let _ = wait.lock().unwrap().recv();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes)?;
        let _ = report.lock().unwrap().send(bytes);
        Ok(())
    });
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    let bytes = Random::new(6).bytes(32 << 20);
    let (mut writer, sent) = (peer.writer(), bytes.clone());
    peer.send(&first(1, 0, b""));
    let sending = std::thread::spawn(move || {
        for chunk in sent.chunks(100_000) {
            writer.write_all(&data(1, chunk)).expect("send");
        }
        writer.write_all(&closed(1)).expect("send");
    });
    go.send(()).expect("let it read");
    let came = reports.recv_timeout(common::PATIENCE).expect("a report");
    assert!(came == bytes, "the bytes differ");
    sending.join().unwrap();
}

#[test]
fn a_server_that_sends_garbage_is_closed_and_tried_again() {
    let service = service::echo();
    for nonsense in [
        vec![0xFF, 0xFF, 0xF5, 0x00],
        [&INFO[..], &[0xFF, 0xFF, 0, 0, 0, 0]].concat(),
        vec![0, 0, 0, 1, 0, 9, 0, 0, 0, 0],
        Random::new(7).bytes(10_000),
        vec![0xFF; 10_000],
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        let (server, mut client, peer) = with_tunnel(&service, "");
        // The client may close the connection before everything is sent.
        let _ = peer.writer().write_all(&nonsense);
        peer.shutdown();
        // The same in place of the hello's answer.
        let mut peer = server.accept();
        peer.read(tcp_hello().len());
        let _ = peer.writer().write_all(&nonsense);
        peer.shutdown();
        let mut peer = server.accept_ready(&tcp_hello());
        peer.send(&first(1, 0, b"sense"));
        assert_eq!(peer.gather(1, 5), b"sense");
        assert!(client.has_ended().is_none());
    }
}

#[test]
fn signals_without_meaning_for_a_client_are_ignored() {
    let service = service::echo();
    let (_server, _client, mut peer) = with_tunnel(&service, "");
    peer.send(&[&READY[..], &SERVICES, &INFO, &[0, 1, 0, 0, 0, 80]].concat());
    peer.send(&first(1, 0, b"sense"));
    assert_eq!(peer.gather(1, 5), b"sense");
}
