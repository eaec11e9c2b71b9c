//! Packets between two processes in a restart: the process that has taken over a socket receives the packets of the
//! draining process, too, and passes them on. It recognizes them by their connection IDs.

use super::endpoint::EndpointHandle;
use super::setup;
use crate::net::kernel;
use crate::net::{self, clock, Interest, PollSource};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Length in bytes of gt's connection IDs.
const ID: usize = 8;
/// Maximum length in bytes of a packet with its addresses: no packet of QUIC is longer than Ethernet allows.
const MAX_PACKET: usize = 2048;
/// Length in bytes of the addresses before a packet: the peer's, its port and zone, and this machine's.
const ADDRESSES: usize = 16 + 2 + 4 + 16;

/// The link to the process that had an endpoint's socket before, and whose connections are still running.
pub struct PacketLink {
    to: Arc<PollSource<OwnedFd>>,
    theirs: HashedConnectionIdGenerator,
}

/// The connection IDs of an endpoint, and the link to the process that had its socket before.
pub struct PacketRoutes {
    ours: HashedConnectionIdGenerator,
    parent: Option<PacketLink>,
}

impl PacketLink {
    /// Uses the socket that the other process has handed over, and the key of its connection IDs.
    #[cfg(feature = "server")]
    pub fn new(socket: OwnedFd, key: u64) -> io::Result<Self> {
        kernel::set_nonblocking(&socket)?;
        Ok(Self {
            to: Arc::new(PollSource::new(socket, &[Interest::Read])?),
            theirs: setup::generator(key),
        })
    }

    /// Returns what waits until the other process has closed its end: it has no more connections then.
    #[cfg(feature = "server")]
    pub fn end(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let to = self.to.clone();
        async move {
            // No packets come this way.
            let call = |to: &OwnedFd| kernel::receive_packet(to, 1);
            while to.call(Interest::Read, call).await.is_ok() {}
        }
    }
}

impl PacketRoutes {
    /// Creates the routes of an endpoint.
    pub fn new(key: u64, parent: Option<PacketLink>) -> Self {
        Self {
            ours: setup::generator(key),
            parent,
        }
    }

    /// Passes a packet on that is for another process. False if it is for this one.
    pub fn pass_on(&mut self, from: SocketAddr, to: Option<IpAddr>, packet: &[u8]) -> bool {
        let Some(parent) = &self.parent else {
            return false;
        };
        // Processes before the parent have connections, too, but no handshakes any more.
        let is_theirs = match id_of(packet) {
            Some(PacketId::Short(id)) => self.ours.validate(&id).is_err(),
            Some(PacketId::Long(id)) => parent.theirs.validate(&id).is_ok(),
            None => false,
        };
        if !is_theirs {
            return false;
        }
        let bytes = encode(from, to, packet);
        match kernel::send_packet(parent.to.get_ref(), &bytes, None) {
            Ok(()) => {}
            // The packet is lost, as a network may lose it.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.parent = None,
        }
        true
    }
}

/// The connection ID of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum PacketId {
    /// The ID in a packet with a short header: one of gt's.
    Short(ConnectionId),
    /// The ID in a packet with a long header: one of gt's, or a random one of the client.
    Long(ConnectionId),
}

/// Returns the destination's connection ID (RFC 8999, section 5). `None` if it cannot be one of gt's.
pub fn id_of(packet: &[u8]) -> Option<PacketId> {
    let (first, rest) = packet.split_first()?;
    if first & 0x80 == 0 {
        let id = rest.get(..ID)?;
        return Some(PacketId::Short(ConnectionId::new(id)));
    }
    // Behind the version.
    let length = usize::from(*rest.get(4)?);
    let id = rest.get(5..5 + ID).filter(|_| length == ID)?;
    Some(PacketId::Long(ConnectionId::new(id)))
}

fn encode(from: SocketAddr, to: Option<IpAddr>, packet: &[u8]) -> Vec<u8> {
    let v6 = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let zone = match from {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let mut bytes = Vec::with_capacity(ADDRESSES + packet.len());
    bytes.extend(v6(from.ip()).octets());
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(zone.to_be_bytes());
    // No packet comes to the unspecified address.
    bytes.extend(to.map_or(Ipv6Addr::UNSPECIFIED, v6).octets());
    bytes.extend(packet);
    bytes
}

/// Returns what [`encode`] has written: the addresses of a packet, and the packet.
pub fn decode(bytes: &[u8]) -> Option<(SocketAddr, Option<IpAddr>, &[u8])> {
    let (from, rest) = bytes.split_first_chunk::<16>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (zone, rest) = rest.split_first_chunk::<4>()?;
    let (to, packet) = rest.split_first_chunk::<16>()?;
    let (port, zone) = (u16::from_be_bytes(*port), u32::from_be_bytes(*zone));
    let from = Ipv6Addr::from(*from);
    let from = match from.to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), port),
        IpAddr::V6(_) => SocketAddrV6::new(from, port, 0, zone).into(),
    };
    let to = IpAddr::from(*to).to_canonical();
    Some((from, Some(to).filter(|to| !to.is_unspecified()), packet))
}

/// Creates a link, of which the returned end is for the process that takes over the socket of `endpoint`. The
/// packets that come over it are the endpoint's until that process has closed its end. When the endpoint is
/// closed before, only that process receives from the socket.
#[cfg(feature = "server")]
pub fn link(endpoint: &EndpointHandle) -> io::Result<OwnedFd> {
    let (here, there) = kernel::packet_pair()?;
    kernel::set_nonblocking(&here)?;
    let source = PollSource::new(here, &[Interest::Read])?;
    let (endpoint, stop) = (Arc::downgrade(endpoint), endpoint.stop());
    if let Some(endpoint) = endpoint.upgrade() {
        endpoint.link_begins();
    }
    net::spawn(async move {
        let receiving = async {
            loop {
                let call = |from: &OwnedFd| kernel::receive_packet(from, MAX_PACKET);
                let Ok((packet, _)) = source.call(Interest::Read, call).await else {
                    return;
                };
                let Some(endpoint) = endpoint.upgrade() else {
                    return;
                };
                if let Some((from, to, packet)) = decode(&packet) {
                    endpoint.take(from, to, [packet].into_iter(), clock::now());
                }
            }
        };
        stop.or(receiving).await;
        if let Some(endpoint) = endpoint.upgrade() {
            endpoint.link_ends();
        }
    });
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_crosses_processes_with_its_addresses() {
        let v4: SocketAddr = ([192, 0, 2, 1], 5).into();
        let v6: SocketAddr = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 6, 0, 7).into();
        for (from, to) in [(v4, Some([192, 0, 2, 2].into())), (v6, None)] {
            let bytes = encode(from, to, b"packet");
            assert_eq!(decode(&bytes), Some((from, to, &b"packet"[..])));
            assert_eq!(decode(&bytes[..ADDRESSES - 1]), None);
        }
    }

    #[test]
    fn the_packets_of_another_process_are_told_by_their_connection_ids() {
        let (here, there) = kernel::packet_pair().unwrap();
        let mut routes = PacketRoutes::new(1, Some(PacketLink::new(here, 2).unwrap()));
        let from: SocketAddr = ([192, 0, 2, 1], 5).into();
        let short = |key: u64| {
            let id = setup::generator(key).generate_cid();
            [&[0x40], &*id, b"rest"].concat()
        };
        let long = |id: &[u8]| [&[0xC0, 0, 0, 0, 1, id.len() as u8], id, b"rest"].concat();
        let theirs = setup::generator(2).generate_cid();
        assert!(!routes.pass_on(from, None, &short(1)));
        assert!(routes.pass_on(from, None, &short(2)));
        assert!(
            routes.pass_on(from, None, &short(3)),
            "of one before the parent"
        );
        assert!(routes.pass_on(from, None, &long(&theirs)));
        assert!(!routes.pass_on(from, None, &long(&[7; 8])));
        assert!(!routes.pass_on(from, None, &long(&[7; 20])));
        for cut in 0..6 {
            assert!(!routes.pass_on(from, None, &short(2)[..cut]));
        }
        let (packet, _) = kernel::receive_packet(&there, MAX_PACKET).unwrap();
        assert_eq!(decode(&packet).unwrap().2, short_of(&packet));
        drop(there);
        routes.pass_on(from, None, &short(2));
        assert!(
            !routes.pass_on(from, None, &short(2)),
            "the parent has ended"
        );
    }

    fn short_of(packet: &[u8]) -> &[u8] {
        &packet[ADDRESSES..]
    }
}
