//! `accessLog`: a line about each connection of a visitor, at either end.

use super::allow::{expect_reset_from, status_from, NAMED, NEIGHBOUR};
use crate::common::eventually;
use crate::common::gt::{client, client_of_id1, http_tunnel, server, server_of_id1, tcp_tunnel};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{ask, connect_from, read_answer};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Waits until a log has this many lines, and returns them.
pub fn lines(path: &Path, count: usize) -> Vec<String> {
    eventually("the lines of visits", || {
        let text = fs::read_to_string(path).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

/// Returns the value of a part of a line.
pub fn part<'a>(line: &'a str, name: &str) -> &'a str {
    let start = format!(" {name}=");
    let at = line
        .find(&start)
        .unwrap_or_else(|| panic!("{name} in {line}"));
    let rest = &line[at + start.len()..];
    match rest.strip_prefix('"') {
        Some(quoted) => &quoted[..quoted.find('"').unwrap()],
        None => rest.split(' ').next().unwrap(),
    }
}

fn parts<'a, const N: usize>(line: &'a str, names: [&str; N]) -> [&'a str; N] {
    names.map(|name| part(line, name))
}

#[test]
fn both_ends_log_a_visit_with_its_bytes() {
    let scratch = Scratch::new();
    let (here, there) = (scratch.join("server"), scratch.join("client"));
    let service = service::echo();
    let (_server, _client, addr) = tcp_tunnel(
        service.addr,
        &format!("-accessLog {}", here.display()),
        &format!("-proxyProtocol 1 -accessLog {}", there.display()),
    );
    let mut visitor = connect_from(NAMED, addr);
    let port = visitor.local_addr().expect("an address").port().to_string();
    // The service gets a header, which is not the visitor's, and echoes it.
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n") {
        header.extend(crate::common::visitor::read(&mut visitor, 1));
    }
    assert_echo(&mut visitor, &[7; 1000]);
    drop(visitor);
    let out = (1000 + header.len()).to_string();
    let port_service = format!("port {}", addr.port());
    let local = format!("tcp://{}", service.addr);
    for (path, service) in [(&here, port_service), (&there, local)] {
        let line = &lines(path, 1)[0];
        let names = ["id", "service", "visitor", "port", "way", "in", "out"];
        let expected = ["id1", &service, "127.0.0.9", &port, "tcp", "1000", &out];
        assert_eq!(parts(line, names), expected, "{line}");
        assert!(
            line.contains(" seconds=0.") || line.contains(" seconds="),
            "{line}"
        );
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        assert!(!line.contains(" request="), "{line}");
    }
}

#[test]
fn a_client_that_reads_requests_logs_the_first_one_and_its_status() {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let service = service::http(0, "web");
    let options = format!("-forwarded -accessLog {}", log.display());
    let (_server, _client, addr) = http_tunnel(service.addr, "", &options);
    let mut visitor = connect_from(NAMED, addr);
    for target in ["/a\"b\\c?d", "/second"] {
        write!(visitor, "GET {target} HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
        assert_eq!(read_answer(&mut visitor).status, 200);
    }
    drop(visitor);
    let line = &lines(&log, 1)[0];
    assert!(
        line.contains(r#" request="GET /a\"b\\c?d" status=200 in="#),
        "{line}"
    );
    assert_eq!(
        parts(line, ["visitor", "way", "end"]),
        ["127.0.0.9", "http", "closed"]
    );
}

#[test]
fn the_line_says_why_a_visitor_was_not_served() {
    let scratch = Scratch::new();
    let (here, there) = (scratch.join("server"), scratch.join("client"));
    let mut server = server_of_id1(&format!("-hostNumber 3 -accessLog {}", here.display()));
    let addr = server.addr();
    let web = service::http(0, "web");
    let _client = client_of_id1(
        addr,
        &format!(
            "-accessLog {} -local http://{} -hostPrefix web -deny {NAMED} \
             -local http://127.0.0.1:{} -hostPrefix gone -visitorRate 1/1h",
            there.display(),
            web.addr,
            free_port()
        ),
    );
    for (from, host, status, at_server, at_client) in [
        (NAMED, "web.a", 403, "denied", Some("denied")),
        (NEIGHBOUR, "gone.a", 502, "unreachable", Some("unreachable")),
        (NEIGHBOUR, "gone.a", 403, "denied", Some("denied")),
        (NEIGHBOUR, "nobody.a", 404, "no-such-host", None),
        (NEIGHBOUR, "id1.a", 503, "no-tunnel", None),
    ] {
        let (before, at) = (count(&here), count(&there));
        assert_eq!(status_from(from, addr, host), status, "{host}");
        let line = lines(&here, before + 1).pop().unwrap();
        assert_eq!(part(&line, "end"), at_server, "{line}");
        assert_eq!(part(&line, "visitor"), from.to_string(), "{line}");
        if let Some(how) = at_client {
            let line = lines(&there, at + 1).pop().unwrap();
            assert_eq!(part(&line, "end"), how, "{line}");
        }
    }
}

fn count(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_server_logs_those_that_its_rules_refuse() {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let service = service::echo();
    let options = format!("-deny {NAMED} -accessLog {}", log.display());
    let (_server, _client, addr) = tcp_tunnel(service.addr, &options, "");
    expect_reset_from(NAMED, addr);
    let line = &lines(&log, 1)[0];
    let names = ["visitor", "in", "out", "end"];
    assert_eq!(
        parts(line, names),
        ["127.0.0.9", "0", "0", "denied"],
        "{line}"
    );
}

#[test]
fn a_reload_opens_the_file_again_for_visits_that_have_begun_too() {
    let scratch = Scratch::new();
    let (log, old) = (scratch.join("log"), scratch.join("log.old"));
    let (service, port) = (service::echo(), free_port());
    let options = format!("-tcpNumber 1 -tcpRange {port} -accessLog {}", log.display());
    let mut server = server_of_id1(&options);
    let local = format!("-local tcp://{} -remoteTCPPort {port}", service.addr);
    let _client = client_of_id1(server.addr(), &local);
    let addr = ([127, 0, 0, 1], port).into();
    let first = super::allow::echo_from(NAMED, addr);
    let second = super::allow::echo_from(NEIGHBOUR, addr);
    drop(first);
    lines(&log, 1);
    fs::rename(&log, &old).expect("rename");
    server.reload();
    drop(second);
    assert_eq!(part(&lines(&log, 1)[0], "visitor"), NEIGHBOUR.to_string());
    assert_eq!(count(&old), 1);
}

#[test]
fn a_file_that_cannot_be_opened_again_stays_in_use_and_the_reload_applies() {
    let scratch = Scratch::new();
    let folder = scratch.dir("logs");
    let (log, service) = (folder.join("log"), service::http(0, "web"));
    let text = |rules: &str| {
        format!(
            "type: server\nusers: {{id1: {{secret: secret1}}}}\n\
             options: {{addr: \"127.0.0.1:0\", accessLog: {}{rules}}}\n",
            log.display()
        )
    };
    let config = scratch.file("gt.yaml", text(""));
    let mut server = server(&format!("-config {}", config.display()));
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
    lines(&log, 1);
    let moved = scratch.join("moved");
    fs::rename(&folder, &moved).expect("rename");
    scratch.file("gt.yaml", text(&format!(", deny: [{NAMED}]")));
    server.reload();
    let error = server.wait_for("It continues in the previous file.");
    assert!(error.contains("No such file"), "{error}");
    assert_eq!(status_from(NAMED, addr, "id1.a"), 403);
    assert_eq!(part(&lines(&moved.join("log"), 2)[1], "end"), "denied");
}

#[test]
fn the_file_is_rotated_like_the_log() {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let service = service::http(0, "web");
    let options = format!(
        "-accessLog {} -logFileMaxSize 400 -logFileMaxCount 2",
        log.display()
    );
    let (_server, _client, addr) = http_tunnel(service.addr, "", &options);
    for n in 1..=9 {
        assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
        eventually("the visit to be logged", || {
            let all = count(&log) + count(&scratch.join("log.1"));
            (all > 0 && all >= n.min(2)).then_some(())
        });
    }
    assert!(count(&log) <= 3 && count(&scratch.join("log.1")) <= 3);
    assert!(!scratch.join("log.2").exists());
}

#[test]
fn a_dash_is_the_log() {
    let service = service::http(0, "web");
    let (_server, mut client, addr) = http_tunnel(service.addr, "", "-accessLog -");
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
    let line = client.wait_for("visit id=id1");
    assert!(line.contains(" INF visit id=id1 service=http://"), "{line}");
    assert_eq!(part(&line, "visitor"), NAMED.to_string());
}

#[test]
fn a_visitor_that_moves_to_a_new_process_is_logged_there_alone() {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let service = service::http(0, "web");
    let config = scratch.file(
        "gt.yaml",
        format!(
            "type: server\nusers: {{id1: {{secret: secret1}}}}\n\
             options: {{addr: \"127.0.0.1:0\", accessLog: {}}}\n",
            log.display()
        ),
    );
    let mut server = server(&format!("-config {}", config.display()));
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    let _new = server.restart();
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
    assert_eq!(
        ask(addr, "GET / HTTP/1.1\r\nHost: nobody.a\r\n\r\n").status,
        404
    );
    let all = lines(&log, 2);
    assert_eq!(all.len(), 2, "{all:?}");
    let mut ends = [part(&all[0], "end"), part(&all[1], "end")];
    ends.sort();
    assert_eq!(ends, ["closed", "no-such-host"]);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let mut client =
        client("-remote 127.0.0.1:1 -id id1 -local http://127.0.0.1:1 -accessLog /nonexistent/log");
    let error = client.wait_for("The access log /nonexistent/log cannot be opened");
    assert!(error.contains("No such file"), "{error}");
    assert_eq!(client.exit().code(), Some(1));
}
