//! SIGHUP applies the new configuration, and no running connection is affected.

use crate::common::eventually;
use crate::common::gt::{client, server, server_of_id1, Gt};
use crate::common::peer::gt1::{first, hello, identity, Frame, PeerServer, SERVICES};
use crate::common::peer::{port_option, prefix_option};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get};
use std::net::SocketAddr;

#[test]
fn a_client_reloads_its_services_without_affecting_connections() {
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

    // Another order in the list, another port, another prefix.
    write(http("two", two.addr) + &http("one", one.addr) + &tcp(other_port));
    client.signal("HUP");
    client.wait_for_reloaded(1);
    client.wait_for_opened_port(other_port);
    assert_eq!(get(addr, "two.a", "/").text(), "two / two.a");
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");
    assert_echo(&mut connect(([127, 0, 0, 1], other_port).into()), b"there");
    assert_echo(&mut visitor, b"after");
    eventually("the old port to be closed", || {
        std::net::TcpListener::bind(("0.0.0.0", port)).ok()
    });
    assert_eq!(client.tunnels(), 1, "the tunnel stays");

    // An invalid file changes nothing but the log.
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

/// A client with a file, and a server for it.
struct Filed {
    scratch: Scratch,
    client: Gt,
}

impl Filed {
    fn new(options: &str, services: &str) -> Filed {
        let scratch = Scratch::new();
        let file = scratch.file("client.yaml", text(options, services));
        let mut client = client(&format!("-config {}", file.display()));
        client.wait_for_tunnel();
        Filed { scratch, client }
    }

    fn reload(&mut self, options: &str, services: &str) {
        self.scratch.file("client.yaml", text(options, services));
        self.client.reload();
    }
}

fn text(options: &str, services: &str) -> String {
    format!("options: {{{options}}}\nservices:\n{services}")
}

#[test]
fn a_client_moves_to_another_server_and_streams_finish_at_the_old_one() {
    let port = free_port();
    let (one, echo) = (service::http(0, "one"), service::echo());
    let mut here = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let mut there =
        server("-addr 127.0.0.1:0 -id id2 -secret secret2 -tcpNumber 1 -tcpRange 1-65535");
    let services = |port: u16| {
        format!(
            "  - local: http://{}\n  - local: tcp://{}\n    remoteTCPPort: {port}\n",
            one.addr, echo.addr
        )
    };
    let options = format!("remote: tcp://{}, id: id1, secret: secret1", here.addr());
    let mut filed = Filed::new(&options, &services(port));
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");

    let options = format!("remote: tcp://{}, id: id2, secret: secret2", there.addr());
    filed.reload(&options, &services(free_port()));
    there.wait_for_opened(1);
    assert_eq!(get(there.addr(), "id2.a", "/").text(), "one / id2.a");
    assert_echo(&mut visitor, b"after");
    assert_eq!(here.closed(), 0);
    drop(visitor);
    here.wait_for_closed(1);
    assert_eq!(get(there.addr(), "id2.a", "/").text(), "one / id2.a");
}

#[test]
fn a_client_changes_its_id_and_keeps_its_prefix() {
    let one = service::http(0, "one");
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -tcpNumber 1 -tcpRange {port}"
    ));
    let addr = server.addr();
    let services = format!(
        "  - local: http://{one}\n    hostPrefix: mine\n  - local: tcp://{one}\n    remoteTCPPort: {port}\n",
        one = one.addr
    );
    let options = |n: u32| format!("remote: tcp://{addr}, id: id{n}, secret: secret{n}");
    let mut filed = Filed::new(&options(1), &services);
    assert_eq!(get(addr, "mine.a", "/").text(), "one / mine.a");
    filed.reload(&options(2), &services);
    // The new tunnel is refused while the old one has the prefix; visitors wait that long.
    server.wait_for_closed_of("id1", 1);
    assert_eq!(get(addr, "mine.a", "/").text(), "one / mine.a");
    server.wait_for_opened_by("id2");
    assert_eq!(
        get(([127, 0, 0, 1], port).into(), "any", "/").text(),
        "one / any"
    );
}

#[test]
fn a_pool_changes_its_size_and_a_generated_secret_stays() {
    let one = service::http(0, "one");
    let mut server = server("-addr 127.0.0.1:0 -allowAnyClient");
    let addr = server.addr();
    let services = format!("  - local: http://{}\n", one.addr);
    let options =
        |idle: u32| format!("remote: tcp://{addr}, id: id1, remoteIdleConnections: {idle}");
    let mut filed = Filed::new(&options(1), &services);
    filed.reload(&options(3), &services);
    server.wait_for_opened(4);
    server.wait_for_closed(1);
    filed.reload(&options(1), &services);
    server.wait_for_opened(5);
    server.wait_for_closed(4);
    assert_eq!(server.refusals(), [""; 0]);
    assert_eq!(get(addr, "id1.a", "/").text(), "one / id1.a");
}

#[test]
fn stopping_a_client_that_moves_stops_all_its_tunnels() {
    let port = free_port();
    let echo = service::echo();
    let mut here = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let there = PeerServer::start();
    let services = format!(
        "  - local: tcp://{}\n    remoteTCPPort: {port}\n",
        echo.addr
    );
    let options =
        |addr: SocketAddr| format!("wire: 1, remote: tcp://{addr}, id: id1, secret: secret1");
    let mut filed = Filed::new(&options(here.addr()), &services);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    filed.reload(&options(there.addr), &services);
    let option = port_option(false, port);
    let mut new = there.accept_ready(&hello("id1", "secret1", &option));
    assert_echo(&mut visitor, b"after");
    filed.client.signal("TERM");
    new.expect(Frame::Close);
    assert_echo(&mut visitor, b"it may finish");
    drop((visitor, new));
    assert_eq!(filed.client.exit().code(), Some(0));
}

#[test]
fn a_server_is_told_only_of_changes_it_can_see() {
    let there = PeerServer::start();
    let (one, two) = (service::banner("one"), service::banner("two"));
    let options = format!(
        "wire: 1, remote: tcp://{}, id: id1, secret: secret1",
        there.addr
    );
    let service =
        |at: SocketAddr, port: u16| format!("  - local: tcp://{at}\n    remoteTCPPort: {port}\n");
    let scratch = Scratch::new();
    let write = |services: String| scratch.file("client.yaml", text(&options, &services));
    let file = write(service(one.addr, 1));
    let mut client = client(&format!("-config {}", file.display()));
    let mut peer = there.accept_ready(&hello("id1", "secret1", &port_option(false, 1)));
    client.wait_for_tunnel();

    client.reload();
    peer.send(&first(1, 0, b""));
    peer.expect(Frame::Data(1, b"one".to_vec()));
    // Another local service under the same index.
    write(service(two.addr, 1));
    client.reload();
    peer.send(&first(2, 0, b""));
    peer.expect(Frame::Data(2, b"two".to_vec()));

    write(service(two.addr, 1) + "  - local: http://127.0.0.1:1\n    hostPrefix: more\n");
    client.reload();
    let more = [&[2], &port_option(false, 1)[..], &prefix_option("more")].concat();
    let change = [&SERVICES[..], &identity("id1", "secret1", &more)].concat();
    assert_eq!(peer.read(change.len()), change);
}

#[test]
fn streams_finish_when_the_server_refuses_new_services() {
    let port = free_port();
    let (one, echo) = (service::http(0, "one"), service::echo());
    let mut server = server_of_id1("-tcpNumber 0 -tcpRange 1-65535");
    let addr = server.addr();
    let options = format!("remote: tcp://{addr}, id: id1, secret: secret1, reconnectDelay: 2m");
    let services = format!(
        "  - local: http://{}\n  - local: tcp://{}\n    remoteTCPPort: {port}\n",
        one.addr, echo.addr
    );
    let mut filed = Filed::new(&options, &services);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    let too_many = format!(
        "{services}  - local: http://{}\n    hostPrefix: more\n",
        one.addr
    );
    filed.reload(&options, &too_many);
    filed.client.wait_for("host number is limited");
    server.wait_for("its new services were refused");
    assert_echo(&mut visitor, b"after");
    // After the correction it does not wait for the next attempt.
    filed.reload(&options, &services);
    server.wait_for_opened(2);
    assert_echo(&mut visitor, b"still");
    assert_eq!(get(addr, "id1.a", "/").text(), "one / id1.a");
}

#[test]
fn a_port_that_is_taken_is_named_and_opened_when_it_is_free() {
    let holder = std::net::TcpListener::bind("[::]:0").expect("a port");
    let taken = holder.local_addr().expect("its address").port();
    let (one, echo) = (service::http(0, "one"), service::echo());
    let mut server = server_of_id1("-tcpNumber 0 -tcpRange 1-65535 -timeout 8s");
    let addr = server.addr();
    let options = format!("remote: tcp://{addr}, id: id1, secret: secret1");
    let services = |port: u16| {
        format!(
            "  - local: http://{}\n  - local: tcp://{}\n    remoteTCPPort: {port}\n",
            one.addr, echo.addr
        )
    };
    let mut filed = Filed::new(&options, &services(free_port()));
    filed.reload(&options, &services(taken));
    let named = format!("(port {taken}): the port is in use on the server");
    let line = filed.client.wait_for(&named);
    assert!(line.contains(" WRN "), "{line}");
    assert_eq!(get(addr, "id1.a", "/").text(), "one / id1.a");
    drop(holder);
    filed.client.wait_for_opened_port(taken);
    assert_echo(&mut connect(([127, 0, 0, 1], taken).into()), b"open");
    assert_eq!(filed.client.tunnels(), 1);
}

#[test]
fn files_of_a_directory_come_and_go() {
    let (port, other_port) = (free_port(), free_port());
    let echo = service::echo();
    let mut here = server(&format!(
        "-addr 127.0.0.1:0 -id id1 -secret s -id id2 -secret s -tcpNumber 0 -tcpRange {port} \
         -tcpNumber 0 -tcpRange {other_port}"
    ));
    let addr = here.addr();
    let scratch = Scratch::new();
    let write = |id: &str, port: u16| {
        scratch.file(
            &format!("{id}.yaml"),
            text(
                &format!("remote: tcp://{addr}, id: {id}, secret: s"),
                &format!(
                    "  - local: tcp://{}\n    remoteTCPPort: {port}\n",
                    echo.addr
                ),
            ),
        )
    };
    let first = write("id1", port);
    let mut client = client(&format!("-config {}", scratch.path().display()));
    client.wait_for_tunnel();
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    write("id2", other_port);
    std::fs::remove_file(first).expect("remove a file");
    client.reload();
    here.wait_for_opened_by("id2");
    let other = ([127, 0, 0, 1], other_port).into();
    assert_echo(&mut connect(other), b"the new one");
    assert_echo(&mut visitor, b"the old one's visitor");
    // Draining tunnels may also finish when the process ends.
    client.signal("TERM");
    here.wait_for_closed_of("id2", 1);
    assert_echo(&mut visitor, b"still");
    drop(visitor);
    assert_eq!(client.exit().code(), Some(0));
    here.wait_for_closed_of("id1", 1);
}
