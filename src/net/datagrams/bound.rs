//! A UDP socket whose answers leave from the address that the question came to. A machine may have
//! several addresses, and a peer drops an answer from an address that it did not ask.

use super::batch::{self, Received, Told, MAX_BATCH};
use super::coalescing::Coalescing;
use super::run::Run;
use crate::net::listen::bind_first;
#[cfg(feature = "p2p")]
use crate::net::Timer;
use crate::net::{Interest, PollSource, Readiness, ShardId};
use nix::libc::{in6_pktinfo, in_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{setsockopt, ControlMessage, ControlMessageOwned, SockaddrStorage};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{ready, Context, Poll};
#[cfg(feature = "p2p")]
use std::time::Duration;

/// A bound UDP socket that knows the local address of each datagram.
pub struct Datagrams {
    io: PollSource<UdpSocket>,
    addr: SocketAddr,
    run: Run,
    coalescing: Coalescing,
}

/// The path of a received datagram: from which peer, to which address of this machine.
#[derive(Clone, Copy, Debug)]
pub struct DatagramPath {
    /// The peer's address. One of IPv4 is not in the form of IPv6.
    pub from: SocketAddr,
    /// The same as the kernel has it.
    raw: SocketAddr,
    to: LocalDestination,
}

/// The address of this machine that the datagram came to.
#[derive(Clone, Copy, Debug)]
enum LocalDestination {
    V4(in_pktinfo),
    V6(in6_pktinfo),
    /// The system does not report it.
    Unknown,
}

impl Datagrams {
    /// Binds to `host:port` like [`crate::net::listen()`].
    pub fn bind(host: Option<&str>, port: u16) -> io::Result<Self> {
        bind_first(host, port, |addr| {
            let kind = (Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP));
            let socket = RawSocket::new(kind.0, kind.1, kind.2)?;
            if addr.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            socket.bind(&addr.into())?;
            Self::new(socket.into())
        })
    }

    /// Adopts a bound socket of another process. Fails if it is not one.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        if SockRef::from(&socket).r#type()? != Type::DGRAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::new(socket.into())
    }

    fn new(socket: UdpSocket) -> io::Result<Self> {
        let addr = socket.local_addr()?;
        if addr.is_ipv6() {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        socket.set_nonblocking(true)?;
        let io = PollSource::new(socket, &[Interest::Read])?;
        Ok(Self {
            io,
            addr,
            run: Run::default(),
            coalescing: Coalescing::default(),
        })
    }

    /// Returns the address that the socket is bound to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the path to a peer, for which the kernel selects the address of this machine; `None` if the
    /// socket has no addresses of the peer's family.
    #[cfg(all(feature = "client", feature = "proxy"))]
    pub fn path_to(&self, peer: SocketAddr) -> Option<DatagramPath> {
        let raw = match (self.addr, peer.ip()) {
            (SocketAddr::V4(_), IpAddr::V6(_)) => return None,
            (SocketAddr::V6(_), IpAddr::V4(ip)) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), peer.port())
            }
            _ => peer,
        };
        Some(DatagramPath {
            from: peer,
            raw,
            to: LocalDestination::Unknown,
        })
    }

    /// Ready when datagrams may have come.
    #[cfg(all(feature = "client", feature = "proxy"))]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_ready(Interest::Read, cx)
    }

    /// Lets the tasks of another executor thread wait for datagrams.
    pub fn move_to(&self, thread: ShardId) -> io::Result<()> {
        self.io.move_to(thread)
    }

    /// Requests a size in bytes of the kernel's buffer of datagrams that have come.
    pub fn set_recv_buffer(&self, bytes: usize) {
        // The kernel may grant less.
        let _ = SockRef::from(self.io.get_ref()).set_recv_buffer_size(bytes);
    }

    /// Waits for datagrams and passes those that have come to `take`, with their paths: at most `most`, and no
    /// more than one system call receives. The error is that of an earlier datagram, or a shortage of memory.
    pub fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        mut take: impl FnMut(&[u8], DatagramPath),
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.coalescing.poll_due(&self.io, cx))?;
            let mut emptied = true;
            let mut found = 0;
            let received = self.io.try_io(Interest::Read, |socket| {
                let told = match self.addr {
                    SocketAddr::V4(_) => Told::PathV4,
                    SocketAddr::V6(_) => Told::PathV6,
                };
                let most = most.clamp(1, MAX_BATCH);
                let count = batch::receive(socket, told, most, |datagram| {
                    if let Some(path) = DatagramPath::of(&datagram) {
                        take(datagram.bytes, path);
                    }
                })?;
                (found, emptied) = (count, count < most);
                let more = match emptied {
                    true => Readiness::Nothing,
                    false => Readiness::More,
                };
                Ok(((), more))
            });
            self.coalescing.note(&self.io, found, emptied);
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Waits for the next datagram and passes it and its path to `use_it`.
    #[cfg(feature = "p2p")]
    pub async fn receive<T>(
        &self,
        mut use_it: impl FnMut(&[u8], SocketAddr) -> T,
    ) -> (T, DatagramPath) {
        loop {
            let mut received = None;
            let receiving = std::future::poll_fn(|cx| {
                self.poll_receive(cx, 1, |bytes, path| {
                    received = Some((use_it(bytes, path.from), path));
                })
            });
            match (receiving.await, received) {
                (_, Some(received)) => return received,
                (Ok(()), None) => {}
                (Err(e), None) => {
                    log::debug!("receiving on {}: {e}", self.addr);
                    Timer::after(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Sends `bytes` back along `path`. False if they were dropped.
    #[cfg(feature = "p2p")]
    pub fn answer(&self, bytes: &[u8], path: &DatagramPath) -> bool {
        self.send(&[bytes], path) == 0
    }

    /// Sends datagrams back along `path`. Returns how many were dropped.
    pub fn send(&self, datagrams: &[&[u8]], path: &DatagramPath) -> usize {
        let control = match &path.to {
            LocalDestination::V4(info) => Some(ControlMessage::Ipv4PacketInfo(info)),
            LocalDestination::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
            LocalDestination::Unknown => None,
        };
        let to = SockaddrStorage::from(path.raw);
        let socket = self.io.get_ref();
        self.run.send(socket, Some(&to), control, datagrams)
    }
}

impl DatagramPath {
    /// A path from this address, to one that is not known.
    #[cfg(test)]
    pub fn of_test(from: SocketAddr) -> Self {
        Self {
            from,
            raw: from,
            to: LocalDestination::Unknown,
        }
    }

    fn of(datagram: &Received<'_>) -> Option<Self> {
        let from = datagram.from?;
        let v4 = from.as_sockaddr_in();
        let v4 = v4.map(|addr| SocketAddr::V4((*addr).into()));
        let v6 = from.as_sockaddr_in6();
        let v6 = v6.map(|addr| SocketAddr::V6((*addr).into()));
        let raw = v4.or(v6)?;
        let to = match datagram.to {
            Some(ControlMessageOwned::Ipv4PacketInfo(mut info)) => {
                // The routing table selects the interface for the answer.
                info.ipi_ifindex = 0;
                LocalDestination::V4(info)
            }
            Some(ControlMessageOwned::Ipv6PacketInfo(mut info)) => {
                // A link-local address needs its interface; for others the routing table selects
                // it.
                if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                LocalDestination::V6(info)
            }
            _ => LocalDestination::Unknown,
        };
        let from = match raw.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), raw.port()),
            // With its zone.
            IpAddr::V6(_) => raw,
        };
        Some(Self { from, raw, to })
    }

    /// Returns the address of this machine that the datagram came to; `None` if it is not known.
    pub fn to(&self) -> Option<IpAddr> {
        match self.to {
            LocalDestination::V4(info) => {
                // The number is in the order of bytes of the network.
                Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
            }
            LocalDestination::V6(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical()),
            LocalDestination::Unknown => None,
        }
    }
}

/// For handing the socket to another process.
impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}
