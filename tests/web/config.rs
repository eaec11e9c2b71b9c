//! The file in the editor: no secrets, precise errors, a copy of the former one, no lost changes.

use crate::page::{password_line, Paged};
use serde_json::{json, Value};

fn page() -> Paged {
    Paged::start(&format!(
        "# mine\noptions:\n  addr: 127.0.0.1:0\n  webAddr: 127.0.0.1:0\nusers:\n  # one\n  id1: {{secret: s3cret}} # hush\n{}",
        password_line()
    ))
}

fn put(page: &Paged, text: &str, etag: &str) -> (u16, Value) {
    let body = json!({"text": text}).to_string();
    let fields = format!("{}If-Match: \"{etag}\"\r\n", crate::page::BASIC);
    let answer = page.send("PUT", "/api/config", &fields, &body);
    let value = serde_json::from_slice(&answer.body).expect("JSON");
    (answer.status, value)
}

#[test]
fn an_edited_file_keeps_its_hidden_secrets_and_comments() {
    let mut page = page();
    let before = page.text("gt.yaml");
    let shown = page.get("/api/config");
    let text = shown["text"].as_str().expect("a text").to_owned();
    assert!(
        !text.contains("s3cret") && !text.contains("pbkdf2"),
        "{text}"
    );
    assert!(
        text.contains("  # one\n  id1: {secret: \"******1\"} # hush\n"),
        "{text}"
    );
    let edited =
        text.replace("# mine", "# yours ******") + "tcpNumber: 3\ntcp: [{range: 20000-20010}]\n";
    let (status, answer) = put(&page, &edited, shown["etag"].as_str().expect("a version"));
    assert_eq!(
        (status, &answer["reloadError"]),
        (200, &Value::Null),
        "{answer}"
    );
    let after = page.text("gt.yaml");
    assert_eq!(
        after,
        before.replace("# mine", "# yours ******") + "tcpNumber: 3\ntcp: [{range: 20000-20010}]\n"
    );
    assert_eq!(page.text("gt.yaml.bak"), before);
    page.gt
        .wait_for("INF the web page: admin from 127.0.0.1 has changed the configuration in");
    page.gt.wait_for("INF reloaded");
    assert_eq!(page.get("/api/config")["etag"], answer["etag"]);
}

#[test]
fn a_wrong_text_is_not_saved_and_its_line_is_told() {
    let page = page();
    let before = page.text("gt.yaml");
    let shown = page.get("/api/config");
    let (text, etag) = (
        shown["text"].as_str().expect("text"),
        shown["etag"].as_str().expect("version"),
    );
    for (edited, line, word) in [
        (text.replace("users:", "users: ["), Some(8), ""),
        (
            text.replace("  addr: 127.0.0.1:0", "  addr: nowhere"),
            Some(3),
            "addr",
        ),
        (text.replace("******1", "******9"), Some(7), "hidden"),
        (text.replace("\"******1\"", "a******1"), Some(7), "hidden"),
        (
            text.replace(
                "webAddr: 127.0.0.1:0",
                "webAddr: 127.0.0.1:0\n  tlsAddr: 127.0.0.1:0",
            ),
            None,
            "certFile",
        ),
        (
            text.replace(
                "webAddr: 127.0.0.1:0",
                "webAddr: 127.0.0.1:0\n  certFile: /none\n  keyFile: /none\n  tlsAddr: 1",
            ),
            None,
            "/none",
        ),
        ("type: client\n".to_owned() + text, None, ""),
    ] {
        let (status, answer) = put(&page, &edited, etag);
        assert_eq!(status, 422, "{edited}: {answer}");
        let why = answer["error"].as_str().expect("a sentence");
        assert!(why.contains(word) && !why.contains("s3cret"), "{why}");
        assert_eq!(answer["line"].as_u64(), line, "{why}");
        let (status, checked) = page.call(
            "POST",
            "/api/config/check",
            &json!({"text": edited}).to_string(),
        );
        assert_eq!((status, &checked["ok"]), (200, &json!(false)));
        assert_eq!(checked["line"].as_u64(), line, "{checked}");
        assert_eq!(page.text("gt.yaml"), before);
        assert!(!page.file("gt.yaml.bak").exists());
    }
    let (_, checked) = page.call(
        "POST",
        "/api/config/check",
        &json!({"text": text.replace("users:", "usres: 1\nusers:")}).to_string(),
    );
    assert_eq!(checked["ok"], true, "{checked}");
    assert!(
        checked["warnings"].to_string().contains("usres"),
        "{checked}"
    );
}

#[test]
fn a_text_of_a_browser_keeps_the_line_ends_of_windows_and_hidden_comments() {
    let mut page = page();
    let text = page.text("gt.yaml") + "# groupKey: hidden too\n";
    page.scratch.file("gt.yaml", text.replace('\n', "\r\n"));
    page.gt.reload();
    let shown = page.get("/api/config");
    let text = shown["text"].as_str().expect("a text");
    assert!(!text.contains("hidden too"), "{text}");
    let edited = text.replace("\r\n", "\n").replace("# mine", "# yours");
    let (status, answer) = put(&page, &edited, shown["etag"].as_str().expect("a version"));
    assert_eq!(status, 200, "{answer}");
    let saved = page.text("gt.yaml");
    assert!(saved.starts_with("# yours\r\noptions:\r\n"), "{saved}");
    assert!(saved.contains("\r\n# groupKey: hidden too\r\n"), "{saved}");
    assert_eq!(saved.matches('\n').count(), saved.matches("\r\n").count());
}

#[test]
fn a_check_shows_nothing_of_other_files() {
    let page = page();
    let shown = page.get("/api/config");
    let (text, etag) = (
        shown["text"].as_str().expect("a text"),
        shown["etag"].as_str().expect("a version"),
    );
    for (content, option, is_named) in [
        ("root:x:TOPLINE:0\n", "users: OTHER", true),
        ("TOPLINE: {speed: TOPLINE}\n", "users: OTHER", true),
        ("TOPLINE: [\n", "'users': OTHER", true),
        (
            "-----BEGIN TOPLINE\n",
            "tlsAddr: 127.0.0.1:0\n  certFile: OTHER\n  keyFile: OTHER",
            false,
        ),
        (
            "-----BEGIN CERTIFICATE-----\nTOPLINE\n-----END TOPLINE-----\n",
            "tlsAddr: 127.0.0.1:0\n  certFile: OTHER\n  keyFile: OTHER",
            false,
        ),
        (
            "-----BEGIN TOPLINE-----\nAAAA\n",
            "webCertFile: OTHER\n  webKeyFile: OTHER",
            false,
        ),
    ] {
        let other = page.scratch.file("other", content);
        let option = option.replace("OTHER", &other.display().to_string());
        let edited = text.replace("options:\n", &format!("options:\n  {option}\n"));
        let body = json!({"text": edited}).to_string();
        let (_, checked) = page.call("POST", "/api/config/check", &body);
        let (status, saved) = put(&page, &edited, etag);
        assert_eq!((&checked["ok"], status), (&json!(false), 422), "{saved}");
        for answer in [checked, saved] {
            assert!(!answer.to_string().contains("TOPLINE"), "{answer}");
            assert_eq!(
                answer["line"],
                if is_named { json!(3) } else { json!(null) },
                "{answer}"
            );
        }
    }
}

#[test]
fn a_configuration_without_a_page_is_saved_and_answered() {
    let mut page = page();
    let shown = page.get("/api/config");
    let text = shown["text"].as_str().expect("a text");
    let edited = text.replace("  webAddr: 127.0.0.1:0\n", "");
    let (status, answer) = put(&page, &edited, shown["etag"].as_str().expect("a version"));
    assert_eq!(
        (status, &answer["reloadError"]),
        (200, &Value::Null),
        "{answer}"
    );
    page.gt.wait_for("INF reloaded");
    assert!(!page.text("gt.yaml").contains("webAddr"));
}

#[test]
fn changes_of_two_editors_do_not_get_lost() {
    let page = page();
    let shown = page.get("/api/config");
    let (text, etag) = (
        shown["text"].as_str().expect("text"),
        shown["etag"].as_str().expect("version"),
    );
    let (status, _) = page.call("PUT", "/api/config", &json!({"text": text}).to_string());
    assert_eq!(status, 428, "the version is missing");
    assert_eq!(put(&page, &text.replace("# mine", "# one"), etag).0, 200);
    let (status, answer) = put(&page, &text.replace("# mine", "# other"), etag);
    assert_eq!(status, 412, "{answer}");
    assert!(page.text("gt.yaml").contains("# one"));
    // A change by hand counts, too.
    let now = page.get("/api/config")["etag"]
        .as_str()
        .expect("version")
        .to_owned();
    let by_hand = page.text("gt.yaml") + "# by hand\n";
    page.scratch.file("gt.yaml", &by_hand);
    assert_eq!(put(&page, text, &now).0, 412);
    assert_eq!(page.text("gt.yaml"), by_hand);
}

#[test]
fn a_right_text_that_cannot_be_applied_is_saved_and_said() {
    let page = page();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = taken.local_addr().expect("an address").port();
    let shown = page.get("/api/config");
    let text = shown["text"].as_str().expect("text");
    let edited = text.replace(
        "  addr: 127.0.0.1:0",
        &format!("  addr: 127.0.0.1:0\n  apiAddr: 127.0.0.1:{port}"),
    );
    let (status, answer) = put(&page, &edited, shown["etag"].as_str().expect("version"));
    assert_eq!(status, 200);
    let why = answer["reloadError"].as_str().expect("a sentence");
    assert!(why.contains("apiAddr"), "{why}");
    assert_eq!(page.get("/api/status")["lastChange"]["error"], why);
}

#[test]
fn no_other_file_can_be_read_or_written() {
    let page = page();
    let before = page.text("gt.yaml");
    page.scratch.file("other.yaml", "hush: hush\n");
    for path in [
        "/api/config?role=1",
        "/api/config?role=-1",
        "/api/config?role=other.yaml",
        "/api/config?file=other.yaml&role=9",
    ] {
        assert_eq!(page.call("GET", path, "").0, 404, "{path}");
    }
    for path in [
        "/other.yaml",
        "/../gt.yaml",
        "/%2e%2e/gt.yaml",
        "//gt.yaml",
        "/api/config/../log",
    ] {
        assert_eq!(
            page.send("GET", path, crate::page::BASIC, "").status,
            404,
            "{path}"
        );
    }
    assert_eq!(page.text("gt.yaml"), before);
}

#[test]
fn flags_have_no_file_to_change() {
    let mut gt =
        crate::common::gt::server("-addr 127.0.0.1:0 -webAddr 127.0.0.1:0 -id a -secret b");
    let addr = gt.web_addr();
    let line = gt.wait_for("#link=");
    let link = line
        .split("#link=")
        .nth(1)
        .and_then(|it| it.split(' ').next())
        .expect("a link");
    let answer = crate::page::send(
        addr,
        "POST",
        "/api/login",
        "",
        &format!("{{\"link\": \"{link}\"}}"),
    );
    let signed = crate::page::Signed::of(&answer);
    let get = |path: &str| crate::page::send(addr, "GET", path, &signed.fields(), "");
    assert_eq!(get("/api/config").status, 409);
    assert_eq!(get("/api/server/users").status, 409);
    assert_eq!(get("/api/status").status, 200);
}
