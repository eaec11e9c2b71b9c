//! Health checks (`healthCheck`): what visitors see of a service that is down, and who learns of it.

use crate::common;
use crate::common::api;
use crate::common::filed::Filed;
use crate::common::gt::{client, client_of_id1, server_of_id1, Gt};
use crate::common::peer::{gt1, gt2};
use crate::common::ports::free_port;
use crate::common::service;
use crate::common::visitor::{connect, get, read_answer, Answer};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::Arc;

/// Logged by a client when a service goes down.
const FOUND_DOWN: &str = "is down: its health check fails";
/// Logged by a server when a service goes down.
const DOWN: &str = "a service is down";
/// Logged by either end when a service is up again.
const UP: &str = "is up again";

const OFTEN: &str = "-healthCheckEvery 100ms -healthCheckFail 2";

/// An HTTP service that answers checks, and visitors, with the status that is set.
fn switchable() -> (api::Api, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let now = status.clone();
    let api = api::start(0, move |_| {
        let mut answer = api::answer(now.load(Ordering::SeqCst), "the service");
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        answer.splice(end..end, *b"\r\nConnection: close");
        answer
    });
    (api, status)
}

/// Waits until it is so.
fn until(holds: impl Fn() -> bool) {
    common::eventually("the state of a service", || holds().then_some(()));
}

fn status(addr: SocketAddr, host: &str) -> u16 {
    get(addr, host, "/").status
}

#[test]
fn visitors_of_a_service_that_is_down_get_503_until_it_is_back_and_both_ends_tell() {
    let port = free_port();
    let mut server = server_of_id1("-apiAddr 127.0.0.1:0");
    let (addr, api) = (server.addr(), server.api_addr());
    let line = format!("-local http://127.0.0.1:{port} -hostPrefix web -healthCheck tcp {OFTEN}");
    let mut client = client_of_id1(addr, &line);
    let page = |path: &str| get(api, "localhost", path).text();
    client.wait_for(FOUND_DOWN);
    let line = server.wait_for(DOWN);
    assert!(line.contains("id=id1 service=web"), "{line}");
    let answer = get(addr, "web.a", "/");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("the service is down"), "{answer:?}");
    let listed = page("/clients");
    assert!(listed.contains("\"down\": [\"web\"]"), "{listed}");
    let metrics = page("/metrics");
    assert!(metrics.contains("\ngt_services_down 1\n"), "{metrics}");
    assert!(metrics.contains("\ngt_client_services_down{id=\"id1\"} 1\n"));

    let service = service::http(port, "web");
    let line = server.wait_for(UP);
    assert!(line.contains("id=id1 service=web"), "{line}");
    client.wait_for(UP);
    assert_eq!(get(addr, "web.a", "/").text(), "web / web.a");
    assert!(!page("/clients").contains("\"down\""));
    let metrics = page("/metrics");
    assert!(metrics.contains("\ngt_services_down 0\n"), "{metrics}");
    assert!(!metrics.contains("\ngt_client_services_down{"), "{metrics}");

    drop(service);
    server.wait_for_lines(DOWN, 2);
    assert_eq!(status(addr, "web.a"), 503);
}

#[test]
fn a_page_is_requested_with_the_services_own_host_and_passes_with_200_to_399() {
    let (service, answers) = switchable();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = service.addr;
    let _client = client_of_id1(
        addr,
        &format!("-local http://{local} -healthCheck /up?now {OFTEN}"),
    );
    let request = service.request();
    assert_eq!(request.line, "GET /up?now");
    assert_eq!(request.field("host"), Some(&*local.to_string()));
    for (at, code) in [404, 500, 199, 400].into_iter().enumerate() {
        answers.store(code, Ordering::SeqCst);
        server.wait_for_lines(DOWN, at + 1);
        assert_eq!(status(addr, "id1.a"), 503);
        answers.store([399, 204, 302, 200][at], Ordering::SeqCst);
        server.wait_for_lines(UP, at + 1);
        assert_ne!(status(addr, "id1.a"), 503);
    }
}

#[test]
fn an_answer_that_does_not_come_in_time_or_is_not_http_is_a_failed_check() {
    let silent = service::Service::start(0, |mut stream| {
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let echo = service::banner("SSH-2.0-x\r\n");
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let mut client = client_of_id1(
        addr,
        &format!(
            "-local http://{} -hostPrefix silent -healthCheck / -healthCheckTimeout 100ms {OFTEN} \
             -local http://{} -hostPrefix ssh -healthCheck / {OFTEN}",
            silent.addr, echo.addr
        ),
    );
    server.wait_for_lines(DOWN, 2);
    assert_eq!(
        (status(addr, "silent.a"), status(addr, "ssh.a")),
        (503, 503)
    );
    let lines = client.wait_for_lines(FOUND_DOWN, 2).concat();
    assert!(lines.contains("no answer within 100ms"), "{lines}");
    assert!(lines.contains("its answer is not HTTP/1"), "{lines}");
}

#[test]
fn a_port_of_a_service_that_is_down_stays_open_and_closes_its_visitors() {
    let (local, port) = (free_port(), free_port());
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let _client = client_of_id1(
        addr,
        &format!("-local tcp://127.0.0.1:{local} -remoteTCPPort {port} -healthCheck tcp {OFTEN}"),
    );
    let line = server.wait_for(DOWN);
    assert!(line.contains(&format!("service=port {port}")), "{line}");
    let visitor = || connect(([127, 0, 0, 1], port).into());
    match visitor().read(&mut [0]) {
        Ok(0) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    let _service = service::Service::start(local, |mut stream| stream.write_all(b"hello"));
    server.wait_for(UP);
    let mut hello = [0; 5];
    visitor().read_exact(&mut hello).expect("a banner");
    assert_eq!(&hello, b"hello");
}

#[test]
fn another_service_of_the_client_is_not_affected_and_open_connections_go_on() {
    let (service, answers) = switchable();
    let (echo, other) = (service::echo(), service::http(0, "other"));
    let port = free_port();
    let mut server = server_of_id1(&format!("-hostNumber 2 -tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let mut client = client_of_id1(
        addr,
        &format!(
            "-local http://{} -hostPrefix web -healthCheck / {OFTEN} -local http://{} -hostPrefix other \
             -local tcp://{} -remoteTCPPort {port}",
            service.addr, other.addr, echo.addr
        ),
    );
    client.wait_for_opened_port(port);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    service::assert_echo(&mut visitor, b"before");
    answers.store(500, Ordering::SeqCst);
    server.wait_for(DOWN);
    assert_eq!(status(addr, "web.a"), 503);
    assert_eq!(get(addr, "other.a", "/").text(), "other / other.a");
    service::assert_echo(&mut visitor, b"after");
}

#[test]
fn every_tunnel_tells_and_a_new_one_does_before_its_first_visitor() {
    let port = free_port();
    let mut server = server_of_id1("-connections 3");
    let addr = server.addr();
    let line = format!(
        "-remoteIdleConnections 3 -local http://127.0.0.1:{port} -healthCheck tcp {OFTEN} -reconnectDelay \
         10ms"
    );
    let mut client = client_of_id1(addr, &line);
    client.wait_for_tunnels(3);
    server.wait_for(DOWN);
    until(|| (0..6).all(|_| status(addr, "id1.a") == 503));

    // The new process of the server learns it from new tunnels.
    let _new = server.restart();
    client.wait_for_tunnels(6);
    until(|| status(addr, "id1.a") == 503);
    let _service = service::http(port, "web");
    client.wait_for(UP);
    until(|| status(addr, "id1.a") == 200);
}

#[test]
fn a_reload_keeps_what_checks_have_found_and_one_without_the_option_serves_again() {
    let port = free_port();
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let other = service::http(0, "other");
    let (web, check) = (
        format!("local: \"http://127.0.0.1:{port}\", hostPrefix: web"),
        ", healthCheck: tcp, healthCheckEvery: 100ms, healthCheckFail: 2",
    );
    let more = format!(
        "}}\n- {{local: \"http://{}\", hostPrefix: other",
        other.addr
    );
    let mut filed = Filed::client(addr, web, check);
    server.wait_for(DOWN);
    // Another list of services: their indexes and states begin anew.
    filed.reload(&format!("{check}{more}"));
    filed.gt.wait_for_changed_services();
    until(|| status(addr, "other.a") == 200);
    until(|| {
        get(addr, "web.a", "/")
            .text()
            .contains("the service is down")
    });
    assert_eq!(filed.gt.lines_with(FOUND_DOWN).len(), 1, "its checks go on");
    // The same list to the server.
    filed.reload(&more);
    server.wait_for(UP);
    assert_eq!(status(addr, "web.a"), 502);
    filed.reload(&format!("{check}{more}"));
    server.wait_for_lines(DOWN, 3);
    assert_eq!(status(addr, "web.a"), 503);
}

/// Starts a client whose service is down at a server that cannot be told, and waits for that.
fn untold(addr: SocketAddr, more: &str) -> Gt {
    let port = free_port();
    let mut client = client_of_id1(
        addr,
        &format!("-local http://127.0.0.1:{port} -healthCheck tcp {OFTEN} {more}"),
    );
    let line = client.wait_for("cannot be told when a service is down");
    assert!(line.contains("refuses the visitors itself"), "{line}");
    client.wait_for(FOUND_DOWN);
    client
}

#[test]
fn over_gt1_the_client_answers_itself_and_warns_once() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let client = untold(addr, "-wire 1 -remoteIdleConnections 2");
    let Answer { status, body, .. } = get(addr, "id1.a", "/");
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("the service is down"));
    let mut visitor = connect(addr);
    visitor
        .write_all(b"HEAD / HTTP/1.1\r\nHost: id1.a\r\n\r\n")
        .expect("send");
    let mut answer = Vec::new();
    visitor.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
    assert!(
        answer.ends_with(b"\r\n\r\n"),
        "a response to HEAD has no body"
    );
    assert_eq!(client.lines_with("cannot be told").len(), 1);
}

#[test]
fn an_older_server_hears_no_states_and_its_visitors_are_answered() {
    let server = gt2::PeerServer::start();
    let addr = server.addr;
    let port = free_port();
    let mut client = client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 -local http://127.0.0.1:{port} -healthCheck tcp \
         {OFTEN}"
    ));
    let mut peer = server.accept();
    let hello = gt2::hello("id1", "secret1", &[0], 32768);
    assert_eq!(peer.read(hello.len()), hello);
    // An answer without the capability, and ready.
    peer.send(&[0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 3, 9, 0, 0, 0, 0, 0, 0, 0]);
    client.wait_for("the server's version of gt cannot; update it");
    client.wait_for(FOUND_DOWN);
    peer.send(&gt2::open(
        1,
        0,
        1 << 20,
        b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n",
    ));
    let answer = peer.gather(1, 13);
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
}

#[test]
fn a_visitor_of_a_peer_to_peer_signaling_request_is_left_to_the_client() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let port = free_port();
    let line = format!("-local http://127.0.0.1:{port} -healthCheck tcp {OFTEN}");
    let _client = client_of_id1(addr, &line);
    server.wait_for(DOWN);
    assert_eq!(status(addr, "id1.a"), 503);
    let mut visitor = connect(addr);
    visitor
        .write_all(b"XP / HTTP/1.1\r\nHost: id1.a\r\nContent-Length: 1\r\n\r\nx")
        .expect("send");
    let answer = read_answer(&mut visitor);
    assert!(answer.head.starts_with("HTTP/1.1 4"), "{answer:?}");
}

#[test]
fn a_state_of_an_unknown_service_or_over_gt1_changes_nothing() {
    let mut server = server_of_id1("-connections 2");
    let addr = server.addr();
    let hello = gt2::hello("id1", "secret1", &[0], 32768);
    let mut peer = gt2::Peer::ready_client(addr, &hello);
    // Service 1 is none, and the service is down in one tunnel alone.
    peer.send(&gt2::frame(0x0F, 0, &[0, 1, 0]));
    peer.send(&gt2::frame(0x0F, 0, &[0, 0, 0]));
    server.wait_for(DOWN);
    assert_eq!(status(addr, "id1.a"), 503);
    let mut other = gt1::Peer::ready_client(addr, &gt1::hello("id1", "secret1", &[0]));
    let mut visitor = connect(addr);
    visitor
        .write_all(b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n")
        .expect("send");
    other.opened();
    assert_eq!(server.lines_with(DOWN).len(), 1);
}
