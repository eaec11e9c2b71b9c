//! A visitor on a bare socket, for what curl cannot do.

use super::PATIENCE;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Connects, with timeouts for reads and writes.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)
        .unwrap_or_else(|e| panic!("connect to {addr}: {e}"));
    set_limits(&stream);
    stream
}

/// Connects from the address `from` of this machine.
pub fn connect_from(from: Ipv4Addr, addr: SocketAddr) -> TcpStream {
    try_connect_from(from, addr).unwrap_or_else(|e| panic!("connect from {from} to {addr}: {e}"))
}

/// As [`connect_from`]; a server that resets a connection at once may do so before this returns.
pub fn try_connect_from(from: Ipv4Addr, addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let bound = socket.bind(&SocketAddr::from((from, 0)).into());
    bound.unwrap_or_else(|e| panic!("bind to {from}: {e}"));
    socket.connect_timeout(&addr.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    set_limits(&stream);
    Ok(stream)
}

pub fn set_limits(stream: &TcpStream) {
    stream.set_nonblocking(false).expect("make it wait");
    stream.set_nodelay(true).expect("set nodelay");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("limit reads");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("limit writes");
}

/// Reads exactly `count` bytes.
pub fn read(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream
        .read_exact(&mut bytes)
        .unwrap_or_else(|e| panic!("read {count} bytes: {e}"));
    bytes
}

/// Reads up to the end; a reset is an end too, silence is not.
pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => {
            panic!("{} bytes came, but no end: {e}", bytes.len())
        }
        _ => bytes,
    }
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The head without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gets `path` of `host` over a new connection.
pub fn get(addr: SocketAddr, host: &str, path: &str) -> Answer {
    ask(
        addr,
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    )
}

/// Sends `request` and reads the response up to the end of the connection.
pub fn ask(addr: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(addr);
    stream
        .write_all(request.as_bytes())
        .expect("send a request");
    let bytes = read_to_end(&mut stream);
    parse(&bytes)
}

/// Reads one response with a Content-Length from a connection that stays open.
pub fn read_answer(stream: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.extend(read(stream, 1));
    }
    let mut answer = parse(&bytes);
    let length = answer
        .head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or_else(|| panic!("no length in {:?}", answer.head));
    answer.body = read(stream, length);
    answer
}

fn parse(bytes: &[u8]) -> Answer {
    let shown = String::from_utf8_lossy(bytes);
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP answer: {shown:?}"));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .unwrap_or_else(|| panic!("no HTTP answer: {shown:?}"));
    Answer {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    }
}
