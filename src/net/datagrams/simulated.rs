//! The stub for simulations, whose world has no datagrams.

use super::{DatagramConn, DatagramLosses};
use crate::net::ShardId;
use crate::sim::kernel::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A bound UDP socket. There is none.
pub struct Datagrams(OwnedFd);

/// The path of a received datagram.
#[derive(Clone, Copy, Debug)]
pub struct DatagramPath {
    /// The peer's address.
    pub from: SocketAddr,
}

impl DatagramPath {
    /// Returns the address of this machine that the datagram came to.
    pub fn to(&self) -> Option<IpAddr> {
        None
    }
}

impl Datagrams {
    /// Fails.
    pub fn bind(_: Option<&str>, _: u16) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Fails.
    pub fn adopt(_: OwnedFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns an address.
    pub fn addr(&self) -> SocketAddr {
        ([0, 0, 0, 0], 0).into()
    }

    /// Returns `None`.
    #[cfg(all(feature = "client", feature = "proxy"))]
    pub fn path_to(&self, _: SocketAddr) -> Option<DatagramPath> {
        None
    }

    /// Never ready.
    #[cfg(all(feature = "client", feature = "proxy"))]
    pub fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    /// Does nothing.
    pub fn move_to(&self, _: ShardId) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing.
    pub fn set_recv_buffer(&self, _: usize) {}

    /// Never ready.
    pub fn poll_receive(
        &self,
        _: &mut Context<'_>,
        _: usize,
        _: impl FnMut(&[u8], DatagramPath),
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    /// Drops all.
    pub fn send(&self, datagrams: &[&[u8]], _: &DatagramPath) -> usize {
        datagrams.len()
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Fails.
pub async fn dial_udp(
    _: &str,
    _: u16,
    _: Duration,
    _: Vec<u8>,
    _: Arc<DatagramLosses>,
) -> io::Result<DatagramConn> {
    Err(io::ErrorKind::Unsupported.into())
}
