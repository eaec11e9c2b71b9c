//! UDP services: `local: udp://` with `remoteUDPPort`, and what their visitors can rely on.

use crate::common::gt::{client, client_of_id1, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::service;
use crate::common::udp::{UdpService, UdpVisitor};
use crate::common::visitor::get;
use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};

/// The options of a server that lets clients have UDP ports.
const UDP: &str = "-udpRange 1024-65535";

fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), port)
}

/// Starts a server and a client with a UDP service; returns both with the port of visitors.
fn udp_tunnel(service: &UdpService, for_server: &str, for_client: &str) -> (Gt, Gt, u16) {
    let port = free_port();
    let mut server = server_of_id1(&format!("{UDP} {for_server}"));
    let local = format!(
        "-local udp://{} -remoteUDPPort {port} {for_client}",
        service.addr
    );
    let client = client_of_id1(server.addr(), &local);
    (server, client, port)
}

#[test]
fn datagrams_of_every_size_come_back_whole_from_the_address_that_was_asked() {
    let service = UdpService::echo();
    let (_server, _client, port) = udp_tunnel(&service, "", "");
    for (from, to) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.5"),
        ("::1", "::1"),
    ] {
        // The visitor's socket takes answers from `to` alone.
        let visitor = UdpVisitor::from(from, at(to, port));
        for size in [5, 0, 1, 1200, 9000, 65_507, 30_000, 2] {
            let datagram: Vec<u8> = (0..=255).cycle().skip(size).take(size).collect();
            assert!(visitor.ask(&datagram) == datagram, "{size} bytes to {to}");
        }
    }
}

#[test]
fn each_visitor_is_a_flow_of_its_own_and_several_answers_go_to_the_one_that_asked() {
    let service = UdpService::start(|datagram| vec![datagram.to_vec(), b"again".to_vec()]);
    let (_server, _client, port) = udp_tunnel(&service, "", "");
    let to = at("127.0.0.1", port);
    let visitors: Vec<_> = (1..=20)
        .map(|n| UdpVisitor::from(&format!("127.0.0.{n}"), to))
        .collect();
    for round in 0..3u8 {
        for (visitor, n) in visitors.iter().zip(0u8..) {
            visitor.send(&[round, n]);
        }
        for (visitor, n) in visitors.iter().zip(0u8..) {
            assert_eq!(visitor.receive(), [round, n]);
            assert_eq!(visitor.receive(), b"again");
        }
    }
    let sources: HashSet<_> = service.seen.try_iter().map(|(_, from)| from).collect();
    assert_eq!(sources.len(), visitors.len());
}

#[test]
fn a_flow_that_is_silent_ends_and_the_next_datagram_begins_another() {
    let service = UdpService::echo();
    let options = "-udpTimeout 1s -timeout 8s -accessLog -";
    let (mut server, _client, port) = udp_tunnel(&service, options, "");
    let visitor = UdpVisitor::from("127.0.0.1", at("127.0.0.1", port));
    visitor.ask(b"one");
    visitor.ask(b"two");
    let (first, second) = (service.next().1, service.next().1);
    assert_eq!(first, second);
    let line = server.wait_for("way=udp");
    assert!(line.contains(&format!("port {port}")), "{line}");
    visitor.ask(b"three");
    assert_ne!(service.next().1, first, "another socket of the client");
}

#[test]
fn a_service_that_comes_later_gets_the_datagrams_of_the_same_flow() {
    let gone = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = gone.local_addr().expect("an address");
    drop(gone);
    let port = free_port();
    let mut server = server_of_id1(UDP);
    let local = format!("-local udp://{addr} -remoteUDPPort {port}");
    let _client = client_of_id1(server.addr(), &local);
    let visitor = UdpVisitor::from("127.0.0.1", at("127.0.0.1", port));
    visitor.send(b"nobody listens");
    visitor.send(b"nor now");
    assert!(visitor.is_silent());
    let late = UdpSocket::bind(addr).expect("the port is free");
    visitor.send(b"hello");
    let mut buf = [0; 100];
    late.set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .expect("a timeout");
    let (n, from) = late.recv_from(&mut buf).expect("a datagram");
    assert_eq!(&buf[..n], b"hello");
    late.send_to(b"answer", from).expect("send");
    assert_eq!(visitor.receive(), b"answer");
}

#[test]
fn tcp_and_udp_share_one_number() {
    let tcp = service::answering(0, |_| b"tcp".to_vec());
    let udp = UdpSocket::bind(tcp.addr).expect("the same number");
    let port = free_port();
    let mut server = server_of_id1(&format!("{UDP} -tcpRange 1024-65535"));
    let local = format!("-local tcp+udp://{} -remotePort {port}", tcp.addr);
    let mut client = client_of_id1(server.addr(), &local);
    client.wait_for(&format!("udp port {port} opened successfully"));
    assert_eq!(get(at("127.0.0.1", port), "h", "/").text(), "tcp");
    let visitor = UdpVisitor::from("127.0.0.1", at("127.0.0.1", port));
    visitor.send(b"over UDP");
    let mut buf = [0; 100];
    let (n, _) = udp.recv_from(&mut buf).expect("a datagram");
    assert_eq!(&buf[..n], b"over UDP");
}

#[test]
fn a_server_opens_no_udp_port_that_it_does_not_allow_and_says_so() {
    let service = UdpService::echo();
    let web = service::http(0, "web");
    let mut server = server_of_id1("-tcpRange 1024-65535");
    let addr = server.addr();
    let local = format!(
        "-local udp://{} -remoteUDPPort 7 -local http://{}",
        service.addr, web.addr
    );
    let mut client = client_of_id1(addr, &local);
    let warning = client.wait_for("cannot open the UDP port");
    assert!(
        warning.contains("the server does not allow this port"),
        "{warning}"
    );
    assert_eq!(get(addr, "id1.h", "/").text(), "web / id1.h");
}

#[test]
fn over_gt1_a_udp_service_is_an_error_and_the_others_are_published() {
    let service = UdpService::echo();
    let web = service::http(0, "web");
    let mut server = server_of_id1(UDP);
    let addr = server.addr();
    let local = format!(
        "-wire 1 -local udp://{} -remoteUDPRandom -local http://{}",
        service.addr, web.addr
    );
    let mut client = client_of_id1(addr, &local);
    let error = client.wait_for("has a UDP port, but the server speaks GT/1");
    assert!(
        error.contains(&format!("udp://{}", service.addr)),
        "{error}"
    );
    assert_eq!(get(addr, "id1.h", "/").text(), "web / id1.h");
    let mut alone = client_with_udp_alone(addr, &service);
    alone.wait_for("the server cannot publish any of the services");
}

fn client_with_udp_alone(addr: SocketAddr, service: &UdpService) -> Gt {
    client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 -wire 1 -local udp://{}",
        service.addr
    ))
}

#[test]
fn a_taken_udp_port_is_told_and_opened_later() {
    let service = UdpService::echo();
    let taken = UdpSocket::bind("[::]:0").expect("a socket");
    let port = taken.local_addr().expect("an address").port();
    let mut server = server_of_id1(UDP);
    let local = format!("-local udp://{} -remoteUDPPort {port}", service.addr);
    let mut client = client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 {local} -local udp://{} -remoteUDPRandom",
        server.addr(),
        service.addr
    ));
    let warning = client.wait_for("cannot open the UDP port");
    assert!(warning.contains("in use"), "{warning}");
    drop(taken);
    client.wait_for(&format!("udp port {port} opened successfully"));
    let visitor = UdpVisitor::from("127.0.0.1", at("127.0.0.1", port));
    assert_eq!(visitor.ask(b"now"), b"now");
}

#[test]
fn the_header_of_the_proxy_protocol_goes_before_the_first_datagram_of_a_flow() {
    let service = UdpService::echo();
    let (_server, _client, port) = udp_tunnel(&service, "", "-proxyProtocol 2");
    let visitor = UdpVisitor::from("127.0.0.9", at("127.0.0.1", port));
    let from = visitor.0.local_addr().expect("an address").port();
    let first = visitor.ask(b"one");
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let mut expected = signature.to_vec();
    // Version 2, PROXY; datagrams over IPv4.
    expected.extend([0x21, 0x12, 0, 12, 127, 0, 0, 9, 127, 0, 0, 1]);
    expected.extend(from.to_be_bytes());
    expected.extend(port.to_be_bytes());
    expected.extend(b"one");
    assert_eq!(first, expected);
    assert_eq!(visitor.ask(b"two"), b"two");
}

#[test]
fn visitors_that_are_denied_reach_nothing_at_either_end() {
    let service = UdpService::echo();
    let (_server, _client, port) = udp_tunnel(&service, "-deny 127.0.0.8", "-deny 127.0.0.9");
    let to = at("127.0.0.1", port);
    let allowed = UdpVisitor::from("127.0.0.1", to);
    assert_eq!(allowed.ask(b"hello"), b"hello");
    service.next();
    for denied in ["127.0.0.8", "127.0.0.9"] {
        let visitor = UdpVisitor::from(denied, to);
        visitor.send(b"hello");
        assert!(visitor.is_silent(), "{denied}");
    }
    assert!(service.is_silent());
}

#[test]
fn flows_count_as_connections_of_their_address_and_what_is_too_much_is_counted() {
    let service = UdpService::echo();
    let options = "-apiAddr 127.0.0.1:0 -addressConnections 4";
    let (mut server, _client, port) = udp_tunnel(&service, options, "");
    let api = server.api_addr();
    let to = at("127.0.0.1", port);
    let few: Vec<_> = (0..3).map(|_| UdpVisitor::from("127.0.0.2", to)).collect();
    for visitor in &few {
        assert_eq!(visitor.ask(b"hello"), b"hello");
    }
    let one_more = UdpVisitor::from("127.0.0.2", to);
    one_more.send(b"hello");
    assert!(one_more.is_silent());
    let other = UdpVisitor::from("127.0.0.3", to);
    assert_eq!(other.ask(b"hello"), b"hello");
    assert_eq!(few[0].ask(b"still"), b"still");
    let clients = get(api, "localhost", "/clients");
    let listed = format!("\"ports\": [], \"udpPorts\": [{port}]");
    assert!(clients.text().contains(&listed), "{}", clients.text());
    let metrics = get(api, "localhost", "/metrics");
    let dropped = "gt_udp_dropped_datagrams_total{reason=\"flows\"} 1";
    assert!(metrics.text().contains(dropped), "{}", metrics.text());
}

#[test]
fn a_service_that_is_taken_away_ends_its_flows_and_frees_the_port() {
    let scratch = crate::common::scratch::Scratch::new();
    let service = UdpService::echo();
    let (one, two) = (free_port(), free_port());
    let mut server = server_of_id1(UDP);
    let config = |ports: &[u16]| {
        let services = ports.iter().map(|port| {
            format!(
                "  - local: udp://{}\n    remoteUDPPort: {port}\n",
                service.addr
            )
        });
        services.collect::<String>()
    };
    let addr = server.addr();
    let file = |services: String| {
        scratch.file(
            "gt.yaml",
            format!(
                "type: client\noptions:\n  id: id1\n  secret: secret1\n  remote: tcp://{addr}\n\
                 services:\n{services}"
            ),
        )
    };
    let path = file(config(&[one, two]));
    let mut client = client(&format!("-config {}", path.display()));
    client.wait_for_tunnel();
    let visitor = UdpVisitor::from("127.0.0.1", at("127.0.0.1", one));
    assert_eq!(visitor.ask(b"here"), b"here");
    file(config(&[two]));
    client.signal("HUP");
    client.wait_for_changed_services();
    let free = || UdpSocket::bind(("::", one)).ok();
    crate::common::eventually("the port is free", free);
    let other = UdpVisitor::from("127.0.0.1", at("127.0.0.1", two));
    assert_eq!(other.insist(b"there"), b"there");
}

#[test]
fn the_client_tells_of_datagrams_that_it_could_not_send() {
    let service = UdpService::echo();
    let (_server, mut client, port) = udp_tunnel(&service, "-udpTimeout 1s -timeout 8s", "");
    let visitor = UdpVisitor::from("::1", at("::1", port));
    // Longer than any datagram of IPv4, by which the service is reached.
    visitor.send(&vec![7; 65_520]);
    assert_eq!(visitor.ask(b"short"), b"short");
    drop(visitor);
    let line = client.wait_for("datagrams were dropped");
    let whole = "datagrams were dropped: 0 of its answers, which came faster than the tunnel took them, and 1 of \
                 its visitors, which the system did not send";
    assert!(
        line.contains(whole) && line.contains("udp://127.0.0.1"),
        "{line}"
    );
}
