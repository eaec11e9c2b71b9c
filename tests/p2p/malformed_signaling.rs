//! Malformed or excessive signaling costs little, and others are served.

use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::service::{http, unanswering, Service};
use crate::common::signal::{candidate, chunk, message, Layer, Signal};
use crate::common::visitor::{connect, get};
use crate::common::webrtc::{Channel, Peer, PLAIN};
use crate::common::{eventually, eventually_within};
use serde_json::{json, Value};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const HOST: &str = "id1.example.com";

struct Ends {
    // The fields are dropped in this order.
    client: Gt,
    _server: Gt,
    _service: Service,
    addr: SocketAddr,
}

fn ends(more: &str) -> Ends {
    let service = http(0, "it");
    let mut server = server_of_id1("-stunAddr 127.0.0.1:0");
    let (addr, stun) = (server.addr(), server.stun_addr());
    let local = service.addr;
    let more = format!("-remoteSTUN stun:{stun} -logLevel debug -local http://{local} {more}");
    Ends {
        client: client_of_id1(addr, &more),
        _server: server,
        _service: service,
        addr,
    }
}

impl Ends {
    /// Checks that a visitor and a peer are served normally.
    fn assert_well(&self) {
        let answer = get(self.addr, HOST, "/");
        assert_eq!(answer.text(), format!("it / {HOST}"));
        let (_peer, channel) = Peer::connect(self.addr, HOST, "", PLAIN);
        assert_served(&channel);
    }

    fn raw(&self, lines: &str, body: &[u8]) -> u16 {
        Signal::start(self.addr, HOST, lines, Layer::Plain).send_raw(body)
    }
}

fn assert_served(channel: &Channel) {
    channel.send(b"GET / HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(channel.read_to_end()).expect("text");
    assert!(answer.ends_with("it / peer"), "{answer}");
}

fn offer(sdp: &str) -> Value {
    json!({"type": "offer", "sdp": sdp})
}

#[test]
fn malformed_offers_are_refused() {
    let ends = ends("");
    let real = Peer::new().offer_with_channel();
    let without = |what: &str| {
        let lines = real.lines().filter(|line| !line.starts_with(what));
        lines.flat_map(|line| [line, "\r\n"]).collect::<String>()
    };
    let bodies = [
        message(&offer("")),
        message(&offer("v=0\r\n")),
        message(&offer(&"m=application 9 UDP/DTLS/SCTP x\r\n".repeat(500))),
        message(&offer(&without("a=ice-ufrag"))),
        message(&offer(&without("a=ice-pwd"))),
        message(&offer(&without("a=fingerprint"))),
        message(&offer(&without("m=application"))),
        message(&candidate("candidate:1 1 udp 1 127.0.0.1 9 typ host")),
        message(&json!({"type": "answer", "sdp": real})),
        message(&json!({"type": "offer"})),
        message(&json!([1, 2, 3])),
        b"\x00\x05hello".to_vec(),
        b"\x00\x00".to_vec(),
        // False lengths.
        b"\x2f\xff{}".to_vec(),
        b"\xff\xff{}".to_vec(),
        [&b"\x00\x10"[..], &message(&offer(&real))].concat(),
        // Malformed inner chunks.
        b"zz\r\n".to_vec(),
        b"ffffffffffffffffffff\r\n".to_vec(),
        b"5\r\n\x00\x03ab".to_vec(),
        b"5\r\n\x00\x03abcde".to_vec(),
        vec![b'1'; 200],
        vec![0x2f; 200_000],
        Vec::new(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let whole = [&chunk(&body)[..], b"0\r\n\r\n"].concat();
        let status = if body.is_empty() {
            ends.raw("", b"0\r\n\r\n")
        } else {
            ends.raw("", &whole)
        };
        assert_eq!(status, 400, "{shown:?}");
    }
    for lines in ["WebRTC-OP: dance\r\n", "WebRTC-OP: resp-answer\r\n"] {
        assert_eq!(ends.raw(lines, b"0\r\n\r\n"), 400, "{lines}");
    }
    ends.assert_well();
}

#[test]
fn incomplete_requests_and_endless_bodies_do_not_block_others() {
    let ends = ends("");
    let mut held = Vec::new();
    let real = message(&offer(&Peer::new().offer_with_channel()));
    let whole = chunk(&real);
    for cut in [0, 1, 3, 10, whole.len() / 2, whole.len() - 1] {
        let mut signal = Signal::start(ends.addr, HOST, "", Layer::Plain);
        signal.stream.write_all(&whole[..cut]).expect("send");
        held.push(signal.stream);
    }
    for half in ["XP ", "XP / HTTP/1.1\r\nHost: id1.example.com\r\n"] {
        let mut stream = connect(ends.addr);
        stream.write_all(half.as_bytes()).expect("send");
        held.push(stream);
    }
    ends.assert_well();
    // The connections break off in the middle of the body.
    drop(held);
    ends.assert_well();
}

#[test]
fn ten_thousand_candidates_cost_little_and_few_are_tried() {
    let ends = ends("");
    ends.assert_well();
    let before = ends.client.rss();
    let peer = Peer::new();
    let channel = peer.channel("");
    let mut signal = Signal::start(ends.addr, HOST, "", Layer::Chunks);
    // In the description, and then one by one; no peer is at any of them.
    let mut sdp = peer.offer();
    for number in 0..300 {
        let port = 20_000 + number;
        let line = format!("a=candidate:{number} 1 udp 1 127.9.9.9 {port} typ host\r\n");
        sdp.push_str(&line);
    }
    signal.say(&offer(&sdp));
    assert_eq!(signal.status(), 200);
    peer.take_answer(&signal.next().expect("an answer"));
    let told: Vec<Value> = std::iter::from_fn(|| signal.next()).collect();
    for number in 0..10_000 {
        let port = 10_000 + number;
        let line = format!("candidate:{number} 1 udp 1 127.8.8.8 {port} typ host");
        let bytes = chunk(&chunk(&message(&candidate(&line))));
        // Once the peer is connected, the rest is not read.
        if signal.stream.write_all(&bytes).is_err() {
            break;
        }
    }
    let more = ends.client.rss().saturating_sub(before);
    assert!(more < 4 * 1024, "{more} KiB more for many candidates");
    drop(signal);
    // The peer is on the client's machine, so it has to send checks first.
    for candidate in told {
        peer.take_candidate(candidate["candidate"].as_str().expect("a candidate"));
    }
    channel.wait_open();
    assert_served(&channel);
    ends.assert_well();
}

#[test]
fn abandoned_offers_hold_few_permits_and_lose_them_to_new_ones() {
    let ends = ends("-webrtcConnections 8");
    let (_peer, channel) = Peer::connect(ends.addr, HOST, "", PLAIN);
    let before = ends.client.rss();
    for number in 0..40 {
        let (lines, sdp) = match number % 2 {
            0 => ("", Some(Peer::new().offer_with_channel())),
            _ => ("WebRTC-OP: get-offer\r\n", None),
        };
        let mut signal = Signal::start(ends.addr, HOST, lines, Layer::Plain);
        if let Some(sdp) = sdp {
            signal.say(&offer(&sdp));
        }
        signal.finish();
        assert_eq!(signal.status(), 200, "offer {number}");
        // The peer disappears before it knows the answer.
    }
    let more = ends.client.rss().saturating_sub(before);
    assert!(more < 8 * 1024, "{more} KiB more for eight peers");
    // Only the oldest of those that did not connect are gone.
    let gone = ends.client.gone_peers();
    let displaced = "it did not connect, and another peer came";
    let displaced = gone.iter().filter(|line| line.contains(displaced));
    assert_eq!(displaced.count(), 40 - 7);
    ends.assert_well();
    assert_served(&channel);
}

#[test]
fn requests_without_an_offer_yet_count_as_peers() {
    let ends = ends("-webrtcConnections 2");
    let start = |_| Signal::start(ends.addr, HOST, "", Layer::Plain);
    let waiting: Vec<Signal> = (0..20).map(start).collect();
    let is_refused = |signal: &&Signal| {
        signal.stream.set_nonblocking(true).expect("no blocking");
        let peeked = signal.stream.peek(&mut [0]);
        signal.stream.set_nonblocking(false).expect("blocking");
        peeked.is_ok_and(|n| n == 1)
    };
    eventually("all but two to be refused", || {
        (waiting.iter().filter(is_refused).count() == 18).then_some(())
    });
    let (refused, held): (Vec<Signal>, _) =
        waiting.into_iter().partition(|signal| is_refused(&signal));
    for mut signal in refused {
        assert_eq!(signal.status(), 503);
    }
    for mut signal in held {
        signal.say(&offer(&Peer::new().offer_with_channel()));
        assert_eq!(signal.status(), 200);
    }
    ends.assert_well();
}

#[test]
fn an_unanswered_offer_is_ended_soon() {
    let ends = ends("");
    let lines = "WebRTC-OP: get-offer\r\n";
    let begin = Instant::now();
    assert_eq!(ends.raw(lines, b"0\r\n\r\n"), 200);
    let given_up = "a peer is ended: it did not answer the offer in time";
    eventually_within(Duration::from_secs(60), given_up, || {
        ends.client.lines_with(given_up).pop()
    });
    assert!(
        begin.elapsed() >= Duration::from_secs(15),
        "that is too soon"
    );
    ends.assert_well();
}

#[test]
fn an_unreachable_peer_is_ended_within_two_minutes_and_no_program_is_disturbed() {
    let ends = ends("");
    let sdp = Peer::new().offer_with_channel();
    let nowhere: Vec<&str> = sdp
        .lines()
        .filter(|line| !line.starts_with("a=candidate"))
        .collect();
    // It names addresses of other programs on this machine.
    let others = [(); 8].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let named = others.iter().map(|socket| {
        let port = socket.local_addr().expect("an address").port();
        format!("a=candidate:1 1 udp 1 127.0.0.1 {port} typ host\r\n")
    });
    let named: String = named.collect();
    let mut signal = Signal::start(ends.addr, HOST, "", Layer::Plain);
    signal.say(&offer(&(nowhere.join("\r\n") + "\r\n" + &named)));
    let begin = Instant::now();
    signal.finish();
    assert_eq!(signal.status(), 200);
    eventually_within(Duration::from_secs(150), "the peer to be gone", || {
        ends.client.gone_peers().pop()
    });
    // docs/gt1.md, "P2P signaling": 120 s to connect.
    assert!(begin.elapsed() < Duration::from_secs(125));
    for socket in others {
        socket.set_nonblocking(true).expect("no blocking");
        let got = socket.recv(&mut [0; 512]);
        assert!(got.is_err(), "{got:?} bytes came for another program");
    }
    ends.assert_well();
}

#[test]
fn channels_whose_service_does_not_read_hold_little_in_total() {
    // The client still waits for the service to accept.
    let service = unanswering();
    let mut server = server_of_id1("-stunAddr 127.0.0.1:0");
    let (addr, stun) = (server.addr(), server.stun_addr());
    let local = service.addr;
    let line = format!("-remoteSTUN stun:{stun} -logLevel debug -local http://{local}");
    let client = client_of_id1(addr, &line);
    let (peer, first) = Peer::connect(addr, HOST, "", PLAIN);
    let before = client.anonymous_kib();
    let mut channels = vec![first];
    for _ in 0..100 {
        let channel = peer.open("");
        channel.send(&[7; 180 * 1024]);
        channel.wait_sent();
        channels.push(channel);
        let more = client.anonymous_kib().saturating_sub(before);
        let count = channels.len();
        assert!(more < 14 * 1024, "{more} KiB more for {count} channels");
    }
    eventually("channels to be cut", || {
        (client.lines_with("a channel is cut").len() > 30).then_some(())
    });
}
