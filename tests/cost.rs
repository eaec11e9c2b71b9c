//! The cost of gt in system calls. They take most of its time, and their number, unlike the time they
//! take, is the same on every machine.
//!
//! A busy machine only adds calls: whenever gt has nothing to do for a moment, it sleeps and has to
//! be woken. So the best of a few tries counts. The bounds are one and a half times the calls needed.

#![cfg(all(feature = "server", feature = "client"))]

mod common;

use common::gt::{client_of_id1, server_of_id1, Gt};
use common::ports::free_port;
use common::process::Process;
use common::scratch::Scratch;
use common::service::{assert_echo, assert_echo_at, echo, Service};
use common::udp::{UdpService, UdpVisitor};
use common::visitor::connect;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const TRIES: u32 = 5;

/// A server and a client with one TCP service.
struct Tunnel {
    server: Gt,
    client: Gt,
    port: SocketAddr,
    _service: Service,
    _alone: MutexGuard<'static, ()>,
}

/// Held while counting: a concurrent test would take processor time from what is counted.
static ALONE: Mutex<()> = Mutex::new(());

impl Tunnel {
    fn start() -> Self {
        let tunnel = Self::to(echo());
        assert_echo_at(tunnel.port);
        tunnel
    }

    fn to(service: Service) -> Self {
        let local = format!("-local tcp://{} -remoteTCPRandom", service.addr);
        Self::of("-tcpNumber 1 -tcpRange 1024-65535", &local, service)
    }

    fn of(server: &str, client: &str, service: Service) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut server = server_of_id1(server);
        let mut client = client_of_id1(server.addr(), client);
        let port = ([127, 0, 0, 1], client.wait_for_port(0)).into();
        Self {
            server,
            client,
            port,
            _service: service,
            _alone: alone,
        }
    }

    /// Returns how often threads of server and client have waited.
    fn waits(&self) -> u64 {
        let both = [&self.server, &self.client];
        both.iter().flat_map(|gt| gt.waits_of_threads("")).sum()
    }

    /// Returns the system calls of server and client together, by name, during `work`.
    fn calls(&self, work: impl FnOnce()) -> HashMap<String, u32> {
        let scratch = Scratch::new();
        let out = scratch.join("calls");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-c", "-U", "calls,name", "-o"])
            .arg(&out);
        for gt in [&self.server, &self.client] {
            command.args(["-p", &gt.pid().to_string()]);
        }
        let mut strace = Process::spawn("strace", scratch, &mut command);
        strace.wait_for_lines(" attached", 2);
        work();
        strace.signal("INT");
        strace.exit();
        let table = std::fs::read_to_string(out).expect("read what strace counted");
        table
            .lines()
            .filter_map(|line| {
                let (calls, name) = line.trim().split_once(' ')?;
                Some((name.trim().to_owned(), calls.parse().ok()?))
            })
            .collect()
    }

    /// Fails if every try of `work` takes more than `most` calls for each of `times`.
    fn assert_cheap(&self, times: u32, most: f32, work: impl Fn()) {
        let most = |name: &str| (name == "total").then_some(most);
        self.assert_few(times, most, work);
    }

    /// [`Tunnel::assert_cheap`] with bounds for calls by name.
    fn assert_few(&self, times: u32, most: impl Fn(&str) -> Option<f32>, work: impl Fn()) {
        let mut tries = Vec::new();
        for _ in 0..TRIES {
            let calls = self.calls(&work);
            let each = |calls: u32| calls as f32 / times as f32;
            let is_few = |(name, calls): (&String, &u32)| {
                most(name.as_str()).is_none_or(|most| each(*calls) <= most)
            };
            if calls.iter().all(is_few) {
                eprintln!("{} system calls each time", each(calls["total"]));
                return;
            }
            tries.push(calls);
        }
        panic!("more system calls than there may be, for {times} times: {tries:#?}");
    }
}

const MIB: usize = 1024 * 1024;

/// Reads up to the end; returns the number of bytes.
fn take_all(stream: &mut TcpStream) -> usize {
    let mut buf = vec![0; 256 * 1024];
    let mut all = 0;
    loop {
        match stream.read(&mut buf).expect("read") {
            0 => return all,
            n => all += n,
        }
    }
}

fn send_all(stream: &mut TcpStream, mib: usize) {
    // Written like a web server does; the sender must not be slower than the receiver.
    let block = vec![7; 16 * 1024];
    for _ in 0..mib * MIB / block.len() {
        stream.write_all(&block).expect("write");
    }
    stream.shutdown(Shutdown::Write).expect("end it");
}

fn ask(visitor: &mut TcpStream, times: u32) {
    for _ in 0..times {
        assert_echo(visitor, &[7; 100]);
    }
}

#[test]
fn a_request_and_its_answer_are_read_once_and_written_once_at_each_end() {
    const TIMES: u32 = 500;
    let tunnel = Tunnel::start();
    let mut visitor = connect(tunnel.port);
    ask(&mut visitor, 1);
    let calls = tunnel.calls(|| ask(&mut visitor, TIMES));
    // Two ends, two directions, and a few pings.
    for name in ["recvfrom", "sendto"] {
        let calls = calls[name];
        assert!(calls >= 4 * TIMES, "{calls} calls of {name} were counted");
        assert!(calls <= 4 * TIMES + TIMES / 4, "{calls} calls of {name}");
    }
}

#[test]
fn a_single_visitor_costs_little_more_than_reads_and_writes() {
    let tunnel = Tunnel::start();
    tunnel.assert_cheap(500, 20.0, || ask(&mut connect(tunnel.port), 500));
}

#[test]
fn a_request_now_and_then_wakes_each_thread_that_it_passes_and_no_other() {
    const TIMES: u32 = 100;
    // The pauses are the subject: both ends have gone to sleep when the next request comes.
    let ask_seldom = |visitor: &mut TcpStream| {
        for _ in 0..TIMES {
            ask(visitor, 1);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let tunnel = Tunnel::start();
    let mut visitor = connect(tunnel.port);
    ask(&mut visitor, 1);
    // Each end sleeps after the request and after the answer; on a busy machine the next byte may be
    // there before it does.
    let least = (0..TRIES).map(|_| {
        let before = tunnel.waits();
        ask_seldom(&mut visitor);
        (tunnel.waits() - before) as f32 / TIMES as f32
    });
    let least = least.fold(f32::MAX, f32::min);
    assert!(
        (1.0..=4.4).contains(&least),
        "{least} waits for each request"
    );
    // Reads and writes, 4 each, and the 4 waits.
    tunnel.assert_cheap(TIMES, 18.0, || ask_seldom(&mut connect(tunnel.port)));
}

#[test]
fn a_tunnel_without_visitors_wakes_a_few_times_a_minute() {
    let tunnel = Tunnel::start();
    // The first ticks after the last stream.
    std::thread::sleep(Duration::from_secs(12));
    let before = tunnel.waits();
    std::thread::sleep(Duration::from_secs(30));
    let times = tunnel.waits() - before;
    // A ping, its answer, and a look at the clock at each end, at most twice in that time.
    assert!(times <= 10, "{times} times in half a minute");
}

#[test]
fn datagrams_that_come_quickly_one_by_one_share_waits() {
    const EACH: u32 = 10_000;
    let service = UdpService::echo();
    let port = free_port();
    let local = format!(
        "-local tcp://127.0.0.1:9 -remoteTCPRandom -local udp://{} -remoteUDPPort {port}",
        service.addr
    );
    let tunnel = Tunnel::of(
        "-tcpNumber 1 -tcpRange 1024-65535 -udpRange 1024-65535",
        &local,
        echo(),
    );
    let visitor = UdpVisitor::from("127.0.0.1", ([127, 0, 0, 1], port).into());
    visitor.insist(b"is it open?");
    let answers = visitor.0.try_clone().expect("the socket once more");
    let counted = Arc::new(AtomicU32::new(0));
    let counter = counted.clone();
    let counting = std::thread::spawn(move || {
        let mut buf = [0; 100];
        while answers.recv(&mut buf).is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Some 6 000 a second: without intervals, the two ends wait four times for each.
    let fewest = (0..TRIES).map(|_| {
        let (before, answered) = (tunnel.waits(), counted.load(Ordering::Relaxed));
        for _ in 0..EACH {
            visitor.send(&[7; 100]);
            std::thread::sleep(Duration::from_micros(100));
        }
        let answered = counted.load(Ordering::Relaxed) - answered;
        (tunnel.waits() - before) as f32 / answered as f32
    });
    let fewest = fewest.fold(f32::MAX, f32::min);
    visitor
        .0
        .set_read_timeout(Some(Duration::from_millis(1)))
        .expect("a timeout");
    counting.join().expect("count");
    assert!(
        (0.02..=1.5).contains(&fewest),
        "{fewest} waits for each datagram and its answer"
    );
}

#[test]
fn concurrent_visitors_share_waits() {
    let tunnel = Tunnel::start();
    tunnel.assert_cheap(8 * 200, 12.0, || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| ask(&mut connect(tunnel.port), 200));
            }
        });
    });
}

#[test]
fn a_new_connection_costs_little_more_than_open_and_close() {
    let tunnel = Tunnel::start();
    tunnel.assert_cheap(200, 55.0, || {
        for _ in 0..200 {
            assert_echo_at(tunnel.port);
        }
    });
}

#[test]
fn bulk_data_moves_in_large_pieces() {
    const SIZE: usize = 64;
    let most = |name: &str| match name {
        "total" => Some(95.0),
        // Switching to the runtime's reactor takes two of these.
        "epoll_ctl" => Some(1.0),
        _ => None,
    };
    let down = Service::start(0, |mut stream| {
        send_all(&mut stream, SIZE);
        take_all(&mut stream);
        Ok(())
    });
    let tunnel = Tunnel::to(down);
    tunnel.assert_few(SIZE as u32, most, || {
        assert_eq!(take_all(&mut connect(tunnel.port)), SIZE * MIB);
    });
    // The next test waits until this is gone.
    drop(tunnel);
    let up = Service::start(0, |mut stream| {
        let all = take_all(&mut stream);
        stream.write_all(&all.to_string().into_bytes())
    });
    let tunnel = Tunnel::to(up);
    tunnel.assert_few(SIZE as u32, most, || {
        let mut visitor = connect(tunnel.port);
        send_all(&mut visitor, SIZE);
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, (SIZE * MIB).to_string());
    });
}

#[cfg(feature = "quic")]
#[test]
fn the_kernel_joins_and_splits_datagrams_unless_told_not_to() {
    use common::gt::GT;

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let service = echo();
    for (offload, expected) in [(true, [true, true]), (false, [false, false])] {
        let (scratch, port) = (Scratch::new(), free_port());
        let calls = scratch.join("calls");
        let mut server = server_of_id1(&format!(
            "-quicAddr 127.0.0.1:0 -tcpNumber 1 -tcpRange {port}-{port} -udpOffload={offload}"
        ));
        let mut command = Command::new("strace");
        command
            .args(["-D", "-f", "-e", "trace=setsockopt,sendmsg", "-o"])
            .arg(&calls)
            .args([GT, "client"]);
        let line = format!(
            "-remote quic://{} -remoteCertInsecure -id id1 -secret secret1 -local tcp://{} -remoteTCPPort {port} \
             -udpOffload={offload}",
            server.quic_addr(),
            service.addr
        );
        let mut client = Gt::spawn("gt client", command, &line);
        client.wait_for_tunnel();
        let mut visitor = connect(([127, 0, 0, 1], port).into());
        assert_echo(&mut visitor, &vec![7; 1 << 20]);
        let calls = std::fs::read_to_string(&calls).expect("read the calls");
        // Numbers, as strace may not know the names.
        let has = |names: [&str; 2]| names.iter().any(|name| calls.contains(name));
        let found = [
            has(["UDP_GRO", "SOL_UDP, 0x68"]),
            has(["UDP_SEGMENT", "cmsg_type=0x67"]),
        ];
        assert_eq!(found, expected, "udpOffload: {offload}");
    }
}
