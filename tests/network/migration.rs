//! A client whose only address changes while visitors transfer: over QUIC they do not notice, over TCP they are
//! cut. Needs root and ip.

use crate::common::gt::Gt;
use crate::common::nat::missing;
use crate::common::process::{run, run_ok, Process};
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::Service;
use crate::common::unique;
use crate::common::visitor::connect;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

const SERVER: &str = "10.88.0.1";
const LENGTH: usize = 100 * 1024 * 1024;
/// Port of the service, in the client's network.
const SERVICE: u16 = 7000;
/// Port of the visitors, in the server's network.
const PORT: u16 = 7001;
const DOWN: u8 = b'd';
const UP: u8 = b'u';

/// Two networks, each with one address, and the line between them.
struct Line {
    name: String,
}

impl Line {
    fn new() -> Line {
        let line = Line {
            name: format!("gt{}", unique()),
        };
        line.shell(
            "ip netns add $N-s; ip netns add $N-c
             ip -n $N-s link set lo up; ip -n $N-c link set lo up
             ip link add line netns $N-s type veth peer name line netns $N-c
             ip -n $N-s addr add 10.88.0.1/24 dev line; ip -n $N-s link set line up
             ip -n $N-c addr add 10.88.0.2/24 dev line; ip -n $N-c link set line up",
        );
        line
    }

    fn shell(&self, script: &str) {
        shell(&self.name, script);
    }

    fn place(&self, which: char) -> String {
        format!("{}-{which}", self.name)
    }

    /// Runs one of the tests below in a network, as a program.
    fn command(&self, which: char, test: &str) -> Command {
        let mut command = Command::new("ip");
        let program = std::env::current_exe().expect("this program");
        command.args(["netns", "exec", &self.place(which)]);
        command.arg(program);
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        command.env("GT_TEST_LINE", &self.name);
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for which in ['s', 'c'] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.place(which)])
                .status();
        }
    }
}

fn shell(name: &str, script: &str) {
    let script = format!("set -e; N={name}; {script}");
    run_ok(Command::new("sh").args(["-c", &script]));
}

/// Replaces the client's only address, the `n`th time.
fn replace_address(n: u8) {
    let name = std::env::var("GT_TEST_LINE").expect("the line's name");
    let script = format!(
        "ip -n $N-c addr del 10.88.0.{}/24 dev line; ip -n $N-c addr add 10.88.0.{}/24 dev line",
        n + 1,
        n + 2
    );
    shell(&name, &script);
}

/// The service: sends the sample, or compares what comes with it.
#[test]
#[ignore = "run by the others"]
fn service() {
    let _service = Service::start(SERVICE, |mut stream: TcpStream| {
        let sample = Random::new(11).bytes(LENGTH);
        let mut what = [0];
        stream.read_exact(&mut what)?;
        if what[0] == DOWN {
            stream.write_all(&sample)?;
        } else {
            let mut bytes = vec![0; LENGTH];
            stream.read_exact(&mut bytes)?;
            stream.write_all(if bytes == sample { b"=" } else { b"!" })?;
        }
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    });
    println!("the service listens");
    std::thread::park();
}

fn visitor_of(what: u8) -> TcpStream {
    let addr: SocketAddr = ([127, 0, 0, 1], PORT).into();
    let mut visitor = connect(addr);
    visitor.write_all(&[what]).unwrap();
    visitor
}

/// The visitor of a download, which replaces the client's address three times.
#[test]
#[ignore = "run by the others"]
fn download() {
    let sample = Random::new(11).bytes(LENGTH);
    let mut visitor = visitor_of(DOWN);
    let mut bytes = vec![0; LENGTH];
    for (n, piece) in (1..).zip(bytes.chunks_mut(LENGTH / 4)) {
        visitor.read_exact(piece).unwrap();
        if n <= 3 {
            replace_address(n);
        }
    }
    assert!(bytes == sample);
    println!("all is there");
}

/// The visitor of an upload, which replaces the client's address three times.
#[test]
#[ignore = "run by the others"]
fn upload() {
    let sample = Random::new(11).bytes(LENGTH);
    let mut visitor = visitor_of(UP);
    for (n, piece) in (4..).zip(sample.chunks(LENGTH / 4)) {
        visitor.write_all(piece).unwrap();
        if n <= 6 {
            replace_address(n);
        }
    }
    let mut verdict = [0];
    visitor.read_exact(&mut verdict).unwrap();
    assert_eq!(verdict, *b"=");
    println!("all is there");
}

/// The visitor of a download over TCP, which does not outlive the client's address.
#[test]
#[ignore = "run by the others"]
fn cut_download() {
    let mut visitor = visitor_of(DOWN);
    visitor.read_exact(&mut vec![0; LENGTH / 4]).unwrap();
    replace_address(1);
    let e = visitor
        .read_exact(&mut vec![0; LENGTH - LENGTH / 4])
        .unwrap_err();
    assert!(
        matches!(
            e.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::WouldBlock
        ),
        "{e}"
    );
    println!("it was cut");
}

/// Starts a server, and a client that reaches it by `remote`, with the service.
fn start(line: &Line, remote: &str) -> (Process, Gt, Gt) {
    let mut service = Process::spawn(
        "the service",
        Scratch::new(),
        &mut line.command('c', "migration::service"),
    );
    service.wait_for("the service listens");
    let mut server = Gt::within(
        &line.place('s'),
        &format!(
            "server -addr 0.0.0.0:8080 -quicAddr 0.0.0.0:8443 -id id1 -secret secret1 \
             -tcpNumber 1 -tcpRange {PORT}"
        ),
    );
    server.addr();
    server.quic_addr();
    let mut client = Gt::within(
        &line.place('c'),
        &format!(
            "client -remote {remote} -remoteCertInsecure -remoteConnections 1 -id id1 \
             -secret secret1 -local tcp://127.0.0.1:{SERVICE} -remoteTCPPort {PORT}"
        ),
    );
    client.wait_for_tunnel();
    (service, server, client)
}

#[test]
fn transfers_over_quic_go_on_while_the_clients_only_address_is_replaced() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let line = Line::new();
    let (_service, server, client) = start(&line, &format!("quic://{SERVER}:8443"));
    for (visitor, moves) in [("migration::download", 3), ("migration::upload", 6)] {
        let output = run(&mut line.command('s', visitor));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("all is there"),
            "{said}{}\n{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            server.log(),
            client.log()
        );
        let moved = client.moved_sockets();
        assert!(moved >= moves, "{moved} of {moves} moves");
    }
    assert_eq!((server.opened().len(), server.closed()), (1, 0));
}

#[test]
fn a_transfer_over_tcp_is_cut_when_the_clients_only_address_is_replaced() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let line = Line::new();
    let (_service, _server, _client) = start(&line, &format!("tcp://{SERVER}:8080"));
    let output = run(&mut line.command('s', "migration::cut_download"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("it was cut"),
        "{said}"
    );
}
