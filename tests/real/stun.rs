//! `-stunAddr` answers every request with its source address for as long as the server runs, and
//! cannot be abused.

use crate::common::gt::{gt, server, Gt};
use crate::common::ports::free_port;
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::visitor::get;
use crate::common::{eventually, words, PATIENCE};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

const SERVER: &str = "-addr 127.0.0.1:0 -allowAnyClient";
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Builds a binding request with these attributes; `id` is the first byte of its transaction.
fn request(id: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(attributes.len()).expect("a short request");
    let head = [0x00, 0x01, 0x00, length];
    [&head, &COOKIE, &[id; 12][..], attributes].concat()
}

/// Parses the address in the answer to `request(id, …)`.
fn told(id: u8, answer: &[u8]) -> SocketAddr {
    let xor = [&COOKIE[..], &[id; 12]].concat();
    assert_eq!(answer[..2], [0x01, 0x01], "{answer:?}");
    assert_eq!(answer[4..20], xor, "{answer:?}");
    assert_eq!(answer[20..22], [0x00, 0x20], "{answer:?}");
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    let address = answer[28..]
        .iter()
        .zip(&xor)
        .map(|(one, other)| one ^ other);
    let address: Vec<u8> = address.collect();
    let ip: IpAddr = match (answer[25], address.len()) {
        (1, 4) => <[u8; 4]>::try_from(&address[..]).unwrap().into(),
        (2, 16) => <[u8; 16]>::try_from(&address[..]).unwrap().into(),
        _ => panic!("{answer:?}"),
    };
    SocketAddr::new(ip, port)
}

/// Returns a socket at `ip` that receives only from `server`.
fn socket(ip: impl Into<IpAddr>, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip.into(), 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    socket.connect(server).expect("connect");
    socket
}

fn receive(socket: &UdpSocket) -> std::io::Result<Vec<u8>> {
    let mut buffer = [0; 2048];
    let count = socket.recv(&mut buffer)?;
    Ok(buffer[..count].to_vec())
}

/// Sends a request, and fails unless the answer is the socket's own address.
fn assert_told(socket: &UdpSocket) {
    socket.send(&request(7, &[])).expect("send");
    let answer = receive(socket).expect("an answer");
    assert_eq!(told(7, &answer), socket.local_addr().unwrap());
}

/// Waits until the port is closed.
fn assert_closes(server: SocketAddr) {
    let socket = socket(Ipv4Addr::LOCALHOST, server);
    // A socket that is closed with a pending request sends no error.
    let short = Duration::from_millis(50);
    socket.set_read_timeout(Some(short)).expect("a limit");
    eventually("the port to be closed", || {
        let sent = socket.send(&request(7, &[]));
        let got = sent.and_then(|_| receive(&socket));
        let refused = |e: std::io::Error| e.kind() == ErrorKind::ConnectionRefused;
        got.is_err_and(refused).then_some(())
    });
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Returns the datagram counters in `/metrics`: answered, refused, ignored, limited, unsent.
fn counts(api: SocketAddr) -> Vec<u64> {
    let page = get(api, "localhost", "/metrics").text();
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("gt_stun_datagrams_total{result=")?;
        rest.split(' ').nth(1)
    });
    let counts: Vec<u64> = lines
        .map(|count| count.parse().expect("a number"))
        .collect();
    assert_eq!(counts.len(), 5, "{page}");
    counts
}

#[test]
fn an_independent_client_is_told_its_address() {
    let mut server = server(&format!("{SERVER} -stunAddr :0"));
    let port = server.stun_addr().port();
    for (to, from) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.3"),
        ("127.0.0.2", "127.0.0.4"),
        ("::1", "::1"),
    ] {
        let mut client = Command::new("turnutils_stunclient");
        let line = format!("-p {port} -L {from} {to}");
        let said = run_ok(client.args(words(&line)));
        let right = format!("UDP reflexive addr: {from}:");
        assert!(said.contains(&right), "{line}: {said}");
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let (one, two) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    for (listen, v4, v6) in [
        (":0", true, true),
        ("0.0.0.0:0", true, false),
        ("[::1]:0", false, true),
        ("127.0.0.2:0", true, false),
    ] {
        let mut server = server(&format!("{SERVER} -stunAddr {listen}"));
        let addr = server.stun_addr();
        if v4 {
            assert_told(&socket(one, (two, addr.port()).into()));
        }
        if v6 {
            let at = (Ipv6Addr::LOCALHOST, addr.port());
            assert_told(&socket(Ipv6Addr::LOCALHOST, at.into()));
        }
    }
}

#[test]
fn every_datagram_is_counted_and_only_requests_are_answered() {
    let mut server = server(&format!(
        "{SERVER} -stunAddr 127.0.0.1:0 -apiAddr 127.0.0.1:0"
    ));
    let (stun, api) = (server.stun_addr(), server.api_addr());
    let socket = socket(Ipv4Addr::LOCALHOST, stun);
    let mut response = request(1, &[]);
    response[0] = 0x01;
    let mut no_cookie = request(2, &[]);
    no_cookie[4] = 0;
    let broken = request(3, &[0x80, 0x22, 0x00, 0x09]);
    let forged = request(4, &[0x80, 0x28, 0x00, 0x04, 1, 2, 3, 4]);
    for datagram in [
        b"".as_slice(),
        b"hello",
        &response,
        &no_cookie,
        &broken,
        &forged,
    ] {
        socket.send(datagram).expect("send");
    }
    // CHANGE-REQUEST, which needs a server with two addresses.
    let change = request(5, &[0x00, 0x03, 0x00, 0x04, 0, 0, 0, 6]);
    socket.send(&change).expect("send");
    let head = [&[0x01, 0x11, 0x00, 0x10], &COOKIE[..], &[5; 12]].concat();
    let error = [0x00, 0x09, 0x00, 0x04, 0, 0, 4, 20];
    let unknown = [0x00, 0x0A, 0x00, 0x02, 0x00, 0x03, 0, 0];
    let refusal = receive(&socket).expect("an answer");
    assert_eq!(refusal, [&head[..], &error, &unknown].concat());
    assert_told(&socket);
    let counted = eventually("all to be counted", || {
        let counts = counts(api);
        (counts.iter().sum::<u64>() == 8).then_some(counts)
    });
    assert_eq!(counted, [1, 1, 6, 0, 0]);
    assert_eq!(server.warnings().len(), 0, "{}", server.log());
    assert_eq!(server.lines_with("STUN: ").len(), 0, "{}", server.log());
}

#[test]
fn a_flooding_source_does_not_block_others() {
    let mut server = server(&format!(
        "{SERVER} -stunAddr 127.0.0.1:0 -apiAddr 127.0.0.1:0"
    ));
    let (stun, api) = (server.stun_addr(), server.api_addr());
    let flood = socket(Ipv4Addr::LOCALHOST, stun);
    eventually("a limit", || {
        for _ in 0..100 {
            flood.send(&request(1, &[])).expect("send");
        }
        (counts(api)[3] > 0).then_some(())
    });
    // Two sources may share their limit by chance, but not all of these.
    let others = (1..=8).map(|n| socket(Ipv4Addr::new(127, 0, 1, n), stun));
    let others: Vec<UdpSocket> = others.collect();
    for other in &others {
        other.set_nonblocking(true).expect("not to wait");
    }
    eventually("others to be answered", || {
        for other in &others {
            other.send(&request(2, &[])).expect("send");
        }
        let answers = others.iter().filter_map(|other| receive(other).ok());
        (answers.count() > 0).then_some(())
    });
}

/// Starts a server with a file; returns its STUN address.
fn filed(scratch: &Scratch, stun: &str) -> Gt {
    let file = write(scratch, stun);
    server(&format!("-config {}", file.display()))
}

fn write(scratch: &Scratch, stun: &str) -> PathBuf {
    let text =
        format!("options:\n  addr: 127.0.0.1:0\n  allowAnyClient: true\n  stunAddr: \"{stun}\"\n");
    scratch.file("server.yaml", text)
}

#[test]
fn a_reload_moves_the_socket_and_a_failed_one_does_not() {
    let scratch = Scratch::new();
    let mut server = filed(&scratch, "127.0.0.1:0");
    let first = server.stun_addr();
    let socket_1 = socket(Ipv4Addr::LOCALHOST, first);
    assert_told(&socket_1);
    server.reload();
    assert_told(&socket_1);
    assert_eq!(server.listeners("stunAddr"), 1);

    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    write(&scratch, &taken.local_addr().unwrap().to_string());
    let line = server.reload_in_vain();
    assert!(line.contains("listening on stunAddr 127.0.0.1:"), "{line}");
    assert_told(&socket_1);

    let second = local(free_port());
    write(&scratch, &second.to_string());
    server.reload();
    assert_told(&socket(Ipv4Addr::LOCALHOST, second));
    assert_closes(first);

    write(&scratch, "");
    server.reload();
    assert_closes(second);

    write(&scratch, &second.to_string());
    server.reload();
    assert_told(&socket(Ipv4Addr::LOCALHOST, second));
    assert_eq!(server.stop(), Some(0));
    assert_closes(second);
}

/// Clients that send one request each, in turn. Each must be answered.
struct Askers {
    stop: Arc<AtomicBool>,
    told: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Askers {
    fn start(server: SocketAddr) -> Askers {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, count) = (stop.clone(), Arc::clone(&told));
        let thread = std::thread::spawn(move || {
            // From many addresses, so that none exceeds its rate.
            let hosts = (1..=250).flat_map(|a| (1..=250).map(move |b| Ipv4Addr::new(127, 1, a, b)));
            for host in hosts.cycle() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                assert_told(&socket(host, server));
                AtomicUsize::fetch_add(&count, 1, Ordering::SeqCst);
            }
        });
        let askers = Askers { stop, told, thread };
        askers.more();
        askers
    }

    /// Waits until a hundred more have been answered.
    fn more(&self) {
        let goal = self.told.load(Ordering::SeqCst) + 100;
        eventually("answers", || {
            assert!(!self.thread.is_finished(), "somebody was not answered");
            (self.told.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("everybody is answered");
    }
}

#[test]
fn a_restart_loses_no_request() {
    let scratch = Scratch::new();
    let mut server = filed(&scratch, "127.0.0.1:0");
    let askers = Askers::start(server.stun_addr());
    let new = server.restart();
    askers.more();
    assert_eq!(server.exit().code(), Some(0));
    askers.more();
    // Only the new process has the socket, and it can restart, too.
    let newer = server.restart_again(&new);
    new.wait_for_end();
    askers.more();
    askers.end();
    newer.signal("TERM");
    newer.wait_for_end();
}

#[test]
fn an_unavailable_address_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().unwrap();
    let output = gt(&format!("server {SERVER} -stunAddr {taken}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("listening on stunAddr {taken}: ")),
        "{said}"
    );
}
