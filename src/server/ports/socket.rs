//! The socket of a port of either protocol. Not the client that it belongs to.

use super::super::udp_port::UdpPort;
use super::{PortId, Protocol};
use crate::net::kernel::{AsFd, OwnedFd};
use crate::net::{self, Datagrams, Listener};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// The socket of a port.
#[derive(Clone)]
pub enum PortSocket {
    Tcp(Arc<Listener>),
    Udp(Arc<UdpPort>),
}

impl PortSocket {
    /// Opens a port.
    pub(super) fn open((protocol, port): PortId) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp => Self::Tcp(Arc::new(net::listen(None, port)?)),
            Protocol::Udp => Self::Udp(Arc::new(UdpPort::bind(port)?)),
        })
    }

    /// Returns the protocol of the port.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::Udp(_) => Protocol::Udp,
        }
    }

    /// Returns the address that visitors reach.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Tcp(listener) => listener.addr(),
            Self::Udp(socket) => socket.addr(),
        }
    }

    /// Sets whether new visitors use the congestion control BBR.
    pub fn set_bbr(&self, bbr: bool) {
        match self {
            Self::Tcp(listener) => net::set_bbr(&**listener, bbr),
            Self::Udp(_) => {}
        }
    }

    /// Notes whether another process has the socket, too.
    pub(super) fn set_shared(&self, shared: bool) {
        match self {
            Self::Tcp(listener) => listener.set_shared(shared),
            // Closing it here leaves it open there.
            Self::Udp(_) => {}
        }
    }

    /// Closes the port now: its client may request it again before the task that serves it ends.
    pub(super) fn close(&self, has_older: bool) {
        match self {
            // Shutting a socket down ends it in every process that holds it.
            Self::Tcp(listener) if listener.is_shared() || has_older => {}
            Self::Tcp(listener) => listener.close(),
            Self::Udp(socket) => socket.close(),
        }
    }

    /// Returns the socket for another process; `None` if it was closed.
    pub fn to_send(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        match self {
            Self::Tcp(listener) => Some(listener.clone()),
            Self::Udp(socket) => Some(socket.socket()?),
        }
    }

    /// Adopts the socket of another process. Fails if it is not one of this protocol.
    pub fn adopt(protocol: Protocol, socket: OwnedFd) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp => Self::Tcp(Arc::new(Listener::adopt(socket)?)),
            Protocol::Udp => Self::Udp(Arc::new(UdpPort::new(Datagrams::adopt(socket)?))),
        })
    }
}
