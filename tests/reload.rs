//! SIGHUP brings in the new configuration, and no running connection notices.

#![cfg(all(feature = "server", feature = "client"))]

mod common;

use common::gt::{client, server_of_id1};
use common::scratch::Scratch;
use common::service::{self, assert_echo};
use common::visitor::{connect, get};
use common::{eventually, ports::free_port};
use std::net::SocketAddr;

#[test]
fn a_client_reloads_its_services_and_no_connection_notices() {
    let (port, other_port) = (free_port(), free_port());
    let (one, two, echo) = (
        service::http(0, "one"),
        service::http(0, "two"),
        service::echo(),
    );
    let mut server = server_of_id1("-hostNumber 2 -tcpNumber 0 -tcpRange 1-65535");
    let addr = server.addr();
    let scratch = Scratch::new();
    let write = |services: String| {
        scratch.file(
            "client.yaml",
            format!(
                "options:\n  remote: tcp://{addr}\n  id: id1\n  secret: secret1\nservices:\n{services}"
            ),
        )
    };
    let http = |prefix: &str, at: SocketAddr| {
        format!("  - local: http://{at}\n    hostPrefix: {prefix}\n")
    };
    let tcp = |port: u16| {
        format!(
            "  - local: tcp://{}\n    remoteTCPPort: {port}\n",
            echo.addr
        )
    };
    let file = write(tcp(port) + &http("one", one.addr));
    let mut client = client(&format!("-config {}", file.display()));
    client.wait_for_tunnel();
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");

    // Other places in the list, another port, another prefix.
    write(http("two", two.addr) + &http("one", one.addr) + &tcp(other_port));
    client.signal("HUP");
    client.wait_for("reloaded");
    client.wait_for(&format!("tcp port {other_port} opened successfully"));
    assert_eq!(get(addr, "two.a", "/").text(), "two / two.a");
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");
    assert_echo(&mut connect(([127, 0, 0, 1], other_port).into()), b"there");
    assert_echo(&mut visitor, b"after");
    eventually("the old port to be closed", || {
        std::net::TcpListener::bind(("0.0.0.0", port)).ok()
    });
    assert_eq!(
        client.lines_with("tunnel started").len(),
        1,
        "the tunnel stays"
    );

    // A file that is wrong changes nothing but the log.
    write("  - local: nowhere\n".to_owned());
    client.signal("HUP");
    let line = client.wait_for("nowhere");
    assert!(
        line.contains(" ERR ") && line.contains("client.yaml"),
        "{line}"
    );
    assert_eq!(get(addr, "two.a", "/").text(), "two / two.a");
    assert_echo(&mut visitor, b"still");
}
