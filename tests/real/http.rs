//! HTTP through a tunnel, with nginx behind it and curl in front.

use crate::common;
use crate::common::curl::{curl, url};
use crate::common::gt::{client, client_of_id1, http_tunnel, server, server_of_id1, Gt};
use crate::common::nginx::{self, Nginx};
use crate::common::ports::free_port;
use crate::common::samples::{assert_same, random_file};
use crate::common::scratch::Scratch;
use crate::common::service;
use crate::common::visitor::{ask, connect, get, read_answer, read_to_end};
use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr};

struct Setup {
    nginx: Nginx,
    addr: SocketAddr,
    server: Gt,
    client: Gt,
}

impl Setup {
    fn new() -> Setup {
        Setup::with("", "")
    }

    fn with(for_server: &str, for_client: &str) -> Setup {
        let nginx = nginx::start(None);
        let (server, client, addr) = http_tunnel(nginx.http, for_server, for_client);
        Setup {
            nginx,
            addr,
            server,
            client,
        }
    }

    /// Returns curl's arguments for `path` through the tunnel.
    fn url(&self, path: &str) -> String {
        url("http", "id1.example.com", self.addr, path)
    }
}

#[test]
fn a_connection_is_kept_for_many_requests() {
    let setup = Setup::new();
    let urls = vec![setup.url("/"); 20].join(" ");
    let reply = curl(&format!("-w %{{stderr}}%{{num_connects}} {urls}"));
    assert_eq!(reply.text(), nginx::INDEX.repeat(20));
    assert_eq!(
        reply.errors,
        format!("1{}", "0".repeat(19)),
        "new connections"
    );
}

#[test]
fn a_chunked_answer_arrives_whole() {
    let setup = Setup::new();
    let url = setup.url("/zipped/lines");
    let reply = curl(&format!("--compressed -D /dev/stderr {url}"));
    assert!(reply.text() == nginx::lines(), "the lines differ");
    let head = reply.errors.to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
}

#[test]
fn a_chunked_upload_arrives_whole() {
    let setup = Setup::new();
    let sample = random_file(5);
    let up = setup.url("/upload/up");
    // Without Expect, which curl would wait for; it does not know the length of a stream.
    let put = format!(
        "-X PUT -H Transfer-Encoding:chunked -T {} {up}",
        sample.display()
    );
    assert_eq!(curl(&put).text(), "");
    assert_same(&sample, &setup.nginx.stored("up"));
}

#[test]
fn a_hundred_mebibytes_arrive_unchanged_downwards() {
    let (setup, scratch) = (Setup::new(), Scratch::new());
    let down = scratch.join("down");
    let reply = curl(&format!("-o {} {}", down.display(), setup.url("/big")));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&random_file(100), &down);
}

#[test]
fn a_hundred_mebibytes_arrive_unchanged_upwards() {
    let setup = Setup::new();
    let sample = random_file(100);
    let reply = curl(&format!(
        "-T {} {}",
        sample.display(),
        setup.url("/upload/up")
    ));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &setup.nginx.stored("up"));
}

#[test]
fn many_downloads_at_once_arrive_unchanged() {
    let (setup, scratch) = (Setup::new(), Scratch::new());
    std::fs::copy(random_file(5), setup.nginx.stored("five")).expect("copy a sample");
    let port = setup.addr.port();
    // curl replaces #1 by the number of each download.
    let reply = curl(&format!(
        "-Z --parallel-immediate --parallel-max 16 -o {}/#1 \
         --resolve id1.example.com:{port}:127.0.0.1 \
         http://id1.example.com:{port}/upload/five?[1-16]",
        scratch.path().display()
    ));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    for n in 1..=16 {
        assert_same(&random_file(5), &scratch.join(&n.to_string()));
    }
}

#[test]
fn http_1_0_is_served_and_closed() {
    let setup = Setup::new();
    assert_eq!(curl(&format!("-0 {}", setup.url("/"))).text(), nginx::INDEX);
    let answer = ask(
        setup.addr,
        "GET / HTTP/1.0\r\nHost: id1.example.com\r\n\r\n",
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, nginx::INDEX));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let setup = Setup::new();
    let mut visitor = connect(setup.addr);
    // Later Host fields only concern nginx.
    let requests: String = (0..200)
        .map(|n| format!("GET /host HTTP/1.1\r\nHost: id1.{n}\r\n\r\n"))
        .collect();
    visitor.write_all(requests.as_bytes()).expect("send");
    let mut answers = BufReader::new(visitor);
    for n in 0..200 {
        assert_eq!(read_answer(&mut answers).text(), format!("id1.{n}"));
    }
}

#[test]
fn only_the_first_request_of_a_connection_selects_the_service() {
    let setup = Setup::new();
    let mut visitor = connect(setup.addr);
    for host in ["id1.example.com", "other.example.com"] {
        write!(visitor, "GET /host HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("send");
        assert_eq!(read_answer(&mut visitor).text(), host);
    }
}

#[test]
fn a_request_to_a_proxy_names_its_host_in_full() {
    let setup = Setup::new();
    // --noproxy covers all hosts; the later one wins.
    let reply = curl(&format!(
        "--noproxy \"\" -x http://{} http://id1.example.com/",
        setup.addr
    ));
    assert_eq!(reply.text(), nginx::INDEX);
}

#[test]
fn a_host_in_any_case_and_of_one_label_is_a_prefix_too() {
    let setup = Setup::new();
    for host in [
        "id1",
        "id1:8080",
        "id1.localhost:80",
        "Id1",
        "ID1.Example.com",
    ] {
        let answer = get(setup.addr, host, "/host");
        assert_eq!((answer.status, answer.text()), (200, host.to_owned()));
    }
}

#[test]
fn the_header_name_matches_in_any_case_without_whitespace() {
    let setup = Setup::new();
    for line in ["host: id1.a", "HOST:id1.a", "hOsT:   id1.a  "] {
        let request =
            format!("GET / HTTP/1.1\r\nX-A: Host: x.y\r\n{line}\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(setup.addr, &request).status, 200, "{line:?}");
    }
}

#[test]
fn another_header_selects_the_service_by_its_whole_value() {
    let setup = Setup::with("-httpMUXHeader X-Device", "");
    let ask = |device: &str| {
        let lines = format!("Host: id2.a\r\nX-Device: {device}\r\nConnection: close");
        ask(
            setup.addr,
            &format!("GET /host HTTP/1.1\r\n{lines}\r\n\r\n"),
        )
    };
    let answer = ask("id1");
    assert_eq!((answer.status, answer.text().as_str()), (200, "id2.a"));
    assert_eq!(ask("id1.example.com").status, 404);
}

#[test]
fn a_head_in_single_bytes_finds_its_service() {
    let setup = Setup::new();
    let mut visitor = connect(setup.addr);
    for byte in b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n" {
        visitor.write_all(&[*byte]).expect("send a byte");
    }
    assert_eq!(read_answer(&mut visitor).text(), nginx::INDEX);
}

#[test]
fn every_host_of_a_connection_becomes_the_local_one() {
    let setup = Setup::with("", "-useLocalAsHTTPHost");
    let mut visitor = connect(setup.addr);
    // One after the other, and all at once; some with a body that looks like a request.
    let body = "GET /host HTTP/1.1\r\nHost: body\r\n\r\n";
    let bare = "GET /host HTTP/1.1\r\nHost: id1.a\r\n\r\n".to_owned();
    let sized = format!(
        "POST /host HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunked = format!(
        "POST /host HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let requests = [bare, sized, chunked];
    for request in &requests {
        visitor.write_all(request.as_bytes()).expect("send");
        assert_eq!(
            read_answer(&mut visitor).text(),
            setup.nginx.http.to_string()
        );
    }
    let many = requests.concat().repeat(30);
    visitor.write_all(many.as_bytes()).expect("send");
    let mut answers = BufReader::new(visitor);
    for _ in 0..90 {
        assert_eq!(
            read_answer(&mut answers).text(),
            setup.nginx.http.to_string()
        );
    }
}

#[test]
fn the_host_is_rewritten_on_a_tcp_port_too() {
    let nginx = nginx::start(None);
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let local = format!("-local tcp://{} -remoteTCPRandom", nginx.http);
    let mut client = client_of_id1(server.addr(), &format!("{local} -useLocalAsHTTPHost"));
    let addr = SocketAddr::from(([127, 0, 0, 1], client.wait_for_port(0)));
    let mut visitor = connect(addr);
    for _ in 0..2 {
        write!(visitor, "GET /host HTTP/1.1\r\nHost: evil\r\n\r\n").expect("send");
        assert_eq!(read_answer(&mut visitor).text(), nginx.http.to_string());
    }
    for (head, status) in [
        ("GET /host HTTP/1.1\r\nHost: evil\n\r\n".to_owned(), 400),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(33 << 10)),
            431,
        ),
    ] {
        assert_eq!(ask(addr, &head).status, status);
    }
}

#[test]
fn a_visitor_that_half_closes_gets_its_answers_where_the_host_is_rewritten() {
    let setup = Setup::with("", "-useLocalAsHTTPHost");
    let mut visitor = connect(setup.addr);
    write!(
        visitor,
        "GET /host HTTP/1.1\r\nHost: id1.a\r\n\r\nGET / HTTP/1.1\r\nHost: id1.a\r\n"
    )
    .expect("send");
    visitor.shutdown(Shutdown::Write).expect("shut down");
    let answer = read_answer(&mut visitor);
    assert_eq!(answer.text(), setup.nginx.http.to_string());
    // The second request has no end.
    let rest = read_to_end(&mut visitor);
    assert!(rest.starts_with(b"HTTP/1.1 400 "), "{rest:?}");
}

#[test]
fn bodies_are_unchanged_where_the_host_is_rewritten() {
    let setup = Setup::with("", "-useLocalAsHTTPHost");
    let (sample, scratch) = (random_file(20), Scratch::new());
    let (up, down) = (setup.url("/upload/up"), scratch.join("down"));
    for (number, more) in ["", "-H Transfer-Encoding:chunked", "-H Expect:100-continue"]
        .iter()
        .enumerate()
    {
        let reply = curl(&format!(
            "-X PUT {more} -T {} {up}{number}",
            sample.display()
        ));
        assert_eq!(reply.text(), "");
        assert_same(&sample, &setup.nginx.stored(&format!("up{number}")));
    }
    let reply = curl(&format!("-o {} {up}0", down.display()));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &down);
    let reply = curl(&format!("--compressed {}", setup.url("/zipped/lines")));
    assert!(reply.text() == nginx::lines(), "the lines differ");
}

#[test]
fn the_limit_of_a_head_is_the_same_however_it_is_cut() {
    let (service, mut server) = (service::http(0, "here"), server_of_id1(""));
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    for (length, status) in [(16_384, 200), (16_385, 431), (16_900, 431)] {
        for host_first in [true, false] {
            let host = "Host: id1.a\r\n";
            let (first, last) = if host_first { (host, "") } else { ("", host) };
            let begin = format!("GET / HTTP/1.1\r\nConnection: close\r\n{first}X: ");
            let end = format!("\r\n{last}\r\n");
            let filler = "x".repeat(length - begin.len() - end.len());
            let head = format!("{begin}{filler}{end}");
            for piece in [length, 16_370, 1000] {
                let mut visitor = connect(addr);
                for bytes in head.as_bytes().chunks(piece) {
                    // The response may have come already.
                    let _ = visitor.write_all(bytes);
                }
                let answer = read_to_end(&mut visitor);
                let begins = format!("HTTP/1.1 {status} ");
                assert!(answer.starts_with(begins.as_bytes()), "{length} by {piece}");
            }
        }
    }
}

#[test]
fn unusual_header_names_are_passed_to_the_service() {
    let (service, mut server) = (service::http(0, "here"), server_of_id1(""));
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    for line in [
        "X[1]: y",
        "M\u{FC}ller: y",
        "A (b): c",
        "\"q\": r",
        "A: b\r\n c",
    ] {
        let request =
            format!("GET / HTTP/1.1\r\n{line}\r\nHost: id1.a\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(addr, &request).text(), "here / id1.a", "{line:?}");
    }
}

#[test]
fn answers_to_head_have_no_body() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://127.0.0.1:{}", free_port());
    let _client = client_of_id1(addr, &local);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: id2.a\r\n\r\n", 404),
        ("\r\nHEAD / HTTP/1.1\r\nHost: id1.a\r\n\r\n", 502),
        ("HEAD / HTTP/1.1\r\n\r\n", 400),
    ] {
        let answer = ask(addr, request);
        assert_eq!((answer.status, answer.text().as_str()), (status, ""));
        let length = answer.head.contains("\r\nContent-Length: ");
        assert!(length, "{}", answer.head);
    }
}

#[test]
fn a_malformed_head_gets_400() {
    let setup = Setup::new();
    for head in [
        "good morning\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost id1.a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : id1.a\r\n\r\n",
    ] {
        assert_eq!(ask(setup.addr, head).status, 400, "{head:?}");
    }
}

#[test]
fn an_unknown_host_gets_404_at_once() {
    let setup = Setup::new();
    for host in ["id2.example.com", "example.com", "id1x", "xid1.id1.id1"] {
        let answer = get(setup.addr, host, "/");
        assert_eq!(answer.status, 404, "{host}");
        assert!(!answer.body.is_empty(), "it says why");
    }
}

#[test]
fn an_endless_head_gets_431() {
    let setup = Setup::new();
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(17 << 10));
    assert_eq!(ask(setup.addr, &head).status, 431);
}

#[test]
fn a_visitor_of_a_refusing_service_gets_502() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://127.0.0.1:{}", free_port());
    let _client = client_of_id1(addr, &local);
    assert_eq!(get(addr, "id1.a", "/").status, 502);
}

#[test]
fn a_visitor_of_an_unreachable_service_gets_502() {
    let service = service::unanswering();
    let (_server, _client, addr) = http_tunnel(service.addr, "", "-localTimeout 500ms");
    let status = get(addr, "id1.a", "/").status;
    assert!(matches!(status, 502 | 504), "{status}");
}

#[test]
fn a_visitor_of_a_silent_service_gets_504() {
    let service = service::silent();
    let (_server, _client, addr) = http_tunnel(service.addr, "-timeout 2s", "-remoteTimeout 1s");
    assert_eq!(get(addr, "id1.a", "/").status, 504);
}

#[test]
fn a_visitor_of_an_absent_client_gets_503() {
    let service = service::http(0, "here");
    let (_server, mut client, addr) = http_tunnel(service.addr, "", "");
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    client.kill();
    assert_eq!(get(addr, "id1.a", "/").status, 503);
}

#[test]
fn a_visitor_of_a_user_that_never_connected_gets_503() {
    let scratch = Scratch::new();
    let users = "{id1: {secret: s}, Id2: {secret: s}, id3: {secret: s, host: {withID: true}}}";
    let users = scratch.file("users.yaml", users);
    let mut server = server(&format!("-addr 127.0.0.1:0 -users {}", users.display()));
    let addr = server.addr();
    for host in ["id1.a", "id2.a", "id3.a", "id3-shop.a"] {
        assert_eq!(get(addr, host, "/").status, 503, "{host}");
    }
    for host in ["id4.a", "id1-shop.a", "id.a", "a.id1"] {
        assert_eq!(get(addr, host, "/").status, 404, "{host}");
    }
}

#[test]
fn a_name_of_another_script_is_reached_as_browsers_write_it() {
    let service = service::http(0, "here");
    let (_server, mut client, addr) = http_tunnel(service.addr, "", "-hostPrefix Müller");
    for host in ["xn--mller-kva.a", "XN--MLLER-KVA.a", "müller.a"] {
        assert_eq!(get(addr, host, "/").status, 200, "{host}");
    }
    client.wait_for(&format!(
        "is at http://xn--mller-kva.localhost:{}/",
        addr.port()
    ));
}

#[test]
fn a_client_that_reconnects_soon_loses_no_request() {
    let service = service::http(0, "here");
    let (_server, mut client, addr) = http_tunnel(service.addr, "", "");
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    client.kill();
    let waiting = std::thread::spawn(move || get(addr, "id1.a", "/").status);
    let _again = client_of_id1(addr, &format!("-local http://{}", service.addr));
    assert_eq!(waiting.join().unwrap(), 200);
}

#[test]
fn services_are_selected_by_their_prefixes() {
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret secret1 -hostNumber 0");
    let addr = server.addr();
    let mut client = client(&format!(
        "-id id1 -secret secret1 -remote {addr} -local http://{} -hostPrefix one \
         -local http://{} -hostPrefix two",
        one.addr, two.addr
    ));
    client.wait_for_tunnel();
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");
    assert_eq!(get(addr, "two.a", "/").text(), "two / two.a");
    assert_eq!(get(addr, "three.a", "/").status, 404);
}

#[test]
fn a_visitor_that_disconnects_early_leaves_nothing_behind() {
    let setup = Setup::with("", "-remoteConnections 1");
    let before = (setup.server.fds(), setup.client.fds());
    for _ in 0..50 {
        let mut visitor = connect(setup.addr);
        write!(visitor, "GET /big HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("send");
        common::visitor::read(&mut visitor, 1000);
    }
    setup.server.wait_for_fds(before.0);
    setup.client.wait_for_fds(before.1);
    assert_eq!(get(setup.addr, "id1.a", "/").status, 200);
}

#[test]
fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let sample = std::sync::Arc::new(common::samples::Random::new(7).bytes(3 << 20));
    let service = service::source(sample.clone());
    let (_server, _client, addr) = http_tunnel(service.addr, "", "");
    let mut visitor = connect(addr);
    write!(visitor, "GET / HTTP/1.0\r\nHost: id1.a\r\n\r\n").expect("send");
    assert!(read_to_end(&mut visitor) == *sample, "the bytes differ");
}
