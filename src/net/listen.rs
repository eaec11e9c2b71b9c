//! Listening TCP sockets: binding, accepting, and adopting those of another process.

use super::kernel::{self, AsFd, BorrowedFd, OwnedFd, TcpListener};
use super::runtime::{Interest, PollSource, Readiness, ShardId};
use super::Socket;
use futures_lite::future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// Maximum number of connections that the kernel queues before they are accepted; it may allow fewer
/// (net.core.somaxconn). Clients that have lost their server come back at once.
const LISTEN_BACKLOG: i32 = 4096;

/// A listening TCP socket. One task of each executor thread may accept from it. The threads share
/// one queue of the kernel: with a socket for each (SO_REUSEPORT), connections that wait in one that
/// is closed would be reset. All threads are woken for a connection: if only one were (EPOLLEXCLUSIVE),
/// it might be one that is about to stop, of this process or of one that takes over.
pub struct Listener {
    socket: Arc<TcpListener>,
    /// By executor thread, once it accepts.
    sources: Box<[OnceLock<PollSource<SharedSocket>>]>,
    addr: SocketAddr,
    closed: AtomicBool,
    #[cfg(feature = "server")]
    shared: AtomicBool,
}

/// The socket as one executor thread waits for it.
struct SharedSocket(Arc<TcpListener>);

impl AsFd for SharedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Listens on `host:port`. Without a host it listens on all addresses of IPv6 and IPv4, or of IPv4
/// alone where there is no IPv6. Port 0 lets the system choose.
pub fn listen(host: Option<&str>, port: u16) -> io::Result<Listener> {
    bind_first(host, port, bind)
}

/// Binds to the first usable address of `host:port`.
pub(super) fn bind_first<T>(
    host: Option<&str>,
    port: u16,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match host {
        Some(host) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            for addr in kernel::look_up(host, port)? {
                match bind(addr) {
                    Ok(socket) => return Ok(socket),
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
        None => match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(e) if no_ipv6(&e) => bind((Ipv4Addr::UNSPECIFIED, port).into()),
            result => result,
        },
    }
}

/// Whether the kernel has no IPv6, or it is disabled.
fn no_ipv6(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::AddrNotAvailable
        || e.raw_os_error() == Some(97 /* EAFNOSUPPORT */)
        || e.raw_os_error() == Some(124 /* EAFNOSUPPORT on MIPS */)
}

fn bind(addr: SocketAddr) -> io::Result<Listener> {
    Listener::new(kernel::listen(addr, LISTEN_BACKLOG)?)
}

impl Listener {
    /// Adopts a listening socket of another process. Fails if it no longer listens.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        if !kernel::is_listener(&socket)? {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Self::new(socket.into())
    }

    fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            addr: listener.local_addr()?,
            socket: Arc::new(listener),
            sources: ShardId::all().map(|_| OnceLock::new()).collect(),
            closed: AtomicBool::new(false),
            #[cfg(feature = "server")]
            shared: AtomicBool::new(false),
        })
    }

    /// Returns the same socket for other tasks, which may be of other executor threads.
    pub fn again(&self) -> io::Result<Self> {
        Self::new(self.socket.try_clone()?)
    }

    /// Returns the address that the socket is bound to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Notes whether a process that takes over has the socket, too, or is about to.
    #[cfg(feature = "server")]
    pub fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::SeqCst);
    }

    /// Whether a process that takes over has the socket, too, or is about to.
    #[cfg(feature = "server")]
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }

    /// Stops listening at once, even if other tasks or processes share the socket.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        kernel::stop_listening(&self.socket);
    }

    /// Returns the socket as this thread waits for it.
    fn source(&self) -> io::Result<&PollSource<SharedSocket>> {
        let place = self.sources.get(ShardId::current().index());
        let place = place.ok_or(io::ErrorKind::NotFound)?;
        if let Some(source) = place.get() {
            return Ok(source);
        }
        let source = PollSource::new(SharedSocket(self.socket.clone()), &[Interest::Read])?;
        Ok(place.get_or_init(|| source))
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
        let source = self.source()?;
        loop {
            ready!(source.poll_ready(Interest::Read, cx))?;
            let accepted = source.try_io(Interest::Read, |listener| {
                Ok((accept_now(listener)?, Readiness::More))
            });
            match accepted {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return Poll::Ready(accepted),
            }
        }
    }

    /// Returns the connections that wait to be accepted, at most as many as the kernel queues.
    pub fn waiting(&self) -> impl Iterator<Item = (Socket, SocketAddr)> + '_ {
        let all = (0..LISTEN_BACKLOG).map(|_| accept_now(&*self.socket));
        let there = all.take_while(|accepted| match accepted {
            Ok(_) => true,
            Err(e) => is_of_one_connection(e),
        });
        there.filter_map(Result::ok)
    }

    /// Returns the next connection. Errors of one connection are skipped; while the process or the
    /// machine lacks a resource, it tries again every 200 ms. Never returns once the listener is
    /// closed.
    pub async fn accept(&self) -> (Socket, SocketAddr) {
        let mut short = false;
        loop {
            match std::future::poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => return accepted,
                Err(e) if is_of_one_connection(&e) => {}
                Err(_) if self.closed.load(Ordering::SeqCst) => future::pending().await,
                Err(e) => {
                    kernel::count_accept_failure();
                    if !std::mem::replace(&mut short, true) {
                        log::warn!("accepting on {}: {e}; retrying", self.addr);
                    }
                    crate::net::Timer::after(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another process may share the socket.
        let sources = self.sources.iter().filter_map(OnceLock::get);
        sources.for_each(PollSource::withdraw);
    }
}

/// For handing the socket to another process.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts a connection that waits; `WouldBlock` without one.
fn accept_now(listener: impl AsFd) -> io::Result<(Socket, SocketAddr)> {
    let (stream, peer) = kernel::accept(listener)?;
    // Most clients have sent their first bytes by now.
    let socket = Socket::new(stream, true)?;
    Ok((socket, peer))
}

fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
