//! Failures of machines and networks: names that do not resolve for a while, another address on the
//! WAN, suspended machines, clock jumps. Needs root, ip, curl and faketime.

use crate::common;
use crate::common::gt::{client_of_id1, server, server_of_id1, tcp_tunnel, Gt, GT};
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::ports::free_port;
use crate::common::process::{run, run_ok};
use crate::common::scratch::Scratch;
use crate::common::visitor::{connect, get, set_limits};
use crate::common::{eventually, service};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a name server answers for every name.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    /// A response code (RFC 1035, section 4.1.1).
    Failure(u8),
    Address(Ipv4Addr),
}

const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;

struct NameServer {
    says: Arc<Mutex<Says>>,
    /// The system's configuration that names this server.
    scratch: Scratch,
}

impl NameServer {
    /// Starts a name server; `None` if the system does not permit it.
    fn start() -> Option<NameServer> {
        // Each has its own address, since tests may run at the same time.
        static NEXT: AtomicU8 = AtomicU8::new(53);
        let [.., high, low] = std::process::id().to_be_bytes();
        let net = NEXT.fetch_add(1, Ordering::Relaxed);
        let ip = Ipv4Addr::new(127, net, high, low.clamp(1, 254));
        let probe = run(Command::new("unshare").args(["-m", "true"]));
        let socket = match UdpSocket::bind((ip, 53)) {
            Ok(socket) if probe.status.success() => socket,
            bound => {
                eprintln!("skipped: no name server of its own: {bound:?}, {probe:?}");
                return None;
            }
        };
        let says = Arc::new(Mutex::new(Says::Nothing));
        let told = says.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, whom)) = socket.recv_from(&mut query) {
                let says = *told.lock().unwrap();
                if let Some(answer) = answer(&query[..length], says) {
                    let _ = socket.send_to(&answer, whom);
                }
            }
        });
        let scratch = Scratch::new();
        let text = format!("nameserver {ip}\noptions timeout:1 attempts:1\n");
        scratch.file("resolv.conf", text);
        Some(NameServer { says, scratch })
    }

    fn say(&self, what: Says) {
        *self.says.lock().unwrap() = what;
    }

    /// Starts a client that uses this name server.
    fn client(&self, line: &str) -> Gt {
        let mut command = Command::new("unshare");
        let mounted = format!(
            "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
            self.scratch.join("resolv.conf").display()
        );
        command.args(["-m", "sh", "-c", &mounted, GT, "client"]);
        Gt::spawn("gt client", command, line)
    }
}

/// Builds the response to a query with one question.
fn answer(query: &[u8], says: Says) -> Option<Vec<u8>> {
    let name = query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(12..12 + name + 5)?;
    let wants_ipv4 = question[name + 1..].starts_with(&[0, 1]);
    let (code, address) = match says {
        Says::Nothing => return None,
        Says::Failure(code) => (code, None),
        // It has no IPv6.
        Says::Address(ip) => (0, wants_ipv4.then_some(ip)),
    };
    let answers = u8::from(address.is_some());
    let mut bytes = query[..2].to_vec();
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    bytes.extend(question);
    if let Some(ip) = address {
        // The name of the question, A, IN, TTL 0, four bytes.
        bytes.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        bytes.extend(ip.octets());
    }
    Some(bytes)
}

/// Waits; only for tests that need time to pass.
fn wait_until(then: Instant) {
    eventually("time to pass", || (Instant::now() >= then).then_some(()));
}

#[test]
fn a_name_is_looked_up_again_for_every_attempt() {
    let Some(names) = NameServer::start() else {
        return;
    };
    let page = service::http(0, "here");
    let port = free_port();
    let of = |ip: Ipv4Addr| server(&format!("-addr {ip}:{port} -id id1 -secret secret1"));
    let served = |ip: Ipv4Addr| {
        assert_eq!(get((ip, port).into(), "id1.a", "/").status, 200);
    };
    // A tunnel that is lost at once counts as a failure: it makes the next wait longer.
    let last = || wait_until(Instant::now() + Duration::from_millis(1500));
    let mut client = names.client(&format!(
        "-remote tcp://server.test:{port} -id id1 -secret secret1 -reconnectDelay 100ms \
         -local http://{}",
        page.addr
    ));
    const FAILED: &str = "cannot reach the server: looking up server.test: ";
    let fails = |client: &mut Gt, says: Says| {
        names.say(says);
        // One attempt may have been in progress.
        let failed = client.lines_with(FAILED).len();
        client.wait_for_lines(FAILED, failed + 2);
    };
    for says in [
        Says::Nothing,
        Says::Failure(SERVER_FAILURE),
        Says::Failure(NAME_ERROR),
    ] {
        fails(&mut client, says);
    }
    let (one, two) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let mut first = of(one);
    first.addr();
    names.say(Says::Address(one));
    client.wait_for_tunnel();
    served(one);

    // The server moves.
    last();
    let mut second = of(two);
    second.addr();
    names.say(Says::Address(two));
    first.kill();
    client.wait_for_tunnels(2);
    served(two);

    // The name server fails only now.
    last();
    names.say(Says::Failure(SERVER_FAILURE));
    second.kill();
    fails(&mut client, Says::Nothing);
    let mut third = of(one);
    third.addr();
    names.say(Says::Address(one));
    client.wait_for_tunnels(3);
    served(one);
}

/// The client's router gets another address of either family, and so does one before the client.
#[test]
fn tunnels_reconnect_after_a_change_of_the_wan_address() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let internet = Internet::new(Nat::PortRestricted, Nat::PortRestricted);
    let (middle, router) = (internet.place("middle"), internet.place("router-a"));
    let ip = |place: &str, words: &str| {
        let words = words.split(' ');
        run_ok(Command::new("ip").args(["-n", place]).args(words));
    };
    ip(&middle, "addr add 2001:db8:113::1/64 dev to-a nodad");
    ip(&router, "addr add 2001:db8:113::2/64 dev wan nodad");
    let home = Scratch::new();
    home.file("page", "here");
    let mut server = Gt::within(
        &middle,
        "server -addr :8080 -id id1 -secret secret1 -timeout 3s",
    );
    server.addr();
    let served = || {
        let mut curl = Command::new("ip");
        curl.args(["netns", "exec", &middle, "curl", "-sS", "-m", "10"]);
        curl.args(["-H", "Host: id1.a", "http://127.0.0.1:8080/page"]);
        (run(&mut curl).stdout == b"here").then_some(())
    };
    for (place, remote, net, old, new) in [
        ("router-a", MIDDLE, "24", "203.0.113.2", "203.0.113.77"),
        (
            "router-a",
            "[2001:db8:113::1]",
            "64",
            "2001:db8:113::2",
            "2001:db8:113::77",
        ),
        ("home-a", MIDDLE, "24", "203.0.113.77", "203.0.113.78"),
    ] {
        let mut client = Gt::within(
            &internet.place(place),
            &format!(
                "client -remote tcp://{remote}:8080 -id id1 -secret secret1 -remoteTimeout 1s \
                 -reconnectDelay 100ms -local file://{}",
                home.path().display()
            ),
        );
        client.wait_for_tunnel();
        eventually("the page", served);
        // With the following character, which distinguishes an address from a longer one.
        let [old_end, new_end] = [old, new].map(|ip| format!("{ip}]:"));
        let opened = |server: &Gt, end: &str| {
            let lines = server.opened();
            lines.iter().filter(|line| line.contains(end)).count()
        };
        assert!(opened(&server, &old_end) > 0, "{}", server.log());
        assert_eq!(opened(&server, &new_end), 0);
        ip(&router, &format!("addr del {old}/{net} dev wan"));
        let nodad = if net == "64" { " nodad" } else { "" };
        ip(&router, &format!("addr add {new}/{net} dev wan{nodad}"));
        if net == "24" {
            // The route went with the address.
            ip(&router, &format!("route add default via {MIDDLE}"));
        }
        client.wait_for_tunnels(2);
        eventually("a tunnel from the new address", || {
            (opened(&server, &new_end) > 0).then_some(())
        });
        // The server may not know yet that the old tunnel is dead.
        eventually("the page by the new address", served);
        client.kill();
        let all = opened(&server, "");
        server.wait_for_closed(all);
    }
}

/// Starts a server and a client that notice silence within seconds.
fn nervous(at: SocketAddr) -> (Gt, Gt) {
    let mut server = server_of_id1("-timeout 3s");
    let local = format!("-remoteTimeout 1s -reconnectDelay 100ms -local http://{at}");
    let client = client_of_id1(server.addr(), &local);
    (server, client)
}

#[test]
fn a_suspended_client_reconnects() {
    let page = service::http(0, "here");
    let (mut server, mut client) = nervous(page.addr);
    let addr = server.addr();
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    client.signal("STOP");
    let closed = server.wait_for_closed(1).remove(0);
    assert!(closed.contains("nothing was heard"), "{closed}");
    client.signal("CONT");
    client.wait_for_tunnels(2);
    assert_eq!(get(addr, "id1.a", "/").status, 200);
}

#[test]
fn a_suspended_server_is_found_again_and_serves_waiting_visitors() {
    let page = service::http(0, "here");
    let (mut server, mut client) = nervous(page.addr);
    let addr = server.addr();
    server.signal("STOP");
    client.wait_for("nothing was received from the server for");
    // The kernel accepts the visitor, and the client's attempts.
    let mut visitor = connect(addr);
    let request = "GET / HTTP/1.1\r\nHost: id1.a\r\nConnection: close\r\n\r\n";
    visitor.write_all(request.as_bytes()).expect("send");
    client.wait_for_failure();
    server.signal("CONT");
    client.wait_for_tunnels(2);
    let answer = common::visitor::read_answer(&mut visitor);
    assert!([200, 502, 503].contains(&answer.status), "{answer:?}");
    // Abandoned attempts are tunnels for a moment.
    eventually("the service to be there", || {
        (get(addr, "id1.a", "/").status == 200).then_some(())
    });
}

#[test]
fn a_transfer_with_both_ends_suspended_goes_on_or_fails_visibly() {
    let bytes = Arc::new(common::samples::Random::new(1).bytes(32 << 20));
    let source = service::source(bytes.clone());
    let soon = "-remoteTimeout 1s -reconnectDelay 100ms";
    let (mut server, mut client, at) = tcp_tunnel(source.addr, "-timeout 3s", soon);
    let mut visitor = connect(at);
    let mut came = common::visitor::read(&mut visitor, 100_000);
    server.signal("STOP");
    client.signal("STOP");
    // No process is awake that could end the wait.
    wait_until(Instant::now() + Duration::from_secs(5));
    client.signal("CONT");
    server.signal("CONT");
    let end = visitor.read_to_end(&mut came);
    assert!(bytes.starts_with(&came), "wrong bytes");
    match end {
        Ok(_) => assert_eq!(came.len(), bytes.len(), "an end that is none"),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
    }
    eventually("the service to be there", || {
        let mut visitor = TcpStream::connect(at).ok()?;
        set_limits(&visitor);
        let mut came = Vec::new();
        visitor.read_to_end(&mut came).ok()?;
        (came == *bytes).then_some(())
    });
    assert!(client.has_ended().is_none() && server.has_ended().is_none());
}

/// Starts a gt whose clock is wrong by the number of seconds in the file.
fn with_date(file: &Path, role: &str, line: &str) -> Gt {
    let library = run_ok(Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]));
    let mut command = Command::new(GT);
    command
        .arg(role)
        .env("LD_PRELOAD", library.trim())
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        // The monotonic clock, which timers use, does not jump.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Gt::spawn(&format!("gt {role}"), command, line)
}

#[test]
fn setting_the_clock_breaks_nothing() {
    let page = service::http(0, "here");
    let scratch = Scratch::new();
    let [of_server, of_client] = ["server", "client"].map(|name| scratch.file(name, "+0"));
    let mut server = with_date(
        &of_server,
        "server",
        "-addr 127.0.0.1:0 -id id1 -secret secret1",
    );
    let addr = server.addr();
    let mut client = with_date(
        &of_client,
        "client",
        &format!(
            "-remote tcp://{addr} -id id1 -secret secret1 -reconnectDelay 100ms -local http://{}",
            page.addr
        ),
    );
    client.wait_for_tunnel();
    for (whose, seconds) in [
        ("server", "+86400"),
        ("client", "+86400"),
        ("client", "-86400"),
        ("server", "-86400"),
    ] {
        // A half-written file must not be read.
        let draft = scratch.file("draft", seconds);
        std::fs::rename(draft, scratch.join(whose)).expect("set the date");
        assert_eq!(get(addr, "id1.a", "/").status, 200);
    }
    let (begun, before) = (Instant::now(), server.work() + client.work());
    wait_until(begun + Duration::from_secs(2));
    let work = (server.work() + client.work() - before) as f32 / 100.0;
    assert!(work < 0.5 * begun.elapsed().as_secs_f32(), "{work} s");
    assert_eq!(client.tunnels(), 1);
}
