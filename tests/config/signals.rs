//! `gt -s …` finds and signals the running gt, and no other. Each test runs its own copy of the
//! program, which keeps concurrent tests out of reach.

use crate::common;
use crate::common::gt::Gt;
use crate::common::process::run;
use crate::common::program::install_gt;
use crate::common::scratch::Scratch;
use crate::common::{unique, words};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of the program.
struct Copy {
    scratch: Scratch,
    program: PathBuf,
}

impl Copy {
    fn new() -> Copy {
        Copy::called("gt")
    }

    fn called(name: &str) -> Copy {
        let scratch = Scratch::new();
        let program = scratch.join(name);
        install_gt(&program);
        Copy { scratch, program }
    }

    fn start(&self, line: &str) -> Gt {
        Gt::of_program(&self.program, line)
    }

    fn server(&self, more: &str) -> Gt {
        let mut server = self.start(&format!(
            "server -addr 127.0.0.1:0 -id id1 -secret secret1 {more}"
        ));
        server.addr();
        server
    }

    /// Starts a client; it need not connect.
    fn client(&self) -> Gt {
        let mut client = self.start(
            "client -remote tcp://127.0.0.1:1 -id id1 -secret secret1 -local http://127.0.0.1:1",
        );
        client.wait_for_attempt();
        client
    }

    fn file(&self, name: &str) -> PathBuf {
        let text = "type: server\noptions:\n  addr: 127.0.0.1:0\n  id: id1\n  secret: secret1\n";
        self.scratch.file(name, text)
    }

    /// Runs `gt -s`; returns exit code, output and errors.
    fn signal(&self, line: &str) -> (Option<i32>, String, String) {
        self.signal_in(self.scratch.path(), line)
    }

    fn signal_in(&self, folder: &Path, line: &str) -> (Option<i32>, String, String) {
        said(self.command(line).current_dir(folder))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words(line));
        command
    }

    /// Fails unless only `gt` was signalled.
    fn signals(&self, line: &str, name: &str, gt: &Gt) {
        let right = format!("gt: sent {name} to process {}\n", gt.pid());
        assert_eq!(self.signal(line), (Some(0), right, String::new()), "{line}");
    }
}

/// Returns exit code, output and errors.
fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_signal_without_a_running_gt_is_an_error() {
    let copy = Copy::new();
    // This process runs another program.
    let mut other = common::gt::server_of_id1("");
    other.addr();
    for (line, what) in [
        ("-s stop", "gt"),
        ("server -s reload", "gt server"),
        (
            "client -s kill -config x.yaml",
            "gt client with -config x.yaml",
        ),
    ] {
        let (code, said, errors) = copy.signal(line);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{line}");
        assert_eq!(errors, format!("gt: no {what} of this program runs\n"));
    }
    assert!(other.has_ended().is_none());
}

#[test]
fn each_signal_reaches_the_named_role() {
    let copy = Copy::new();
    let (mut server, mut client) = (copy.server(""), copy.client());
    copy.signals("server -s reload", "SIGHUP", &server);
    server.wait_for_reloaded(1);
    copy.signals("client -s reload", "SIGHUP", &client);
    client.wait_for_reloaded(1);
    let before = client.waits().len();
    copy.signals("client -s wake", "SIGUSR1", &client);
    client.wait_for_failures(before + 1);
    copy.signals("client -s stop", "SIGTERM", &client);
    assert_eq!(client.exit().code(), Some(0));
    let (code, _, errors) = copy.signal("client -s stop");
    assert_eq!(code, Some(1));
    let there_is = format!("there is another gt: process {}", server.pid());
    assert!(errors.contains(&there_is), "{errors}");
    copy.signals("-s kill", "SIGKILL", &server);
    assert_eq!(server.exit().code(), None, "a signal has ended it");
}

#[test]
fn a_file_selects_one_process() {
    let copy = Copy::new();
    let (one, two) = (copy.file("one.yaml"), copy.file("two.yaml"));
    let mut first = copy.start(&format!("-config {}", one.display()));
    let mut second = copy.start(&format!("server --config={}", two.display()));
    first.addr();
    second.addr();
    // Relative to the current folder, and by any name.
    copy.signals("-s reload -config one.yaml", "SIGHUP", &first);
    first.wait_for_reloaded(1);
    let link = copy.scratch.join("link.yaml");
    std::os::unix::fs::symlink(&two, &link).expect("make a link");
    copy.signals("-s stop -config=./link.yaml", "SIGTERM", &second);
    assert_eq!(second.exit().code(), Some(0));
    assert_eq!(second.reloads(), 0);
    // The file determines the role.
    let (code, _, errors) = copy.signal("client -s stop");
    assert_eq!(code, Some(1), "{errors}");
    copy.signals("server -s stop", "SIGTERM", &first);
    assert_eq!(first.exit().code(), Some(0));
}

#[test]
fn a_file_is_resolved_relative_to_each_process() {
    let copy = Copy::new();
    let file = copy.file("gt.yaml");
    // Relative to the folder in which the server runs.
    let folder = copy.scratch.path().file_name().expect("a name");
    let mut server = copy.start(&format!("-config ../{}/gt.yaml", folder.to_string_lossy()));
    server.addr();
    let elsewhere = copy.scratch.dir("elsewhere");
    let (code, said, errors) = copy.signal_in(&elsewhere, "-s stop -config gt.yaml");
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(
        errors,
        format!(
            "gt: no gt with -config gt.yaml of this program runs; there is another gt: process {}\n",
            server.pid()
        )
    );
    // Also when the file no longer exists.
    std::fs::remove_file(file).expect("remove the file");
    let sent = format!("gt: sent SIGTERM to process {}\n", server.pid());
    assert_eq!(
        copy.signal_in(&elsewhere, "-s stop -config ../gt.yaml"),
        (Some(0), sent, String::new())
    );
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_folder_with_both_roles_matches_either() {
    let copy = Copy::new();
    let folder = copy.scratch.dir("both");
    std::fs::copy(copy.file("server.yaml"), folder.join("server.yaml")).expect("a server's file");
    std::fs::write(
        folder.join("client.yaml"),
        "type: client\noptions: {remote: 'tcp://127.0.0.1:1', id: id1, local: 'http://127.0.0.1:1'}\n",
    )
    .expect("a client's file");
    let mut both = copy.start(&format!("-config {}", folder.display()));
    both.addr();
    copy.signals("client -s reload", "SIGHUP", &both);
    both.wait_for_reloaded(1);
    copy.signals("server -s stop", "SIGTERM", &both);
    assert_eq!(both.exit().code(), Some(0));
}

#[test]
fn a_process_with_a_deleted_file_is_not_signalled() {
    let copy = Copy::new();
    let file = copy.file("server.yaml");
    let mut server = copy.start(&format!("-config {}", file.display()));
    server.addr();
    std::fs::remove_file(file).expect("remove the file");
    let (code, said, errors) = copy.signal("server -s stop");
    assert_eq!((code, said.as_str()), (Some(1), ""));
    let unsure = format!(
        "gt: whether process {} is meant cannot be told: ",
        server.pid()
    );
    assert!(errors.starts_with(&unsure), "{errors}");
    assert!(server.has_ended().is_none());
    // An unknown process takes nothing from a known one.
    let mut known = copy.server("");
    let (code, said, errors) = copy.signal("server -s stop");
    let sent = format!("gt: sent SIGTERM to process {}\n", known.pid());
    assert_eq!((code, said), (Some(1), sent));
    assert!(errors.starts_with(&unsure), "{errors}");
    assert_eq!(known.exit().code(), Some(0));
    assert!(server.has_ended().is_none());
    copy.signals("-s stop", "SIGTERM", &server);
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_pipe_is_not_read_to_determine_a_role() {
    let copy = Copy::new();
    let pipe = copy.scratch.join("gt.yaml");
    let made = run(Command::new("mkfifo").arg(&pipe));
    assert!(made.status.success(), "{made:?}");
    let mut server = copy.start(&format!("-config {}", pipe.display()));
    let text = "type: server\noptions: {addr: '127.0.0.1:0', id: id1, secret: secret1}\n";
    std::fs::write(&pipe, text).expect("write into the pipe");
    server.addr();
    let (code, said, errors) = copy.signal("server -s stop");
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(
        errors.ends_with("its -config, is not a file or a directory\n"),
        "{errors}"
    );
    assert!(server.has_ended().is_none());
    // By its name it is found without being read.
    copy.signals("-s stop -config gt.yaml", "SIGTERM", &server);
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_gt_of_another_user_is_reported() {
    const NOBODY: u32 = 65534;
    let me = std::fs::metadata("/proc/self").expect("who this is").uid();
    if me != 0 {
        eprintln!("not tested: only root can be another user");
        return;
    }
    // Another user's processes are found by name, and any running gt has the program's default
    // name.
    let copy = Copy::called(&format!("gt-{}", unique()));
    let mut server = copy.server("");
    let mut stop = copy.command("-s stop");
    stop.uid(NOBODY).gid(NOBODY).current_dir("/");
    let why = format!(
        "gt: no gt of this program runs; process {} of user 0 seems to be a gt: try as root\n",
        server.pid()
    );
    let (code, said, errors) = said(&mut stop);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(errors, why);
    assert!(server.has_ended().is_none());
}

#[test]
fn a_program_named_after_a_role_signals_that_role() {
    let copy = Copy::new();
    let (mut server, client) = (copy.server(""), copy.client());
    let link = copy.scratch.join("gt-server");
    std::os::unix::fs::symlink(&copy.program, &link).expect("make a link");
    let output = run(Command::new(&link).args(["-s", "stop"]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        said,
        format!("gt: sent SIGTERM to process {}\n", server.pid())
    );
    assert_eq!(server.exit().code(), Some(0));
    // It is found by its name, too.
    let mut named = Gt::of_program(&link, "-addr 127.0.0.1:0 -id id1 -secret secret1");
    named.addr();
    copy.signals("server -s stop", "SIGTERM", &named);
    assert_eq!(named.exit().code(), Some(0));
    drop(client);
}

#[test]
fn an_upgrade_finds_and_restarts_running_processes() {
    let copy = Copy::new();
    let server = copy.server("");
    let new = copy.scratch.join("new");
    install_gt(&new);
    std::fs::rename(&new, &copy.program).expect("replace the program");
    copy.signals("-s restart", "SIGQUIT", &server);
    let mut server = server;
    let new = server.wait_for_successor();
    assert_eq!(server.exit().code(), Some(0));
    let (code, said, _) = copy.signal("-s stop");
    assert_eq!(
        (code, said),
        (
            Some(0),
            format!("gt: sent SIGTERM to process {}\n", new.pid)
        )
    );
    new.wait_for_end();
}
