//! The page of a client: its state, its services, bans.

use crate::common::eventually;
use crate::common::gt::server_of_id1;
use crate::common::service;
use crate::common::visitor::get;
use crate::page::{password_line, Paged};
use serde_json::json;
use std::net::SocketAddr;

fn client(addr: SocketAddr, services: &str) -> Paged {
    Paged::start(&format!(
        "# a client\noptions:\n  id: id1\n  secret: secret1\n  remote: tcp://{addr}\n  webAddr: 127.0.0.1:0\n\
         {services}# the end\n{}",
        password_line()
    ))
}

#[cfg(feature = "quic")]
#[test]
fn the_loss_of_a_tunnel_over_quic_is_told_at_both_ends() {
    use crate::common::certs;
    let certs = certs::make();
    let http = service::http(0, "here");
    let mut server = Paged::start(&format!(
        "options:\n  addr: 127.0.0.1:0\n  quicAddr: 127.0.0.1:0\n  certFile: '{}'\n  keyFile: '{}'\n  webAddr: 127.0.0.1:0\n\
         users: {{id1: {{secret: secret1}}}}\n{}",
        certs.cert.display(),
        certs.key.display(),
        password_line()
    ));
    let addr = server.gt.quic_addr();
    let client = Paged::start(&format!(
        "options:\n  id: id1\n  secret: secret1\n  remote: quic://{addr}\n  remoteCertInsecure: true\n  webAddr: \
         127.0.0.1:0\n  local: http://{}\n{}",
        http.addr,
        password_line()
    ));
    client.wait_for("a loss", "/api/client", |it| {
        let tunnel = &it["servers"][0]["tunnels"][0];
        tunnel["way"] == "quic" && tunnel["lossPerMille"].is_u64()
    });
    server.wait_for("a loss", "/api/server/clients/id1", |it| {
        it["tunnels"][0]["lossPerMille"].is_u64()
    });
}

#[test]
fn a_service_is_added_tested_changed_and_removed() {
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let mut server = server_of_id1("-hostNumber 3");
    let addr = server.addr();
    // A client without services waits for its first one.
    let page = client(addr, "");
    assert_eq!(page.get("/api/client")["services"], json!([]));
    let body = json!({"local": format!("http://{}", one.addr), "hostPrefix": "one"}).to_string();
    page.change("POST", "/api/client/services", &body);
    eventually("the service to be published", || {
        (get(addr, "one.a", "/").text() == "one / one.a").then_some(())
    });
    let state = page.wait_for("a tunnel", "/api/client", |it| {
        it["servers"][0]["isConnected"] == true
    });
    assert_eq!(state["id"], "id1");
    let tunnel = &state["servers"][0]["tunnels"][0];
    assert_eq!(tunnel["way"], "tcp");
    assert_eq!(tunnel["lossPerMille"], json!(null), "the kernel knows it");
    assert_eq!(
        state["services"][0]["links"],
        json!([format!("http://one.localhost:{}/", addr.port())])
    );
    let tested = page.get_test(0);
    assert_eq!(tested["ok"], true);

    let body = json!({"local": format!("http://{}", two.addr), "domain": null, "forwarded": true})
        .to_string();
    page.change("PATCH", "/api/client/services/0", &body);
    eventually("the other service", || {
        (get(addr, "one.a", "/").text() == "two / one.a").then_some(())
    });
    let text = page.text("gt.yaml");
    assert!(
        text.starts_with("# a client\n") && text.contains("# the end\n"),
        "{text}"
    );
    assert!(
        text.contains("    hostPrefix: one\n    forwarded: true\n"),
        "{text}"
    );
    page.change(
        "POST",
        "/api/client/services",
        "{\"local\": \"http://127.0.0.1:1\", \"hostPrefix\": \"none\"}",
    );
    let tested = page.get_test(1);
    assert_eq!(tested["ok"], false);
    assert!(
        tested["error"]
            .as_str()
            .expect("a sentence")
            .contains("127.0.0.1:1"),
        "{tested}"
    );
    page.change("DELETE", "/api/client/services/0", "");
    let listed = page.get("/api/client/services");
    assert_eq!(
        listed["services"],
        json!([{"local": "http://127.0.0.1:1", "hostPrefix": "none"}])
    );
    let lines = page.gt.lines_with("admin from 127.0.0.1 has");
    assert_eq!(lines.len(), 4, "{lines:?}");

    for (method, path, body, status) in [
        (
            "POST",
            "/api/client/services",
            "{\"local\": \"ftp://x\"}",
            422,
        ),
        ("POST", "/api/client/services", "{}", 422),
        (
            "POST",
            "/api/client/services",
            "{\"local\": {\"a\": 1}}",
            400,
        ),
        ("POST", "/api/client/services", "\"x\"", 400),
        ("PATCH", "/api/client/services/7", "{\"speed\": 1}", 422),
        ("PATCH", "/api/client/services/x", "{\"speed\": 1}", 422),
        (
            "PATCH",
            "/api/client/services/0",
            "{\"hostPrefix\": \"a.b\"}",
            422,
        ),
        ("DELETE", "/api/client/services/7", "", 422),
        ("POST", "/api/client/services/7/test", "", 404),
    ] {
        let now = page.text("gt.yaml");
        let (got, value) = page.call(method, path, body);
        assert_eq!(got, status, "{method} {path} {body}: {value}");
        assert_eq!(page.text("gt.yaml"), now);
    }
}

#[test]
fn passwords_of_visitors_and_group_keys_are_not_shown() {
    let mut server = server_of_id1("-hostNumber 3");
    let hash = crate::common::password::alice();
    let page = client(
        server.addr(),
        &format!(
            "services:\n  - local: http://127.0.0.1:1\n    password:\n      - {hash}\n    serviceGroup: g\n    groupKey: hush\n"
        ),
    );
    for path in [
        "/api/client/services",
        "/api/config",
        "/api/status",
        "/api/log",
    ] {
        let shown = page.get(path).to_string();
        assert!(
            !shown.contains("pbkdf2") && !shown.contains("hush"),
            "{path}: {shown}"
        );
        assert!(!shown.contains("secret1"), "{path}: {shown}");
    }
    let service = &page.get("/api/client/services")["services"][0];
    assert_eq!(service["password"], json!(["alice:******"]));
}

#[test]
fn a_lost_server_is_told_with_its_reason() {
    let mut server = server_of_id1("");
    let page = client(server.addr(), "services:\n  - local: http://127.0.0.1:1\n");
    page.wait_for("a tunnel", "/api/client", |it| {
        it["servers"][0]["isConnected"] == true
    });
    server.stop();
    let state = page.wait_for("no tunnel", "/api/client", |it| {
        it["servers"][0]["isConnected"] == false && it["servers"][0]["error"].is_string()
    });
    let why = state["servers"][0]["error"].as_str().expect("a sentence");
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn bans_are_listed_and_lifted() {
    let http = service::http(0, "one");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let page = client(
        addr,
        &format!(
            "services:\n  - local: http://{}\n    visitorRate: 1/1h\n",
            http.addr
        ),
    );
    page.wait_for("a tunnel", "/api/client", |it| {
        it["servers"][0]["isConnected"] == true
    });
    eventually("a ban", || {
        (get(addr, "id1.a", "/").status == 403).then_some(())
    });
    let bans = page.get("/api/client/bans");
    assert_eq!(bans["bans"][0]["address"], "127.0.0.1", "{bans}");
    page.change("DELETE", "/api/client/bans/127.0.0.1", "");
    assert_eq!(page.get("/api/client/bans")["bans"], json!([]));
    assert_eq!(page.call("DELETE", "/api/client/bans/all", "").0, 404);
    assert_eq!(page.call("DELETE", "/api/client/bans/x", "").0, 400);
}

impl Paged {
    fn get_test(&self, number: usize) -> serde_json::Value {
        self.change("POST", &format!("/api/client/services/{number}/test"), "")
    }
}
