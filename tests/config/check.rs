//! `gt check`: its output and its exit code.

use crate::common::gt::gt;
use crate::common::scratch::Scratch;
use std::path::Path;

/// Runs `gt check` on a file; returns exit code, standard output and standard error.
fn check(file: &Path) -> (Option<i32>, String, String) {
    let output = gt(&format!("check -config {}", file.display()));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

const CLIENT: &str = "options: {id: id1, remote: 127.0.0.1:1, local: http://127.0.0.1:1}\n";

#[test]
fn the_check_of_a_usable_configuration_names_its_role() {
    let scratch = Scratch::new();
    let client = scratch.file("client.yaml", CLIENT);
    let said = format!("{}: client\n", client.display());
    assert_eq!(check(&client), (Some(0), said, String::new()));

    let server = scratch.file(
        "server.yaml",
        "options: {addr: 8080, allowAnyClient: true}\n",
    );
    let said = format!("{}: server\n", server.display());
    assert_eq!(check(&server), (Some(0), said, String::new()));
}

#[test]
fn the_check_reports_low_ports() {
    let scratch = Scratch::new();
    for options in [
        "options: {addr: 80}",
        "options: {addr: '', sniAddr: '127.0.0.1:443'}",
        "options: {addr: 8080, apiAddr: 81}",
        "tcp: [{number: 1, range: 1000-2000}]\noptions: {addr: 8080}",
        "users: {id1: {secret: s, tcp: [{number: 1, range: 22}]}}\noptions: {addr: 8080}",
    ] {
        let server = scratch.file("server.yaml", format!("type: server\n{options}\n"));
        let (code, said, _) = check(&server);
        let wanted = format!("{}: server, ports below 1024\n", server.display());
        assert_eq!((code, said), (Some(0), wanted), "{options}");
    }
}

#[test]
#[cfg(feature = "p2p")]
fn the_check_reports_the_ports_of_peers() {
    let scratch = Scratch::new();
    for (options, said) in [
        (
            "webrtcMinPort: 50000, webrtcMaxPort: 50010",
            ", peers at UDP 50000-50010",
        ),
        (
            "webrtcMinPort: 50000, webrtcMaxPort: 50000",
            ", peers at UDP 50000",
        ),
        // Only the first port is tried without a last one, and any port without a first one.
        ("webrtcMinPort: 50000", ", peers at UDP 50000"),
        ("webrtcMaxPort: 50010", ""),
        ("remoteSTUN: 'stun:127.0.0.1'", ""),
    ] {
        let client = scratch.file(
            "client.yaml",
            CLIENT.replace('}', &format!(", {options}}}")),
        );
        let wanted = format!("{}: client{said}\n", client.display());
        assert_eq!(
            check(&client),
            (Some(0), wanted, String::new()),
            "{options}"
        );
    }
}

#[test]
fn a_mistake_is_named_with_2() {
    let scratch = Scratch::new();
    for (text, wanted) in [
        (
            "options: {remote: 127.0.0.1:1}\ntype: client\n",
            "There is no id",
        ),
        (
            "options:\n  id: id1\n  remoteTimeout: soon\n",
            "remoteTimeout",
        ),
        ("options: [\n", "client.yaml"),
        (
            "options: {id: id1, remote: h}\nservices: [\
             {local: 'tcp://a:1', remoteTCPPort: 22}, {local: 'tcp://b:2', remoteTCPPort: 22}]",
            "The services tcp://a:1 and tcp://b:2 have the same remoteTCPPort 22",
        ),
        (
            &format!(
                "options: {{id: id1, remote: h}}\nservices:\n{}",
                "- {local: 'tcp://a:1', remoteTCPRandom: true}\n".repeat(601)
            ),
            "There are 601 services; a server takes at most 600",
        ),
    ] {
        let file = scratch.file("client.yaml", text);
        let (code, said, why) = check(&file);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{text}");
        assert!(why.starts_with("gt: ") && why.contains(wanted), "{why}");
    }
    let (code, _, why) = check(&scratch.join("none.yaml"));
    assert_eq!(code, Some(2));
    assert!(why.contains("none.yaml cannot be read"), "{why}");
}

#[test]
fn an_unknown_key_is_a_warning_with_0() {
    let scratch = Scratch::new();
    let file = scratch.file("client.yaml", format!("{CLIENT}colour: red\n"));
    let (code, _, warnings) = check(&file);
    assert_eq!(code, Some(0));
    assert!(warnings.starts_with("gt: warning: "), "{warnings}");
    assert!(warnings.contains("colour"), "{warnings}");
}

#[test]
fn a_missing_prerequisite_is_named_with_1() {
    let scratch = Scratch::new();
    let folder = scratch.join("usb");
    let client = format!(
        "options: {{id: id1, remote: 127.0.0.1:1, local: 'file://{}'}}\n",
        folder.display()
    );
    let client = scratch.file("client.yaml", client);
    let (code, said, why) = check(&client);
    assert_eq!(code, Some(1));
    assert_eq!(said, format!("{}: client\n", client.display()));
    assert!(why.contains("usb"), "{why}");

    for (listener, cert, key) in [
        ("tlsAddr: 8443", "certFile", "keyFile"),
        ("apiAddr: 8081", "apiCertFile", "apiKeyFile"),
    ] {
        let server = format!(
            "options: {{addr: 8080, {listener}, {cert}: none.crt, {key}: none.key}}
"
        );
        let server = scratch.file("server.yaml", format!("type: server\n{server}"));
        let (code, _, why) = check(&server);
        assert_eq!(code, Some(1), "{why}");
        assert!(why.contains("none.crt"), "{why}");
    }
}

#[test]
fn every_file_of_a_folder_is_checked() {
    let scratch = Scratch::new();
    scratch.file("a.yaml", CLIENT);
    scratch.file("b.yaml", "type: server\noptions: {addr: 8080}\n");
    let (code, said, _) = check(scratch.path());
    assert_eq!(code, Some(0));
    let roles: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    assert_eq!(roles, ["client", "server"]);
}
