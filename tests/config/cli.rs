//! The command line from outside: exit codes, help, and errors that name the mistake.

use crate::common;
use crate::common::gt::{client, gt, server, server_of_id1, Gt, GT};
use crate::common::process::{run, Process};
use crate::common::scratch::Scratch;
use crate::common::service;
use std::os::unix::fs::symlink;
use std::process::Command;

const CLIENT_FLAGS: &str =
    "config followLinksOutside group hostPrefix id local localTimeout logFile logFileMaxCount \
    logFileMaxSize logLevel reconnectDelay remote remoteAPI remoteCert remoteCertInsecure remoteKey \
    remoteConnections remoteIdleConnections remoteSTUN remoteTCPPort remoteTCPRandom \
    remoteTimeout s secret sentryDSN sentryDebug sentryEnvironment sentryLevel sentryRelease \
    sentrySampleRate sentryServerName tcpForwardAddr tcpForwardConnections \
    tcpForwardFallback tcpForwardHostPrefix user useLocalAsHTTPHost version \
    webrtcConnectionIdleTimeout webrtcConnections webrtcLogLevel webrtcMaxPort webrtcMinPort";

const SERVER_FLAGS: &str =
    "addr addressConnections allowAnyClient apiAddr apiCertFile apiHosts apiKeyFile apiTLSVersion \
    authAPI certFile config connections frontProxies group hostNumber hostRegex hostWithID httpMUXHeader id \
    keyFile logFile logFileMaxCount logFileMaxSize logLevel reconnectDuration reconnectTimes \
    secret sentryDSN sentryDebug sentryEnvironment sentryLevel sentryRelease \
    sentrySampleRate sentryServerName sniAddr speed stunAddr tcpNumber tcpRange timeout \
    timeoutOnUnidirectionalTraffic tlsAddr tlsVersion totalConnections user users version";

/// Runs `gt` with these arguments, which must end with `code`, and returns its output.
fn says(line: &str, code: i32) -> String {
    let output = gt(line);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "gt {line}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Runs `gt`, which must refuse to start and print all of `words`.
fn refuses(line: &str, words: &[&str]) {
    let said = says(line, 2);
    for word in words {
        assert!(said.contains(word), "gt {line} should say {word:?}: {said}");
    }
    assert!(!said.contains("Listening"), "it must not start: {said}");
}

#[test]
fn help_shows_every_flag_with_0() {
    for (role, flags) in [("client", CLIENT_FLAGS), ("server", SERVER_FLAGS)] {
        let help = says(&format!("{role} -h"), 0);
        for flag in flags.split_whitespace() {
            let shown = help
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .any(|word| word.strip_prefix('-') == Some(flag));
            assert!(shown, "gt {role} -h does not show -{flag}");
        }
        assert_eq!(says(&format!("{role} --help"), 0), help);
    }
    let help = says("-h", 0);
    assert!(help.contains("server") && help.contains("client"), "{help}");
}

#[test]
fn help_survives_a_reader_that_closes_early() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(GT);
    command.args(["server", "-h"]).stdout(writer);
    let ended = command.status().expect("run gt");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn version_is_printed_with_0() {
    for line in [
        "-version",
        "--version",
        "server -version",
        "client -version",
    ] {
        let said = says(line, 0);
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{line}: {said}");
    }
}

#[test]
fn gt_alone_shows_its_use_with_2() {
    let said = says("", 2);
    assert!(said.contains("server") && said.contains("client"), "{said}");
}

#[test]
fn a_bad_flag_is_named_with_2() {
    let cases: [(&str, &[&str]); 12] = [
        ("server -adr 80", &["-adr"]),
        ("client -id", &["-id"]),
        ("nonsense", &["nonsense"]),
        ("server -timeout 5", &["-timeout", "5"]),
        ("server -connections many", &["-connections", "many"]),
        ("server -addr nowhere", &["-addr", "nowhere"]),
        ("server -hostRegex [", &["-hostRegex", "["]),
        ("server -logLevel loud", &["-logLevel", "loud"]),
        ("server -tcpNumber 1 -tcpRange 9-1", &["-tcpRange", "9-1"]),
        ("server -tlsAddr 127.0.0.1:0", &["certFile", "keyFile"]),
        ("server -addr \"\"", &["addr"]),
        ("server -secret alone", &["secret"]),
    ];
    for (line, words) in cases {
        refuses(line, words);
    }
    let local = "-local http://127.0.0.1";
    let cases: [(&str, &[&str]); 8] = [
        (&format!("-remote x {local}"), &["-id"]),
        (&format!("-id a {local}"), &["-remote"]),
        ("-id a -remote x", &["-local"]),
        (
            &format!("-id a -remote udp://x {local}"),
            &["-remote", "udp"],
        ),
        ("-id a -remote x -local ftp://127.0.0.1", &["-local", "ftp"]),
        (
            "-id a -remote x -local tcp://127.0.0.1",
            &["-local", "port"],
        ),
        (
            &format!("-id a -remote x {local} {local}:81"),
            &["hostPrefix"],
        ),
        (
            &format!("-id a -remote x {local} -remoteConnections 11"),
            &["-remoteConnections", "11"],
        ),
    ];
    for (line, words) in cases {
        refuses(&format!("client {line}"), words);
    }
}

#[test]
fn a_bad_file_is_named_with_its_key_and_2() {
    let scratch = Scratch::new();
    let cases = [
        ("server", "options:\n  timeout: soon\n", "timeout", "soon"),
        (
            "server",
            "options:\n  allowAnyClient: perhaps\n",
            "allowAnyClient",
            "perhaps",
        ),
        (
            "server",
            "users:\n  id1:\n    secrets: x\n",
            "id1",
            "secret",
        ),
        ("client", "options:\n  id: [a, b]\n", "id", ""),
        (
            "client",
            "services:\n  - local: 17\noptions:\n  id: a\n  remote: b\n",
            "local",
            "17",
        ),
        ("server", "options: [\n", "", ""),
    ];
    for (role, text, key, value) in cases {
        let file = scratch.file("bad.yaml", text);
        refuses(
            &format!("{role} -config {}", file.display()),
            &["bad.yaml", key, value],
        );
    }
    let missing = scratch.join("missing.yaml");
    refuses(
        &format!("server -config {}", missing.display()),
        &["missing.yaml"],
    );
    let unclear = scratch.file("unclear.yaml", "options:\n  id: a\n  secret: b\n");
    refuses(
        &format!("-config {}", unclear.display()),
        &["unclear.yaml", "type"],
    );
    let users = scratch.file("users.yaml", "id1: secret1\n");
    refuses(
        &format!("server -addr 127.0.0.1:0 -users {}", users.display()),
        &["users.yaml", "id1"],
    );
}

#[test]
fn an_unknown_key_is_only_a_warning() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "server.yaml",
        "options:\n  addr: 127.0.0.1:0\n  host: 1.2.3.4\n  adres: 1\n",
    );
    let mut server = server(&format!("-config {}", file.display()));
    for key in ["host", "adres"] {
        let line = server.wait_for(&format!("options.{key} "));
        assert!(
            line.contains(" WRN ") && line.contains("server.yaml"),
            "{line}"
        );
    }
    server.addr();
}

#[test]
fn flags_are_parsed_in_every_form() {
    for flags in [
        "-addr=127.0.0.1:0 -allowAnyClient=true -httpMUXHeader=X-Id",
        "--addr 127.0.0.1:0 --allowAnyClient --httpMUXHeader X-Id",
        "--addr=127.0.0.1:0 --allow-any-client --http-mux-header=X-Id",
    ] {
        let addr = server(flags).addr();
        assert!(addr.ip().is_loopback(), "{flags}");
    }
}

#[test]
fn a_flag_takes_precedence_over_the_file() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "server.yaml",
        "options:\n  addr: 127.0.0.2:0\n  sniAddr: 127.0.0.3:0\n",
    );
    let mut server = server(&format!("-addr 127.0.0.1:0 -config {}", file.display()));
    assert_eq!(server.addr().ip().to_string(), "127.0.0.1");
    assert_eq!(server.sni_addr().ip().to_string(), "127.0.0.3");
}

#[test]
fn the_program_name_selects_the_role() {
    let scratch = Scratch::new();
    for (name, shows) in [("gt-server", "-sniAddr"), ("my-client", "-remoteTCPPort")] {
        let link = scratch.join(name);
        symlink(GT, &link).expect("link gt");
        let output = run(Command::new(link).arg("-h"));
        assert_eq!(output.status.code(), Some(0));
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(shows),
            "{name}"
        );
    }
}

#[test]
fn a_folder_runs_every_file_in_it() {
    let scratch = Scratch::new();
    let port = common::ports::free_port();
    let service = service::http(0, "here");
    scratch.file(
        "a.yaml",
        format!("type: server\noptions:\n  addr: 127.0.0.1:{port}\n"),
    );
    scratch.file(
        "b.yaml",
        format!(
            "options:\n  id: id1\n  remote: 127.0.0.1:{port}\n  local: http://{}\n  \
             reconnectDelay: 100ms\n",
            service.addr
        ),
    );
    let folder = scratch.path().display().to_string();
    let mut both = Gt::start("gt", &[], &format!("-config {folder}"));
    let addr = both.addr();
    both.wait_for_tunnel();
    assert_eq!(common::visitor::get(addr, "id1.a", "/").status, 200);
    assert_eq!(both.stop(), Some(0));
}

#[test]
fn term_and_int_end_either_role_with_0() {
    let service = service::http(0, "here");
    for signal in ["TERM", "INT"] {
        let mut server = server_of_id1("");
        let addr = server.addr();
        let mut client = client(&format!(
            "-remote {addr} -id id1 -secret secret1 -local http://{}",
            service.addr
        ));
        client.wait_for_tunnel();
        for role in [&mut client, &mut server] {
            role.signal(signal);
            assert_eq!(role.exit().code(), Some(0), "{signal}: {}", role.log());
        }
    }
}

#[test]
fn a_client_that_waits_for_its_server_ends_with_0_too() {
    let port = common::ports::free_port();
    let mut client = client(&format!(
        "-remote 127.0.0.1:{port} -id id1 -secret secret1 -local http://127.0.0.1"
    ));
    client.wait_for_warning();
    assert_eq!(client.stop(), Some(0));
}

#[test]
fn secrets_are_never_logged() {
    let service = service::http(0, "here");
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret topsecret -logLevel trace");
    let addr = server.addr();
    let line = format!("-remote {addr} -id id1 -local http://{}", service.addr);
    let mut good = client(&format!("{line} -secret topsecret -logLevel trace"));
    good.wait_for_tunnel();
    let mut bad = client(&format!("{line} -secret othersecret -logLevel trace"));
    bad.wait_for_bad_login();
    for program in [&server, &good, &bad] {
        let log = program.log();
        assert!(!log.contains("topsecret"), "{log}");
        assert!(!log.contains("othersecret"), "{log}");
    }
}

#[test]
fn the_log_level_is_heeded() {
    let quiet = Scratch::new();
    let mut command = Command::new(GT);
    command.args(["server", "-addr", "127.0.0.1:0", "-logLevel", "disable"]);
    // The log stays empty, so there is nothing to wait for except the end.
    let mut server = Process::spawn("gt server", quiet, &mut command);
    common::eventually("the server to have its listener", || {
        (server.fds() > 6).then_some(())
    });
    server.signal("TERM");
    server.exit();
    assert_eq!(server.log(), "");
}
