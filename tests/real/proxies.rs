//! Proxies in front of a server, which send several visitors' requests over one connection. Needs
//! nginx-light and caddy.

use crate::common;
use crate::common::gt::{client, server, Gt};
use crate::common::ports::free_port;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::service::Service;
use crate::common::visitor::{connect, read, read_answer, read_to_end};
use crate::common::{nginx, words};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{channel, Receiver};
use std::sync::Mutex;

const PAGE: &str = include_str!("../../docs/behind-a-proxy.md");

/// What a service does with a connection after a response.
#[derive(Clone, Copy, PartialEq)]
enum Behind {
    /// What the request says.
    AsAsked,
    /// Waits for the next request, whatever the last one said.
    KeepAlways,
}

/// A service that answers `name target`, or switches to an echo. It passes on the heads it gets.
fn service(name: &'static str, behind: Behind) -> (Service, Receiver<String>) {
    let (tell, heads) = channel();
    let tell = Mutex::new(tell);
    let service = Service::start(0, move |mut stream| {
        let mut requests = BufReader::new(stream.try_clone()?);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if requests.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let _ = tell.lock().unwrap().send(head.clone());
            let lower = head.to_ascii_lowercase();
            let field = |field: &str| {
                let line = lower.lines().find_map(|line| line.strip_prefix(field));
                line.map(|value| value.trim().to_owned())
            };
            let length = field("content-length:").map_or(0, |value| value.parse().unwrap());
            requests.read_exact(&mut vec![0; length])?;
            if head.starts_with("GET /switch ") {
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
                std::io::copy(&mut requests, &mut stream)?;
                return Ok(());
            }
            let mut line = head.split(' ');
            let (method, target) = (line.next().unwrap(), line.next().unwrap());
            let body = format!("{name} {target}");
            let close = field("connection:").is_some_and(|value| value.contains("close"))
                && behind == Behind::AsAsked;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}\r\n{}",
                body.len(),
                if close { "Connection: close\r\n" } else { "" },
                if method == "HEAD" { "" } else { &body }
            )?;
            if close {
                return Ok(());
            }
        }
    });
    (service, heads)
}

/// A server with two users, `one` and `two`, and a client of each.
struct Users {
    addr: SocketAddr,
    one: Receiver<String>,
    two: Receiver<String>,
    _server: Gt,
    _held: Vec<(Service, Gt)>,
}

fn users(more: &str, behind: Behind) -> Users {
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -id one -secret secret1 -id two -secret secret2 {more}"
    ));
    let addr = server.addr();
    let start = |id: &'static str, secret: &str| {
        let (service, heads) = service(id, behind);
        let mut client = client(&format!(
            "-remote {addr} -id {id} -secret {secret} -local http://{}",
            service.addr
        ));
        client.wait_for_tunnel();
        ((service, client), heads)
    };
    let (first, one) = start("one", "secret1");
    let (second, two) = start("two", "secret2");
    Users {
        addr,
        one,
        two,
        _server: server,
        _held: vec![first, second],
    }
}

/// Returns an example of the README: the text behind "```" and this language.
fn example(language: &str) -> String {
    let begin = format!("\n```{language}\n");
    let (_, rest) = PAGE.split_once(&begin).expect("an example");
    rest.split_once("\n```").expect("its end").0.to_owned()
}

/// Starts nginx as in the README, with kept connections to gt, the default of newer versions.
fn nginx_of_readme(gt: SocketAddr) -> (Process, SocketAddr) {
    let port = free_port();
    let config = example("nginx")
        .replace("127.0.0.1:8080;", &format!("{gt}; keepalive 4;"))
        .replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
    assert!(config.contains("keepalive") && config.contains(&port.to_string()));
    nginx::with_http(Scratch::new(), port, &config)
}

fn caddy_of_readme(gt: SocketAddr) -> (Process, SocketAddr) {
    let (port, scratch) = (free_port(), Scratch::new());
    let config = example("caddy")
        .replace("127.0.0.1:8080", &gt.to_string())
        .replace("*.example.com", &format!("http://:{port}"));
    assert!(config.contains(&gt.to_string()) && config.contains(&port.to_string()));
    let options = "{\n\tadmin off\n\tauto_https off\n}\n";
    let path = scratch.file("Caddyfile", format!("{options}{config}\n"));
    let mut command = Command::new("caddy");
    command.args(words("run --adapter caddyfile --config"));
    command.arg(path).env("HOME", scratch.path());
    command.env("XDG_DATA_HOME", scratch.path());
    command.env("XDG_CONFIG_HOME", scratch.path());
    let mut process = Process::spawn("caddy", scratch, &mut command);
    let addr = process.wait_for_listener(port);
    (process, addr)
}

/// Sends 1000 requests for both users through the proxy, over kept connections, and checks that
/// each reaches its user.
fn assert_none_is_misrouted(proxy: SocketAddr) {
    std::thread::scope(|scope| {
        for visitor in 0..4_u32 {
            scope.spawn(move || {
                let mut stream = connect(proxy);
                for number in 0..250_u32 {
                    // Neither the users nor the methods alternate.
                    let mixed = (number + 7 * visitor).wrapping_mul(2_654_435_769) >> 16;
                    let id = if mixed % 2 == 0 { "one" } else { "two" };
                    let (method, body) = match mixed / 2 % 4 {
                        0 => ("HEAD", ""),
                        1 => ("PUT", "some bytes"),
                        _ => ("GET", ""),
                    };
                    let target = format!("/{visitor}/{number}");
                    write!(
                        stream,
                        "{method} {target} HTTP/1.1\r\nHost: {id}.example.com\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                    .expect("send a request");
                    let expected = format!("{id} {target}");
                    if method == "HEAD" {
                        let head = read_head(&mut stream);
                        let length = format!("Content-Length: {}\r\n", expected.len());
                        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                        assert!(head.contains(&length), "{head}");
                    } else {
                        let answer = read_answer(&mut stream);
                        assert_eq!((answer.status, answer.text()), (200, expected));
                    }
                }
            });
        }
    });
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(stream, 1));
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn two_users_behind_nginx_get_their_own_requests() {
    let users = users("", Behind::AsAsked);
    let (_nginx, proxy) = nginx_of_readme(users.addr);
    assert_none_is_misrouted(proxy);
}

#[test]
fn two_users_behind_caddy_get_their_own_requests() {
    let users = users("", Behind::AsAsked);
    let (_caddy, proxy) = caddy_of_readme(users.addr);
    assert_none_is_misrouted(proxy);
}

#[test]
fn a_proxy_without_forwarding_headers_is_recognised_by_its_address() {
    let users = users("-frontProxies 127.0.0.0/8", Behind::AsAsked);
    let port = free_port();
    let (_nginx, proxy) = nginx::with_http(
        Scratch::new(),
        port,
        &format!(
            "upstream gt {{ server {}; keepalive 4; }}
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://gt;
                    proxy_http_version 1.1;
                    proxy_set_header Host $http_host;
                    proxy_set_header Connection \"\";
                }}
            }}",
            users.addr
        ),
    );
    assert_none_is_misrouted(proxy);
}

#[test]
fn nothing_behind_the_first_request_reaches_a_service() {
    for behind in [Behind::AsAsked, Behind::KeepAlways] {
        let users = users("", behind);
        let first = "PUT /1 HTTP/1.1\r\nHost: one.a\r\nConnection: keep-alive\r\n\
                     X-Forwarded-For: a\r\nContent-Length: 2\r\n\r\nab";
        let second = "GET /2 HTTP/1.1\r\nHost: two.a\r\n\r\n";
        // Both requests at once.
        let mut visitor = connect(users.addr);
        write!(visitor, "{first}{second}").expect("send");
        assert_eq!(read_answer(&mut visitor).text(), "one /1");
        assert_eq!(read_to_end(&mut visitor), b"");
        // The second behind the response to the first. It may find the connection closed.
        let mut visitor = connect(users.addr);
        visitor.write_all(first.as_bytes()).expect("send");
        assert_eq!(read_answer(&mut visitor).text(), "one /1");
        let _ = visitor.write_all(second.as_bytes());
        assert_eq!(read_to_end(&mut visitor), b"");

        let heads: Vec<String> = users.one.try_iter().collect();
        let expected = "PUT /1 HTTP/1.1\r\nHost: one.a\r\nX-Forwarded-For: a\r\n\
                        Content-Length: 2\r\nConnection: close\r\n\r\n";
        assert_eq!(heads, [expected, expected]);
        assert_eq!(users.two.try_iter().next(), None);
    }
}

#[test]
fn a_proxied_upgrade_is_untouched_and_ends_the_connection_if_denied() {
    let users = users("", Behind::KeepAlways);
    let head = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: one.a\r\nVia: 1.1 a\r\nConnection: Upgrade\r\n\
             Upgrade: x\r\n\r\n"
        )
    };
    let mut visitor = connect(users.addr);
    write!(visitor, "{}early\r\n\r\n", head("/switch")).expect("send");
    assert!(read_head(&mut visitor).starts_with("HTTP/1.1 101 "));
    visitor.write_all(b"late\0").expect("send");
    assert_eq!(read(&mut visitor, 14), b"early\r\n\r\nlate\0");
    assert_eq!(users.one.recv().unwrap(), head("/switch"));

    let mut visitor = connect(users.addr);
    write!(visitor, "{}", head("/denied")).expect("send");
    assert_eq!(read_answer(&mut visitor).text(), "one /denied");
    assert_eq!(users.one.recv().unwrap(), head("/denied"));
    let _ = write!(visitor, "GET / HTTP/1.1\r\nHost: two.a\r\n\r\n");
    assert_eq!(read_to_end(&mut visitor), b"");
    assert_eq!(
        users.one.try_iter().chain(users.two.try_iter()).next(),
        None
    );
}

#[test]
fn a_chunked_body_reaches_the_service_whole_through_a_proxy() {
    let (tell, bodies) = channel();
    let tell = Mutex::new(tell);
    let service = Service::start(0, move |mut stream| {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"0\r\nX: y\r\n\r\n") {
            let mut some = [0; 4096];
            match stream.read(&mut some)? {
                0 => break,
                n => bytes.extend_from_slice(&some[..n]),
            }
        }
        let _ = tell.lock().unwrap().send(bytes);
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    });
    let mut server = server("-addr 127.0.0.1:0 -id one -secret secret1");
    let addr = server.addr();
    let mut client = client(&format!(
        "-remote {addr} -id one -secret secret1 -local http://{}",
        service.addr
    ));
    client.wait_for_tunnel();
    let head = "PUT / HTTP/1.1\r\nHost: one.a\r\nVia: 1.1 a\r\nTransfer-Encoding: chunked\r\n";
    let mut body = Vec::new();
    for number in 0..200 {
        let chunk = vec![b'a' + number % 26; 1 + 61 * usize::from(number)];
        body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        body.extend(chunk);
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\nX: y\r\n\r\n");
    let mut visitor = connect(addr);
    write!(visitor, "{head}\r\n").expect("send");
    for piece in body.chunks(777) {
        visitor.write_all(piece).expect("send");
    }
    let came = bodies.recv_timeout(common::PATIENCE).expect("a body");
    let whole = [head.as_bytes(), b"Connection: close\r\n\r\n", &body].concat();
    assert!(came == whole, "the bytes differ");
    assert!(read_to_end(&mut visitor).starts_with(b"HTTP/1.1 204 "));
}

#[test]
fn front_proxies_change_with_a_reload() {
    let scratch = Scratch::new();
    let write_file = |more: &str| {
        let text =
            format!("users:\n  one: {{secret: secret1}}\noptions:\n  addr: 127.0.0.1:0\n{more}");
        scratch.file("server.yaml", text)
    };
    let file = write_file("");
    let mut server = server(&format!("-config {}", file.display()));
    let addr = server.addr();
    let (service, heads) = service("one", Behind::AsAsked);
    let mut client = client(&format!(
        "-remote {addr} -id one -secret secret1 -local http://{}",
        service.addr
    ));
    client.wait_for_tunnel();
    let request = "GET / HTTP/1.1\r\nHost: one.a\r\n\r\n";
    let mut visitor = connect(addr);
    for _ in 0..2 {
        visitor.write_all(request.as_bytes()).expect("send");
        assert_eq!(read_answer(&mut visitor).text(), "one /");
        assert_eq!(heads.recv().unwrap(), request);
    }
    write_file("  frontProxies: [192.0.2.1, 127.0.0.0/8]\n");
    server.reload();
    let mut visitor = connect(addr);
    visitor.write_all(request.as_bytes()).expect("send");
    assert_eq!(read_answer(&mut visitor).text(), "one /");
    assert!(heads.recv().unwrap().contains("\r\nConnection: close\r\n"));
    assert_eq!(read_to_end(&mut visitor), b"");
}
