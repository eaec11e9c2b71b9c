//! Certificates from an authority, pebble, for the names of clients.

use crate::common::authority;
use crate::common::certs::{self, Certs};
use crate::common::curl;
use crate::common::gt::{client, server, Gt, GT};
use crate::common::pebble::{self, Pebble};
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

/// Starts a server that gets certificates from pebble.
fn certified(pebble: &Pebble, state: &Scratch, more: &str) -> Gt {
    server(&format!(
        "-addr 127.0.0.1:{} -tlsAddr 127.0.0.1:{} -stateDir {} {} -id id1 -secret secret1 {more}",
        pebble.http_port(),
        pebble.tls_port(),
        state.path().display(),
        pebble.flags("example.com"),
    ))
}

/// Starts a client of it.
fn client_of(addr: SocketAddr, service: SocketAddr, more: &str) -> Gt {
    let mut client = client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 -local http://{service} {more}"
    ));
    client.wait_for_tunnel();
    client
}

/// Returns a field of the certificate that is shown for a name.
fn shown(addr: SocketAddr, name: &str, field: &str) -> String {
    let line = format!(
        "openssl s_client -connect {addr} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -{field}"
    );
    run_ok(Command::new("sh").args(["-c", &line]))
}

fn service() -> Service {
    service::http(0, "hello")
}

#[test]
fn a_client_s_prefix_gets_a_certificate_at_its_registration_and_keeps_it() {
    let certs: Certs = certs::make();
    let pebble = pebble::start(&certs, &[("PEBBLE_WFE_NONCEREJECT", "30")]);
    let state = Scratch::new();
    let service = service();
    let mut server = certified(&pebble, &state, "");
    let addr = server.tls_addr();
    let _client = client_of(server.addr(), service.addr, "");
    server.wait_for("id1.example.com has a certificate");
    let issuer = shown(addr, "id1.example.com", "issuer");
    assert!(issuer.contains("Pebble Intermediate"), "{issuer}");
    let text = curl::curl(&format!(
        "-k {}",
        curl::url("https", "id1.example.com", addr, "/")
    ));
    assert!(text.text().starts_with("hello /"));
}

#[test]
fn a_clock_that_is_wrong_is_named_and_the_certificate_stays() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service());
    let line = format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir {} {} -id id1 -secret secret1",
        state.path().display(),
        authority.flags(&certs)
    );
    let mut first = server(&line);
    let client = client_of(first.addr(), service.addr, "");
    first.wait_for("id1.example.com has a certificate");
    let file = state.join("acme/id1.example.com.pem");
    let chain = || {
        let text = fs::read_to_string(&file).unwrap();
        text.split_once('\n').unwrap().1.to_owned()
    };
    let before = chain();
    first.kill();
    drop(client);
    // Of 90 days, 61 are over; the certificate of the authority's own server was valid for 30.
    for clock in ["+61d", "-400d"] {
        let mut wrong = Command::new("faketime");
        wrong.args(["-f", clock, GT, "server"]);
        let mut server = Gt::spawn("gt server", wrong, &line);
        let (addr, tls) = (server.addr(), server.tls_addr());
        let _client = client_of(addr, service.addr, "");
        if clock == "+61d" {
            let said = server.wait_for("no new certificate");
            assert!(
                said.contains("unless the clock of this machine is wrong"),
                "{said}"
            );
        }
        let issuer = shown(tls, "id1.example.com", "issuer");
        assert!(issuer.contains("CN = ca"), "{issuer}");
        assert_eq!(chain(), before);
        server.kill();
    }
}
