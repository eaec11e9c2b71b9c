//! No secret is revealed: not in the log at its most verbose level, to Sentry, to visitors, by the
//! API, by the check of a configuration or its errors, or in what the system shows of a process.

use crate::common::api::{self, answer, judgement};
use crate::common::gt::{Gt, GT};
use crate::common::peer::gt1::{hello, Frame, Peer};
use crate::common::peer::ID_ALONE;
use crate::common::process::run;
use crate::common::scratch::Scratch;
use crate::common::visitor::{ask, get};
use crate::common::{certs, sentry, service};
use std::path::Path;
use std::process::Command;

/// A part of every secret in this test.
const MARK: &str = "hush";

/// Fails if `said` contains anything secret.
fn assert_hushed(what: &str, said: &str, key: &[String]) {
    let mut secrets = key.iter().map(String::as_str).chain([MARK, "dsnkey"]);
    let found = secrets.find(|secret| said.contains(secret));
    assert!(found.is_none(), "{what} shows {found:?}: {said}");
}

/// Returns the lines of a PEM key.
fn lines_of_key(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("read a key");
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{text}");
    lines
}

/// Returns what the system shows of a process besides its command line, which is the user's own.
fn shown_of(pid: u32) -> String {
    let read = |name: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{name}")).expect("look at a process");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
    let names = tasks.map(|task| {
        let path = task.expect("a thread").path().join("comm");
        // A thread that has just ended has no name.
        std::fs::read_to_string(path).unwrap_or_default()
    });
    let threads: String = names.collect();
    format!(
        "{}{threads}{}{}",
        read("comm"),
        read("cmdline"),
        read("environ")
    )
}

#[test]
fn a_running_process_reveals_no_secret() {
    let (certs, scratch, sentry) = (certs::make(), Scratch::new(), sentry::start());
    let key = lines_of_key(&certs.key);
    let auth = api::start(0, |request| match request.body.contains("\"id3\"") {
        true => judgement(true, &[]),
        // An API may answer nonsense, which must not be repeated.
        false => answer(200, "{\"result\": \"hush-answer\"}"),
    });
    let remote = api::start(0, |_| answer(200, "{\"serverAddress\": [\"hush-answer\"]}"));
    let web = service::http(0, "here");
    let users = scratch.file("users.yaml", "id2: {secret: hush-2}\n");
    let common = format!(
        "  logLevel: trace\n  sentryLevel: [trace, debug, info, warn, error, fatal, panic]\n  \
         sentryDSN: {}\n",
        sentry.dsn()
    );
    let config = scratch.file(
        "server.yaml",
        format!(
            "type: server\nusers:\n  id1: {{secret: hush-1}}\noptions:\n  addr: 127.0.0.1:0\n  \
             tlsAddr: 127.0.0.1:0\n  apiAddr: 127.0.0.1:0\n  certFile: {}\n  keyFile: {}\n  \
             users: {}\n  authAPI: http://{}/judge?key=hush-auth\n  reconnectTimes: 0\n{common}",
            certs.cert.display(),
            certs.key.display(),
            users.display(),
            auth.addr
        ),
    );
    let mut server = Gt::start("gt server", &["-config"], config.to_str().expect("a path"));
    let (addr, tls_addr, api) = (server.addr(), server.tls_addr(), server.api_addr());
    let of_client = |wire: &str| {
        format!(
            "type: client\nservices:\n  - local: http://{}\noptions:\n  id: id1\n  secret: hush-1\n  \
             remote: [tcp://{addr}, 'tls://localhost:{}']\n  remoteCert: {}\n  \
             remoteAPI: http://{}/where?key=hush-remote\n  reconnectDelay: 10ms\n  wire: {wire}\n\
             {common}",
            web.addr,
            tls_addr.port(),
            certs.ca.display(),
            remote.addr
        )
    };
    let mut said: Vec<(String, String)> = Vec::new();
    let mut clients = Vec::new();
    for wire in ["1", "2"] {
        let config = scratch.file(&format!("client{wire}.yaml"), of_client(wire));
        let mut client = Gt::start("gt client", &["-config"], config.to_str().expect("a path"));
        client.wait_for_tunnels(2);
        client.wait_for("unexpected answer: ");
        clients.push(client);
    }

    // Clients that are admitted and refused by the configuration, a file and the API.
    let mut peers = Vec::new();
    for (id, secret, good) in [
        ("id2", "hush-2", true),
        ("id2", "hush-wrong", false),
        ("id3", "hush-3", true),
        ("id4", "hush-4", false),
    ] {
        let hello = hello(id, secret, &ID_ALONE);
        match good {
            true => peers.push(Peer::ready_client(addr, &hello)),
            false => Peer::client(addr, &hello).expect(Frame::Error(1)),
        }
    }
    server.wait_for_failed_auth_api();

    // What visitors and API users see.
    for (host, path) in [("id1.a", "/"), ("nobody.a", "/"), ("id1.a", "/hu%73h")] {
        let answer = get(addr, host, path);
        said.push((
            format!("{host}{path}"),
            answer.head.clone() + &answer.text(),
        ));
    }
    let answer = ask(addr, "nonsense\r\n\r\n");
    said.push((
        "a bad head".to_owned(),
        answer.head.clone() + &answer.text(),
    ));
    for path in [
        "/status", "/clients", "/metrics", "/", "/nothing", "/../etc",
    ] {
        let answer = get(api, "localhost", path);
        said.push((path.to_owned(), answer.head.clone() + &answer.text()));
    }

    // Valid and invalid changes, and an end with an error.
    let good = std::fs::read_to_string(&config).expect("read a file");
    for bad in [
        good.replace("judge?key", "ju dge?key"),
        good.replace("secret: hush-1", "secret: [hush-1]"),
        good.replace(
            &format!("keyFile: {}", certs.key.display()),
            "keyFile: users.yaml",
        ),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&config, bad).expect("write a file");
        server.reload_in_vain();
    }
    std::fs::write(&config, &good).expect("write a file");
    server.reload();
    said.push(("the server".to_owned(), shown_of(server.pid())));
    for client in &clients {
        said.push(("a client".to_owned(), shown_of(client.pid())));
    }
    let successor = server.restart();
    said.push(("the successor".to_owned(), shown_of(successor.pid)));
    successor.signal("TERM");
    successor.wait_for_end();
    drop(peers);
    for client in &mut clients {
        assert_eq!(client.stop(), Some(0));
        said.push(("a client's log".to_owned(), client.log()));
    }
    said.push(("the server's log".to_owned(), server.log()));
    assert!(server.log().contains(" DBG "), "it was talkative");

    let events = sentry.requests();
    for words in [
        "tunnel opened id=id1",
        "refused a client id=id2",
        "not reloaded",
    ] {
        assert!(
            events.iter().any(|it| it.contains(words)),
            "no event says {words:?}"
        );
    }
    for event in events {
        // The request's head contains Sentry's own key, and so does the head of the envelope.
        let body = event.split_once("\r\n\r\n").expect("a body").1;
        let item = body.split_once('\n').expect("an item").1;
        said.push(("an event".to_owned(), item.to_owned()));
    }
    for (what, said) in &said {
        assert_hushed(what, said, &key);
    }
}

#[test]
fn a_check_and_its_errors_reveal_no_secret() {
    let scratch = Scratch::new();
    let pem = "-----BEGIN PRIVATE KEY-----\nhushhushhushhushhushhushhushhush\n-----END PRIVATE KEY-----\n";
    let key = scratch.file("hidden.pem", pem).display().to_string();
    let server = "type: server\noptions:\n  ";
    let client = "type: client\noptions:\n  id: a\n  remote: h\n  local: http://h\n  ";
    let long = format!("hush{}", "x".repeat(200));
    let users = scratch.file("users.yaml", "hush: [1]\n  - x");
    let files = [
        // Valid configurations.
        (
            0,
            format!("{server}id: [a, b]\n  secret: [hush, hush2]\n  sentryDSN: https://hush@h/1"),
        ),
        (
            0,
            format!("{client}secret: hush\n  remoteAPI: http://h/?hush"),
        ),
        (0, format!("{server}secert: hush")),
        (
            0,
            "type: server\nusers:\n  a: {secret: s, pasword: hush}\n".to_owned(),
        ),
        // Invalid values.
        (2, format!("{server}authAPI: http://u:hush@h/")),
        (2, format!("{server}authAPI: http://u:hu?hush@h/")),
        (2, format!("{server}authAPI: ftp://h/?key=hush")),
        (2, format!("{server}authAPI: h/?key=hush")),
        (2, format!("{server}authAPI: 'http://h/?a=b hush'")),
        (2, format!("{server}sentryDSN: https://hush@h")),
        (2, format!("{client}remoteAPI: u:hush@h")),
        (2, format!("{client}remote: tls://u:hush@h")),
        (2, format!("{client}local: http://u:hush@h")),
        (2, format!("{client}secret: {long}")),
        (2, format!("{server}id: a\n  secret: {long}")),
        (2, format!("type: server\nusers:\n  a: {{secret: {long}}}")),
        // Values of the wrong type.
        (2, format!("{client}secret: [hush, hush]")),
        (2, format!("{client}secret: {{hush: hush}}")),
        (2, format!("{client}secret: !hush hush")),
        (2, "type: server\nusers:\n  a: hush\n".to_owned()),
        (2, "type: server\nusers: hush\n".to_owned()),
        (
            2,
            "type: server\nusers:\n  a: {secret: {hush: 1}}\n".to_owned(),
        ),
        // Invalid YAML.
        (2, format!("{client}secret: hush: hush")),
        (2, format!("{client}secret: \"hush")),
        (2, format!("{client}secret: @hush")),
        (2, format!("{client}secret: *hush")),
        (2, format!("{client}secret: `hush")),
        (2, format!("{client}secret: hush\n hush")),
        (2, format!("{client}secret: hush\n  secret: hush")),
        (2, format!("{server}users: {}", users.display())),
        // Files with the wrong content.
        (
            1,
            format!("{server}tlsAddr: 1\n  certFile: {key}\n  keyFile: {key}"),
        ),
        (
            1,
            format!("{client}remote: tls://h\n  remoteCert: {key}").replacen(
                "remote: h\n  ",
                "",
                1,
            ),
        ),
    ];
    for (code, text) in files {
        let file = scratch.file("gt.yaml", &text);
        for check in [&["check"][..], &[]] {
            if code != 2 && check.is_empty() {
                // It would run.
                continue;
            }
            let output = run(Command::new(GT).args(check).arg("-config").arg(&file));
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            assert_eq!(output.status.code(), Some(code), "{text}: {said}");
            assert!(!said.trim().is_empty(), "{text}");
            assert!(!said.contains(MARK), "{text}: {said}");
        }
    }
}

#[test]
fn errors_about_a_command_line_reveal_no_secret() {
    for words in [
        &["client", "-secret", "my", "hush"][..],
        &["client", "--secret=my", "hush"],
        &["client", "-sercet=hush"],
        &["server", "-authAPI", "http://u:hush@h"],
        &["client", "-remoteAPI", "hush@h"],
        &["server", "-sentryDSN", "hush"],
        &["server", "-id", "a", "-secret", "hush", "-secret", "hush"],
        &["client", "-local", "http://u:hush@h:80"],
    ] {
        let output = run(Command::new(GT).args(words));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(
            !said.is_empty() && !said.contains(MARK),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn debug_output_of_a_configuration_reveals_no_secret() {
    let scratch = Scratch::new();
    let files = [
        "type: server\nusers:\n  a: {secret: hush}\noptions:\n  id: b\n  secret: hush\n  \
         authAPI: http://h/?hush\n  sentryDSN: https://hush@h/1\n",
        "type: client\noptions:\n  id: a\n  secret: hush\n  local: http://h\n  remote: h\n  \
         remoteAPI: http://h/?hush\n  sentryDSN: https://hush@h/1\n",
    ];
    for text in files {
        let file = scratch.file("gt.yaml", text).display().to_string();
        let argv = ["gt", "-config", &file].map(str::to_owned);
        let parsed = gt::cli::parse(&argv).expect("a good file");
        let shown = format!("{parsed:?} {parsed:#?}");
        assert!(shown.contains("******"), "{shown}");
        assert!(!shown.contains(MARK), "{shown}");
    }
    let hello = gt::wire::hello::Hello {
        id: "a".into(),
        proof: gt::wire::hello::Proof::Secret((*b"hush").into()),
        services: Vec::new(),
        window: 0,
        instance: None,
        origins: false,
        bbr: false,
    };
    for version in [gt::wire::Version::One, gt::wire::Version::Two] {
        let mut reader = gt::wire::codec::HelloReader::new(version);
        let bytes = hello.encode(version);
        reader.feed(&bytes[2..]).expect("the beginning of a hello");
        let shown = format!("{hello:?} {reader:?} {:?}", reader.credentials());
        assert!(shown.contains("Hello"), "{shown}");
        let numbers = format!("{:?}", b"hush");
        let numbers = numbers.trim_matches(['[', ']']);
        assert!(!shown.contains(MARK) && !shown.contains(numbers), "{shown}");
    }
}
