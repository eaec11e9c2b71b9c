//! A restart of a server with tunnels over QUIC.

use crate::common::gt::{client, quic_tunnel, server};
use crate::common::samples::Random;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, read};
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
