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

#[test]
fn a_name_that_cannot_be_validated_over_tls_is_validated_over_http_and_the_next_one_at_once() {
    let certs = certs::make();
    let pebble = pebble::start(&certs, &[]);
    let (state, service) = (Scratch::new(), service());
    // Nothing is at the port for TLS.
    let mut server = server(&format!(
        "-addr 127.0.0.1:{} -tlsAddr 127.0.0.1:0 -stateDir {} {} -id id1 -secret secret1 -id id2 -secret secret2",
        pebble.http_port(),
        state.path().display(),
        pebble.flags("example.com"),
    ));
    let addr = server.addr();
    let _one = client_of(addr, service.addr, "");
    let told = server.wait_for("id1.example.com has no new certificate");
    assert!(
        told.contains("could not validate it by tls-alpn-01"),
        "{told}"
    );
    server.wait_for("id1.example.com has a certificate");
    let mut two = client(&format!(
        "-remote tcp://{addr} -id id2 -secret secret2 -local http://{}",
        service.addr
    ));
    two.wait_for_tunnel();
    server.wait_for("id2.example.com has a certificate");
    assert_eq!(server.lines_with("has no new certificate").len(), 1);
}

#[test]
fn a_name_that_cannot_be_validated_at_all_waits_longer_and_the_server_s_certificate_is_shown() {
    let certs = certs::make();
    let pebble = pebble::start(&certs, &[]);
    let (state, service) = (Scratch::new(), service());
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir {} {} -id id1 -secret secret1",
        state.path().display(),
        pebble.flags("example.com"),
    ));
    let _client = client_of(server.addr(), service.addr, "");
    let told = server.wait_for_lines("id1.example.com has no new certificate", 2);
    // What is left of the time: the authority may have taken a while.
    let left = |line: &str| -> u64 {
        let left = line.rsplit_once("the next attempt is in ");
        let left = left.and_then(|(_, left)| left.strip_suffix('s')?.parse().ok());
        left.unwrap_or_else(|| panic!("no time in {line:?}"))
    };
    assert!((1..=10).contains(&left(&told[0])), "{}", told[0]);
    assert!(told[1].contains("by http-01"), "{}", told[1]);
    assert!((11..=600).contains(&left(&told[1])), "{}", told[1]);
    let issuer = shown(server.tls_addr(), "id1.example.com", "issuer");
    assert!(issuer.contains("CN = gt"), "{issuer}");
}

#[test]
fn own_domains_get_certificates_and_wildcards_none() {
    let certs = certs::make();
    let pebble = pebble::start(&certs, &[]);
    let (state, service) = (Scratch::new(), service());
    let mut server = certified(&pebble, &state, "-domains *");
    let addr = server.tls_addr();
    let more = "-domain shop.example.org -domain *.wild.example.org";
    let _client = client_of(server.addr(), service.addr, more);
    server.wait_for("shop.example.org has a certificate");
    let issuer = |name: &str| shown(addr, name, "issuer");
    assert!(issuer("shop.example.org").contains("Pebble"));
    for name in [
        "a.wild.example.org",
        "wild.example.org",
        "other.example.org",
    ] {
        let line = curl::curl(&format!("-k {}", curl::url("https", name, addr, "/")));
        assert_eq!(line.code, 0);
        assert!(issuer(name).contains("CN = gt"), "{name}");
    }
    assert_eq!(pebble.requests("POST /order-plz"), 1);
}

#[test]
fn another_authority_replaces_the_certificates_of_one_for_tests() {
    let certs = certs::make();
    let (first, second) = (authority::start(&certs), pebble::start(&certs, &[]));
    let (state, service) = (Scratch::new(), service());
    let scratch = Scratch::new();
    let write = |url: &str| {
        scratch.file(
            "server.yaml",
            format!(
                "type: server\noptions: {{addr: '127.0.0.1:{}', tlsAddr: '127.0.0.1:{}', stateDir: {}, \
                 acmeDomain: [example.com], acmeDirectory: '{url}', acmeCA: {}}}\nusers: {{id1: {{secret: secret1}}}}\n",
                second.http_port(),
                second.tls_port(),
                state.path().display(),
                certs.ca.display()
            ),
        )
    };
    let config = write(&format!("https://localhost:{}/dir", first.addr.port()));
    let mut server = Gt::start("gt server", &[], &format!("-config {}", config.display()));
    let addr = server.tls_addr();
    let _client = client_of(server.addr(), service.addr, "");
    server.wait_for("id1.example.com has a certificate");
    assert!(shown(addr, "id1.example.com", "issuer").contains("CN = ca"));
    write(&second.url());
    server.reload();
    server.wait_for_lines("id1.example.com has a certificate", 2);
    assert!(shown(addr, "id1.example.com", "issuer").contains("Pebble"));
}

#[test]
fn a_new_process_goes_on_with_the_order_of_the_old_one() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service());
    let line = format!(
        "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir {} {} -id id1 -secret secret1",
        state.path().display(),
        authority.flags(&certs)
    );
    let mut server = server(&line);
    let (addr, tls) = (server.addr(), server.tls_addr());
    let frozen = authority.freeze(authority::Asked::Challenge);
    let _client = client_of(addr, service.addr, "");
    frozen.recv().unwrap();
    server.signal("QUIT");
    server.wait_for("id1.example.com has a certificate");
    assert_eq!(authority.count(authority::Asked::NewOrder), 1);
    assert!(shown(tls, "id1.example.com", "issuer").contains("CN = ca"));
}

#[test]
fn a_full_disk_places_no_order_and_loses_nothing() {
    let certs = certs::make();
    let authority = authority::start(&certs);
    let (state, service) = (Scratch::new(), service());
    // A system of files inside the server's namespace.
    let script = state.file(
        "start.sh",
        format!(
            "mkdir {0}/disk && mount -t tmpfs -o size=64k tmpfs {0}/disk && exec \"$@\"\n",
            state.path().display()
        ),
    );
    let disk = state.join("disk");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh"]).arg(script).args([GT, "server"]);
    let mut server = Gt::spawn(
        "gt server",
        command,
        &format!(
            "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir {} {} -id id1 -secret secret1 -id id2 -secret secret2",
            disk.display(),
            authority.flags(&certs)
        ),
    );
    let addr = server.addr();
    let _one = client_of(addr, service.addr, "");
    server.wait_for("id1.example.com has a certificate");
    let inside = format!("/proc/{}/root{}", server.pid(), disk.display());
    let folder = std::path::Path::new(&inside);
    let kept = |name: &str| fs::read(folder.join(name)).unwrap();
    let before = ["identity.pem", "acme/account.json"].map(kept);
    assert!(fs::write(folder.join("fill"), vec![0; 1 << 20]).is_err());
    let mut two = client(&format!(
        "-remote tcp://{addr} -id id2 -secret secret2 -local http://{}",
        service.addr
    ));
    two.wait_for_tunnel();
    let told = server.wait_for("id2.example.com has no new certificate");
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(authority.count(authority::Asked::NewOrder), 1);
    assert_eq!(["identity.pem", "acme/account.json"].map(kept), before);
    assert!(kept("acme/id1.example.com.pem").ends_with(b"-----\n"));
    assert!(!folder.join("acme/id2.example.com.pem").exists());
}
