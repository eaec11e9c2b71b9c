//! Slow and silent ends cost only themselves, and nothing that moves counts as dead.

use crate::common::gt::{client, client_of_id1, server, server_of_id1, tcp_tunnel, Gt};
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::{connect, get, read, read_to_end};
use crate::common::{certs, eventually};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Returns the processor time of a process, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a live process");
    // The name in brackets may contain spaces; the fields behind it do not.
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
    // The service sends nothing, so all traffic goes one way.
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
    let (server, _client, at) = tcp_tunnel(sink.addr, "-timeout 1s", "");
    let mut visitor = connect(at);
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
    assert_eq!(server.closed(), 0, "{}", server.log());
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
    // The service has sent everything and closed; the visitor may still send, and reads nothing.
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

/// Starts a tunnel to two services, with the host prefixes `source` and `page`.
fn source_and_page(source: &Service, page: &Service, more: &str) -> (Gt, Gt, SocketAddr) {
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let local = format!(
        "-local http://{} -hostPrefix source -local http://{} -hostPrefix page",
        source.addr, page.addr
    );
    let client = client_of_id1(addr, &format!("-remoteConnections 1 {more} {local}"));
    (server, client, addr)
}

#[test]
fn a_visitor_that_does_not_read_delays_others_of_gt_1_for_ten_seconds_at_most() {
    let source = service::source(Arc::new(vec![7; 64 * 1024 * 1024]));
    let page = service::http(0, "page");
    let (_server, _client, addr) = source_and_page(&source, &page, "-wire 1");
    let mut lazy = connect(addr);
    write!(lazy, "GET / HTTP/1.1\r\nHost: source.a\r\n\r\n").unwrap();
    read(&mut lazy, 1);
    // Others wait at most until the stuck visitor is cut.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(14) {
        assert_eq!(get(addr, "page.a", "/").status, 200);
    }
    let rest = read_to_end_or_reset(&mut lazy);
    assert!(rest < 64 * 1024 * 1024 - 1, "it was cut");
}

#[test]
fn visitors_that_do_not_read_delay_no_other_and_lose_nothing() {
    let bytes = Arc::new(Random::new(1).bytes(16 << 20));
    let source = service::source(bytes.clone());
    let page = service::http(0, "page");
    let (_server, _client, addr) = source_and_page(&source, &page, "");
    let mut lazy = [(); 4].map(|()| {
        let mut visitor = connect(addr);
        write!(visitor, "GET / HTTP/1.1\r\nHost: source.a\r\n\r\n").expect("send");
        read(&mut visitor, 1);
        visitor
    });
    for _ in 0..200 {
        assert_eq!(get(addr, "page.a", "/").status, 200);
    }
    for visitor in &mut lazy {
        assert!(read_to_end(visitor) == bytes[1..], "the bytes differ");
    }
}

/// Returns how many bytes still come.
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
fn an_idle_shell_survives_the_timeout() {
    let echo = service::echo();
    let (_server, _client, at) = tcp_tunnel(echo.addr, "-timeout 3s", "-remoteTimeout 2s");
    let mut visitor = connect(at);
    assert_echo(&mut visitor, b"before");
    sleep(Duration::from_secs(5));
    assert_echo(&mut visitor, b"after");
}

/// Answers `GET /N` with N bytes.
fn of_any_length() -> Service {
    Service::start(0, |stream| {
        let mut line = String::new();
        let mut input = BufReader::new(stream);
        input.read_line(&mut line)?;
        let length = line.split(['/', ' ']).nth(2).unwrap_or_default();
        let length = length.parse().map_err(std::io::Error::other)?;
        input.get_mut().write_all(&vec![7; length])?;
        input.get_mut().shutdown(std::net::Shutdown::Write)?;
        std::io::copy(&mut input, &mut std::io::sink()).map(drop)
    })
}

/// A TLS visitor with small buffers that requests `length` bytes and then reads nothing.
fn lazy_over_tls(addr: SocketAddr, length: usize) -> Child {
    let way = TcpListener::bind("127.0.0.1:0").expect("listen");
    let at = way.local_addr().unwrap().to_string();
    let visitor = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &at])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut input = visitor.stdin.as_ref().expect("a pipe");
    write!(
        input,
        "GET /{length} HTTP/1.1\r\nHost: id1.example.com\r\n\r\n"
    )
    .expect("ask");
    let (near, _) = way.accept().expect("a visitor");
    let far = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    far.set_recv_buffer_size(4 << 10).unwrap();
    // The system gives a connection with short segments small buffers.
    far.set_tcp_mss(1000).unwrap();
    far.connect(&addr.into()).expect("connect");
    let far = TcpStream::from(far);
    let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::spawn(move || {
        // Its end must not reach the server.
        let _ = std::io::copy(&mut from, &mut to);
        std::thread::park();
    });
    // The server's part of the handshake.
    std::thread::spawn(move || std::io::copy(&mut far.take(3 << 10), &mut &near));
    visitor
}

#[test]
fn visitors_over_tls_that_stop_reading_are_closed_after_the_timeout() {
    let (certs, service) = (certs::make(), of_any_length());
    for wire in [1, 2] {
        let mut server = server(&format!(
            "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1 -timeout 2s \
             -apiAddr 127.0.0.1:0",
            certs.flags()
        ));
        let (addr, api) = (server.addr(), server.api_addr());
        let mut client = client(&format!(
            "-wire {wire} -remote tcp://{addr} -id id1 -secret secret1 -remoteTimeout 2s -remoteConnections 1 \
             -local http://{}",
            service.addr
        ));
        client.wait_for_tunnel();
        let before = server.fds();
        let addr = server.tls_addr();
        // In some cases TLS holds back the last bytes, in others the tunnel does.
        let lengths = (1..=20).map(|n| n * 8 * 1024);
        let visitors: Vec<_> = lengths.map(|length| lazy_over_tls(addr, length)).collect();
        eventually("all to be served", || {
            let page = get(api, "localhost", "/clients").text();
            page.contains("\"streamsTotal\": 20,").then_some(())
        });
        server.wait_for_fds(before);
        for mut visitor in visitors {
            visitor.kill().expect("kill");
            visitor.wait().expect("wait");
        }
    }
}

#[test]
fn a_visitor_that_is_cut_by_the_end_of_the_server_is_reset() {
    let source = service::source(Arc::new(vec![7; 16 << 20]));
    for wire in [1, 2] {
        let mut server = server_of_id1("");
        let addr = server.addr();
        let _client = client_of_id1(addr, &format!("-wire {wire} -local http://{}", source.addr));
        let mut visitor = connect(addr);
        write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").unwrap();
        read(&mut visitor, 1);
        assert_eq!(server.stop(), Some(0));
        let ended = visitor.read_to_end(&mut Vec::new());
        let error = ended.expect_err("a part that looks like all").kind();
        assert_eq!(error, std::io::ErrorKind::ConnectionReset, "GT/{wire}");
    }
}

#[test]
fn a_visitor_of_a_file_that_shrinks_while_it_is_sent_is_reset() {
    let folder = Scratch::new();
    let path = folder.file("large", "");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(256 << 20).expect("a large file");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local file://{}", folder.path().display());
    let _client = client_of_id1(addr, &local);
    let mut visitor = connect(addr);
    write!(visitor, "GET /large HTTP/1.1\r\nHost: id1.a\r\n\r\n").unwrap();
    read(&mut visitor, 1);
    file.set_len(1000).expect("a smaller file");
    let ended = visitor.read_to_end(&mut Vec::new());
    let error = ended.expect_err("a part that looks like all").kind();
    assert_eq!(error, std::io::ErrorKind::ConnectionReset);
}
