//! Who may use the page: passwords, links, sessions, tokens, host names, other sites.

use crate::common::certs;
use crate::common::eventually;
use crate::common::gt::gt;
use crate::common::scratch::Scratch;
use crate::common::visitor::ask;
use crate::page::{curl, password_line, Paged, Signed, BASIC};
use serde_json::Value;

fn with_password() -> Paged {
    let text = "options: {addr: '127.0.0.1:0', webAddr: '127.0.0.1:0', webHosts: router.lan}\nusers: {a: {secret: b}}\n";
    Paged::start(&format!("{text}{}", password_line()))
}

fn without_password() -> Paged {
    Paged::start(
        "options: {addr: '127.0.0.1:0', webAddr: '127.0.0.1:0'}\nusers: {a: {secret: b}}\n",
    )
}

fn login(page: &Paged, admin: &str, password: &str) -> crate::common::visitor::Answer {
    let body = serde_json::json!({"admin": admin, "password": password});
    page.send("POST", "/api/login", "", &body.to_string())
}

#[test]
fn a_password_signs_in_and_nothing_else_does() {
    let mut page = with_password();
    for path in [
        "/api/status",
        "/api/config",
        "/api/log",
        "/api/server/users",
        "/api/session",
    ] {
        let answer = page.send("GET", path, "", "");
        assert_eq!(answer.status, 401, "{path}");
        assert!(
            !answer.head.contains("WWW-Authenticate"),
            "browsers would ask for a password"
        );
    }
    let wrong = login(&page, "admin", "wrong");
    assert_eq!(wrong.status, 401, "{}", wrong.text());
    assert_eq!(login(&page, "root", "secret").status, 401);
    page.gt
        .wait_for_lines("WRN the web page: a login from 127.0.0.1 has failed", 2);
    let answer = login(&page, "admin", "secret");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.head.contains("; HttpOnly; SameSite=Strict"),
        "{}",
        answer.head
    );
    assert!(!answer.head.contains("Secure"), "the page has no TLS");
    page.gt
        .wait_for("INF the web page: admin from 127.0.0.1 has signed in");
    let signed = Signed::of(&answer);
    let status = page.send("GET", "/api/status", &signed.fields(), "");
    assert_eq!(status.status, 200);
    assert_eq!(
        page.send("GET", "/api/status", "Cookie: gt-1=x\r\n", "")
            .status,
        401
    );
    // Scripts have no session.
    assert_eq!(page.send("GET", "/api/status", BASIC, "").status, 200);
    assert_eq!(page.send("POST", "/api/reload", BASIC, "").status, 200);
    let bad = "Authorization: Basic YWRtaW46d3Jvbmc=\r\n";
    assert_eq!(page.send("GET", "/api/status", bad, "").status, 401);
    let odd = format!("{}Authorization: Bearer x\r\n", signed.cookie_field());
    assert_eq!(page.send("GET", "/api/status", &odd, "").status, 401);
    let out = page.send("POST", "/api/logout", &signed.fields(), "");
    assert_eq!(out.status, 200, "{}", out.text());
    assert_eq!(
        page.send("GET", "/api/status", &signed.fields(), "").status,
        401
    );
}

#[test]
fn a_link_signs_in_once_and_a_reload_makes_another() {
    let mut page = without_password();
    let link = page.link();
    let signed = page.sign_in();
    let again = page.send(
        "POST",
        "/api/login",
        "",
        &format!("{{\"link\": \"{link}\"}}"),
    );
    assert_eq!(again.status, 401, "{}", again.text());
    assert_eq!(login(&page, "admin", "").status, 401);
    assert_eq!(page.send("GET", "/api/status", BASIC, "").status, 401);
    // A reload that the page itself has asked for makes none.
    assert_eq!(
        page.send("POST", "/api/reload", &signed.fields(), "")
            .status,
        200
    );
    assert_eq!(page.gt.lines_with("#link=").len(), 1);
    page.gt.reload();
    page.gt.wait_for_lines("#link=", 2);
    assert_ne!(page.link(), link);
    page.sign_in();
    assert_eq!(
        page.send("GET", "/api/status", &signed.fields(), "").status,
        200
    );
}

#[test]
fn guesses_are_locked_out_and_sessions_go_on() {
    let mut page = with_password();
    let signed = Signed::of(&login(&page, "admin", "secret"));
    // Links are not guessed: they have 192 random bits.
    for _ in 0..7 {
        let body = "{\"link\": \"0123\"}";
        assert_eq!(page.send("POST", "/api/login", "", body).status, 401);
    }
    // Two addresses are locked out: one that has given the right password, and one that has not.
    for from in ["127.0.0.1", "127.0.0.2"] {
        for _ in 0..6 {
            assert_eq!(status_from(&page, from, "wrong"), "401");
        }
    }
    page.gt.wait_for("its logins are refused for 300s");
    let late = login(&page, "admin", "secret ");
    assert_eq!(late.status, 429, "{}", late.text());
    assert!(late.head.contains("Retry-After: "), "{}", late.head);
    assert_eq!(
        page.send("GET", "/api/status", &signed.fields(), "").status,
        200
    );
    let guess = "Authorization: Basic YWRtaW46d3Jvbmc=\r\n";
    assert_eq!(page.send("GET", "/api/status", guess, "").status, 429);
    // An address that has not given the right password learns nothing of it.
    for password in ["wrong", "secret"] {
        assert_eq!(status_from(&page, "127.0.0.2", password), "429");
    }
    // The address that has given the right password is known, also after a reload; after a wrong guess, a second
    // later.
    page.gt.reload();
    eventually("a right password", || {
        (page.send("GET", "/api/status", BASIC, "").status == 200).then_some(())
    });
}

#[test]
fn lockouts_of_the_page_are_listed_and_lifted() {
    let mut page = with_password();
    page.get("/api/status");
    for _ in 0..6 {
        assert_eq!(status_from(&page, "127.0.0.2", "wrong"), "401");
    }
    assert_eq!(status_from(&page, "127.0.0.2", "secret"), "429");
    let listed = page.get("/api/lockouts");
    assert_eq!(listed["lockouts"][0]["address"], "127.0.0.2");
    assert_eq!(listed["lockouts"][0]["failures"], 6);
    let server = page.get("/api/server/lockouts");
    assert_eq!(
        server["lockouts"],
        serde_json::json!([]),
        "it is another list"
    );
    page.change("DELETE", "/api/lockouts/127.0.0.2", "");
    page.gt
        .wait_for("has lifted the lockout of 127.0.0.2 from the web page");
    assert_eq!(status_from(&page, "127.0.0.2", "secret"), "200");
    let call = |address: &str| {
        page.call("DELETE", &format!("/api/lockouts/{address}"), "")
            .0
    };
    assert_eq!((call("127.0.0.2"), call("x")), (404, 400));
}

/// Returns the status of an answer to an address.
fn status_from(page: &Paged, from: &str, password: &str) -> String {
    let (login, url) = (
        format!("admin:{password}"),
        format!("http://{}/api/status", page.addr),
    );
    curl(&[
        "--interface",
        from,
        "-u",
        &login,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ])
}

#[test]
fn changes_need_the_token_and_come_from_the_page_itself() {
    let mut page = without_password();
    let signed = page.sign_in();
    let cookie = signed.cookie_field();
    let status = |fields: &str| page.send("POST", "/api/reload", fields, "").status;
    assert_eq!(status(&cookie), 401);
    assert_eq!(status(&format!("{cookie}X-CSRF-Token: x\r\n")), 401);
    assert_eq!(
        status(&format!(
            "{}Origin: http://evil.example\r\n",
            signed.fields()
        )),
        403
    );
    assert_eq!(status(&format!("{}Origin: null\r\n", signed.fields())), 403);
    assert_eq!(
        status(&format!(
            "{}Sec-Fetch-Site: cross-site\r\n",
            signed.fields()
        )),
        403
    );
    assert_eq!(
        status(&format!(
            "{}Origin: http://{}\r\n",
            signed.fields(),
            page.addr
        )),
        200
    );
    // A form of another site cannot send JSON.
    let form = format!(
        "POST /api/login HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: 2\r\n\r\n{{}}",
        page.addr
    );
    assert_eq!(ask(page.addr, &form).status, 415);
    let origin = "Origin: http://evil.example\r\n";
    assert_eq!(
        page.send("POST", "/api/login", origin, "{\"link\": \"x\"}")
            .status,
        403
    );
    // A password that a browser remembers does not help another site, either.
    let page = with_password();
    let cross = format!("{BASIC}Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(page.send("POST", "/api/reload", &cross, "").status, 403);
}

/// Browsers send cookies to all ports of a host: a service at another port may know that of the page.
#[test]
fn the_cookie_alone_is_worth_nothing() {
    let mut page = without_password();
    let signed = page.sign_in();
    for path in ["/api/session", "/api/status", "/api/config", "/api/log"] {
        let answer = page.send("GET", path, &signed.cookie_field(), "");
        assert_eq!(answer.status, 401, "{path}");
        assert!(!answer.text().contains(&signed.csrf), "{path}");
        let token = format!("X-CSRF-Token: {}\r\n", signed.csrf);
        assert_eq!(page.send("GET", path, &token, "").status, 401, "{path}");
        let answer = page.send("GET", path, &signed.fields(), "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains(&signed.csrf), "{path}");
    }
    // Nor does one that another service has set with the same name keep the session's from being found.
    let name = signed.cookie.split_once('=').expect("a cookie").0;
    let fields = format!("Cookie: {name}=other\r\n{}", signed.fields());
    assert_eq!(page.send("GET", "/api/status", &fields, "").status, 200);
}

#[test]
fn a_second_tab_signs_in_and_the_first_one_goes_on() {
    let page = with_password();
    let first = Signed::of(&login(&page, "admin", "secret"));
    let body = serde_json::json!({"admin": "admin", "password": "secret"}).to_string();
    let second = page.send("POST", "/api/login", &first.cookie_field(), &body);
    let second = Signed::of(&second);
    assert_eq!(first.cookie, second.cookie);
    assert_ne!(first.csrf, second.csrf);
    for tab in [&first, &second] {
        let answer = page.send("GET", "/api/status", &tab.fields(), "");
        assert_eq!(answer.status, 200);
    }
    let out = page.send("POST", "/api/logout", &second.fields(), "");
    assert_eq!(out.status, 200, "{}", out.text());
    for tab in [&first, &second] {
        let answer = page.send("GET", "/api/status", &tab.fields(), "");
        assert_eq!(answer.status, 401, "signing out is for all tabs");
    }
}

#[test]
fn other_host_names_get_nothing() {
    let page = with_password();
    for host in [
        "evil.example",
        "router.lan.evil.example",
        "localhost.evil.example",
    ] {
        let fields = format!("Host: {host}\r\n{BASIC}");
        for path in ["/", "/page.js", "/api/status"] {
            assert_eq!(
                page.send("GET", path, &fields, "").status,
                421,
                "{host}{path}"
            );
        }
    }
    for host in [
        "router.lan",
        "ROUTER.lan:8086",
        "localhost",
        "[::1]:1",
        "192.0.2.1",
    ] {
        let fields = format!("Host: {host}\r\n{BASIC}");
        assert_eq!(
            page.send("GET", "/api/status", &fields, "").status,
            200,
            "{host}"
        );
    }
}

#[test]
fn every_answer_is_safe_for_browsers() {
    let page = with_password();
    for (path, fields) in [
        ("/", ""),
        ("/page.js", ""),
        ("/none", ""),
        ("/api/status", ""),
        ("/api/status", BASIC),
    ] {
        let head = page.send("GET", path, fields, "").head;
        for field in [
            "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "frame-ancestors 'none'",
            "X-Frame-Options: DENY",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
        ] {
            assert!(head.contains(field), "{path}: {field}: {head}");
        }
        assert!(!head.contains("unsafe-inline"), "{head}");
        assert!(
            !path.starts_with("/api") || head.contains("Cache-Control: no-store"),
            "{head}"
        );
    }
    let page_head = page.send("GET", "/", "", "").head;
    assert!(page_head.contains("Content-Encoding: gzip"), "{page_head}");
    let etag = page_head
        .lines()
        .find_map(|line| line.strip_prefix("ETag: "))
        .expect("a version");
    let known = page.send("GET", "/", &format!("If-None-Match: {etag}\r\n"), "");
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[test]
fn a_page_for_others_needs_a_password() {
    let scratch = Scratch::new();
    for addr in ["0.0.0.0:0", "[::]:0"] {
        let file = scratch.file("gt.yaml", format!("options: {{addr: '127.0.0.1:0', webAddr: '{addr}'}}\nusers: {{a: {{secret: b}}}}\n"));
        let output = gt(&format!("check -config {}", file.display()));
        assert_eq!(output.status.code(), Some(2));
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(why.contains("gt hash"), "{why}");
    }
}

#[test]
fn tls_has_a_certificate_of_files_or_of_gt_and_secure_cookies() {
    let certs = certs::make();
    let (cert, key) = (
        certs.cert.display().to_string(),
        certs.key.display().to_string(),
    );
    let of = |tls: &str| {
        Paged::start(&format!(
            "options: {{addr: '127.0.0.1:0', webAddr: '127.0.0.1:0', {tls}}}\nusers: {{a: {{secret: b}}}}\n{}",
            password_line()
        ))
    };
    for tls in [
        format!("webCertFile: '{cert}', webKeyFile: '{key}'"),
        "webCertFile: auto".to_owned(),
    ] {
        let mut page = of(&tls);
        let url = format!("https://{}/api/login", page.addr);
        let login = "{\"admin\": \"admin\", \"password\": \"secret\"}";
        let answer = curl(&[
            "-ki",
            "-H",
            "Content-Type: application/json",
            "-d",
            login,
            &url,
        ]);
        assert!(
            answer.contains(" 200 OK") && answer.contains("SameSite=Strict; Secure"),
            "{tls}: {answer}"
        );
        let plain = page_plain(&page);
        assert!(plain.contains("https://"), "{plain}");
        page.gt.reload();
        let status = curl(&[
            "-k",
            "-u",
            "admin:secret",
            &format!("https://{}/api/status", page.addr),
        ]);
        assert!(status.contains("\"roles\""), "{status}");
    }
}

fn page_plain(page: &Paged) -> String {
    curl(&[&format!("http://{}/", page.addr)])
}

#[test]
fn another_password_ends_sessions_and_the_same_one_does_not() {
    let mut page = without_password();
    let signed = page.sign_in();
    page.gt.reload();
    assert_eq!(
        page.send("GET", "/api/session", &signed.fields(), "")
            .status,
        200
    );
    let text = page.text("gt.yaml");
    page.scratch
        .file("gt.yaml", format!("{text}{}", password_line()));
    page.gt.reload();
    assert_eq!(
        page.send("GET", "/api/session", &signed.fields(), "")
            .status,
        401
    );
    let (status, value) = page.call("GET", "/api/session", "");
    assert_eq!((status, &value["csrf"]), (200, &Value::Null));
}
