//! Datagrams to one address, sent in as few system calls as the kernel allows.

use super::offload::udp_offload;
use super::records::{MAX_DATAGRAM, MAX_RUN};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage};
use smallvec::SmallVec;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length in bytes of datagrams that need no fragments anywhere: packets of IPv6 may have 1280.
const ANY_MTU: usize = 1200;
/// Maximum bytes of one call.
const MAX_BYTES: usize = 60_000;

/// How a socket sends datagrams: whether the kernel splits the bytes of one call (udp(7), UDP_SEGMENT).
#[derive(Debug)]
pub struct Run {
    splits: AtomicBool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            // Found out by trying.
            splits: AtomicBool::new(udp_offload()),
        }
    }
}

impl Run {
    /// Sends datagrams to `to`, or to the address that the socket is connected to, with a control message.
    /// Returns how many were dropped, because the socket has no room or the kernel refuses them.
    pub fn send(
        &self,
        socket: &UdpSocket,
        to: Option<&SockaddrStorage>,
        control: Option<ControlMessage<'_>>,
        mut datagrams: &[&[u8]],
    ) -> usize {
        let mut dropped = 0;
        while let Some(first) = datagrams.first() {
            let count = self.count(datagrams);
            let (now, rest) = datagrams.split_at(count);
            let parts: SmallVec<[IoSlice<'_>; MAX_RUN]> =
                now.iter().map(|datagram| IoSlice::new(datagram)).collect();
            match send(socket, to, control, first.len(), &parts) {
                Ok(()) => datagrams = rest,
                Err(Errno::EINTR) => {}
                // Not every device and kernel can split, and none splits into packets that need fragments.
                Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP)
                    if count > 1 =>
                {
                    if first.len() <= ANY_MTU {
                        self.splits.store(false, Ordering::Relaxed);
                    }
                    for (datagram, part) in now.iter().zip(&parts) {
                        let part = std::slice::from_ref(part);
                        let sent = send(socket, to, control, datagram.len(), part);
                        dropped += usize::from(sent.is_err());
                    }
                    datagrams = rest;
                }
                // An error of an earlier datagram, that no one listens there, is told once.
                Err(Errno::ECONNREFUSED) => {
                    if send(socket, to, control, first.len(), &parts).is_err() {
                        dropped += count;
                    }
                    datagrams = rest;
                }
                Err(e) => {
                    log::trace!("sending {count} datagrams: {e}");
                    dropped += count;
                    datagrams = rest;
                }
            }
        }
        dropped
    }

    /// Returns how many of the first datagrams one call can send: those of one length, and a shorter one.
    fn count(&self, datagrams: &[&[u8]]) -> usize {
        let Some(first) = datagrams.first() else {
            return 0;
        };
        if !self.splits.load(Ordering::Relaxed) || first.is_empty() {
            return 1;
        }
        let (mut count, mut bytes) = (0, 0);
        for datagram in datagrams.iter().take(MAX_RUN) {
            let length = datagram.len();
            if length > first.len() || length == 0 || bytes + length > MAX_BYTES {
                break;
            }
            bytes += length;
            count += 1;
            if length < first.len() {
                break;
            }
        }
        count.max(1)
    }
}

/// Sends parts, each a datagram of `length` bytes but for the last one, which may be shorter.
fn send(
    socket: &UdpSocket,
    to: Option<&SockaddrStorage>,
    control: Option<ControlMessage<'_>>,
    length: usize,
    parts: &[IoSlice<'_>],
) -> Result<(), Errno> {
    let Ok(length) = u16::try_from(length.min(MAX_DATAGRAM)) else {
        return Err(Errno::EMSGSIZE);
    };
    let mut messages: SmallVec<[ControlMessage<'_>; 2]> = control.into_iter().collect();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if parts.len() > 1 {
        messages.push(ControlMessage::UdpGsoSegments(&length));
    }
    let _ = length;
    system::send(socket, to, &messages, parts)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use super::*;
    use nix::libc::{in6_pktinfo, in_pktinfo};
    use nix::sys::socket::{sendmmsg, MultiHeaders};
    use std::cell::RefCell;

    type Headers = MultiHeaders<SockaddrStorage>;

    /// The headers of a message by the control messages that it has. They must fill the room, so each
    /// combination has its own. They are kept, since `sendmsg` would allocate the room each time.
    #[derive(Default)]
    struct AllHeaders {
        none: Option<Headers>,
        v4: Option<Headers>,
        v6: Option<Headers>,
        split: Option<Headers>,
        v4_split: Option<Headers>,
        v6_split: Option<Headers>,
    }

    thread_local! {
        static HEADERS: RefCell<AllHeaders> = RefCell::default();
    }

    pub fn send(
        socket: &UdpSocket,
        to: Option<&SockaddrStorage>,
        messages: &[ControlMessage<'_>],
        parts: &[IoSlice<'_>],
    ) -> Result<(), Errno> {
        use ControlMessage::{Ipv4PacketInfo, Ipv6PacketInfo, UdpGsoSegments};
        HEADERS.with(|all| {
            let mut all = all.try_borrow_mut().map_err(|_| Errno::EAGAIN)?;
            type Space = fn() -> Option<Vec<u8>>;
            let (kept, space): (_, Space) = match messages {
                [] => (&mut all.none, || None),
                [Ipv4PacketInfo(_)] => (&mut all.v4, || Some(nix::cmsg_space!(in_pktinfo))),
                [Ipv6PacketInfo(_)] => (&mut all.v6, || Some(nix::cmsg_space!(in6_pktinfo))),
                [UdpGsoSegments(_)] => (&mut all.split, || Some(nix::cmsg_space!(u16))),
                [Ipv4PacketInfo(_), UdpGsoSegments(_)] => (&mut all.v4_split, || {
                    Some(nix::cmsg_space!(in_pktinfo, u16))
                }),
                [Ipv6PacketInfo(_), UdpGsoSegments(_)] => (&mut all.v6_split, || {
                    Some(nix::cmsg_space!(in6_pktinfo, u16))
                }),
                _ => return Err(Errno::EINVAL),
            };
            let headers = kept.get_or_insert_with(|| Headers::preallocate(1, space()));
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
            sendmmsg(fd, headers, [&parts], [to.copied()], messages, flags).map(drop)
        })
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use super::*;
    use nix::sys::socket::sendmsg;

    pub fn send(
        socket: &UdpSocket,
        to: Option<&SockaddrStorage>,
        messages: &[ControlMessage<'_>],
        parts: &[IoSlice<'_>],
    ) -> Result<(), Errno> {
        let flags = MsgFlags::empty();
        sendmsg(socket.as_raw_fd(), parts, messages, flags, to).map(drop)
    }
}
