//! `socks5:` and `httpproxy:`: visitors get to the targets of a proxy, and nowhere else.

use super::access_log::{lines, part};
use super::allow::{expect_reset_from, NAMED, NEIGHBOUR};
use crate::common::gt::{client, client_of_id1, gt, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::{self, answering, assert_echo, Service};
use crate::common::socks::{self, reply, request, visit};
use crate::common::speed::{assert_limited, SPEED};
use crate::common::visitor::{ask, connect, connect_from, read, read_answer, read_to_end, Answer};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

/// This machine, as targets of a proxy.
pub const HERE: &str = "-targets 127.0.0.1 -targets ::1";

/// A server, a client with a proxy, and the address at which visitors reach it.
pub struct Proxy {
    // The fields are dropped in this order.
    pub client: Gt,
    _server: Gt,
    pub addr: SocketAddr,
}

impl Proxy {
    pub fn start(local: &str, options: &str) -> Proxy {
        let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
        let options = format!("-local {local} -remoteTCPRandom {options}");
        let mut client = client_of_id1(server.addr(), &options);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, client.wait_for_port(0)));
        Proxy {
            client,
            _server: server,
            addr,
        }
    }

    /// A SOCKS5 proxy with these targets.
    pub fn socks(options: &str) -> Proxy {
        Proxy::start("socks5:", options)
    }

    /// An HTTP proxy with these targets.
    pub fn http(options: &str) -> Proxy {
        Proxy::start("httpproxy:", options)
    }
}

/// Returns the first line of the answer to a CONNECT.
fn connect_status(proxy: SocketAddr, target: &str) -> (TcpStream, u16) {
    let mut visitor = connect(proxy);
    write!(
        visitor,
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    )
    .expect("ask");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(&mut visitor, 1));
    }
    let head = String::from_utf8(head).expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (visitor, status.parse().expect("a number"))
}

#[test]
fn a_visitor_of_socks5_gets_to_a_target_by_address_and_by_name() {
    let (echo, proxy) = (service::echo(), Proxy::socks(HERE));
    let port = echo.addr.port();
    for host in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
    ] {
        let (mut visitor, code) = visit(proxy.addr, host, port);
        assert_eq!(code, 0, "{host}");
        assert_echo(&mut visitor, b"anyone there?");
    }
}

#[test]
fn a_visitor_of_an_http_proxy_gets_to_a_target_by_connect() {
    let (echo, proxy) = (service::echo(), Proxy::http(HERE));
    let port = echo.addr.port();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST."] {
        let (mut visitor, status) = connect_status(proxy.addr, &format!("{host}:{port}"));
        assert_eq!(status, 200, "{host}");
        assert_echo(&mut visitor, b"anyone there?");
    }
}

#[test]
fn a_request_may_come_byte_by_byte_and_with_what_follows_it() {
    let echo = service::echo();
    let port = echo.addr.port();
    let (socks, http) = (Proxy::socks(HERE), Proxy::http(HERE));
    let by_socks = [socks::ANYONE, &request(1, "localhost", port)].concat();
    let by_http = format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let more = Random::new(1).bytes(100_000);
    for (proxy, asked, answered) in [(&socks, by_socks, 12), (&http, by_http, 39)] {
        let mut visitor = connect(proxy.addr);
        for byte in &asked {
            visitor.write_all(&[*byte]).expect("send a byte");
        }
        assert_eq!(read(&mut visitor, answered).len(), answered);
        assert_echo(&mut visitor, b"byte by byte");
        // In one piece, with what is for the target: a visitor that waits for no answer.
        let mut visitor = connect(proxy.addr);
        let mut writer = visitor.try_clone().expect("clone");
        let all = [&asked[..], &more].concat();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(&all).expect("send");
                writer.shutdown(Shutdown::Write).expect("end");
            });
            let back = read_to_end(&mut visitor);
            assert!(back[answered..] == more[..], "{} bytes", back.len());
        });
    }
}

#[test]
fn the_end_of_each_direction_is_passed_on() {
    let proxy = Proxy::socks(HERE);
    let (sink, reports) = service::sink();
    let (mut visitor, code) = visit(proxy.addr, "127.0.0.1", sink.addr.port());
    assert_eq!(code, 0);
    visitor.write_all(b"all of it").expect("send");
    visitor.shutdown(Shutdown::Write).expect("end");
    assert!(!read_to_end(&mut visitor).is_empty());
    assert_eq!(reports.recv().expect("what came"), b"all of it");
    let bytes = std::sync::Arc::new(Random::new(2).bytes(1 << 20));
    let source = service::source(bytes.clone());
    let (mut visitor, _) = visit(proxy.addr, "127.0.0.1", source.addr.port());
    assert!(read_to_end(&mut visitor) == *bytes);
}

/// Spellings of addresses of this machine, of no machine, and of the metadata of a cloud.
const ELSEWHERE: [&str; 22] = [
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "0x7f000001",
    "localhost",
    "localhost.",
    "0.0.0.0",
    "0",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "fe80::1",
    "8.8.8.8",
];

#[test]
fn no_spelling_of_an_address_leads_past_the_targets() {
    let echo = service::echo();
    let port = echo.addr.port();
    for options in [
        format!("-password {}", crate::common::password::alice()),
        "-targets 10.0.0.0/8 -targets nas.lan".to_owned(),
        "-targets *.localdomain".to_owned(),
        format!("-targets 127.0.0.1:{}", free_port()),
    ] {
        let (socks, http) = (Proxy::socks(&options), Proxy::http(&options));
        for host in ELSEWHERE {
            let alice = ("alice", "secret");
            let code = match options.contains("password") {
                true => socks::visit_as(connect(socks.addr), alice, host, port).1,
                false => Some(visit(socks.addr, host, port).1),
            };
            assert_eq!(code, Some(2), "{host} {options}");
            let target = match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            let basic = "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0";
            for line in [format!("CONNECT {target}"), format!("GET http://{target}/")] {
                let asked = format!("{line} HTTP/1.1\r\nHost: 10.0.0.1\r\n{basic}\r\n\r\n");
                assert_eq!(ask(http.addr, &asked).status, 403, "{line} {options}");
            }
        }
        // Zones and other characters are no part of a name.
        for host in [
            "fe80::1%lo",
            "::1%lo",
            "127.0.0.1%lo",
            "localhost\0.lan",
            "127.0.0.1 ",
            "a@b",
        ] {
            let mut visitor = connect(socks.addr);
            let login = socks::login("alice", "secret");
            match options.contains("password") {
                true => visitor
                    .write_all(&[socks::NAMED, &login].concat())
                    .expect("log in"),
                false => visitor.write_all(socks::ANYONE).expect("greet"),
            }
            let answered = match options.contains("password") {
                true => 4,
                false => 2,
            };
            read(&mut visitor, answered);
            visitor.write_all(&request(1, host, port)).expect("ask");
            assert_eq!(reply(&mut visitor), 4, "{host:?}");
        }
    }
}

#[test]
fn all_addresses_do_not_include_this_machine() {
    let echo = service::echo();
    let proxy = Proxy::socks("-targets 0.0.0.0/0 -targets ::/0");
    for host in ELSEWHERE.iter().filter(|host| **host != "8.8.8.8") {
        assert_eq!(visit(proxy.addr, host, echo.addr.port()).1, 2, "{host}");
    }
}

#[test]
fn replies_say_why_a_target_was_not_reached() {
    let refusing = free_port();
    let unanswering = service::unanswering();
    let options = format!("{HERE} -targets *.invalid -localTimeout 1s");
    let (socks, http) = (Proxy::socks(&options), Proxy::http(&options));
    for (host, port, code, status) in [
        ("127.0.0.1", refusing, 5, 502),
        ("127.0.0.1", unanswering.addr.port(), 6, 504),
        ("nobody.invalid", 80, 4, 502),
        ("10.0.0.1", 80, 2, 403),
    ] {
        let target = format!("{host}:{port}");
        assert_eq!(visit(socks.addr, host, port).1, code, "{target}");
        let asked = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = ask(http.addr, &asked);
        assert_eq!(answer.status, status, "{target}");
        assert!(!answer.body.is_empty() && answer.body.len() < 100);
    }
    // BIND, UDP ASSOCIATE, and a kind of address that does not exist.
    for (asked, code) in [
        (request(2, "127.0.0.1", 80), 7),
        (request(3, "0.0.0.0", 0), 7),
        (request(9, "localhost", 80), 7),
        (b"\x05\x01\x00\x02\x7f\x00\x00\x01\x00\x50".to_vec(), 8),
    ] {
        let mut visitor = connect(socks.addr);
        visitor
            .write_all(&[socks::ANYONE, &asked].concat())
            .expect("ask");
        assert_eq!(read(&mut visitor, 2), [5, 0]);
        assert_eq!(reply(&mut visitor), code);
        assert!(read_to_end(&mut visitor).is_empty());
    }
}

#[test]
fn what_is_no_request_for_a_proxy_is_refused() {
    let (socks, http) = (Proxy::socks(HERE), Proxy::http(HERE));
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"\x16\x03\x01\x02\x00",
    ] {
        let mut visitor = connect(socks.addr);
        visitor.write_all(bytes).expect("send");
        assert!(read_to_end(&mut visitor).is_empty());
    }
    let mut visitor = connect(socks.addr);
    visitor.write_all(b"\x05\x02\x01\x03").expect("greet");
    assert_eq!(read_to_end(&mut visitor), [5, 0xFF]);
    for (line, status) in [
        ("GET /", 400),
        ("GET https://localhost/", 400),
        ("CONNECT localhost", 400),
        ("GET http://u:p@localhost/", 400),
    ] {
        let asked = format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(ask(http.addr, &asked).status, status, "{line}");
    }
    assert_eq!(ask(http.addr, "\x05\x01\x00").status, 400);
    let long = format!(
        "GET http://a/ HTTP/1.1\r\nA: {}\r\n\r\n",
        "b".repeat(40_000)
    );
    assert_eq!(ask(http.addr, &long).status, 431);
}

/// A service that answers with the head of the request, and its body.
pub fn mirror() -> Service {
    answering(0, |request| {
        [request.head.as_bytes(), &request.body].concat()
    })
}

pub fn asked(mut visitor: &TcpStream, text: &str) -> Answer {
    visitor.write_all(text.as_bytes()).expect("ask");
    read_answer(&mut visitor)
}

#[test]
fn a_request_with_a_whole_url_is_passed_on_as_one_for_its_host() {
    let (mirror, proxy) = (mirror(), Proxy::http(HERE));
    let port = mirror.addr.port();
    let visitor = connect(proxy.addr);
    let text = format!(
        "POST http://LocalHost:{port}/a?b HTTP/1.1\r\nHost: elsewhere\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eDp5\r\nConnection: X\r\nX: 1\r\nContent-Length: 4\r\n\r\nbody"
    );
    let answer = asked(&visitor, &text);
    let expected = format!(
        "POST /a?b HTTP/1.1\r\nHost: LocalHost:{port}\r\nContent-Length: 4\r\nVia: 1.1 gt\r\n\
         Connection: close\r\nbody"
    );
    assert_eq!((answer.status, answer.text()), (200, expected));
    // The host has been asked to close.
    assert!(read_to_end(&mut &visitor).is_empty());
}

#[test]
fn a_second_request_on_a_connection_never_reaches_the_host_of_the_first() {
    // A host that does not do what it is asked: it keeps its connection open.
    let (heads, came) = std::sync::mpsc::channel();
    let heads = std::sync::Mutex::new(heads);
    let host = Service::start(0, move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                let _ = heads.lock().unwrap().send(std::mem::take(&mut head));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
        }
        Ok(())
    });
    let proxy = Proxy::http(HERE);
    let first = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", host.addr);
    let second = "GET http://10.0.0.1/secret HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut visitor = connect(proxy.addr);
    assert_eq!(asked(&visitor, &format!("{first}{second}")).text(), "ok");
    assert_eq!(read_answer(&mut visitor).status, 421);
    assert!(read_to_end(&mut visitor).is_empty());
    drop(proxy);
    let came: Vec<_> = came.try_iter().collect();
    assert_eq!(came.len(), 1, "{came:?}");
}

#[test]
fn a_name_is_a_target_by_itself_and_with_its_ports() {
    let echo = service::echo();
    let port = echo.addr.port();
    let proxy = Proxy::socks(&format!(
        "-targets 127.0.0.0/8:{port} -targets *.invalid:{port}"
    ));
    assert_eq!(visit(proxy.addr, "localhost", port).1, 0);
    assert_eq!(visit(proxy.addr, "localhost", free_port()).1, 2);
    assert_eq!(visit(proxy.addr, "a.invalid", port).1, 4, "is looked up");
    assert_eq!(visit(proxy.addr, "a.invalid", free_port()).1, 2, "is not");
}

#[test]
fn the_access_log_names_the_target_and_what_became_of_it() {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let options = format!("{HERE} -targets *.invalid -accessLog {}", log.display());
    let echo = service::echo();
    let port = echo.addr.port();
    let mut seen = 0;
    let mut logged = |service: &str, request: &str, status: &str| {
        seen += 1;
        let line = lines(&log, seen).pop().expect("a line");
        assert_eq!(part(&line, "service"), service, "{line}");
        assert_eq!(part(&line, "request"), request, "{line}");
        assert_eq!(part(&line, "status"), status, "{line}");
        assert_eq!(part(&line, "visitor"), "127.0.0.1", "{line}");
        assert_eq!(part(&line, "end"), "closed", "{line}");
    };
    let proxy = Proxy::socks(&options);
    let (mut visitor, _) = visit(proxy.addr, "localhost", port);
    assert_echo(&mut visitor, b"12345");
    drop(visitor);
    logged("socks5:", &format!("CONNECT localhost:{port}"), "200");
    visit(proxy.addr, "10.0.0.1", 80);
    logged("socks5:", "CONNECT 10.0.0.1:80", "403");
    visit(proxy.addr, "a.invalid", 80);
    logged("socks5:", "CONNECT a.invalid:80", "502");
    drop(proxy);
    let proxy = Proxy::http(&options);
    drop(connect_status(proxy.addr, &format!("localhost:{port}")));
    logged("httpproxy:", &format!("CONNECT localhost:{port}"), "200");
    ask(proxy.addr, "GET http://10.0.0.1/ HTTP/1.1\r\n\r\n");
    logged("httpproxy:", "GET http://10.0.0.1/", "403");
    ask(proxy.addr, "GET / HTTP/1.1\r\n\r\n");
    logged("httpproxy:", "", "400");
}

#[test]
fn the_speed_of_a_proxy_is_limited_in_each_direction() {
    const MUCH: usize = 200_000;
    let bytes = std::sync::Arc::new(Random::new(3).bytes(MUCH));
    let source = service::source(bytes.clone());
    let (sink, reports) = service::sink();
    for option in ["-speed", "-visitorSpeed"] {
        let proxy = Proxy::socks(&format!("{HERE} {option} {SPEED}"));
        let begun = Instant::now();
        let (mut visitor, _) = visit(proxy.addr, "127.0.0.1", source.addr.port());
        assert!(read_to_end(&mut visitor) == *bytes);
        assert_limited(begun, MUCH);
        let begun = Instant::now();
        let (mut visitor, _) = visit(proxy.addr, "127.0.0.1", sink.addr.port());
        visitor.write_all(&bytes).expect("send");
        visitor.shutdown(Shutdown::Write).expect("end");
        assert!(reports.recv().expect("what came") == *bytes);
        assert_limited(begun, MUCH);
    }
}

#[test]
fn a_visitor_that_may_not_come_is_reset() {
    let echo = service::echo();
    let proxy = Proxy::socks(&format!("{HERE} -allow {NAMED}"));
    expect_reset_from(NEIGHBOUR, proxy.addr);
    let mut visitor = connect_from(NAMED, proxy.addr);
    visitor
        .write_all(&[socks::ANYONE, &request(1, "localhost", echo.addr.port())].concat())
        .expect("ask");
    assert_eq!(read(&mut visitor, 2), [5, 0]);
    assert_eq!(reply(&mut visitor), 0);
}

#[test]
fn a_reload_ends_connections_when_a_target_is_removed() {
    let scratch = Scratch::new();
    let echo = service::echo();
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let remote = server.addr();
    let port = echo.addr.port();
    let text = move |targets: &str| {
        format!(
            "type: client\noptions: {{id: id1, secret: secret1, remote: \"tcp://{remote}\"}}\n\
             services:\n- local: \"socks5:\"\n  remoteTCPRandom: true\n  targets: [{targets}]\n"
        )
    };
    let config = scratch.file("gt.yaml", text(&format!("127.0.0.1:{port}")));
    let mut client = client(&format!("-config {}", config.display()));
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, client.wait_for_port(0)));
    let (mut visitor, _) = visit(proxy, "127.0.0.1", port);
    assert_echo(&mut visitor, b"before");
    scratch.file("gt.yaml", text(&format!("127.0.0.1:{port}, 10.0.0.0/8")));
    client.reload();
    assert_echo(&mut visitor, b"one more target");
    scratch.file("gt.yaml", text("10.0.0.0/8"));
    client.reload();
    assert!(read_to_end(&mut visitor).is_empty());
    assert_eq!(visit(proxy, "127.0.0.1", port).1, 2);
}

#[test]
fn a_visitor_that_says_nothing_is_not_kept() {
    // Longer than a visitor may take, so that this is not what ends it.
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let options = format!("{HERE} -accessLog {}", log.display());
    let (socks, http) = (Proxy::socks(&options), Proxy::http(HERE));
    let (mut one, mut other) = (connect(socks.addr), connect(http.addr));
    one.write_all(b"\x05\x01").expect("begin");
    other.write_all(b"CONNECT").expect("begin");
    let (mut rest, late) = (Vec::new(), ask_late(&mut other));
    one.read_to_end(&mut rest).expect("an end");
    assert!(rest.is_empty());
    assert!(late.starts_with("HTTP/1.1 408 "), "{late}");
    let line = lines(&log, 1).pop().expect("a line");
    assert_eq!(part(&line, "status"), "400", "{line}");
}

fn ask_late(visitor: &mut TcpStream) -> String {
    String::from_utf8(read_to_end(visitor)).expect("an answer")
}

#[test]
fn a_visitor_that_goes_while_its_target_does_not_answer_costs_nothing_further() {
    let unanswering = service::unanswering();
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let proxy = Proxy::socks(&format!("{HERE} -accessLog {}", log.display()));
    let mut visitor = connect(proxy.addr);
    let port = unanswering.addr.port();
    visitor
        .write_all(&[socks::ANYONE, &request(1, "127.0.0.1", port)].concat())
        .expect("ask");
    assert_eq!(read(&mut visitor, 2), [5, 0]);
    socket2::SockRef::from(&visitor)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("reset");
    drop(visitor);
    // Long before the connection attempt would end by itself.
    let line = lines(&log, 1).pop().expect("a line");
    assert_eq!(part(&line, "end"), "reset", "{line}");
}

#[test]
fn a_proxy_serves_visitors_over_gt_1_too() {
    let echo = service::echo();
    let port = echo.addr.port();
    for local in ["socks5:", "httpproxy:"] {
        let proxy = Proxy::start(local, &format!("{HERE} -wire 1"));
        let (mut visitor, ok) = match local {
            "socks5:" => {
                let (visitor, code) = visit(proxy.addr, "localhost", port);
                (visitor, code == 0)
            }
            _ => {
                let (visitor, status) = connect_status(proxy.addr, &format!("localhost:{port}"));
                (visitor, status == 200)
            }
        };
        assert!(ok, "{local}");
        assert_echo(&mut visitor, b"anyone there?");
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_an_error() {
    for (options, why) in [
        (
            "-remoteTCPPort 1080",
            "would let anyone on the internet into",
        ),
        ("-remoteTCPPort 1080 -allow 0.0.0.0/0", "would let anyone"),
        ("-remoteTCPPort 1080 -deny 192.0.2.1", "would let anyone"),
        (
            "-hostPrefix a -targets 10.0.0.1 -remoteTCPPort 1",
            "remove its domain, and one of the others",
        ),
        (
            "-domain a.example -targets 10.0.0.1",
            "remove its domain, and one of the others",
        ),
        (
            "-remoteTCPPort 1 -targets 10.0.0.1 -useLocalAsHTTPHost",
            "remove its useLocalAsHTTPHost",
        ),
        (
            "-remoteTCPPort 1 -targets=",
            "an entry of its targets is empty",
        ),
        ("-remoteTCPPort 1 -targets *", "\"*\" is not a target"),
        (
            "-remoteTCPPort 1 -targets localhost",
            "127.0.0.1 and ::1 do",
        ),
        (
            "-remoteTCPPort 1-2 -targets 10.0.0.1",
            "has one local port and 2 of remoteTCPPort",
        ),
        (
            "-remoteTCPRandom=false -targets 10.0.0.1",
            "has neither a remoteTCPPort nor",
        ),
    ] {
        for local in ["socks5:", "httpproxy:"] {
            let output = gt(&format!(
                "check client -id a -remote tls://h:1 -local {local} {options}"
            ));
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains(why), "{local} {options}: {error}");
            assert_eq!(output.status.code(), Some(2), "{local} {options}");
        }
    }
    for (options, warning) in [
        (
            "-local socks5: -targets 10.0.0.1 -proxyProtocol 1",
            "so its proxyProtocol is ignored",
        ),
        (
            "-local socks5: -targets 10.0.0.1 -forwarded",
            "so its forwarded is ignored",
        ),
        (
            "-local tcp://127.0.0.1:1 -targets 10.0.0.1",
            "is no proxy, so its targets are ignored",
        ),
    ] {
        let output = gt(&format!(
            "check client -id a -remote tls://h:1 {options} -remoteTCPPort 1"
        ));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(warning), "{options}: {said}");
    }
    for options in [
        "-allow 192.0.2.0/24",
        "-targets nas.lan:22",
        "-allow ::1 -targets 10.0.0.1",
    ] {
        let line = format!(
            "check client -id a -remote tls://h:1 -local socks5: -remoteTCPPort 1 {options}"
        );
        assert_eq!(gt(&line).status.code(), Some(0), "{options}");
    }
}
