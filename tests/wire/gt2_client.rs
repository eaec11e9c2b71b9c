//! The client's end of GT/2, and how it detects a server's version.

use crate::common;
use crate::common::certs;
use crate::common::gt::{client, server_of_id1, Gt};
use crate::common::peer::gt2::{credit, data, finish, hello, open, reset, Frame, Peer, PeerServer};
use crate::common::peer::{gt1, port_option};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, Service};
use crate::common::visitor::{get, read};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::Mutex;

const WINDOW: u32 = 32768;

fn port_service() -> Vec<u8> {
    port_option(true, 0)
}

fn client_to(server: SocketAddr, local: SocketAddr, more: &str) -> Gt {
    client(&format!(
        "-remote tcp://{server} -id id1 -secret secret1 -reconnectDelay 10ms -local tcp://{local} {more}"
    ))
}

/// Starts a client with one TCP service, and accepts its tunnel.
fn with_tunnel(local: SocketAddr, more: &str) -> (PeerServer, Gt, Peer) {
    let server = PeerServer::start();
    let client = client_to(server.addr, local, more);
    let hello = hello("id1", "secret1", &port_service(), WINDOW);
    let peer = server.accept_ready(&hello);
    (server, client, peer)
}

#[test]
fn a_stream_reaches_its_service_and_the_answer_comes_back() {
    let echo = service::echo();
    let (_server, _client, mut peer) = with_tunnel(echo.addr, "");
    peer.send(&open(1, 0, 10, b"hello, service"));
    assert_eq!(peer.gather(1, 10), b"hello, ser", "as much as it may");
    peer.send(&credit(1, 1 << 20));
    assert_eq!(peer.gather(1, 4), b"vice");
    let bytes = Random::new(1).bytes(300_000);
    let mut left = WINDOW - 14;
    let (mut sent, mut came) = (0, Vec::new());
    while came.len() < bytes.len() {
        let most = usize::try_from(left).unwrap().min(bytes.len() - sent);
        if most > 0 {
            peer.send(&data(1, &bytes[sent..sent + most]));
            sent += most;
            left -= u32::try_from(most).unwrap();
        }
        match peer.frame() {
            Frame::Data(1, more) => came.extend(more),
            Frame::Credit(1, more) => left += more,
            other => panic!("{other:?}"),
        }
    }
    assert!(came == bytes, "the bytes differ");
    peer.send(&finish(1));
    loop {
        match peer.frame() {
            Frame::Credit(..) => {}
            other => break assert_eq!(other, Frame::Finish(1)),
        }
    }
}

#[test]
fn a_service_that_refuses_ends_its_stream_and_is_named() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (_server, mut client, mut peer) = with_tunnel(nobody, "");
    peer.send(&open(1, 0, 1000, b"x"));
    peer.expect(Frame::Reset(1, 2));
    client.wait_for(&nobody.to_string());
}

#[test]
fn an_unknown_service_index_ends_only_its_stream() {
    let echo = service::echo();
    let (_server, _client, mut peer) = with_tunnel(echo.addr, "");
    for (stream, service) in [(1, 1), (2, 77), (3, 65535)] {
        peer.send(&open(stream, service, 1000, b"x"));
        peer.expect(Frame::Reset(stream, 4));
    }
    peer.send(&open(4, 0, 1000, b"you"));
    assert_eq!(peer.gather(4, 3), b"you");
}

#[test]
fn a_service_timeout_is_named_as_the_reason() {
    let silent = Service::start(0, |mut stream| {
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let (_server, _client, mut peer) = with_tunnel(silent.addr, "-localTimeout 300ms");
    peer.send(&open(1, 0, 1000, b"x"));
    peer.expect(Frame::Reset(1, 3));
}

#[test]
fn resets_pass_both_ways() {
    let (report, reports) = channel();
    let report = Mutex::new(report);
    let service = Service::start(0, move |mut stream| {
        let cut = read(&mut stream, 1) == b"c";
        if cut {
            let stream = socket2::Socket::from(stream);
            return stream.set_linger(Some(std::time::Duration::ZERO));
        }
        let report = report.lock().unwrap();
        report.send(None).expect("a test");
        let end = stream.read(&mut [0]).expect_err("a reset, not an end");
        report.send(Some(end.kind())).expect("a test");
        Ok(())
    });
    let (_server, _client, mut peer) = with_tunnel(service.addr, "");
    peer.send(&open(1, 0, 1000, b"c"));
    peer.expect(Frame::Reset(1, 1));
    peer.send(&open(2, 0, 1000, b"w"));
    let report = || reports.recv_timeout(common::PATIENCE).expect("a report");
    assert_eq!(report(), None, "it has come");
    peer.send(&reset(2, 1));
    assert_eq!(report(), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_gt_1_server_gets_gt_1_at_once_and_is_remembered() {
    let echo = service::echo();
    // Such a server closes, or takes the hello for a bad request or bad TLS.
    for answer in [
        &b""[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[21, 3, 3, 0, 2, 2, 50],
    ] {
        let server = gt1::PeerServer::start();
        let mut client = client_to(server.addr, echo.addr, "");
        let mut first = server.accept();
        assert_eq!(first.read(2), [0xF0, 0x20]);
        first.send(answer);
        first.shutdown();
        drop(first);
        let old = gt1::hello("id1", "secret1", &port_service());
        let tunnel = server.accept_ready(&old);
        client.wait_for_tunnel();
        tunnel.shutdown();
        drop(tunnel);
        // The client reconnects in the version it has learnt.
        let mut tunnel = server.accept_ready(&old);
        tunnel.send(&gt1::first(1, 0, b"hello"));
        assert_eq!(tunnel.gather(1, 5), b"hello");
        let log = client.log();
        assert!(!log.contains("GT/"), "{log}");
        assert!(!log.contains(" again in "), "{log}");
    }
}

#[test]
fn a_server_that_fails_in_gt_1_gets_gt_2_again() {
    let echo = service::echo();
    let server = gt1::PeerServer::start();
    let _client = client_to(server.addr, echo.addr, "");
    let starts = |magic: [u8; 2]| {
        let mut peer = server.accept();
        assert_eq!(peer.read(2), magic);
        peer.shutdown();
    };
    starts([0xF0, 0x20]);
    starts([0xF0, 0x01]);
    starts([0xF0, 0x20]);
    server
        .accept_ready(&gt1::hello("id1", "secret1", &port_service()))
        .shutdown();
    // The version is remembered until a connection fails.
    starts([0xF0, 0x01]);
    starts([0xF0, 0x20]);
}

#[test]
fn the_wire_option_disables_a_version() {
    let echo = service::echo();
    let server = gt1::PeerServer::start();
    let mut client = client_to(server.addr, echo.addr, "-wire 2");
    for _ in 0..3 {
        let mut peer = server.accept();
        assert_eq!(peer.read(2), [0xF0, 0x20]);
        peer.shutdown();
    }
    let line = client.wait_for("the server does not speak GT/2");
    assert!(line.contains(" WRN "), "{line}");
    client.stop();

    let server = gt1::PeerServer::start();
    let _client = client_to(server.addr, echo.addr, "-wire 1");
    let mut peer = server.accept();
    assert_eq!(peer.read(2), [0xF0, 0x01]);
    peer.send(&gt1::READY);
}

#[test]
fn every_listener_of_a_gt_1_server_is_recognised() {
    let page = service::http(0, "page");
    let certs = certs::make();
    let mut server = server_of_id1(&format!(
        "-wire 1 -tlsAddr 127.0.0.1:0 -sniAddr 127.0.0.1:0 {}",
        certs.flags()
    ));
    let addr = server.addr();
    let (tls, sni) = (server.tls_addr(), server.sni_addr());
    for remote in [
        format!("tcp://{addr}"),
        format!("tls://{tls} -remoteCertInsecure"),
        format!("tcp://{sni}"),
    ] {
        let mut client = client(&format!(
            "-remote {remote} -id id1 -secret secret1 -local http://{}",
            page.addr
        ));
        client.wait_for_tunnel();
        assert_eq!(get(addr, "id1.a", "/x").text(), "page /x id1.a");
        let log = client.log();
        assert!(
            !log.contains(" WRN ") || !log.contains(" again in "),
            "{log}"
        );
        client.stop();
    }
}

#[test]
fn a_server_without_domains_gets_the_other_services_and_the_client_says_so() {
    let (one, other) = (service::http(0, "one"), service::http(0, "other"));
    let server: PeerServer = PeerServer::start();
    let mut client = client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 -reconnectDelay 10ms \
         -local http://{} -domain shop.example.com -local http://{} -hostPrefix other",
        server.addr, one.addr, other.addr
    ));
    // Options of a later version: the answer of an earlier one makes the client begin again.
    let mut first = server.accept();
    let domains = [
        &[2, 6, 0, 1, 16][..],
        b"shop.example.com",
        &[3, 5],
        b"other",
    ]
    .concat();
    let mut wanted = hello("id1", "secret1", &domains, WINDOW);
    wanted[9] = 2;
    assert_eq!(first.read(wanted.len()), wanted);
    first.send(&[0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 1]);
    first.expect_end();
    let prefix = [&[3, 5][..], b"other"].concat();
    let _peer = server.accept_ready(&hello("id1", "secret1", &prefix, WINDOW));
    let error = client.wait_for("has a domain");
    assert!(error.contains(&one.addr.to_string()), "{error}");
    assert!(error.contains("update it; it is not published"), "{error}");
    client.wait_for_tunnel();
}

#[test]
fn a_server_without_udp_gets_the_other_services_and_the_client_says_so() {
    let other = service::http(0, "other");
    let server: PeerServer = PeerServer::start();
    let mut client = client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 -reconnectDelay 10ms \
         -local udp://127.0.0.1:53 -remoteUDPPort 53 -local http://{} -hostPrefix other",
        server.addr, other.addr
    ));
    let mut first = server.accept();
    let services = [&[2, 8, 0, 0, 53, 3, 5][..], b"other"].concat();
    let mut wanted = hello("id1", "secret1", &services, WINDOW);
    wanted[9] = 4;
    assert_eq!(first.read(wanted.len()), wanted);
    first.send(&[0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 3]);
    first.expect_end();
    let prefix = [&[3, 5][..], b"other"].concat();
    let _peer = server.accept_ready(&hello("id1", "secret1", &prefix, WINDOW));
    let error = client.wait_for("udp://127.0.0.1:53 has a UDP port");
    assert!(error.contains("update it; it is not published"), "{error}");
    client.wait_for_tunnel();
}
