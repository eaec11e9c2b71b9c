//! The address that packets to a server leave from, and its changes. The kernel selects the address for each packet;
//! a connection has to move when it changes.

use crate::net::outbound::{bind_to, LinkSource};
use crate::net::{source_for, NetworkChanges};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Returns the address that packets to `peer` over this link leave from at present. Fails without a route.
pub fn source(peer: SocketAddr, link: Option<&LinkSource>) -> io::Result<IpAddr> {
    let Some(link) = link else {
        return source_for(peer).ok_or_else(|| io::ErrorKind::NetworkUnreachable.into());
    };
    let socket = RawSocket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    bind_to(&socket, link)?;
    // Sends nothing.
    socket.connect(&peer.into())?;
    let addr = socket.local_addr()?.as_socket();
    let addr = addr.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(addr.ip())
}

/// A link, and the address that packets over it leave from; `None` if it leads nowhere.
type LinkAddress = (Option<LinkSource>, Option<IpAddr>);

/// The changes of the address that packets to a server leave from.
pub struct SourceChanges {
    peer: SocketAddr,
    last: LinkAddress,
    network: NetworkChanges,
}

impl SourceChanges {
    /// Watches the address for packets to `peer` over this link.
    pub fn new(peer: SocketAddr, link: Option<LinkSource>) -> Self {
        Self {
            peer,
            network: NetworkChanges::watch(),
            last: look(peer, link),
        }
    }

    /// Waits until packets leave from another address, or leave again, or the link leads nowhere any more. `link` returns
    /// the link, which may have changed. Never returns where the kernel does not report changes.
    pub async fn next(&mut self, link: impl Fn() -> Option<LinkSource>) -> Option<IpAddr> {
        loop {
            self.network.next().await;
            let now = look(self.peer, link());
            let before = std::mem::replace(&mut self.last, now.clone());
            let is_same_link = now.0 == before.0;
            if is_same_link && now.1 != before.1 && (now.0.is_some() || now.1.is_some()) {
                return now.1;
            }
        }
    }
}

fn look(peer: SocketAddr, link: Option<LinkSource>) -> LinkAddress {
    let ip = source(peer, link.as_ref()).ok();
    (link, ip)
}
