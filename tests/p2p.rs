//! Peers over WebRTC: what an independent one may expect of a client, through a real server.
#![cfg(feature = "p2p")]

mod common;

use common::eventually;
use common::gt::{client, client_of_id1, server_of_id1, Gt};
use common::ports::free_port;
use common::service::{banner, echo, sink, source, Service};
use common::signal::{candidate, Layer, Signal};
use common::visitor::get;
use common::webrtc::{Channel, How, Peer, PLAIN};
use serde_json::json;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// What visitors ask for.
const HOST: &str = "id1.example.com";

/// A server with STUN, and a client with peers.
struct Ends {
    // Dropped in this order.
    client: Gt,
    _server: Gt,
    addr: SocketAddr,
}

/// `services` are the client's, and options.
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

    /// Sends a request with this body as it is.
    fn raw(&self, body: &[u8]) -> u16 {
        Signal::start(self.addr, HOST, "", Layer::Plain).send_raw(body)
    }

    /// Waits until a peer is given up, for the `count`th time.
    fn wait_gone(&mut self, count: usize) -> Vec<String> {
        self.client.wait_for_lines("peer gone: ", count)
    }
}

/// Bytes that look like nothing, and differ by seed.
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

/// Sends `bytes` to what sends back, and reads them at the same time.
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
