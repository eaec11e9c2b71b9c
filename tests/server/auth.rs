//! Admission: the authAPI, the first secret of an unknown id, and addresses that fail too often.
//! Clients and APIs are written by hand.

use crate::common::api::{self, answer, judgement, Api, Request};
use crate::common::eventually;
use crate::common::gt::{server, Gt};
use crate::common::peer::gt1::{data, hello, identity, Frame, Peer, CLOSE, READY, SERVICES};
use crate::common::peer::{port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::visitor::{ask, connect, get, read};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

const BAD_CREDENTIALS: Frame = Frame::Error(1);

/// Starts a server without users that asks `api`.
fn asking(api: &Api, more: &str) -> (Gt, SocketAddr) {
    let url = format!("http://{}/judge?key=k1", api.addr);
    let mut server = server(&format!("-addr 127.0.0.1:0 -authAPI {url} {more}"));
    let addr = server.addr();
    (server, addr)
}

/// Concatenates services in their order on the wire.
fn services(options: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, option) in options.iter().enumerate() {
        if at + 1 < options.len() {
            bytes.push(0x02);
        }
        bytes.extend(*option);
    }
    bytes
}

/// Connects as a visitor, asks for `host` and does not read the response.
fn visit(addr: SocketAddr, host: &str) -> TcpStream {
    let mut visitor = connect(addr);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    visitor
        .write_all(request.as_bytes())
        .expect("send a request");
    visitor
}

/// Connects as a client that must be refused with `refusal`.
fn assert_refused(addr: SocketAddr, hello: &[u8], refusal: Frame) {
    let mut peer = Peer::client(addr, hello);
    peer.expect(refusal);
    peer.expect_end();
}

/// Starts an authAPI whose granted prefixes the test can change.
fn granting(prefixes: &[&str]) -> (Api, Arc<Mutex<Vec<u8>>>) {
    let say = Arc::new(Mutex::new(judgement(true, prefixes)));
    let said = say.clone();
    let api = api::start(0, move |_: &Request| said.lock().unwrap().clone());
    (api, say)
}

#[test]
fn a_client_known_to_the_api_is_admitted_with_its_prefixes() {
    let port = free_port();
    let (api, _) = granting(&["shop", "Blog"]);
    let (_server, addr) = asking(
        &api,
        &format!("-hostNumber 0 -tcpNumber 1 -tcpRange {port}-{port}"),
    );
    let offers = services(&[
        &prefix_option("shop"),
        &port_option(false, port),
        &prefix_option("blog"),
        &ID_ALONE,
    ]);
    let mut peer = Peer::client(addr, &hello("id1", "secret \"1\"", &offers));
    peer.expect(Frame::PortOpened(1, port));
    peer.expect(Frame::Ready);

    let request = api.request();
    assert_eq!(request.line, "POST /judge?key=k1");
    assert_eq!(request.field("content-type"), Some("application/json"));
    assert_eq!(request.field("host"), Some(api.addr.to_string().as_str()));
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    let asked = serde_json::json!({
        "networkClientId": "id1",
        "networkSecretKey": "secret \"1\"",
        "appletTokens": ["blog", "shop"],
    });
    assert_eq!(body, asked);

    for (host, service) in [("shop.a", 0), ("blog.a", 2), ("id1.a", 3)] {
        let _visitor = visit(addr, host);
        assert_eq!(peer.opened().1, service, "{host}");
    }
}

#[test]
fn the_api_is_asked_about_each_tunnel() {
    let (api, say) = granting(&[]);
    let (_server, addr) = asking(&api, "");
    let id1 = hello("id1", "secret1", &ID_ALONE);
    let _first = Peer::ready_client(addr, &id1);
    *say.lock().unwrap() = judgement(false, &[]);
    assert_refused(addr, &id1, BAD_CREDENTIALS);
    assert_eq!(api.more_requests(), 2);
}

#[test]
fn a_client_that_the_api_denies_is_refused_and_counted() {
    let api = api::start(0, |_| judgement(false, &["id1"]));
    let (mut server, addr) = asking(&api, "-reconnectTimes 1");
    let id1 = hello("id1", "secret1", &ID_ALONE);
    for _ in 0..2 {
        assert_refused(addr, &id1, BAD_CREDENTIALS);
    }
    server.wait_for_failed_logins(2);
    assert_refused(addr, &id1, BAD_CREDENTIALS);
    assert_eq!(api.more_requests(), 2, "the third was not asked about");
    assert_eq!(get(addr, "id1.a", "/").status, 404);
}

#[test]
fn only_granted_prefixes_are_published() {
    let (api, _) = granting(&["b", "unasked"]);
    let (mut server, addr) = asking(&api, "-hostNumber 2");
    let offers = services(&[&prefix_option("a"), &prefix_option("b"), &ID_ALONE]);
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &offers));
    for (host, service) in [("b.a", 1), ("id1.a", 2)] {
        let _visitor = visit(addr, host);
        assert_eq!(peer.opened().1, service, "{host}");
    }
    for host in ["a.a", "unasked.a"] {
        assert_eq!(get(addr, host, "/").status, 404, "{host}");
    }
    server.wait_for("does not grant these prefixes id=id1: a");
    // What this client was not granted is free for another.
    let mut other = Peer::ready_client(addr, &hello("a", "s", &ID_ALONE));
    let _visitor = visit(addr, "a.a");
    assert_eq!(other.opened().1, 0);
}

#[test]
fn a_configured_id_is_decided_by_its_secret_only() {
    let (api, _) = granting(&[]);
    let scratch = Scratch::new();
    let users = scratch.file(
        "users.yaml",
        "id2: {secret: two}\nid1: {secret: users-file}\n",
    );
    let config = scratch.file(
        "server.yaml",
        format!(
            "users:\n  id2: {{secret: config-file}}\n  id3: {{secret: three}}\n\
             options: {{users: {}, allowAnyClient: true}}\n",
            users.display()
        ),
    );
    let config = config.display();
    let (_server, addr) = asking(
        &api,
        &format!("-config {config} -id id1 -secret one -reconnectTimes 0"),
    );
    for (id, right, wrong) in [
        ("id1", "one", "users-file"),
        ("id2", "two", "config-file"),
        ("id3", "three", "other"),
    ] {
        assert_refused(addr, &hello(id, wrong, &ID_ALONE), BAD_CREDENTIALS);
        Peer::ready_client(addr, &hello(id, right, &ID_ALONE));
    }
    assert_eq!(api.more_requests(), 0, "nobody was asked about");
    Peer::ready_client(addr, &hello("id4", "four", &ID_ALONE));
    assert_eq!(api.more_requests(), 1);
}

#[test]
fn the_api_decides_about_unknown_ids_even_where_any_client_is_allowed() {
    let api = api::start(0, |_| judgement(false, &[]));
    let (mut server, addr) = asking(&api, "-allowAnyClient");
    assert_refused(addr, &hello("id1", "s", &ID_ALONE), BAD_CREDENTIALS);
    server.wait_for("allowAnyClient has no effect beside authAPI");
}

#[test]
fn a_slow_api_delays_no_other_client() {
    let (go, wait) = channel();
    let wait = Mutex::new(wait);
    let api = api::start(0, move |_| {
        wait.lock().unwrap().recv().expect("the test goes on");
        judgement(true, &[])
    });
    let (_server, addr) = asking(&api, "-id id1 -secret secret1");
    let mut slow = Peer::client(addr, &hello("slow", "s", &ID_ALONE));
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let _visitor = visit(addr, "id1.a");
    assert_eq!(peer.opened().1, 0);
    assert_eq!(get(addr, "slow.a", "/").status, 404);
    go.send(()).unwrap();
    slow.expect(Frame::Ready);
    let _visitor = visit(addr, "slow.a");
    assert_eq!(slow.opened().1, 0);
}

#[test]
fn a_failing_api_refuses_clients_logs_once_and_locks_out_no_address() {
    let large = answer(
        200,
        &format!("{{\"result\": true{}}}", " ".repeat(64 * 1024)),
    );
    let broken = [
        answer(500, "{\"result\": true}"),
        answer(301, "{\"result\": true}"),
        answer(200, "true"),
        answer(200, "{\"appletTokens\": []}"),
        answer(200, ""),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 16\r\n\r\n{\"result\"".to_vec(),
        b"SSH-2.0\r\n".to_vec(),
        Vec::new(),
        large,
    ];
    let (api, say) = granting(&[]);
    let (mut server, addr) = asking(&api, "-reconnectTimes 1");
    let id1 = hello("id1", "secret1", &ID_ALONE);
    for broken in broken {
        *say.lock().unwrap() = broken;
        assert_refused(addr, &id1, BAD_CREDENTIALS);
    }
    *say.lock().unwrap() = judgement(true, &[]);
    Peer::ready_client(addr, &id1);
    let line = server.wait_for_failed_auth_api();
    assert!(
        line.contains(" WRN ") && line.contains("status 500"),
        "{line}"
    );
    assert!(!line.contains("k1"), "a key shows: {line}");
    assert_eq!(server.auth_api_failures(), 1);
}

#[test]
fn configured_clients_are_admitted_while_the_api_is_down() {
    let (mut server, addr) = {
        let (api, _) = granting(&[]);
        asking(&api, "-id id1 -secret secret1")
    };
    assert_refused(addr, &hello("id2", "s", &ID_ALONE), BAD_CREDENTIALS);
    server.wait_for("unknown ids are rejected, id=id2");
    Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
}

#[test]
fn the_api_is_asked_about_changed_services_on_a_live_tunnel() {
    let (api, say) = granting(&["a"]);
    let (_server, addr) = asking(&api, "-hostNumber 0 -reconnectTimes 0");
    let before = services(&[&prefix_option("a")]);
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &before));
    let mut visitor = visit(addr, "a.a");
    let (stream, ..) = peer.opened();
    let running = Random::new(1).bytes(100_000);
    assert_eq!(api.request().prefixes(), ["a"]);

    let offers = services(&[
        &prefix_option("b"),
        &prefix_option("a"),
        &prefix_option("c"),
    ]);
    let change = [&SERVICES[..], &identity("id1", "secret1", &offers)].concat();
    *say.lock().unwrap() = judgement(true, &["b"]);
    peer.send(&[&change[..], &data(stream, &running)].concat());
    assert_eq!(api.request().prefixes(), ["a", "b", "c"]);
    peer.expect(Frame::Services);
    let _other = visit(addr, "b.a");
    assert_eq!(peer.opened().1, 0);
    assert_eq!(get(addr, "c.a", "/").status, 404);
    // What is no longer granted is free for another client.
    *say.lock().unwrap() = judgement(true, &[]);
    let mut other = Peer::ready_client(addr, &hello("a", "s", &ID_ALONE));
    let _at_other = visit(addr, "a.a");
    assert_eq!(other.opened().1, 0);

    // What was granted stays while the API fails.
    *say.lock().unwrap() = answer(503, "");
    peer.send(&change);
    peer.expect(Frame::Services);
    let _other = visit(addr, "b.a");
    assert_eq!(peer.opened().1, 0);

    let got = read(&mut visitor, running.len());
    assert!(got == running, "the running visitor");

    *say.lock().unwrap() = judgement(false, &["b"]);
    peer.send(&change);
    peer.expect(BAD_CREDENTIALS);
    peer.expect_end();
}

#[test]
fn a_hello_that_is_too_long_to_ask_about_is_refused() {
    let (api, _) = granting(&[]);
    let (_server, addr) = asking(&api, "-id id1 -secret secret1 -hostNumber 0");
    let long = |n: usize| {
        let prefixes = (0..n).map(|n| prefix_option(&format!("{n:063}")));
        let prefixes: Vec<Vec<u8>> = prefixes.collect();
        let prefixes: Vec<&[u8]> = prefixes.iter().map(Vec::as_slice).collect();
        services(&prefixes)
    };
    assert_refused(addr, &hello("id2", "s", &long(255)), Frame::Error(8));
    assert_eq!(api.more_requests(), 0);
    Peer::ready_client(addr, &hello("id2", "s", &long(235)));
    Peer::ready_client(addr, &hello("id1", "secret1", &long(255)));
}

#[test]
fn the_first_of_two_clients_with_an_unknown_id_keeps_it() {
    const ROUNDS: usize = 20;
    let mut server = server("-addr 127.0.0.1:0 -allowAnyClient -reconnectTimes 0");
    let addr = server.addr();
    for round in 0..ROUNDS {
        let id = format!("id{round}");
        let start = Barrier::new(2);
        let come = |secret: &'static str| {
            start.wait();
            let mut peer = Peer::client(addr, &hello(&id, secret, &ID_ALONE));
            let frame = peer.frame();
            (peer, frame, secret)
        };
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| come("one"));
            let two = scope.spawn(|| come("two"));
            (one.join().unwrap(), two.join().unwrap())
        });
        let (winner, loser) = match (&one.1, &two.1) {
            (Frame::Ready, &BAD_CREDENTIALS) => (one, two),
            (&BAD_CREDENTIALS, Frame::Ready) => (two, one),
            both => panic!("round {round}: {both:?}"),
        };
        let (mut peer, secret, lost) = (winner.0, winner.2, loser.2);
        // A second tunnel keeps the id when the first has ended.
        let second = Peer::ready_client(addr, &hello(&id, secret, &ID_ALONE));
        peer.send(&CLOSE);
        assert_eq!(
            [peer.read(4), peer.read(4), peer.read(4)].concat(),
            [CLOSE; 3].concat()
        );
        drop(peer);
        assert_refused(addr, &hello(&id, lost, &ID_ALONE), BAD_CREDENTIALS);
        drop(second);
        eventually("the id to be free again", || {
            let mut peer = Peer::client(addr, &hello(&id, lost, &ID_ALONE));
            (peer.read(4) == READY).then_some(())
        });
    }
}

#[test]
fn an_address_with_failed_logins_is_locked_out_but_its_visitors_are_served() {
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -reconnectTimes 2 -reconnectDuration 3s \
         -logLevel debug",
    );
    let addr = server.addr();
    let (right, wrong) = (
        hello("id1", "secret1", &ID_ALONE),
        hello("id1", "wrong", &ID_ALONE),
    );
    // A success clears the count.
    let mut peer = Peer::ready_client(addr, &right);
    for _ in 0..3 {
        for _ in 0..2 {
            assert_refused(addr, &wrong, BAD_CREDENTIALS);
        }
        Peer::ready_client(addr, &right);
    }
    for _ in 0..3 {
        assert_refused(addr, &wrong, BAD_CREDENTIALS);
    }
    // The hello is not even read any more.
    assert_refused(addr, &right, BAD_CREDENTIALS);
    assert_refused(addr, &[0xF0, 0x01], BAD_CREDENTIALS);
    let _visitor = visit(addr, "id1.a");
    assert_eq!(peer.opened().1, 0);
    assert_eq!(ask(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    eventually("the address to be let in again", || {
        let mut peer = Peer::client(addr, &right);
        (peer.read(4) == READY).then_some(())
    });
    let line = server.wait_for_failed_logins(3);
    assert!(
        line.contains(" WRN ") && line.contains("127.0.0.1 "),
        "{line}"
    );
    assert_eq!(server.failed_logins().len(), 1);
    let refused = server.lines_with("its address failed to authenticate too often");
    assert!(refused.len() >= 2 && refused.iter().all(|line| line.contains(" DBG ")));
}

#[cfg(feature = "client")]
#[test]
fn a_locked_out_client_logs_for_how_long() {
    use crate::common::peer::gt2;

    let mut server =
        server("-addr 127.0.0.1:0 -id id1 -secret secret1 -reconnectTimes 1 -reconnectDuration 1h");
    let addr = server.addr();
    let wrong = hello("id1", "wrong", &ID_ALONE);
    for _ in 0..2 {
        assert_refused(addr, &wrong, BAD_CREDENTIALS);
    }
    server.wait_for_failed_logins(2);
    let mut peer = gt2::Peer::client(addr, &gt2::hello("id1", "secret1", &ID_ALONE, 0));
    let gt2::Frame::Error(payload) = peer.frame() else {
        panic!("it was let in");
    };
    assert_eq!(payload[..2], [0, 1]);
    let seconds = u32::from_be_bytes(payload[2..].try_into().unwrap());
    assert!((3500..=3600).contains(&seconds), "{seconds}");

    let client = |wire: u8| {
        crate::common::gt::client(&format!(
            "-remote tcp://{addr} -id id1 -secret secret1 -local http://127.0.0.1:1 -wire {wire}"
        ))
    };
    let line = client(2).wait_for("the server refused id1: ");
    let said = "too many failed logins from this address, which is locked out for 3";
    assert!(line.contains(said), "{line}");
    // GT/1 cannot express this.
    let line = client(1).wait_for("the server refused id1: ");
    assert!(line.contains("locked out after failed logins"), "{line}");
}

#[test]
fn a_login_with_an_arbitrary_id_does_not_clear_the_count() {
    let mut server =
        server("-addr 127.0.0.1:0 -id id1 -secret secret1 -allowAnyClient -reconnectTimes 1");
    let addr = server.addr();
    let wrong = hello("id1", "wrong", &ID_ALONE);
    for id in ["made", "up"] {
        assert_refused(addr, &wrong, BAD_CREDENTIALS);
        Peer::client(addr, &hello(id, "s", &ID_ALONE)).frame();
    }
    server.wait_for_failed_logins(2);
    assert_refused(addr, &hello("id1", "secret1", &ID_ALONE), BAD_CREDENTIALS);
}

#[test]
fn the_health_check_works_from_a_locked_out_address() {
    let mut server =
        server("-addr 127.0.0.1:0 -id id1 -secret secret1 -apiAddr 127.0.0.1:0 -reconnectTimes 1");
    let addr = server.addr();
    for _ in 0..2 {
        assert_refused(addr, &hello("id1", "wrong", &ID_ALONE), BAD_CREDENTIALS);
    }
    let status = get(server.api_addr(), "localhost", "/status");
    assert_eq!(status.status, 200, "{}", status.text());
    // This does not let other clients in.
    assert_refused(addr, &hello("id1", "secret1", &ID_ALONE), BAD_CREDENTIALS);
}
