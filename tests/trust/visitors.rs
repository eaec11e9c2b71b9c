//! Visitors that need a certificate (`clientCA`).

use crate::common::certs::{self, Certs};
use crate::common::curl;
use crate::common::gt::{client, gt, server, Gt};
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use async_tls::pki_types::pem::PemObject;
use async_tls::pki_types::{CertificateDer, ServerName};
use async_tls::rustls::crypto::ring::default_provider;
use async_tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

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

/// A server with the users id1, whose visitors need certificates, and id2, and a client of each.
struct TwoUsers {
    server: Gt,
    addr: SocketAddr,
    _clients: [Gt; 2],
    _scratch: Scratch,
}

fn two_users(certs: &Certs, service: &Service, more: &str) -> TwoUsers {
    let scratch = Scratch::new();
    let config = scratch.file(
        "server.yaml",
        format!(
            "type: server\noptions: {{addr: '127.0.0.1:0', tlsAddr: '127.0.0.1:0', certFile: {}, keyFile: {}{more}}}\n\
             users:\n  id1: {{secret: secret1, clientCA: {}}}\n  id2: {{secret: secret2}}\n",
            certs.cert.display(),
            certs.key.display(),
            certs.ca.display()
        ),
    );
    let mut server = Gt::start("gt server", &[], &format!("-config {}", config.display()));
    let addr = server.tls_addr();
    let clients = ["1", "2"].map(|number| {
        // The tunnel of id1 asks for a name whose visitors need a certificate, and has none.
        let mut client = client(&format!(
            "-remote tls://localhost:{} -remoteCert {} -id id{number} -secret secret{number} -forwarded -local http://{}",
            addr.port(),
            certs.ca.display(),
            service.addr
        ));
        client.wait_for_tunnel();
        client
    });
    TwoUsers {
        server,
        addr,
        _clients: clients,
        _scratch: scratch,
    }
}

fn with_certificate(certs: &Certs) -> String {
    format!(
        "--cert {} --key {}",
        certs.cert.display(),
        certs.key.display()
    )
}

#[test]
fn the_visitors_of_a_user_with_client_ca_need_a_certificate_and_those_of_others_none() {
    let certs = certs::make();
    let service = mirror();
    let mut ends = two_users(&certs, &service, "");
    let right = with_certificate(&certs);
    for more in ["", "--tls-max 1.2"] {
        let ask = |name: &str, with: &str| {
            curl::https(
                &format!("{name}.example.com"),
                ends.addr,
                &certs.ca,
                &format!("{with} {more}"),
            )
        };
        let head = ask("id1", &right);
        assert!(
            head.text()
                .contains("X-Forwarded-TLS-Client-Subject: CN=id1.example.com\n"),
            "{}",
            head.text()
        );
        let wrong = format!(
            "--cert {} --key {}",
            certs.self_signed.display(),
            certs.self_signed_key.display()
        );
        for with in ["", &wrong] {
            let refused = ask("id1", with);
            assert!(
                refused.code != 0 && refused.body.is_empty(),
                "in the handshake: {more}"
            );
        }
        for with in ["", &right, &wrong] {
            let head = ask("id2", with);
            assert!(
                !head.text().contains("Subject"),
                "not asked for: {}",
                head.text()
            );
        }
    }
    // A visitor that offers no application protocol might be a tunnel.
    let late = curl::https("id1.example.com", ends.addr, &certs.ca, "--no-alpn");
    assert!(late.text().contains("403 Forbidden"), "{}", late.text());
    let plain = ends.server.addr();
    let ask = |name: &str| curl::curl(&curl::url("http", name, plain, "/"));
    assert!(ask("id1.example.com").text().contains("403 Forbidden"));
    assert!(ask("id2.example.com").text().starts_with("GET /"));
}

#[test]
fn another_host_than_that_of_the_handshake_does_not_get_around_a_certificate() {
    let certs = certs::make();
    let service = mirror();
    let ends = two_users(&certs, &service, "");
    let right = with_certificate(&certs);
    let ask = |name: &str, host: &str, with: &str| {
        let more = format!("{with} -H Host:{host}.example.com");
        let reply = curl::https(&format!("{name}.example.com"), ends.addr, &certs.ca, &more);
        reply.text().to_owned()
    };
    for with in ["", &right] {
        assert!(ask("id2", "id1", with).starts_with("421 "), "{with}");
    }
    // Nor does a certificate of the authority of one user count for another.
    assert!(ask("id1", "id2", &right).starts_with("421 "));
    assert!(ask("id1", "ID1", &right).starts_with("GET /"));
}

#[test]
fn a_second_request_on_a_connection_stays_with_the_first_one_s_client() {
    let certs = certs::make();
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let mut ends = two_users(&certs, &two, "");
    let mut first = client(&format!(
        "-remote tcp://{} -id id1 -secret secret1 -local http://{}",
        ends.server.addr(),
        one.addr
    ));
    first.wait_for_tunnel();
    let url = curl::url("https", "id2.example.com", ends.addr, "/a");
    let reply = curl::curl(&format!(
        "--cacert {} {url} --next -sS --cacert {0} -H Host:id1.example.com {url}",
        certs.ca.display()
    ));
    let text = reply.text();
    assert!(
        text.starts_with("two /a id2") && text.contains("two /a id1"),
        "{text}"
    );
}

#[test]
fn a_client_hello_in_pieces_hides_no_name() {
    let certs = certs::make();
    let service = mirror();
    let ends = two_users(&certs, &service, "");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_file_iter(&certs.ca)
            .unwrap()
            .map(Result::unwrap),
    );
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.max_fragment_size = Some(64);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("id1.example.com").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(tls, TcpStream::connect(ends.addr).unwrap());
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: id1.example.com\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let end = stream.read_to_string(&mut answer);
    // In the handshake, or after it if the pieces have come late.
    let is_refused = end.is_err() && answer.is_empty();
    assert!(
        is_refused || answer.starts_with("HTTP/1.1 421 "),
        "{answer} {end:?}"
    );
}

#[test]
fn users_with_different_authorities_share_no_name_also_after_a_reload() {
    let certs = certs::make();
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let scratch = Scratch::new();
    let write = |ca: &str| {
        scratch.file(
            "server.yaml",
            format!(
                "type: server\noptions: {{addr: '127.0.0.1:0', tlsAddr: '127.0.0.1:0', certFile: {}, keyFile: {}}}\n\
                 users:\n  id1: {{secret: secret1{ca}}}\n  id2: {{secret: secret2}}\n",
                certs.cert.display(),
                certs.key.display()
            ),
        )
    };
    let own = format!(", clientCA: {}", certs.ca.display());
    let config = write(&own);
    let mut server = Gt::start("gt server", &[], &format!("-config {}", config.display()));
    let (plain, addr) = (server.addr(), server.tls_addr());
    let member = |number: u8, service: &Service| {
        client(&format!(
            "-remote tcp://{plain} -id id{number} -secret secret{number} -serviceGroup g -groupKey k \
             -hostPrefix web -reconnectDelay 10ms -local http://{}",
            service.addr
        ))
    };
    let mut second = member(2, &two);
    second.wait_for_tunnel();
    let _first = member(1, &one);
    let told = server.wait_for("is a user with another clientCA");
    assert!(told.contains("id=id1") && told.contains("id2"), "{told}");
    let ask = || curl::https("web.example.com", addr, &certs.ca, "");
    assert!(ask().text().starts_with("two"));
    // Now they may share it, and then no more: none of them is reached without a certificate.
    write("");
    server.reload();
    let reaches_first = || {
        // In the end it is refused in the handshake.
        let reply = curl::https("web.example.com", addr, &certs.ca, "");
        reply.body.starts_with(b"one")
    };
    crate::common::eventually("a visitor of id1", || reaches_first().then_some(()));
    write(&own);
    server.reload();
    for _ in 0..4 {
        assert!(!reaches_first());
    }
}

#[test]
fn what_a_trusted_proxy_shows_is_no_certificate_of_its_visitors() {
    let certs = certs::make();
    let service = mirror();
    let (_server, _client, addr) = certified(&certs, &service, "-frontProxies 127.0.0.1");
    let reply = curl::https(
        "id1.example.com",
        addr,
        &certs.ca,
        &with_certificate(&certs),
    );
    assert!(reply.text().starts_with("GET / "), "{}", reply.text());
    assert!(!reply.text().contains("Subject"), "{}", reply.text());
}

#[test]
fn the_client_ca_of_a_user_is_checked_and_needs_a_listener() {
    let scratch = Scratch::new();
    let check = |options: &str| {
        let file = scratch.file(
            "server.yaml",
            format!("type: server\noptions: {{{options}}}\nusers: {{id1: {{secret: s, clientCA: /none.crt}}}}\n"),
        );
        let output = gt(&format!("check -config {}", file.display()));
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = check("addr: 80");
    assert!(
        said.contains("\"id1\" has clientCA, which needs tlsAddr"),
        "{said}"
    );
    let said = check("tlsAddr: 443, stateDir: s, httpMUXHeader: X");
    assert!(
        said.contains("\"id1\" has clientCA, which needs the httpMUXHeader Host"),
        "{said}"
    );
    let said = check(&format!(
        "tlsAddr: 443, stateDir: {}",
        scratch.join("state").display()
    ));
    assert!(
        said.contains("clientCA of the user id1: ") && said.contains("/none.crt"),
        "{said}"
    );
}
