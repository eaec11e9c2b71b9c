//! The page of a server: clients, visitors, users, lockouts.

use crate::common::eventually;
use crate::common::gt::{client, Gt};
use crate::common::peer::gt1::{hello, Peer};
use crate::common::peer::ID_ALONE;
use crate::common::ports::free_port;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read_to_end};
use crate::page::{password_line, Paged};
use serde_json::{json, Value};
use std::net::SocketAddr;

fn server(more: &str, users: &str) -> (Paged, SocketAddr) {
    let text = format!(
        "options:\n  addr: 127.0.0.1:0\n  webAddr: 127.0.0.1:0\n{more}\n# who may come\nusers:\n{users}{}",
        password_line()
    );
    let mut page = Paged::start(&text);
    let addr = page.gt.addr();
    (page, addr)
}

const USERS: &str = "  # the first\n  id1:\n    secret: secret1 # old\n  id2: {secret: secret2}\n";

fn client_of(id: &str, secret: &str, addr: SocketAddr, more: &str) -> Gt {
    client(&format!(
        "-remote tcp://{addr} -id {id} -secret {secret} {more}"
    ))
}

#[test]
fn clients_are_searched_sorted_and_cut_into_pages() {
    let users: String = (0..30)
        .map(|n| format!("  user{n:02}: {{secret: s}}\n"))
        .collect();
    let (page, addr) = server("", &users);
    let _clients: Vec<Peer> = (0..30)
        .map(|n| Peer::ready_client(addr, &hello(&format!("user{n:02}"), "s", &ID_ALONE)))
        .collect();
    let ids = |query: &str| {
        let found = page.get(&format!("/api/server/clients?{query}"));
        assert_eq!(found["all"], 30);
        let clients = found["clients"].as_array().expect("a list").iter();
        let ids: Vec<String> = clients
            .map(|it| it["id"].as_str().expect("an id").to_owned())
            .collect();
        (ids, found["found"].as_u64().expect("a number"))
    };
    assert_eq!(ids("limit=2"), (vec!["user00".into(), "user01".into()], 30));
    assert_eq!(
        ids("limit=2&offset=28&sort=id"),
        (vec!["user28".into(), "user29".into()], 30)
    );
    assert_eq!(ids("limit=1&sort=-id").0, ["user29"]);
    assert_eq!(ids("search=SER07"), (vec!["user07".into()], 1));
    assert_eq!(ids("search=127.0.0").1, 30);
    assert_eq!(ids("search=none"), (vec![], 0));
    assert_eq!(ids("offset=99").0.len(), 0);
    for sort in [
        "address",
        "since",
        "-tunnels",
        "streams",
        "bytes",
        "-bytesUp",
        "bytesDown",
        "rtt",
        "way",
        "names",
        "-domains",
        "ports",
        "-rate",
    ] {
        assert_eq!(ids(&format!("sort={sort}")).0.len(), 30, "{sort}");
    }
    assert_eq!(ids("limit=1&sort=-names").0, ["user29"]);
    let by_rate = page.get("/api/server/clients?sort=rate");
    assert_eq!(by_rate["clients"][0]["rate"], 0);
    let by_id = page.get("/api/server/clients");
    assert_eq!(by_id["clients"][0]["rate"], Value::Null);
    for query in ["sort=secret", "offset=-1", "limit=x"] {
        let (status, value) = page.call("GET", &format!("/api/server/clients?{query}"), "");
        assert_eq!(status, 400, "{query}: {value}");
    }
    let (status, text) = page.call("GET", "/api/server/clients/none", "");
    assert_eq!(status, 404, "{text}");
    assert_eq!(
        page.call("GET", "/api/client", "").0,
        404,
        "there is no client"
    );
}

#[test]
fn a_visitor_is_shown_with_its_bytes_and_can_be_cut() {
    let echo = service::echo();
    let port = free_port();
    let (mut page, addr) = server(&format!("  tcpNumber: 1\n  tcpRange: {port}"), USERS);
    let mut client = client_of(
        "id1",
        "secret1",
        addr,
        &format!("-local tcp://{} -remoteTCPPort {port}", echo.addr),
    );
    client.wait_for_tunnel();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let (mut one, mut other) = (connect(to), connect(to));
    assert_echo(&mut one, b"12345");
    assert_echo(&mut other, b"1");
    let is_there = |found: &Value| {
        let visitors = found["visitors"].as_array().expect("a list").iter();
        visitors
            .filter(|it| it["bytesUp"].as_u64() > Some(0))
            .count()
            == 2
    };
    let found = page.wait_for("two visitors", "/api/server/clients/id1", is_there);
    assert_eq!(
        found["limits"]["tcp"]["rules"][0]["range"],
        format!("{port}-{port}")
    );
    assert_eq!(found["client"]["ports"], json!([port]));
    assert_eq!(found["client"]["ways"], json!(["tcp"]));
    let local = one.local_addr().expect("an address").port();
    let visitors = found["visitors"].as_array().expect("a list");
    let visitor = visitors
        .iter()
        .find(|it| it["port"] == local)
        .expect("the visitor");
    assert_eq!(
        (&visitor["bytesUp"], &visitor["bytesDown"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(
        (&visitor["service"], &visitor["way"]),
        (&json!(format!("port {port}")), &json!("tcp"))
    );
    page.change(
        "DELETE",
        &format!("/api/server/visitors/{}", visitor["number"]),
        "",
    );
    assert_eq!(read_to_end(&mut one), b"");
    assert_echo(&mut other, b"still here");
    page.gt
        .wait_for("admin from 127.0.0.1 has cut the visitor 127.0.0.1 of port");
    page.wait_for("one visitor", "/api/server/clients/id1", |found| {
        found["visitorCount"] == 1
    });
    let (status, _) = page.call(
        "DELETE",
        &format!("/api/server/visitors/{}", visitor["number"]),
        "",
    );
    assert_eq!(status, 404);
    assert_eq!(page.call("DELETE", "/api/server/visitors/x", "").0, 400);
}

#[test]
fn visitors_by_host_name_are_shown_too() {
    let (page, addr) = server("", USERS);
    let silent = service::silent();
    let mut client = client_of(
        "id1",
        "secret1",
        addr,
        &format!("-local http://{}", silent.addr),
    );
    client.wait_for_tunnel();
    let waiting = std::thread::spawn(move || get(addr, "id1.a", "/"));
    let found = page.wait_for("a visitor", "/api/server/clients/id1", |found| {
        found["visitorCount"] == 1
    });
    let visitor = &found["visitors"][0];
    assert_eq!(
        (&visitor["service"], &visitor["way"]),
        (&json!("id1"), &json!("http"))
    );
    page.change(
        "DELETE",
        &format!("/api/server/visitors/{}", visitor["number"]),
        "",
    );
    assert!(waiting.join().is_err() || page.get("/api/server/clients/id1")["visitorCount"] == 0);
}

#[test]
fn users_are_added_changed_and_removed_and_the_rest_of_the_file_stays() {
    let (page, addr) = server("", USERS);
    let before = page.text("gt.yaml");
    let users = page.get("/api/server/users");
    assert_eq!(users["users"][0]["id"], "id1");
    assert_eq!(users["users"][0]["hasSecret"], true);
    assert!(!users.to_string().contains("secret1"), "{users}");

    let answer = page.change(
        "POST",
        "/api/server/users",
        "{\"id\": \"new\", \"speed\": 5000}",
    );
    let secret = answer["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(page.text("gt.yaml.bak"), before);
    let text = page.text("gt.yaml");
    assert!(
        text.contains("  # the first\n  id1:\n    secret: secret1 # old\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("  new:\n    secret: {secret}\n    speed: 5000\n")),
        "{text}"
    );
    let peer = |id: &str, secret: &str| Peer::client(addr, &hello(id, secret, &ID_ALONE));
    let mut admitted = peer("new", &secret);
    admitted.expect(crate::common::peer::gt1::Frame::Ready);

    // What is given keeps its type, and no secret is shown again.
    let given = page.change(
        "POST",
        "/api/server/users",
        "{\"id\": \"b\", \"secret\": \"012345\"}",
    );
    assert_eq!(given["secret"], Value::Null);
    assert!(page.text("gt.yaml").contains("  b:\n    secret: 012345\n"));
    peer("b", "012345").expect(crate::common::peer::gt1::Frame::Ready);

    page.change(
        "PATCH",
        "/api/server/users/id1",
        "{\"secret\": \"new\", \"connections\": 2}",
    );
    let text = page.text("gt.yaml");
    assert!(
        !text.contains("secret1") && text.contains(" # old\n    connections: 2\n"),
        "{text}"
    );
    page.change("DELETE", "/api/server/users/b", "");
    assert!(!page.text("gt.yaml").contains("012345"));
    assert!(!page.get("/api/log").to_string().contains(&secret));
    let lines = page.gt.lines_with("admin from 127.0.0.1 has");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("changed connections, secret of the user id=id1")),
        "{lines:?}"
    );
    assert!(
        lines.iter().all(|line| !line.contains("012345")),
        "{lines:?}"
    );

    for (method, path, body, status) in [
        ("POST", "/api/server/users", "{\"id\": \"id1\"}", 422),
        ("POST", "/api/server/users", "{\"id\": \"\"}", 400),
        (
            "POST",
            "/api/server/users",
            "{\"id\": \"x\", \"admin\": true}",
            400,
        ),
        (
            "POST",
            "/api/server/users",
            "{\"id\": \"x\", \"speed\": \"fast\"}",
            422,
        ),
        ("POST", "/api/server/users", "[]", 400),
        ("PATCH", "/api/server/users/none", "{\"speed\": 1}", 422),
        (
            "PATCH",
            "/api/server/users/id1",
            "{\"tcp\": [{\"range\": \"9-1\"}]}",
            422,
        ),
        ("PATCH", "/api/server/users/id2", "{\"speed\": 1}", 422),
        ("DELETE", "/api/server/users/none", "", 422),
    ] {
        let now = page.text("gt.yaml");
        let (got, value) = page.call(method, path, body);
        assert_eq!(got, status, "{method} {path} {body}: {value}");
        assert!(
            value["error"]
                .as_str()
                .is_some_and(|why| why.ends_with('.')),
            "{value}"
        );
        assert_eq!(page.text("gt.yaml"), now, "{method} {path} {body}");
    }
}

#[test]
fn a_disabled_user_is_disconnected_and_refused_until_it_is_enabled() {
    let (page, addr) = server("", USERS);
    let http = service::http(0, "one");
    let mut client = client_of(
        "id1",
        "secret1",
        addr,
        &format!("-local http://{} -reconnectDelay 100ms", http.addr),
    );
    client.wait_for_tunnel();
    page.change("PATCH", "/api/server/users/id1", "{\"disabled\": true}");
    client.wait_for("the server refused id1");
    assert_eq!(page.get("/api/server/users")["users"][0]["disabled"], true);
    assert!(page.text("gt.yaml").contains("    disabled: true\n"));
    page.change("PATCH", "/api/server/users/id1", "{\"disabled\": null}");
    assert!(!page.text("gt.yaml").contains("disabled"));
    page.get("/api/server/lockouts");
    let (status, _) = page.call("DELETE", "/api/server/lockouts/127.0.0.1", "");
    assert!(status == 200 || status == 404);
    eventually("the client to be back", || {
        (get(addr, "id1.a", "/").text() == "one / id1.a").then_some(())
    });
}

#[test]
fn users_of_a_file_of_their_own_are_changed_there() {
    let text = format!(
        "options:\n  addr: 127.0.0.1:0\n  webAddr: 127.0.0.1:0\n  users: USERS\nusers:\n  id1: {{secret: a}}\n{}",
        password_line()
    );
    let scratch = crate::common::scratch::Scratch::new();
    let users = scratch.file("users.yaml", "# all\nid3:\n  secret: b\n");
    let page = Paged::start(&text.replace("USERS", &users.display().to_string()));
    let before = page.text("gt.yaml");
    page.change(
        "POST",
        "/api/server/users",
        "{\"id\": \"id4\", \"secret\": \"c\"}",
    );
    page.change("PATCH", "/api/server/users/id3", "{\"speed\": 1}");
    let read = || std::fs::read_to_string(&users).expect("a file");
    assert_eq!(
        read(),
        "# all\nid3:\n  secret: b\n  speed: 1\nid4:\n  secret: c\n"
    );
    // What only all files together show to be wrong is not written.
    let (status, value) = page.call(
        "PATCH",
        "/api/server/users/id3",
        "{\"tcp\": [{\"range\": \"1-9\"}]}",
    );
    assert_eq!(status, 200, "{value}");
    let folder = users.parent().expect("a folder").to_owned();
    let kept = || std::fs::read_to_string(folder.join("users.yaml.bak")).expect("a file");
    let (text, copy) = (read(), kept());
    let (status, value) = page.call(
        "PATCH",
        "/api/server/users/id4",
        "{\"tcp\": [{\"range\": \"5-9\"}]}",
    );
    assert_eq!(status, 422, "{value}");
    assert_eq!((read(), kept()), (text, copy));
    assert_eq!(page.text("gt.yaml"), before);
    let listed = page.get("/api/server/users");
    let ids: Vec<_> = listed["users"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["id"].clone())
        .collect();
    assert_eq!(ids, ["id1", "id3", "id4"]);
}

#[test]
fn users_have_a_version_that_a_change_may_require() {
    let (page, _) = server("", USERS);
    let version = |value: &Value| value["etag"].as_str().expect("a version").to_owned();
    let patch = |etag: &str, body: &str| {
        let fields = format!("{}If-Match: \"{etag}\"\r\n", crate::page::BASIC);
        let answer = page.send("PATCH", "/api/server/users/id1", &fields, body);
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, value)
    };
    let first = version(&page.get("/api/server/users"));
    let (status, changed) = patch(&first, "{\"speed\": 5000}");
    assert_eq!(status, 200, "{changed}");
    let text = page.text("gt.yaml");
    assert_eq!(patch(&first, "{\"speed\": 6000}").0, 412);
    assert_eq!(page.text("gt.yaml"), text);
    let second = version(&changed);
    assert_eq!(version(&page.get("/api/server/users")), second);
    assert_eq!(patch(&second, "{\"speed\": 6000}").0, 200);
    assert_eq!(patch("*", "{\"speed\": 7000}").0, 200);
    // A secret that was read here is not one.
    let (status, value) = patch("*", "{\"secret\": \"******1\"}");
    assert_eq!(status, 422, "{value}");
}

#[test]
fn a_change_that_would_change_another_user_is_not_written() {
    let users =
        "  id1:\n    secret: &it one\n  id2:\n    secret: &it two\n  id3:\n    secret: *it\n";
    let (page, _) = server("", users);
    let text = page.text("gt.yaml");
    let (status, value) = page.call("PATCH", "/api/server/users/id2", "{\"secret\": \"three\"}");
    assert_eq!(status, 422, "{value}");
    assert_eq!(page.text("gt.yaml"), text);
    assert!(!page.file("gt.yaml.bak").exists());
}

#[test]
fn the_last_user_is_not_removed_and_users_of_windows_stay_so() {
    let (mut page, _) = server("", USERS);
    let text = page.text("gt.yaml").replace('\n', "\r\n");
    page.scratch.file("gt.yaml", &text);
    page.gt.reload();
    page.change("DELETE", "/api/server/users/id1", "");
    page.change("POST", "/api/server/users", "{\"id\": \"id3\"}");
    let changed = page.text("gt.yaml");
    assert_eq!(
        changed.matches('\n').count(),
        changed.matches("\r\n").count(),
        "{changed}"
    );
    page.change("DELETE", "/api/server/users/id3", "");
    let before = page.text("gt.yaml");
    let (status, answer) = page.call("DELETE", "/api/server/users/id2", "");
    assert_eq!(status, 422, "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .is_some_and(|why| why.contains("the last user")),
        "{answer}"
    );
    assert_eq!(page.text("gt.yaml"), before);
    // It may be one of several ways in.
    page.scratch.file(
        "gt.yaml",
        before.replace("options:", "options:\r\n  allowAnyClient: true"),
    );
    page.gt.reload();
    page.change("DELETE", "/api/server/users/id2", "");
}

#[test]
fn lockouts_are_listed_and_lifted() {
    let (mut page, addr) = server("  reconnectTimes: 1", USERS);
    let _peers = [0; 2].map(|_| Peer::client(addr, &hello("id1", "wrong", &ID_ALONE)));
    page.gt.wait_for("has failed to authenticate 2 times");
    let listed = page.get("/api/server/lockouts");
    assert_eq!(listed["lockouts"][0]["address"], "127.0.0.1");
    assert_eq!(listed["lockouts"][0]["failures"], 2);
    page.change("DELETE", "/api/server/lockouts/127.0.0.1", "");
    assert_eq!(page.get("/api/server/lockouts")["lockouts"], json!([]));
    Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    assert_eq!(page.call("DELETE", "/api/server/lockouts/x", "").0, 400);
}
