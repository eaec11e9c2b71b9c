//! tcpForward: a local port of one client whose connections reach another client's service,
//! directly, or through the server where there is no direct connection.

use crate::common;
use crate::common::gt::{client, client_of_id1, server, Gt};
use crate::common::samples::{assert_same, random_file};
use crate::common::scratch::Scratch;
use crate::common::{eventually, service, sshd};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

/// Each connection waits for a direct way.
const DIRECT: &str = "-tcpForwardFallback=false";

/// A server, a client with a service, and one that forwards to it.
struct Ends {
    _server: Gt,
    serving: Gt,
    forwarding: Gt,
    /// The forwarding address.
    addr: SocketAddr,
}

impl Ends {
    /// Starts all three. `stun` is whether the client with the service knows a STUN server.
    fn start(local: &str, stun: bool, more: &str) -> Ends {
        let mut server = server(
            "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 \
             -stunAddr 127.0.0.1:0",
        );
        let remote = server.addr();
        let stun_addr = server.stun_addr();
        let remote_stun = match stun {
            true => format!("-remoteSTUN stun:{stun_addr}"),
            false => String::new(),
        };
        let serving = client_of_id1(remote, &format!("-local {local} {remote_stun}"));
        let mut forwarding = client(&format!(
            "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun_addr} \
             -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 {more}"
        ));
        let addr = forwarding.forward_addr();
        Ends {
            _server: server,
            serving,
            forwarding,
            addr,
        }
    }

    fn visit(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("connect to the forwarded port");
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        stream.set_write_timeout(Some(common::PATIENCE)).unwrap();
        stream
    }

    /// Sends a word and expects it back.
    fn echoes(&self, stream: &mut TcpStream, word: &[u8]) {
        stream.write_all(word).unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, word);
    }
}

#[test]
fn one_peer_carries_all_connections_and_none_goes_through_the_server() {
    let echo = service::echo();
    let mut ends = Ends::start(
        &format!("http://{}", echo.addr),
        true,
        "-tcpForwardConnections 3 -tcpForwardFallback=false",
    );
    let mut streams: Vec<_> = (0..9).map(|_| ends.visit()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        ends.echoes(stream, format!("connection {number}").as_bytes());
    }
    // Over SCTP, a further connection would add a peer.
    for _ in 0..3 {
        let mut stream = ends.visit();
        ends.echoes(&mut stream, b"one more");
    }
    ends.forwarding.wait_for_peers(1);
    ends.serving.wait_for_peers(1);
    assert_eq!((ends.forwarding.peers(), ends.serving.peers()), (1, 1));
    // No visitor's connection runs through the tunnel.
    assert!(ends.forwarding.is_always_direct());
}

#[test]
fn bytes_arrive_whole_both_ways_at_once() {
    let echo = service::echo();
    for way in [DIRECT, ""] {
        assert_whole(&Ends::start(&format!("http://{}", echo.addr), true, way));
    }
}

fn assert_whole(ends: &Ends) {
    let bytes: Vec<u8> = (0..8u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let bytes = Arc::new(bytes);
    let mut stream = ends.visit();
    let (mut writer, sent) = (stream.try_clone().unwrap(), bytes.clone());
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == *bytes, "what came back is not what was sent");
}

#[test]
fn the_end_of_the_service_comes_behind_all_its_bytes() {
    let bytes: Arc<Vec<u8>> = Arc::new((0..3_000_000u32).map(|n| (n >> 3) as u8).collect());
    let source = service::source(bytes.clone());
    let ends = Ends::start(&format!("http://{}", source.addr), true, DIRECT);
    for _ in 0..3 {
        let mut back = Vec::new();
        ends.visit().read_to_end(&mut back).unwrap();
        assert!(back == *bytes, "{} bytes of {}", back.len(), bytes.len());
    }
}

#[test]
fn the_end_of_a_visitor_ends_the_connection_to_the_service() {
    let (sink, reports) = service::sink();
    let ends = Ends::start(&format!("http://{}", sink.addr), true, DIRECT);
    let mut stream = ends.visit();
    stream.write_all(b"all there is").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    drop(stream);
    let got = reports.recv_timeout(common::PATIENCE).unwrap();
    assert_eq!(got, b"all there is");
}

#[test]
fn without_a_direct_connection_the_server_is_used_half_closes_included() {
    let (sink, reports) = service::sink();
    // It answers 403 to peers, but is reached all the same.
    let mut ends = Ends::start(&format!("http://{}", sink.addr), false, "");
    let refused = ends.visit();
    ends.forwarding
        .wait_for("no direct connection to id1: the other client answered 403");
    drop(refused);
    drop(ends);

    let mut ends = Ends::start(&format!("http://{}", sink.addr), true, "");
    // A stopped client answers no datagrams.
    ends.serving.signal("STOP");
    let mut stream = ends.visit();
    ends.forwarding.wait_for_no_direct_connection();
    ends.serving.signal("CONT");
    stream.write_all(b"through the server").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut acknowledged = Vec::new();
    stream.read_to_end(&mut acknowledged).unwrap();
    assert!(!acknowledged.is_empty());
    let got = reports.iter().find(|got| !got.is_empty()).unwrap();
    assert_eq!(got, b"through the server");
}

/// Sends two requests over one connection, and checks that the service gets its own host both
/// times.
fn assert_rewritten(stream: &mut TcpStream, local: &str) {
    for target in ["/1", "/2"] {
        write!(stream, "GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n").unwrap();
        let answer = common::visitor::read_answer(stream);
        assert_eq!(answer.text(), format!("here {target} {local}"));
    }
}

#[test]
fn every_request_is_rewritten_directly_and_through_the_server() {
    let service = service::http(0, "here");
    let local = service.addr.to_string();
    let mut ends = Ends::start(&format!("http://{local} -useLocalAsHTTPHost"), true, DIRECT);
    assert_rewritten(&mut ends.visit(), &local);
    ends.forwarding.wait_for_peers(1);
    drop(ends);

    let mut ends = Ends::start(&format!("http://{local} -useLocalAsHTTPHost"), true, "");
    // A stopped client answers no datagrams.
    ends.serving.signal("STOP");
    let mut stream = ends.visit();
    ends.forwarding.wait_for_no_direct_connection();
    ends.serving.signal("CONT");
    assert_rewritten(&mut stream, &local);
    // Requests that cannot be followed are refused there, too.
    stream
        .write_all(b"GET /\x01 HTTP/1.1\r\nHost: evil\r\n\r\n")
        .unwrap();
    let answer = common::visitor::read_to_end(&mut stream);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
}

#[test]
fn without_fallback_a_connection_without_a_direct_peer_is_reset() {
    let echo = service::echo();
    let mut ends = Ends::start(
        &format!("http://{}", echo.addr),
        false,
        "-tcpForwardFallback=false",
    );
    let mut stream = ends.visit();
    let _ = stream.write_all(b"x");
    assert!(stream.read(&mut [0]).is_err(), "it should be reset");
    ends.forwarding.wait_for("tcpForwardFallback is off");
}

#[test]
fn peers_reconnect_when_the_other_client_does() {
    let echo = service::echo();
    let mut ends = Ends::start(
        &format!("http://{}", echo.addr),
        true,
        "-tcpForwardConnections 1",
    );
    ends.echoes(&mut ends.visit(), b"before");
    let mut old = ends.visit();
    ends.echoes(&mut old, b"before");
    ends.serving.stop();
    // A connection ends with its peer.
    assert_eq!(old.read(&mut [0]).unwrap_or(0), 0);
    let remote = ends._server.addr();
    let stun = ends._server.stun_addr();
    let local = format!("-local http://{} -remoteSTUN stun:{stun}", echo.addr);
    let mut again = client_of_id1(remote, &local);
    ends.echoes(&mut ends.visit(), b"after");
    again.wait_for_peers(1);
}

#[test]
fn an_idle_peer_is_ended_and_replaced_on_demand() {
    let echo = service::echo();
    let mut ends = Ends::start(
        &format!("http://{}", echo.addr),
        true,
        "-tcpForwardConnections 1 -webrtcConnectionIdleTimeout 500ms",
    );
    ends.echoes(&mut ends.visit(), b"one");
    ends.forwarding.wait_for_gone_peers(1);
    ends.echoes(&mut ends.visit(), b"two");
    ends.forwarding.wait_for_peers(2);
}

#[test]
fn ssh_and_scp_go_from_client_to_client() {
    let (sshd, scratch) = (sshd::start(), Scratch::new());
    let ends = Ends::start(&format!("http://{}", sshd.addr), true, "");
    let port = ends.addr.port();
    assert_eq!(sshd.ssh(port, "echo one; seq 3"), "one\n1\n2\n3\n");
    let (sample, up, down) = (random_file(20), scratch.join("up"), scratch.join("down"));
    sshd.copy_to(port, &sample, &up);
    assert_same(&sample, &up);
    sshd.copy_from(port, &up, &down);
    assert_same(&sample, &down);
}

#[test]
fn a_stopped_reader_blocks_only_its_own_connection() {
    let bytes = Arc::new(vec![7; 64 << 20]);
    let source = service::source(bytes);
    let ends = Ends::start(
        &format!("http://{}", source.addr),
        true,
        &format!("-tcpForwardConnections 1 {DIRECT}"),
    );
    let rss = |gt: &Gt| gt.anonymous_kib();
    let stopped = ends.visit();
    let mut another = ends.visit();
    let mut taken = vec![0; 4 << 20];
    another.read_exact(&mut taken).unwrap();
    eventually("memory to be bounded", || {
        (rss(&ends.serving) < 12 * 1024 && rss(&ends.forwarding) < 12 * 1024).then_some(())
    });
    another.read_exact(&mut taken).unwrap();
    drop(stopped);
    another.read_exact(&mut taken).unwrap();
}

/// A visitor need not wait for the answer to its relay request.
#[test]
fn bytes_sent_with_a_relay_request_reach_a_file_service() {
    let folder = Scratch::new();
    folder.file("page", "here");
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret secret1 -stunAddr 127.0.0.1:0");
    let stun = server.stun_addr();
    let local = folder.path().display();
    let line = format!("-local file://{local} -remoteSTUN stun:{stun}");
    let _client = client_of_id1(server.addr(), &line);
    let mut visitor = common::visitor::connect(server.addr());
    let both = "XP / HTTP/1.1\r\nHost: id1.example.com\r\nWebRTC-OP: relay\r\n\
                WebRTC-Label: gt:id1\r\n\r\nGET /page HTTP/1.0\r\n\r\n";
    visitor.write_all(both.as_bytes()).expect("send");
    let answer = common::visitor::read_to_end(&mut visitor);
    assert!(answer.ends_with(b"here"), "{}", answer.escape_ascii());
}
