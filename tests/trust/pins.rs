//! Which servers a client with `remoteKey` trusts.

use crate::common::certs;
use crate::common::gt::{client, gt, server, Gt};
use crate::common::scratch::Scratch;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Starts a server whose certificate is of its own making, in this directory.
fn server_with_state(state: &Path, addr: &str) -> (Gt, SocketAddr) {
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr {addr} -stateDir {} -id id1 -secret secret1",
        state.display()
    ));
    let addr = server.tls_addr();
    (server, addr)
}

/// Starts a client of this server that trusts it by these flags.
fn client_with(addr: impl std::fmt::Display, trust: &str) -> Gt {
    client(&format!(
        "-remote tls://{addr} -reconnectDelay 100ms -id id1 -secret secret1 \
         -local http://127.0.0.1:80 {trust}"
    ))
}

/// Returns what `gt fingerprint` prints.
fn fingerprint(flags: &str) -> String {
    let output = gt(&format!("fingerprint server {flags}"));
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.starts_with("SHA256:"),
        "{text}{error}"
    );
    text
}

const OTHER: &str = "SHA256:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

#[test]
fn a_server_without_certificate_has_a_key_that_its_clients_can_pin() {
    let scratch = Scratch::new();
    let state = scratch.join("state");
    let flags = format!("-tlsAddr 443 -stateDir {}", state.display());
    let key = fingerprint(&flags);
    let (mut server, addr) = server_with_state(&state, "127.0.0.1:0");
    server.wait_for(&key);
    client_with(addr, &format!("-remoteKey {OTHER} -remoteKey {key}")).wait_for_tunnel();
    client_with(addr, &format!("-remoteKey {OTHER}")).assert_keeps_failing(&[&key, OTHER]);
    client_with(addr, "").assert_keeps_failing(&["remoteKey", "gt fingerprint"]);
    server.stop();
    let (_server, addr) = server_with_state(&state, "127.0.0.1:0");
    client_with(addr, &format!("-remoteKey {key}")).wait_for_tunnel();
    assert_eq!(fingerprint(&flags), key);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("identity.pem")), 0o600);
}

#[test]
fn a_pin_holds_for_a_certificate_file_whatever_its_names() {
    let certs = certs::make();
    let flags = format!("-tlsAddr 127.0.0.2:0 {}", certs.flags());
    let key = fingerprint(&flags);
    let mut server = server(&format!("-addr \"\" {flags} -id id1 -secret secret1"));
    // The certificate is for 127.0.0.1.
    let addr = server.tls_addr();
    client_with(addr, &format!("-remoteKey {key}")).wait_for_tunnel();
    server.wait_for(&key);
}

#[test]
fn the_first_key_of_a_server_is_remembered_and_another_one_refused() {
    let scratch = Scratch::new();
    let [one, other, mine] = ["one", "other", "mine"].map(|name| scratch.join(name));
    let (mut first, addr) = server_with_state(&one, "127.0.0.1:0");
    let trust = format!("-remoteKey first -stateDir {}", mine.display());
    client_with(addr, &trust).wait_for_tunnel();
    client_with(addr, &trust).wait_for_tunnel();
    first.stop();
    let (_second, addr) = server_with_state(&other, &addr.to_string());
    let keys = [&one, &other].map(|it| fingerprint(&format!("-stateDir {}", it.display())));
    let known = mine.join("known_servers");
    let mut client = client_with(addr, &trust);
    let file = known.to_string_lossy();
    client.assert_keeps_failing(&[&keys[0], &keys[1], &file, "delete the line"]);
    fs::write(&known, "").unwrap();
    client.wait_for_tunnel();
    let text = fs::read_to_string(&known).unwrap();
    assert_eq!(text, format!("127.0.0.1 {}\n", keys[1]));
}

#[test]
fn a_client_that_cannot_remember_a_key_says_so() {
    let scratch = Scratch::new();
    let (_server, addr) = server_with_state(&scratch.join("one"), "127.0.0.1:0");
    let file = scratch.file("file", "");
    let trust = format!("-remoteKey first -stateDir {}", file.display());
    client_with(addr, &trust).assert_keeps_failing(&["stateDir", &file.to_string_lossy()]);
}

#[test]
fn trust_that_contradicts_itself_is_a_mistake_of_the_configuration() {
    for (flags, why) in [
        ("-remote tls://h -remoteKey first", "needs stateDir"),
        ("-remote tls://h -remoteKey SHA256:x", "gt fingerprint"),
        (
            &format!("-remote tls://h -remoteKey {OTHER} -remoteCertInsecure"),
            "remove remoteCert",
        ),
        (
            &format!("-remote tcp://h -remoteKey {OTHER}"),
            "cannot be checked over tcp://h:80",
        ),
    ] {
        let output = gt(&format!("check client -id i -local http://h {flags}"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
    let output = gt("fingerprint server -addr 80");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("with tlsAddr or quicAddr, or stateDir"),
        "{error}"
    );
}

#[test]
fn a_server_that_cannot_keep_its_key_does_not_start_with_another() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "");
    let flags = format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 -stateDir {}",
        file.display()
    );
    let output = gt(&format!("server {flags}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains(&format!("opening the stateDir {}", file.display())),
        "{error}"
    );
}

#[test]
fn fingerprint_says_where_it_has_made_a_key() {
    let scratch = Scratch::new();
    let state = scratch.join("state");
    let command = format!(
        "fingerprint server -tlsAddr 127.0.0.1:1 -stateDir {}",
        state.display()
    );
    let said = || String::from_utf8(gt(&command).stderr).unwrap();
    let file = state.join("identity.pem");
    assert_eq!(said(), format!("gt: made a key, in {}\n", file.display()));
    assert_eq!(said(), "");
}
