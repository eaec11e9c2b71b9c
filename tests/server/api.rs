//! The API tells operators the truth about a server, and reveals no secrets. With TLS: see
//! `tls.rs`.

use crate::common::gt::{client_of_id1, gt, server, server_of_id1, server_with_descriptors, Gt};
use crate::common::peer::gt1::{closed, data, hello, Frame, Peer, CLOSE};
use crate::common::peer::{port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::visitor::{ask, connect, get, read, read_to_end, Answer};
use crate::common::{eventually, service};
use std::io::Write;
use std::net::{Shutdown, SocketAddr};

const API: &str = "-apiAddr 127.0.0.1:0";
const SELF_TEST_PASSED: &str = "self test passed";

/// Starts a server with an API and user id1; returns it, its visitor address, and the API's.
fn setup(more: &str) -> (Gt, SocketAddr, SocketAddr) {
    let mut server = server_of_id1(&format!("{API} {more}"));
    let (addr, api) = (server.addr(), server.api_addr());
    (server, addr, api)
}

fn page(api: SocketAddr, path: &str) -> Answer {
    get(api, "localhost", path)
}

/// Returns a page that must exist.
fn text(api: SocketAddr, path: &str) -> String {
    let answer = page(api, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// Returns the number of `name`, with its labels, in `/metrics`.
fn metric(api: SocketAddr, name: &str) -> u64 {
    let page = text(api, "/metrics");
    let mut found = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix(' ')
    });
    let value = found.next().unwrap_or_else(|| panic!("{name} in {page}"));
    assert!(found.next().is_none(), "{name} twice in {page}");
    value.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Returns `/clients` with its times checked and removed.
fn clients(api: SocketAddr) -> String {
    let page = text(api, "/clients");
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let shown = masked(page.trim_end(), "\"since\": ", "T", |since| {
        let since: u64 = since.parse().expect("a time");
        assert!((now - 100..=now).contains(&since), "{since} at {now}");
    });
    // What the system's default is.
    let shown = masked(&shown, "\"congestion\": ", "C", |controls| {
        assert!(
            controls.starts_with("[\"") && controls.ends_with("\"]"),
            "{controls}"
        );
    });
    masked(&shown, "\"rtt\": ", "R", |millis| {
        let millis: f64 = millis.parse().expect("a round-trip time");
        assert!((0.0..60_000.0).contains(&millis), "{millis} ms");
    })
}

/// Returns the page with `mask` for every number behind `name`; each is passed to `check`.
fn masked(page: &str, name: &str, mask: &str, check: impl Fn(&str)) -> String {
    let mut parts = page.split(name);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', '}']).expect("more behind a number");
        let (number, rest) = part.split_at(end);
        let known = number != "null";
        if known {
            check(number);
        }
        shown += &format!("{name}{}{rest}", if known { mask } else { number });
    }
    shown
}

fn version() -> String {
    let output = gt("-version");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim_end()
        .to_owned()
}

fn ok() -> String {
    format!("{{\"status\": \"ok\", \"version\": \"{}\"}}\n", version())
}

#[test]
fn the_status_is_ok_with_any_listener() {
    let users = "-id id1 -secret secret1";
    for listeners in [
        "-addr 127.0.0.1:0",
        "-addr [::1]:0",
        "-addr :0",
        "-addr 0.0.0.0:0",
        "-addr 127.0.0.1:0 -httpMUXHeader X-Target",
        "-addr 127.0.0.1:0 -hostWithID -hostRegex ^no$",
        "-addr 127.0.0.1:0 -frontProxies 127.0.0.1",
        "-addr 127.0.0.1:0 -acceptProxy 127.0.0.0/8",
        "-addr [::1]:0 -acceptProxy ::1",
        "-addr \"\" -sniAddr 127.0.0.1:0 -acceptProxy 127.0.0.1",
        "-addr \"\" -sniAddr 127.0.0.1:0",
    ] {
        for users in [users, ""] {
            let mut server = server(&format!("{listeners} {API} {users}"));
            let answer = page(server.api_addr(), "/status");
            assert_eq!(answer.text(), ok(), "{listeners} {users}");
            assert_eq!(answer.status, 200);
            assert!(
                answer
                    .head
                    .contains("\r\nContent-Type: application/json\r\n"),
                "{}",
                answer.head
            );
        }
    }
}

#[test]
fn the_health_check_leaves_no_trace() {
    let (server, addr, api) = setup("-logLevel debug");
    let before = (clients(api), text(api, "/metrics"));
    let descriptors = server.fds();
    assert_eq!(text(api, "/status"), ok());
    let prefix = server.opened().remove(0);
    assert!(prefix.contains(" DBG "), "{prefix}");
    server.wait_for_fds(descriptors);
    let without_time = |page: String| -> Vec<String> {
        let lines = page.lines().map(str::to_owned);
        lines.filter(|line| !line.contains("uptime")).collect()
    };
    assert_eq!(clients(api), before.0);
    assert_eq!(without_time(text(api, "/metrics")), without_time(before.1));
    // Visitors are not made to wait for its prefix, as for that of a client.
    let id = prefix
        .split("id=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let host = format!("{}.status.invalid", id.expect("an id"));
    assert_eq!(get(addr, &host, "/").status, 404);
}

#[test]
fn concurrent_status_requests_share_one_health_check() {
    let (server, _, api) = setup("-logLevel debug");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(text(api, "/status"), ok()));
        }
    });
    assert_eq!(text(api, "/status"), ok());
    assert_eq!(server.lines_with(SELF_TEST_PASSED).len(), 1);
}

#[test]
fn the_status_fails_while_the_server_cannot_serve() {
    const MOST: usize = 64;
    let mut server = server_with_descriptors(MOST, &format!("-addr 127.0.0.1:0 {API}"));
    let (addr, api) = (server.addr(), server.api_addr());
    // Leaves one descriptor: for the API's connection, and none for a health check.
    let visitors = 1..server.free_fds(MOST);
    let mut visitors: Vec<_> = visitors.map(|_| connect(addr)).collect();
    eventually("all visitors to be accepted", || {
        (server.free_fds(MOST) == 1).then_some(())
    });
    let answer = page(api, "/status");
    assert_eq!(answer.status, 503, "{}", answer.text());
    let expected = format!(
        "{{\"status\": \"failed\", \"reason\": \"opening its own tunnel: connecting to {addr}: \
         Too many open files (os error 24)\", \"version\": \"{}\"}}\n",
        version()
    );
    assert_eq!(answer.text(), expected);
    server.wait_for(" WRN the status is failed: opening its own tunnel");

    visitors.extend((0..3).map(|_| connect(addr)));
    server.wait_for_failed_accept(addr);
    drop(visitors);
    eventually("the status to be ok again", || {
        (page(api, "/status").status == 200).then_some(())
    });
    server.wait_for(" INF the status is ok again");
    assert!(metric(api, "gt_errors_total{kind=\"accept\"}") > 0);
}

#[test]
fn a_health_check_that_timed_out_is_not_counted_as_a_client() {
    const MOST: usize = 64;
    let any = format!("-addr 127.0.0.1:0 {API} -logLevel debug");
    let mut server = server_with_descriptors(MOST, &any);
    let (addr, api) = (server.addr(), server.api_addr());
    // Leaves two descriptors: for the API's connection and one end of the tunnel, which then waits.
    let visitors = 2..server.free_fds(MOST);
    let visitors: Vec<_> = visitors.map(|_| connect(addr)).collect();
    eventually("all visitors to be accepted", || {
        (server.free_fds(MOST) == 2).then_some(())
    });
    let answer = page(api, "/status");
    assert_eq!(answer.status, 503, "{}", answer.text());
    let reason = "opening its own tunnel: not done within 5s";
    assert!(answer.text().contains(reason), "{}", answer.text());
    drop(visitors);
    server.wait_for("the self test has ended");
    assert_eq!(server.opened().len(), 0);
}

/// Returns the numbers of a client, or of all: tunnels, open streams, streams so far, bytes up and
/// bytes down.
fn numbers(api: SocketAddr, family: &str, id: &str) -> [u64; 5] {
    let (alone, more) = match id {
        "" => (String::new(), String::new()),
        id => (format!("{{id=\"{id}\"}}"), format!("id=\"{id}\",")),
    };
    [
        metric(api, &format!("{family}_tunnels{alone}")),
        metric(api, &format!("{family}_streams_open{alone}")),
        metric(api, &format!("{family}_streams_total{alone}")),
        metric(
            api,
            &format!("{family}_bytes_total{{{more}direction=\"up\"}}"),
        ),
        metric(
            api,
            &format!("{family}_bytes_total{{{more}direction=\"down\"}}"),
        ),
    ]
}

#[test]
fn every_byte_of_a_transfer_is_counted_once() {
    let port = free_port();
    let (server, addr, api) = setup(&format!("-tcpNumber 1 -tcpRange {port}-{port}"));
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &port_option(true, 0)));
    assert_eq!(numbers(api, "gt", ""), [1, 0, 0, 0, 0]);

    let (up, down) = (Random::new(1).bytes(250_001), Random::new(2).bytes(100_003));
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    visitor.write_all(&down).expect("send");
    let (stream, _, mut came) = peer.opened();
    came.extend(peer.gather(stream, down.len() - came.len()));
    assert!(came == down, "the bytes down differ");
    peer.send(&data(stream, &up));
    assert!(read(&mut visitor, up.len()) == up, "the bytes up differ");
    let all = [1, 1, 1, 250_001, 100_003];
    assert_eq!(numbers(api, "gt", ""), all);
    assert_eq!(numbers(api, "gt_client", "id1"), all);
    assert_eq!(
        clients(api),
        format!(
            "{{\"clients\": [{{\"id\": \"id1\", \"since\": T, \"tunnels\": 1, \"prefixes\": [], \
             \"tlsPrefixes\": [], \"ports\": [{port}], \"streams\": 1, \"streamsTotal\": 1, \
             \"bytesUp\": 250001, \"bytesDown\": 100003, \"congestion\": C, \"rtt\": null}}], \"more\": 0}}"
        )
    );

    // Bytes for a stream that has ended are not carried.
    peer.send(&[closed(stream), data(stream, b"late")].concat());
    assert_eq!(read_to_end(&mut visitor), b"");
    drop(visitor);
    eventually("the stream to end", || {
        (numbers(api, "gt", "") == [1, 0, 1, 250_001, 100_003]).then_some(())
    });
    peer.shutdown();
    eventually("the tunnel to end", || {
        (numbers(api, "gt", "") == [0, 0, 1, 250_001, 100_003]).then_some(())
    });
    assert_eq!(metric(api, "gt_clients"), 0);
    assert!(!text(api, "/metrics").contains("id1"));
    assert_eq!(clients(api), "{\"clients\": [], \"more\": 0}");
    assert_eq!(server.errors().len(), 0);
}

#[test]
fn bytes_of_replaced_tunnels_stay_in_the_totals() {
    let port = free_port();
    let (_server, addr, api) = setup(&format!("-tcpNumber 1 -tcpRange {port}-{port}"));
    let mut old = Peer::ready_client(addr, &hello("id1", "secret1", &port_option(true, 0)));
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    let (stream, ..) = old.opened();
    old.send(&data(stream, &[1; 1000]));
    read(&mut visitor, 1000);

    let new = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    old.expect(Frame::Close);
    assert_eq!(numbers(api, "gt_client", "id1"), [2, 1, 1, 1000, 0]);
    // The registration ends before its earlier tunnel.
    new.shutdown();
    eventually("the new tunnel to end", || {
        (numbers(api, "gt", "") == [1, 1, 1, 1000, 0]).then_some(())
    });
    assert_eq!(numbers(api, "gt_client", "id1"), [1, 1, 1, 1000, 0]);
    old.send(&data(stream, &[2; 234]));
    read(&mut visitor, 234);
    assert_eq!(numbers(api, "gt", ""), [1, 1, 1, 1234, 0]);
    old.send(&[&closed(stream)[..], &CLOSE].concat());
    eventually("the old tunnel to end", || {
        (numbers(api, "gt", "") == [0, 0, 1, 1234, 0]).then_some(())
    });
    assert_eq!(metric(api, "gt_clients"), 0);
}

#[test]
fn a_real_client_is_described_correctly() {
    let service = service::http(0, "here");
    let port = free_port();
    let (_server, addr, api) = setup(&format!(
        "-hostNumber 3 -hostWithID -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let at = service.addr;
    let _client = client_of_id1(
        addr,
        &format!(
            "-remoteConnections 1 -local tcp://{at} -remoteTCPPort {port} \
             -local http://{at} -hostPrefix two -local http://{at} -hostPrefix One \
             -local https://{at}"
        ),
    );
    let (asked, answer) = (
        "GET /x HTTP/1.1\r\nHost: id1-two.a\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nhere /x id1-two.a",
    );
    assert_eq!(ask(addr, asked).text(), "here /x id1-two.a");
    let expected = format!(
        "{{\"clients\": [{{\"id\": \"id1\", \"since\": T, \"tunnels\": 1, \
         \"prefixes\": [\"id1-one\", \"id1-two\"], \"tlsPrefixes\": [\"id1\"], \
         \"ports\": [{port}], \"streams\": 0, \"streamsTotal\": 1, \"bytesUp\": {}, \
         \"bytesDown\": {}, \"congestion\": C, \"rtt\": R}}], \"more\": 0}}",
        answer.len(),
        asked.len()
    );
    eventually(&expected, || (clients(api) == expected).then_some(()));
}

#[test]
fn refused_clients_and_visitors_are_counted_by_code() {
    let (_server, addr, api) = setup("-hostRegex ^a+$");
    for (id, secret, option, code) in [
        ("id1", "secret2", ID_ALONE.to_vec(), 1),
        ("id2", "secret1", ID_ALONE.to_vec(), 1),
        ("id1", "secret1", port_option(true, 0), 2),
        ("id1", "secret1", prefix_option("b"), 6),
    ] {
        let mut peer = Peer::client(addr, &hello(id, secret, &option));
        let error = match code {
            2 => Frame::PortError(0),
            code => Frame::Error(code),
        };
        peer.expect(error);
    }
    for (code, count) in [2, 1, 0, 0, 0, 1, 0, 0, 0].into_iter().enumerate() {
        let name = format!("gt_refused_logins_total{{code=\"{}\"}}", code + 1);
        assert_eq!(metric(api, &name), count, "{name}");
    }

    let peer = Peer::ready_client(addr, &hello("id1", "secret1", &prefix_option("aa")));
    assert_eq!(get(addr, "a.a", "/").status, 404);
    assert_eq!(ask(addr, "GET / HTTP/1.1\r\n\r\n").status, 400);
    let mut unanswered = connect(addr);
    unanswered
        .write_all(b"GET / HTTP/1.1\r\nHost: aa\r\n\r\n")
        .expect("send");
    eventually("the visitor to be served", || {
        (metric(api, "gt_streams_open") == 1).then_some(())
    });
    peer.shutdown();
    assert!(read_to_end(&mut unanswered).starts_with(b"HTTP/1.1 502 "));
    assert_eq!(get(addr, "aa.a", "/").status, 503);
    for (kind, count) in [
        ("400", 1),
        ("404", 1),
        ("408", 0),
        ("431", 0),
        ("502", 1),
        ("503", 1),
        ("504", 0),
        ("accept", 0),
    ] {
        let name = format!("gt_errors_total{{kind=\"{kind}\"}}");
        assert_eq!(metric(api, &name), count, "{name}");
    }
}

#[test]
fn version_and_uptime_are_shown() {
    let (_server, _, api) = setup("");
    let name = format!("gt_info{{version=\"{}\"}}", version());
    assert_eq!(metric(api, &name), 1);
    eventually("time to pass", || {
        (metric(api, "gt_uptime_seconds") > 0).then_some(())
    });
    let head = page(api, "/metrics").head;
    let kind = "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(head.contains(kind), "{head}");
}

#[test]
fn every_metrics_line_belongs_to_the_preceding_family() {
    let (_server, addr, api) = setup("");
    let _peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let page = text(api, "/metrics");
    assert!(page.ends_with('\n'));
    let (mut family, mut families) = (String::new(), Vec::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&family), "{family} twice");
            families.push(family.clone());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let kind = if family.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            assert_eq!(rest, format!("{family} {kind}"));
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name, family, "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    }
    assert!(families.len() >= 13, "{families:?}");
}

#[test]
fn an_id_with_any_character_breaks_no_page() {
    // It cannot be a host prefix then, but there are other services.
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 {API} -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let (addr, api) = (server.addr(), server.api_addr());
    let id = "a\"b\\c\nd\t\u{e9}";
    let _peer = Peer::ready_client(addr, &hello(id, "top", &port_option(false, port)));
    let page = clients(api);
    let start = "{\"clients\": [{\"id\": \"a\\\"b\\\\c\\nd\\t\u{e9}\", \"since\": T, ";
    assert!(page.starts_with(start), "{page}");
    assert_eq!(
        metric(api, "gt_client_tunnels{id=\"a\\\"b\\\\c\\nd\t\u{e9}\"}"),
        1
    );
}

#[test]
fn no_secret_is_on_any_page_or_in_the_log() {
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 {API} -id id1 -secret hush-one -allowAnyClient -logLevel trace"
    ));
    let (addr, api) = (server.addr(), server.api_addr());
    let _one = Peer::ready_client(addr, &hello("id1", "hush-one", &ID_ALONE));
    let _two = Peer::ready_client(addr, &hello("id2", "hush-two", &ID_ALONE));
    let mut three = Peer::client(addr, &hello("id1", "hush-three", &ID_ALONE));
    three.expect(Frame::Error(1));
    let pages = ["/status", "/metrics", "/clients"].map(|path| text(api, path));
    assert!(pages[1].contains("id2") && pages[2].contains("id2"));
    for said in pages.iter().chain([&server.log()]) {
        assert!(!said.contains("hush"), "{said}");
    }
}

#[test]
fn clients_beyond_the_limit_are_summed_up() {
    let mut server = server(&format!("-addr 127.0.0.1:0 {API}"));
    let (addr, api) = (server.addr(), server.api_addr());
    let mut peers: Vec<_> = (0..103)
        .map(|n| Peer::ready_client(addr, &hello(&format!("id{n:03}"), "s", &ID_ALONE)))
        .collect();
    // The last ones are the busiest, and the one before them has moved bytes as well.
    for (n, peer) in peers.iter_mut().enumerate().skip(2) {
        let mut visitor = connect(addr);
        let asked = format!("GET / HTTP/1.1\r\nHost: id{n:03}\r\n\r\n");
        visitor.write_all(asked.as_bytes()).expect("send");
        let (stream, ..) = peer.opened();
        peer.send(&[data(stream, &vec![0; n]), closed(stream)].concat());
        assert_eq!(read_to_end(&mut visitor).len(), n);
    }
    let asked = "GET / HTTP/1.1\r\nHost: id002\r\n\r\n".len() as u64;
    let page = text(api, "/metrics");
    assert!(!page.contains("id=\"id002\"") && page.contains("id=\"id003\""));
    assert_eq!(metric(api, "gt_clients"), 103);
    assert_eq!(metric(api, "gt_client_tunnels{id=\"\"}"), 3);
    assert_eq!(metric(api, "gt_client_streams_total{id=\"\"}"), 1);
    let up = "gt_client_bytes_total{id=\"\",direction=\"up\"}";
    let down = "gt_client_bytes_total{id=\"\",direction=\"down\"}";
    assert_eq!((metric(api, up), metric(api, down)), (2, asked));
    let sum = (2..103).sum::<u64>();
    assert_eq!(metric(api, "gt_bytes_total{direction=\"up\"}"), sum);
    assert_eq!(
        metric(api, "gt_bytes_total{direction=\"down\"}"),
        101 * asked
    );
    let ids = clients(api).matches("\"id\": ").count();
    assert_eq!(ids, 103, "there is room for a thousand");
}

#[test]
fn unknown_paths_are_404_and_other_methods_are_405() {
    let (_server, _, api) = setup("");
    for path in ["/", "/status/", "/Status", "/clients.json", "*"] {
        assert_eq!(page(api, path).status, 404, "{path}");
    }
    for method in ["POST", "HEAD", "PUT", "DELETE", "XP"] {
        let answer = ask(api, &format!("{method} /status HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{method}");
        assert!(
            answer.head.contains("\r\nAllow: GET\r\n"),
            "{}",
            answer.head
        );
    }
    for path in ["/status?a=b", "http://localhost/metrics", "/clients"] {
        text(api, path);
    }
}

#[test]
fn an_unknown_host_name_is_421() {
    let (_server, _, api) = setup("-apiHosts gt.example.com -apiHosts gt");
    let port = api.port();
    for host in [
        "127.0.0.1",
        "[::1]:1",
        "localhost",
        "gt.example.com",
        &format!("GT:{port}"),
    ] {
        assert_eq!(get(api, host, "/clients").status, 200, "{host}");
    }
    for host in [
        "rebound.example.com",
        "example.com",
        "gt.example.com.evil",
        "127.0.0.1.evil",
    ] {
        for path in ["/clients", "/none"] {
            let answer = get(api, host, path);
            assert_eq!(answer.status, 421, "{host}");
            assert!(answer.text().contains("apiHosts"), "{}", answer.text());
        }
    }
    // Programs may omit the Host; browsers do not.
    assert_eq!(ask(api, "GET /clients HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn incomplete_and_malformed_requests_get_an_error() {
    let (server, _, api) = setup("");
    let descriptors = server.fds();
    let mut half = connect(api);
    half.write_all(b"GET /status HTTP/1.1\r\nHost: a\r\n")
        .expect("send");
    let mut cut = connect(api);
    cut.write_all(b"GET /status HT").expect("send");
    cut.shutdown(Shutdown::Write).expect("shut down");
    assert!(read_to_end(&mut cut).starts_with(b"HTTP/1.1 400 "));
    for garbage in [
        "good morning\r\n\r\n",
        "\u{16}\u{3}\u{1}\0",
        "GET /status\r\n\r\n",
    ] {
        assert_eq!(ask(api, garbage).status, 400, "{garbage:?}");
    }
    let long = format!("GET /status HTTP/1.1\r\nA: {}", "a".repeat(8 * 1024));
    assert_eq!(ask(api, &long).status, 431);
    let mut mute = connect(api);
    mute.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(read_to_end(&mut mute), b"");
    assert!(read_to_end(&mut half).starts_with(b"HTTP/1.1 408 "));
    drop(half);
    server.wait_for_fds(descriptors);
}

#[test]
fn a_request_may_come_in_single_bytes() {
    let (_server, _, api) = setup("");
    let mut stream = connect(api);
    for byte in b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        stream.write_all(&[*byte]).expect("send");
    }
    assert!(read_to_end(&mut stream).ends_with(ok().as_bytes()));
}

#[test]
fn the_number_of_concurrent_requests_is_bounded_and_others_wait() {
    let (server, addr, api) = setup("");
    let descriptors = server.fds();
    let mut waiting: Vec<_> = (0..40).map(|_| connect(api)).collect();
    let mut last = connect(api);
    last.write_all(b"GET /clients HTTP/1.1\r\n\r\n")
        .expect("send");
    eventually("32 connections to be accepted", || {
        (server.fds() == descriptors + 32).then_some(())
    });
    // The limit does not apply to visitors.
    assert_eq!(get(addr, "nobody.a", "/").status, 404);
    server.wait_for_fds(descriptors + 32);
    assert_eq!(server.fds(), descriptors + 32);
    waiting.clear();
    assert!(read_to_end(&mut last).starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn an_api_that_cannot_listen_is_named_and_nothing_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let at = taken.local_addr().expect("ask for the address");
    let output = gt(&format!("server -addr 127.0.0.1:0 -apiAddr {at}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("listening on apiAddr {at}: ")),
        "{said}"
    );
    assert!(!said.contains("Listening"), "{said}");
}
