//! `gt import`: what it prints for files of other programs, and that gt runs it.

use crate::common::certs;
use crate::common::gt::{gt, Gt};
use crate::common::ports::free_ports;
use crate::common::scratch::Scratch;
use crate::common::service::{assert_echo_at, echo, http};
use crate::common::visitor::get;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Runs `gt import` with these arguments, and writes what it prints into a file.
fn import(arguments: &str, scratch: &Scratch, name: &str) -> (Option<i32>, PathBuf, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = gt(arguments);
    let text = String::from_utf8(stderr).expect("text");
    (status.code(), scratch.file(name, stdout), text)
}

fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/import");
    let files = std::fs::read_dir(folder).expect("the samples");
    files.map(|file| file.expect("a file").path()).collect()
}

#[test]
fn gt_check_accepts_what_is_printed_for_every_sample() {
    let (scratch, certs) = (Scratch::new(), certs::make());
    let files = scratch.dir("files");
    let samples = samples();
    assert_eq!(samples.len(), 10);
    for sample in samples {
        let text = std::fs::read_to_string(&sample).expect("a sample");
        // What gt check looks for on this machine.
        let text = ["/etc/frp/ca.crt", "/etc/rathole/ca.pem"]
            .iter()
            .fold(text, |text, path| {
                text.replace(path, certs.ca.to_str().expect("a path"))
            });
        let text = text.replace("/srv/files", files.to_str().expect("a path"));
        let name = sample
            .file_name()
            .expect("a name")
            .to_str()
            .expect("a name");
        let file = scratch.file(name, text);
        let (code, printed, said) = import(
            &format!("import {}", file.display()),
            &scratch,
            &format!("{name}.yaml"),
        );
        assert_eq!(code, Some(0), "{name}: {said}");
        let summary = format!("gt: {} is for a ", file.display());
        assert!(
            said.starts_with(&summary) && said.lines().count() == 1,
            "{said}"
        );
        let checked = gt(&format!("check -config {}", printed.display()));
        let why = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{name}: {why}");
    }
}

/// Starts gt with what it prints for a file.
fn start(file: &Path, arguments: &str, scratch: &Scratch) -> Gt {
    let arguments = format!("{arguments} {}", file.display());
    let name = format!("{}.yaml", arguments.replace(['/', ' '], "-"));
    let (code, printed, said) = import(&arguments, scratch, &name);
    assert_eq!(code, Some(0), "{said}");
    Gt::start("gt", &[], &format!("-config {}", printed.display()))
}

#[test]
fn both_ends_of_frp_work_together_without_a_change() {
    let (scratch, web, shell) = (Scratch::new(), http(0, "web"), echo());
    let first = free_ports(3);
    let (tunnels, visitors, remote) = (first, first + 1, first + 2);
    let frps = scratch.file(
        "frps.toml",
        format!(
            "bindAddr = \"127.0.0.1\"\nbindPort = {tunnels}\nvhostHTTPPort = {visitors}\n\
             subDomainHost = \"example.com\"\nauth.token = \"s: #1\"\n\
             allowPorts = [{{ start = {remote}, end = {remote} }}]\n"
        ),
    );
    let frpc = scratch.file(
        "frpc.ini",
        format!(
            "[common]\nserver_addr = 127.0.0.1\nserver_port = {tunnels}\ntoken = s: #1\n\
             [web]\ntype = http\nlocal_port = {web}\nsubdomain = a\ncustom_domains = shop.example.org\n\
             [more]\ntype = http\nlocal_port = {web}\nsubdomain = b\n\
             [shell]\ntype = tcp\nlocal_port = {shell}\nremote_port = {remote}\n",
            web = web.addr.port(),
            shell = shell.addr.port(),
        ),
    );
    let mut server = start(&frps, "import", &scratch);
    server.wait_for("acceptLoop started");
    let mut client = start(&frpc, "import", &scratch);
    client.wait_for_opened_port(remote);
    client.wait_for_first_tunnel();
    let visitors = SocketAddr::from(([127, 0, 0, 1], visitors));
    for host in ["a.example.com", "b.example.com", "shop.example.org"] {
        assert_eq!(get(visitors, host, "/").status, 200, "{host}");
    }
    assert_echo_at(([127, 0, 0, 1], remote).into());
}

#[test]
fn both_ends_of_rathole_work_together_without_a_change() {
    let (scratch, shell) = (Scratch::new(), echo());
    let first = free_ports(2);
    let (tunnels, remote) = (first, first + 1);
    let rathole = scratch.file(
        "rathole.toml",
        format!(
            "[client]\nremote_addr = \"127.0.0.1:{tunnels}\"\n\
             [client.services.shell]\ntoken = \"s: #1\"\nlocal_addr = \"{shell}\"\n\
             [server]\nbind_addr = \"127.0.0.1:{tunnels}\"\n\
             [server.services.shell]\ntoken = \"s: #1\"\nbind_addr = \"0.0.0.0:{remote}\"\n",
            shell = shell.addr,
        ),
    );
    let mut server = start(&rathole, "server import", &scratch);
    server.wait_for("acceptLoop started");
    let mut client = start(&rathole, "client import", &scratch);
    client.wait_for_opened_port(remote);
    client.wait_for_first_tunnel();
    assert_echo_at(([127, 0, 0, 1], remote).into());
}

#[test]
fn a_file_that_cannot_be_imported_is_named_with_2() {
    let scratch = Scratch::new();
    for (text, why) in [
        (&b"serverAddr = \"h\n"[..], "line 1: "),
        (b"\xff", "line 1: this is not text in UTF-8"),
        (
            b"colour: red\n",
            "this is no file of frp, rathole or the original GT",
        ),
        (&vec![b'#'; (1 << 20) + 1], "it has more than 1048576 bytes"),
    ] {
        let file = scratch.file("file", text);
        let (code, printed, said) = import(&format!("import {}", file.display()), &scratch, "out");
        let begin = format!("gt: {}: ", file.display());
        assert!(said.starts_with(&begin) && said.contains(why), "{said}");
        assert_eq!(
            (code, std::fs::read(printed).expect("a file").len()),
            (Some(2), 0)
        );
    }
    let none = scratch.join("none");
    let (code, _, said) = import(&format!("import {}", none.display()), &scratch, "out");
    assert_eq!(code, Some(2));
    assert!(said.contains("none cannot be read: "), "{said}");
}

#[test]
fn what_gt_does_not_run_yet_is_printed_with_1() {
    let scratch = Scratch::new();
    let file = scratch.file("frpc.toml", "serverAddr = \"h\"\n");
    let (code, printed, said) = import(&format!("import {}", file.display()), &scratch, "out.yaml");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("gt does not run what was printed yet: There is no service"),
        "{said}"
    );
    let printed = std::fs::read_to_string(printed).expect("a file");
    assert!(printed.contains("  remote: tcp://h:7000\n"), "{printed}");
}
