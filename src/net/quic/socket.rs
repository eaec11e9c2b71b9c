//! A UDP socket of QUIC. The datagrams of one peer are received in one system call, and sent in one, where the
//! kernel can (udp(7), `UDP_GRO` and `UDP_SEGMENT`).

use crate::net::listen::bind_first;
#[cfg(feature = "client")]
use crate::net::outbound::{bind_to, LinkSource};
use crate::net::{
    enable_gro, receive_joined, with_read_buf, Interest, JoinedDatagrams, PollSource, Readiness,
};
use crate::sync::Mutex;
use nix::errno::Errno;
use nix::libc::{in6_addr, in6_pktinfo, in_addr, in_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{sendmsg, setsockopt, ControlMessage, MsgFlags, SockaddrStorage};
use rustix::net::sockopt::{
    set_ip_mtu_discover, set_ipv6_mtu_discover, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery,
};
use smallvec::SmallVec;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::io::{self, IoSlice};
#[cfg(feature = "client")]
use std::net::Ipv6Addr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
#[cfg(feature = "server")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{ready, Context, Poll, Waker};

/// Requested size of each of the kernel's buffers in bytes: a stream's whole window may arrive at once.
const BUFFER: usize = 1024 * 1024;

/// A bound UDP socket.
#[derive(Debug)]
pub struct QuicSocket {
    io: PollSource<UdpSocket>,
    addr: SocketAddr,
    /// Whether the kernel splits the bytes of one call into datagrams.
    splits: AtomicBool,
    /// Whether another process receives in place of this one.
    is_left: AtomicBool,
    writers: Mutex<Writers>,
}

/// Tasks that wait for room in the kernel. One task may wait for a socket at a time: the one that receives.
#[derive(Debug, Default)]
struct Writers {
    waiting: Vec<Waker>,
    receiver: Option<Waker>,
}

/// Datagrams to send.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingDatagrams {
    /// The peer's address.
    pub to: SocketAddr,
    /// The address of this machine to send from; `None` for the one that the routing table selects.
    pub from: Option<IpAddr>,
    /// Length in bytes of each datagram but the last, which may be shorter.
    pub segment: usize,
}

impl QuicSocket {
    /// Binds to `host:port` like [`crate::net::listen()`].
    pub fn bind(host: Option<&str>, port: u16) -> io::Result<Self> {
        bind_first(host, port, Self::bind_to)
    }

    /// Binds to a free port, for a peer with such an address, and to this link. Fails if the link does not lead there.
    #[cfg(feature = "client")]
    pub fn for_peer(peer: SocketAddr, link: Option<&LinkSource>) -> io::Result<Self> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let any = SocketAddr::new(any, 0);
        let Some(link) = link else {
            return Self::bind_to(any);
        };
        super::source::source(peer, Some(link))?;
        let socket = RawSocket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
        bind_to(&socket, link)?;
        let bound = socket.local_addr()?.as_socket();
        // An interface is not an address.
        if bound.is_none_or(|addr| addr.port() == 0) {
            socket.bind(&any.into())?;
        }
        Self::new(socket.into())
    }

    fn bind_to(addr: SocketAddr) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&addr.into())?;
        Self::new(socket.into())
    }

    /// Adopts a bound socket of another process. Fails if it is not one.
    #[cfg(feature = "server")]
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        if SockRef::from(&socket).r#type()? != Type::DGRAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::new(socket.into())
    }

    fn new(socket: UdpSocket) -> io::Result<Self> {
        let addr = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        // The kernel may grant less, and systems may lack each of the others.
        let raw = SockRef::from(&socket);
        let _ = raw.set_recv_buffer_size(BUFFER);
        let _ = raw.set_send_buffer_size(BUFFER);
        // Packets must not be fragmented: QUIC finds out which length arrives (RFC 9000, section 14).
        if addr.is_ipv6() {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            let _ = set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE);
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        let _ = set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE);
        let splits = enable_gro(&socket);
        Ok(Self {
            io: PollSource::new(socket, &[Interest::Read, Interest::Write])?,
            addr,
            splits: AtomicBool::new(splits),
            is_left: AtomicBool::new(false),
            writers: Mutex::default(),
        })
    }

    /// Returns the address that the socket is bound to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops receiving: from now on, another process that has the socket receives.
    #[cfg(feature = "server")]
    pub fn stop_receiving(&self) {
        self.is_left.store(true, Ordering::SeqCst);
    }

    /// Receives again after [`QuicSocket::stop_receiving`].
    #[cfg(feature = "server")]
    pub fn go_on_receiving(&self) {
        self.is_left.store(false, Ordering::SeqCst);
        if let Some(receiver) = &self.writers.lock().receiver {
            receiver.wake_by_ref();
        }
    }

    /// Waits for datagrams and passes those of one peer to `take`.
    pub fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(JoinedDatagrams<'_>),
    ) -> Poll<io::Result<()>> {
        self.poll_writers(cx);
        loop {
            if self.is_left.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            ready!(self.io.poll_ready(Interest::Read, cx))?;
            let received = self.io.try_io(Interest::Read, |socket| {
                with_read_buf(|buffer| receive_joined(socket, buffer, &mut take))?;
                Ok(((), Readiness::More))
            });
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Wakes the tasks that wait for room once there is some.
    fn poll_writers(&self, cx: &mut Context<'_>) {
        let mut writers = self.writers.lock();
        if !(writers.receiver.as_ref()).is_some_and(|waker| waker.will_wake(cx.waker())) {
            writers.receiver = Some(cx.waker().clone());
        }
        if writers.waiting.is_empty() || self.io.poll_ready(Interest::Write, cx).is_pending() {
            return;
        }
        let waiting = std::mem::take(&mut writers.waiting);
        drop(writers);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Sends datagrams; waits if the kernel has no room. Those that cannot be sent are dropped, as a network
    /// may drop them.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        out: OutgoingDatagrams,
    ) -> Poll<()> {
        match self.try_send(bytes, out) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut writers = self.writers.lock();
                if !writers.waiting.iter().any(|it| it.will_wake(cx.waker())) {
                    writers.waiting.push(cx.waker().clone());
                }
                if let Some(receiver) = &writers.receiver {
                    receiver.wake_by_ref();
                }
                Poll::Pending
            }
            Err(e) => {
                log::trace!("sending to {}: {e}", out.to);
                Poll::Ready(())
            }
            Ok(()) => Poll::Ready(()),
        }
    }

    /// Sends datagrams like [`QuicSocket::poll_send`]; `WouldBlock` if the kernel has no room.
    pub fn try_send(&self, bytes: &[u8], out: OutgoingDatagrams) -> io::Result<()> {
        let is_many = bytes.len() > out.segment;
        if is_many && !self.splits.load(Ordering::Relaxed) {
            return self.try_send_each(bytes, out);
        }
        let sent = self.io.try_io(Interest::Write, |socket| {
            Ok((self.send(socket, bytes, out)?, Readiness::More))
        });
        match sent {
            // Not every device can split.
            Err(e) if is_many && is_refusal_to_split(&e) => {
                self.splits.store(false, Ordering::Relaxed);
                self.try_send_each(bytes, out)
            }
            sent => sent,
        }
    }

    /// Sends datagrams one by one. Those behind the first for which there is no room are dropped.
    fn try_send_each(&self, bytes: &[u8], out: OutgoingDatagrams) -> io::Result<()> {
        let mut result = Ok(());
        for (n, datagram) in bytes.chunks(out.segment.max(1)).enumerate() {
            let sent = self.io.try_io(Interest::Write, |socket| {
                Ok((self.send(socket, datagram, out)?, Readiness::More))
            });
            if n == 0 {
                result = sent;
            } else if sent.is_err() {
                break;
            }
            if result.is_err() {
                break;
            }
        }
        result
    }

    fn send(&self, socket: &UdpSocket, bytes: &[u8], out: OutgoingDatagrams) -> io::Result<()> {
        let is_v6 = self.addr.is_ipv6();
        let to = match out.to {
            SocketAddr::V4(v4) if is_v6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            to => to,
        };
        let (v4, v6);
        let segment = u16::try_from(out.segment).unwrap_or(u16::MAX);
        let mut control: SmallVec<[ControlMessage<'_>; 2]> = SmallVec::new();
        match out.from {
            Some(IpAddr::V4(ip)) if !is_v6 => {
                v4 = pktinfo_v4(ip);
                control.push(ControlMessage::Ipv4PacketInfo(&v4));
            }
            Some(ip) if is_v6 => {
                v6 = pktinfo_v6(ip);
                control.push(ControlMessage::Ipv6PacketInfo(&v6));
            }
            _ => {}
        }
        if bytes.len() > out.segment {
            control.push(ControlMessage::UdpGsoSegments(&segment));
        }
        let (fd, parts) = (socket.as_raw_fd(), [IoSlice::new(bytes)]);
        let (to, flags) = (SockaddrStorage::from(to), MsgFlags::empty());
        loop {
            match sendmsg(fd, &parts, &control, flags, Some(&to)) {
                Err(Errno::EINTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }
}

impl Drop for QuicSocket {
    fn drop(&mut self) {
        // Another process may have the socket.
        self.io.withdraw();
    }
}

/// For handing the socket to another process.
impl AsFd for QuicSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}

fn is_refusal_to_split(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP))
}

fn pktinfo_v4(ip: Ipv4Addr) -> in_pktinfo {
    in_pktinfo {
        // The routing table selects the interface.
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(ip.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

fn pktinfo_v6(ip: IpAddr) -> in6_pktinfo {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: v6.octets(),
        },
        ipi6_ifindex: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[test]
    fn datagrams_of_one_call_arrive_one_by_one_and_are_answered_from_their_address() {
        async_std::task::block_on(async {
            let here = QuicSocket::bind(None, 0).unwrap();
            let there = QuicSocket::for_peer("127.0.0.1:1".parse().unwrap(), None).unwrap();
            let out = OutgoingDatagrams {
                to: ([127, 0, 0, 2], here.addr().port()).into(),
                from: None,
                segment: 1000,
            };
            let sent: Vec<u8> = (0..2500u32).map(|n| (n % 251) as u8).collect();
            there.try_send(&sent, out).unwrap();
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut path = None;
            while got.len() < 3 {
                let take = |received: JoinedDatagrams<'_>| {
                    path = Some((received.from, received.to));
                    got.extend(received.datagrams().map(<[u8]>::to_vec));
                };
                let mut take = Some(take);
                poll_fn(|cx| here.poll_receive(cx, |it| take.as_mut().unwrap()(it)))
                    .await
                    .unwrap();
            }
            let lengths: Vec<usize> = got.iter().map(Vec::len).collect();
            assert_eq!((lengths, got.concat()), (vec![1000, 1000, 500], sent));
            let (from, to) = path.unwrap();
            assert_eq!(to, Some([127, 0, 0, 2].into()));
            let answer = OutgoingDatagrams {
                to: from,
                from: to,
                segment: 1000,
            };
            here.try_send(b"answer", answer).unwrap();
            let mut source = None;
            poll_fn(|cx| there.poll_receive(cx, |received| source = Some(received.from)))
                .await
                .unwrap();
            assert_eq!(source, Some(out.to));
        });
    }
}
