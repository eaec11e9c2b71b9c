//! Slow and silent ends: they cost themselves, and nothing that moves is taken for dead.

#![cfg(all(feature = "server", feature = "client"))]

mod common;

use common::eventually;
use common::gt::{client_of_id1, server_of_id1};
use common::ports::free_port;
use common::service::{self, assert_echo, Service};
use common::visitor::{connect, get, read, read_to_end};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Processor time of a process so far, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a live process");
    // The name in brackets may hold blanks; the fields behind it may not.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let field = |n: usize| fields[n].parse::<u64>().expect("a number");
    field(11) + field(12)
}

#[test]
fn an_upload_that_takes_longer_than_the_timeout_arrives() {
    // It says nothing at all, so everything goes one way.
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let arriving = arrived.clone();
    let sink = Service::start(0, move |mut stream| {
        let mut piece = [0; 65536];
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                n => arriving.lock().unwrap().extend_from_slice(&piece[..n]),
            }
        }
    });
    let port = free_port();
    let mut server = server_of_id1(&format!("-timeout 1s -tcpNumber 1 -tcpRange {port}"));
    let local = format!("-local tcp://{} -remoteTCPPort {port}", sink.addr);
    let _client = client_of_id1(server.addr(), &local);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    let begun = Instant::now();
    let mut sent = Vec::new();
    while begun.elapsed() < Duration::from_secs(4) {
        let piece = vec![sent.len() as u8; 5000];
        visitor.write_all(&piece).expect("the tunnel is there");
        sent.extend(piece);
        sleep(Duration::from_millis(50));
    }
    eventually("the whole upload", || {
        (arrived.lock().unwrap().len() >= sent.len()).then_some(())
    });
    assert!(*arrived.lock().unwrap() == sent);
    assert_eq!(
        server.lines_with("tunnel closed").len(),
        0,
        "{}",
        server.log()
    );
}

#[test]
fn a_visitor_that_does_not_read_its_last_bytes_costs_no_processor_time() {
    let bytes = Arc::new(vec![7; 12 * 1024 * 1024]);
    let source = service::source(bytes.clone());
    let mut server = server_of_id1("");
    let addr = server.addr();
    let client = client_of_id1(addr, &format!("-local http://{}", source.addr));
    let mut visitor = connect(addr);
    write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").unwrap();
    // The service has said all and gone; the visitor has one more word and reads nothing.
    let idle = |pid| {
        let (before, begun) = (ticks(pid), Instant::now());
        sleep(Duration::from_millis(500));
        let spent = ticks(pid) - before;
        let share = spent as f32 / 100.0 / begun.elapsed().as_secs_f32();
        share < 0.5
    };
    eventually("the first bytes", || {
        (visitor.peek(&mut [0; 1]).ok()? > 0).then_some(())
    });
    visitor.write_all(b"x").unwrap();
    sleep(Duration::from_millis(300));
    assert!(idle(server.pid()), "the server spins");
    assert!(idle(client.pid()), "the client spins");
    let got = read_to_end(&mut visitor);
    assert!(got == *bytes, "{} of {} bytes", got.len(), bytes.len());
}

#[test]
fn a_visitor_that_does_not_read_holds_up_others_of_gt_1_for_ten_seconds_at_most() {
    let source = service::source(Arc::new(vec![7; 64 * 1024 * 1024]));
    let page = service::http(0, "page");
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let _client = client_of_id1(
        addr,
        &format!(
            "-wire 1 -remoteConnections 1 \
             -local http://{} -hostPrefix source -local http://{} -hostPrefix page",
            source.addr, page.addr
        ),
    );
    let mut lazy = connect(addr);
    write!(lazy, "GET / HTTP/1.1\r\nHost: source.a\r\n\r\n").unwrap();
    read(&mut lazy, 1);
    // Others may have to wait until the lazy one is cut, and no longer.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(14) {
        assert_eq!(get(addr, "page.a", "/").status, 200);
    }
    let rest = read_to_end_or_reset(&mut lazy);
    assert!(rest < 64 * 1024 * 1024 - 1, "it was cut");
}

/// How many bytes still come.
fn read_to_end_or_reset(stream: &mut std::net::TcpStream) -> usize {
    let (mut count, mut piece) = (0, [0; 65536]);
    loop {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => count += n,
            Ok(0) | Err(_) => return count,
        }
    }
}

#[test]
fn a_shell_may_be_left_alone_for_longer_than_the_timeout() {
    let echo = service::echo();
    let port = free_port();
    let mut server = server_of_id1(&format!("-timeout 3s -tcpNumber 1 -tcpRange {port}"));
    let local = format!(
        "-remoteTimeout 2s -local tcp://{} -remoteTCPPort {port}",
        echo.addr
    );
    let _client = client_of_id1(server.addr(), &local);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    sleep(Duration::from_secs(5));
    assert_echo(&mut visitor, b"after");
}
