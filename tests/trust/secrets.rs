//! Secrets in files of their own, and files that others can read.

use crate::common::gt::{client, gt, http_tunnel, Gt};
use crate::common::scratch::Scratch;
use crate::common::service::echo;
use crate::common::visitor::get;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Returns the code and the messages of `gt check`.
fn check(flags: &str) -> (Option<i32>, String) {
    let output = gt(&format!("check {flags}"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

#[test]
fn secrets_are_read_from_their_files_at_the_start_and_at_a_reload() {
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "secret1\n");
    let text = format!(
        "type: server\noptions: {{addr: '127.0.0.1:0', reconnectTimes: 0}}\nusers: {{id1: {{secretFile: {}}}}}\n",
        secret.display()
    );
    let config = scratch.file("server.yaml", text);
    let mut server = Gt::start("gt server", &[], &format!("-config {}", config.display()));
    let addr = server.addr();
    let mine = scratch.file("mine", "secret1");
    let flags = |secret: &str| {
        format!(
            "-remote tcp://{addr} -id id1 -reconnectDelay 100ms -local http://127.0.0.1:80 {secret}"
        )
    };
    let mut one = client(&flags(&format!("-secretFile {}", mine.display())));
    one.wait_for_tunnel();
    fs::write(&secret, "secret2\n").unwrap();
    server.reload();
    one.wait_for_bad_login();
    client(&flags("-secret secret2")).wait_for_tunnel();
    fs::write(&mine, "secret2").unwrap();
    one.reload();
    one.wait_for_tunnels(2);
    fs::remove_file(&secret).unwrap();
    let why = server.reload_in_vain();
    assert!(
        why.contains("secretFile") && why.contains("secret cannot be read"),
        "{why}"
    );
    assert!(!one.log().contains("secret2") && !server.log().contains("secret2"));
}

#[cfg(feature = "password")]
#[test]
fn passwords_of_a_file_are_asked_for() {
    let scratch = Scratch::new();
    let hash = "$pbkdf2-sha256$i=310000$3+4f3ib27oI8qj+tj8Bx4w$6rT2vBti7/VRXwpEl8XzVNnL/S3xcePFxPLXFL55vZo";
    let file = scratch.file("passwords", format!("# visitors\nalice:{hash}\n\n"));
    let service = echo();
    let flags = format!("-passwordFile {}", file.display());
    let (_server, _client, addr) = http_tunnel(service.addr, "", &flags);
    assert_eq!(get(addr, "id1.example.com", "/").status, 401);
}

#[test]
fn files_of_secrets_that_cannot_be_used_are_named() {
    let scratch = Scratch::new();
    let empty = scratch.file("empty", "\n");
    let wrong = scratch.file("wrong", "# visitors\nalice\n");
    let of = |more: String| {
        check(&format!(
            "client -remote tls://h -id i -local http://h {more}"
        ))
    };
    for (more, whys) in [
        (
            format!("-secretFile {}", empty.display()),
            ["secretFile", "is empty"],
        ),
        (
            format!("-secret s -secretFile {}", empty.display()),
            ["secretFile", "remove one of them"],
        ),
        (
            format!("-passwordFile {}", empty.display()),
            ["passwordFile", "anyone could come"],
        ),
        (
            format!("-passwordFile {}", wrong.display()),
            ["wrong, line 2", "gt hash"],
        ),
    ] {
        let (code, text) = of(more);
        assert_eq!(code, Some(2), "{text}");
        for why in whys {
            assert!(text.contains(why), "{why}: {text}");
        }
    }
}

#[test]
fn check_warns_of_secrets_that_everybody_can_read() {
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "s");
    let config = scratch.file("server.yaml", "type: server\nusers: {id1: {secret: s}}\n");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let client = format!(
        "client -remote tls://h -id i -local http://h -secretFile {}",
        secret.display()
    );
    let server = format!("server -config {}", config.display());
    for (path, command) in [(&secret, &client), (&config, &server)] {
        for (bits, warned) in [(0o644, true), (0o640, false), (0o600, false)] {
            mode(path, bits);
            let (_, text) = check(command);
            let warning = format!("chmod o-r {}", path.display());
            assert_eq!(text.contains(&warning), warned, "{bits:o}: {text}");
        }
    }
    let harmless = scratch.file("other.yaml", "type: server\noptions: {addr: 80}\n");
    let (_, text) = check(&format!("server -config {}", harmless.display()));
    assert!(!text.contains("chmod"), "{text}");
}
