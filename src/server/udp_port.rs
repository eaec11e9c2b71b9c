//! A UDP port of a client: its socket, which can be closed while others still know the port.

use crate::net::{DatagramPath, Datagrams};
use crate::sync::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Requested size in bytes of the kernel's buffer of datagrams that have come: those of a burst must wait
/// until the port is served.
const RECV_BUFFER: usize = 512 * 1024;

/// The socket of a UDP port.
pub struct UdpPort {
    socket: Mutex<Option<Arc<Datagrams>>>,
    addr: SocketAddr,
}

impl UdpPort {
    /// Opens a port on all addresses.
    pub fn bind(port: u16) -> io::Result<Self> {
        Datagrams::bind(None, port).map(Self::new)
    }

    /// Wraps a socket that is open already.
    pub fn new(socket: Datagrams) -> Self {
        socket.set_recv_buffer(RECV_BUFFER);
        Self {
            addr: socket.addr(),
            socket: Mutex::new(Some(Arc::new(socket))),
        }
    }

    /// Returns the address that visitors reach.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the socket; `None` once it is closed. Keep it no longer than a call takes: the port is open
    /// for as long as somebody has it.
    pub fn socket(&self) -> Option<Arc<Datagrams>> {
        self.socket.lock().clone()
    }

    /// Closes the port, for this process.
    pub fn close(&self) {
        *self.socket.lock() = None;
    }

    /// Sends datagrams back along `path`. Returns how many were dropped.
    pub fn send(&self, datagrams: &[&[u8]], path: &DatagramPath) -> usize {
        match self.socket() {
            Some(socket) => socket.send(datagrams, path),
            None => datagrams.len(),
        }
    }
}
