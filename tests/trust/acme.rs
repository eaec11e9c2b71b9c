//! Certificates from an authority for the names of clients: what an authority may answer, and what is left of a
//! process that is killed.

use crate::common::authority::{self, ok, response, Asked, Authority};
use crate::common::certs::{self, Certs};
use crate::common::curl;
use crate::common::eventually;
use crate::common::gt::{client, gt, server, Gt};
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use async_tls::pki_types::pem::PemObject;
use async_tls::pki_types::{CertificateDer, ServerName};
use async_tls::rustls::crypto::ring::default_provider;
use async_tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// A server that gets certificates, and a client of it.
struct Ends {
    server: Gt,
    addr: SocketAddr,
    _client: Gt,
}

fn line(authority: &Authority, certs: &Certs, state: &Scratch, more: &str) -> String {
    format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir {} {} -id id1 -secret secret1 {more}",
        state.path().display(),
        authority.flags(certs)
    )
}

fn start(authority: &Authority, certs: &Certs, state: &Scratch, service: &Service) -> Ends {
    let mut server = server(&line(authority, certs, state, ""));
    let addr = server.tls_addr();
    let client = client_of(&mut server, service);
    Ends {
        server,
        addr,
        _client: client,
    }
}

fn client_of(server: &mut Gt, service: &Service) -> Gt {
    let mut client = client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 -local http://{}",
        server.addr(),
        service.addr
    ));
    client.wait_for_tunnel();
    client
}

/// Asks for the page of a name, whose certificate the authority must have signed.
fn page(addr: SocketAddr, certs: &Certs) -> curl::Reply {
    curl::https("id1.example.com", addr, &certs.ca, "")
}

fn file(state: &Scratch) -> PathBuf {
    state.join("acme/id1.example.com.pem")
}

#[test]
fn a_name_gets_a_certificate_of_the_server_s_key_that_survives_a_restart() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    assert!(page(ends.addr, &certs).text().starts_with("hello"));
    let connect = format!(
        "openssl s_client -connect {} -servername ID1.Example.COM </dev/null 2>/dev/null | openssl x509 -noout -issuer",
        ends.addr
    );
    let issuer = run_ok(Command::new("sh").args(["-c", &connect]));
    assert!(issuer.contains("CN = ca"), "in any case: {issuer}");
    let mode = |path: &str| fs::metadata(state.join(path)).unwrap().mode() & 0o777;
    assert_eq!(mode("acme"), 0o700);
    for name in ["account.json", "orders.json", "id1.example.com.pem"] {
        assert_eq!(mode(&format!("acme/{name}")), 0o600);
    }
    // The key is that of the server, so that clients with remoteKey go on.
    let keys = |file: &str| {
        let file = state.join(file);
        let file = file.display();
        run_ok(Command::new("sh").args(["-c", &format!("openssl x509 -in {file} -noout -pubkey")]))
    };
    assert_eq!(keys("identity.pem"), keys("acme/id1.example.com.pem"));
    drop(ends);
    let mut again = server(&line(&authority, &certs, &state, ""));
    let addr = again.tls_addr();
    assert_ne!(
        page(addr, &certs).code,
        60,
        "the certificate is there at once"
    );
    assert_eq!(authority.count(Asked::NewOrder), 1);
}

#[test]
fn a_name_that_no_client_has_gets_no_certificate() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    for name in [
        "other.example.com",
        "id1.example.org",
        "example.com",
        "a.id1.example.com",
    ] {
        let reply = curl::https(name, ends.addr, &certs.ca, "");
        assert_eq!(
            reply.code, 60,
            "{name} has the certificate of the server: {}",
            reply.errors
        );
    }
    // A validation that no order awaits.
    let line = format!(
        "openssl s_client -connect {} -servername id1.example.com -alpn acme-tls/1 </dev/null 2>&1 || true",
        ends.addr
    );
    let output = run_ok(Command::new("sh").args(["-c", &line]));
    assert!(output.contains("unrecognized name"), "{output}");
    let addr = ends.server.addr();
    let url = curl::url(
        "http",
        "id1.example.com",
        addr,
        "/.well-known/acme-challenge/t0",
    );
    let reply = curl::curl(&url);
    assert_eq!(
        reply.text(),
        "hello /.well-known/acme-challenge/t0 id1.example.com:".to_owned()
            + &addr.port().to_string()
    );
    assert_eq!(authority.count(Asked::NewOrder), 1);
}

#[test]
fn wrong_answers_of_an_authority_are_told_and_cost_no_visitor() {
    let certs = certs::make();
    let service = service::http(0, "hello");
    let huge = response("200 OK", "", &"x".repeat(100_000));
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{".to_vec();
    let chain = fs::read_to_string(&certs.cert).unwrap();
    let order = |status: &str| format!(r#"{{"status": "{status}"}}"#);
    let location = "Location: https://localhost/order/0\r\n";
    let problem = |kind: &str| {
        format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "the detail"}}"#)
    };
    let cases = [
        (Asked::Directory, huge, "larger than 64 KiB"),
        (Asked::Directory, endless, "larger than 64 KiB"),
        (Asked::Directory, ok("<html>no</html>"), "not as RFC 8555"),
        (
            Asked::Directory,
            b"SSH-2.0-x\r\n\r\n".to_vec(),
            "this is not HTTP",
        ),
        (
            Asked::Directory,
            response("302 Found", "Location: /dir\r\n", ""),
            "it redirects (status 302)",
        ),
        (
            Asked::Directory,
            ok(
                r#"{"newNonce": "http://a/", "newAccount": "https://a/", "newOrder": "https://a/"}"#,
            ),
            "not as RFC 8555",
        ),
        (
            Asked::Nonce,
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "no nonce",
        ),
        (
            Asked::Nonce,
            b"HTTP/1.1 204 No Content\r\nReplay-Nonce: a b\r\n\r\n".to_vec(),
            "no nonce",
        ),
        (
            Asked::Account,
            response("400 Bad Request", "", &problem("badNonce")),
            "refused 8 nonces",
        ),
        (Asked::Account, ok("{}"), "account has no URL"),
        (
            Asked::NewOrder,
            response(
                "429 Too Many",
                "Retry-After: 7200\r\n",
                &problem("rateLimited"),
            ),
            "rateLimited: the detail; the next attempt is in 7200s",
        ),
        (
            Asked::NewOrder,
            response("503 No", "", "busy"),
            "status 503",
        ),
        (
            Asked::NewOrder,
            response("201 Created", location, &order("strange")),
            "not as RFC 8555",
        ),
        (
            Asked::NewOrder,
            response("201 Created", "", &order("processing")),
            "order has no URL",
        ),
        (
            Asked::Order,
            ok(r#"{"status": "invalid", "error": {"detail": "the reason"}}"#),
            "the reason",
        ),
        (
            Asked::Authorization,
            ok(r#"{"status": "pending", "identifier": {"type": "dns", "value": "a.example.com"}}"#),
            "another name",
        ),
        (
            Asked::Authorization,
            ok(
                r#"{"status": "pending", "identifier": {"type": "dns", "value": "id1.example.com"},
                "challenges": [{"type": "dns-01", "url": "https://a/", "token": "t"}]}"#,
            ),
            "does not offer tls-alpn-01 or http-01",
        ),
        (
            Asked::Authorization,
            ok(
                r#"{"status": "invalid", "identifier": {"type": "dns", "value": "id1.example.com"},
                "challenges": [{"type": "dns-01", "error": {"type": "x:dns", "detail": "no address"}}]}"#,
            ),
            "dns: no address",
        ),
        (Asked::Certificate, ok("nothing"), "no PEM certificate"),
        (Asked::Certificate, ok(&chain), "another key"),
    ];
    std::thread::scope(|scope| {
        let (certs, service) = (&certs, &service);
        for (asked, answer, why) in cases {
            scope.spawn(move || {
                let authority = authority::start(certs);
                authority.script(|script| script.answer = Some((asked, answer, true)));
                let state = Scratch::new();
                let mut ends = start(&authority, certs, &state, service);
                let told = ends.server.wait_for("has no new certificate");
                assert!(told.contains(why), "{asked:?}: {told}");
                let reply = curl::curl(&format!(
                    "-k {}",
                    curl::url("https", "id1.example.com", ends.addr, "/")
                ));
                assert!(reply.text().starts_with("hello"));
                let known = fs::read_to_string(file(&state)).unwrap();
                assert!(known.contains("\"error\""), "{known}");
            });
        }
    });
}

#[test]
fn an_authority_that_works_for_ever_is_left_and_its_order_taken_up_again() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let again = response(
        "200 OK",
        "Retry-After: 0\r\n",
        r#"{"status": "processing"}"#,
    );
    authority.script(|script| script.answer = Some((Asked::Order, again, true)));
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut ends = start(&authority, &certs, &state, &service);
    let told = ends.server.wait_for("has no new certificate");
    assert!(told.contains("not finished in time"), "{told}");
    authority.script(|script| script.answer = None);
    // The next attempt is in ten seconds.
    ends.server.wait_for("id1.example.com has a certificate");
    assert_eq!(authority.count(Asked::NewOrder), 1);
}

#[test]
fn a_server_that_is_killed_at_any_step_has_its_certificate_after_a_restart_without_many_orders() {
    let certs = certs::make();
    let service = service::http(0, "hello");
    std::thread::scope(|scope| {
        let (certs, service) = (&certs, &service);
        for asked in Asked::ALL {
            scope.spawn(move || {
                let authority = authority::start(certs);
                let state = Scratch::new();
                let frozen = authority.freeze(asked);
                let mut ends = start(&authority, certs, &state, service);
                frozen.recv().unwrap();
                ends.server.kill();
                drop(ends);
                let mut ends = start(&authority, certs, &state, service);
                ends.server.wait_for("id1.example.com has a certificate");
                assert!(page(ends.addr, certs).text().starts_with("hello"));
                let orders = authority.count(Asked::NewOrder);
                // One whose answer has not come is placed again.
                let most = if asked == Asked::NewOrder { 2 } else { 1 };
                assert_eq!(orders, most, "killed at {asked:?}");
                // What was being written is written anew.
                eventually("no unfinished file", || {
                    let mut left = fs::read_dir(state.join("acme")).unwrap();
                    let is_new = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".new");
                    (!left.any(|entry| is_new(&entry.unwrap().file_name()))).then_some(())
                });
            });
        }
    });
}

#[test]
fn an_order_that_a_killed_server_has_left_does_not_wait_for_earlier_failures_of_its_name() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    fs::create_dir_all(state.join("acme")).unwrap();
    let directory = format!("https://localhost:{}/dir", authority.addr.port());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let known = format!("{{\"directory\":\"{directory}\",\"failures\":3,\"next\":{now}}}\n");
    fs::write(file(&state), known).unwrap();
    let frozen = authority.freeze(Asked::Authorization);
    let mut ends = start(&authority, &certs, &state, &service);
    frozen.recv().unwrap();
    let known = fs::read_to_string(file(&state)).unwrap();
    assert!(known.contains("\"failures\":4"), "{known}");
    ends.server.kill();
    drop(ends);
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    assert_eq!(authority.count(Asked::NewOrder), 1);
}

#[test]
fn a_server_that_is_killed_again_and_again_does_not_order_without_bound() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    for _ in 0..4 {
        let frozen = authority.freeze(Asked::NewOrder);
        let mut ends = start(&authority, &certs, &state, &service);
        // The second attempt is 10 s after the first, the third 10 min after the second.
        let is_asked = authority.count(Asked::NewOrder) < 2;
        if is_asked {
            frozen.recv().unwrap();
        } else {
            let url = curl::url("https", "id1.example.com", ends.addr, "/");
            assert!(curl::curl(&format!("-k {url}")).text().starts_with("hello"));
        }
        ends.server.kill();
    }
    assert_eq!(authority.count(Asked::NewOrder), 2);
}

/// A visitor's connection over TLS that stays open.
fn connect(addr: SocketAddr, certs: &Certs) -> BufReader<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_file_iter(&certs.ca)
            .unwrap()
            .map(Result::unwrap),
    );
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("id1.example.com").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    BufReader::new(StreamOwned::new(tls, TcpStream::connect(addr).unwrap()))
}

/// Sends a request and reads the status line, the head and a body of this length.
fn ask(stream: &mut BufReader<StreamOwned<ClientConnection, TcpStream>>) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: id1.example.com\r\n\r\n";
    stream.get_mut().write_all(request).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(
            stream.read_line(&mut head).unwrap(),
            0,
            "the connection ends: {head}"
        );
    }
    let length = head
        .lines()
        .find_map(|it| it.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

#[test]
fn a_certificate_is_renewed_when_the_authority_suggests_and_no_connection_ends() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let past =
        r#"{"suggestedWindow": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}}"#;
    authority.script(|script| script.answer = Some((Asked::Renewal, ok(past), false)));
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    let mut visitor = connect(ends.addr, &certs);
    assert!(ask(&mut visitor).starts_with("hello"));
    let before = visitor.get_ref().conn.peer_certificates().unwrap()[0].clone();
    ends.server
        .wait_for_lines("id1.example.com has a certificate", 2);
    assert!(ask(&mut visitor).starts_with("hello"));
    let mut next = connect(ends.addr, &certs);
    assert!(ask(&mut next).starts_with("hello"));
    assert_ne!(next.get_ref().conn.peer_certificates().unwrap()[0], before);
    let placed = authority.placed();
    assert!(placed[0].get("replaces").is_none());
    let replaces = placed[1]["replaces"].as_str().unwrap();
    assert!(replaces.split('.').count() == 2, "{replaces}");
}

#[test]
fn an_account_that_the_authority_has_lost_is_made_anew_within_the_same_attempt() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    drop(ends);
    fs::remove_file(file(&state)).unwrap();
    let lost = r#"{"type": "urn:ietf:params:acme:error:accountDoesNotExist", "detail": "who?"}"#;
    let lost = response("400 Bad Request", "", lost);
    authority.script(|script| script.answer = Some((Asked::NewOrder, lost, false)));
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    assert_eq!(authority.count(Asked::Account), 2);
    assert!(ends.server.lines_with("no new certificate").is_empty());
    let budget = fs::read_to_string(state.join("acme/orders.json")).unwrap();
    let budget: serde_json::Value = serde_json::from_str(&budget).unwrap();
    assert_eq!(budget["orders"].as_array().unwrap().len(), 2);
}

#[test]
fn while_the_authority_cannot_be_used_all_names_wait_and_the_api_tells_why() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let limit = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
    let limit = response("429 Too Many Requests", "", limit);
    authority.script(|script| script.answer = Some((Asked::Account, limit, true)));
    let more = "-apiAddr 127.0.0.1:0 -id id2 -secret secret2";
    let mut server = server(&line(&authority, &certs, &state, more));
    let api = server.api_addr();
    let _first = client_of(&mut server, &service);
    let told = server.wait_for("id1.example.com has no new certificate");
    assert!(
        told.contains("too many") && told.contains("no other name"),
        "{told}"
    );
    let mut second = client(&format!(
        "-remote tcp://{} -id id2 -secret secret2 -local http://{}",
        server.addr(),
        service.addr
    ));
    second.wait_for_tunnel();
    eventually("both names in /status", || {
        let status = curl::curl(&format!("http://{api}/status"))
            .text()
            .to_owned();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let certificates = status["certificates"].as_array()?;
        let waits = |it: &serde_json::Value| {
            it["error"]
                .as_str()
                .is_some_and(|it| it.contains("too many"))
        };
        (certificates.len() == 2 && certificates.iter().all(waits)).then_some(())
    });
    assert_eq!(authority.count(Asked::Account), 1);
    let known = fs::read_to_string(file(&state)).unwrap();
    assert!(known.contains("\"failures\":0"), "{known}");
}

#[test]
fn a_full_disk_at_the_moment_of_writing_places_no_order() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    // A folder at the name of the new file stops even root.
    fs::create_dir_all(state.join("acme/.orders.json.new/inner")).unwrap();
    let mut ends = start(&authority, &certs, &state, &service);
    let told = ends.server.wait_for("has no new certificate");
    assert!(
        told.contains("writing") && told.contains("orders.json"),
        "{told}"
    );
    assert_eq!(authority.count(Asked::NewOrder), 0);
}

#[test]
fn only_one_of_two_servers_with_a_state_dir_orders() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut ends = start(&authority, &certs, &state, &service);
    ends.server.wait_for("id1.example.com has a certificate");
    let mut second = server(&line(&authority, &certs, &state, ""));
    let told = second.wait_for("no certificates are ordered");
    assert!(told.contains("another process of gt"), "{told}");
    assert_eq!(authority.count(Asked::NewOrder), 1);
}

#[test]
fn the_api_tells_of_certificates_and_of_those_that_are_missing() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service::http(0, "hello"));
    let mut server = server(&line(&authority, &certs, &state, "-apiAddr 127.0.0.1:0"));
    let api = server.api_addr();
    let _client = client_of(&mut server, &service);
    server.wait_for("id1.example.com has a certificate");
    let get = |path: &str| curl::curl(&format!("http://{api}{path}")).text().to_owned();
    let status = eventually("the certificate in /status", || {
        let status: serde_json::Value = serde_json::from_str(&get("/status")).unwrap();
        status["certificates"][0]["expires"]
            .as_i64()
            .map(|_| status)
    });
    assert_eq!(status["certificates"][0]["name"], "id1.example.com");
    let metrics = get("/metrics");
    assert!(
        metrics.contains("gt_certificate_expiry_timestamp_seconds{name=\"id1.example.com\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("gt_certificates_failing 0"));
}

#[test]
fn mistakes_in_the_options_are_told_before_the_start() {
    for (options, why) in [
        ("-tlsAddr 443 -acmeDomain example.com", "needs stateDir"),
        ("-stateDir s -acmeDomain example.com", "needs tlsAddr"),
        (
            "-tlsAddr 443 -stateDir s -acmeDomain *.example.com",
            "without \"*.\"",
        ),
        (
            "-tlsAddr 443 -stateDir s -acmeDomain a -httpMUXHeader X",
            "httpMUXHeader",
        ),
        (
            "-tlsAddr 443 -stateDir s -acmeDomain a -acmeDirectory http://h/",
            "https://",
        ),
        (
            "-tlsAddr 443 -stateDir s -acmeDomain a -acmeEmail nobody",
            "not an email address",
        ),
        (
            "-tlsAddr 443 -stateDir s -acmeDomain a -acmeCA /none.crt",
            "/none.crt",
        ),
    ] {
        let output = gt(&format!("check server {options}"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(why),
            "{options}: {error}"
        );
    }
}
