//! The API of the page against its description, by calls that schemathesis makes of etc/openapi.yaml. Needs schemathesis
//! (`pip install schemathesis`), which Debian does not have: tests/run installs it where it can, and without it this
//! test says so and passes.

use crate::common::gt::Gt;
use crate::common::password;
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where tests/run installs it.
const INSTALLED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/schemathesis/bin/schemathesis"
);

fn program() -> Option<PathBuf> {
    let found = Command::new("schemathesis").arg("--version").output();
    let on_path = found.is_ok_and(|output| output.status.success());
    let installed = Path::new(INSTALLED);
    match on_path {
        true => Some("schemathesis".into()),
        false => installed.exists().then(|| installed.to_owned()),
    }
}

#[test]
fn the_api_answers_as_its_description_says() {
    let Some(program) = program() else {
        eprintln!("not tested: there is no schemathesis");
        return;
    };
    let scratch = Scratch::new();
    let (port, hash) = (free_port(), password::hash("a", "secret"));
    let hash = hash.split_once(':').expect("a hash").1;
    scratch.file(
        "server.yaml",
        format!(
            "type: server\noptions:\n  addr: 127.0.0.1:{port}\n  webAddr: 127.0.0.1:0\nusers:\n  id1:\n    \
             secret: secret1\n  id2:\n    secret: secret2\npassword: {hash}\n"
        ),
    );
    scratch.file(
        "client.yaml",
        format!(
            "type: client\noptions:\n  id: id1\n  secret: secret1\n  remote: tcp://127.0.0.1:{port}\nservices:\n- \
             local: http://127.0.0.1:9\n"
        ),
    );
    let mut gt = Gt::start("gt", &[], &format!("-config {}", scratch.path().display()));
    let page = gt.web_addr();
    gt.wait_for("tunnel started");
    let output = Command::new(program)
        .current_dir(scratch.dir("schemathesis"))
        .args([
            "run",
            concat!(env!("CARGO_MANIFEST_DIR"), "/etc/openapi.yaml"),
        ])
        .args(["--url", &format!("http://{page}"), "--auth", "admin:secret"])
        // The same calls each time.
        .args(["--seed", "1", "--phases", "coverage,fuzzing", "-n", "10"])
        // A restart has another process, and a session is needed to end one.
        .args([
            "--exclude-path",
            "/api/restart",
            "--exclude-path",
            "/api/logout",
        ])
        // What a call means for the configuration is not in its schema, so that one that fits it may be refused.
        .args([
            "-c",
            "not_a_server_error,status_code_conformance,content_type_conformance",
        ])
        .args([
            "-c",
            "response_schema_conformance,ignored_auth,unsupported_method,allow_header_conformance",
        ])
        .output()
        .expect("run schemathesis");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" passed"), "{said}");
    assert!(
        gt.log().contains("the web page: admin from"),
        "it has changed nothing"
    );
}
