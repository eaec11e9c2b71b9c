//! TLS in front of a tunnel, around it and through it, with certificates created by openssl.

use crate::common;
use crate::common::api;
use crate::common::certs::{self, Certs};
use crate::common::curl::{curl, https, url};
use crate::common::gt::{client, client_of_id1, server, server_of_id1, tls_tunnel, Gt, GT};
use crate::common::hello::{client_hello, cutter, Cut};
use crate::common::nginx::{self, Nginx};
use crate::common::peer::gt1::{hello, Frame, Peer};
use crate::common::peer::ID_ALONE;
use crate::common::samples::{assert_same, random_file, Random};
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::visitor::{ask, connect, get, read_to_end};
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::process::Command;

/// A server that terminates TLS, and its client, connected over TLS.
struct Decrypting {
    certs: Certs,
    addr: SocketAddr,
    server: Gt,
    _service: Service,
    _client: Gt,
}

fn decrypting(more: &str) -> Decrypting {
    let (certs, service) = (certs::make(), service::http(0, "here"));
    let (server, client, addr) = tls_tunnel(&certs, service.addr, more, "");
    Decrypting {
        certs,
        addr,
        server,
        _service: service,
        _client: client,
    }
}

/// A server that passes TLS on, with nginx behind its client.
struct Untouched {
    certs: Certs,
    addr: SocketAddr,
    _server: Gt,
    _nginx: Nginx,
    _client: Gt,
}

fn untouched() -> Untouched {
    let certs = certs::make();
    let nginx = nginx::start(Some(&certs));
    let mut server = server("-addr \"\" -sniAddr 127.0.0.1:0 -id id1 -secret secret1");
    let addr = server.sni_addr();
    let client = client_of_id1(addr, &format!("-local https://{}", nginx.https));
    Untouched {
        certs,
        addr,
        _server: server,
        _nginx: nginx,
        _client: client,
    }
}

const TLS_1_2: &str = "--tlsv1.2 --tls-max 1.2";
const TLS_1_3: &str = "--tlsv1.3";

#[test]
fn plain_http_on_a_tls_port_gets_an_explanation() {
    let setup = decrypting("");
    for (request, body) in [
        ("GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n", true),
        ("POST / HTTP/1.1\r\n", true),
        ("HEAD / HTTP/1.1\r\n", false),
    ] {
        let answer = ask(setup.addr, request);
        assert_eq!(answer.status, 400, "{request:?}");
        let says = answer
            .text()
            .contains("plain HTTP request was sent to HTTPS port");
        assert_eq!(says, body, "{}", answer.text());
    }
    // Bytes of another protocol get TLS's own alert.
    let mut other = connect(setup.addr);
    other.write_all(&[0xF0, 1, 2, 3, 4, 5]).expect("send");
    assert_eq!(read_to_end(&mut other).first(), Some(&21));
}

#[test]
fn a_visitor_is_decrypted_with_tls_1_2_and_1_3() {
    let setup = decrypting("");
    for version in [TLS_1_2, TLS_1_3] {
        let reply = https("id1.example.com", setup.addr, &setup.certs.ca, version);
        let expected = format!("here / id1.example.com:{}", setup.addr.port());
        assert_eq!(reply.text(), expected, "{version}");
    }
}

#[test]
fn tls_1_3_as_the_lowest_version_refuses_1_2() {
    let setup = decrypting("-tlsVersion tls1.3");
    let reply = https("id1.example.com", setup.addr, &setup.certs.ca, TLS_1_2);
    assert_eq!(reply.code, 35, "a failed handshake: {}", reply.errors);
    let reply = https("id1.example.com", setup.addr, &setup.certs.ca, TLS_1_3);
    assert!(reply.text().starts_with("here "));
}

#[test]
fn tls_1_1_is_raised_to_1_2_with_a_warning() {
    let mut setup = decrypting("-tlsVersion tls1.1");
    let warning = setup.server.wait_for("is tls1.1");
    assert!(warning.contains(" WRN "), "{warning}");
    let reply = https("id1.example.com", setup.addr, &setup.certs.ca, TLS_1_2);
    assert!(reply.text().starts_with("here "));
}

#[test]
fn many_bytes_arrive_unchanged_through_two_layers_of_tls() {
    let (certs, nginx, scratch) = (certs::make(), nginx::start(None), Scratch::new());
    let (_server, _client, addr) = tls_tunnel(&certs, nginx.http, "", "");
    let (sample, down) = (random_file(20), scratch.join("down"));
    let url = |path| {
        let url = url("https", "id1.example.com", addr, path);
        format!("--cacert {} {url}", certs.ca.display())
    };
    let up = url("/upload/up");
    let reply = curl(&format!("-T {} {up}", sample.display()));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &nginx.stored("up"));
    std::fs::copy(&sample, nginx.stored("down")).expect("copy a sample");
    let from = url("/upload/down");
    let reply = curl(&format!("-o {} {from}", down.display()));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &down);
}

#[test]
fn an_untouched_visitor_sees_the_certificate_of_the_service() {
    let setup = untouched();
    for version in [TLS_1_2, TLS_1_3] {
        let reply = https("id1.example.com", setup.addr, &setup.certs.ca, version);
        assert_eq!(reply.text(), nginx::INDEX, "{version}");
    }
}

#[test]
fn an_unknown_sni_name_is_closed() {
    let setup = untouched();
    let reply = https("id2.example.com", setup.addr, &setup.certs.ca, "");
    assert_eq!(reply.code, 35, "a failed handshake: {}", reply.errors);
    // The same for a hello without a name, which curl sends to a bare address.
    let reply = curl(&format!("-k https://{}/", setup.addr));
    assert_eq!(reply.code, 35, "a failed handshake: {}", reply.errors);
}

#[test]
fn a_client_hello_in_pieces_finds_its_service() {
    let setup = untouched();
    for cut in [
        Cut::Bytes,
        Cut::Records(1),
        Cut::Records(7),
        Cut::Records(100),
    ] {
        let cutter = cutter(setup.addr, cut);
        let reply = https("id1.example.com", cutter.addr, &setup.certs.ca, "");
        assert_eq!(reply.text(), nginx::INDEX);
    }
}

/// Starts a server with `server_flags`, and a client that trusts what `client_flags` say.
fn trusting(server_flags: &str, listen: &str, client_flags: &str) -> (Gt, Gt) {
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr {listen} {server_flags} -id id1 -secret secret1"
    ));
    let client = client(&format!(
        "-local http://127.0.0.1:80 -remote tls://{} -reconnectDelay 100ms {client_flags} \
         -id id1 -secret secret1",
        server.tls_addr()
    ));
    (server, client)
}

#[test]
fn remote_cert_may_be_the_authority_or_the_certificate_itself() {
    let certs = certs::make();
    let ca = format!("-remoteCert {}", certs.ca.display());
    trusting(&certs.flags(), "127.0.0.1:0", &ca)
        .1
        .wait_for_tunnel();
    let itself = format!("-remoteCert {}", certs.cert.display());
    trusting(&certs.flags(), "127.0.0.1:0", &itself)
        .1
        .wait_for_tunnel();
    let self_signed = format!("-remoteCert {}", certs.self_signed.display());
    trusting(&certs.self_signed_flags(), "127.0.0.1:0", &self_signed)
        .1
        .wait_for_tunnel();
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let certs = certs::make();
    let (_server, mut client) = trusting(&certs.flags(), "127.0.0.1:0", "");
    client.assert_keeps_failing(&["certificate", "remoteCert"]);
    let other = format!("-remoteCert {}", certs.other_ca.display());
    let (_server, mut client) = trusting(&certs.flags(), "127.0.0.1:0", &other);
    client.assert_keeps_failing(&["certificate", "remoteCert"]);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let certs = certs::make();
    let ca = format!("-remoteCert {}", certs.ca.display());
    let (_server, mut client) = trusting(&certs.flags(), "127.0.0.2:0", &ca);
    client.assert_keeps_failing(&["certificate", "127.0.0.2"]);
}

#[test]
fn a_clock_of_1970_is_reported() {
    let certs = certs::make();
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.flags()
    ));
    let mut command = Command::new("faketime");
    // The monotonic clock, which timers use, is not changed.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.args(["-f", "@1970-01-01 00:10:00", GT, "client"]);
    let line = format!(
        "-local http://127.0.0.1:80 -remote tls://{} -reconnectDelay 100ms -remoteCert {} \
         -id id1 -secret secret1",
        server.tls_addr(),
        certs.ca.display()
    );
    let mut client = Gt::spawn("gt client", command, &line);
    client.assert_keeps_failing(&["the clock of this machine is wrong"]);
    // faketime starts gt as a child, which its own end would leave behind.
    let _inside = client.only_child();
}

#[test]
fn remote_cert_insecure_accepts_any_certificate_and_warns() {
    let certs = certs::make();
    let flags = certs.self_signed_flags();
    let (_server, mut client) = trusting(&flags, "127.0.0.2:0", "-remoteCertInsecure");
    let warning = client.wait_for("remoteCertInsecure is set");
    assert!(warning.contains(" WRN "), "{warning}");
    client.wait_for_tunnel();
}

#[test]
fn an_invalid_remote_cert_is_named_and_nothing_starts() {
    let scratch = Scratch::new();
    let file = scratch.file("no.crt", "good morning");
    let missing = scratch.join("missing.crt");
    for path in [&file, &missing] {
        let output = common::gt::gt(&format!(
            "client -local http://127.0.0.1 -remote tls://127.0.0.1 -remoteCert {} -id id1",
            path.display()
        ));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&path.display().to_string()), "{said}");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    }
}

#[test]
fn garbage_on_the_tls_listener_is_closed_and_leaves_nothing_behind() {
    let setup = decrypting("-timeout 2s");
    let fds = setup.server.fds();
    let mut random = Random::new(1);
    let hello = client_hello("id1.example.com");
    let mut bad = vec![
        b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n".to_vec(),
        b"\xF0\x01\x03id1\x07secret1\x00".to_vec(),
        hello[..hello.len() / 2].to_vec(),
        vec![0x16, 0x03, 0x01, 0xFF, 0xFF],
    ];
    bad.extend((0..20).map(|n| random.bytes(1 + n * 40)));
    let visitors: Vec<_> = bad
        .iter()
        .map(|bytes| {
            let mut visitor = connect(setup.addr);
            visitor.write_all(bytes).expect("send");
            visitor
        })
        .collect();
    for (n, mut visitor) in visitors.into_iter().enumerate() {
        if n % 2 == 0 {
            // Half of them end first, the others wait for the server to close.
            let _ = visitor.shutdown(Shutdown::Write);
        }
        read_to_end(&mut visitor);
    }
    setup.server.wait_for_fds(fds);
    let reply = https("id1.example.com", setup.addr, &setup.certs.ca, "");
    assert!(reply.text().starts_with("here "));
}

#[test]
fn one_server_serves_plain_decrypted_and_untouched_at_once() {
    let certs = certs::make();
    let nginx = nginx::start(Some(&certs));
    let mut server = server_of_id1(&format!(
        "-tlsAddr 127.0.0.1:0 -sniAddr 127.0.0.1:0 -hostNumber 2 {}",
        certs.flags()
    ));
    let (addr, tls_addr, sni_addr) = (server.addr(), server.tls_addr(), server.sni_addr());
    // The tunnel uses the listener for untouched TLS: every listener takes tunnels and visitors.
    let _client = client_of_id1(
        sni_addr,
        &format!(
            "-local http://{} -local https://{} -hostPrefix safe",
            nginx.http, nginx.https
        ),
    );
    assert_eq!(get(addr, "id1.example.com", "/").text(), nginx::INDEX);
    for (name, at) in [
        ("id1.example.com", tls_addr),
        ("safe.example.com", sni_addr),
    ] {
        assert_eq!(
            https(name, at, &certs.ca, "").text(),
            nginx::INDEX,
            "{name}"
        );
    }
}

#[test]
fn the_api_uses_https_and_checks_a_decrypting_listener() {
    let certs = certs::make();
    let (cert, key) = (certs.cert.display(), certs.key.display());
    for (version, refused) in [("tls1.2", None), ("tls1.3", Some(TLS_1_2))] {
        let mut server = server(&format!(
            "-addr \"\" -tlsAddr 127.0.0.1:0 {} -apiAddr 127.0.0.1:0 -apiCertFile {cert} \
             -apiKeyFile {key} -apiTLSVersion {version}",
            certs.flags()
        ));
        let api = server.api_addr();
        let ask = |more: &str, path: &str| {
            curl(&format!(
                "{more} --cacert {} https://{api}{path}",
                certs.ca.display()
            ))
        };
        let status = ask("", "/status");
        assert!(
            status
                .text()
                .starts_with("{\"status\": \"ok\", \"version\": \"gt "),
            "{}",
            status.text()
        );
        assert_eq!(
            ask("", "/clients").text(),
            "{\"clients\": [], \"more\": 0}\n"
        );
        assert!(ask("", "/metrics").text().contains("\ngt_tunnels 0\n"));
        assert!(ask("", "/").text().starts_with("404 "));
        assert!(ask("-X POST", "/status").text().starts_with("405 "));
        for version in [TLS_1_2, TLS_1_3] {
            let expected = if refused == Some(version) { 35 } else { 0 };
            assert_eq!(ask(version, "/clients").code, expected, "{version}");
        }
        // It does not answer without TLS, nor wait for clients without TLS.
        let mut plain = connect(api);
        plain
            .write_all(b"GET /clients HTTP/1.1\r\n\r\n")
            .expect("send");
        assert!(read_to_end(&mut plain).starts_with(b"HTTP/1.1 400 "));
    }
}

#[test]
fn an_invalid_api_certificate_is_named_and_nothing_starts() {
    let scratch = Scratch::new();
    let file = scratch.file("no.crt", "good morning");
    let output = common::gt::gt(&format!(
        "server -addr 127.0.0.1:0 -apiAddr 127.0.0.1:0 -apiCertFile {0} -apiKeyFile {0}",
        file.display()
    ));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&file.display().to_string()), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("Listening"), "{said}");
}

#[test]
fn a_decrypted_visitor_that_cannot_be_served_gets_an_error_page() {
    let setup = decrypting("");
    let code = "-w %{stderr}%{http_code}";
    let reply = https("nobody.example.com", setup.addr, &setup.certs.ca, code);
    assert_eq!((reply.code, reply.errors.as_str()), (0, "404"));
}

#[test]
fn apis_are_asked_over_https_if_the_system_trusts_them() {
    let certs = certs::make();
    let mut here = server("-addr 127.0.0.1:0 -id id1 -secret s");
    let json = serde_json::json!({
        "result": true,
        "serverAddress": here.addr().to_string(),
    });
    let api = api::start(0, move |_| api::answer(200, &json.to_string()));
    let (_front, _behind, addr) = tls_tunnel(&certs, api.addr, "", "-hostPrefix localhost");
    let url = format!("https://localhost:{}/", addr.port());

    let line = format!("server -addr 127.0.0.1:0 -authAPI {url}");
    let id1 = hello("id1", "s", &ID_ALONE);
    let mut trusts = Gt::trusting(&certs.ca, &line);
    Peer::client(trusts.addr(), &id1).expect(Frame::Ready);
    let mut distrusts = Gt::trusting(&certs.other_ca, &line);
    Peer::client(distrusts.addr(), &id1).expect(Frame::Error(1));
    distrusts.wait_for("TLS with localhost: invalid peer certificate");

    let line = format!("client -local http://127.0.0.1:1 -id id1 -secret s -remoteAPI {url}");
    Gt::trusting(&certs.ca, &line).wait_for_tunnel();
    Gt::trusting(&certs.other_ca, &line).wait_for("TLS with localhost: invalid peer certificate");
}

#[test]
fn a_new_certificate_is_used_for_new_connections() {
    let (old, new) = (certs::make(), certs::make());
    let scratch = Scratch::new();
    let (cert, key) = (scratch.join("tls.crt"), scratch.join("tls.key"));
    let install = |certs: &Certs| {
        std::fs::copy(&certs.cert, &cert).expect("install the certificate");
        std::fs::copy(&certs.key, &key).expect("install the key");
    };
    install(&old);
    let files = format!("-certFile {} -keyFile {}", cert.display(), key.display());
    let api = format!(
        "-apiCertFile {} -apiKeyFile {}",
        cert.display(),
        key.display()
    );
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -apiAddr 127.0.0.1:0 {files} {api} -id id1 -secret secret1"
    ));
    let places = [
        (server.tls_addr(), "404"),
        (server.api_addr(), "{\"status\": \"ok\""),
    ];
    let one = service::http(0, "one");
    let tls = server.tls_addr();
    let mut client = client(&format!(
        "-remote tls://{tls} -remoteCert {} -id id1 -secret secret1 -local http://{}",
        old.ca.display(),
        one.addr
    ));
    client.wait_for_tunnel();
    let shows = |certs: &Certs| {
        for (addr, answer) in places {
            let url = url("https", "localhost", addr, "/status");
            let reply = curl(&format!("--cacert {} {url}", certs.ca.display()));
            assert!(reply.text().starts_with(answer), "{addr}: {}", reply.text());
        }
    };
    shows(&old);
    install(&new);
    server.reload();
    shows(&new);
    // A tunnel that was opened with the old certificate stays.
    let addr = server.addr();
    assert_eq!(get(addr, "id1.a", "/").text(), "one / id1.a");
    assert_eq!(client.tunnels(), 1);
}
