//! TCP and UDP ports of clients: which ones a client may have, and how they are opened. `visitor` accepts
//! on those of TCP, `flows` receives on those of UDP.

mod failure;
mod inherited;
mod listener;
mod opening;
mod quota;
mod socket;
#[cfg(test)]
mod tests;

pub use failure::PortFailure;
pub use inherited::InheritedPort;
pub use listener::{OpenedPort, PortListener};
pub use opening::{open, open_early, MAX_TRIES_LOCKED};
pub use quota::PortQuota;
pub use socket::PortSocket;

use crate::wire::hello::ServiceSpec;
use std::fmt;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP: a visitor is a connection.
    Tcp,
    /// UDP: a visitor is an address that datagrams come from.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The number of a port and its protocol.
pub type PortId = (Protocol, u16);

/// A client's request for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRequest {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether any other allowed port will do if `port` cannot be opened.
    pub random: bool,
    /// The port.
    pub port: u16,
}

impl PortRequest {
    /// Returns the request of a service; `None` if it has no port.
    pub fn of(spec: &ServiceSpec) -> Option<Self> {
        let (protocol, random, port) = match *spec.ungrouped() {
            ServiceSpec::Tcp { random, port } => (Protocol::Tcp, random, port),
            ServiceSpec::Udp { random, port } => (Protocol::Udp, random, port),
            ServiceSpec::Host { .. }
            | ServiceSpec::Domains { .. }
            | ServiceSpec::Grouped { .. } => return None,
        };
        Some(Self {
            protocol,
            random,
            port,
        })
    }

    /// Returns the requested number and the protocol.
    pub fn id(self) -> PortId {
        (self.protocol, self.port)
    }
}
