//! Datagrams of one peer, received in one system call where the kernel joins them (udp(7), `UDP_GRO`).

use nix::errno::Errno;
use nix::libc::in6_pktinfo;
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags, SockaddrStorage};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// What a call has received: datagrams of one peer, of one length but for the last, which may be shorter.
pub struct JoinedDatagrams<'a> {
    /// The peer's address. One of IPv4 is not in the form of IPv6.
    pub from: SocketAddr,
    /// The address of this machine that the datagrams came to, if it is known.
    pub to: Option<IpAddr>,
    bytes: &'a [u8],
    segment: usize,
}

impl<'a> JoinedDatagrams<'a> {
    /// Returns the datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.segment.max(1))
    }
}

/// Receives datagrams of one peer in one call and passes them to `take`.
pub fn receive_joined(
    socket: &UdpSocket,
    buffer: &mut [u8],
    take: impl FnOnce(JoinedDatagrams<'_>),
) -> io::Result<()> {
    let mut space = nix::cmsg_space!(in6_pktinfo, i32);
    let (count, from, to, segment) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = socket.as_raw_fd();
        let received = loop {
            let flags = MsgFlags::empty();
            match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let (mut segment, mut to) = (None, None);
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::UdpGroSegments(length) => {
                    segment = usize::try_from(length).ok();
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let ip = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                    to = Some(IpAddr::from(ip));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    to = Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => {}
            }
        }
        let v4 = |from: &SockaddrStorage| Some(SocketAddr::V4((*from.as_sockaddr_in()?).into()));
        let v6 = |from: &SockaddrStorage| Some(SocketAddr::V6((*from.as_sockaddr_in6()?).into()));
        let from = received.address.and_then(|from| v4(&from).or(v6(&from)));
        (received.bytes, from, to, segment)
    };
    let Some(from) = from else {
        return Ok(());
    };
    let from = match from.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), from.port()),
        // An IPv6 address keeps its zone.
        IpAddr::V6(_) => from,
    };
    take(JoinedDatagrams {
        from,
        to,
        bytes: buffer.get(..count).unwrap_or_default(),
        segment: segment.filter(|length| *length > 0).unwrap_or(count),
    });
    Ok(())
}
