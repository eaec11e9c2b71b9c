//! A UDP socket whose answers leave from the address that the question came to. A machine may have
//! several addresses, and a peer drops an answer from an address that it did not ask.

use super::listen::bind_first;
use super::{with_read_buf, Interest, PollSource, Timer};
use nix::errno::Errno;
use nix::libc::{in6_pktinfo, in_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    recvmsg, sendmsg, setsockopt, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage,
};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A bound UDP socket that knows the local address of each datagram.
pub struct Datagrams {
    io: PollSource<UdpSocket>,
    addr: SocketAddr,
}

/// The path of a received datagram: from which peer, to which address of this machine.
pub struct DatagramPath {
    from: SockaddrStorage,
    to: LocalDestination,
}

/// The address of this machine that the datagram came to.
enum LocalDestination {
    V4(in_pktinfo),
    V6(in6_pktinfo),
    /// The system does not report it.
    Unknown,
}

impl Datagrams {
    /// Binds to `host:port` like [`super::listen()`].
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
        Ok(Self { io, addr })
    }

    /// Returns the address that the socket is bound to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the next datagram and passes it and its path to `use_it`.
    pub async fn receive<T>(
        &self,
        mut use_it: impl FnMut(&[u8], SocketAddr) -> T,
    ) -> (T, DatagramPath) {
        loop {
            let received = self.io.call(Interest::Read, |socket| {
                with_read_buf(|buffer| {
                    let (count, path) = receive(socket, buffer)?;
                    let bytes = buffer.get(..count).unwrap_or_default();
                    Ok((use_it(bytes, path.from()?), path))
                })
            });
            match received.await {
                Ok(received) => return received,
                Err(e) => {
                    // The error of an earlier datagram, or a shortage of memory or descriptors.
                    log::debug!("receiving on {}: {e}", self.addr);
                    Timer::after(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Sends `bytes` back along `path`; drops them if that would block.
    pub fn answer(&self, bytes: &[u8], path: &DatagramPath) -> io::Result<()> {
        let message = match &path.to {
            LocalDestination::V4(info) => Some(ControlMessage::Ipv4PacketInfo(info)),
            LocalDestination::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
            LocalDestination::Unknown => None,
        };
        let (socket, parts) = (self.io.get_ref().as_raw_fd(), [IoSlice::new(bytes)]);
        let messages = message.as_slice();
        loop {
            match sendmsg(
                socket,
                &parts,
                messages,
                MsgFlags::empty(),
                Some(&path.from),
            ) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop).map_err(io::Error::from),
            }
        }
    }
}

impl DatagramPath {
    fn from(&self) -> io::Result<SocketAddr> {
        let v4 = self.from.as_sockaddr_in();
        let v4 = v4.map(|addr| SocketAddr::V4((*addr).into()));
        let v6 = self.from.as_sockaddr_in6();
        let v6 = v6.map(|addr| SocketAddr::V6((*addr).into()));
        v4.or(v6).ok_or(io::ErrorKind::InvalidData.into())
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, DatagramPath)> {
    let mut space = nix::cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    let received = loop {
        match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let to = received.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(mut info) => {
                // The routing table selects the interface for the answer.
                info.ipi_ifindex = 0;
                Some(LocalDestination::V4(info))
            }
            ControlMessageOwned::Ipv6PacketInfo(mut info) => {
                // A link-local address needs its interface; for others the routing table selects
                // it.
                if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                Some(LocalDestination::V6(info))
            }
            _ => None,
        })
    });
    let to = to.unwrap_or(LocalDestination::Unknown);
    let from = received.address.ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, DatagramPath { from, to }))
}

/// For handing the socket to another process.
impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}
