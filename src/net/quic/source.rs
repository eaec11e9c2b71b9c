//! The address that packets to a server leave from, and its changes. The kernel selects the address for each packet;
//! a connection has to move when it changes.

use crate::net::{source_for, NetworkChanges};
use std::net::{IpAddr, SocketAddr};

/// The changes of the address that packets to a server leave from.
pub struct SourceChanges {
    peer: SocketAddr,
    last: Option<IpAddr>,
    network: NetworkChanges,
}

impl SourceChanges {
    /// Watches the address for packets to `peer`.
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            network: NetworkChanges::watch(),
            last: source_for(peer),
        }
    }

    /// Waits until packets leave from another address, or leave again. Never returns where the kernel does not
    /// report changes.
    pub async fn next(&mut self) -> IpAddr {
        loop {
            self.network.next().await;
            let now = source_for(self.peer);
            let before = std::mem::replace(&mut self.last, now);
            if let Some(ip) = now.filter(|_| now != before) {
                return ip;
            }
        }
    }
}
