//! Bad lines, killed ends, and processes without descriptors: every transfer is complete and
//! correct, or its visitor can see that it failed. None hangs, and what was killed is soon back.
//!
//! `GT_TRANSFERS` is the number of transfers for each wire.

use crate::common;
use crate::common::faults::{spread, Badness, Faults};
use crate::common::gt::{client, client_with_descriptors, server, server_with_descriptors, Gt};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::{connect, get, read_to_end, set_limits};
use crate::common::{eventually, eventually_within, PATIENCE};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The largest transfer, in bytes.
const MOST: usize = 4 << 20;
/// Concurrent transfers.
const VISITORS: usize = 8;
/// The server's timeout.
const TIMEOUT: Duration = Duration::from_secs(6);
/// A transfer that takes longer counts as hanging.
const LIMIT: Duration = Duration::from_secs(90);

/// The data of all transfers. Each byte is compared, so no checksum could detect more.
fn bytes(at: usize, count: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    &BYTES.get_or_init(|| Random::new(4).bytes(2 * MOST))[at..at + count]
}

/// Sends what `GET /AT/COUNT` requests, and answers whether the body of `POST /AT/COUNT` is
/// correct.
fn archive() -> Service {
    Service::start(0, |mut stream| {
        let mut requests = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        requests.read_line(&mut first)?;
        let mut line = String::new();
        while requests.read_line(&mut line)? > 2 {
            line.clear();
        }
        let (mut words, bad) = (first.split([' ', '/']), ErrorKind::InvalidData);
        let method = words.next();
        let mut number = || words.find_map(|word| word.parse::<usize>().ok());
        let (at, count) = number().zip(number()).ok_or(bad)?;
        let right = bytes(at, count);
        let body = if method == Some("POST") {
            let mut came = vec![0; count];
            requests.read_exact(&mut came)?;
            verdict(count, came == right).into_bytes()
        } else {
            right.to_vec()
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&body)?;
        stream.shutdown(Shutdown::Write)?;
        // Closing with unread bytes would be a reset, which may discard the bytes sent.
        requests.read_to_end(&mut Vec::new())?;
        Ok(())
    })
}

fn verdict(count: usize, right: bool) -> String {
    format!("{count} bytes, right: {right}")
}

/// How a transfer ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    /// By a response that says so.
    Told(u16),
    /// By a reset, or the connection failed.
    Broken,
    /// By an end in the middle of a response.
    Short,
    /// By an end without a response.
    Silent,
    Wrong(String),
    Hung,
}

struct Transfer {
    upload: bool,
    at: usize,
    count: usize,
}

impl Transfer {
    fn random(random: &mut Random) -> Transfer {
        let count = match random.below(16) {
            0 => 0,
            _ => spread(random, MOST as u64) as usize,
        };
        Transfer {
            upload: random.below(2) == 0,
            at: random.below(MOST),
            count,
        }
    }

    fn run(&self, to: SocketAddr, host: &str) -> Ended {
        let begun = Instant::now();
        let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) else {
            return Ended::Broken;
        };
        set_limits(&stream);
        let waited = |e: &std::io::Error| e.kind() == ErrorKind::WouldBlock;
        let (method, body) = match self.upload {
            true => ("POST", bytes(self.at, self.count)),
            false => ("GET", &[][..]),
        };
        let head = format!(
            "{method} /{}/{} HTTP/1.1\r\nHost: {host}.example.com\r\nContent-Length: {}\r\n\r\n",
            self.at,
            self.count,
            body.len()
        );
        match stream.write_all(&[head.as_bytes(), body].concat()) {
            Err(e) if waited(&e) => return Ended::Hung,
            // If it was cut, a response may say why.
            _ => {}
        }
        let (mut answer, mut piece) = (Vec::new(), vec![0; 65536]);
        loop {
            match stream.read(&mut piece) {
                Ok(0) if answer.is_empty() => return Ended::Silent,
                Ok(0) => return Ended::Short,
                Ok(n) => answer.extend_from_slice(&piece[..n]),
                Err(e) if waited(&e) => return Ended::Hung,
                Err(_) => return Ended::Broken,
            }
            match self.judge(&answer) {
                Some(ended) => return ended,
                None if begun.elapsed() > LIMIT => return Ended::Hung,
                None => {}
            }
        }
    }

    /// Returns the result if the response so far determines it.
    fn judge(&self, answer: &[u8]) -> Option<Ended> {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let verdict = verdict(self.count, true);
        let right = match self.upload {
            true => verdict.as_bytes(),
            false => bytes(self.at, self.count),
        };
        match status {
            Some(200) if right == body => Some(Ended::Whole),
            Some(200) if right.starts_with(body) => None,
            Some(200) => {
                let same = right.iter().zip(body).take_while(|(a, b)| a == b).count();
                Some(Ended::Wrong(format!(
                    "of {} bytes {} came, {same} of them right",
                    right.len(),
                    body.len()
                )))
            }
            Some(status) => Some(Ended::Told(status)),
            None => Some(Ended::Wrong(format!("{head:?}"))),
        }
    }
}

/// How a visitor reaches the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Host,
    Port,
    /// The line from the visitor to the server is bad, too.
    BadVisitor,
    /// The line from the client to the service is bad, too.
    BadService,
}

/// A server and a client of one wire, with bad lines between them.
struct Rig {
    server: Mutex<Gt>,
    client: Mutex<Gt>,
    for_server: String,
    for_client: String,
    host: SocketAddr,
    port: SocketAddr,
    tunnels: Faults,
    visitors: Faults,
    _services: Faults,
    _archive: Service,
    /// Something was killed and is not known to be back.
    down: AtomicBool,
    /// Number of times that a kill of the server has begun or ended: odd while one is going on.
    kills: AtomicUsize,
}

const BAD: Badness = Badness {
    breaks: 2,
    swallows: 20,
    most: 8 << 20,
};

/// A visitor whose own line swallows bytes cannot be told of a failure.
const TELLING: Badness = Badness { swallows: 0, ..BAD };

impl Rig {
    fn start(wire: u8, seed: u64, delay: &str) -> Rig {
        let archive = archive();
        let (host, port) = (free_port(), free_port());
        let [host, port] = [host, port].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let tunnels = Faults::start(host, seed, BAD);
        tunnels.be_calm(true);
        let services = Faults::start(archive.addr, seed + 1, BAD);
        // In GT/1 a server cannot ask a client whose stream is one-way whether it is alive.
        let unidirectional = match wire {
            1 => "-timeoutOnUnidirectionalTraffic",
            _ => "",
        };
        let for_server = format!(
            "-addr {host} -id id1 -secret secret1 -hostNumber 2 -timeout {}s {unidirectional} \
             -tcpNumber 1 -tcpRange {}",
            TIMEOUT.as_secs(),
            port.port()
        );
        let for_client = format!(
            "-remote tcp://{} -id id1 -secret secret1 -wire {wire} -reconnectDelay {delay} \
             -remoteTimeout 3s -local http://{near} -hostPrefix near \
             -local http://{} -hostPrefix far -local tcp://{near} -remoteTCPPort {}",
            tunnels.addr,
            services.addr,
            port.port(),
            near = archive.addr
        );
        let rig = Rig {
            server: Mutex::new(server(&for_server)),
            client: Mutex::new(client(&for_client)),
            for_server,
            for_client,
            host,
            port,
            tunnels,
            visitors: Faults::start(host, seed + 2, TELLING),
            _services: services,
            _archive: archive,
            down: AtomicBool::new(false),
            kills: AtomicUsize::new(0),
        };
        rig.come_back();
        rig
    }

    /// One transfer, and what its visitor sees of it. The error is what must not happen.
    fn transfer(&self, number: usize, random: &mut Random) -> Result<Ended, String> {
        let way = [Way::Host, Way::Port, Way::BadVisitor, Way::BadService][random.below(4)];
        let transfer = Transfer::random(random);
        let (to, prefix) = match way {
            Way::Host => (self.host, "near"),
            Way::Port => (self.port, "any"),
            Way::BadVisitor => (self.visitors.addr, "near"),
            Way::BadService => (self.host, "far"),
        };
        let (kills, down) = (self.kills.load(SeqCst), self.down.load(SeqCst));
        let begun = Instant::now();
        let ended = transfer.run(to, prefix);
        let took = begun.elapsed();
        // The server measures in tenths of a second.
        let timed_out = took + Duration::from_millis(200) >= TIMEOUT;
        let killed = kills % 2 == 1 || self.kills.load(SeqCst) > kills;
        let visible = match &ended {
            Ended::Whole | Ended::Broken | Ended::Told(502..=504) => true,
            // A new server does not know the client yet.
            Ended::Told(404) => killed || down,
            Ended::Told(_) => way == Way::BadVisitor,
            // The length reveals it. But a lost tunnel must not look like an end: only a visitor
            // whose own connection ended or timed out may see one.
            Ended::Short => killed || timed_out || !matches!(way, Way::Host | Way::Port),
            // HTTP has responses for that.
            Ended::Silent => killed || timed_out || way != Way::Host,
            Ended::Wrong(_) | Ended::Hung => false,
        };
        if visible {
            return Ok(ended);
        }
        let direction = if transfer.upload { "up" } else { "down" };
        Err(format!(
            "transfer {number}, {} bytes {direction} by {way:?}: {ended:?} after {took:?}",
            transfer.count
        ))
    }

    /// Kills one end and starts it again.
    fn kill(&self, the_server: bool) {
        // Recovery is tested without the effects of a bad line.
        self.tunnels.be_calm(true);
        self.down.store(true, SeqCst);
        if the_server {
            self.kills.fetch_add(1, SeqCst);
            let mut old = self.server.lock().unwrap();
            old.kill();
            self.kills.fetch_add(1, SeqCst);
            *old = server(&self.for_server);
            old.addr();
        } else {
            let mut old = self.client.lock().unwrap();
            old.kill();
            *old = client(&self.for_client);
        }
    }

    /// Waits until the service is there again.
    fn come_back(&self) {
        // The client's wait doubles with every tunnel that was lost at once, up to a minute.
        eventually_within(4 * PATIENCE, "the service to be back", || {
            let small = Transfer {
                upload: false,
                at: 0,
                count: 10,
            };
            let there = [self.host, self.port].map(|to| small.run(to, "near"));
            (there == [Ended::Whole, Ended::Whole]).then_some(())
        });
        self.down.store(false, SeqCst);
    }
}

fn suffer(wire: u8) {
    let wanted = std::env::var("GT_TRANSFERS").map(|count| count.parse());
    let wanted: usize = wanted.unwrap_or(Ok(500)).expect("GT_TRANSFERS is a number");
    let rig = Rig::start(wire, u64::from(wire), "100ms");
    rig.tunnels.be_calm(false);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tally = Mutex::new(BTreeMap::<String, usize>::new());
    let mistakes = Mutex::new(Vec::new());
    let mut killed = [0, 0];
    std::thread::scope(|scope| {
        for _ in 0..VISITORS {
            scope.spawn(|| loop {
                let number = next.fetch_add(1, SeqCst);
                if number >= wanted {
                    return;
                }
                let mut random = Random::new(number as u64 * 2 + u64::from(wire));
                for _ in 0..8 {
                    random.number();
                }
                let ended = rig.transfer(number, &mut random);
                let failed = ended != Ok(Ended::Whole);
                match ended {
                    Ok(ended) => {
                        *tally
                            .lock()
                            .unwrap()
                            .entry(format!("{ended:?}"))
                            .or_default() += 1
                    }
                    Err(mistake) => mistakes.lock().unwrap().push(mistake),
                }
                done.fetch_add(1, SeqCst);
                // Otherwise all of them would fail against the missing server.
                while failed && rig.down.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let mut random = Random::new(u64::from(wire) + 100);
        loop {
            let goal = done.load(SeqCst) + 5 + random.below(40);
            if goal >= wanted {
                return;
            }
            eventually_within(4 * LIMIT, "transfers to go on", || {
                (done.load(SeqCst) >= goal).then_some(())
            });
            let the_server = random.below(2) == 0;
            killed[usize::from(the_server)] += 1;
            rig.kill(the_server);
            rig.come_back();
            rig.tunnels.be_calm(false);
        }
    });
    let (tally, mistakes) = (tally.into_inner().unwrap(), mistakes.into_inner().unwrap());
    let whole = tally.get("Whole").copied().unwrap_or_default();
    let failed = tally.values().sum::<usize>() - whole;
    let mut told = String::new();
    let _ = write!(
        told,
        "wire {wire}: {whole} whole, {failed} failed visibly ({tally:?}), {} wrong or hung; \
         {} clients and {} servers killed, {} connections of tunnels, of these {:?} reset, cut, \
         swallowed",
        mistakes.len(),
        killed[0],
        killed[1],
        rig.tunnels.accepted(),
        rig.tunnels.faults()
    );
    eprintln!("{told}");
    assert!(mistakes.is_empty(), "{told}\n{}", mistakes.join("\n"));
    assert!(rig.tunnels.faults().iter().sum::<usize>() > 0, "{told}");
    assert!(whole > wanted / 2, "{told}");
}

#[test]
fn gt_1_transfers_on_a_bad_line_are_correct_or_fail_visibly() {
    suffer(1);
}

#[test]
fn gt_2_transfers_on_a_bad_line_are_correct_or_fail_visibly() {
    suffer(2);
}

/// Checks the waits that the client logs, and that the first attempt after the port is free
/// succeeds; time is not measured.
fn a_kill_costs_one_wait(wire: u8) {
    const DELAY: f32 = 2.0;
    let rig = Rig::start(wire, 0, "2s");
    for the_server in [true, false, true, true] {
        // A tunnel that is lost at once counts as a failure: it makes the next wait longer.
        let (tries, begun) = (rig.tunnels.accepted(), Instant::now());
        eventually("the tunnel to last", || {
            (begun.elapsed() > Duration::from_millis(1500)).then_some(())
        });
        assert_eq!(rig.tunnels.accepted(), tries, "it stays");
        let opened = rig.server.lock().unwrap().opened();
        let waited = rig.client.lock().unwrap().waits();
        rig.kill(the_server);
        let tries = rig.tunnels.accepted();
        // A new client has logged nothing before.
        let (opened, waited) = match the_server {
            true => (0, waited.len()),
            false => (opened.len(), 0),
        };
        let mut server = rig.server.lock().unwrap();
        server.wait_for_opened(opened + 1);
        let tried = rig.tunnels.accepted() - tries;
        assert!(tried <= 1, "the first of {tried} tries is enough");
        drop(server);
        rig.come_back();
        for (n, wait) in rig.client.lock().unwrap().waits()[waited..]
            .iter()
            .enumerate()
        {
            let most = DELAY * (1 << n) as f32;
            assert!(*wait <= most, "it waits {wait} s, and may wait {most} s");
        }
    }
}

#[test]
fn a_kill_costs_no_more_than_the_reconnect_delay_with_gt_1() {
    a_kill_costs_one_wait(1);
}

#[test]
fn a_kill_costs_no_more_than_the_reconnect_delay_with_gt_2() {
    a_kill_costs_one_wait(2);
}

#[test]
fn a_server_without_descriptors_retries_five_times_a_second() {
    const MOST: usize = 40;
    let mut server = server_with_descriptors(
        MOST,
        "-addr 127.0.0.1:0 -apiAddr 127.0.0.1:0 -id id1 -secret secret1",
    );
    let (addr, api) = (server.addr(), server.api_addr());
    let begun = Instant::now();
    let visitors: Vec<_> = (0..MOST + 5).map(|_| connect(addr)).collect();
    server.wait_for_failed_accept(addr);
    let exhausted = Instant::now();
    eventually("it to have had time to spin", || {
        (exhausted.elapsed() > Duration::from_secs(2)).then_some(())
    });
    drop(visitors);
    let page = eventually("the API to be served again", || {
        let mut stream = TcpStream::connect(api).ok()?;
        set_limits(&stream);
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let page = String::from_utf8(read_to_end(&mut stream)).expect("text");
        page.contains("gt_errors_total").then_some(page)
    });
    let most = begun.elapsed().as_millis() / 200 + 1;
    let failures = page
        .lines()
        .find_map(|line| line.strip_prefix("gt_errors_total{kind=\"accept\"} "))
        .and_then(|number| number.parse::<u128>().ok())
        .unwrap_or_else(|| panic!("no number of failures in {page}"));
    // Both listeners may have tried.
    assert!((1..=2 * most).contains(&failures), "{failures} of {most}");
}

#[test]
fn a_client_without_descriptors_logs_it_and_recovers() {
    const MOST: usize = 40;
    let (echo, page) = (service::echo(), service::http(0, "here"));
    let port = free_port();
    let mut server = common::gt::server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let mut client = client_with_descriptors(
        MOST,
        &format!(
            "-remote tcp://{addr} -id id1 -secret secret1 -remoteConnections 1 \
             -local http://{} -local tcp://{} -remoteTCPPort {port}",
            page.addr, echo.addr
        ),
    );
    client.wait_for_tunnel();
    // Each holds one of the client's descriptors, as long as there are any.
    let mut visitors: Vec<TcpStream> = Vec::new();
    while client.free_fds(MOST) > 0 {
        let mut visitor = connect(([127, 0, 0, 1], port).into());
        assert_echo(&mut visitor, b"here");
        visitors.push(visitor);
    }
    let refused = get(addr, "id1.a", "/");
    assert_eq!(refused.status, 502, "{}", refused.text());
    client.wait_for("Too many open files");
    let mut one_more = connect(([127, 0, 0, 1], port).into());
    assert_eq!(read_to_end(&mut one_more), b"", "there is an end");
    // Existing visitors do not notice.
    for visitor in &mut visitors {
        assert_echo(visitor, b"still here");
    }
    drop(visitors);
    eventually("the service to be reached again", || {
        (get(addr, "id1.a", "/").status == 200).then_some(())
    });
    assert_eq!(client.tunnels(), 1);
    assert!(client.has_ended().is_none());
}

#[test]
fn too_few_descriptors_are_an_error_and_not_a_panic() {
    for most in [8, 12, 31] {
        for mut gt in [
            server_with_descriptors(most, "-addr 127.0.0.1:0 -apiAddr 127.0.0.1:0"),
            client_with_descriptors(
                most,
                "-remote 127.0.0.1:1 -id id1 -local http://127.0.0.1:1 -logFile gt.log",
            ),
        ] {
            assert_eq!(gt.exit().code(), Some(1));
            let log = gt.log();
            let why = format!("gt: this process may have {most} open files, and gt needs 32");
            assert!(log.starts_with(&why), "{log}");
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}
