//! Tunnels in WebSockets: everything works in them, and nothing else is taken for one.

use crate::common::certs;
use crate::common::gt::{client, client_of_id1, server, server_of_id1, Gt};
use crate::common::peer::{gt1, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, assert_echo, assert_echo_at};
use crate::common::upgrade::{self, ask, assert_granted, frame, read_frame, request, BINARY};
use crate::common::visitor::{connect, get};
use std::io::{Read, Write};
use std::net::SocketAddr;

/// A client with an HTTP service and a TCP service.
struct Services {
    client: Gt,
    port: u16,
    _held: [service::Service; 2],
}

/// Starts a server of a client with both services.
fn start_server(port: u16, more: &str) -> Gt {
    server(&format!(
        "-id id1 -secret secret1 -tcpNumber 1 -tcpRange {port} {more}"
    ))
}

fn start_client(remote: &str, port: u16, more: &str) -> Services {
    let held = [service::http(0, "one"), service::echo()];
    let client = client(&format!(
        "-remote {remote} -id id1 -secret secret1 {more} -local http://{} -local tcp://{} \
         -remoteTCPPort {port}",
        held[0].addr, held[1].addr
    ));
    Services {
        client,
        port,
        _held: held,
    }
}

impl Services {
    fn assert_work(&mut self, server: SocketAddr) {
        self.client.wait_for_tunnel();
        let mut random = Random::new(1);
        let mut visitor = connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
        for length in [1, 125, 126, 65535, 65536, 131_072, 9 << 20] {
            assert_echo(&mut visitor, &random.bytes(length));
        }
        assert_eq!(get(server, "id1.a", "/x").text(), "one /x id1.a");
    }
}

#[test]
fn both_versions_of_the_wire_work_in_a_websocket() {
    for wire in [1, 2] {
        let port = free_port();
        let mut server = start_server(port, "-addr 127.0.0.1:0");
        let addr = server.addr();
        let mut services = start_client(&format!("ws://{addr}"), port, &format!("-wire {wire}"));
        services.assert_work(addr);
    }
}

#[test]
fn a_websocket_over_tls_works_at_another_path() {
    let (certs, port) = (certs::make(), free_port());
    let mut server = start_server(
        port,
        &format!(
            "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -wsPath /a/b {}",
            certs.flags()
        ),
    );
    let (addr, tls) = (server.addr(), server.tls_addr());
    let remote = format!("wss://{tls}/a/b");
    let mut services = start_client(
        &remote,
        port,
        &format!("-remoteCert {}", certs.ca.display()),
    );
    services.assert_work(addr);
}

#[test]
fn only_requests_for_tunnels_are_kept_from_a_service() {
    let service = service::http(0, "one");
    for (place, requests) in [
        // Another sub-protocol, path, or kind of request.
        (
            "/gt",
            vec![
                upgrade::with_protocol("chat", "id1.a", "/gt", "Connection: close\r\n"),
                request("id1.a", "/", "Connection: close\r\n"),
                request("id1.a", "/gt/", "Connection: close\r\n"),
                "GET /gt HTTP/1.1\r\nHost: id1.a\r\nConnection: close\r\n\r\n".to_owned(),
            ],
        ),
        (
            "\"\"",
            vec![request("id1.a", "/gt", "Connection: close\r\n")],
        ),
        (
            "gt.a/gt",
            vec![request("id1.a", "/gt", "Connection: close\r\n")],
        ),
    ] {
        let mut server = server_of_id1(&format!("-wsPath {place}"));
        let addr = server.addr();
        let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
        for request in requests {
            let (_, head) = ask(addr, &request);
            assert!(
                head.starts_with("HTTP/1.1 200 "),
                "{place} {request} {head}"
            );
        }
        if place == "gt.a/gt" {
            // A client's own host prefix does not matter there.
            for host in ["gt.a", "GT.A:80"] {
                assert_granted(&ask(addr, &request(host, "/gt", "")).1);
            }
        }
    }
}

#[test]
fn a_tunnel_is_taken_on_a_host_that_a_client_has_too() {
    // Else whoever gets the host prefix would get the secrets of the other clients.
    let service = service::http(0, "one");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    assert_granted(&ask(addr, &request("id1.a", "/gt", "")).1);
    // The last two are what a proxy makes of it that has not been told of WebSockets.
    for (from, to) in [
        ("Version: 13", "Version: 8"),
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket\r\n", ""),
    ] {
        let bad = request("id1.a", "/gt", "Connection: close\r\n");
        assert!(bad.contains(from), "{bad}");
        let (_, head) = ask(addr, &bad.replacen(from, to, 1));
        assert!(head.starts_with("HTTP/1.1 400 "), "{from}: {head}");
    }
}

#[test]
fn a_server_that_grants_no_websocket_is_told_to_the_user() {
    let mut server = server_of_id1("");
    for remote in [
        format!("ws://{}/other", server.addr()),
        format!("ws://{}", service::http(0, "web").addr),
        format!("ws://{}", service::banner("SSH-2.0-x\r\n").addr),
    ] {
        let mut client = client(&format!(
            "-remote {remote} -id id1 -secret secret1 -local http://127.0.0.1:1 -reconnectDelay 10ms"
        ));
        let line = client.wait_for_failure();
        let said = "cannot open a WebSocket to the server: ";
        assert!(
            line.contains(said) || line.contains("cannot reach"),
            "{line}"
        );
    }
}

#[test]
fn a_tls_port_that_is_asked_without_tls_is_told_to_the_user() {
    let certs = certs::make();
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.flags()
    ));
    let mut client = client(&format!(
        "-remote ws://{} -id id1 -secret secret1 -local http://127.0.0.1:1",
        server.tls_addr()
    ));
    let line = client.wait_for_failure();
    assert!(
        line.contains("if the port is for TLS, use wss://"),
        "{line}"
    );
}

#[test]
fn a_websocket_may_be_at_an_ipv6_address_alone() {
    let mut server = server("-addr [::1]:0 -wsPath [0::1]/gt -id id1 -secret secret1");
    let (addr, web) = (server.addr(), service::http(0, "one"));
    let mut client = client(&format!(
        "-remote ws://{addr}/gt -id id1 -secret secret1 -local http://{}",
        web.addr
    ));
    client.wait_for_tunnel();
    assert_eq!(get(addr, "id1.a", "/x").text(), "one /x id1.a");
    // The path of other hosts is the services'.
    let mut stream = connect(addr);
    let other = request("id1.a", "/gt", "Connection: close\r\n");
    stream.write_all(other.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("one /gt id1.a"), "{answer}");
}

#[test]
fn failed_logins_lock_out_the_address_that_a_front_proxy_tells() {
    let mut server = server_of_id1("-frontProxies 127.0.0.1 -reconnectTimes 1");
    let addr = server.addr();
    let login = |from: &str, secret: &str| {
        let told = format!("X-Forwarded-For: {from}\r\n");
        let (mut stream, head) = ask(addr, &request("gt.a", "/gt", &told));
        assert_granted(&head);
        let hello = gt1::hello("id1", secret, &ID_ALONE);
        stream.write_all(&frame(BINARY, &hello)).expect("log in");
        read_frame(&mut stream).1
    };
    let ready = || login("192.0.2.2", "secret1");
    assert_eq!(ready(), gt1::READY);
    for _ in 0..2 {
        assert_eq!(login("192.0.2.1", "guess")[..4], gt1::ERROR);
    }
    // That address is locked out, even with the right secret, and no other one.
    assert_eq!(login("192.0.2.1", "secret1")[..4], gt1::ERROR);
    assert_eq!(ready(), gt1::READY);
    server.wait_for("addr=192.0.2.1:0");
}

#[test]
fn a_restart_moves_no_websocket_but_its_client_is_back_at_once() {
    for wire in [1, 2] {
        let port = free_port();
        let mut server = start_server(port, "-addr 127.0.0.1:0");
        let addr = server.addr();
        let mut services = start_client(&format!("ws://{addr}"), port, &format!("-wire {wire}"));
        services.assert_work(addr);
        let new = server.restart();
        services.client.wait_for_tunnels(2);
        assert_eq!(get(addr, "id1.a", "/x").text(), "one /x id1.a");
        assert_echo_at(SocketAddr::from(([127, 0, 0, 1], port)));
        new.signal("TERM");
        new.wait_for_end();
    }
}

#[cfg(feature = "p2p")]
#[test]
fn forwarded_connections_reach_a_server_in_whose_websockets_tunnels_are() {
    let echo = service::echo();
    let mut server = server_of_id1("-id id2 -secret secret2 -stunAddr 127.0.0.1:0");
    let (addr, stun) = (server.addr(), server.stun_addr());
    let _serving = client_of_id1(
        addr,
        &format!("-local http://{} -remoteSTUN stun:{stun}", echo.addr),
    );
    let mut forwarding = client(&format!(
        "-remote ws://{addr} -id id2 -secret secret2 -tcpForwardAddr 127.0.0.1:0 \
         -tcpForwardHostPrefix id1"
    ));
    assert_echo_at(forwarding.forward_addr());
}
