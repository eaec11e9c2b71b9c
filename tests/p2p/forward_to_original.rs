//! tcpForward to a client that is not gt: what the original's clients read and answer.

use crate::common;
use crate::common::gt::{client, Gt};
use crate::common::service::Service;
use crate::common::visitor::{connect, read, read_to_end};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{channel, Receiver, Sender};

/// An empty page, the answer of the original's clients to unknown requests.
const EMPTY_PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn read_line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(read(stream, 1));
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

/// Reads chunks up to the last, empty one.
fn read_chunks(stream: &mut impl Read) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    loop {
        let size = usize::from_str_radix(&read_line(stream), 16).expect("a chunk's size");
        chunks.push(read(stream, size));
        assert_eq!(read_line(stream), "", "a chunk's end");
        if size == 0 {
            return chunks;
        }
    }
}

/// Starts a server whose client answers signaling with an empty page and relay requests with
/// `relayed`. The bodies it reads are sent to `bodies`.
fn original(relayed: &'static [u8], bodies: Sender<Vec<u8>>) -> Service {
    Service::start(0, move |mut stream: TcpStream| {
        if read(&mut stream, 2) != b"XP" {
            // A tunnel, which gets no answer.
            return std::io::copy(&mut stream, &mut std::io::sink()).map(drop);
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read(&mut stream, 1));
        }
        let head = String::from_utf8(head).expect("text");
        if head.contains("\r\nWebRTC-OP: relay\r\n") {
            stream.write_all(relayed)?;
            std::io::copy(&mut stream.try_clone()?, &mut stream)?;
            return Ok(());
        }
        assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
        let body = read_chunks(&mut stream).concat();
        let _ = bodies.send(body);
        stream.write_all(EMPTY_PAGE)
    })
}

fn forwarding_to(original: &Service) -> Gt {
    client(&format!(
        "-remote tcp://{} -id id2 -secret secret2 -remoteSTUN stun:127.0.0.1:1 \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1",
        original.addr
    ))
}

fn bodies() -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    channel()
}

#[test]
fn an_offer_is_framed_twice_as_the_original_s_clients_need() {
    let (sender, bodies) = bodies();
    let original = original(EMPTY_PAGE, sender);
    let mut forwarding = forwarding_to(&original);
    let _visitor = connect(forwarding.forward_addr());
    let body = bodies.recv_timeout(common::PATIENCE).expect("an offer");
    let mut rest = &body[..];
    let messages = read_chunks(&mut rest);
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    let (last, messages) = messages.split_last().expect("chunks");
    assert!(last.is_empty());
    for (number, message) in messages.iter().enumerate() {
        let (length, json) = message.split_at(2);
        assert_eq!(
            usize::from(u16::from_be_bytes([length[0], length[1]])),
            json.len()
        );
        let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(json["type"] == "offer", number == 0, "{json}");
        assert_eq!(json["candidate"].is_string(), number > 0, "{json}");
    }
    assert!(messages.len() > 1, "no candidate was told");
}

#[test]
fn an_answer_without_the_relay_header_is_not_a_relay() {
    let (sender, _bodies) = bodies();
    let original = original(EMPTY_PAGE, sender);
    let mut forwarding = forwarding_to(&original);
    let mut visitor = connect(forwarding.forward_addr());
    let got = read_to_end(&mut visitor);
    assert!(got.is_empty(), "{:?}", String::from_utf8_lossy(&got));
    let line = forwarding.wait_for("cannot reach id1");
    assert!(
        line.contains("does not repeat \"WebRTC-OP: relay\""),
        "{line}"
    );
}

#[test]
fn an_answer_with_the_relay_header_is_a_relay() {
    let (sender, _bodies) = bodies();
    let answer = b"HTTP/1.1 200 OK\r\nwebrtc-op: Relay\r\n\r\n";
    let original = original(answer, sender);
    let mut forwarding = forwarding_to(&original);
    let mut visitor = connect(forwarding.forward_addr());
    visitor.write_all(b"there and back").unwrap();
    assert_eq!(read(&mut visitor, 14), b"there and back");
}
