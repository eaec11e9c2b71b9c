//! Failures recover without help, and are logged in one useful line.

use crate::common::gt::{client, client_of_id1, gt, server, server_of_id1, Gt};
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::ports::free_port;
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::visitor::{connect, get, read};
use crate::common::{eventually, service};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

/// Returns the status that a visitor of `id1` gets at `addr`.
fn status(addr: SocketAddr) -> u16 {
    get(addr, "id1.example.com", "/").status
}

#[test]
fn a_client_reconnects_to_a_restarted_server() {
    let service = service::http(0, "here");
    let flags = format!("-addr 127.0.0.1:{} -id id1 -secret secret1", free_port());
    let mut first = server(&flags);
    let addr = first.addr();
    let local = format!("-local http://{} -reconnectDelay 100ms", service.addr);
    let mut client = client_of_id1(addr, &local);
    assert_eq!(status(addr), 200);
    first.kill();
    // The loss of the tunnel is logged once, and the client reconnects without help.
    client.wait_for_unreachable(2);
    let mut second = server(&flags);
    assert_eq!(second.addr(), addr);
    client.wait_for_tunnels(2);
    assert_eq!(status(addr), 200);
    // The same after a graceful stop of the server.
    assert_eq!(second.stop(), Some(0));
    let mut third = server(&flags);
    client.wait_for_tunnels(3);
    assert_eq!(status(third.addr()), 200);
}

#[test]
fn a_client_may_start_before_its_server() {
    let service = service::http(0, "here");
    let port = free_port();
    let mut client = client(&format!(
        "-remote 127.0.0.1:{port} -id id1 -secret secret1 -reconnectDelay 100ms -local http://{}",
        service.addr
    ));
    let line = client.wait_for_warning();
    assert!(line.contains(&port.to_string()), "{line}");
    let mut server = server(&format!("-addr 127.0.0.1:{port} -id id1 -secret secret1"));
    client.wait_for_tunnel();
    assert_eq!(status(server.addr()), 200);
}

#[test]
fn a_reload_ends_the_wait_for_the_next_attempt() {
    let port = free_port();
    // Longer than any test waits.
    let mut client = client(&format!(
        "-remote 127.0.0.1:{port} -id id1 -secret secret1 -reconnectDelay 1h \
         -local http://127.0.0.1:1"
    ));
    client.wait_for_failure();
    let mut server = server(&format!("-addr 127.0.0.1:{port} -id id1 -secret secret1"));
    server.addr();
    client.reload();
    client.wait_for_tunnel();
}

#[test]
fn a_restarted_service_is_reached_again() {
    let port = free_port();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let mut client = client_of_id1(addr, &format!("-local http://127.0.0.1:{port}"));
    assert_eq!(status(addr), 502);
    client.wait_for(&format!("127.0.0.1:{port}"));
    let service = service::http(port, "here");
    assert_eq!(status(addr), 200);
    drop(service);
    assert_eq!(status(addr), 502);
    let _service = service::http(port, "here again");
    assert_eq!(status(addr), 200);
}

#[test]
fn a_wrong_secret_is_one_line_an_attempt_with_growing_waits() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let mut client = client(&format!(
        "-remote {addr} -id id1 -secret wrong -reconnectDelay 100ms -local http://127.0.0.1"
    ));
    client.assert_keeps_failing(&["invalid id and secret"]);
    assert!(!client.log().contains("wrong"), "it tells the secret");
    assert!(server.has_ended().is_none());
}

#[test]
fn a_port_in_use_ends_the_server_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("listen");
    let addr = taken.local_addr().expect("an address").to_string();
    for flags in [
        format!("-addr {addr}"),
        format!("-addr 127.0.0.1:0 -sniAddr {addr}"),
    ] {
        let output = gt(&format!("server {flags} -id id1 -secret secret1"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let line = said.lines().last().unwrap_or_default();
        assert!(line.contains(&addr), "{line:?} should name {addr}");
        assert!(said.contains("Addr") || said.contains("addr"), "{said}");
    }
}

#[test]
fn an_unresolvable_name_is_one_line_an_attempt() {
    let mut client = client(
        "-remote tcp://no-such-host.invalid:80 -id id1 -secret secret1 -reconnectDelay 100ms \
         -local http://127.0.0.1",
    );
    client.assert_keeps_failing(&["no-such-host.invalid"]);
}

#[test]
fn two_clients_with_one_id_are_warned_of_each_other() {
    let service = service::http(0, "here");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-reconnectDelay 100ms -local http://{}", service.addr);
    let mut one = client_of_id1(addr, &local);
    // A visitor that stays keeps the first client's tunnel when it is replaced.
    let mut visitor = connect(addr);
    let request = "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    visitor.write_all(request.as_bytes()).expect("send");
    read(&mut visitor, 20);
    let mut two = client_of_id1(addr, &format!("{local} -hostPrefix other"));
    one.wait_for("another client");
    drop(visitor);
    // When that tunnel has ended, the first client is admitted again, and so on: both serve in
    // turn.
    eventually("the first one to be back", || {
        (one.tunnels() > 1).then_some(())
    });
    assert!(two.has_ended().is_none());
    assert!(one.has_ended().is_none());
    assert!(server.has_ended().is_none());
}

#[test]
fn two_clients_with_one_id_and_the_same_services_share_the_work() {
    let service = service::http(0, "here");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://{}", service.addr);
    let mut one = client_of_id1(addr, &local);
    let _two = client_of_id1(addr, &local);
    assert_eq!(status(addr), 200);
    one.kill();
    assert_eq!(status(addr), 200);
}

/// A router that starts long before its internet connection, name server included.
#[test]
fn a_late_wan_is_used_at_once_after_a_wake() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let internet = Internet::new(Nat::PortRestricted, Nat::PortRestricted);
    let router = |change: &[&str]| {
        let router = internet.place("router-a");
        run_ok(Command::new("ip").args(["-n", &router]).args(change));
    };
    router(&["link", "set", "wan", "down"]);
    let service = Scratch::new();
    service.file("page", "here");
    let mut client = Gt::within(
        &internet.place("home-a"),
        &format!(
            "client -remote tcp://{MIDDLE}:8080 -id id1 -secret secret1 -reconnectDelay 10m \
             -local file://{}",
            service.path().display()
        ),
    );
    // The error and the wait are logged.
    let line = client.wait_for_failure();
    assert!(line.contains(MIDDLE), "{line}");
    router(&["link", "set", "wan", "up"]);
    router(&["route", "add", "default", "via", MIDDLE]);
    let mut server = Gt::within(
        &internet.place("middle"),
        "server -addr 0.0.0.0:8080 -id id1 -secret secret1",
    );
    server.addr();
    // What /etc/init.d/gt does then.
    client.signal("USR1");
    client.wait_for_tunnel();
}

#[test]
fn clients_with_one_id_and_different_services_are_warned() {
    let service = service::http(0, "here");
    for wire in [1, 2] {
        let mut server = server_of_id1("");
        let addr = server.addr();
        let start = |prefix: &str| {
            let local = format!("-local http://{} -hostPrefix {prefix}", service.addr);
            client_of_id1(addr, &format!("{local} -reconnectDelay 100ms -wire {wire}"))
        };
        let (mut one, mut two) = (start("one"), start("two"));
        let line = server.wait_for("two clients with id=id1 and different services replace");
        assert_eq!(line.matches(" at 127.0.0.1:").count(), 2, "{line}");
        for client in [&mut one, &mut two] {
            let line = client.wait_for("another client with id=id1 and different services");
            let server = format!("the server's {addr}");
            assert!(line.contains(" WRN ") && line.contains(&server), "{line}");
            assert!(
                line.contains("this client's address is 127.0.0.1:"),
                "{line}"
            );
        }
        // At most once a minute, however often it happens.
        one.wait_for_tunnels(4);
        assert_eq!(server.lines_with("replace each other").len(), 1);
        assert_eq!(one.lines_with("takes turns with it").len(), 1);
    }
}
