//! Floods of datagrams, and peers that send malformed records of them.

use super::bound::{assert_at_most, note};
use super::crowd::raise_descriptors;
use super::stage::Stage;
use crate::common::eventually;
use crate::common::gt::{client_of_id1, server_of_id1};
use crate::common::peer::gt2::{
    data, field, finish, hello_with, identity, open, reset, Frame, Peer, PeerServer,
};
use crate::common::peer::Frame as _;
use crate::common::ports::free_port;
use crate::common::service;
use crate::common::udp::{UdpService, UdpVisitor};
use crate::common::visitor::get;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Sources of a flood.
const SOURCES: usize = 4000;
/// Datagrams of each.
const ROUNDS: usize = 5;
/// Bytes of each.
const SIZE: usize = 1200;
/// Maximum memory of a flood at the server, in KiB: 1 024 flows with their streams, 4 MiB that wait.
const SERVER_KIB: usize = 16 * 1024;
/// Maximum memory of a flood at the client, in KiB: as many sockets with their streams.
const CLIENT_KIB: usize = 16 * 1024;

const WINDOW: u32 = 32768;
/// The capability of UDP ports.
const UDP: u32 = 4;

/// Builds a record of a datagram.
fn record(datagram: &[u8]) -> Vec<u8> {
    let length = u16::try_from(datagram.len()).unwrap().to_be_bytes();
    [&length[..], datagram].concat()
}

/// Returns the hello of a client with one UDP port.
fn udp_hello(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let fields = [
        identity("id1", "secret1", &[8, 0, high, low]),
        field(4, &WINDOW.to_be_bytes()),
        field(0, b"\r\n\r\n"),
    ];
    let mut hello = hello_with(&fields.concat());
    hello[6..10].copy_from_slice(&UDP.to_be_bytes());
    hello
}

/// Sends bytes to a stream with as much credit as comes.
fn send_with_credit(peer: &mut Peer, stream: u32, mut credit: u32, bytes: &[u8]) -> u32 {
    let mut rest = bytes;
    while !rest.is_empty() {
        let now = rest.len().min(usize::try_from(credit).unwrap());
        if now > 0 {
            peer.send(&data(stream, &rest[..now]));
            credit -= u32::try_from(now).unwrap();
            rest = &rest[now..];
            continue;
        }
        match peer.frame() {
            Frame::Credit(of, more) if of == stream => credit += more,
            other => panic!("{other:?} instead of credit"),
        }
    }
    credit
}

/// Returns the datagrams that come until one is `last`.
fn until(visitor: &UdpVisitor, last: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let datagram = visitor.receive();
        if datagram == last {
            return all;
        }
        all.push(datagram);
    }
}

#[test]
fn a_flood_from_many_sources_costs_bounded_memory_and_a_running_flow_gets_its_answers() {
    let sources = SOURCES.min(raise_descriptors() - 200);
    let (service, port) = (UdpService::echo(), free_port());
    let local = format!("-local udp://{} -remoteUDPPort {port}", service.addr);
    let mut stage = Stage::set(&format!("-udpRange {port} -udpTimeout 1s"), &local);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let visitor = UdpVisitor::from("127.0.0.1", at);
    visitor.ask(b"one");
    visitor.ask(b"two");
    let flood: Vec<UdpSocket> = (0..sources)
        .map(|n| {
            let from = Ipv4Addr::new(127, 1, u8::try_from(n >> 8).unwrap(), (n & 255) as u8);
            let socket = UdpSocket::bind((from, 0)).expect("a socket");
            socket.connect(at).expect("connect");
            socket
        })
        .collect();
    let mut answered = 0;
    for round in 0..ROUNDS {
        for (n, socket) in flood.iter().enumerate() {
            socket.send(&[7; SIZE]).expect("send");
            if n % 500 == 0 {
                // The kernel drops what the port's buffer does not hold, of the visitor, too.
                let question = format!("{round} {n}");
                let answer = visitor.insist(question.as_bytes());
                answered += usize::from(!answer.is_empty());
            }
        }
    }
    let attack = format!(
        "a flood of {} datagrams of {sources} sources",
        sources * ROUNDS
    );
    note(
        &attack,
        "a visitor is answered",
        format!("{answered} times"),
    );
    let (server, client) = (stage.server_kib().1, stage.client_kib().1);
    assert_at_most(&format!("{attack}: server"), SERVER_KIB, server, "KiB");
    assert_at_most(&format!("{attack}: client"), CLIENT_KIB, client, "KiB");
    drop(flood);
    // Its flows end, and there is room for others.
    let other = UdpVisitor::from("127.0.0.2", at);
    assert_eq!(other.insist(b"hello"), b"hello");
    stage.assert_unharmed();
}

#[test]
fn a_client_that_sends_malformed_records_harms_no_one() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-udpRange {port} -id id2 -secret secret2"));
    let addr = server.addr();
    let web = service::http(0, "web");
    let mut other = crate::common::gt::client(&format!(
        "-remote tcp://{addr} -id id2 -secret secret2 -local http://{}",
        web.addr
    ));
    other.wait_for_tunnel();
    let mut peer = Peer::ready_client(addr, &udp_hello(port));
    let visitor = UdpVisitor::from("127.0.0.1", SocketAddr::from(([127, 0, 0, 1], port)));
    visitor.send(b"hello");
    let (stream, window, mut first) = peer.opened();
    first.extend(peer.gather(stream, record(b"hello").len() - first.len()));
    assert_eq!(first, record(b"hello"));

    // Longer than any datagram, and an empty one between those that fit.
    let mut bytes = [record(b"before"), vec![0xFF; 2 + 65_535], record(b"")].concat();
    bytes.extend([vec![0xFF, 0xE4], vec![7; 65_508]].concat());
    bytes.extend(record(b"after"));
    let credit = send_with_credit(&mut peer, stream, window, &bytes);
    assert_eq!(until(&visitor, b"after"), [&b"before"[..], b""]);

    // A record in single bytes.
    for byte in record(b"in pieces") {
        send_with_credit(&mut peer, stream, credit.min(1), &[byte]);
    }
    assert_eq!(visitor.receive(), b"in pieces");

    // Streams that do not exist, and a flow that ends within a record.
    peer.send(&data(stream + 1000, &record(b"nowhere")));
    peer.send(&[data(stream, &[0, 9, b'c', b'u', b't']), finish(stream)].concat());
    visitor.send(b"again");
    let (second, mut first) = eventually("another flow", || match peer.frame() {
        Frame::Open(stream, 0, _, bytes) => Some((stream, bytes)),
        _ => {
            visitor.send(b"again");
            None
        }
    });
    assert_ne!(second, stream);
    // Those that were sent again may come with it.
    let again = record(b"again");
    first.extend(peer.gather(second, again.len().saturating_sub(first.len())));
    assert!(
        first.chunks(again.len()).all(|each| each == again),
        "{first:?}"
    );
    peer.send(&[data(second, &record(b"right")), reset(second, 3)].concat());
    assert_eq!(visitor.receive(), b"right");
    assert_eq!(get(addr, "id2.h", "/").text(), "web / id2.h");
    assert!(!server.log().contains("panicked"));
}

#[test]
fn a_server_that_takes_services_for_those_of_another_protocol_harms_no_one() {
    let (udp, tcp) = (UdpService::echo(), service::echo());
    let server = PeerServer::start();
    let mut client = crate::common::gt::client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 -local udp://{} -remoteUDPPort 53 \
         -local tcp://{} -remoteTCPPort 22",
        server.addr, udp.addr, tcp.addr
    ));
    let mut peer = server.accept();
    let head = peer.read(6);
    let length = u32::from_be_bytes(head[2..6].try_into().unwrap());
    peer.read(usize::try_from(length).unwrap());
    peer.send(&[Frame::ANSWER, Frame::READY_BYTES].concat());
    client.wait_for_tunnel();

    // Bytes of HTTP for the UDP service: the head of a record of 18 245 bytes.
    peer.send(&open(1, 0, WINDOW, b"GET / HTTP/1.1\r\n\r\n"));
    // A datagram for the TCP service, which sends its bytes back.
    peer.send(&open(3, 1, WINDOW, &record(b"hello")));
    assert_eq!(peer.gather(3, 7), record(b"hello"));
    // A stream of the UDP service that has records.
    peer.send(&open(
        5,
        0,
        WINDOW,
        &[record(b"one"), record(b""), record(b"two")].concat(),
    ));
    let answers = [record(b"one"), record(b""), record(b"two")].concat();
    assert_eq!(peer.gather(5, answers.len()), answers);
    let seen: Vec<_> = (0..3).map(|_| udp.next().0).collect();
    assert_eq!(seen, [&b"one"[..], b"", b"two"]);
    // Ends of both kinds, an unknown service, and data of a stream that is over.
    peer.send(&[finish(1), reset(5, 0), data(5, &record(b"late")), finish(3)].concat());
    peer.send(&open(7, 9, WINDOW, &record(b"unknown")));
    peer.send(&open(9, 0, WINDOW, &record(b"still")));
    let last = eventually("the answer of the last flow", || match peer.frame() {
        Frame::Data(9, bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(last, record(b"still"));
    assert!(!client.log().contains("panicked"));
}

#[test]
fn a_client_keeps_a_flow_whose_service_refuses_datagrams() {
    let gone = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = gone.local_addr().expect("an address");
    drop(gone);
    let port = free_port();
    let mut server = server_of_id1(&format!("-udpRange {port}"));
    let local = format!("-local udp://{addr} -remoteUDPPort {port} -logLevel debug");
    let client = client_of_id1(server.addr(), &local);
    let visitor = UdpVisitor::from("127.0.0.1", SocketAddr::from(([127, 0, 0, 1], port)));
    for _ in 0..200 {
        visitor.send(b"hello");
    }
    assert!(visitor.is_silent());
    let late = UdpSocket::bind(addr).expect("the port is free");
    visitor.send(b"now");
    let mut buf = [0; 100];
    late.set_read_timeout(Some(crate::common::PATIENCE))
        .expect("a timeout");
    let (mut n, mut from) = late.recv_from(&mut buf).expect("a datagram");
    while &buf[..n] != b"now" {
        (n, from) = late.recv_from(&mut buf).expect("the last datagram");
    }
    late.send_to(b"answer", from).expect("send");
    assert_eq!(visitor.receive(), b"answer");
    assert!(!client.log().contains("panicked"));
}
