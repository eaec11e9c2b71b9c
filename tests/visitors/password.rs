//! `password`: requests without the name and the password of a visitor do not reach the service.

use super::allow::{Filed, NAMED, NEIGHBOUR};
use crate::common::curl::{curl, https, url};
use crate::common::gt::{client, client_of_id1, gt, http_tunnel, server_of_id1, tls_tunnel, GT};
use crate::common::password::{alice, hash};
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::service::{answering, Service};
use crate::common::visitor::{connect, connect_from, read_answer, read_to_end, Answer};
use crate::common::{certs, eventually};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

/// The fields of alice with her password, with a wrong one, and of somebody who has none.
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
const WRONG: &str = "Authorization: Basic YWxpY2U6c2VjcmVU\r\n";
const NOBODY: &str = "Authorization: Basic Ym9iOnNlY3JldA==\r\n";

/// A service that answers with the head of the request.
fn service() -> Service {
    answering(0, |request| request.head.into_bytes())
}

fn password() -> String {
    format!("-password {}", alice())
}

fn asked(mut visitor: &TcpStream, fields: &str) -> Answer {
    write!(visitor, "GET /a HTTP/1.1\r\nHost: id1.a\r\n{fields}\r\n").expect("ask");
    read_answer(&mut visitor)
}

fn status_from(from: Ipv4Addr, addr: SocketAddr, fields: &str) -> u16 {
    asked(&connect_from(from, addr), fields).status
}

fn status(addr: SocketAddr, fields: &str) -> u16 {
    status_from(NAMED, addr, fields)
}

#[test]
fn requests_without_the_password_do_not_reach_the_service_and_those_with_it_come_without_it() {
    let service = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", &password());
    let mut refused = connect(addr);
    write!(refused, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").unwrap();
    let text = String::from_utf8(read_to_end(&mut refused)).unwrap();
    assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{text}");
    let field = "\r\nWWW-Authenticate: Basic realm=\"gt\", charset=\"UTF-8\"\r\n";
    assert!(text.contains(field), "{text}");
    for fields in [
        WRONG,
        NOBODY,
        &format!("{WRONG}{ALICE}"),
        &format!("{ALICE}{ALICE}"),
        "Authorization: Basic YWxpY2U6\r\n",
        "Authorization: Basic YWxpY2U\r\n",
        "Authorization: Basic alice:secret\r\n",
        "Authorization: Basic \r\n",
        "Authorization: Bearer YWxpY2U6c2VjcmV0\r\n",
        "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
        "X-Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
        "Authorization: YWxpY2U6c2VjcmV0\r\n",
    ] {
        assert_eq!(status(addr, fields), 401, "{fields}");
    }
    for fields in [ALICE, "aUTHORIZATION:\tbasic  YWxpY2U6c2VjcmV0 \r\n"] {
        let answer = asked(
            &connect(addr),
            &format!("Accept: x\r\n{fields}Range: y\r\n"),
        );
        let head = answer.text();
        assert_eq!(answer.status, 200, "{head}");
        assert!(head.contains("\r\nAccept: x\r\nRange: y\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
}

/// Returns the address of a TCP port at which the requests of one connection reach an HTTP service.
fn port_of(service: &Service, options: &str) -> (impl Sized, impl Sized, SocketAddr) {
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let local = format!("-local http://{} -remoteTCPRandom {options}", service.addr);
    let mut client = client_of_id1(server.addr(), &local);
    let addr = SocketAddr::from(([127, 0, 0, 1], client.wait_for_port(0)));
    (server, client, addr)
}

#[test]
fn every_request_of_a_connection_is_checked() {
    let service = service();
    let (_server, _client, addr) = port_of(&service, &password());
    let visitor = connect(addr);
    for _ in 0..3 {
        assert_eq!(asked(&visitor, ALICE).status, 200);
    }
    assert_eq!(asked(&visitor, "").status, 401);
    assert!(read_to_end(&mut &visitor).is_empty());
    // In one piece: the second is answered after the first, and the third is not read.
    let mut visitor = connect(addr);
    let get = |fields| format!("GET /a HTTP/1.1\r\nHost: id1.a\r\n{fields}\r\n");
    let pipelined = [get(ALICE), get(WRONG), get(ALICE)].concat();
    visitor.write_all(pipelined.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut visitor).status, 200);
    assert_eq!(read_answer(&mut visitor).status, 401);
    assert!(read_to_end(&mut visitor).is_empty());
    // Byte by byte, with a body.
    let mut visitor = connect(addr);
    let post = format!("POST /a HTTP/1.1\r\nHost: id1.a\r\nContent-Length: 3\r\n{ALICE}\r\nabc");
    for byte in post.as_bytes() {
        visitor.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_answer(&mut visitor).status, 200);
    assert_eq!(asked(&visitor, ALICE).status, 200);
}

#[test]
fn an_upgrade_needs_the_password_and_what_follows_it_does_not() {
    let service = Service::start(0, |mut visitor| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            visitor.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        visitor.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")?;
        let mut piece = [0; 5];
        visitor.read_exact(&mut piece)?;
        visitor.write_all(&piece)
    });
    let (_server, _client, addr) = port_of(&service, &password());
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
    assert_eq!(status(addr, upgrade), 401);
    let mut visitor = connect(addr);
    write!(
        visitor,
        "GET / HTTP/1.1\r\nHost: a\r\n{upgrade}{ALICE}\r\nhello"
    )
    .unwrap();
    let all = String::from_utf8(read_to_end(&mut visitor)).unwrap();
    assert!(
        all.starts_with("HTTP/1.1 101 ") && all.ends_with("\r\n\r\nhello"),
        "{all}"
    );
}

#[test]
fn shared_files_need_the_password() {
    let folder = Scratch::new();
    folder.file("a", "content");
    let mut server = server_of_id1("");
    let log = folder.join("log");
    let line = format!(
        "-local file://{} {} -accessLog {}",
        folder.path().display(),
        password(),
        log.display()
    );
    let mut client = client_of_id1(server.addr(), &line);
    client.wait_for_tunnel();
    let addr = server.addr();
    assert_eq!(status(addr, ""), 401);
    assert_eq!(status(addr, WRONG), 401);
    assert_eq!(asked(&connect(addr), ALICE).text(), "content");
    let lines = eventually("three visits", || {
        let text = fs::read_to_string(&log).ok()?;
        (text.lines().count() == 3).then_some(text)
    });
    let told = [
        "\"GET /a\" status=401 ",
        "\"GET /a\" status=401 ",
        "\"GET /a\" status=200 ",
    ];
    for (line, told) in lines.lines().zip(told) {
        assert!(line.contains(told), "{line}");
    }
}

#[test]
fn over_tls_and_gt1_the_password_is_asked_for_too() {
    let service = service();
    let certs = certs::make();
    let (_server, _client, addr) = tls_tunnel(&certs, service.addr, "", &password());
    let code = "-o /dev/null -w %{http_code}";
    let reply = |more: &str| {
        https(
            "id1.example.com",
            addr,
            &certs.ca,
            &format!("{code} {more}"),
        )
        .text()
        .to_owned()
    };
    assert_eq!(reply(""), "401");
    assert_eq!(reply("-u alice:secret"), "200");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://{} -wire 1 {}", service.addr, password());
    let mut client = client_of_id1(addr, &local);
    client.wait_for_tunnel();
    assert_eq!(status(addr, WRONG), 401);
    assert_eq!(status(addr, ALICE), 200);
}

#[test]
fn curl_sends_the_password_when_it_is_asked_for() {
    let service = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", &password());
    let page = url("http", "id1.a", addr, "/");
    for (options, code) in [("-u alice:secret --anyauth", "200"), ("-u alice:x", "401")] {
        let reply = curl(&format!("-o /dev/null -w %{{http_code}} {options} {page}"));
        assert_eq!(reply.text(), code);
    }
}

#[test]
fn wrong_passwords_count_for_the_ban() {
    let service = service();
    let options = format!("{} -visitorRate 5/1h", password());
    let (_server, _client, addr) = http_tunnel(service.addr, "", &options);
    // Each one is a connection and a failure.
    for (fields, expected) in [(ALICE, 200), (WRONG, 401), (WRONG, 401), (ALICE, 403)] {
        assert_eq!(status(addr, fields), expected, "{fields}");
    }
    // A browser that does not know the password yet has not failed.
    for (fields, expected) in [
        ("", 401),
        (ALICE, 200),
        ("", 401),
        (ALICE, 200),
        ("", 401),
        ("", 403),
    ] {
        assert_eq!(status_from(NEIGHBOUR, addr, fields), expected, "{fields}");
    }
}

#[test]
fn a_reload_ends_connections_of_those_whose_password_is_gone() {
    let service = service();
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let fields = format!("local: \"http://{}\", remoteTCPRandom: true", service.addr);
    let both = format!(
        ", password: [\"{}\", \"{}\"]",
        alice(),
        hash("bob", "secret")
    );
    let one = format!(", password: [\"{}\"]", alice());
    let mut filed = Filed::client(server.addr(), fields, &one);
    let addr = SocketAddr::from(([127, 0, 0, 1], filed.gt.wait_for_port(0)));
    let visitor = connect(addr);
    assert_eq!(asked(&visitor, ALICE).status, 200);
    assert_eq!(status(addr, NOBODY), 401);
    // One more: it may come on the same connection, as behind a proxy.
    filed.reload(&both);
    assert_eq!(asked(&visitor, NOBODY).status, 200);
    assert_eq!(asked(&visitor, ALICE).status, 200);
    filed.reload(&one);
    assert!(read_to_end(&mut &visitor).is_empty());
    assert_eq!(status(addr, NOBODY), 401);
    let visitor = connect(addr);
    assert_eq!(asked(&visitor, ALICE).status, 200);
    // None needed, and needed again.
    filed.reload("");
    assert_eq!(asked(&visitor, "").status, 200);
    assert_eq!(status(addr, ""), 200);
    filed.reload(&one);
    assert!(read_to_end(&mut &visitor).is_empty());
    assert_eq!(status(addr, ""), 401);
}

#[test]
fn many_wrong_passwords_at_once_delay_nobody_whose_password_is_known() {
    let service = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", &password());
    assert_eq!(status_from(NEIGHBOUR, addr, ALICE), 200);
    let mut visitors = Vec::new();
    for n in 0..100 {
        let mut visitor = connect_from(Ipv4Addr::new(127, 0, 1, n), addr);
        write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n{WRONG}\r\n").unwrap();
        visitors.push(visitor);
    }
    assert_eq!(status_from(NEIGHBOUR, addr, ALICE), 200);
    for visitor in &mut visitors {
        let answer = read_answer(visitor);
        assert!(matches!(answer.status, 401 | 503), "{}", answer.text());
    }
}

#[test]
fn trailers_cannot_bring_a_password() {
    let service = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", &password());
    let post = format!(
        "POST /a HTTP/1.1\r\nHost: id1.a\r\nTransfer-Encoding: chunked\r\n{ALICE}\r\n0\r\n{WRONG}\r\n"
    );
    let mut visitor = connect(addr);
    visitor.write_all(post.as_bytes()).unwrap();
    let text = String::from_utf8(read_to_end(&mut visitor)).unwrap();
    assert!(
        !text.contains("Authorization") && !text.starts_with("HTTP/1.1 200"),
        "{text}"
    );
}

/// Types `keys` at a terminal at which `gt hash` runs, and returns all that is on the screen.
fn typed(keys: &str) -> String {
    let bytes = keys.as_bytes();
    let script = format!(
        "import os, pty, sys\n\
         pid, screen = pty.fork()\n\
         if pid == 0: os.execv({GT:?}, [\"gt\", \"hash\", \"alice\"])\n\
         shown = b\"\"\n\
         def wait(text):\n\
         \x20   global shown\n\
         \x20   while text not in shown:\n\
         \x20       try: more = os.read(screen, 1000)\n\
         \x20       except OSError: break\n\
         \x20       if not more: break\n\
         \x20       shown += more\n\
         wait(b\"Password: \")\n\
         os.write(screen, bytes({bytes:?}))\n\
         wait(b\"\\0\")\n\
         os.waitpid(pid, 0)\n\
         sys.stdout.buffer.write(shown)\n"
    );
    run_ok(Command::new("/usr/bin/python3").args(["-c", &script]))
}

#[test]
fn at_a_terminal_the_password_is_asked_for_twice_and_not_shown() {
    let screen = typed("secret\nsecret\n");
    let hash =
        screen.strip_prefix("Password: \r\nThe same again: \r\nalice:$pbkdf2-sha256$i=310000$");
    assert!(hash.is_some(), "{screen}");
    for (keys, why) in [
        ("secret\nsecreT\n", "two different passwords"),
        ("sec\u{3}", "interrupted"),
        ("\n\n", "the password is empty"),
    ] {
        let screen = typed(keys);
        assert!(screen.contains(why), "{screen}");
        assert!(
            !screen.contains("sec") && !screen.contains("pbkdf2"),
            "{screen}"
        );
    }
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    for line in ["hash alice secret", "hash alice:secret", "hash -user alice"] {
        let output = gt(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_service_whose_visitors_cannot_be_asked_is_an_error_and_hashes_are_not_logged() {
    for (options, why) in [
        (
            "-local tcp://127.0.0.1:1 -remoteTCPPort 1",
            "does not begin with http:// or file://",
        ),
        (
            "-local https://127.0.0.1:1",
            "does not begin with http:// or file://",
        ),
        (
            &format!("-local http://127.0.0.1:1 {}", password()),
            "two passwords of \"alice\"",
        ),
        ("-local http://127.0.0.1:1 -password=", "is empty"),
        (
            "-local http://127.0.0.1:1 -password alice:secret",
            "Write what \"gt hash USER\" prints",
        ),
    ] {
        let line = format!(
            "check client -id a -remote tls://h:1 {options} {}",
            password()
        );
        let output = gt(&line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(why), "{error}");
        assert!(
            !error.contains("secret") && !error.contains("pbkdf2"),
            "{error}"
        );
    }
    let service = service();
    let mut client = client(&format!(
        "-id id1 -secret s -remote tcp://127.0.0.1:1 -local http://{} {}",
        service.addr,
        password()
    ));
    let shown = client.wait_for("config=");
    assert!(shown.contains("\"password\":"), "{shown}");
    assert!(!shown.contains("pbkdf2"), "{shown}");
    let warning = client.wait_for("is not encrypted");
    assert!(
        warning.contains("has a password, but the line to tcp://127.0.0.1:1"),
        "{warning}"
    );
}

#[test]
fn services_that_are_reached_alike_never_have_the_passwords_of_another() {
    let service = service();
    let mut server = server_of_id1("-tcpNumber 2 -tcpRange 1024-65535");
    let remote = server.addr();
    let local = format!("local: \"http://{}\", remoteTCPRandom: true", service.addr);
    let other = format!("- {{{local}}}\n");
    let fields = local.clone();
    let text = move |password: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1}}\nservices:\n{other}\
             - {{{fields}, password: [\"{password}\"]}}\n"
        )
    };
    let mut filed = Filed::start("client", text, alice());
    let ports = [0, 1].map(|index| filed.gt.wait_for_port(index));
    let [open, guarded] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(status(open, ""), 200);
    assert_eq!(status(guarded, ""), 401);
    let visitor = connect(guarded);
    assert_eq!(asked(&visitor, ALICE).status, 200);
    filed.reload(&hash("alice", "changed"));
    assert!(read_to_end(&mut &visitor).is_empty());
    assert_eq!(status(open, ""), 200);
    assert_eq!(status(guarded, ALICE), 401);
}

#[test]
fn a_reload_that_renames_a_service_ends_connections_without_its_password() {
    let service = service();
    let mut server = server_of_id1("-hostNumber 2 -tcpNumber 1 -tcpRange 1024-65535");
    let remote = server.addr();
    let local = service.addr;
    let text = move |options: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1}}\nservices:\n\
             - {{local: \"http://{local}\", {options}}}\n"
        )
    };
    let with = |name: &str, password: &str| format!("{name}, password: [\"{password}\"]");
    let port = "remoteTCPRandom: true";
    let mut filed = Filed::start("client", text, port);
    let addr = SocketAddr::from(([127, 0, 0, 1], filed.gt.wait_for_port(0)));
    let visitor = connect(addr);
    assert_eq!(asked(&visitor, "").status, 200);
    filed.reload(&with("hostPrefix: web", alice()));
    assert!(read_to_end(&mut &visitor).is_empty());
    filed.gt.stop();
    let mut filed = Filed::start("client", text, &with(port, alice()));
    let addr = SocketAddr::from(([127, 0, 0, 1], filed.gt.wait_for_port(0)));
    let visitor = connect(addr);
    assert_eq!(asked(&visitor, ALICE).status, 200);
    filed.reload(&with("hostPrefix: web", &hash("alice", "changed")));
    assert!(read_to_end(&mut &visitor).is_empty());
}

#[test]
fn over_gt1_bytes_behind_a_request_wait_for_its_password_and_come_to_the_service() {
    let service = answering(0, |request| request.body);
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://{} -wire 1 {}", service.addr, password());
    let mut client = client_of_id1(addr, &local);
    client.wait_for_tunnel();
    let body: Vec<u8> = (0..48 * 1024)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let length = body.len();
    for fields in [WRONG, ALICE] {
        let mut visitor = connect(addr);
        write!(
            visitor,
            "POST /a HTTP/1.1\r\nHost: id1.a\r\nContent-Length: {length}\r\n{fields}\r\n"
        )
        .unwrap();
        visitor.write_all(&body).unwrap();
        let answer = read_answer(&mut visitor);
        match fields {
            ALICE => assert!(answer.status == 200 && answer.body == body),
            _ => assert_eq!(answer.status, 401),
        }
    }
}

#[test]
fn over_gt1_a_visitor_that_sends_much_before_its_password_is_checked_is_refused() {
    let service = service();
    let mut server = server_of_id1("");
    let addr = server.addr();
    // 10 000 000 rounds take long.
    let slow = alice().replace("i=310000", "i=10000000");
    let local = format!("-local http://{} -wire 1 -password {slow}", service.addr);
    let mut client = client_of_id1(addr, &local);
    client.wait_for_tunnel();
    let mut visitor = connect(addr);
    let length = 200 * 1024;
    write!(
        visitor,
        "POST /a HTTP/1.1\r\nHost: id1.a\r\nContent-Length: {length}\r\n{WRONG}\r\n"
    )
    .unwrap();
    visitor.write_all(&vec![7; length]).unwrap();
    assert_eq!(read_answer(&mut visitor).status, 503);
}

#[test]
fn over_gt1_the_connection_of_a_refused_visitor_of_files_ends() {
    let folder = Scratch::new();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!(
        "-local file://{} -wire 1 {}",
        folder.path().display(),
        password()
    );
    let mut client = client_of_id1(addr, &local);
    client.wait_for_tunnel();
    let visitor = connect(addr);
    assert_eq!(asked(&visitor, WRONG).status, 401);
    assert!(read_to_end(&mut &visitor).is_empty());
}
