//! A restart of a server with tunnels over QUIC.

use crate::common::gt::{client, quic_tunnel, server, server_of_id1};
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read};
use crate::common::{eventually, ports::free_port};
use std::net::SocketAddr;
use std::sync::Arc;

#[test]
fn a_transfer_over_quic_goes_on_while_the_server_restarts() {
    const LENGTH: usize = 40 * 1024 * 1024;
    let bytes = Arc::new(Random::new(5).bytes(LENGTH));
    let source = service::source(bytes.clone());
    for wire in [1, 2] {
        let flags = format!("-wire {wire}");
        let (mut server, mut client, addr) = quic_tunnel(source.addr, &flags, &flags);
        let mut visitor = connect(addr);
        let begin = read(&mut visitor, LENGTH / 4);
        let new = server.restart();
        let rest = read(&mut visitor, LENGTH - begin.len());
        assert!([begin, rest].concat() == *bytes);
        drop(visitor);
        // The old process ends with its last tunnel, and the client is at the new one.
        assert_eq!(server.exit().code(), Some(0));
        let mut visitor = connect(addr);
        assert!(read(&mut visitor, LENGTH) == *bytes);
        drop(visitor);
        new.signal("TERM");
        new.wait_for_end();
        client.wait_for_closed(1);
    }
}

#[test]
fn a_transfer_over_quic_goes_on_through_two_restarts_and_the_death_of_the_new_process() {
    const LENGTH: usize = 40 * 1024 * 1024;
    let bytes = Arc::new(Random::new(6).bytes(LENGTH));
    let source = service::source(bytes.clone());
    let (mut server, mut client, addr) = quic_tunnel(source.addr, "", "");
    let mut visitor = connect(addr);
    let begin = read(&mut visitor, LENGTH / 4);
    let second = server.restart();
    client.wait_for_tunnels(2);
    let third = server.restart_again(&second);
    client.wait_for_tunnels(3);
    // The second process has no tunnel any more. It passes on the packets of the first one.
    client.wait_for_closed(1);
    let rest = read(&mut visitor, LENGTH - begin.len());
    assert!([begin, rest].concat() == *bytes);
    drop(visitor);
    assert_eq!(server.exit().code(), Some(0));
    second.wait_for_end();
    third.signal("TERM");
    third.wait_for_end();

    let (mut server, mut client, addr) = quic_tunnel(source.addr, "", "");
    let mut visitor = connect(addr);
    let begin = read(&mut visitor, LENGTH / 4);
    let new = server.restart();
    client.wait_for_tunnels(2);
    new.signal("KILL");
    new.wait_for_end();
    let rest = read(&mut visitor, LENGTH - begin.len());
    assert!([begin, rest].concat() == *bytes);
    drop(visitor);
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_client_of_a_server_that_was_killed_is_reset_by_the_next_process_and_comes_back() {
    let (state, port) = (Scratch::new(), free_port());
    let http = service::http(0, "here");
    let start = || {
        server_of_id1(&format!(
            "-quicAddr 127.0.0.1:{port} -stateDir {}",
            state.path().display()
        ))
    };
    let mut first = start();
    first.quic_addr();
    // A silent server would be given up after 50 s; pings tell earlier that another process is there.
    let mut client = client(&format!(
        "-remote quic://127.0.0.1:{port} -remoteCertInsecure -id id1 -secret secret1 -remoteTimeout 20s \
         -reconnectDelay 100ms -local http://{}",
        http.addr
    ));
    client.wait_for_tunnel();
    first.kill();
    let mut second = start();
    client.wait_for("the peer does not know the connection any more");
    client.wait_for_tunnels(2);
    assert_eq!(get(second.addr(), "id1.a", "/").text(), "here / id1.a");
}

#[test]
fn the_certificate_that_a_server_has_made_survives_a_restart() {
    let echo = service::echo();
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -quicAddr 127.0.0.1:0 -id id1 -secret secret1 -tcpNumber 1 -tcpRange {port}"
    ));
    let quic = server.quic_addr();
    let new = server.restart();
    let made = eventually("the new process to name its certificate", || {
        let made = server.quic_keys();
        (made.len() == 2).then_some(made)
    });
    assert_eq!(made[0], made[1]);
    let mut client = client(&format!(
        "-remote quic://{quic} -remoteCertInsecure -id id1 -secret secret1 -local tcp://{} \
         -remoteTCPPort {port}",
        echo.addr
    ));
    client.wait_for_tunnel();
    assert_echo(
        &mut connect(SocketAddr::from(([127, 0, 0, 1], port))),
        b"new",
    );
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn a_listener_for_quic_comes_back_by_a_reload_and_by_a_restart_while_a_tunnel_over_it_lives() {
    let scratch = Scratch::new();
    let write = |more: &str| {
        let text = format!(
            "users: {{id1: {{secret: secret1}}, id2: {{secret: secret2}}}}\n\
             options: {{addr: \"127.0.0.1:0\"{more}}}\n"
        );
        scratch.file("server.yaml", text)
    };
    let (with, without) = (", quicAddr: \"127.0.0.1:0\"", "");
    let mut server = server(&format!("-config {}", write(with).display()));
    let (addr, quic) = (server.addr(), server.quic_addr());
    let http = service::http(0, "here");
    let client_of = |id: &str| {
        client(&format!(
            "-remote quic://{quic} -remoteCertInsecure -id id{id} -secret secret{id} \
             -local http://{}",
            http.addr
        ))
    };
    let mut first = client_of("1");
    first.wait_for_tunnel();
    write(without);
    server.reload();
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    write(with);
    server.reload();
    let mut second = client_of("2");
    second.wait_for_tunnel();
    write(without);
    server.reload();
    write(with);
    let new = server.restart();
    first.wait_for_tunnels(2);
    second.wait_for_tunnels(2);
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    assert_eq!(get(addr, "id2.a", "/").text(), "here / id2.a");
    assert_eq!(server.exit().code(), Some(0));
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn a_quic_address_that_is_written_in_another_way_is_the_same_socket() {
    let (scratch, port) = (Scratch::new(), free_port());
    let write = |addr: &str| {
        let text = format!(
            "users: {{id1: {{secret: secret1}}, id2: {{secret: secret2}}}}\n\
             options: {{addr: \"127.0.0.1:0\", quicAddr: \"{addr}:{port}\"}}\n"
        );
        scratch.file("server.yaml", text)
    };
    let mut server = server(&format!("-config {}", write("").display()));
    let addr = server.addr();
    server.quic_addr();
    let http = service::http(0, "here");
    let client_of = |id: &str, host: &str| {
        client(&format!(
            "-remote quic://{host}:{port} -remoteCertInsecure -id id{id} -secret secret{id} \
             -reconnectDelay 100ms -local http://{}",
            http.addr
        ))
    };
    let mut first = client_of("1", "127.0.0.1");
    first.wait_for_tunnel();
    for spelling in ["[::]", "0.0.0.0"] {
        write(spelling);
        server.reload();
        assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    }
    // No longer those of IPv6.
    let mut second = client_of("2", "[::1]");
    second.wait_for_failure();
    write("[::]");
    server.reload();
    second.wait_for_tunnel();
    second.stop();
    write("0.0.0.0");
    let new = server.restart();
    first.wait_for_tunnels(2);
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    assert_eq!(first.lines_with("tunnel closed connID=1:"), [""; 0]);
    assert_eq!(server.exit().code(), Some(0));
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn a_quic_address_that_excludes_the_one_in_use_is_an_error_with_advice() {
    let (scratch, port) = (Scratch::new(), free_port());
    let write = |addr: &str| {
        let text = format!(
            "users: {{id1: {{secret: secret1}}}}\n\
             options: {{addr: \"127.0.0.1:0\", quicAddr: \"{addr}:{port}\"}}\n"
        );
        scratch.file("server.yaml", text)
    };
    let mut server = server(&format!("-config {}", write("127.0.0.1").display()));
    server.quic_addr();
    write("");
    let line = server.reload_in_vain();
    let why = format!("this server's tunnels at 127.0.0.1:{port} have the port");
    assert!(line.contains(&why), "{line}");
}
