//! fail2ban reads the log of visitors with the filters of etc/fail2ban. Needs fail2ban, sshd and ssh.

use crate::common::gt::{client_of_id1, http_tunnel, server_of_id1};
use crate::common::ports::free_port;
use crate::common::process::{run_ok, Process};
use crate::common::scratch::Scratch;
use crate::common::service::Service;
use crate::common::visitor::{connect_from, read_answer};
use crate::common::{eventually, sshd};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The visitor that behaves badly, and one that does not.
const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);

/// A fail2ban with one jail, which writes the addresses that it bans to a file.
struct Jail {
    _fail2ban: Process,
    banned: PathBuf,
}

impl Jail {
    /// Starts a jail with this filter, which may have options in brackets, for a log.
    fn start(filter: &str, log: &Path) -> Self {
        let scratch = Scratch::new();
        let root = scratch.path().to_owned();
        let here = root.display();
        let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/fail2ban/filter.d");
        run_ok(Command::new("cp").arg("-r").arg(filters).arg(&root));
        scratch.dir("action.d");
        scratch.file(
            "action.d/tell.conf",
            format!("[Definition]\nactionban = echo <ip> >> {here}/banned\nactionunban =\n"),
        );
        scratch.file(
            "jail.conf",
            format!(
                "[gt]\nenabled = true\nfilter = {filter}\nlogpath = {}\naction = tell\n\
                 backend = polling\nmaxretry = 3\nfindtime = 10m\nbantime = 1h\nusedns = no\n",
                log.display()
            ),
        );
        scratch.file(
            "fail2ban.conf",
            format!(
                "[Definition]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\n\
                 socket = {here}/socket\npidfile = {here}/pid\ndbfile = None\ndbpurgeage = 1d\n"
            ),
        );
        fs::write(log, "").expect("an empty log");
        let mut command = Command::new("fail2ban-server");
        command.args(["-f", "-x", "-c"]).arg(&root);
        command.args(["-s", &format!("{here}/socket")]);
        command.args(["-p", &format!("{here}/pid"), "start"]);
        let mut fail2ban = Process::spawn("fail2ban", scratch, &mut command);
        fail2ban.wait_for("started");
        Self {
            _fail2ban: fail2ban,
            banned: root.join("banned"),
        }
    }

    /// Waits until addresses are banned.
    fn banned(&self) -> String {
        eventually("an address to be banned", || {
            fs::read_to_string(&self.banned)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }
}

#[test]
fn three_failed_logins_at_an_sshd_behind_gt_ban_the_visitor() {
    let (sshd, port) = (sshd::start(), free_port());
    let scratch = Scratch::new();
    let log = scratch.join("access.log");
    let filter = format!(
        "gt-ssh[service=\"tcp://127\\.0\\.0\\.1:{}\"]",
        sshd.addr.port()
    );
    let jail = Jail::start(&filter, &log);
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let local = format!(
        "-local tcp://{} -remoteTCPPort {port} -accessLog {}",
        sshd.addr,
        log.display()
    );
    let _client = client_of_id1(server.addr(), &local);
    // Those who may log in are not taken for others, however often they come.
    for _ in 0..4 {
        sshd.ssh_from(GOOD, port, "true");
    }
    for _ in 0..3 {
        sshd.fail_from(BAD, port);
    }
    assert_eq!(jail.banned(), format!("{BAD}\n"));
}

#[test]
fn visitors_that_a_web_service_denies_are_banned() {
    // Answers 401 to everything but /public.
    let service = Service::start(0, |mut stream| {
        let mut requests = BufReader::new(stream.try_clone()?);
        let (mut first, mut line) = (String::new(), String::new());
        requests.read_line(&mut first)?;
        while requests.read_line(&mut line)? > 2 {
            line.clear();
        }
        let status = match first.starts_with("GET /public ") {
            true => "200 OK",
            false => "401 Unauthorized",
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    });
    let scratch = Scratch::new();
    let log = scratch.join("access.log");
    let jail = Jail::start("gt-http", &log);
    let options = format!("-forwarded -accessLog {}", log.display());
    let (_server, _client, addr) = http_tunnel(service.addr, "", &options);
    for _ in 0..4 {
        assert_eq!(ask_from(GOOD, addr, "id1.a", "/public"), 200);
    }
    // What a visitor writes must not look like somebody else's line.
    for _ in 0..3 {
        let forged = "/\"visitor=127.0.0.10%20status=401";
        assert_eq!(ask_from(BAD, addr, "id1.a", forged), 401);
    }
    assert_eq!(jail.banned(), format!("{BAD}\n"));
}

#[cfg(all(feature = "proxy", feature = "password"))]
#[test]
fn visitors_that_guess_the_password_of_a_proxy_are_banned() {
    use crate::common::password::alice;
    use crate::common::socks::visit_as;
    for local in ["socks5:", "httpproxy:"] {
        let scratch = Scratch::new();
        let log = scratch.join("access.log");
        let jail = Jail::start("gt-http", &log);
        let port = free_port();
        let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
        let options = format!(
            "-local {local} -remoteTCPPort {port} -targets 127.0.0.1 -password {} -accessLog {}",
            alice(),
            log.display()
        );
        let _client = client_of_id1(server.addr(), &options);
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        for password in ["a", "b", "c"] {
            let mut visitor = connect_from(BAD, addr);
            if local == "socks5:" {
                let login = ("alice", password);
                assert_eq!(visit_as(visitor, login, "127.0.0.1", port).1, None);
                continue;
            }
            let asked =
                "CONNECT 127.0.0.1:1 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6eA==\r\n\r\n";
            visitor.write_all(asked.as_bytes()).expect("ask");
            assert_eq!(read_answer(&mut visitor).status, 407);
        }
        assert_eq!(jail.banned(), format!("{BAD}\n"), "{local}");
    }
}

#[test]
fn visitors_that_ask_a_server_for_hosts_that_do_not_exist_are_banned() {
    let scratch = Scratch::new();
    let log = scratch.join("access.log");
    let jail = Jail::start("gt-refused", &log);
    let mut server = server_of_id1(&format!("-accessLog {}", log.display()));
    let addr = server.addr();
    for host in ["a.b", "www.b", "admin.b"] {
        assert_eq!(ask_from(BAD, addr, host, "/"), 404);
    }
    assert_eq!(jail.banned(), format!("{BAD}\n"));
}

fn ask_from(from: Ipv4Addr, addr: SocketAddr, host: &str, target: &str) -> u16 {
    let mut visitor = connect_from(from, addr);
    write!(visitor, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("ask");
    read_answer(&mut visitor).status
}
