//! WebRTC peers: what an independent peer can expect of a client, through a real server.

use crate::common;
use crate::common::gt::{client, client_of_id1, server, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::service::{banner, echo, source, Service};
use crate::common::signal::{Layer, Signal};
#[cfg(feature = "proxy")]
use crate::common::socks;
use crate::common::webrtc::{Channel, How, Peer, PLAIN};
use crate::common::{eventually, eventually_within, PATIENCE};
use serde_json::json;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::Arc;

/// The host that visitors ask for.
const HOST: &str = "id1.example.com";

/// A server with STUN, and a client with peers.
struct Ends {
    // The fields are dropped in this order.
    client: Gt,
    _server: Gt,
    addr: SocketAddr,
}

/// Starts both. `services` are the client's services and options.
fn ends(services: &str) -> Ends {
    let mut server = server_of_id1("-stunAddr 127.0.0.1:0 ");
    let (addr, stun) = (server.addr(), server.stun_addr());
    let more = format!("-remoteSTUN stun:{stun} -logLevel debug {services}");
    let client = client_of_id1(addr, &more);
    Ends {
        client,
        _server: server,
        addr,
    }
}

impl Ends {
    fn peer(&self, label: &str) -> (Peer, Channel) {
        Peer::connect(self.addr, HOST, label, PLAIN)
    }

    /// Waits until a peer has ended, for the `count`th time.
    fn wait_gone(&self, count: usize) {
        // Handshakes and checks take 20 s and more to fail.
        eventually_within(3 * PATIENCE, "a peer to be given up", || {
            (self.client.gone_peers().len() >= count).then_some(())
        });
    }
}

/// Returns random-looking bytes that depend on the seed.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn assert_same(got: &[u8], sent: &[u8]) {
    assert_eq!(got.len(), sent.len());
    assert!(got == sent, "the bytes differ");
}

/// Sends `bytes` to an echo, and reads them at the same time.
fn assert_echoed(channel: &Channel, bytes: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(|| channel.send(bytes));
        assert_same(&channel.read(bytes.len()), bytes);
    });
}

#[test]
fn a_channel_is_a_connection_to_the_service_and_carries_bytes_both_ways_at_once() {
    let echo = echo();
    let ends = ends(&format!("-local http://{}", echo.addr));
    for layer in [Layer::Plain, Layer::Chunks] {
        for trickle in [false, true] {
            let how = How { layer, trickle };
            let (peer, channel) = Peer::connect(ends.addr, HOST, "any", how);
            assert_echoed(&channel, &noise(2 << 20, 1));
            let other = peer.open("any");
            assert_echoed(&other, &noise(100_000, 2));
            assert_echoed(&channel, b"still there");
        }
    }
}

/// A service that counts its connections and reads.
fn counted() -> (Service, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let connections = count.clone();
    let service = Service::start(0, move |mut stream| {
        connections.fetch_add(1, Ordering::SeqCst);
        let end = std::io::copy(&mut stream.try_clone()?, &mut stream);
        connections.fetch_sub(1, Ordering::SeqCst);
        end.map(drop)
    });
    (service, count)
}

fn wait_for_connections(count: &AtomicUsize, wanted: usize) {
    eventually(&format!("the service to have {wanted} connections"), || {
        (count.load(Ordering::SeqCst) == wanted).then_some(())
    });
}

#[test]
fn a_label_selects_the_service_and_others_get_the_first() {
    let (one, two, three) = (banner("one"), banner("two"), banner("three"));
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -stunAddr 127.0.0.1:0 -hostNumber 2 \
         -hostWithID -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let (addr, stun) = (server.addr(), server.stun_addr());
    let mut client = client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 -remoteSTUN stun:{stun} -logLevel debug \
         -local http://{} -hostPrefix one -local http://{} -hostPrefix two \
         -local tcp://{} -remoteTCPPort {port}",
        one.addr, two.addr, three.addr
    ));
    client.wait_for_tunnel();
    let (peer, first) = Peer::connect(addr, "id1-one.example.com", "whatever", PLAIN);
    assert_eq!(first.read(3), b"one");
    let port = format!("gt:{port}");
    for (label, said) in [
        ("gt:two", "two"),
        ("gt:id1-two", "two"),
        ("gt:one", "one"),
        (port.as_str(), "three"),
        ("", "one"),
        ("gt:", "one"),
    ] {
        let channel = peer.open(label);
        assert_eq!(channel.read(said.len()), said.as_bytes(), "{label}");
    }
    let nobody = peer.open("gt:nobody");
    assert_eq!(nobody.read_to_end(), b"");
    assert_echoed(&first, b"the others go on");
}

#[cfg(feature = "proxy")]
#[test]
fn a_label_selects_a_proxy_by_its_port_and_each_channel_is_a_visitor() {
    let (one, echo) = (banner("one"), echo());
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-stunAddr 127.0.0.1:0 -tcpNumber 1 -tcpRange {port}"
    ));
    let (addr, stun) = (server.addr(), server.stun_addr());
    let _client = client_of_id1(
        addr,
        &format!(
            "-remoteSTUN stun:{stun} -local http://{} \
             -local socks5: -remoteTCPPort {port} -targets 127.0.0.1",
            one.addr
        ),
    );
    let (peer, first) = Peer::connect(addr, HOST, "gt:", PLAIN);
    assert_eq!(first.read(3), b"one");
    let asks = |port| [socks::ANYONE, &socks::request(1, "127.0.0.1", port)].concat();
    let proxied = peer.open(&format!("gt:{port}"));
    // With what follows, in one message.
    proxied.send(&[&asks(echo.addr.port())[..], b"first"].concat());
    assert_eq!(proxied.read(12)[..4], [5, 0, 5, 0]);
    assert_eq!(proxied.read(5), b"first");
    assert_echoed(&proxied, b"and what follows");
    let refused = peer.open(&format!("gt:{port}"));
    refused.send(&asks(free_port()));
    assert_eq!(refused.read_to_end()[..4], [5, 0, 5, 5]);
    assert_echoed(&proxied, b"the others go on");
}

#[test]
fn the_service_s_end_closes_the_channel_behind_all_its_bytes() {
    let bytes = Arc::new(noise(1 << 20, 3));
    let source = source(bytes.clone());
    let ends = ends(&format!("-local http://{}", source.addr));
    let (peer, channel) = ends.peer("");
    let more: Vec<Channel> = (0..5).map(|_| peer.open("")).collect();
    for channel in [channel].iter().chain(&more) {
        assert_same(&channel.read_to_end(), &bytes);
    }
}

#[test]
fn a_channel_the_peer_closes_ends_the_connection_to_the_service() {
    let (service, count) = counted();
    let ends = ends(&format!("-local http://{}", service.addr));
    let (peer, first) = ends.peer("");
    assert_echoed(&first, b"one");
    let second = peer.open("");
    assert_echoed(&second, b"two");
    wait_for_connections(&count, 2);
    first.close();
    assert_eq!(first.read_to_end(), b"");
    wait_for_connections(&count, 1);
    assert_echoed(&second, b"still there");
    let more: Vec<Channel> = (0..20).map(|_| peer.open("")).collect();
    for (left, channel) in more.iter().enumerate().rev() {
        assert_echoed(channel, &[1; 100]);
        channel.close();
        wait_for_connections(&count, 1 + left);
    }
    peer.close();
    wait_for_connections(&count, 0);
}

/// Reads each connection to its end, and reports the end.
fn until_the_end() -> (Service, Receiver<std::io::Result<Vec<u8>>>) {
    let (report, reports) = std::sync::mpsc::channel();
    let report = std::sync::Mutex::new(report);
    let service = Service::start(0, move |mut stream| {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes).map(|_| bytes);
        let _ = report.lock().unwrap().send(end);
        Ok(())
    });
    (service, reports)
}

#[test]
fn a_service_that_is_silent_for_its_timeout_loses_its_channel() {
    let (service, ended) = until_the_end();
    let ends = ends(&format!("-local http://{} -localTimeout 1s", service.addr));
    let (_peer, channel) = ends.peer("");
    channel.send(b"anybody?");
    assert_eq!(channel.next(), None);
    let got = ended.recv_timeout(PATIENCE).expect("an end");
    assert_eq!(got.expect("an end in good order"), b"anybody?");
}

#[test]
fn a_service_that_never_answers_an_upgrade_is_closed_with_its_visitor() {
    let (service, ended) = until_the_end();
    let local = format!("-local http://{} -useLocalAsHTTPHost", service.addr);
    let ends = ends(&format!("{local} -localTimeout 1s"));
    let (_peer, channel) = ends.peer("");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: b\r\n\r\n";
    channel.send(format!("{request}and what follows it").as_bytes());
    channel.wait_sent();
    channel.close();
    let end = ended.recv_timeout(PATIENCE).expect("an end");
    let error = end.expect_err("it has not got all");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn messages_of_64_kib_are_accepted() {
    let echo = echo();
    let ends = ends(&format!("-local http://{}", echo.addr));
    let (_peer, channel) = ends.peer("");
    let bytes = noise(1 << 20, 4);
    std::thread::scope(|scope| {
        scope.spawn(|| channel.send_by(&bytes, 64 * 1024));
        assert_same(&channel.read(bytes.len()), &bytes);
    });
}

#[test]
fn a_client_offers_and_takes_the_answer() {
    let echo = echo();
    let ends = ends(&format!("-local http://{}", echo.addr));
    for layer in [Layer::Plain, Layer::Chunks] {
        let peer = Peer::new();
        peer.answer_to(ends.addr, HOST, layer);
        assert_echoed(&peer.open(""), &noise(100_000, 5));
    }
    let lines = "WebRTC-OP: resp-answer\r\nWebRTC-OP-ID: 7\r\n";
    let mut signal = Signal::start(ends.addr, HOST, lines, Layer::Plain);
    signal.say(&json!({"type": "answer", "sdp": Peer::new().offer_with_channel()}));
    signal.finish();
    assert_eq!(signal.status(), 404, "nobody has offered number 7");
}

#[test]
fn the_number_of_peers_is_limited_by_configuration() {
    let echo = echo();
    let mut ends = ends(&format!("-webrtcConnections 2 -local http://{}", echo.addr));
    let (_one, first) = ends.peer("");
    let (two, second) = ends.peer("");
    let third = Peer::new();
    let waiting = third.channel("");
    let ask = |peer: &Peer| peer.offer_to(ends.addr, HOST, PLAIN, |offer| offer);
    assert_eq!(ask(&third), 503);
    let get_offer = "WebRTC-OP: get-offer\r\n";
    let status = Signal::start(ends.addr, HOST, get_offer, Layer::Plain).send_raw(b"0\r\n\r\n");
    assert_eq!(status, 503);
    assert_echoed(&first, b"one");
    assert_echoed(&second, b"two");
    drop(second);
    two.close();
    ends.client.wait_for_gone_peers(1);
    assert_eq!(ask(&third), 200);
    waiting.wait_open();
    assert_echoed(&waiting, b"three");
    assert_echoed(&first, b"one");
}

#[test]
fn without_stun_there_are_no_peers() {
    let echo = echo();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", echo.addr));
    let peer = Peer::new();
    let _channel = peer.channel("");
    assert_eq!(peer.offer_to(addr, HOST, PLAIN, |offer| offer), 403);
}

#[test]
fn peers_use_a_port_of_the_range_and_a_used_up_range_is_reported() {
    let echo = echo();
    let port = free_port();
    let options = format!(
        "-webrtcMinPort {port} -webrtcMaxPort {port} -local http://{}",
        echo.addr
    );
    let ends = ends(&options);
    for _ in 0..2 {
        let peer = Peer::new();
        let channel = peer.channel("");
        let mut signal = Signal::start(ends.addr, HOST, "", Layer::Plain);
        signal.say(&json!({"type": "offer", "sdp": peer.offer()}));
        signal.finish();
        assert_eq!(signal.status(), 200);
        peer.take_answer(&signal.next().expect("an answer"));
        let mut count = 0;
        while let Some(message) = signal.next() {
            let candidate = message["candidate"].as_str().expect("a candidate");
            let words: Vec<&str> = candidate.split(' ').collect();
            assert_eq!(words[5], port.to_string(), "{candidate}");
            count += 1;
            peer.take_candidate(candidate);
        }
        assert!(count > 0, "no address was told");
        channel.wait_open();
        assert_echoed(&channel, b"here");
    }
    // Another client finds the port in use.
    let other = client_of_id1(
        ends.addr,
        &format!("-remoteSTUN stun:127.0.0.1:1 {options}"),
    );
    drop(ends.client);
    let mut other = other;
    let peer = Peer::new();
    let _channel = peer.channel("");
    let held = std::net::UdpSocket::bind(("::", port)).expect("the port");
    assert_eq!(peer.offer_to(ends.addr, HOST, PLAIN, |offer| offer), 503);
    let line = other.wait_for("webrtcMinPort");
    assert!(line.contains(&port.to_string()), "{line}");
    drop(held);
    assert_eq!(peer.offer_to(ends.addr, HOST, PLAIN, |offer| offer), 200);
}

#[test]
fn only_a_peer_without_channels_is_ended_for_being_idle() {
    let echo = echo();
    let mut ends = ends(&format!(
        "-webrtcConnectionIdleTimeout 1s -local http://{}",
        echo.addr
    ));
    let (_stays, used) = ends.peer("");
    let (_goes, channel) = ends.peer("");
    assert_echoed(&channel, b"one");
    channel.close();
    ends.client.wait_for("a peer is ended: it was idle");
    ends.wait_gone(1);
    assert_echoed(&used, b"still there");
    used.close();
    ends.wait_gone(2);
}

#[test]
fn a_vanished_peer_is_ended_with_its_connections() {
    let (service, count) = counted();
    let ends = ends(&format!("-local http://{}", service.addr));
    let (peer, channel) = ends.peer("");
    assert_echoed(&channel, b"here");
    let other = peer.open("");
    assert_echoed(&other, b"here");
    wait_for_connections(&count, 2);
    let (_stays, stays) = ends.peer("");
    assert_echoed(&stays, b"here");
    drop((channel, other));
    peer.vanish();
    ends.wait_gone(1);
    wait_for_connections(&count, 1);
    assert_echoed(&stays, b"still there");
}

#[test]
fn a_peer_with_another_certificate_than_offered_never_connects() {
    let (service, count) = counted();
    let ends = ends(&format!("-local http://{}", service.addr));
    let peer = Peer::new();
    let channel = peer.channel("");
    let forge = |offer: String| {
        let line = offer.lines().find(|line| line.contains("a=fingerprint:"));
        let line = line.expect("a fingerprint");
        let (rest, last) = line.rsplit_once(':').expect("hexadecimal");
        let other = if last == "00" { "01" } else { "00" };
        offer.replace(line, &format!("{rest}:{other}"))
    };
    assert_eq!(peer.offer_to(ends.addr, HOST, PLAIN, forge), 200);
    ends.wait_gone(1);
    assert!(!channel.is_open());
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert_eq!(ends.client.peers(), 0);
}

/// Waits until `count` has not changed for a while, and returns it.
fn settled(count: &AtomicUsize) -> usize {
    let mut last = (count.load(Ordering::SeqCst), 0);
    eventually("a count to come to rest", || {
        let now = count.load(Ordering::SeqCst);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        (now > 0 && last.1 > 200).then_some(now)
    })
}

#[test]
fn a_peer_that_does_not_read_makes_the_client_hold_little_and_others_go_on() {
    const ALL: usize = 48 << 20;
    let taken = Arc::<AtomicUsize>::default();
    let count = taken.clone();
    let pushing = Service::start(0, move |mut stream| {
        let mut piece = noise(64 * 1024, 6);
        let mut first = [0];
        stream.read_exact(&mut first)?;
        if first == *b"e" {
            std::io::copy(&mut stream.try_clone()?, &mut stream)?;
            return Ok(());
        }
        // It waits for as long as the peer makes it.
        stream.set_write_timeout(None)?;
        for number in 0..ALL / piece.len() {
            piece[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let n = stream.write(rest)?;
                count.fetch_add(n, Ordering::SeqCst);
                rest = &rest[n..];
            }
        }
        Ok(())
    });
    let ends = ends(&format!("-local http://{}", pushing.addr));
    let (_other, echo) = ends.peer("");
    echo.send(b"e");
    assert_echoed(&echo, &noise(1 << 20, 7));
    let (_peer, channel) = ends.peer("");
    let before = ends.client.rss();
    channel.send(b"p");
    let stuck = settled(&taken);
    // The rest is in the peer, which takes 256 messages and 1 MiB, and in the kernel's sockets.
    assert!(
        stuck < 24 << 20,
        "{stuck} bytes were taken from the service"
    );
    let more = ends.client.rss().saturating_sub(before);
    assert!(
        more < 3 * 1024,
        "{more} KiB more for a peer that does not read"
    );
    assert_echoed(&echo, &noise(1 << 20, 8));
    // A pause may have been due to retransmissions; however long it takes, it is no more.
    let stuck = settled(&taken);
    assert!(stuck < 24 << 20, "{stuck} bytes were taken in the end");
    // It has everything once it reads.
    let mut piece = noise(64 * 1024, 6);
    for number in 0..ALL / piece.len() {
        piece[..8].copy_from_slice(&(number as u64).to_be_bytes());
        assert_same(&channel.read(piece.len()), &piece);
    }
    assert_eq!(channel.next(), None);
}

#[test]
fn a_service_that_does_not_read_makes_the_client_hold_little() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let (report, reports) = std::sync::mpsc::channel();
    let service = Service::start(0, move |mut stream| {
        let _ = gone.lock().unwrap().recv();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let _ = report.send(bytes);
        Ok(())
    });
    let ends = ends(&format!("-local http://{}", service.addr));
    let (_peer, channel) = ends.peer("");
    let before = ends.client.rss();
    let bytes = noise(32 << 20, 9);
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for piece in bytes.chunks(16 * 1024) {
                channel.send_patiently(piece);
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
        });
        let stuck = settled(&sent);
        let more = ends.client.rss().saturating_sub(before);
        drop(go);
        assert!(stuck < 24 << 20, "{stuck} bytes were taken from the peer");
        assert!(
            more < 3 * 1024,
            "{more} KiB more for a service that does not read"
        );
    });
    // Unacknowledged bytes would be lost with the channel.
    channel.wait_sent();
    channel.close();
    let got = reports.recv_timeout(PATIENCE).expect("all of it");
    assert_same(&got, &bytes);
}

/// Returns the response to a page's preflight for a method.
fn asked(addr: std::net::SocketAddr, method: &str) -> String {
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "OPTIONS / HTTP/1.1\r\nHost: id1.localhost\r\nOrigin: http://elsewhere\r\n\
         Access-Control-Request-Method: {method}\r\nConnection: close\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn preflights_for_xp_are_granted_to_any_origin_and_others_go_to_the_service() {
    let service = common::service::http(0, "service");
    let folder = common::scratch::Scratch::new();
    let locals = [
        (format!("http://{}", service.addr), "service / "),
        (format!("file://{}", folder.path().display()), "405"),
    ];
    for (local, others) in locals {
        let mut server = common::gt::server_of_id1("");
        let options = format!("-local {local} -remoteSTUN stun:127.0.0.1:9");
        let _client = common::gt::client_of_id1(server.addr(), &options);
        let answer = asked(server.addr(), "XP");
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        for line in [
            "Access-Control-Allow-Origin: *\r\n",
            "Access-Control-Allow-Methods: XP\r\n",
        ] {
            assert!(answer.contains(line), "{answer}");
        }
        let answer = asked(server.addr(), "PUT");
        assert!(answer.contains(others), "{answer}");
    }
}
