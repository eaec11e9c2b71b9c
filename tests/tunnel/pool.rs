//! The pool: it grows when every tunnel is busy, up to its limit, and shrinks again.

use crate::common::certs;
use crate::common::eventually;
use crate::common::forwarder::Forwarder;
use crate::common::gt::{client, server, tcp_tunnel, Gt};
use crate::common::service::{self, assert_echo};
use crate::common::visitor::connect;
use std::net::{SocketAddr, TcpStream};

/// Opens visitors that hold a stream each, up to `count`.
fn hold(visitors: &mut Vec<TcpStream>, at: SocketAddr, count: usize) {
    while visitors.len() < count {
        let mut visitor = connect(at);
        assert_echo(&mut visitor, b"here");
        visitors.push(visitor);
    }
}

fn setup(for_server: &str, for_client: &str) -> (Gt, Gt, service::Service, SocketAddr) {
    let service = service::echo();
    let (server, client, at) = tcp_tunnel(service.addr, for_server, for_client);
    (server, client, service, at)
}

#[test]
fn a_tunnel_is_opened_for_every_three_streams_and_closed_when_idle() {
    let (_server, mut client, _service, at) = setup("", "-remoteTimeout 1s");
    let mut visitors = Vec::new();
    hold(&mut visitors, at, 2);
    assert_eq!(client.tunnels(), 1);
    hold(&mut visitors, at, 3);
    client.wait_for_tunnels(2);
    hold(&mut visitors, at, 6);
    client.wait_for_tunnels(3);
    hold(&mut visitors, at, 12);
    assert_eq!(client.attempts(), 3, "3 is the most");
    drop(visitors);
    client.wait_for_closed(2);
    // The tunnel that is always kept goes on.
    hold(&mut Vec::new(), at, 1);
    assert_eq!(client.closed(), 2);
}

#[test]
fn the_number_of_tunnels_never_exceeds_the_configuration() {
    for most in [1, 2] {
        let flags = format!("-remoteConnections {most}");
        let (_server, client, _service, at) = setup("", &flags);
        let mut visitors = Vec::new();
        hold(&mut visitors, at, 12);
        let tried = || client.attempts();
        eventually("all of them to be there", || {
            (client.tunnels() == most).then_some(())
        });
        hold(&mut visitors, at, 24);
        assert_eq!(tried(), most);
    }
}

#[test]
fn more_idle_tunnels_are_kept_if_configured() {
    let (server, mut client, _service, at) = setup("", "-remoteIdleConnections 2");
    client.wait_for_tunnels(2);
    eventually("both tunnels to be there", || {
        (server.opened().len() == 2).then_some(())
    });
    hold(&mut Vec::new(), at, 5);
}

#[test]
fn a_server_that_refuses_more_tunnels_is_not_asked_repeatedly() {
    let (_server, mut client, _service, at) = setup("-connections 1", "");
    let mut visitors = Vec::new();
    hold(&mut visitors, at, 3);
    client.wait_for("allows no more tunnels");
    hold(&mut visitors, at, 9);
    assert_eq!(client.attempts(), 2);
    assert_eq!(client.warnings().len(), 0, "{}", client.log());
}

#[test]
fn a_tunnel_over_tls_resumes_the_session_of_the_one_before() {
    let certs = certs::make();
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.flags()
    ));
    let line = Forwarder::start(0, server.tls_addr());
    let mut client = client(&format!(
        "-remote tls://{} -remoteCert {} -id id1 -secret secret1 -local http://127.0.0.1:1 -logLevel debug",
        line.addr,
        certs.ca.display()
    ));
    client.wait_for_tunnel();
    assert!(client.lines_with("TLS session").is_empty());
    line.cut();
    client.wait_for_tunnels(2);
    assert_eq!(
        client
            .lines_with("TLS session with 127.0.0.1 resumed")
            .len(),
        1
    );
}
