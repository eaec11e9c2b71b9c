//! `password` of `socks5:` and `httpproxy:`: visitors without it get nowhere.

use super::allow::{expect_reset_from, NAMED, NEIGHBOUR};
use super::proxies::{asked, mirror, Proxy, HERE};
use crate::common::gt::client;
use crate::common::password::alice;
use crate::common::service::{self, assert_echo};
use crate::common::socks::visit_as;
use crate::common::socks::{self, reply, request};
use crate::common::visitor::{connect, connect_from, read, read_to_end};
use std::io::Write;

fn options() -> String {
    format!("{HERE} -password {}", alice())
}

#[test]
fn a_visitor_of_socks5_needs_the_password() {
    let (echo, proxy) = (service::echo(), Proxy::socks(&options()));
    let port = echo.addr.port();
    for wrong in [
        ("alice", "secreT"),
        ("bob", "secret"),
        ("alice", ""),
        ("", "secret"),
        ("alice:secret", "x"),
    ] {
        let (mut visitor, code) = visit_as(connect(proxy.addr), wrong, "localhost", port);
        assert_eq!(code, None, "{wrong:?}");
        assert!(read_to_end(&mut visitor).is_empty());
    }
    for _ in 0..3 {
        let right = ("alice", "secret");
        let (mut visitor, code) = visit_as(connect(proxy.addr), right, "localhost", port);
        assert_eq!(code, Some(0));
        assert_echo(&mut visitor, b"anyone there?");
    }
    let mut visitor = connect(proxy.addr);
    visitor.write_all(socks::ANYONE).expect("greet");
    assert_eq!(read_to_end(&mut visitor), [5, 0xFF]);
    // What follows in one piece is not served before the password is right.
    let all = [
        socks::NAMED,
        &socks::login("alice", "wrong"),
        &request(1, "localhost", port),
    ];
    let mut visitor = connect(proxy.addr);
    visitor.write_all(&all.concat()).expect("send");
    assert_eq!(read_to_end(&mut visitor), [5, 2, 1, 1]);
}

#[test]
fn a_proxy_without_passwords_takes_any() {
    let (echo, proxy) = (service::echo(), Proxy::socks(HERE));
    let mut visitor = connect(proxy.addr);
    let all = [
        b"\x05\x01\x02",
        &socks::login("anyone", "anything")[..],
        &request(1, "localhost", echo.addr.port()),
    ];
    visitor.write_all(&all.concat()).expect("send");
    assert_eq!(read(&mut visitor, 4), [5, 2, 1, 0]);
    assert_eq!(reply(&mut visitor), 0);
    assert_echo(&mut visitor, b"anyone there?");
}

#[test]
fn a_visitor_of_an_http_proxy_needs_the_password_and_its_host_does_not_get_it() {
    let (mirror, proxy) = (mirror(), Proxy::http(&options()));
    let target = mirror.addr;
    let right = "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    let wrong = "Proxy-Authorization: Basic YWxpY2U6c2VjcmVU\r\n";
    let own = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    for (fields, status) in [
        (String::new(), 407),
        (wrong.to_owned(), 407),
        (own.to_owned(), 407),
        (format!("{right}{right}"), 407),
        (right.to_owned(), 200),
        (format!("{own}{right}"), 200),
    ] {
        for line in [format!("CONNECT {target}"), format!("GET http://{target}/")] {
            let text = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let visitor = connect(proxy.addr);
            if line.starts_with("CONNECT") && status == 200 {
                let mut writer = &visitor;
                writer.write_all(text.as_bytes()).expect("ask");
                assert!(read(&mut &visitor, 39).starts_with(b"HTTP/1.1 200 "));
                continue;
            }
            let answer = asked(&visitor, &text);
            assert_eq!(answer.status, status, "{line} {fields}");
            if status == 407 {
                let asks = "Proxy-Authenticate: Basic realm=\"gt\", charset=\"UTF-8\"";
                assert!(answer.head.contains(asks), "{}", answer.head);
            } else {
                let seen = answer.text();
                assert!(!seen.contains("Proxy-Authorization"), "{seen}");
                assert_eq!(
                    seen.contains("Authorization: "),
                    fields.starts_with(own),
                    "{seen}"
                );
            }
        }
    }
}

#[test]
fn guessing_passwords_leads_to_a_ban() {
    let echo = service::echo();
    let port = echo.addr.port();
    for local in ["socks5:", "httpproxy:"] {
        let mut proxy = Proxy::start(local, &format!("{} -visitorRate 6/1h", options()));
        // Each counts twice: as a connection, and as a wrong password.
        for n in 0..3 {
            let visitor = connect_from(NAMED, proxy.addr);
            match local {
                "socks5:" => {
                    let wrong = ("alice", "wrong");
                    assert_eq!(visit_as(visitor, wrong, "localhost", port).1, None, "{n}");
                }
                _ => {
                    let basic = "Proxy-Authorization: Basic YWxpY2U6c2VjcmVU";
                    let text = format!("CONNECT {} HTTP/1.1\r\n{basic}\r\n\r\n", echo.addr);
                    assert_eq!(asked(&visitor, &text).status, 407, "{n}");
                }
            }
        }
        expect_reset_from(NAMED, proxy.addr);
        let warning = proxy.client.wait_for("(visitorRate)");
        assert!(warning.contains("or given it wrong passwords"), "{warning}");
        drop(connect_from(NEIGHBOUR, proxy.addr));
    }
}

#[test]
fn gt_warns_of_a_password_that_others_can_read() {
    let mut client = client(&format!(
        "-id id1 -secret s -remote tcp://127.0.0.1:1 -local socks5: -remoteTCPRandom -password {}",
        alice()
    ));
    let warning = client.wait_for("is not encrypted");
    assert!(
        warning.contains("socks5: has a password, but the line to"),
        "{warning}"
    );
}
