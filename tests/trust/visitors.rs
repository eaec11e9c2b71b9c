//! Visitors that need a certificate (`clientCA`).

use crate::common::certs::{self, Certs};
use crate::common::curl;
use crate::common::gt::{client, gt, server, Gt};
use crate::common::service::Service;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;

/// Answers each request with its own head.
fn mirror() -> Service {
    Service::start(0, |mut stream| {
        let mut head = String::new();
        for line in BufReader::new(stream.try_clone()?).lines() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            head += &format!("{line}\n");
        }
        let length = head.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{head}"
        )
    })
}

/// Starts a server whose visitors need certificates, and a client of it that has none.
fn certified(certs: &Certs, service: &Service, more: &str) -> (Gt, Gt, SocketAddr) {
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -clientCA {} -id id1 -secret secret1 {more}",
        certs.flags(),
        certs.ca.display()
    ));
    let addr = server.tls_addr();
    let mut client = client(&format!(
        "-remote tls://{addr} -remoteCert {} -id id1 -secret secret1 -forwarded -local http://{}",
        certs.ca.display(),
        service.addr
    ));
    client.wait_for_tunnel();
    (server, client, addr)
}

#[test]
fn only_visitors_with_a_certificate_of_the_authority_are_served_and_the_service_learns_whose() {
    let certs = certs::make();
    let service = mirror();
    let (_server, _client, addr) = certified(&certs, &service, "");
    let ask = |more: &str| curl::https("id1.example.com", addr, &certs.ca, more);
    let with = |cert: &std::path::Path, key: &std::path::Path| {
        format!("--cert {} --key {}", cert.display(), key.display())
    };
    let right = with(&certs.cert, &certs.key);
    let forged =
        "-H X-Forwarded-TLS-Client-Subject:CN=root -H x_forwarded_tls_client_subject:CN=root";
    for more in [String::new(), "--tls-max 1.2".to_owned()] {
        let reply = ask(&format!("{right} {forged} {more}"));
        let head = reply.text();
        assert!(
            head.contains("X-Forwarded-TLS-Client-Subject: CN=id1.example.com\n"),
            "{head}"
        );
        assert!(!head.contains("root"), "{head}");
        let without = ask(&more);
        assert!(
            without.text().contains("needs a certificate"),
            "{}",
            without.text()
        );
        let wrong = ask(&format!(
            "{} {more}",
            with(&certs.self_signed, &certs.self_signed_key)
        ));
        assert_ne!(wrong.code, 0, "refused in the handshake");
        assert!(wrong.body.is_empty());
    }
}

#[test]
fn without_client_ca_the_field_of_a_visitor_is_removed_all_the_same() {
    let certs = certs::make();
    let service = mirror();
    let (_server, _client, addr) =
        crate::common::gt::tls_tunnel(&certs, service.addr, "", "-forwarded");
    let forged = "-H X-Forwarded-TLS-Client-Subject:CN=root";
    let reply = curl::https("id1.example.com", addr, &certs.ca, forged);
    assert!(!reply.text().contains("Subject"), "{}", reply.text());
}

#[test]
fn check_tells_of_listeners_that_ask_for_no_certificate_and_of_authorities_that_cannot_be_used() {
    let scratch = crate::common::scratch::Scratch::new();
    let authorities = scratch.file("ca.crt", "none\n");
    let state = scratch.join("state");
    let output = gt(&format!(
        "check server -addr 127.0.0.1:81 -sniAddr 127.0.0.1:82 -tlsAddr 127.0.0.1:83 -stateDir {} -clientCA {}",
        state.display(),
        authorities.display()
    ));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(
            "visitors of addr (127.0.0.1:81) and sniAddr (127.0.0.1:82) need no certificate"
        ),
        "{said}"
    );
    // There is no identity yet.
    assert!(!output.status.success() && !state.exists());
    let named = format!("reading certificates from {}", authorities.display());
    assert!(said.contains(&named), "{said}");
}

#[test]
fn the_health_check_of_a_server_needs_no_certificate() {
    let certs = certs::make();
    let service = mirror();
    let (mut server, _client, _) = certified(&certs, &service, "-apiAddr 127.0.0.1:0");
    let api = server.api_addr();
    let reply = curl::curl(&format!("http://{api}/status"));
    assert!(reply.text().contains("\"ok\""), "{}", reply.text());
}

#[test]
fn a_reload_changes_who_needs_a_certificate() {
    let certs = certs::make();
    let service = mirror();
    let scratch = crate::common::scratch::Scratch::new();
    let write = |ca: &str| {
        scratch.file(
            "server.yaml",
            format!(
                "type: server\noptions: {{addr: '', tlsAddr: '127.0.0.1:0', certFile: {}, keyFile: {}{ca}}}\n\
                 users: {{id1: {{secret: secret1}}}}\n",
                certs.cert.display(),
                certs.key.display()
            ),
        )
    };
    let config = write("");
    let mut server = Gt::start("gt server", &[], &format!("-config {}", config.display()));
    let addr = server.tls_addr();
    let mut client = client(&format!(
        "-remote tls://{addr} -remoteCert {} -id id1 -secret secret1 -local http://{}",
        certs.ca.display(),
        service.addr
    ));
    client.wait_for_tunnel();
    let ask = || curl::https("id1.example.com", addr, &certs.ca, "");
    assert!(ask().text().starts_with("GET / "));
    write(&format!(", clientCA: {}", certs.ca.display()));
    server.reload();
    assert!(ask().text().contains("needs a certificate"));
    assert_eq!(client.tunnels(), 1, "tunnels stay");
    write(", clientCA: /none.crt");
    assert!(server.reload_in_vain().contains("/none.crt"));
    assert!(ask().text().contains("needs a certificate"));
}

#[test]
fn client_ca_without_a_listener_that_decrypts_is_a_mistake() {
    let output = gt("check server -addr 80 -clientCA c");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("clientCA needs tlsAddr"), "{error}");
}
