//! SIGUSR1 makes waiting clients connect at once, and changes nothing else.

use crate::common::eventually;
use crate::common::gt::{client, server, server_of_id1};
use crate::common::peer::gt1::{hello, PeerServer};
use crate::common::peer::ID_ALONE;
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service;
use crate::common::visitor::get;
use std::net::SocketAddr;

#[test]
fn a_waiting_client_connects_at_once_and_reads_no_file() {
    let port = free_port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let one = service::http(0, "one");
    let scratch = Scratch::new();
    let text = |services: &str| {
        format!(
            "options: {{remote: 'tcp://{addr}', id: id1, secret: secret1, reconnectDelay: 10m, \
             logLevel: debug}}\nservices:\n{services}"
        )
    };
    let first = format!("  - local: http://{}\n    hostPrefix: one\n", one.addr);
    let file = scratch.file("client.yaml", text(&first));
    let mut client = client(&format!("-config {}", file.display()));
    client.wait_for_failure();

    scratch.file("client.yaml", "options: [");
    let server_of_port = || {
        let mut server = server(&format!(
            "-addr {addr} -id id1 -secret secret1 -hostNumber 2"
        ));
        server.addr();
        server
    };
    let mut here = server_of_port();
    client.wake();
    client.wait_for_tunnel();
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");

    // Another service in the file does not appear.
    here.kill();
    client.wait_for_closed(1);
    let second = first.replace("hostPrefix: one", "hostPrefix: two");
    scratch.file("client.yaml", text(&(first.clone() + &second)));
    let here = server_of_port();
    // A wake that comes before the client waits has no effect.
    eventually("another tunnel", || {
        client.wake();
        (client.tunnels() == 2).then_some(())
    });
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");
    assert_eq!(get(addr, "two.a", "/").status, 404);

    // A client with a tunnel has nothing to do.
    client.wake();
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");
    assert_eq!((client.tunnels(), here.closed()), (2, 0));
    assert_eq!((client.reloads(), client.errors()), (0, vec![]));
}

#[test]
fn wakes_start_no_second_attempt_beside_a_running_one() {
    let there = PeerServer::start();
    let mut client = client(&format!(
        "-wire 1 -remote tcp://{} -id id1 -secret secret1 -local http://127.0.0.1:1 \
         -logLevel debug -reconnectDelay 10m",
        there.addr
    ));
    // The server does not answer yet.
    let mut peer = there.accept();
    for _ in 0..20 {
        client.wake();
    }
    assert_eq!(client.attempts(), 1);
    let hello = hello("id1", "secret1", &ID_ALONE);
    assert_eq!(peer.read(hello.len()), hello);
    drop(peer);
    client.wait_for_failure();
    client.wake();
    let _peer = there.accept_ready(&hello);
    client.wait_for_tunnel();
    assert_eq!(client.attempts(), 2);
}

#[test]
fn a_server_ignores_it_without_a_word() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let before = server.log();
    for _ in 0..10 {
        server.signal("USR1");
    }
    assert_eq!(get(addr, "nobody.a", "/").status, 404);
    assert_eq!(server.log(), before);
    assert_eq!(server.stop(), Some(0));
}
