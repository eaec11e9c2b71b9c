//! `gt -config etc/quickstart` works as documented for a first-time user.

use crate::common::gt::Gt;
use crate::common::ports::free_port;
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Copies a folder with its content.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("read a folder");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}

#[test]
fn the_quick_start_prints_a_curl_line_that_works() {
    let scratch = Scratch::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/quickstart");
    let folder = scratch.join("quickstart");
    copy(&source, &folder);
    // On a free port, so that it does not collide with a running quick start.
    let port = free_port().to_string();
    for name in ["server.yaml", "client.yaml"] {
        let text = fs::read_to_string(source.join(name)).expect("read a file");
        assert!(text.contains(":8080\n"), "{name} has another port now");
        fs::write(folder.join(name), text.replace("8080", &port)).expect("write a file");
    }

    let mut gt = Gt::start("gt", &[], &format!("-config {}", folder.display()));
    gt.wait_for_tunnel();
    let line = gt.wait_for("curl ");
    let command = &line[line.find("curl ").unwrap()..];
    let page = run_ok(Command::new("sh").args(["-c", command]));
    assert!(
        page.contains("<html") || page.contains("<!doctype html"),
        "{page}"
    );
    // The same address is printed for a browser, and resolves to this machine without
    // configuration.
    let url = gt.wait_for("http://");
    assert!(url.contains(".localhost:"), "{url}");
    gt.signal("INT");
    assert_eq!(gt.exit().code(), Some(0));
}
