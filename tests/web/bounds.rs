//! What others can make the page hold, and that it serves meanwhile.

use crate::common::eventually;
use crate::common::visitor::{connect, connect_from, read_answer, read_to_end};
use crate::page::{password_line, send, Paged, BASIC};
use std::io::{Read, Write};
use std::net::TcpStream;

fn page() -> Paged {
    Paged::start(&format!(
        "options: {{addr: '127.0.0.1:0', webAddr: '127.0.0.1:0'}}\nusers: {{a: {{secret: b}}}}\n{}",
        password_line()
    ))
}

fn head(page: &Paged, line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", page.addr)
}

#[test]
fn bodies_are_bounded_before_and_after_the_login() {
    let page = page();
    let long = |fields: &str, length: usize, path: &str| {
        let mut stream = connect(page.addr);
        let fields =
            format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{fields}");
        stream
            .write_all(head(&page, &format!("POST {path}"), &fields).as_bytes())
            .expect("send");
        read_answer(&mut stream).status
    };
    assert_eq!(long("", 4097, "/api/login"), 413);
    assert_eq!(long("", 1 << 40, "/api/login"), 413);
    assert_eq!(long(BASIC, (1 << 20) + 1, "/api/config/check"), 413);
    assert_eq!(long("", 1 << 30, "/api/config/check"), 401);
    let text = serde_json::json!({"text": "#".repeat(1 << 19)}).to_string();
    let (status, value) = page.call("POST", "/api/config/check", &text);
    assert_eq!(
        (status, &value["ok"]),
        (200, &serde_json::Value::Bool(false)),
        "{value}"
    );
}

#[test]
fn malformed_requests_get_errors_and_the_page_goes_on() {
    let page = page();
    let status = |bytes: &[u8]| {
        let mut stream = connect(page.addr);
        stream.write_all(bytes).expect("send");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = read_to_end(&mut stream);
        let text = String::from_utf8_lossy(&answer).into_owned();
        text.get(9..12).unwrap_or_default().to_owned()
    };
    assert_eq!(status(b"\x16\x03\x01\x00\xa5"), "400");
    assert_eq!(status(b"GET /\r\n\r\n"), "400");
    let of = |line: &str, fields: &str| status(head(&page, line, fields).as_bytes());
    assert_eq!(of("GET /", &"A: b\r\n".repeat(65)), "431");
    assert_eq!(of("GET /", &format!("A: {}\r\n", "b".repeat(9000))), "431");
    assert_eq!(of("BREW /", ""), "405");
    assert_eq!(
        of("POST /api/login", "Transfer-Encoding: chunked\r\n"),
        "411"
    );
    assert_eq!(of("GET /%2", ""), "400");
    for body in [
        "{",
        "[1",
        "{\"admin\": 1, \"password\": []}",
        "null",
        "[[[[[[[",
    ] {
        assert_eq!(
            send(page.addr, "POST", "/api/login", "", body).status,
            400,
            "{body}"
        );
    }
    let deep = "[".repeat(4000);
    assert_eq!(send(page.addr, "POST", "/api/login", "", &deep).status, 400);
    assert_eq!(page.call("GET", "/api/status", "").0, 200);
}

#[test]
fn one_address_has_a_bounded_number_of_connections_and_others_are_served() {
    let page = page();
    let mut held: Vec<TcpStream> = (0..100).map(|_| connect(page.addr)).collect();
    // Those beyond the limit are closed at once.
    eventually("connections to be closed", || {
        let mut closed = 0;
        for stream in &mut held {
            stream.set_nonblocking(true).expect("not wait");
            if let Ok(0) = stream.peek(&mut [0]) {
                closed += 1;
            }
        }
        (closed >= 60).then_some(())
    });
    let open = page.gt.fds();
    assert!(open < 100, "{open} descriptors");
    let other = "127.0.0.2".parse().expect("an address");
    let mut stream = connect_from(other, page.addr);
    stream
        .write_all(head(&page, "GET /api/status", BASIC).as_bytes())
        .expect("send");
    assert_eq!(read_answer(&mut stream).status, 200);
    drop(held);
    eventually("places to be free again", || {
        let mut stream = connect(page.addr);
        let _ = stream.write_all(
            head(
                &page,
                "GET /api/status",
                &format!("{BASIC}Connection: close\r\n"),
            )
            .as_bytes(),
        );
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes.starts_with(b"HTTP/1.1 200").then_some(())
    });
}

#[test]
fn two_addresses_take_no_place_of_others() {
    let page = page();
    // One that is signed in, and goes on.
    let mut signed_in = connect(page.addr);
    let request = head(&page, "GET /api/status", BASIC);
    signed_in.write_all(request.as_bytes()).expect("send");
    assert_eq!(read_answer(&mut signed_in).status, 200);
    let from = |n: u8| std::net::Ipv4Addr::new(127, 0, 0, n);
    let mut held: Vec<TcpStream> = Vec::new();
    for n in 0..80 {
        held.push(connect_from(from(1 + n % 2), page.addr));
    }
    let mut other = connect_from(from(3), page.addr);
    other.write_all(request.as_bytes()).expect("send");
    assert_eq!(read_answer(&mut other).status, 200);
    signed_in.write_all(request.as_bytes()).expect("send");
    assert_eq!(read_answer(&mut signed_in).status, 200);
    assert!(page.gt.fds() < 100, "{} descriptors", page.gt.fds());
}

#[test]
fn a_connection_carries_several_requests_and_pipelined_ones() {
    let page = page();
    let mut stream = connect(page.addr);
    let request = head(&page, "GET /api/session", BASIC);
    stream
        .write_all(request.repeat(3).as_bytes())
        .expect("send");
    for _ in 0..3 {
        assert_eq!(read_answer(&mut stream).status, 200);
    }
    let to_head = head(&page, "HEAD /api/session", BASIC);
    stream
        .write_all(format!("{to_head}{request}").as_bytes())
        .expect("send");
    let mut first = Vec::new();
    while !first.ends_with(b"\r\n\r\n") {
        first.extend(crate::common::visitor::read(&mut stream, 1));
    }
    assert_eq!(read_answer(&mut stream).status, 200);
    // A body whose sender waits for permission.
    let body = "{\"text\": \"a: b\"}";
    let fields = format!(
        "{BASIC}Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    stream
        .write_all(head(&page, "POST /api/config/check", &fields).as_bytes())
        .expect("send");
    let go = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(
        crate::common::visitor::read(&mut stream, go.len()),
        go.as_bytes()
    );
    stream.write_all(body.as_bytes()).expect("send");
    assert_eq!(read_answer(&mut stream).status, 200);
}

#[test]
fn slow_senders_are_cut_and_hold_up_no_other() {
    let page = page();
    // Six that never end their heads, and six that never end their bodies.
    let mut slow: Vec<TcpStream> = (0..12)
        .map(|n| {
            let mut stream = connect(page.addr);
            let bytes = match n % 2 {
                0 => format!("GET / HTTP/1.1\r\nHost: {}\r\nA: ", page.addr),
                _ => head(
                    &page,
                    "POST /api/login",
                    "Content-Type: application/json\r\nContent-Length: 100\r\n",
                ),
            };
            stream.write_all(bytes.as_bytes()).expect("send");
            stream
        })
        .collect();
    assert_eq!(page.call("GET", "/api/status", "").0, 200);
    for stream in &mut slow {
        let answer = read_to_end(stream);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    }
}
