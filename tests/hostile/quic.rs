//! Packets at `-quicAddr`: garbage, connections from addresses that are invented, versions that do not exist.

use super::bound::{assert_at_most, note, Memory};
use crate::common::eventually;
use crate::common::gt::{client, server_of_id1, Gt};
use crate::common::samples::Random;
use crate::common::service;
use crate::common::visitor::get;
use async_tls::rustls::crypto::ring;
use async_tls::rustls::{self, version, RootCertStore};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

/// Packets of garbage.
const GARBAGE: usize = 100_000;
/// Connections that are begun from addresses that do not answer.
const SPOOFED: usize = 600;
/// Maximum memory of an attack at the server, in KiB: 256 handshakes of 24 KiB, and buffers.
const MOST_KIB: usize = 12 * 1024;
/// Maximum number of handshakes that are pending with an address that is not proved, twice: they may end meanwhile.
const MOST_OF_ADDRESS: usize = 16;
/// Length of a client's first packet (RFC 9000, section 14.1).
const INITIAL: usize = 1200;

/// Returns the first packet of a connection to `server`.
fn initial(server: SocketAddr) -> Vec<u8> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"gt-quic".to_vec()];
    let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let now = Instant::now();
    let (_, mut connection) = endpoint
        .connect(now, ClientConfig::new(crypto), server, "localhost")
        .unwrap();
    let mut bytes = Vec::new();
    let _ = connection.poll_transmit(now, 1, &mut bytes).unwrap();
    assert!(bytes.len() >= INITIAL);
    bytes
}

fn start() -> (Gt, SocketAddr, SocketAddr) {
    let mut server = server_of_id1("-quicAddr 127.0.0.1:0 -logLevel debug");
    let (addr, quic) = (server.addr(), server.quic_addr());
    (server, addr, quic)
}

/// Checks that a client gets a tunnel over QUIC, and serves a visitor.
fn assert_serves(addr: SocketAddr, quic: SocketAddr) {
    let http = service::http(0, "here");
    let mut client = client(&format!(
        "-remote quic://{quic} -remoteCertInsecure -id id1 -secret secret1 -local http://{}",
        http.addr
    ));
    client.wait_for_tunnel();
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    // Nothing tells the server of a client that is killed.
    assert_eq!(client.stop(), Some(0));
}

/// Returns the packets that have come, after the first one if `waits`.
fn answers(socket: &UdpSocket, waits: bool) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 2048];
    let mut all = Vec::new();
    socket.set_nonblocking(!waits).unwrap();
    socket
        .set_read_timeout(Some(crate::common::PATIENCE))
        .unwrap();
    while let Ok(count) = socket.recv(&mut buffer) {
        all.push(buffer[..count].to_vec());
        socket.set_nonblocking(true).unwrap();
    }
    all
}

/// An address from which a connection is begun that does not answer.
struct Source {
    socket: UdpSocket,
    sent: usize,
    received: usize,
    /// Whether it was to prove its address (RFC 9000, section 17.2.5).
    is_retried: bool,
}

impl Source {
    fn new(server: SocketAddr) -> Source {
        Source {
            socket: socket_to(server),
            sent: 0,
            received: 0,
            is_retried: false,
        }
    }

    fn begin(&mut self, server: SocketAddr) {
        self.sent += self.socket.send(&initial(server)).unwrap();
    }

    fn take(&mut self, waits: bool) {
        for packet in answers(&self.socket, waits) {
            self.received += packet.len();
            self.is_retried |= packet[0] & 0xF0 == 0xF0;
        }
    }
}

fn socket_to(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket
}

#[test]
fn garbage_and_damaged_packets_of_quic_leave_nothing() {
    let (server, addr, quic) = start();
    assert_serves(addr, quic);
    let memory = Memory::since_now(&server);
    let fds = server.fds();
    let (mut random, good) = (Random::new(7), initial(quic));
    let sockets: Vec<_> = (0..16).map(|_| socket_to(quic)).collect();
    let mut answered = 0;
    for n in 0..GARBAGE {
        let socket = &sockets[n % sockets.len()];
        let packet = match n % 4 {
            0 => {
                let length = random.below(1400);
                random.bytes(length)
            }
            // The header of a short packet.
            1 => {
                let mut packet = random.bytes(60);
                packet[0] = packet[0] & 0x3F | 0x40;
                packet
            }
            // The protection of a first packet does not hold.
            2 => {
                let mut packet = good.clone();
                let at = 7 + random.below(packet.len() - 7);
                packet[at] ^= 1 << random.below(8);
                packet
            }
            _ => {
                let length = random.below(good.len());
                good[..length].to_vec()
            }
        };
        // A full buffer loses some.
        let _ = socket.send(&packet);
        if n % 100 == 0 {
            answered += answers(socket, false).len();
        }
    }
    assert_serves(addr, quic);
    note(
        "100 000 packets of garbage at quicAddr",
        "few are answered",
        answered,
    );
    assert_at_most(
        "garbage at quicAddr, memory at the server",
        MOST_KIB,
        memory.peak(&server),
        "KiB",
    );
    eventually("the server to have as many descriptors as before", || {
        (server.fds() <= fds + 1).then_some(())
    });
}

#[test]
fn connections_from_invented_addresses_cost_little_and_are_not_answered_with_more_than_three_times_the_bytes(
) {
    let (server, addr, quic) = start();
    assert_serves(addr, quic);
    let memory = Memory::since_now(&server);
    let mut sources: Vec<_> = (0..SPOOFED).map(|_| Source::new(quic)).collect();
    for (n, source) in sources.iter_mut().enumerate() {
        source.begin(quic);
        // The kernel's buffer is small.
        source.take(n % 50 == 49);
    }
    // A client that proves its address is served meanwhile.
    assert_serves(addr, quic);
    assert_at_most(
        "invented addresses at quicAddr, memory at the server",
        MOST_KIB,
        memory.peak(&server),
        "KiB",
    );
    // Handshakes end after 15 s; until then packets are repeated.
    eventually("the handshakes to end", || {
        sources.iter_mut().for_each(|source| source.take(false));
        let began = sources
            .iter()
            .filter(|it| it.received > 0 && !it.is_retried);
        (server.failed_quic_handshakes() >= began.count()).then_some(())
    });
    let worst = sources.iter().map(|it| it.received as f64 / it.sent as f64);
    let worst = worst.fold(0.0, f64::max);
    let retries = sources.iter().filter(|it| it.is_retried).count();
    assert_at_most(
        "answers to an invented address, per byte",
        3.0,
        worst,
        "bytes",
    );
    note(
        "invented addresses that have to prove themselves",
        "most",
        retries,
    );
    assert!(retries > SPOOFED / 2, "{retries} of {SPOOFED}");
    let begun = (sources.iter()).filter(|it| it.received > 0 && !it.is_retried);
    assert_at_most(
        "handshakes that an invented address begins",
        MOST_OF_ADDRESS,
        begun.count(),
        "handshakes",
    );
}

#[test]
fn another_version_of_quic_is_answered_with_the_versions_that_there_are() {
    let (_server, _addr, quic) = start();
    let socket = socket_to(quic);
    let mut packet = initial(quic);
    packet[1..5].copy_from_slice(&[0x1A, 0x2A, 0x3A, 0x4A]);
    // A short one is not answered: the answer could be longer.
    socket.send(&packet[..100]).unwrap();
    socket.send(&packet).unwrap();
    let all = answers(&socket, true);
    assert_eq!(all.len(), 1);
    assert!(all[0].len() < packet.len());
    assert_eq!(all[0][1..5], [0; 4]);
    assert!(all[0].windows(4).any(|version| version == [0, 0, 0, 1]));
}
