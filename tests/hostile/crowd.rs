//! Many connections of one attacker, from many addresses.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connections from one address.
const OF_ONE: usize = 1000;

/// Raises this process's limit of descriptors to the maximum, and returns it.
pub fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raise the limit of descriptors");
    limit
        .maximum
        .map_or(usize::MAX, |most| usize::try_from(most).unwrap())
}

/// Returns a loopback address of an attacker, from `127.0.0.2` on.
pub fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(2 + number).unwrap())
}

/// Connects from `from`.
pub fn connect_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), crate::common::PATIENCE)?;
    Ok(socket.into())
}

/// Resets the connection instead of closing it.
pub fn cut(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("choose a reset");
}

pub struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Opens `count` connections to `to`.
    pub fn gather(to: SocketAddr, count: usize) -> Crowd {
        raise_descriptors();
        let connect = |number| {
            let stream = connect_from(address(number / OF_ONE), to);
            let stream = stream.unwrap_or_else(|e| panic!("connection {number} to {to}: {e}"));
            stream.set_nonblocking(true).expect("not wait");
            stream
        };
        Crowd((0..count).map(connect).collect())
    }

    /// Sends `bytes` on all of them. Errors on closed ones are ignored.
    pub fn say(&mut self, bytes: &[u8]) {
        for stream in &mut self.0 {
            let _ = stream.write(bytes);
        }
    }

    /// Drops the connections that the other end has closed, and returns how many are left.
    pub fn open(&mut self) -> usize {
        let mut buffer = [0; 4096];
        self.0.retain_mut(|stream| loop {
            match stream.read(&mut buffer) {
                Ok(0) => break false,
                // Bytes before the close, such as an error page.
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break true,
                Err(_) => break false,
            }
        });
        self.0.len()
    }

    pub fn cut(self) {
        self.0.into_iter().for_each(cut);
    }
}
