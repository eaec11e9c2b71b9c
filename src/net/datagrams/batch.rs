//! Datagrams that one system call receives. Each thread has room for a batch; of a slot that is as long
//! as the longest datagram, only the pages that datagrams have filled take memory.

use nix::sys::socket::{ControlMessageOwned, SockaddrStorage};
use std::io;
use std::net::UdpSocket;

/// Maximum number of datagrams of a batch.
pub const MAX_BATCH: usize = 16;

/// A received datagram.
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub struct Received<'a> {
    pub bytes: &'a [u8],
    /// Where it comes from, if the socket is not connected.
    pub from: Option<SockaddrStorage>,
    /// What the kernel tells of the address that it came to.
    pub to: Option<ControlMessageOwned>,
}

/// What the kernel tells with each datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(all(feature = "server", feature = "client")), allow(dead_code))]
pub enum Told {
    /// Its bytes alone, for a connected socket.
    Bytes,
    /// Its source and destination, for a socket of IPv4.
    PathV4,
    /// Its source and destination, for a socket of IPv6.
    PathV6,
}

/// Receives up to `most` datagrams, without waiting, and passes each to `take`. Returns their number.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn receive(
    socket: &UdpSocket,
    told: Told,
    most: usize,
    take: impl FnMut(Received<'_>),
) -> io::Result<usize> {
    linux::receive(socket, told, most, take)
}

/// Receives a datagram, without waiting, and passes it to `take`. Returns 1.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn receive(
    socket: &UdpSocket,
    _: Told,
    _: usize,
    mut take: impl FnMut(Received<'_>),
) -> io::Result<usize> {
    use crate::net::with_read_buf;
    use nix::sys::socket::{recvmsg, MsgFlags};
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;
    with_read_buf(|buf| {
        let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buf)];
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
        let received = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags)?;
        let to = received.cmsgs().ok().and_then(|mut it| it.next());
        let (count, from) = (received.bytes, received.address);
        take(Received {
            bytes: buf.get(..count).unwrap_or_default(),
            from,
            to,
        });
        Ok(1)
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use super::*;
    use nix::libc::in6_pktinfo;
    use nix::sys::socket::{recvmmsg, MsgFlags, MultiHeaders};
    use std::cell::RefCell;
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;

    /// Bytes of a slot: no datagram is longer.
    const SLOT: usize = 64 * 1024;

    /// The room for a batch.
    struct Batch {
        /// The kernel writes lengths into the headers, so each kind of socket has its own, in which these
        /// stay as they are.
        bytes: MultiHeaders<SockaddrStorage>,
        v4: MultiHeaders<SockaddrStorage>,
        v6: MultiHeaders<SockaddrStorage>,
        slots: Vec<u8>,
    }

    impl Batch {
        fn new() -> Self {
            let space = || Some(nix::cmsg_space!(in6_pktinfo));
            Self {
                bytes: MultiHeaders::preallocate(MAX_BATCH, None),
                v4: MultiHeaders::preallocate(MAX_BATCH, space()),
                v6: MultiHeaders::preallocate(MAX_BATCH, space()),
                // Zeroed memory of this size comes from the kernel page by page, when it is used.
                slots: vec![0; MAX_BATCH * SLOT],
            }
        }
    }

    thread_local! {
        static BATCH: RefCell<Option<Box<Batch>>> = const { RefCell::new(None) };
    }

    pub fn receive(
        socket: &UdpSocket,
        told: Told,
        most: usize,
        mut take: impl FnMut(Received<'_>),
    ) -> io::Result<usize> {
        BATCH.with(|batch| {
            // `take` receives nothing.
            let mut batch = batch.try_borrow_mut().map_err(io::Error::other)?;
            let batch = batch.get_or_insert_with(|| Box::new(Batch::new()));
            let headers = match told {
                Told::Bytes => &mut batch.bytes,
                Told::PathV4 => &mut batch.v4,
                Told::PathV6 => &mut batch.v6,
            };
            let mut slots = batch.slots.chunks_exact_mut(SLOT);
            let mut parts: [[IoSliceMut<'_>; 1]; MAX_BATCH] =
                std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
            let parts = parts.iter_mut().take(most.clamp(1, MAX_BATCH));
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            let received = recvmmsg(fd, headers, parts, flags, None)?;
            let mut count = 0;
            for datagram in received {
                count += 1;
                let to = match told {
                    Told::Bytes => None,
                    Told::PathV4 | Told::PathV6 => {
                        datagram.cmsgs().ok().and_then(|mut it| it.next())
                    }
                };
                take(Received {
                    bytes: datagram.iovs().next().unwrap_or_default(),
                    from: datagram.address,
                    to,
                });
            }
            Ok(count)
        })
    }
}
