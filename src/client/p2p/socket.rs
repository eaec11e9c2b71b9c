//! The UDP socket that all peers of a client share. Datagrams of one size to one peer are sent in
//! one system call, and received in one, where the kernel supports it.

use super::P2pError;
use crate::net::{
    enable_gro, receive_joined, with_read_buf, Interest, JoinedDatagrams, PollSource, Readiness,
};
use nix::errno::Errno;
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, SockaddrStorage};
use rustix::net::sockopt::{
    set_ip_mtu_discover, set_ipv6_mtu_discover, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery,
};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

/// Requested size of the kernel's receive buffer, in bytes; bursts beyond it are lost.
const RECV_BUFFER: usize = 1024 * 1024;
/// Maximum number of datagrams in one system call.
const MAX_SEGMENTS: usize = 60;
/// Maximum bytes in one system call; less than the maximum UDP payload.
const MAX_BYTES: usize = 60_000;

/// Number of calls in a row that the kernel may refuse to split: one is refused for a packet by which QUIC finds out
/// whether its length arrives.
const MAX_REFUSALS: u32 = 8;

/// A UDP socket for IPv6 and IPv4, or for IPv4 alone where there is no IPv6.
#[derive(Debug)]
pub struct PeerSocket {
    io: PollSource<UdpSocket>,
    port: u16,
    is_v6: bool,
    /// Whether the kernel splits the bytes of one call into datagrams.
    segments: AtomicBool,
    /// Number of calls in a row that the kernel has refused to split; see [`MAX_REFUSALS`].
    refusals: AtomicU32,
}

/// A datagram to send.
#[derive(Debug)]
pub struct Datagram {
    /// The destination.
    pub to: SocketAddr,
    /// The payload.
    pub bytes: bytes::BytesMut,
}

impl PeerSocket {
    /// Binds to the first free port of a range, or to any if the range is 0 to 0.
    pub fn bind(min_port: u16, max_port: u16) -> Result<Self, P2pError> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in min_port..=max_port.max(min_port) {
            match Self::bind_to(port) {
                Ok(socket) => return Ok(socket),
                Err(e) => last = e,
            }
        }
        let what = match (min_port, max_port) {
            (0, 0) => "a UDP port for peers".to_owned(),
            _ => format!("a UDP port from webrtcMinPort {min_port} to webrtcMaxPort {max_port}"),
        };
        Err(P2pError::new(what, last))
    }

    fn bind_to(port: u16) -> io::Result<Self> {
        let (socket, is_v6) = match Self::raw(Ipv6Addr::UNSPECIFIED.into(), port) {
            Ok(socket) => (socket, true),
            Err(_) => (Self::raw(Ipv4Addr::UNSPECIFIED.into(), port)?, false),
        };
        // The kernel may grant less.
        let _ = socket.set_recv_buffer_size(RECV_BUFFER);
        let _ = socket.set_send_buffer_size(RECV_BUFFER);
        forbid_fragments(&socket, is_v6);
        let socket = UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        let segments = enable_gro(&socket);
        Ok(Self {
            port: socket.local_addr()?.port(),
            io: PollSource::new(socket, &[Interest::Read, Interest::Write])?,
            is_v6,
            segments: AtomicBool::new(segments),
            refusals: AtomicU32::new(0),
        })
    }

    /// Binds to any port of IPv4, with buffers of the usual size: for one of many sockets that may be of no use.
    pub fn opening() -> io::Result<Self> {
        let socket = UdpSocket::from(Self::raw(Ipv4Addr::UNSPECIFIED.into(), 0)?);
        socket.set_nonblocking(true)?;
        Ok(Self {
            port: socket.local_addr()?.port(),
            io: PollSource::new(socket, &[Interest::Read, Interest::Write])?,
            is_v6: false,
            segments: AtomicBool::new(false),
            refusals: AtomicU32::new(0),
        })
    }

    /// Gives the socket the buffers of one that is used.
    pub fn enlarge(&self) {
        let socket = self.io.get_ref();
        let sizes = SockRef::from(socket);
        let _ = sizes.set_recv_buffer_size(RECV_BUFFER);
        let _ = sizes.set_send_buffer_size(RECV_BUFFER);
        forbid_fragments(socket, self.is_v6);
        let segments = enable_gro(socket);
        self.segments.store(segments, Ordering::Relaxed);
    }

    fn raw(ip: IpAddr, port: u16) -> io::Result<RawSocket> {
        let addr = SocketAddr::new(ip, port);
        let socket = RawSocket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&addr.into())?;
        Ok(socket)
    }

    /// Returns the local port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the socket reaches IPv6 addresses.
    pub fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// Waits for datagrams and passes each to `take`, with its source.
    pub async fn receive(&self, mut take: impl FnMut(SocketAddr, &[u8])) -> io::Result<()> {
        let mut take_all = |received: JoinedDatagrams<'_>| {
            let from = SocketAddr::new(received.from.ip(), received.from.port());
            received
                .datagrams()
                .for_each(|datagram| take(from, datagram));
        };
        let receive = |socket: &UdpSocket| {
            with_read_buf(|buffer| receive_joined(socket, buffer, &mut take_all))
        };
        self.io.call(Interest::Read, receive).await
    }

    /// Sends datagrams from the front of `queue` as long as the kernel takes them; pending if some
    /// are left. Datagrams that cannot be sent are dropped, like any lost datagram.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        queue: &mut std::collections::VecDeque<Datagram>,
    ) -> Poll<()> {
        // Number of datagrams at the front that have a call of their own each.
        let mut singles = 0_usize;
        while let Some(first) = queue.front() {
            let (to, size) = (first.to, first.bytes.len());
            let mut parts: smallvec::SmallVec<[IoSlice<'_>; MAX_SEGMENTS]> =
                smallvec::SmallVec::new();
            let mut bytes = 0;
            let most = if singles == 0 && self.segments.load(Ordering::Relaxed) {
                MAX_SEGMENTS
            } else {
                1
            };
            for datagram in queue.iter().take(most) {
                let len = datagram.bytes.len();
                if datagram.to != to || len > size || bytes + len > MAX_BYTES {
                    break;
                }
                parts.push(IoSlice::new(&datagram.bytes));
                bytes += len;
                // A shorter datagram ends the batch.
                if len < size {
                    break;
                }
            }
            let count = parts.len().max(1);
            let send = |socket: &UdpSocket| {
                let sent = self.send(socket, to, size, &parts);
                sent.map(|()| ((), Readiness::More))
                    .map_err(io::Error::from)
            };
            let sent = self.io.try_io(Interest::Write, send);
            let refusal = sent
                .as_ref()
                .map_err(|e| e.raw_os_error().map(Errno::from_raw));
            match refusal {
                // Without a number: the socket is known to have no room.
                Err(None | Some(Errno::EAGAIN)) => {
                    drop(parts);
                    match self.io.poll_ready(Interest::Write, cx) {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Err(Some(Errno::EINTR)) => continue,
                Err(Some(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP))
                    if count > 1 =>
                {
                    // Not every device supports it.
                    if self.refusals.fetch_add(1, Ordering::Relaxed) >= MAX_REFUSALS {
                        self.segments.store(false, Ordering::Relaxed);
                    }
                    singles = count;
                    continue;
                }
                Err(Some(e)) => log::trace!("sending a datagram to {to}: {e}"),
                Ok(_) if count > 1 => self.refusals.store(0, Ordering::Relaxed),
                Ok(_) => {}
            }
            drop(parts);
            singles = singles.saturating_sub(1);
            queue.drain(..count);
        }
        Poll::Ready(())
    }

    fn send(
        &self,
        socket: &UdpSocket,
        to: SocketAddr,
        size: usize,
        parts: &[IoSlice<'_>],
    ) -> Result<(), Errno> {
        let to = match to {
            SocketAddr::V4(v4) if self.is_v6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            to => to,
        };
        // At most MAX_BYTES.
        let size = size as u16;
        let segments = ControlMessage::UdpGsoSegments(&size);
        let control = if parts.len() > 1 {
            std::slice::from_ref(&segments)
        } else {
            &[]
        };
        let to = SockaddrStorage::from(to);
        sendmsg(
            socket.as_raw_fd(),
            parts,
            control,
            MsgFlags::empty(),
            Some(&to),
        )
        .map(drop)
    }
}

/// Has the kernel send no fragments: QUIC finds out which length arrives (RFC 9000, section 14).
fn forbid_fragments(socket: &impl AsFd, is_v6: bool) {
    if is_v6 {
        let _ = set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE);
    }
    let _ = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE);
}
