//! A visitor of a SOCKS5 proxy on a bare socket (RFC 1928, RFC 1929).

use super::visitor::{connect, read};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

/// The greeting of a visitor without a password, and that of one with a password.
pub const ANYONE: &[u8] = b"\x05\x01\x00";
pub const NAMED: &[u8] = b"\x05\x02\x00\x02";
/// The request for datagrams of a visitor that does not know its address.
pub const ASSOCIATE: [u8; 10] = [5, 3, 0, 1, 0, 0, 0, 0, 0, 0];

/// Returns the message with a name and a password.
pub fn login(user: &str, password: &str) -> Vec<u8> {
    let mut message = vec![1];
    for text in [user, password] {
        message.push(text.len() as u8);
        message.extend_from_slice(text.as_bytes());
    }
    message
}

/// Returns a request with this command for `host`, a name or an address.
pub fn request(command: u8, host: &str, port: u16) -> Vec<u8> {
    let mut message = vec![5, command, 0];
    match host.parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            message.push(1);
            message.extend_from_slice(&ip.octets());
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            message.push(4);
            message.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            message.extend_from_slice(&[3, host.len() as u8]);
            message.extend_from_slice(host.as_bytes());
        }
    }
    message.extend_from_slice(&port.to_be_bytes());
    message
}

/// Reads the reply to a request and returns its code.
pub fn reply(stream: &mut impl Read) -> u8 {
    let reply = read(stream, 10);
    assert_eq!((reply[0], &reply[2..]), (5, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
    reply[1]
}

/// Asks the proxy at `proxy` for a connection to `host`, without a password. Returns it with the code of
/// the reply.
pub fn visit(proxy: SocketAddr, host: &str, port: u16) -> (TcpStream, u8) {
    let mut stream = connect(proxy);
    let code = ask(&mut stream, host, port);
    (stream, code)
}

/// Asks as [`visit`] does, over a connection that is there.
pub fn ask(stream: &mut TcpStream, host: &str, port: u16) -> u8 {
    stream.write_all(ANYONE).expect("greet");
    assert_eq!(read(stream, 2), [5, 0]);
    stream.write_all(&request(1, host, port)).expect("ask");
    reply(stream)
}

/// Asks as [`visit`] does, with a name and a password. The code is `None` if these are wrong.
pub fn visit_as(
    mut stream: TcpStream,
    (user, password): (&str, &str),
    host: &str,
    port: u16,
) -> (TcpStream, Option<u8>) {
    stream.write_all(NAMED).expect("greet");
    assert_eq!(read(&mut stream, 2), [5, 2]);
    stream.write_all(&login(user, password)).expect("log in");
    if read(&mut stream, 2) != [1, 0] {
        return (stream, None);
    }
    stream.write_all(&request(1, host, port)).expect("ask");
    let code = reply(&mut stream);
    (stream, Some(code))
}

/// Greets, unless the greeting is empty, and asks for datagrams. Returns where they go, or the code of the
/// refusal.
pub fn associate(stream: &mut TcpStream, greeting: &[u8]) -> Result<SocketAddr, u8> {
    stream.write_all(greeting).expect("greet");
    if !greeting.is_empty() {
        assert_eq!(read(stream, 2), [5, 0]);
    }
    stream.write_all(&ASSOCIATE).expect("ask");
    let head = read(stream, 4);
    assert_eq!((head[0], head[2]), (5, 0));
    let addr = address(head[3], stream);
    match head[1] {
        0 => Ok(addr),
        code => Err(code),
    }
}

/// Reads an address of this kind.
fn address(kind: u8, from: &mut impl Read) -> SocketAddr {
    let ip: IpAddr = match kind {
        1 => <[u8; 4]>::try_from(read(from, 4)).unwrap().into(),
        4 => <[u8; 16]>::try_from(read(from, 16)).unwrap().into(),
        kind => panic!("an address of kind {kind}"),
    };
    let port = u16::from_be_bytes(read(from, 2).try_into().unwrap());
    SocketAddr::new(ip, port)
}

/// Returns a datagram for `host`, with its header.
pub fn datagram(host: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let request = request(0, host, port);
    [&[0, 0, 0], &request[3..], payload].concat()
}

/// Splits a datagram from the proxy: where it comes from, and what it is.
pub fn answer(datagram: &[u8]) -> (SocketAddr, Vec<u8>) {
    let mut rest = datagram;
    let head = read(&mut rest, 4);
    assert_eq!(head[..3], [0, 0, 0]);
    let from = address(head[3], &mut rest);
    (from, rest.to_vec())
}
