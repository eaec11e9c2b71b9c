//! Fuzz entry for WebSockets: the frames of either end, and the requests and answers before them.

#[cfg(feature = "client")]
use super::assert_settled;
use super::cuts;
#[cfg(feature = "server")]
use crate::net::websocket::UpgradeRequest;
#[cfg(feature = "client")]
use crate::net::websocket::{ClientHandshake, UpgradeAnswer};
use crate::net::websocket::{FrameReader, FramesEnd, Side};
use std::io::{Cursor, Read, Write};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::Message;

/// Reads frames as a server (the first byte is even) or as a client does, and requests or answers.
pub fn websocket(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 4 {
        0 => frames(data, Side::Server, Role::Server),
        1 => frames(data, Side::Client, Role::Client),
        2 => request(data),
        _ => answer(data),
    }
}

/// The payload, the answers to pings and the end that some bytes have.
#[derive(Debug, Default, PartialEq)]
struct Frames {
    payload: Vec<u8>,
    end: Option<FramesEnd>,
}

fn read<'a>(side: Side, pieces: impl Iterator<Item = &'a [u8]>) -> Frames {
    let (mut reader, mut read) = (FrameReader::new(side), Frames::default());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let decoded = reader.decode(&mut piece);
        assert!(decoded.payload <= piece.len());
        assert!(decoded.ping.is_none_or(|ping| ping.len() <= 125));
        read.payload.extend_from_slice(&piece[..decoded.payload]);
        read.end = decoded.end;
        if read.end.is_some() {
            break;
        }
    }
    read
}

fn frames(data: &[u8], side: Side, role: Role) {
    let whole = read(side, [data].into_iter());
    for cut in cuts(data) {
        let (one, other) = data.split_at(cut);
        assert_eq!(read(side, [one, other].into_iter()), whole, "cut at {cut}");
    }
    assert_eq!(read(side, data.chunks(1)), whole);
    assert!(whole.payload.len() <= data.len());
    let theirs = theirs(data, role);
    let both = theirs.len().min(whole.payload.len());
    assert_eq!(theirs[..both], whole.payload[..both]);
    if !matches!(whole.end, Some(FramesEnd::Violated(_))) {
        assert_eq!(both, theirs.len(), "a message of another reader is missing");
    }
}

/// A stream that ends behind its bytes and forgets what is written.
struct Stream<'a>(Cursor<&'a [u8]>);

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the binary messages that another reader finds.
fn theirs(data: &[u8], role: Role) -> Vec<u8> {
    let mut reader = WebSocket::from_raw_socket(Stream(Cursor::new(data)), role, None);
    let mut payload = Vec::new();
    loop {
        match reader.read() {
            Ok(Message::Binary(bytes)) => payload.extend_from_slice(&bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return payload,
        }
    }
}

#[cfg(feature = "server")]
fn request(data: &[u8]) {
    let parse = |data: &[u8]| UpgradeRequest::parse(data, "/gt", None);
    let Some(parsed) = parse(data) else {
        return;
    };
    if let Ok(request) = &parsed {
        let (head, rest) = data.split_at(request.length);
        assert!(head.ends_with(b"\n") && rest.len() < data.len());
        // What follows does not matter.
        assert_eq!(parse(head).as_ref(), Some(&parsed));
        assert_eq!(request.accept.len(), 28);
    }
}

#[cfg(not(feature = "server"))]
fn request(_data: &[u8]) {}

#[cfg(feature = "client")]
fn answer(data: &[u8]) {
    let handshake = ClientHandshake::of_example();
    assert_settled(data, |data| match handshake.answer(data) {
        UpgradeAnswer::More => None,
        answer => Some(answer),
    });
    if let UpgradeAnswer::Granted(length) = handshake.answer(data) {
        assert!(length <= data.len());
    }
}

#[cfg(not(feature = "client"))]
fn answer(_data: &[u8]) {}
