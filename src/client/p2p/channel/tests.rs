//! Channels without a peer at their other end, and connections over loopback.

use super::*;
use crate::client::p2p::checks::{ConnectivityChecks, IceRole};
use crate::client::p2p::identity::Identity;
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::peer::Peer;
use crate::client::request_edits::RequestEdits;
use crate::client::rewriting_conn::RewritingConn;
use crate::net::{timeout, Socket};
use async_std::task::block_on;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

/// A timeout that no test reaches.
const LONG: Duration = Duration::from_secs(60);
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: b\r\n\r\n";

/// Returns a channel with a short idle limit. It holds `bytes`, and its peer has ended it
/// (`is_closed`) or acknowledges nothing.
fn channel(bytes: &[u8], is_closed: bool) -> ChannelConn {
    let identity = Identity::new().unwrap();
    let checks = ConnectivityChecks::new(Arc::default(), IceRole::Answers, Vec::new());
    let memory = MemoryShare::new(Arc::default());
    let now = Instant::now();
    let mut peer = Peer::new(&identity, checks, memory, now).unwrap();
    let id = peer.insert_silent(bytes, is_closed);
    peer.limit_idle(id, Some(Duration::from_millis(10)), now);
    ChannelConn::new(PeerHandle::new(peer), id)
}

/// Returns a connection and its other end.
fn connection() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    service.set_read_timeout(Some(LONG)).unwrap();
    (
        Socket::adopt(listener.accept().unwrap().0.into()).unwrap(),
        service,
    )
}

/// Returns a connection to a service that has to answer a protocol switch before it gets more, and
/// does not.
fn undecided(early: &[u8]) -> (Arc<Conn>, TcpStream) {
    let (socket, service) = connection();
    let early = [UPGRADE, early].concat();
    let rule = RequestEdits {
        host: Some("b".to_owned()),
        ..RequestEdits::default()
    };
    let conn = RewritingConn::start(socket.into(), rule, early, None, true);
    (Arc::new(conn), service)
}

fn carried(channel: ChannelConn, conn: Arc<Conn>) -> io::Result<()> {
    let carried = block_on(timeout(LONG, carry(channel, conn)));
    carried.expect("an end")
}

/// Reads up to the end, which must be a reset.
fn assert_reset(mut service: TcpStream) {
    let end = service.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_service_that_never_takes_the_last_bytes_is_reset() {
    let (conn, service) = undecided(b"");
    let error = carried(channel(b"more", true), conn).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_reset(service);
}

#[test]
fn a_service_that_cannot_be_sent_the_end_is_reset() {
    let (conn, service) = undecided(b"more");
    let error = carried(channel(b"", true), conn).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_reset(service);
}

#[test]
fn a_peer_that_acknowledges_nothing_does_not_keep_a_connection_that_has_ended() {
    let (socket, service) = connection();
    drop(service);
    carried(channel(b"", false), Arc::new(socket.into())).unwrap();
}

#[test]
fn a_sending_service_gets_all_bytes_of_an_ended_channel() {
    // More than the kernel holds.
    let bytes: Vec<u8> = (0..24u32 << 20).map(|n| (n / 3) as u8).collect();
    let (socket, mut service) = connection();
    service.write_all(b"who reads this?").unwrap();
    let channel = channel(&bytes, true);
    // The service reads without a time limit.
    channel.limit_idle(None);
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        service.read_to_end(&mut got).map(|_| got)
    });
    carried(channel, Arc::new(socket.into())).unwrap();
    assert!(reading.join().unwrap().unwrap() == bytes);
}
