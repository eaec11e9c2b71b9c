//! `allow`, `deny` and a user's `from`: who may visit a service, and from where a client may connect.

use super::accept_proxy::of_front;
use crate::common::certs;
use crate::common::curl::https;
pub use crate::common::filed::Filed;
use crate::common::gt::{
    client, client_of_id1, http_tunnel, server_of_id1, tcp_tunnel, tls_tunnel,
};
use crate::common::hello::client_hello;
use crate::common::peer::gt1;
use crate::common::peer::gt2::{self, Frame};
use crate::common::peer::ID_ALONE;
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect_from, get, read_answer, try_connect_from};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// A visitor's address that rules name, one next to it, and one far away from both.
pub const NAMED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// Rules that admit [`NEIGHBOUR`] alone of these.
const RULES: &str = "-allow 127.0.0.8/29 -deny 127.0.0.9";

/// Returns the status that a visitor from this address gets.
pub fn status_from(from: Ipv4Addr, addr: SocketAddr, host: &str) -> u16 {
    let mut visitor = connect_from(from, addr);
    write!(visitor, "GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("ask");
    read_answer(&mut visitor).status
}

fn expect_reset(visitor: &mut TcpStream) {
    let error = visitor.read(&mut [0]).expect_err("a reset, not an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Connects from this address, which must not be let in.
pub fn expect_reset_from(from: Ipv4Addr, addr: SocketAddr) {
    match try_connect_from(from, addr) {
        Ok(mut visitor) => expect_reset(&mut visitor),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
    }
}

/// Opens a connection to an echo service from this address.
pub fn echo_from(from: Ipv4Addr, addr: SocketAddr) -> TcpStream {
    let mut visitor = connect_from(from, addr);
    assert_echo(&mut visitor, b"here");
    visitor
}

#[test]
fn an_http_service_answers_visitors_that_it_does_not_allow_with_403() {
    let service = service::http(0, "web");
    for (for_server, for_client) in [("", RULES), (RULES, "")] {
        let (_server, _client, addr) = http_tunnel(service.addr, for_server, for_client);
        for (from, expected) in [(NAMED, 403), (NEIGHBOUR, 200), (OTHER, 403)] {
            assert_eq!(status_from(from, addr, "id1.a"), expected, "{from}");
        }
        let mut visitor = connect_from(OTHER, addr);
        let request = b"HEAD / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
        visitor.write_all(request).expect("ask");
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn a_folder_has_rules_too() {
    let scratch = Scratch::new();
    scratch.file("a", "text");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let folder = scratch.path().display();
    let _client = client_of_id1(addr, &format!("-local file://{folder} {RULES}"));
    for (from, expected) in [(NAMED, 403), (NEIGHBOUR, 200), (OTHER, 403)] {
        assert_eq!(status_from(from, addr, "id1.a"), expected, "{from}");
    }
}

#[test]
fn a_tcp_service_resets_visitors_that_it_does_not_allow() {
    let service = service::echo();
    for (for_server, for_client) in [("", RULES), (RULES, "")] {
        let (_server, _client, addr) = tcp_tunnel(service.addr, for_server, for_client);
        echo_from(NEIGHBOUR, addr);
        for from in [NAMED, OTHER] {
            expect_reset_from(from, addr);
        }
    }
}

#[test]
fn tls_is_reset_if_it_is_not_decrypted_and_answered_if_it_is() {
    let certs = certs::make();
    let service = service::http(0, "web");
    let from = |addr: Ipv4Addr| format!("--interface {addr}");
    for (for_server, for_client) in [("", RULES), (RULES, "")] {
        let (_server, _client, addr) = tls_tunnel(&certs, service.addr, for_server, for_client);
        let code = |of| {
            https("id1.example.com", addr, &certs.ca, &from(of))
                .text()
                .to_owned()
        };
        assert!(code(NAMED).starts_with("403 "), "{}", code(NAMED));
        assert!(code(NEIGHBOUR).starts_with("web / "), "{}", code(NEIGHBOUR));
    }
    let hello = client_hello("id1.a");
    for (for_server, for_client) in [("", RULES), (RULES, "")] {
        let mut server = server_of_id1(&format!("-sniAddr 127.0.0.1:0 {for_server}"));
        let (addr, sni_addr) = (server.addr(), server.sni_addr());
        let echo = service::echo();
        let local = format!("-local https://{} {for_client}", echo.addr);
        let _client = client_of_id1(addr, &local);
        let mut visitor = connect_from(NEIGHBOUR, sni_addr);
        assert_echo(&mut visitor, &hello);
        let mut visitor = connect_from(NAMED, sni_addr);
        visitor.write_all(&hello).expect("begin");
        expect_reset(&mut visitor);
    }
}

#[test]
fn the_address_in_a_proxy_header_is_judged() {
    let service = service::http(0, "web");
    let rules = "-allow 203.0.113.0/24 -deny 203.0.113.7";
    for (for_server, for_client) in [("", rules), (rules, "")] {
        let trust = format!("-acceptProxy 127.0.0.5 {for_server}");
        let (_server, _client, addr) = http_tunnel(service.addr, &trust, for_client);
        for (source, expected) in [("203.0.113.8", 200), ("203.0.113.7", 403)] {
            let header = format!("PROXY TCP4 {source} 198.51.100.1 50000 80\r\n");
            let request = format!("{header}GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n");
            let mut visitor = of_front(addr, request.as_bytes());
            assert_eq!(read_answer(&mut visitor).status, expected, "{source}");
        }
    }
}

#[test]
fn the_server_s_self_test_is_no_visitor_that_rules_are_for() {
    let mut server = server_of_id1("-apiAddr 127.0.0.1:0 -allow 192.0.2.1");
    let (addr, api) = (server.addr(), server.api_addr());
    assert_eq!(get(api, "localhost", "/status").status, 200);
    let service = service::http(0, "web");
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    assert_eq!(get(addr, "id1.a", "/").status, 403);
}

#[test]
fn a_reload_of_the_client_ends_visits_that_it_no_longer_allows_and_no_others() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let (remote, service) = (server.addr(), service::echo());
    let local = service.addr;
    let fields = format!("local: \"tcp://{local}\", remoteTCPPort: {port}");
    let mut filed = Filed::client(remote, fields, ", deny: [192.0.2.1]");
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stays = echo_from(NEIGHBOUR, addr);
    let mut goes = echo_from(NAMED, addr);
    filed.reload(", deny: [127.0.0.9]");
    expect_reset(&mut goes);
    assert_echo(&mut stays, b"still here");
    expect_reset_from(NAMED, addr);
    filed.reload(", allow: [127.0.0.9]");
    expect_reset(&mut stays);
    echo_from(NAMED, addr);
}

#[test]
fn the_first_rule_ends_visits_of_which_nobody_knows_where_they_come_from() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let (remote, echo, web) = (server.addr(), service::echo(), service::http(0, "web"));
    let (local, other) = (echo.addr, web.addr);
    let text = move |rules: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1}}\nservices:\n\
             - {{local: \"tcp://{local}\", remoteTCPPort: {port}{rules}}}\n\
             - {{local: \"http://{other}\"}}\n"
        )
    };
    let mut filed = Filed::start("client", text, "");
    filed.gt.wait_for_tunnel();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut goes = echo_from(NAMED, addr);
    let mut of_the_other = connect_from(NAMED, remote);
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    of_the_other.write_all(request).expect("ask");
    assert_eq!(read_answer(&mut of_the_other).status, 200);
    filed.reload(", allow: [127.0.0.9]");
    expect_reset(&mut goes);
    of_the_other.write_all(request).expect("ask again");
    assert_eq!(read_answer(&mut of_the_other).status, 200);
    // Tunnels that tell where visitors come from take the place of the others.
    filed.gt.wait_for_tunnels(2);
    echo_from(NAMED, addr);
}

#[test]
fn a_reload_of_the_server_ends_visits_that_it_no_longer_allows_and_no_others() {
    let port = free_port();
    let text = move |rules: &str| {
        format!(
            "options: {{addr: \"127.0.0.1:0\", id: id1, secret: secret1{rules}}}\n\
             tcp: [{{range: {port}}}]\n"
        )
    };
    let mut filed = Filed::start("server", text, "");
    let (remote, service) = (filed.gt.addr(), service::echo());
    let local = format!("-local tcp://{} -remoteTCPPort {port}", service.addr);
    let _client = client_of_id1(remote, &local);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stays = echo_from(NEIGHBOUR, addr);
    let mut goes = echo_from(NAMED, addr);
    filed.reload(", deny: [127.0.0.9]");
    expect_reset(&mut goes);
    assert_echo(&mut stays, b"still here");
    expect_reset_from(NAMED, addr);
}

#[test]
fn a_service_with_rules_is_not_published_over_gt1_and_the_others_are() {
    let service = service::http(0, "web");
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let mut client = client_of_id1(
        addr,
        &format!(
            "-wire 1 -local http://{0} -hostPrefix closed -allow 127.0.0.1 -local http://{0} \
             -hostPrefix open",
            service.addr
        ),
    );
    let error = client.wait_for("it is not published");
    assert!(error.contains("has allow or deny"), "{error}");
    assert!(error.contains("GT/1"), "{error}");
    assert_eq!(get(addr, "open.a", "/").text(), "web / open.a");
    assert_eq!(get(addr, "closed.a", "/").status, 404);
}

#[test]
fn over_gt1_nothing_is_left_of_a_client_whose_services_all_have_rules() {
    let mut server = server_of_id1("");
    let mut client = client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 -wire 1 -local http://127.0.0.1:9 -deny 192.0.2.1",
        server.addr()
    ));
    let error = client.wait_for("the server cannot publish any of the services");
    assert!(
        error.contains("update the server, or remove these options"),
        "{error}"
    );
}

#[test]
fn a_server_that_does_not_tell_where_visitors_come_from_gets_none_in() {
    let server = gt2::PeerServer::start();
    let line = format!(
        "-remote tcp://{} -id id1 -secret secret1 -local http://127.0.0.1:9 -allow 127.0.0.1",
        server.addr
    );
    let mut client = client(&line);
    let mut peer = server.accept();
    let hello = gt2::hello("id1", "secret1", &ID_ALONE, 0);
    peer.read(hello.len());
    // No capability.
    peer.send(
        &[
            &[0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 0][..],
            &[9, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat(),
    );
    let error = client.wait_for("all of its visitors are refused");
    assert!(error.contains("its version of gt cannot"), "{error}");
    peer.send(&gt2::open(7, 0, 1000, b"GET / HTTP/1.1\r\n\r\n"));
    peer.expect(Frame::Reset(7, 7));
}

#[test]
fn a_user_s_tunnels_come_from_its_addresses_alone() {
    let text = |rules: &str| {
        format!(
            "options: {{addr: \"127.0.0.1:0\", reconnectTimes: 1}}\n\
             users: {{id1: {{secret: secret1{rules}}}, id2: {{secret: secret2}}}}\n"
        )
    };
    let mut filed = Filed::start("server", text, ", from: [192.0.2.0/24]");
    let addr = filed.gt.addr();
    let hello = gt2::hello("id1", "secret1", &ID_ALONE, 1000);
    // It is no wrong secret, for which the address would be locked out.
    for _ in 0..3 {
        let mut peer = gt2::Peer::client(addr, &hello);
        peer.expect(Frame::Error(vec![0, 10]));
        peer.expect_end();
    }
    let mut peer = gt1::Peer::client(addr, &gt1::hello("id1", "secret1", &ID_ALONE));
    peer.expect(gt1::Frame::Error(1));
    gt2::Peer::ready_client(addr, &gt2::hello("id2", "secret2", &ID_ALONE, 1000));
    filed.reload(", from: [192.0.2.0/24, 127.0.0.0/8]");
    let mut peer = gt2::Peer::ready_client(addr, &hello);
    filed.reload(", from: [192.0.2.0/24]");
    peer.expect(Frame::Error(vec![0, 10]));
    peer.expect_end();
}

#[test]
fn a_service_that_a_reload_renames_keeps_its_rules_all_the_time() {
    let service = service::http(0, "web");
    let mut server = server_of_id1("-hostNumber 2");
    let (addr, local) = (server.addr(), service.addr);
    let fields = format!("local: \"http://{local}\", deny: [{NAMED}]");
    let mut filed = Filed::client(addr, fields, ", hostPrefix: one");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for host in ["one.a", "two.a"] {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_ne!(status_from(NAMED, addr, host), 200, "{host}");
                }
            });
        }
        for prefix in ["two", "one", "two", "one", "two"] {
            filed.reload(&format!(", hostPrefix: {prefix}"));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(status_from(NAMED, addr, "two.a"), 403);
    assert_eq!(status_from(NEIGHBOUR, addr, "two.a"), 200);
}

#[test]
fn an_empty_entry_in_a_list_is_an_error_and_does_not_let_everybody_in() {
    for (role, line) in [
        (
            "server",
            "-addr 127.0.0.1:0 -id id1 -secret secret1 -allow \"\"",
        ),
        (
            "client",
            "-remote h -id id1 -local http://h -deny 192.0.2.1 -deny \"\"",
        ),
    ] {
        let output = crate::common::gt::gt(&format!("{role} {line}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(error.contains("has an empty entry"), "{error}");
    }
}
