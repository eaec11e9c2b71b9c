//! What is reported to Sentry, and that reporting blocks nothing.

use crate::common::gt::{client, server, Gt, GT};
use crate::common::ports::free_port;
use crate::common::process::run;
use crate::common::service::{self, Service};
use crate::common::visitor::{ask, get};
use crate::common::{eventually, sentry, words};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Runs `gt` with these arguments and without the environment's proxy, to its end.
fn gt(line: &str) -> Output {
    run(Command::new(GT)
        .args(words(line))
        .env("NO_PROXY", "*")
        .env("no_proxy", "*"))
}

/// Returns command lines that end each role with an error, and the error.
fn ending(taken: &service::Service) -> [(String, String); 2] {
    let addr = taken.addr.to_string();
    let server = format!("server -addr {addr} -id id1 -secret topsecret");
    let client = "client -remote tls://h -remoteCert /missing.crt -local http://h -id id1 \
                  -secret topsecret";
    [(server, addr), (client.to_owned(), "/missing.crt".into())]
}

#[test]
fn an_error_that_ends_gt_is_reported_before_it_ends() {
    for (line, why) in ending(&service::silent()) {
        let sentry = sentry::start();
        let output = gt(&format!(
            "{line} -sentryDSN {} -sentryEnvironment garden -sentryRelease gt@7 \
             -sentryServerName gate",
            sentry.dsn()
        ));
        assert_eq!(output.status.code(), Some(1));
        let requests = sentry.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let event = &requests[0];
        assert!(event.starts_with("POST /api/42/envelope/ HTTP/1.1\r\n"));
        for part in [
            r#""level":"fatal""#,
            r#""environment":"garden""#,
            r#""release":"gt@7""#,
            r#""server_name":"gate""#,
            &why,
        ] {
            assert!(event.contains(part), "{part} is not in {event}");
        }
        assert!(!event.contains("topsecret"), "{event}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(" FTL "), "{said}");
        assert!(!said.contains("dsnkey"), "{said}");
        assert!(!said.contains("[sentry]"), "nobody has asked: {said}");
    }
}

#[test]
fn sentry_debug_logs_what_the_sentry_client_does() {
    for (line, _) in ending(&service::silent()) {
        let sentry = sentry::start();
        let output = gt(&format!("{line} -sentryDebug -sentryDSN {}", sentry.dsn()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = said.lines().filter(|line| line.starts_with("[sentry] "));
        assert!(lines.count() > 0, "{said}");
        assert!(
            !said.contains("dsnkey") && !said.contains("topsecret"),
            "{said}"
        );
    }
}

#[test]
fn the_release_is_the_version_unless_it_is_given() {
    let sentry = sentry::start();
    let taken = service::silent();
    gt(&format!(
        "server -addr {} -sentryDSN {}",
        taken.addr,
        sentry.dsn()
    ));
    let version = String::from_utf8(gt("-version").stdout).expect("a version");
    let release = format!(r#""release":"{}""#, version.trim_end());
    assert!(sentry.requests()[0].contains(&release), "{release}");
}

#[test]
fn only_the_configured_levels_are_reported() {
    let nobody = free_port();
    let line = format!("-remote 127.0.0.1:{nobody} -id id1 -secret topsecret -local tcp://[::1]:1");
    let (all, usual) = (sentry::start(), sentry::start());
    let mut all_told = client(&format!(
        "{line} -sentryDSN {} -sentryLevel info -sentryLevel warn -logLevel disable",
        all.dsn()
    ));
    let mut usually = client(&format!("{line} -sentryDSN {}", usual.dsn()));
    let warning = all.wait_for("cannot reach the server");
    assert!(warning.contains(r#""level":"warning""#), "{warning}");
    let info = all.wait_for("remote url");
    assert!(info.contains(r#""level":"info""#), "{info}");
    // The line with the configuration is one of them.
    for event in all.requests() {
        let body = event.split_once("\r\n\r\n").expect("a body").1;
        let item = body.split_once('\n').expect("an item").1;
        assert!(
            !item.contains("topsecret") && !item.contains("dsnkey"),
            "{item}"
        );
    }
    usually.wait_for("cannot reach the server");
    assert_eq!((usually.stop(), all_told.stop()), (Some(0), Some(0)));
    assert_eq!(usual.connections(), 0);
    assert_eq!(all_told.log(), "", "the log itself is silent");
}

#[test]
fn a_server_reports_the_configured_levels() {
    let sentry = sentry::start();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut server = server(&format!(
        "-addr {addr} -logLevel disable -sentryLevel warn -sentryDSN {}",
        sentry.dsn()
    ));
    let warning = sentry.wait_for("-allowAnyClient mode");
    assert!(warning.contains(r#""level":"warning""#), "{warning}");
    // Only a server that runs drains at SIGTERM; one that starts ends at once.
    eventually("a listener", || TcpStream::connect(addr).ok());
    assert_eq!(get(addr, "unknown.example.com", "/").status, 404);
    assert_eq!(server.stop(), Some(0));
    let requests = sentry.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
}

#[test]
fn a_sample_rate_of_0_reports_nothing() {
    for (line, _) in ending(&service::silent()) {
        let sentry = sentry::start();
        let output = gt(&format!(
            "{line} -sentrySampleRate 0 -sentryDSN {}",
            sentry.dsn()
        ));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(sentry.connections(), 0);
    }
}

#[test]
fn without_a_dsn_sentry_does_not_run() {
    let sentry = sentry::start();
    let mut command = Command::new(GT);
    // The variable that Sentry's own client would read.
    command.env("SENTRY_DSN", sentry.dsn());
    let line = "server -addr 127.0.0.1:0 -sentryLevel info -sentryDebug";
    let mut gt = Gt::spawn("gt", command, line);
    gt.addr();
    let threads = gt.threads();
    assert!(
        !threads.iter().any(|it| it.contains("sentry")),
        "{threads:?}"
    );
    gt.signal("TERM");
    assert_eq!(gt.exit().code(), Some(0));
    assert_eq!(sentry.connections(), 0);
}

#[test]
fn a_hanging_sentry_blocks_neither_visitors_nor_the_exit() {
    let connections: Arc<AtomicUsize> = Arc::default();
    let counted = connections.clone();
    let hanging = Service::start(0, move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    });
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -logLevel debug -sentryLevel debug -sentryDSN http://dsnkey@{}/1",
        hanging.addr
    ));
    let addr = server.addr();
    // Many times the capacity of its queue.
    for _ in 0..200 {
        assert_eq!(ask(addr, "GET / HTTP/1.1\r\n\r\n").status, 400);
    }
    assert_eq!(get(addr, "nobody.a", "/").status, 404);
    assert_eq!(server.stop(), Some(0));
    // Even the first report, which takes 15 seconds to fail, has not been given up yet.
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn an_invalid_dsn_is_refused_and_not_repeated() {
    for dsn in [
        "dsnkey@h/1",
        "https://dsnkey/1",
        "https://dsnkey@h",
        "ftp://dsnkey@h/1",
    ] {
        let output = gt(&format!("server -addr 127.0.0.1:0 -sentryDSN {dsn}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("-sentryDSN") && said.contains("https://key@host"),
            "{said}"
        );
        assert!(!said.contains("dsnkey"), "{said}");
    }
}

/// Not a test by itself: the process that panics for the next test.
#[test]
fn panicking() {
    let Ok(dsn) = std::env::var("GT_TEST_PANIC_DSN") else {
        return;
    };
    let argv = ["gt", "server", "-addr", "127.0.0.1:0", "-sentryDSN", &dsn];
    let Ok(gt::cli::Command::Run(roles)) = gt::cli::parse(&argv.map(str::to_owned)) else {
        panic!("these are good flags");
    };
    let _guard = gt::logging::start(&roles).expect("a log");
    let task = async_std::task::spawn(async { panic!("boom\nin a task") });
    // Awaiting a task that panicked panics too.
    let waiting = std::panic::AssertUnwindSafe(|| async_std::task::block_on(task));
    assert!(std::panic::catch_unwind(waiting).is_err());
    assert_eq!(async_std::task::block_on(async { 1 }), 1);
}

#[test]
fn a_panic_in_a_task_is_logged_and_reported_as_fatal() {
    let sentry = sentry::start();
    let this = std::env::current_exe().expect("this program");
    let output = run(Command::new(this)
        .args(["--exact", "sentry::panicking", "--nocapture"])
        .env("GT_TEST_PANIC_DSN", sentry.dsn())
        .env("NO_PROXY", "*"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("boom"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains(" PNC panicked at tests/server/sentry.rs:"),
        "{line}"
    );
    assert!(line.ends_with("boom\\nin a task"), "{line}");
    let event = eventually("an event", || sentry.requests().pop());
    assert!(event.contains(r#""level":"fatal""#), "{event}");
    assert!(event.contains("boom"), "{event}");
}
