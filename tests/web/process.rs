//! The process: reload, restart, the log, both roles, the listener.

use crate::common::eventually;
use crate::common::ports::free_port;
use crate::common::service;
use crate::common::visitor::get;
use crate::page::{password_line, send, Paged, Signed};
use serde_json::{json, Value};

fn server_text(more: &str) -> String {
    format!("type: server\noptions:\n  addr: 127.0.0.1:0\n  webAddr: 127.0.0.1:0\n{more}users:\n  id1: {{secret: secret1}}\n")
}

#[test]
fn a_restart_keeps_the_session_and_the_listener() {
    let mut page = Paged::start(&server_text(""));
    let signed = page.sign_in();
    let addr = page.addr;
    let answer = page.send("POST", "/api/restart", &signed.fields(), "");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let before = page.gt.pid();
    let new = eventually("the new process to answer", || {
        let answer = send(addr, "GET", "/api/status", &signed.fields(), "");
        let value: Value = serde_json::from_slice(&answer.body).ok()?;
        let pid = value["pid"].as_u64().unwrap_or_else(|| panic!("{value}"));
        (pid != u64::from(before)).then_some(pid)
    });
    page.gt.exit();
    let session = send(addr, "GET", "/api/session", &signed.fields(), "");
    assert_eq!(session.status, 200, "{}", session.text());
    let mut kill = std::process::Command::new("kill");
    assert!(kill
        .arg(new.to_string())
        .status()
        .expect("run kill")
        .success());
    eventually("the new process to end", || {
        std::net::TcpStream::connect(addr).is_err().then_some(())
    });
}

#[test]
fn with_nobody_looking_the_page_wakes_the_process_less_than_once_a_minute() {
    let page = Paged::start(&(server_text("") + password_line()));
    let points = |page: &Paged| page.get("/api/history")["points"].as_array().map(Vec::len);
    // One that looks has a point at once.
    eventually("a point", || (points(&page) > Some(1)).then_some(()));
    let page = Paged::start(&(server_text("") + password_line()));
    // The work of the start.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let waits = || page.gt.waits_of_threads("").iter().sum::<u64>();
    let before = waits();
    std::thread::sleep(std::time::Duration::from_secs(20));
    assert!(waits() - before <= 1, "{} times in 20 s", waits() - before);
}

#[test]
fn a_reload_that_fails_says_why_and_the_page_goes_on() {
    let mut page = Paged::start(&(server_text("") + password_line()));
    let text = page.text("gt.yaml");
    page.scratch
        .file("gt.yaml", text.replace("127.0.0.1:0\n", "nowhere\n"));
    let (status, value) = page.call("POST", "/api/reload", "");
    assert_eq!(status, 409, "{value}");
    assert!(
        value["error"]
            .as_str()
            .is_some_and(|why| why.contains("line 3")),
        "{value}"
    );
    page.scratch.file("gt.yaml", &text);
    page.change("POST", "/api/reload", "");
    page.gt
        .wait_for("INF the web page: admin from 127.0.0.1 has asked for a reload");
    assert_eq!(page.get("/api/status")["lastChange"]["error"], Value::Null);
}

#[test]
fn a_reload_opens_moves_and_closes_the_page() {
    let port = free_port();
    let mut page = Paged::start(&(server_text("") + password_line()));
    let (text, first) = (page.text("gt.yaml"), page.addr);
    page.scratch.file(
        "gt.yaml",
        text.replace(
            "webAddr: 127.0.0.1:0",
            &format!("webAddr: 127.0.0.1:{port}"),
        ),
    );
    page.gt.reload();
    page.addr = ([127, 0, 0, 1], port).into();
    page.get("/api/status");
    eventually("the first listener to close", || {
        std::net::TcpStream::connect(first).is_err().then_some(())
    });
    page.scratch
        .file("gt.yaml", text.replace("  webAddr: 127.0.0.1:0\n", ""));
    page.gt.reload();
    let addr = page.addr;
    eventually("the page to close", || {
        std::net::TcpStream::connect(addr).is_err().then_some(())
    });
    page.scratch.file(
        "gt.yaml",
        text.replace("webAddr: 127.0.0.1:0", &format!("webAddr: '[::1]:{port}'")),
    );
    page.gt.reload();
    page.addr = (std::net::Ipv6Addr::LOCALHOST, port).into();
    page.get("/api/status");
}

#[test]
fn one_page_shows_all_roles_of_a_process() {
    let port = free_port();
    let http = service::http(0, "one");
    let server = server_text("").replace(
        "addr: 127.0.0.1:0\n  web",
        &format!("addr: 127.0.0.1:{port}\n  web"),
    );
    let client = format!(
        "type: client\noptions: {{id: id1, secret: secret1, remote: 'tcp://127.0.0.1:{port}'}}\nservices:\n- local: http://{}\n",
        http.addr
    );
    let page = Paged::of_files(&[("a.yaml", &(server + password_line())), ("b.yaml", &client)]);
    let status = page.wait_for("the client", "/api/status", |it| {
        it["roles"][1]["servers"][0]["isConnected"] == true
            && it["roles"][0]["totals"]["clients"] == 1
    });
    assert_eq!(status["roles"][0]["role"], "server");
    assert_eq!(status["roles"][1]["role"], "client");
    let addr = ([127, 0, 0, 1], port).into();
    eventually("the service", || {
        (get(addr, "id1.a", "/").text() == "one / id1.a").then_some(())
    });
    let shown = page.get("/api/config?role=1");
    assert!(
        shown["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("b.yaml")),
        "{shown}"
    );
    page.change(
        "POST",
        "/api/client/services",
        "{\"local\": \"tcp://127.0.0.1:1\", \"remoteTCPPort\": 2}",
    );
    assert!(page
        .text("b.yaml")
        .contains("- local: tcp://127.0.0.1:1\n  remoteTCPPort: 2\n"));
    assert!(!page.text("a.yaml").contains("remoteTCPPort"));
    assert_eq!(
        page.call("GET", "/api/client?role=0", "").0,
        404,
        "that is the server"
    );
}

#[test]
fn the_log_and_the_last_hour_are_told() {
    let page = Paged::start(&(server_text("") + password_line()));
    let lines = page.get("/api/log")["lines"]
        .as_array()
        .expect("a list")
        .clone();
    assert!(
        lines.iter().any(|line| line["text"]
            .as_str()
            .is_some_and(|it| it.starts_with("INF Listening webAddr="))),
        "{lines:?}"
    );
    let last = lines.last().expect("a line")["number"]
        .as_u64()
        .expect("a number");
    assert_eq!(
        page.get(&format!("/api/log?after={last}"))["lines"],
        json!([])
    );
    assert_eq!(page.call("GET", "/api/log?after=x", "").0, 400);
    let points = page.wait_for("a point", "/api/history", |it| {
        it["points"].as_array().is_some_and(|it| !it.is_empty())
    });
    assert_eq!(points["points"][0]["clients"], 0);
}

#[test]
fn paths_and_methods_that_do_not_exist_have_errors() {
    let page = Paged::start(&(server_text("") + password_line()));
    for (method, path, status) in [
        ("GET", "/api", 404),
        ("GET", "/api/", 404),
        ("GET", "/api/none", 404),
        ("DELETE", "/api/status", 405),
        ("POST", "/", 405),
        ("BREW", "/", 405),
        ("OPTIONS", "/api/status", 405),
        ("PUT", "/api/server/clients", 405),
        ("POST", "/api/server/clients/a", 405),
    ] {
        let answer = page.send(method, path, crate::page::BASIC, "");
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(
            status == 405,
            answer.head.contains("Allow: "),
            "{}",
            answer.head
        );
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(value["error"].is_string());
    }
    let to_head = page.send("HEAD", "/api/status", crate::page::BASIC, "");
    assert_eq!((to_head.status, to_head.body.len()), (200, 0));
    let _ = Signed {
        cookie: String::new(),
        csrf: String::new(),
    };
}

#[test]
fn gt_status_tells_what_runs() {
    let page = Paged::start(&(server_text("") + password_line()));
    let prefix = format!("gt: process {} ", page.gt.pid());
    let output = crate::common::gt::gt("status");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    assert!(
        line.is_some_and(
            |line| line.starts_with("server ") && line.contains(" clients=0 tunnels=0 ")
        ),
        "{text}"
    );
    let output = crate::common::gt::gt("status -json");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut its = told.filter(|it| it["pid"] == json!(page.gt.pid()));
    let told = its.next().unwrap_or_else(|| panic!("{text}"));
    assert_eq!(told["roles"][0]["role"], "server");
}
