//! What the old process passes to the new one, and what happens to connections in the middle of
//! something. That visitors do not notice, see `restart`.

use crate::common::gt::{client, client_of_id1, server, server_of_id1, tcp_tunnel, Gt};
use crate::common::peer::gt1::{
    closed, data, first, hello, identity, Frame, Peer, PeerServer, CLOSE, PING, SERVICES,
};
use crate::common::peer::{gt2, port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read, read_answer, read_to_end};
use crate::common::{eventually, PATIENCE};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn an_old_process_releases_its_listeners() {
    let echo = service::echo();
    let (mut server, mut client, port) = tcp_tunnel(echo.addr, "", "");
    let addr = server.addr();
    let mut visitor = connect(port);
    assert_echo(&mut visitor, b"before");
    let new = server.restart();
    client.wait_for_tunnels(2);
    new.signal("TERM");
    new.wait_for_end();
    eventually("the address to be free", || TcpListener::bind(addr).ok());
    assert_echo(&mut visitor, b"still by the old way");
}

#[test]
fn random_ports_stay_with_their_services() {
    let names = ["one", "two", "three", "four"];
    let services = names.map(service::banner);
    let mut server = server_of_id1("-tcpNumber 4 -tcpRange 20000-60000");
    let addr = server.addr();
    let locals = services
        .iter()
        .map(|service| format!("-local tcp://{} -remoteTCPRandom", service.addr));
    let mut client = client_of_id1(addr, &locals.collect::<Vec<_>>().join(" "));
    let ports: Vec<u16> = (0..4).map(|index| client.wait_for_port(index)).collect();
    let check = || {
        for (port, name) in ports.iter().zip(names) {
            let said = read(&mut connect(local(*port)), name.len());
            assert_eq!(String::from_utf8_lossy(&said), name);
        }
    };
    check();
    let _new = server.restart();
    client.wait_for_tunnels(2);
    check();
}

#[test]
fn a_half_sent_request_is_served_across_a_restart() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let services = gt2::hello("id1", "secret1", &ID_ALONE, 65536);
    let mut peer = gt2::Peer::ready_client(addr, &services);
    let mut visitor = connect(addr);
    visitor
        .write_all(b"GET / HTTP/1.1\r\n")
        .expect("half a request");
    // The old process has received it.
    peer.sync();
    let _new = server.restart();
    peer.expect(gt2::Frame::Reconnect);
    // Unneeded tunnels are closed after three seconds.
    std::thread::sleep(Duration::from_secs(4));
    visitor
        .write_all(b"Host: id1.a\r\n\r\n")
        .expect("the other half");
    let (stream, ..) = peer.opened();
    peer.expect(gt2::Frame::Close);
    let answer = b"HTTP/1.1 204 Fine\r\nContent-Length: 0\r\n\r\n";
    peer.send(&gt2::data(stream, answer));
    assert_eq!(read_answer(&mut visitor).status, 204);
    drop((peer, visitor));
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_half_sent_request_follows_a_tunnel_that_moves() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let mut visitor = connect(addr);
    visitor
        .write_all(b"GET / HTTP/1.1\r\n")
        .expect("half a request");
    // The old process has received it.
    peer.sync();
    let _new = server.restart();
    server.wait_for_moved_tunnel();
    visitor
        .write_all(b"Host: id1.a\r\n\r\n")
        .expect("the other half");
    let (stream, _, head) = peer.opened();
    assert_eq!(head, b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n");
    let answer = b"HTTP/1.1 204 Fine\r\nContent-Length: 0\r\n\r\n";
    peer.send(&data(stream, answer));
    assert_eq!(read_answer(&mut visitor).status, 204);
    assert_eq!(server.exit().code(), Some(0));
    peer.sync();
}

/// Sends data of `stream`, which `end` does not read, so that some of it is stuck in gt and nothing
/// before. Returns how much `end` has still to get. A gt that goes on to read answers the
/// `question`.
fn stuff(
    peer: &mut Peer,
    stream: u32,
    (question, answer): (&[u8], Frame),
    end: &mut TcpStream,
) -> usize {
    let socket = socket2::SockRef::from(&*end);
    socket.set_recv_buffer_size(BLOCK).expect("a small buffer");
    let block = data(stream, &[b'x'; BLOCK]);
    // As much as the system takes, and a full backlog.
    let mut sent = 0;
    loop {
        peer.send(&block);
        sent += BLOCK;
        assert!(sent < 64 << 20, "it takes any number of bytes");
        peer.send(question);
        if peer.is_quiet_for(Duration::from_millis(500)) {
            break;
        }
        peer.expect(answer.clone());
    }
    let full = sent;
    let mut more = |peer: &mut Peer, mut left: usize| {
        while peer.is_quiet_for(Duration::from_millis(100)) {
            left -= read(end, BLOCK).len();
        }
        peer.expect(answer.clone());
        left
    };
    let mut left = more(peer, full);
    // The same again, without the last of it: a backlog has room for four blocks.
    while left < full - 3 * BLOCK {
        peer.send(&block);
        left += BLOCK;
    }
    peer.send(question);
    more(peer, left)
}

const BLOCK: usize = 64 * 1024;

#[test]
fn bytes_stuck_on_the_way_to_a_visitor_arrive() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &port_option(false, port)));
    let mut visitor = connect(local(port));
    let (stream, ..) = peer.opened();
    let left = stuff(&mut peer, stream, (&PING, Frame::Ping), &mut visitor);
    peer.send(&closed(stream));
    let _new = server.restart();
    // The stream keeps the tunnel in its process.
    peer.send(&CLOSE);
    peer.expect(Frame::Close);
    peer.send(&[CLOSE; 2].concat());
    peer.shutdown();
    server.wait_for_closed(1);
    assert_eq!(read_to_end(&mut visitor).len(), left);
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn bytes_stuck_on_the_way_to_a_service_arrive() {
    let there = PeerServer::start();
    let (accepted, service) = std::sync::mpsc::channel();
    let slow = service::Service::start(0, move |stream| {
        let _ = accepted.send(stream);
        Ok(())
    });
    let echo = service::echo();
    let mut client = client(&format!(
        "-wire 1 -remote tcp://{} -id id1 -secret secret1 -local tcp://{} -remoteTCPPort 1 \
         -local tcp://{} -remoteTCPPort 2",
        there.addr, slow.addr, echo.addr
    ));
    let services = [&[2], &port_option(false, 1)[..], &port_option(false, 2)].concat();
    let mut peer = there.accept_ready(&hello("id1", "secret1", &services));
    peer.send(&[first(1, 0, b""), first(2, 1, b"?")].concat());
    let mut service = service.recv_timeout(PATIENCE).expect("a connection");
    peer.expect(Frame::Data(2, b"?".to_vec()));
    let echoed = Frame::Data(2, b"?".to_vec());
    let left = stuff(&mut peer, 1, (&data(2, b"?"), echoed), &mut service);
    peer.send(&[closed(1), closed(2)].concat());
    client.signal("TERM");
    while peer.frame() != Frame::Close {}
    peer.send(&[CLOSE; 3].concat());
    peer.shutdown();
    client.wait_for_closed(1);
    assert_eq!(read_to_end(&mut service).len(), left);
    assert_eq!(client.exit().code(), Some(0));
}

#[test]
fn a_late_tunnel_is_passed_to_the_new_process() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let hello = hello("id1", "secret1", &port_option(false, port));
    let mut first = Peer::ready_client(addr, &hello);
    let (half, rest) = hello.split_at(4);
    let mut late = Peer::client(addr, half);
    // The old process has received it.
    first.sync();
    let _new = server.restart();
    server.wait_for_moved_tunnel();
    late.send(rest);
    late.expect(Frame::PortOpened(0, port));
    late.expect(Frame::Ready);
    assert_eq!(server.exit().code(), Some(0));
    first.sync();
    late.sync();
    assert_eq!(server.refusals(), [""; 0]);
}

#[test]
fn a_late_tunnel_does_not_get_another_client_s_prefix() {
    let mut server = server_of_id1("-id id2 -secret secret2");
    let addr = server.addr();
    let mine = prefix_option("web");
    let mut first = Peer::ready_client(addr, &hello("id1", "secret1", &mine));
    let theirs = gt2::hello("id2", "secret2", &mine, 0);
    let (half, rest) = theirs.split_at(4);
    // The old process answers it, so it has received it.
    let mut late = gt2::Peer::client(addr, half);
    first.sync();
    let _new = server.restart();
    late.send(rest);
    assert_eq!(late.frame(), gt2::Frame::Error(vec![0, 5]));
}

#[test]
fn a_client_that_reloads_during_a_restart_loses_nothing() {
    let port = free_port();
    let mut server = server_of_id1(&format!("-hostNumber 2 -tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let (port_of, more) = (port_option(false, port), prefix_option("more"));
    let services = [&[2], &port_of[..], &more].concat();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    let mut visitor = connect(local(port));
    visitor.write_all(b"hello").expect("the port is open");
    let (stream, ..) = peer.opened();
    peer.gather(stream, 5);
    let _new = server.restart();
    // The same services in another order.
    let services = [&[2], &more[..], &port_of].concat();
    peer.send(&[&SERVICES[..], &identity("id1", "secret1", &services)].concat());
    peer.expect(Frame::PortOpened(1, port));
    peer.expect(Frame::Services);
    visitor.write_all(b"more").expect("it goes on");
    assert_eq!(peer.gather(stream, 4), b"more");
    // The new process knows the new services.
    let asking = std::thread::spawn(move || get(addr, "more.a", "/").status);
    let (other, service, _) = peer.opened();
    assert_eq!(service, 0);
    peer.send(&data(other, b"HTTP/1.1 204 Fine\r\n\r\n"));
    peer.send(&[closed(other), closed(stream)].concat());
    assert_eq!(asking.join().expect("an answer"), 204);
    // The same after the tunnel has moved.
    server.wait_for_moved_tunnel();
    let asking = std::thread::spawn(move || get(addr, "more.a", "/").status);
    let (last, service, _) = peer.opened();
    assert!(service == 0 && last > other);
    peer.send(&data(last, b"HTTP/1.1 204 Fine\r\n\r\n"));
    peer.send(&closed(last));
    assert_eq!(asking.join().expect("an answer"), 204);
}

#[test]
fn a_client_that_adds_services_during_a_restart_gets_them_from_the_new_process() {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-id id2 -secret secret2 -tcpNumber 1 -tcpRange {port}"
    ));
    let addr = server.addr();
    let mut other = gt2::Peer::ready_client(addr, &gt2::hello("id2", "secret2", &ID_ALONE, 0));
    let services = port_option(false, port);
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &services));
    let mut visitor = connect(local(port));
    visitor.write_all(b"hello").expect("the port is open");
    let (stream, ..) = peer.opened();
    peer.gather(stream, 5);
    let mut late = connect(addr);
    late.write_all(b"GET / HTTP/1.1\r\n")
        .expect("half a request");
    // The old process has received it.
    peer.sync();
    let _new = server.restart();
    // From here on the old process accepts no tunnels.
    other.expect(gt2::Frame::Reconnect);
    // It does not know the tunnels of the new process either.
    let taken = hello("id2", "secret2", &prefix_option("taken"));
    let mut other = Peer::ready_client(addr, &taken);
    let and = |prefix| [&[2], &services[..], &prefix_option(prefix)].concat();
    peer.send(&[&SERVICES[..], &identity("id1", "secret1", &and("taken"))].concat());
    peer.expect(Frame::Services);
    peer.expect(Frame::Close);
    visitor.write_all(b"more").expect("it goes on");
    assert_eq!(peer.gather(stream, 4), b"more");
    late.write_all(b"Host: taken.a\r\n\r\n")
        .expect("the other half");
    let (asked, ..) = other.opened();
    other.send(&data(
        asked,
        b"HTTP/1.1 204 Fine\r\nContent-Length: 0\r\n\r\n",
    ));
    assert_eq!(read_answer(&mut late).status, 204);
    // The client connects to the new process.
    let with = |prefix| Peer::client(addr, &hello("id1", "secret1", &and(prefix)));
    with("taken").expect(Frame::Error(5));
    let mut again = with("free");
    again.expect(Frame::PortOpened(0, port));
    again.expect(Frame::Ready);
    let asking = std::thread::spawn(move || get(addr, "free.a", "/").status);
    let (asked, ..) = again.opened();
    again.send(&data(asked, b"HTTP/1.1 204 Fine\r\n\r\n"));
    again.send(&closed(asked));
    assert_eq!(asking.join().expect("an answer"), 204);
}

#[test]
fn services_of_a_tunnel_that_drains_change_nothing() {
    let scratch = Scratch::new();
    let write = |number: u32| {
        scratch.file(
            "server.yaml",
            format!(
                "users:\n  id1: {{secret: secret1}}\nhost: {{number: {number}}}\n\
                 options:\n  addr: 127.0.0.1:0\n"
            ),
        )
    };
    let mut server = server(&format!("-config {}", write(2).display()));
    let addr = server.addr();
    let two = [&[2], &prefix_option("one")[..], &prefix_option("two")].concat();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &two));
    let mut visitor = connect(addr);
    visitor
        .write_all(b"GET / HTTP/1.1\r\nHost: one.a\r\n\r\n")
        .expect("a request");
    let (stream, ..) = peer.opened();
    write(1);
    server.reload();
    peer.expect(Frame::Close);
    // The other tunnels have only one service.
    let one = identity("id1", "secret1", &prefix_option("one"));
    peer.send(&[&SERVICES[..], &one].concat());
    peer.expect(Frame::Services);
    peer.send(&data(
        stream,
        b"HTTP/1.1 204 Fine\r\nContent-Length: 0\r\n\r\n",
    ));
    assert_eq!(read_answer(&mut visitor).status, 204);
}

#[test]
fn a_client_that_drains_keeps_its_prefix() {
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2");
    let addr = server.addr();
    let mine = hello("id1", "secret1", &prefix_option("name"));
    let mut first = Peer::ready_client(addr, &mine);
    let visit = || {
        let mut visitor = connect(addr);
        visitor
            .write_all(b"GET / HTTP/1.1\r\nHost: name.a\r\n\r\n")
            .expect("a request");
        visitor
    };
    let _visitor = visit();
    first.opened();
    first.send(&CLOSE);
    first.expect(Frame::Close);
    // Its last visitor is still there, so the client may return.
    let theirs = hello("id2", "secret2", &prefix_option("name"));
    Peer::client(addr, &theirs).expect(Frame::Error(5));
    let mut again = Peer::ready_client(addr, &mine);
    let _visitor = visit();
    again.opened();
}

#[test]
fn an_absent_client_is_waited_for_after_another_restart() {
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -allowAnyClient -hostNumber 1 -tcpNumber 1 -tcpRange {port}"
    ));
    let addr = server.addr();
    let services = [&[2], &port_option(false, port)[..], &prefix_option("name")].concat();
    let mut first = gt2::Peer::ready_client(addr, &gt2::hello("id1", "secret1", &services, 65536));
    let services = hello("id1", "secret1", &services);
    let new = server.restart();
    first.expect(gt2::Frame::Reconnect);
    // Ends with the test.
    let _newest = server.restart_again(&new);
    new.wait_for_end();
    let waiting = std::thread::spawn(move || get(addr, "name.a", "/").status);
    let _visitor = connect(local(port));
    let mut thief = Peer::client(addr, &hello("id1", "other", &ID_ALONE));
    thief.expect(Frame::Error(1));
    let mut again = Peer::client(addr, &services);
    again.expect(Frame::PortOpened(0, port));
    again.expect(Frame::Ready);
    let (stream, ..) = again.opened();
    let (other, ..) = again.opened();
    for stream in [stream, other] {
        again.send(&data(stream, b"HTTP/1.1 204 Fine\r\n\r\n"));
        again.send(&closed(stream));
    }
    assert_eq!(waiting.join().expect("an answer"), 204);
}

#[test]
fn both_roles_of_a_process_stop_at_the_same_time() {
    let there = PeerServer::start();
    let echo = service::echo();
    let port = free_port();
    let scratch = Scratch::new();
    scratch.file(
        "server.yaml",
        format!(
            "type: server\noptions:\n  addr: 127.0.0.1:0\n  id: id1\n  secret: secret1\n  tcpNumber: 1\n  tcpRange: {port}\n"
        ),
    );
    scratch.file(
        "client.yaml",
        format!(
            "type: client\noptions:\n  wire: 1\n  remote: tcp://{}\n  id: id2\n  secret: secret2\nservices:\n  - local: tcp://{}\n    remoteTCPPort: 1\n",
            there.addr, echo.addr
        ),
    );
    let mut gt = Gt::start("gt", &["-config"], &scratch.path().display().to_string());
    let addr = gt.addr();
    let mut theirs = there.accept_ready(&hello("id2", "secret2", &port_option(false, 1)));
    theirs.send(&first(1, 0, b"running"));
    assert_eq!(theirs.gather(1, 7), b"running");
    let mut mine = Peer::ready_client(addr, &hello("id1", "secret1", &port_option(false, port)));
    let mut visitor = connect(local(port));
    visitor.write_all(b"running").expect("the port is open");
    mine.opened();
    gt.signal("TERM");
    loop {
        match mine.frame() {
            Frame::Close => break,
            Frame::Data(..) => {}
            other => panic!("{other:?}"),
        }
    }
    theirs.expect(Frame::Close);
    theirs.send(&data(1, b"still"));
    assert_eq!(theirs.gather(1, 5), b"still");
    drop((mine, theirs));
    assert_eq!(gt.exit().code(), Some(0));
}
