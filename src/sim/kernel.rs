//! What gt takes from the kernel, by this thread's world: the items of `net/kernel.rs`.

use super::{process, world};
#[cfg(feature = "outbound")]
use crate::net::LinkSource;
use rustix::io::Errno;
use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// An open descriptor of a process of the world.
#[derive(Debug)]
pub struct OwnedFd(u64);

/// A descriptor that is used for a while.
#[derive(Debug, Clone, Copy)]
pub struct BorrowedFd<'a>(u64, PhantomData<&'a ()>);

/// What has a descriptor.
pub trait AsFd {
    /// Returns the descriptor.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl BorrowedFd<'_> {
    /// Opens another descriptor of the same object.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        world::with(|world| {
            let object = world.object_of(self.0)?;
            Ok(OwnedFd(world.open(object)?))
        })
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }
}

impl OwnedFd {
    pub(super) fn number(&self) -> u64 {
        self.0
    }
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(self.0, PhantomData)
    }
}

impl<T: AsFd> AsFd for &T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        T::as_fd(self)
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        world::try_with(|world| world.close(self.0));
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct TcpStream(OwnedFd);

/// A listening socket.
#[derive(Debug)]
pub struct TcpListener(OwnedFd);

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for TcpStream {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> Self {
        stream.0
    }
}

impl From<OwnedFd> for TcpListener {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl TcpStream {
    /// See [`std::net::TcpStream::set_nonblocking`]: no socket of the world blocks.
    pub fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    /// See [`std::net::TcpStream::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        world::with(|world| Ok(world.stream_of(self.0 .0)?.1.take_error()))
    }

    /// See [`std::net::TcpStream::peek`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        world::with(|world| world.read(self.0 .0, buf, true))
    }

    /// See [`std::net::TcpStream::shutdown`]: only the direction from this end is ended.
    pub fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        world::with(|world| world.shutdown_write(self.0 .0))
    }

    /// See [`std::net::TcpStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        world::with(|world| Ok(world.stream_of(self.0 .0)?.1.local))
    }

    /// See [`std::net::TcpStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        world::with(|world| {
            let (_, stream) = world.stream_of(self.0 .0)?;
            match stream.is_connected() {
                true => Ok(stream.peer_addr),
                false => Err(Errno::NOTCONN.into()),
            }
        })
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        world::with(|world| world.read(self.0 .0, buf, false))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        world::with(|world| world.write(self.0 .0, &[buf]))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
        world::with(|world| world.write(self.0 .0, &pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TcpListener {
    /// See [`std::net::TcpListener::set_nonblocking`]: no socket of the world blocks.
    pub fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    /// See [`std::net::TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        world::with(|world| {
            let id = world.object_of(self.0 .0)?;
            Ok(world.listener(id).ok_or(Errno::NOTSOCK)?.addr())
        })
    }

    /// See [`std::net::TcpListener::try_clone`].
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.as_fd().try_clone_to_owned()?))
    }
}

/// Returns virtual time.
pub fn now() -> Instant {
    world::now()
}

/// Returns the time of day as the world has it.
pub fn time_of_day() -> SystemTime {
    world::time_of_day()
}

/// Returns the time at which all worlds begin.
pub fn start() -> Instant {
    world::base()
}

/// Returns a random number that follows from the seed.
pub fn random() -> u32 {
    // The low half is as good as the high one.
    world::with(|world| world.random.number()) as u32
}

/// Fills `bytes` with numbers that follow from the seed.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    bytes.fill_with(|| random() as u8);
    Ok(())
}

/// A static of which each process of the world has its own.
pub struct PerProcess<T>(#[allow(dead_code)] T);

impl<T: Default + Send + Sync + 'static> PerProcess<T> {
    /// Creates the value, which must be the default one.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Uses the value of the running process.
    pub fn with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> R {
        let address = std::ptr::from_ref(self).addr();
        let value = world::with(|world| {
            let (_, process) = world.running().ok()?;
            let value = process.statics.entry(address);
            let new = || Arc::new(T::default()) as Arc<dyn Any + Send + Sync>;
            value.or_insert_with(new).clone().downcast::<T>().ok()
        });
        use_it(&value.unwrap_or_default())
    }
}

static ACCEPT_FAILURES: PerProcess<crate::sync::Mutex<u64>> =
    PerProcess::new(crate::sync::Mutex::new(0));

/// Returns how often the running process could not accept a connection for lack of a resource.
pub fn accept_failures() -> u64 {
    ACCEPT_FAILURES.with(|failures| *failures.lock())
}

/// Counts a connection that could not be accepted for lack of a resource.
pub fn count_accept_failure() {
    ACCEPT_FAILURES.with(|failures| *failures.lock() += 1);
}

/// Returns the addresses of a host with this port.
pub fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    world::with(|world| world.look_up(host, port))
}

/// Begins to connect. The flag tells whether the connection is established already.
pub fn connect(addr: SocketAddr) -> io::Result<(TcpStream, bool)> {
    let (number, is_established) = world::with(|world| world.connect(addr))?;
    Ok((TcpStream(OwnedFd(number)), is_established))
}

/// A host of the world has one link.
#[cfg(feature = "outbound")]
pub fn connect_from(addr: SocketAddr, _: &LinkSource) -> io::Result<(TcpStream, bool)> {
    connect(addr)
}

/// There are no Unix sockets.
pub fn connect_unix(_: &Path) -> io::Result<Option<TcpStream>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Listens on an address; each stands for all addresses of the host.
pub fn listen(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let backlog = usize::try_from(backlog).unwrap_or(0);
    let number = world::with(|world| world.listen(addr, backlog))?;
    Ok(TcpListener(OwnedFd(number)))
}

/// Whether the descriptor is a socket that listens.
pub fn is_listener(socket: &OwnedFd) -> io::Result<bool> {
    world::with(|world| {
        let id = world.object_of(socket.0)?;
        Ok(world
            .listener(id)
            .is_some_and(|listener| listener.is_listening()))
    })
}

/// Stops listening, even if other processes share the socket.
pub fn stop_listening(listener: &TcpListener) {
    world::with(|world| {
        if let Ok(id) = world.object_of(listener.0 .0) {
            world.stop_listening(id);
        }
    });
}

/// Accepts a connection that waits; `WouldBlock` without one.
pub fn accept(listener: impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (number, peer) = world::with(|world| world.accept(listener.as_fd().0))?;
    Ok((TcpStream(OwnedFd(number)), peer))
}

/// Creates a connection within this machine and returns both ends.
pub fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let (near, far) = world::with(|world| world.stream_pair())?;
    Ok((TcpStream(OwnedFd(near)), TcpStream(OwnedFd(far))))
}

/// Writes bytes.
pub fn write_and_hold(mut stream: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    stream.write_vectored(pieces)
}

/// Whether there is room for more bytes, or the connection has failed.
pub fn has_room(stream: &TcpStream) -> io::Result<bool> {
    world::with(|world| world.ask_for_room(stream.0 .0))
}

/// Sets what a close does while bytes are unsent: `Some(Duration::ZERO)` resets the connection.
pub fn set_linger(stream: &TcpStream, time: Option<Duration>) {
    world::with(|world| {
        if let Ok((_, stream)) = world.stream_of(stream.0 .0) {
            stream.resets_on_close = time.is_some();
        }
    });
}

/// Does nothing: the world has one buffer for a direction.
pub fn limit_unsent(_: &TcpStream, _: u32) {}

/// Sets whether an idle peer is probed every second or at the usual interval.
pub fn probe(stream: &TcpStream, often: bool) {
    world::with(|world| {
        if let Ok(id) = world.object_of(stream.0 .0) {
            world.probe(id, often);
        }
    });
}

/// Returns what is known of the delivery of written bytes.
pub fn delivery(stream: &TcpStream) -> Option<crate::net::Delivery> {
    world::with(|world| world.delivery(stream.0 .0))
}

/// Fails: the simulated network has no congestion.
pub fn set_congestion(_: impl AsFd, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `None`.
pub fn congestion(_: impl AsFd) -> Option<String> {
    None
}

/// Returns `None`.
pub fn usual_congestion() -> Option<String> {
    None
}

/// Fails.
pub fn try_congestion(_: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: no descriptor of the world blocks.
pub fn set_nonblocking(_: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// Creates two connected sockets that keep the bounds of packets and can carry descriptors.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = world::with(|world| world.packet_pair())?;
    Ok((OwnedFd(one), OwnedFd(other)))
}

/// Sends a packet, with a copy of a descriptor.
pub fn send_packet(
    to: &OwnedFd,
    packet: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let descriptor = descriptor.map(BorrowedFd::number);
    world::with(|world| world.send_packet(to.0, packet, descriptor))
}

/// Receives a packet and the descriptor that came with it. `UnexpectedEof` if the other end is
/// closed.
pub fn receive_packet(from: &OwnedFd, _: usize) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (packet, number) = world::with(|world| world.receive_packet(from.0))?;
    Ok((packet, number.map(OwnedFd)))
}

/// Shows the other end of a packet socket that no more packets follow.
pub fn end_packets(socket: &OwnedFd) -> io::Result<()> {
    world::with(|world| world.end_packets(socket.0))
}

/// Whether a packet could not be sent because too many descriptors are on their way: never.
pub fn is_too_many_descriptors(_: &io::Error) -> bool {
    false
}

impl fmt::Display for process::ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}
