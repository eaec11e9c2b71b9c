//! A client's end of a WebSocket with a tunnel, written by hand from RFC 6455 and docs/wire.md.

use super::visitor::{connect, read};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

/// Opcodes of frames, with the bit of a message's last frame.
pub const BINARY: u8 = 0x82;
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;

/// Builds the request for a tunnel; `more` are further lines of its head.
pub fn request(host: &str, path: &str, more: &str) -> String {
    with_protocol("gt", host, path, more)
}

/// Builds a request for a WebSocket with this sub-protocol.
pub fn with_protocol(protocol: &str, host: &str, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n{more}\r\n"
    )
}

/// Connects, sends `request`, and returns the connection with the head of the answer.
pub fn ask(addr: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = connect(addr);
    stream.write_all(request.as_bytes()).expect("ask");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(&mut stream, 1));
    }
    (stream, String::from_utf8(head).expect("text"))
}

/// Opens a WebSocket for a tunnel.
pub fn open(addr: SocketAddr) -> TcpStream {
    let (stream, head) = ask(addr, &request("gt.example.com", "/gt", ""));
    assert_granted(&head);
    stream
}

/// Checks that an answer grants a WebSocket for a tunnel.
pub fn assert_granted(head: &str) {
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(
        head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(head.contains("Sec-WebSocket-Protocol: gt\r\n"), "{head}");
}

/// Builds a frame of a client.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match u16::try_from(payload.len()).expect("a short frame") {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(KEY);
    let masked = payload.iter().zip(KEY.iter().cycle());
    frame.extend(masked.map(|(byte, key)| byte ^ key));
    frame
}

/// Reads a frame of a server: its first byte and its payload.
pub fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let head = read(stream, 2);
    let length = match head[1] {
        126 => {
            let length = read(stream, 2);
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        }
        length @ 0..126 => usize::from(length),
        other => panic!("a long or masked frame: {other}"),
    };
    (head[0], read(stream, length))
}
