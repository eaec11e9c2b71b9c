//! A fuzz entry for packets of QUIC at a server, before anything is known of their sender.

use crate::net::clock;
use crate::net::quic::link::{decode, id_of};
use crate::net::quic::setup::endpoint;
use crate::net::quic::{ClientSetup, ServerSetup};
use crate::net::tls::{Connector, QuicIdentity, ServerIdentity, ServerTrust};
use bytes::BytesMut;
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Endpoint};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 443);
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 2], 4433);
/// Maximum number of packets of an input.
const MAX_PACKETS: usize = 32;

/// What all inputs share.
struct Shared {
    server: ServerSetup,
    /// The first packet of a client.
    initial: Vec<u8>,
}

impl Shared {
    fn new() -> Self {
        let identity = ServerIdentity::new()
            .and_then(QuicIdentity::new)
            .expect("a key");
        let server = ServerSetup::new(&identity, false, true).expect("a server");
        let connector = Connector::new(ServerTrust::Nobody).expect("a connector");
        let client = ClientSetup::new(&connector, false, true).expect("a client");
        let config = Arc::new(endpoint(1).expect("a configuration"));
        let mut clients = Endpoint::new(config, None, true, None);
        let (now, to) = (clock::now(), SocketAddr::from(SERVER));
        let (_, mut connection) = clients
            .connect(now, client.config(), to, "localhost")
            .expect("a connection");
        let mut initial = Vec::new();
        let _ = connection.poll_transmit(now, 1, &mut initial);
        Self { server, initial }
    }
}

thread_local! {
    static SHARED: Shared = Shared::new();
}

/// A server, and how many bytes it has exchanged with an address that it does not know.
struct Server<'a> {
    shared: &'a Shared,
    endpoint: Endpoint,
    connections: BTreeMap<usize, (ConnectionHandle, Connection)>,
    now: Instant,
    received: usize,
    sent: usize,
}

impl<'a> Server<'a> {
    fn new(shared: &'a Shared) -> Self {
        let config = Arc::new(endpoint(2).expect("a configuration"));
        let server = Some(shared.server.for_endpoint());
        Self {
            shared,
            endpoint: Endpoint::new(config, server, true, None),
            connections: BTreeMap::new(),
            now: clock::now(),
            received: 0,
            sent: 0,
        }
    }

    fn take(&mut self, packet: &[u8]) {
        self.received += packet.len();
        let (from, mut answer) = (SocketAddr::from(CLIENT), Vec::new());
        let bytes = BytesMut::from(packet);
        let event = self
            .endpoint
            .handle(self.now, from, None, None, bytes, &mut answer);
        match event {
            Some(DatagramEvent::Response(transmit)) => {
                assert!(
                    transmit.size < packet.len().max(1),
                    "an answer to {packet:?}"
                );
                self.sent += transmit.size;
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let (config, _) = self.shared.server.for_connection();
                let accepted = self
                    .endpoint
                    .accept(incoming, self.now, &mut answer, Some(config));
                match accepted {
                    Ok((handle, connection)) => {
                        self.connections.insert(handle.0, (handle, connection));
                    }
                    Err(e) => self.sent += e.response.map_or(0, |transmit| transmit.size),
                }
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((_, connection)) = self.connections.get_mut(&handle.0) {
                    connection.handle_event(event);
                }
            }
            None => {}
        }
        self.drive();
    }

    fn drive(&mut self) {
        self.now += Duration::from_millis(300);
        for (handle, connection) in self.connections.values_mut() {
            connection.handle_timeout(self.now);
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while connection.poll().is_some() {}
            let mut bytes = Vec::new();
            while let Some(transmit) = connection.poll_transmit(self.now, 8, &mut bytes) {
                self.sent += transmit.size;
                bytes.clear();
            }
        }
        // RFC 9000, section 8.1.
        assert!(
            self.sent <= 3 * self.received,
            "{} for {}",
            self.sent,
            self.received
        );
    }
}

/// Sends packets to a server. The first byte of each part of the input selects the kind of packet.
pub fn quic_packets(data: &[u8]) {
    let _ = (id_of(data), decode(data));
    SHARED.with(|shared| {
        let mut server = Server::new(shared);
        let mut left = data;
        for _ in 0..MAX_PACKETS {
            let Some((kind, rest)) = left.split_first() else {
                break;
            };
            left = rest;
            match (kind % 4, left) {
                // Any bytes, up to 255.
                (0, [length, rest @ ..]) => {
                    let length = usize::from(*length).min(rest.len());
                    let (packet, rest) = rest.split_at(length);
                    server.take(packet);
                    left = rest;
                }
                // A client's first packet with a changed byte.
                (1, [high, low, change, rest @ ..]) => {
                    let mut packet = shared.initial.clone();
                    let at = usize::from(u16::from_be_bytes([*high, *low])) % packet.len();
                    packet[at] ^= change;
                    server.take(&packet);
                    left = rest;
                }
                // The same, cut, or filled up with any byte.
                (2, [high, low, filler, rest @ ..]) => {
                    let length = usize::from(u16::from_be_bytes([*high, *low])) % 1500;
                    let mut packet = shared.initial.clone();
                    packet.resize(length, *filler);
                    server.take(&packet);
                    left = rest;
                }
                // As long as a client's first packet, but of any bytes.
                (3, rest) => {
                    let mut packet: Vec<u8> = rest.iter().take(64).copied().collect();
                    packet.resize(1200, 0);
                    server.take(&packet);
                    left = rest.get(64..).unwrap_or_default();
                }
                _ => break,
            }
        }
    });
}
