//! Changes of this machine's network, as the kernel reports them: links, addresses and routes.

use super::netlink;
use super::{Interest, PollSource, Timer};
use futures_lite::future;
use rustix::net::netlink::SocketAddrNetlink;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const NETLINK_ROUTE: i32 = 0;
/// The events that the kernel reports (rtnetlink(7)): links, addresses and routes of IPv4, and those of IPv6.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Time in which one change of the network brings several messages.
const SETTLING_TIME: Duration = Duration::from_millis(100);
/// Maximum number of messages that are read in a row.
const MAX_READS: u32 = 64;

/// Returns the address that packets to `peer` leave from at present; `None` without a route.
pub fn source_for(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Sends nothing.
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The changes of this machine's network from the moment on at which this was created.
pub struct NetworkChanges(Option<PollSource<socket2::Socket>>);

impl NetworkChanges {
    /// Starts to watch the network.
    pub fn watch() -> Self {
        let messages = open().map_err(|e| log::debug!("watching the network for changes: {e}"));
        Self(messages.ok())
    }

    /// Waits until something has changed and no further change comes for a moment. Never returns where the
    /// kernel does not report changes.
    pub async fn next(&self) {
        let Some(messages) = &self.0 else {
            return future::pending().await;
        };
        if messages.call(Interest::Read, drain).await.is_err() {
            // The buffer overflowed, and some messages are lost.
            Timer::after(SETTLING_TIME).await;
        }
        Timer::after(SETTLING_TIME).await;
    }

    /// Whether the kernel reports changes.
    #[cfg(test)]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

fn open() -> io::Result<PollSource<socket2::Socket>> {
    let socket = netlink::socket(NETLINK_ROUTE)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    PollSource::new(socket, &[Interest::Read])
}

/// Reads messages until there are no more. What they say does not matter.
fn drain(socket: &socket2::Socket) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    socket.recv(&mut buffer)?;
    for _ in 0..MAX_READS {
        if socket.recv(&mut buffer).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_this_machine_leave_from_it() {
        let peer: SocketAddr = ([127, 0, 0, 1], 9).into();
        assert_eq!(source_for(peer), Some(Ipv4Addr::LOCALHOST.into()));
        assert!(NetworkChanges::watch().is_on());
    }
}
