//! `forwarded`: every request of a visitor tells the service where the visitor comes from; and
//! `frontProxies`, whose word about their visitors counts.

use crate::common::certs;
use crate::common::curl::https;
use crate::common::gt::{client_of_id1, http_tunnel, server_of_id1, tcp_tunnel, tls_tunnel};
use crate::common::scratch::Scratch;
use crate::common::service::{answering, Service};
use crate::common::visitor::{connect_from, get, read_answer};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// The visitor's address.
const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// The address of a proxy in front of the server.
const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);

/// A service that answers with the head of the request.
fn service() -> Service {
    answering(0, |request| request.head.into_bytes())
}

/// Returns the fields with which the service is told of a visitor.
fn told(addr: Ipv4Addr, scheme: &str, host: &str) -> String {
    format!(
        "X-Forwarded-For: {addr}\r\nX-Real-IP: {addr}\r\nX-Forwarded-Proto: {scheme}\r\n\
         X-Forwarded-Host: {host}\r\n"
    )
}

/// Sends a request with these fields on a connection, and returns the head that the service has got.
fn ask(visitor: &mut TcpStream, fields: &str) -> String {
    write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n{fields}\r\n").expect("ask");
    read_answer(visitor).text()
}

fn from(visitor: Ipv4Addr, addr: SocketAddr) -> TcpStream {
    connect_from(visitor, addr)
}

#[test]
fn each_request_of_a_connection_tells_of_the_visitor_and_nothing_else_does() {
    let service = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", "-forwarded");
    let mut visitor = from(VISITOR, addr);
    let expected = told(VISITOR, "http", "id1.a");
    for forged in [
        "Accept: x\r\n",
        "Accept: x\r\nX-Real-IP: 1.1.1.1\r\nx_forwarded_for: 1.1.1.1\r\n",
        "Forwarded: for=1.1.1.1\r\nAccept: x\r\nX-Forwarded-Proto: https\r\n",
    ] {
        // It comes from a proxy as far as anyone can tell, so the connection may end.
        let head = ask(&mut visitor, forged);
        let rest = head.strip_prefix("GET / HTTP/1.1\r\nHost: id1.a\r\nAccept: x\r\n");
        let rest = rest.map(|rest| rest.replace("Connection: close\r\n", ""));
        assert_eq!(rest.as_deref(), Some(&expected[..]), "{head}");
        if head.contains("Connection: close") {
            visitor = from(VISITOR, addr);
        }
    }
}

#[test]
fn the_scheme_is_that_of_the_visitor_and_the_host_is_what_it_has_asked_for() {
    let certs = certs::make();
    let service = service();
    let options = "-forwarded -useLocalAsHTTPHost";
    let (_server, _client, addr) = tls_tunnel(&certs, service.addr, "", options);
    let reply = https("id1.example.com", addr, &certs.ca, "--interface 127.0.0.9");
    let head = reply.text();
    let host = format!("id1.example.com:{}", addr.port());
    assert!(
        head.contains(&format!("\r\nHost: {}\r\n", service.addr)),
        "{head}"
    );
    assert!(head.ends_with(&told(VISITOR, "https", &host)), "{head}");
}

#[test]
fn an_http_service_on_a_tcp_port_is_told_too() {
    let service = service();
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let local = format!("-local http://{} -remoteTCPRandom -forwarded", service.addr);
    let mut client = client_of_id1(server.addr(), &local);
    let addr = SocketAddr::from(([127, 0, 0, 1], client.wait_for_port(0)));
    let head = ask(&mut from(VISITOR, addr), "X-Forwarded-For: 1.1.1.1\r\n");
    assert!(head.ends_with(&told(VISITOR, "http", "id1.a")), "{head}");
    assert!(!head.contains("1.1.1.1"), "{head}");
}

#[test]
fn over_gt1_the_visitor_is_unknown_and_cannot_say_who_it_is() {
    let service = service();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://{} -forwarded -wire 1", service.addr);
    let mut client = client_of_id1(addr, &local);
    let warning = client.wait_for_warning();
    assert!(warning.contains("forwarded of http://"), "{warning}");
    let head = ask(&mut from(VISITOR, addr), "X_Forwarded_For: 1.1.1.1\r\n");
    let expected = "X-Forwarded-For: unknown\r\nX-Forwarded-Host: id1.a\r\n";
    assert!(head.ends_with(expected), "{head}");
    assert!(!head.contains("1.1.1.1"), "{head}");
}

#[test]
fn a_trusted_proxy_tells_who_its_visitor_is() {
    let service = service();
    let trust = format!("-frontProxies {FRONT}");
    let (_server, _client, addr) = http_tunnel(service.addr, &trust, "-forwarded");
    let chain = "X-Forwarded-For: 203.0.113.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    let head = ask(&mut from(FRONT, addr), chain);
    assert!(head.contains(chain), "{head}");
    assert!(head.contains("\r\nX-Real-IP: 192.0.2.7\r\n"), "{head}");
    // From elsewhere, the same words are a lie.
    let head = ask(&mut from(VISITOR, addr), chain);
    assert!(head.ends_with(&told(VISITOR, "http", "id1.a")), "{head}");
    assert!(!head.contains("192.0.2.7"), "{head}");
    // A proxy that tells nothing is itself the visitor.
    let head = ask(&mut from(FRONT, addr), "");
    assert!(head.ends_with(&told(FRONT, "http", "id1.a")), "{head}");
}

/// A request for a relay, whose body is another request, reaches the service named by its label.
#[cfg(feature = "p2p")]
fn relay_request(more: &str, inner: &str) -> String {
    format!(
        "XP / HTTP/1.1\r\nHost: id1.a\r\nWebRTC-OP: relay\r\nWebRTC-Label: gt:id1\r\n{more}\
         Content-Length: {}\r\n\r\n{inner}",
        inner.len()
    )
}

#[cfg(feature = "p2p")]
#[test]
fn a_request_within_a_request_for_a_relay_is_not_the_proxy_s_word() {
    let service = service();
    let trust = format!("-frontProxies {FRONT}");
    let options = "-forwarded -remoteSTUN 127.0.0.1:9";
    let (_server, _client, addr) = http_tunnel(service.addr, &trust, options);
    let forged = "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Proto: https\r\n";
    let inner = format!("GET / HTTP/1.1\r\nHost: id1.a\r\n{forged}\r\n");
    let request = relay_request("X-Forwarded-For: 192.0.2.7\r\n", &inner);
    let mut visitor = from(FRONT, addr);
    visitor.write_all(request.as_bytes()).expect("ask");
    // The relay's own head comes first.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(crate::common::visitor::read(&mut visitor, 1));
    }
    let told_of_it = read_answer(&mut visitor).text();
    assert!(
        told_of_it.contains("\r\nX-Real-IP: 192.0.2.7\r\n"),
        "{told_of_it}"
    );
    assert!(!told_of_it.contains("203.0.113.1"), "{told_of_it}");
    assert!(
        told_of_it.contains("\r\nX-Forwarded-Proto: http\r\n"),
        "{told_of_it}"
    );
}

#[cfg(feature = "p2p")]
#[test]
fn a_relay_is_one_visit_of_the_service_that_it_is_for() {
    let service = service();
    let options = "-visitorRate 2/1h -remoteSTUN 127.0.0.1:9";
    let (_server, _client, addr) = http_tunnel(service.addr, "", options);
    let inner = "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    let relay = || {
        let mut visitor = from(VISITOR, addr);
        visitor
            .write_all(relay_request("", inner).as_bytes())
            .expect("ask");
        let line = crate::common::visitor::read(&mut visitor, "HTTP/1.1 200".len());
        String::from_utf8(line).unwrap()
    };
    assert_eq!(
        [relay(), relay(), relay()],
        ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 403"]
    );
}

#[test]
fn a_proxy_that_does_not_know_its_visitor_gets_nobody_in_where_there_are_rules() {
    let service = service();
    let trust = format!("-frontProxies {FRONT}");
    let unknown = "X-Forwarded-For: 192.0.2.7, unknown\r\n";
    for (for_server, for_client) in [("", "-deny 203.0.113.1"), ("-deny 203.0.113.1", "")] {
        let trust = format!("{trust} {for_server}");
        let (_server, _client, addr) = http_tunnel(service.addr, &trust, for_client);
        let mut visitor = from(FRONT, addr);
        write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n{unknown}\r\n").expect("ask");
        assert_eq!(read_answer(&mut visitor).status, 403);
    }
    let (_server, _client, addr) = http_tunnel(service.addr, &trust, "-forwarded");
    let head = ask(&mut from(FRONT, addr), unknown);
    assert!(
        head.contains(unknown) && !head.contains("X-Real-IP"),
        "{head}"
    );
}

#[test]
fn rules_and_the_proxy_protocol_are_about_the_visitor_that_a_trusted_proxy_tells_of() {
    let service = service();
    let trust = format!("-frontProxies {FRONT}");
    let rules = "-allow 192.0.2.0/24";
    for (for_server, for_client) in [("", rules), (rules, "")] {
        let trust = format!("{trust} {for_server}");
        let (_server, _client, addr) = http_tunnel(service.addr, &trust, for_client);
        for (from_addr, chain, expected) in [
            (FRONT, "X-Forwarded-For: 192.0.2.7\r\n", 200),
            (FRONT, "X-Forwarded-For: 192.0.2.7, 203.0.113.1\r\n", 403),
            (FRONT, "", 403),
            (VISITOR, "X-Forwarded-For: 192.0.2.7\r\n", 403),
        ] {
            let mut visitor = from(from_addr, addr);
            write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n{chain}\r\n").expect("ask");
            assert_eq!(
                read_answer(&mut visitor).status,
                expected,
                "{from_addr} {chain}"
            );
        }
    }
    let (service, headers) = super::proxy_protocol::service();
    let (_server, _client, addr) = http_tunnel(service.addr, &trust, "-proxyProtocol 1");
    ask(&mut from(FRONT, addr), "X-Forwarded-For: 192.0.2.7\r\n");
    let header = String::from_utf8(super::proxy_protocol::next(&headers)).unwrap();
    assert!(header.starts_with("PROXY TCP4 192.0.2.7 "), "{header}");
}

#[test]
fn services_whose_requests_gt_does_not_read_have_no_such_option() {
    let service = service();
    let (_server, mut client, addr) = tcp_tunnel(service.addr, "", "-forwarded");
    let warning = client.wait_for_warning();
    assert!(warning.contains("its forwarded is ignored"), "{warning}");
    assert!(!get(addr, "id1.a", "/").text().contains("X-Real-IP"));
    let scratch = Scratch::new();
    scratch.file("a", "text");
    let mut server = server_of_id1("");
    let local = format!("-local file://{} -forwarded", scratch.path().display());
    let mut client = client_of_id1(server.addr(), &local);
    let warning = client.wait_for_warning();
    assert!(warning.contains("its forwarded is ignored"), "{warning}");
}
