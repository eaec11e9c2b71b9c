//! Hand-written signaling to a client of gt (docs/gt1.md, "P2P signaling"): requests with the
//! method `XP` and messages in their bodies, over a plain connection to the server.

use super::visitor::{connect, read, read_to_end};
use serde_json::{json, Value};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};

/// How the messages are framed in a request's body.
#[derive(Clone, Copy, Debug)]
pub enum Layer {
    Plain,
    /// In chunks of their own, inside those of HTTP.
    Chunks,
}

/// Encodes a message: `u16 length, JSON`.
pub fn message(value: &Value) -> Vec<u8> {
    let json = value.to_string();
    let length = u16::try_from(json.len()).expect("a message of at most 64 KiB");
    [&length.to_be_bytes(), json.as_bytes()].concat()
}

pub fn candidate(line: &str) -> Value {
    json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0})
}

pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A request that is being sent, and its response as it arrives.
pub struct Signal {
    pub stream: TcpStream,
    layer: Layer,
    /// Bytes of the response's body that are not a whole message yet.
    body: Vec<u8>,
}

impl Signal {
    /// Sends a request's head for `host`, with these additional lines (`Name: value\r\n`).
    pub fn start(server: SocketAddr, host: &str, lines: &str, layer: Layer) -> Signal {
        let mut stream = connect(server);
        let head =
            format!("XP / HTTP/1.1\r\nHost: {host}\r\n{lines}Transfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("send a head");
        Signal {
            stream,
            layer,
            body: Vec::new(),
        }
    }

    pub fn say(&mut self, value: &Value) {
        let message = message(value);
        let body = match self.layer {
            Layer::Plain => message,
            Layer::Chunks => chunk(&message),
        };
        self.stream
            .write_all(&chunk(&body))
            .expect("send a message");
    }

    /// Ends the body.
    pub fn finish(&mut self) {
        let end: &[u8] = match self.layer {
            Layer::Plain => b"0\r\n\r\n",
            Layer::Chunks => b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        };
        self.stream.write_all(end).expect("end a body");
    }

    /// Reads the response's head and returns its status.
    pub fn status(&mut self) -> u16 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read(&mut self.stream, 1));
        }
        let head = String::from_utf8(head).expect("a head of text");
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        status.unwrap_or_else(|| panic!("no HTTP answer: {head:?}"))
    }

    /// Returns the next chunk of the response; `None` at the end.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(read(&mut self.stream, 1));
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        let size = usize::from_str_radix(&text, 16).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let data = read(&mut self.stream, size);
        assert_eq!(read(&mut self.stream, 2), b"\r\n", "a chunk's end");
        (size > 0).then_some(data)
    }

    /// Returns the next message of the response; `None` at the end. `{"id":N}` has no length
    /// prefix.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            if self.body.first() == Some(&b'{') {
                return Some(serde_json::from_slice(&self.body.split_off(0)).expect("JSON"));
            }
            if self.body.len() >= 2 {
                let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
                if self.body.len() >= 2 + length {
                    let rest = self.body.split_off(2 + length);
                    let message = std::mem::replace(&mut self.body, rest);
                    return Some(serde_json::from_slice(&message[2..]).expect("JSON"));
                }
            }
            let Some(more) = self.chunk() else {
                assert!(self.body.is_empty(), "half a message: {:?}", self.body);
                return None;
            };
            self.body.extend(more);
        }
    }

    /// Sends `body` unchanged behind the head and returns the response's status.
    pub fn send_raw(mut self, body: &[u8]) -> u16 {
        // A refusal may come before everything is sent.
        let _ = self.stream.write_all(body);
        let _ = self.stream.shutdown(Shutdown::Write);
        let status = self.status();
        read_to_end(&mut self.stream);
        status
    }
}
