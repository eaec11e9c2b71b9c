//! The log of a running gt: where it goes, what it contains, and that it never blocks anything.

use crate::common::gt::{client, client_of_id1, gt, server, server_of_id1, Gt, GT};
use crate::common::ports::free_port;
use crate::common::process::{run, Process};
use crate::common::scratch::Scratch;
use crate::common::visitor::{ask, get};
use crate::common::{eventually, service, words};
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// Checks that each line of `text` begins like a log line; returns the number of lines.
fn whole_lines(text: &str) -> usize {
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    for line in text.lines() {
        let level = line.split_whitespace().nth(6);
        assert_eq!(line.get(20..24), Some("UTC "), "{line:?}");
        assert!(matches!(level, Some("INF" | "DBG" | "WRN")), "{line:?}");
    }
    text.lines().count()
}

/// Sends a request that is logged at level debug.
fn visit(addr: SocketAddr) {
    assert_eq!(ask(addr, "GET / HTTP/1.1\r\n\r\n").status, 400);
}

#[test]
fn a_log_file_gets_everything_that_stderr_would() {
    let scratch = Scratch::new();
    let log = scratch.join("gt.log");
    fs::write(&log, "before\n").expect("write");
    let mut server = server(&format!("-addr 127.0.0.1:0 -logFile {}", log.display()));
    eventually("the server to listen", || {
        read(&log).contains("acceptLoop started").then_some(())
    });
    assert_eq!(server.stop(), Some(0));
    let text = read(&log);
    let rest = text.strip_prefix("before\n").expect("what was there stays");
    assert!(whole_lines(rest) >= 4, "{rest}");
    assert!(rest.contains(" INF stopping\n"));
    assert_eq!(server.log(), "", "nothing goes to stderr");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error_with_1() {
    let scratch = Scratch::new();
    let path = scratch.join("missing/gt.log");
    let output = gt(&format!(
        "server -addr 127.0.0.1:0 -logFile {}",
        path.display()
    ));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!(
            "The log file {} cannot be opened: No such file",
            path.display()
        )),
        "{said}"
    );
}

#[test]
fn a_fatal_error_is_also_on_stderr_with_a_log_file() {
    let scratch = Scratch::new();
    let log = scratch.join("gt.log");
    let taken = service::silent();
    let output = gt(&format!(
        "server -addr {} -logFile {}",
        taken.addr,
        log.display()
    ));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&taken.addr.to_string()), "{said}");
    let text = read(&log);
    let last = text.lines().last().expect("a line");
    assert!(
        last.contains(" FTL ") && last.contains(&taken.addr.to_string()),
        "{last}"
    );
}

#[test]
fn a_blocked_stderr_does_not_change_the_exit_code() {
    let scratch = Scratch::new();
    let log = scratch.join("gt.log");
    let taken = service::silent();
    let line = format!(
        "exec {GT} server -addr {} -logFile {} 2>/dev/full",
        taken.addr,
        log.display()
    );
    let output = run(Command::new("sh").args(["-c", &line]));
    assert_eq!(output.status.code(), Some(1));
    let text = read(&log);
    assert!(text.contains(" FTL ") && !text.contains(" PNC "), "{text}");
}

#[test]
fn the_log_is_rotated_by_size_and_count() {
    let scratch = Scratch::new();
    let log = scratch.join("gt.log");
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:{port} -logLevel debug -logFile {} -logFileMaxSize 2000 -logFileMaxCount 3",
        log.display()
    ));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the server to listen", || {
        read(&log).contains("acceptLoop").then_some(())
    });
    let name = |n: usize| match n {
        0 => log.clone(),
        n => scratch.join(&format!("gt.log.{n}")),
    };
    eventually("two old files, the first one gone", || {
        visit(addr);
        let full = name(2).exists() && !read(&name(2)).contains("acceptLoop");
        full.then_some(())
    });
    assert_eq!(server.stop(), Some(0));
    for n in 0..3 {
        let text = read(&name(n));
        assert!(whole_lines(&text) > 0 && text.len() <= 2000, "{n}: {text}");
    }
    assert!(!name(3).exists());
    assert!(!scratch.join("gt.log.new").exists());
}

#[test]
fn a_full_disk_stops_the_log_and_nothing_else() {
    let scratch = Scratch::new();
    let (log, port) = (scratch.join("gt.log"), free_port());
    // The maximum size of a file, in blocks of 512 bytes.
    let line = format!(
        "ulimit -f 8 && exec {GT} server -addr 127.0.0.1:{port} -logLevel debug -logFile {}",
        log.display()
    );
    let mut command = Command::new("sh");
    let mut server = Process::spawn("gt server", Scratch::new(), command.args(["-c", &line]));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the server to listen", || {
        read(&log).contains("acceptLoop").then_some(())
    });
    let mut size = 0;
    eventually("the disk to be full", || {
        visit(addr);
        visit(addr);
        let before = std::mem::replace(&mut size, read(&log).len());
        (before == size).then_some(())
    });
    assert!(whole_lines(&read(&log)) > 2, "no half line at its end");
    for _ in 0..50 {
        visit(addr);
    }
    assert_eq!(read(&log).len(), size);
    // Makes room again.
    let file = OpenOptions::new()
        .write(true)
        .open(&log)
        .expect("open the log");
    file.set_len(0).expect("empty the log");
    visit(addr);
    let text = eventually("lines to be logged again", || {
        let text = read(&log);
        text.contains(" DBG ").then_some(text)
    });
    whole_lines(&text);
    let told = text.lines().next().expect("a line");
    let count = told.split("WRN lines of the log were lost count=").nth(1);
    let count = count.and_then(|rest| rest.split(':').next()?.parse::<u32>().ok());
    assert!(count >= Some(50), "{told}");
    assert_eq!(text.matches("were lost").count(), 1, "{text}");
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_blocked_stderr_does_not_block_gt() {
    let port = free_port();
    let line = format!("exec {GT} server -addr 127.0.0.1:{port} -logLevel debug 2>/dev/full");
    let mut command = Command::new("sh");
    let mut server = Process::spawn("gt server", Scratch::new(), command.args(["-c", &line]));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the server to listen", || {
        std::net::TcpStream::connect(addr).ok()
    });
    for _ in 0..10 {
        visit(addr);
    }
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_reload_reopens_the_log_file_and_applies_its_level() {
    let scratch = Scratch::new();
    let (log, old, port) = (scratch.join("gt.log"), scratch.join("old.log"), free_port());
    let write = |level: &str| {
        let text = format!(
            "type: server\noptions:\n  addr: 127.0.0.1:{port}\n  logLevel: {level}\n  logFile: {}\n",
            log.display()
        );
        scratch.file("server.yaml", text)
    };
    let file = write("info");
    let server = server(&format!("-config {}", file.display()));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the server to listen", || {
        read(&log).contains("acceptLoop").then_some(())
    });
    visit(addr);
    fs::rename(&log, &old).expect("rename the log");
    write("debug");
    server.signal("HUP");
    eventually("the reload", || {
        read(&log).contains(" INF reloaded\n").then_some(())
    });
    visit(addr);
    eventually("a line of level debug", || {
        read(&log).contains(" DBG ").then_some(())
    });
    assert!(!read(&old).contains(" DBG ") && !read(&old).contains("reloaded"));
    // An invalid file changes nothing else, but the log is reopened all the same.
    fs::remove_file(&old).expect("remove");
    fs::rename(&log, &old).expect("rename the log");
    write("loud");
    server.signal("HUP");
    eventually("the error", || {
        read(&log).contains(" ERR not reloaded").then_some(())
    });
    visit(addr);
    eventually("a line of level debug", || {
        read(&log).contains(" DBG ").then_some(())
    });
}

#[test]
fn the_roles_of_a_process_share_one_log() {
    let scratch = Scratch::new();
    let port = free_port();
    let log = scratch.join("gt.log");
    scratch.file(
        "a.yaml",
        format!("type: server\noptions:\n  addr: 127.0.0.1:{port}\n  logLevel: warn\n"),
    );
    let client = format!(
        "options:\n  id: id1\n  remote: 127.0.0.1:{port}\n  local: http://127.0.0.1:1\n  \
         logLevel: info\n  logFile: {}\n",
        log.display()
    );
    scratch.file("b.yaml", client);
    let folder = scratch.path().display().to_string();
    let mut both = Gt::start("gt", &[], &format!("-config {folder}"));
    let text = eventually("the warnings", || {
        let text = read(&log);
        text.contains("allowAnyClient").then_some(text)
    });
    let about = text.lines().find(|line| line.contains("logLevel"));
    let about = about.unwrap_or_else(|| panic!("{text}"));
    assert!(
        about.contains(" WRN ") && about.contains("b.yaml"),
        "{about}"
    );
    assert!(
        !text.contains("logFile is ignored") && !text.contains(" INF "),
        "{text}"
    );
    // At this level the start is not logged.
    let addr = ([127, 0, 0, 1], port).into();
    eventually("the server to listen", || {
        std::net::TcpStream::connect(addr).ok()
    });
    assert_eq!(get(addr, "nobody.a", "/").status, 404);
    assert_eq!(both.stop(), Some(0));
    assert_eq!(both.log(), "");
}

#[test]
fn the_configuration_is_logged_once_for_each_role_without_secrets() {
    let service = service::http(0, "here");
    let scratch = Scratch::new();
    let config = scratch.file(
        "server.yaml",
        "users:\n  id1: {secret: topsecret1, tcp: [{number: 2, range: 20000-20100}]}\n  \
         id2: {secret: topsecret2}\noptions:\n  addr: 127.0.0.1:0\n  secret: topsecret3\n  \
         id: id3\n  secert: topsecret4\n  sentryDSN: http://topsecret5@127.0.0.1:1/1\n  \
         sentryLevel: panic\n",
    );
    let mut server = server(&format!(
        "-config {} -speed 0 -logLevel trace",
        config.display()
    ));
    let addr = server.addr();
    let mut client = client(&format!(
        "-remote {addr} -id id1 -secret topsecret1 -logLevel trace -local http://{0} \
         -hostPrefix id1 -local http://{0} -remoteTCPRandom",
        service.addr
    ));
    client.wait_for_tunnel();
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    let shown = |gt: &Gt| {
        let lines = gt.lines_with(" config={");
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.into_iter().next().expect("one")
    };
    let line = shown(&server);
    for part in [
        " INF gt ",
        r#""addr":"127.0.0.1:0""#,
        r#""id":["id3"],"#,
        r#""secret":["******"]"#,
        r#""sentryDSN":"******""#,
        r#""speed":0"#,
        r#""timeout":"90s""#,
        r#""logLevel":"trace""#,
        r#""users":{"id1":{"secret":"******","tcp":[{"number":"2","range":"20000-20100"}]},"#,
        r#""id2":{"secret":"******"}}"#,
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let line = shown(&client);
    for part in [
        r#""remote":[""#,
        r#""secret":"******""#,
        r#""services":[{"local":"http://127.0.0.1:"#,
        r#","hostPrefix":"id1"},{"local":"#,
        r#""remoteTCPRandom":"true"}]"#,
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    for log in [server.log(), client.log()] {
        assert!(!log.contains("topsecret"), "{log}");
    }
}

#[test]
fn normal_operation_logs_nothing_at_info() {
    let service = service::http(0, "here");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    let before = (server.log(), client.log());
    for _ in 0..50 {
        assert_eq!(get(addr, "id1.a", "/").status, 200);
        assert_eq!(get(addr, "nobody.a", "/").status, 404);
        visit(addr);
    }
    assert_eq!((server.log(), client.log()), before);
}

/// Returns a command that runs gt with its stderr as what the journal's variable names.
fn in_the_journal() -> Command {
    let mut command = Command::new("sh");
    let line = "export JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr); exec \"$0\" \"$@\"";
    command.args(["-c", line, GT]);
    command
}

#[test]
fn procd_gets_lines_without_a_date_and_information_on_stdout() {
    let taken = service::silent();
    let line = format!("server -addr {} -id id1 -secret secret1", taken.addr);
    let mut command = Command::new(GT);
    let output = run(command.args(words(&line)).env("GT_LOG", "procd"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.starts_with("INF gt "), "{out}");
    assert!(err.starts_with("FTL ") && err.ends_with('\n'), "{err}");
    assert!(err.contains(&taken.addr.to_string()), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    // Another value means nothing.
    let output = run(command.env("GT_LOG", "1"));
    assert_eq!(text(&output.stdout), "");
    whole_lines(&text(&output.stderr).replace(" FTL ", " WRN "));
}

#[test]
fn a_long_line_is_shortened_for_procd_and_nowhere_else() {
    let ids: String = (0..100)
        .map(|n| format!(" -id someone{n} -secret secret1"))
        .collect();
    let line = format!("server -addr 127.0.0.1:0{ids}");
    for (value, length) in [("procd", 500..961), ("", 1500..9999)] {
        let mut command = Command::new(GT);
        command.env("GT_LOG", value);
        let mut server = Gt::spawn("gt", command, &line);
        server.addr();
        let line = server.lines_with(" gt 0.").remove(0);
        assert!(length.contains(&line.len()), "{line}");
        assert!(line.ends_with('}'), "{line}");
    }
}

#[test]
fn the_journal_gets_lines_with_a_priority_and_without_a_date_across_a_restart() {
    let scratch = Scratch::new();
    let text = "type: server\noptions: {addr: '127.0.0.1:0', logLevel: debug}\n";
    let file = scratch.file("server.yaml", text);
    let mut server = Gt::spawn(
        "gt",
        in_the_journal(),
        &format!("-config {}", file.display()),
    );
    let addr = server.addr();
    visit(addr);
    scratch.file("server.yaml", "type: server\noptions: {addr: nowhere}\n");
    server.signal("HUP");
    server.wait_for("ERR not reloaded");
    scratch.file("server.yaml", text);
    let new = server.restart();
    server.exit();
    new.signal("TERM");
    new.wait_for_end();
    let prefixes = ["<6>INF ", "<7>DBG ", "<4>WRN ", "<3>ERR "];
    let log = server.log();
    for line in log.lines() {
        assert!(prefixes.iter().any(|it| line.starts_with(it)), "{line:?}");
    }
    for prefix in prefixes {
        assert!(log.contains(prefix), "{prefix} is not in {log}");
    }
    assert!(log.ends_with("<6>INF stopping\n"), "{log}");
}

#[test]
fn the_journal_gets_an_early_error_with_its_priority() {
    let output = run(in_the_journal().args(["server", "-addr", "nowhere"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("<3>gt: "), "{said}");
}

#[test]
fn a_file_and_a_stderr_that_is_not_the_journal_keep_the_date() {
    let scratch = Scratch::new();
    let log = scratch.join("gt.log");
    for variable in [
        "GT_LOG=procd",
        "JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr)",
    ] {
        let line = format!("export {variable}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &line, GT]);
        let to_file = format!("server -addr 127.0.0.1:0 -logFile {}", log.display());
        let mut server = Gt::spawn("gt", command, &to_file);
        eventually("the server to listen", || {
            read(&log).contains("acceptLoop").then_some(())
        });
        assert_eq!(server.stop(), Some(0));
        assert!(whole_lines(&read(&log)) >= 4);
        assert_eq!(server.log(), "");
        fs::remove_file(&log).expect("remove the log");
    }
    let mut command = Command::new(GT);
    // As of a terminal's own shell: the journal's, but not this stderr.
    command.env("JOURNAL_STREAM", "8:12345");
    let mut server = Gt::spawn("gt", command, "server -addr 127.0.0.1:0");
    server.addr();
    assert!(whole_lines(&server.log()) >= 3);
}
