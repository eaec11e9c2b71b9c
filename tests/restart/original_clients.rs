//! A server restarts under clients of the original, which cannot be asked to reconnect: their
//! visitors notice nothing.

use crate::common::crowd::{Crowd, Visitor};
use crate::common::curl::{curl, https, url};
use crate::common::gt::{client, server, server_of_id1, Gt};
use crate::common::original::Original;
use crate::common::peer::gt1::{closed, data, hello, Frame, Peer, PING};
use crate::common::peer::{gt2, port_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::visitor::{connect, connect_from, get, read, read_answer, read_to_end};
use crate::common::{certs, eventually};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Echoes the body of each request; without a body, sends as many bytes as `/<n>` says.
fn bodies() -> Service {
    service::answering(0, |request| {
        let wanted = request.target.trim_start_matches('/').parse();
        match request.body.is_empty() {
            true => pattern(wanted.unwrap_or(0)),
            false => request.body,
        }
    })
}

fn pattern(length: usize) -> Vec<u8> {
    let mut n = 1u32;
    let next = |_| {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        n.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

/// Requests `length` bytes and checks them.
fn download(stream: &mut TcpStream, length: usize, more: &str) {
    write!(
        stream,
        "GET /{length} HTTP/1.1\r\nHost: id1.a\r\n{more}\r\n"
    )
    .expect("ask");
    let answer = read_answer(stream);
    assert!(answer.status == 200 && answer.body == pattern(length));
}

/// Sends a body, with pauses between its pieces, and checks the echo.
fn upload(stream: &mut TcpStream, body: &[u8]) {
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: id1.a\r\nContent-Length: {length}\r\n\r\n"
    )
    .expect("begin to send");
    for piece in body.chunks(length / 16 + 1) {
        stream.write_all(piece).expect("go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = read_answer(stream);
    assert!(answer.status == 200 && answer.body == body);
}

/// The service closes first, since a visitor that closes first keeps its stream for a while.
fn new_connections(addr: SocketAddr) -> Visitor {
    Box::new(move || {
        let mut stream = connect(addr);
        download(&mut stream, 100, "Connection: close\r\n");
        assert_eq!(read_to_end(&mut stream), b"");
    })
}

fn keep_alive(addr: SocketAddr) -> Visitor {
    let mut stream = connect(addr);
    Box::new(move || {
        download(&mut stream, 1000, "");
        std::thread::sleep(Duration::from_millis(10));
    })
}

fn downloads(addr: SocketAddr) -> Visitor {
    Box::new(move || download(&mut connect(addr), 1_000_000, "Connection: close\r\n"))
}

fn uploads(addr: SocketAddr) -> Visitor {
    let body = pattern(500_000);
    Box::new(move || upload(&mut connect(addr), &body))
}

/// A GT/1 client of a server with a configuration file, and a connection that it serves.
struct BusyClient {
    server: SocketAddr,
    service: Service,
    scratch: Scratch,
    client: Gt,
    held: TcpStream,
}

impl BusyClient {
    fn start(server: &mut Gt) -> Self {
        let (server, service, scratch) = (server.addr(), bodies(), Scratch::new());
        let file = write_client(&scratch, server, service.addr, &["id1"]);
        let mut client = client(&format!("-config {}", file.display()));
        client.wait_for_tunnel();
        let mut held = connect(server);
        download(&mut held, 1000, "");
        Self {
            server,
            service,
            scratch,
            client,
            held,
        }
    }

    /// Adds a prefix. The client has it, and serves its connection on.
    fn assert_gets_another_prefix(&mut self) {
        write_client(
            &self.scratch,
            self.server,
            self.service.addr,
            &["id1", "more"],
        );
        self.client.reload();
        self.client.wait_for_tunnels(2);
        for host in ["more.a", "id1.a"] {
            assert_eq!(get(self.server, host, "/1").status, 200, "{host}");
        }
        download(&mut self.held, 1000, "");
    }
}

/// Writes the configuration of a GT/1 client that publishes a service under these prefixes.
fn write_client(
    scratch: &Scratch,
    server: SocketAddr,
    service: SocketAddr,
    prefixes: &[&str],
) -> PathBuf {
    let services = prefixes.iter();
    let services =
        services.map(|prefix| format!("  - {{local: 'http://{service}', hostPrefix: {prefix}}}\n"));
    let services: String = services.collect();
    let text = format!(
        "options: {{remote: 'tcp://{server}', id: id1, secret: secret1, wire: 1}}\n\
         services:\n{services}"
    );
    scratch.file("client.yaml", text)
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn three_restarts_harm_no_visitor_of_an_original_client() {
    let service = bodies();
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let services = [&[2], &port_option(false, port)[..], &[0]].concat();
    let original = Original::start(addr, hello("id1", "secret1", &services), service.addr);
    server.wait_for_opened(1);
    let crowd = Crowd::of(vec![
        new_connections(addr),
        new_connections(local(port)),
        keep_alive(addr),
        keep_alive(local(port)),
        downloads(addr),
        uploads(addr),
        uploads(local(port)),
    ]);
    let first = server.restart();
    crowd.more();
    let second = server.restart_again(&first);
    crowd.more();
    let third = server.restart_again(&second);
    crowd.more();
    assert!(server.has_ended().is_none(), "the tunnel is where it was");
    let served = crowd.end();
    println!("{served} served");
    // Without streams it moves from process to process, and they end.
    assert_eq!(server.exit().code(), Some(0));
    first.wait_for_end();
    second.wait_for_end();
    assert_eq!(get(addr, "id1.a", "/1").text().len(), 1);
    download(&mut connect(local(port)), 10, "");
    original.assert_understood_all();
    assert_eq!(original.tunnels(), 1, "it has noticed nothing");
    third.signal("TERM");
    third.wait_for_end();
}

#[test]
fn a_tunnel_without_streams_moves_in_the_middle_of_a_frame() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let services = [&[2], &port_option(false, port)[..], &[0]].concat();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    let mut visitor = connect(local(port));
    let (before, ..) = peer.opened();
    drop(visitor);
    peer.expect(Frame::Closed(before));
    peer.sync();
    peer.send(&PING[..3]);
    let _new = server.restart();
    assert_eq!(server.exit().code(), Some(0));
    peer.send(&PING[3..]);
    peer.expect(Frame::Ping);
    // Port and prefix are there, and no stream number is used twice.
    visitor = connect(local(port));
    let (stream, service, _) = peer.opened();
    assert!(service == 0 && stream > before, "{stream}");
    peer.send(&data(stream, b"hello"));
    visitor.read_exact(&mut [0; 5]).expect("an answer");
    write!(connect(addr), "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
    let (next, service, _) = peer.opened();
    assert!(service == 1 && next > stream, "{next}");
}

#[test]
fn visitors_are_served_while_an_answer_that_takes_long_keeps_a_tunnel_in_the_old_process() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    // The tunnel is to move when this visitor, which has said all, has its answer.
    let mut patient = connect(addr);
    patient.write_all(request).expect("ask");
    patient.shutdown(Shutdown::Write).expect("end");
    peer.opened();
    let _new = server.restart();
    let mut visitor = connect(addr);
    visitor.write_all(request).expect("ask");
    let (stream, ..) = peer.opened();
    peer.send(&data(
        stream,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ));
    assert_eq!(read_answer(&mut visitor).status, 200);
}

#[test]
fn a_port_stays_open_in_the_old_process_when_another_tunnel_of_its_client_ends_in_the_new_one() {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-id id2 -secret secret2 -tcpNumber 1 -tcpRange {port}"
    ));
    let addr = server.addr();
    let other = gt2::hello("id2", "secret2", &ID_ALONE, 0);
    let mut other = gt2::Peer::ready_client(addr, &other);
    let services = hello("id1", "secret1", &port_option(false, port));
    let mut old = Peer::ready_client(addr, &services);
    let held = connect(local(port));
    let (before, ..) = old.opened();
    let _new = server.restart();
    // From here on the old process accepts no tunnels.
    other.expect(gt2::Frame::Reconnect);
    let mut another = Peer::client(addr, &services);
    another.expect(Frame::PortOpened(0, port));
    another.expect(Frame::Ready);
    another.shutdown();
    server.wait_for_closed(1);
    // Both processes had the port; now only the old one accepts.
    let visitor = connect(local(port));
    let (stream, ..) = old.opened();
    old.send(&data(stream, b"hello"));
    read(&mut &visitor, 5);
    // The new process has the port again when the tunnel has moved.
    drop((visitor, held));
    let mut ended = [old.frame(), old.frame()];
    ended.sort_by_key(|frame| *frame == Frame::Closed(stream));
    assert_eq!(ended, [Frame::Closed(before), Frame::Closed(stream)]);
    server.wait_for_moved_tunnel();
    let _visitor = connect(local(port));
    old.opened();
}

#[test]
fn visitors_passed_to_the_old_process_are_limited_like_others() {
    let mut server = server_of_id1("-addressConnections 2");
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let visit = || {
        let mut visitor = connect_from([127, 0, 0, 2].into(), addr);
        write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
        visitor
    };
    let _first = visit();
    peer.opened();
    let _new = server.restart();
    let _second = visit();
    peer.opened();
    assert_eq!(read_to_end(&mut visit()), b"");
    // Visitors from other addresses have their own permits.
    let mut other = connect(addr);
    write!(other, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
    peer.opened();
}

#[test]
fn a_tls_visitor_passed_to_the_old_process_is_trusted_by_its_own_address() {
    let certs = certs::make();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -frontProxies 127.0.0.1 -id id1 -secret secret1 {}",
        certs.flags()
    ));
    let (addr, tls) = (server.addr(), server.tls_addr());
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let mut held = connect(addr);
    write!(held, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
    peer.opened();
    let _new = server.restart();
    // The TLS session stays in the new process, which connects to the old one from 127.0.0.1.
    for (from, is_proxy) in [("127.0.0.2", false), ("127.0.0.1", true)] {
        let (ca, from) = (certs.ca.clone(), format!("--interface {from}"));
        let asking = std::thread::spawn(move || https("id1.example.com", tls, &ca, &from));
        let (stream, _, head) = peer.opened();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert_eq!(head.contains("connection: close"), is_proxy, "{head}");
        peer.send(&data(
            stream,
            b"HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n",
        ));
        peer.send(&closed(stream));
        let reply = asking.join().expect("a reply");
        assert_eq!(reply.code, 0, "{}", reply.errors);
    }
}

#[test]
fn an_idle_tls_tunnel_is_closed_and_visitors_wait_for_its_client() {
    let certs = certs::make();
    let service = bodies();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -id id1 -secret secret1 {}",
        certs.flags()
    ));
    let (addr, tls) = (server.addr(), server.tls_addr());
    let mut client = client(&format!(
        "-wire 1 -remoteConnections 1 -remote tls://localhost:{} -remoteCert {} -id id1 \
         -secret secret1 -local http://{}",
        tls.port(),
        certs.ca.display(),
        service.addr
    ));
    client.wait_for_tunnel();
    let mut held = connect(addr);
    download(&mut held, 1000, "");
    let https = move |certs: &certs::Certs| {
        let url = url("https", "id1.example.com", tls, "/5000");
        let ca = certs.ca.display();
        let reply = curl(&format!("--cacert {ca} -H Connection:close {url}"));
        assert_eq!(reply.code, 0, "{}", reply.errors);
        assert!(reply.body == pattern(5000));
    };
    let crowd = Crowd::of(vec![new_connections(addr), Box::new(move || https(&certs))]);
    let first = server.restart();
    crowd.more();
    download(&mut held, 1000, "");
    assert_eq!(client.closed(), 0);
    drop(held);
    // It has streams most of the time, and once none.
    client.wait_for_closed(1);
    crowd.more();
    crowd.end();
    client.wait_for_tunnels(2);
    assert_eq!(server.exit().code(), Some(0));
    assert_eq!(client.reconnect_requests(), 0);
    first.signal("TERM");
    first.wait_for_end();
}

#[test]
fn a_client_that_changes_services_during_a_restart_moves_to_the_new_process() {
    let mut old = server_of_id1("-hostNumber 2");
    let mut busy = BusyClient::start(&mut old);
    let new = old.restart();
    busy.assert_gets_another_prefix();
    drop(busy.held);
    assert_eq!(old.exit().code(), Some(0));
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn a_client_that_changes_services_after_the_new_process_was_killed_finds_the_next_one() {
    let mut old = server_of_id1("-hostNumber 2");
    let mut busy = BusyClient::start(&mut old);
    let new = old.restart();
    new.signal("KILL");
    new.wait_for_end();
    // As a supervisor does.
    let mut next = server(&format!(
        "-addr {} -id id1 -secret secret1 -hostNumber 2",
        busy.server
    ));
    next.addr();
    // The old process closes the tunnel, which carries a stream.
    busy.assert_gets_another_prefix();
}

#[test]
fn visitors_wait_for_an_original_when_the_old_process_is_killed() {
    let service = bodies();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let original = Original::start(addr, hello("id1", "secret1", &ID_ALONE), service.addr);
    server.wait_for_opened(1);
    let mut held = connect(addr);
    download(&mut held, 1000, "");
    let _new = server.restart();
    download(&mut connect(addr), 100, "");
    server.signal("KILL");
    server.exit();
    // Five seconds later it reconnects.
    assert_eq!(get(addr, "id1.a", "/1").status, 200);
    eventually("another tunnel", || (original.tunnels() == 2).then_some(()));
    original.assert_understood_all();
}

#[test]
fn a_client_that_the_new_configuration_refuses_gets_no_new_visitors() {
    let service = bodies();
    let scratch = Scratch::new();
    let write = |users: &str| {
        let text = format!("users:\n{users}options:\n  addr: 127.0.0.1:0\n");
        scratch.file("server.yaml", text)
    };
    let other = "  id2: {secret: secret2}\n";
    let file = write(&format!("  id1: {{secret: secret1}}\n{other}"));
    let mut server = server(&format!("-config {}", file.display()));
    let addr = server.addr();
    let original = Original::start(addr, hello("id1", "secret1", &ID_ALONE), service.addr);
    server.wait_for_opened(1);
    let mut held = connect(addr);
    download(&mut held, 1000, "");
    write(other);
    let _new = server.restart();
    server.wait_for("does not let id=id1 in");
    assert_ne!(get(addr, "id1.a", "/1").status, 200);
    download(&mut held, 1000, "");
    assert_eq!(original.tunnels(), 1, "what runs may finish");
}
