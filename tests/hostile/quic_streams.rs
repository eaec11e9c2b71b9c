//! A malicious server over QUIC with a stream for each visitor, and a real client.

use super::bound::{assert_at_most, Memory};
use crate::common::certs::{self, Certs};
use crate::common::gt::{client, Gt};
use crate::common::peer::quic::QuicServer;
use crate::common::service;
use quinn_proto::{ReadError, StreamId, VarInt};
use std::any::Any;
use std::net::SocketAddr;

/// Streams that are opened and reset at once.
const RESETS: u32 = 20_000;
/// Streams whose headers do not come whole, more than a client keeps.
const HEADLESS: u32 = 3_000;
/// Streams of services that are never announced: more than the window of the connection takes.
const EARLY: u32 = 3_000;
/// DATAGRAM frames of flows that are not known.
const DATAGRAMS: u32 = 20_000;
/// Maximum memory that a flood may cost the client, in KiB: what a stream takes in the protocol, 1 to 2 KB.
const FLOOD_KIB: usize = 8 * 1024;

struct Stage {
    server: QuicServer,
    client: Gt,
    _service: Box<dyn Any>,
    _certs: Certs,
}

/// Returns the header of a stream: its kind, number, registration and service, and a window of 64 KiB.
fn header(kind: u8, number: u32, registration: u16, service: u16) -> Vec<u8> {
    [
        &[kind][..],
        &number.to_be_bytes(),
        &registration.to_be_bytes(),
        &service.to_be_bytes(),
        &65536u32.to_be_bytes(),
    ]
    .concat()
}

impl Stage {
    /// Starts a client, whose tunnel is ready and has served a visitor.
    fn set() -> Stage {
        let echo = service::echo();
        let mut stage = Self::with_service(echo.addr, echo);
        stage.assert_serves(u32::MAX);
        stage
    }

    /// Starts a client of a service at this address, whose tunnel is ready.
    fn with_service(addr: SocketAddr, service: impl Any) -> Stage {
        let certs = certs::make();
        let server = QuicServer::start(&certs);
        let client = client(&format!(
            "-remote quic://{} -remoteCert {} -id id1 -secret secret1 -reconnectDelay 10ms -remoteConnections 1 \
             -local tcp://{} -remoteTCPRandom",
            server.addr,
            certs.ca.display(),
            addr
        ));
        let mut stage = Stage {
            server,
            client,
            _service: Box::new(service),
            _certs: certs,
        };
        stage.server.accept_ready();
        stage
    }

    /// Checks that a visitor gets the answer of the service, as stream `number`.
    fn assert_serves(&mut self, number: u32) {
        let mut bytes = header(1, number, 1, 0);
        bytes.extend(b"hello");
        let id = self.server.open(&bytes);
        self.server.act(|connection| {
            let _ = connection.send_stream(id).finish();
        });
        assert_eq!(self.read(id), Ok(b"hello".to_vec()));
    }

    /// Reads a stream to its end, or returns the code of its reset.
    fn read(&mut self, id: StreamId) -> Result<Vec<u8>, u64> {
        let mut bytes = Vec::new();
        self.server.until("the end of a stream", |connection| {
            let mut stream = connection.recv_stream(id);
            let mut chunks = stream.read(true).unwrap();
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
                    Ok(None) => return Some(Ok(std::mem::take(&mut bytes))),
                    Err(ReadError::Reset(code)) => return Some(Err(code.into_inner())),
                    Err(ReadError::Blocked) => return None,
                }
            }
        })
    }

    /// Cuts a stream in both directions.
    fn cut(&mut self, id: StreamId) {
        self.server.act(|connection| {
            let _ = connection.send_stream(id).reset(VarInt::from_u32(1));
            let _ = connection.recv_stream(id).stop(VarInt::from_u32(1));
        });
    }

    /// Waits until the client has cut the tunnel, as after a violation, and has come back.
    fn expect_violation(self, why: &str) {
        self.expect_close(why, 1);
    }

    /// Waits until the client has closed the connection with this code, and has come back.
    fn expect_close(mut self, why: &str, code: u64) {
        assert_eq!(self.server.wait_for_close(), code, "{why}");
        self.client.wait_for(why);
        self.server.accept_ready();
        self.client.wait_for_tunnels(2);
        assert_eq!(self.client.has_ended(), None);
    }

    fn assert_unharmed(&mut self, memory: &Memory, attack: &str) {
        let peak = memory.peak(&self.client);
        assert_at_most(&format!("{attack}: client"), FLOOD_KIB, peak, "KiB");
        assert_eq!(self.client.has_ended(), None);
        let log = self.client.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn headers_that_are_wrong_cost_their_stream_or_the_tunnel() {
    let mut stage = Stage::set();
    for (what, bytes, code) in [
        ("an unknown service", header(1, 7, 1, 600), 4),
        ("a kind of a later version", header(9, 7, 1, 0), 4),
        ("a registration long ago", header(1, 7, 65535, 0), 4),
    ] {
        let id = stage.server.open(&bytes);
        assert_eq!(stage.read(id), Err(code), "{what}");
        stage.assert_serves(8);
    }
    // One that is to come holds a stream up, and nothing else.
    let early = stage.server.open(&header(1, 9, 2, 0));
    stage.assert_serves(8);
    stage.cut(early);
    stage.server.open(&header(1, 0, 1, 0));
    stage.expect_violation("stream id 0");
    let mut stage = Stage::set();
    stage.server.open(&header(1, 5, 1, 0));
    stage.server.open(&header(1, 5, 1, 0));
    stage.expect_violation("stream 5 is opened twice");
    // A frame of a stream, in the first stream.
    let mut stage = Stage::set();
    stage.server.signal(&[1, 0, 0, 1, 0, 0, 0, 1, 7]);
    stage.expect_violation("a frame of a stream that has a stream of QUIC");
    // More than the client's credit, which it renews only for bytes that the service takes.
    let service = service::unanswering();
    let mut stage = Stage::with_service(service.addr, service);
    let mut bytes = header(1, 6, 1, 0);
    bytes.resize(bytes.len() + 4 * 1024 * 1024, 7);
    stage.server.try_open(&bytes);
    stage.expect_violation("more bytes for stream 6");
}

#[test]
fn a_first_stream_that_ends_is_the_end_of_the_tunnel() {
    let mut stage = Stage::set();
    let id = stage.server.first();
    stage.server.act(|connection| {
        let _ = connection.send_stream(id).finish();
    });
    stage.expect_close("the other end closed the connection", 0);
}

#[test]
fn floods_of_streams_that_are_reset_or_never_begin_cost_little() {
    let mut stage = Stage::set();
    let memory = Memory::since_now(&stage.client);
    for number in 1..=RESETS {
        let id = stage.server.open(&header(1, number, 1, 0));
        stage.cut(id);
    }
    stage.assert_serves(1);
    stage.assert_unharmed(&memory, "streams that are reset at once");
    let memory = Memory::since_now(&stage.client);
    let ids: Vec<_> = (0..HEADLESS)
        .map(|_| stage.server.open(&[1, 0, 0]))
        .collect();
    // Those beyond what the client keeps are reset at once, and the others after 15 s.
    assert_eq!(stage.read(*ids.last().unwrap()), Err(6));
    stage.assert_unharmed(&memory, "streams whose headers do not come");
    assert_eq!(stage.read(ids[0]), Err(1));
    stage.assert_serves(1);
}

#[test]
fn streams_of_services_that_are_never_announced_cost_little_and_hold_up_no_other() {
    let mut stage = Stage::set();
    let memory = Memory::since_now(&stage.client);
    let ids: Vec<_> = (1..=EARLY)
        .map(|number| {
            let mut bytes = header(1, number, 2, 0);
            bytes.resize(1000, 7);
            stage.server.open(&bytes)
        })
        .collect();
    // Those beyond what the client keeps are reset at once, and the others after 15 s.
    assert_eq!(stage.read(*ids.last().unwrap()), Err(6));
    stage.assert_serves(u32::MAX);
    stage.assert_unharmed(&memory, "streams of services that are not announced");
    assert_eq!(stage.read(ids[0]), Err(1));
    stage.assert_serves(u32::MAX);
}

#[test]
fn datagrams_of_unknown_flows_are_dropped() {
    let mut stage = Stage::set();
    let memory = Memory::since_now(&stage.client);
    for number in 0..DATAGRAMS {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(usize::try_from(number % 1000).unwrap(), 7);
        stage.server.act(|connection| {
            let _ = connection.datagrams().send(bytes.into(), true);
        });
    }
    stage.assert_serves(1);
    stage.assert_unharmed(&memory, "datagrams of unknown flows");
}
