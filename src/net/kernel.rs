//! What gt takes from the kernel: TCP, names, packets between two processes of gt, the time, and random
//! numbers.
//! Nothing else in gt makes such calls, so that a simulation can put a network of its own in this place
//! (`sim/kernel.rs` has the same items). It knows nothing of tasks: sockets do not block, and only the
//! look-up of a name waits.

pub use std::net::{TcpListener, TcpStream};
pub use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(all(feature = "client", feature = "outbound"))]
use super::outbound::LinkSource;
use crate::sync::Mutex;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
#[cfg(feature = "client")]
use rustix::net::SocketAddrUnix;
use rustix::net::{
    acceptfrom_with, recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer,
    RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType,
};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
#[cfg(feature = "client")]
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// TCP keepalive time: a vanished peer is detected after this silence and a few probes.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Interval of keepalive probes: Linux's default.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);

/// Number of connections that could not be accepted for lack of a resource.
static ACCEPT_FAILURES: Mutex<u64> = Mutex::new(0);

/// Returns how often this process could not accept a connection because it or the machine lacked a
/// resource, usually descriptors (`ulimit -n`).
pub fn accept_failures() -> u64 {
    *ACCEPT_FAILURES.lock()
}

/// Counts a connection that could not be accepted for lack of a resource.
pub fn count_accept_failure() {
    let mut failures = ACCEPT_FAILURES.lock();
    *failures = failures.saturating_add(1);
}

/// Returns the present time.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the time of day, as the machine knows it.
#[allow(clippy::disallowed_methods)]
pub fn time_of_day() -> SystemTime {
    SystemTime::now()
}

/// Returns the time at which this was first called.
pub fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(now)
}

/// Returns a random number that is good enough to spread load. Not for secrets.
pub fn random() -> u32 {
    // The low half is as good as the high one.
    RandomState::new().build_hasher().finish() as u32
}

/// A static of which each process has its own.
pub struct PerProcess<T>(T);

impl<T: Default> PerProcess<T> {
    /// Creates the value, which must be the default one.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Uses the value of this process.
    pub fn with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> R {
        use_it(&self.0)
    }
}

/// Returns the addresses of a host with this port, in the system's order. Waits for the resolver.
#[allow(clippy::disallowed_methods)]
pub fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Begins to connect. The flag tells whether the connection is established already, as it is within
/// one machine.
pub fn connect(addr: SocketAddr) -> io::Result<(TcpStream, bool)> {
    begin_to_connect(addr, |_| Ok(()))
}

/// Begins to connect like [`connect`], from this interface or address.
#[cfg(all(feature = "client", feature = "outbound"))]
pub fn connect_from(addr: SocketAddr, source: &LinkSource) -> io::Result<(TcpStream, bool)> {
    begin_to_connect(addr, |socket| bind_to(socket, source))
}

fn begin_to_connect(
    addr: SocketAddr,
    prepare: impl FnOnce(&RawSocket) -> io::Result<()>,
) -> io::Result<(TcpStream, bool)> {
    let domain = Domain::for_address(addr);
    let raw = RawSocket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    raw.set_tcp_nodelay(true)?;
    if !addr.ip().is_loopback() {
        // A peer on this machine cannot vanish silently.
        raw.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    }
    prepare(&raw)?;
    match rustix::net::connect(&raw, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let is_established = raw.peer_addr().is_ok();
    Ok((raw.into(), is_established))
}

/// Lets a socket that is not connected yet send from this interface or address only. The error says what
/// to do.
#[cfg(all(feature = "client", feature = "outbound"))]
pub fn bind_to(socket: &RawSocket, source: &LinkSource) -> io::Result<()> {
    match source {
        LinkSource::Interface(name) => bind_to_interface(socket, name),
        LinkSource::Address(ip) => {
            let addr = SocketAddr::from((*ip, 0));
            socket.bind(&addr.into())
        }
    }
}

/// Binds a socket to an interface (socket(7), `SO_BINDTODEVICE`): the kernel then takes a route over it, while an
/// address of it would only change the source address of the packets.
#[cfg(all(
    feature = "client",
    feature = "outbound",
    any(target_os = "linux", target_os = "android")
))]
fn bind_to_interface(socket: &RawSocket, name: &str) -> io::Result<()> {
    let bound = socket.bind_device(Some(name.as_bytes()));
    bound.map_err(|e| {
        let why = match Errno::from_io_error(&e) {
            Some(Errno::NODEV) => "there is no such interface",
            Some(Errno::PERM) => {
                "Linux before 5.7 demands CAP_NET_RAW for an interface; write its address in remoteBind"
            }
            _ => return e,
        };
        io::Error::new(e.kind(), why)
    })
}

#[cfg(all(
    feature = "client",
    feature = "outbound",
    not(any(target_os = "linux", target_os = "android"))
))]
fn bind_to_interface(_: &RawSocket, _: &str) -> io::Result<()> {
    let why = "only Linux can be told an interface; write its address in remoteBind";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// Connects to a Unix socket: a path, or `@` and a name for an abstract one. `None` if too many others
/// wait for it.
#[cfg(feature = "client")]
pub fn connect_unix(socket: &Path) -> io::Result<Option<TcpStream>> {
    let name = socket.as_os_str().as_encoded_bytes();
    let addr = match name.strip_prefix(b"@") {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        _ => SocketAddrUnix::new(socket)?,
    };
    let raw = RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match rustix::net::connect(&raw, &addr) {
        Ok(()) => Ok(Some(raw.into())),
        Err(Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Listens on an address; that of IPv6 without a host stands for IPv4, too. At most `backlog`
/// connections wait to be accepted; the kernel may allow fewer.
pub fn listen(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // On Linux accepted sockets inherit these, which saves system calls per connection.
    socket.set_tcp_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Whether the descriptor is a socket that listens.
pub fn is_listener(socket: &OwnedFd) -> io::Result<bool> {
    SockRef::from(socket).is_listener()
}

/// Stops listening, even if other processes share the socket.
pub fn stop_listening(listener: &TcpListener) {
    // It may have been stopped before.
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
}

/// Accepts a connection that waits; `WouldBlock` without one.
pub fn accept(listener: impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    // Accepted sockets do not inherit these flags.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), peer))
}

/// Creates a connection within this machine and returns both ends; calls on the second one wait.
/// Fails if another program connects first.
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods)]
pub fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, peer) = listener.accept()?;
    if peer != near.local_addr()? {
        // Another program connected first.
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    near.set_nodelay(true)?;
    near.set_nonblocking(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Writes bytes that the system may hold back until more follow.
pub fn write_and_hold(stream: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let flags = flags | SendFlags::MORE;
    let nothing_else = &mut SendAncillaryBuffer::default();
    Ok(sendmsg(stream, pieces, nothing_else, flags)?)
}

/// Whether the kernel has room for more bytes, or the connection has failed.
pub fn has_room(stream: &TcpStream) -> io::Result<bool> {
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    Ok(poll(&mut asked, Some(&Timespec::default()))? > 0)
}

/// Sets what a close does while bytes are unsent: `Some(Duration::ZERO)` resets the connection.
pub fn set_linger(stream: &TcpStream, time: Option<Duration>) {
    // A closed socket needs none.
    let _ = SockRef::from(stream).set_linger(time);
}

/// Limits the unsent bytes in the kernel to about `bytes`. Has no effect on systems other than Linux.
pub fn limit_unsent(stream: &TcpStream, bytes: u32) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(bytes);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, bytes);
}

/// Sets the congestion control of a TCP connection, or of those that a listener will accept. Fails if the
/// kernel does not have it, as all but Linux do.
pub fn set_congestion(socket: impl AsFd, name: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Ok(rustix::net::sockopt::set_tcp_congestion(socket, name)?);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (socket, name);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Returns the congestion control of a TCP socket, where it can be asked.
pub fn congestion(socket: impl AsFd) -> Option<String> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return rustix::net::sockopt::tcp_congestion(socket).ok();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        None
    }
}

/// Returns the congestion control that new TCP sockets have.
pub fn usual_congestion() -> Option<String> {
    congestion(unused_socket().ok()?)
}

/// Whether the kernel has a congestion control, or can load it.
pub fn try_congestion(name: &str) -> io::Result<()> {
    set_congestion(unused_socket()?, name)
}

fn unused_socket() -> io::Result<RawSocket> {
    RawSocket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
}

/// Sets whether the kernel probes an idle peer every second (`often`) or at the usual interval.
pub fn probe(stream: &TcpStream, often: bool) {
    let keepalive = if often {
        let second = Duration::from_secs(1);
        TcpKeepalive::new().with_time(second).with_interval(second)
    } else {
        let usual = TcpKeepalive::new().with_time(KEEPALIVE);
        usual.with_interval(KEEPALIVE_INTERVAL)
    };
    // Without it, a lost connection is found later.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Returns what the kernel knows of the delivery of written bytes, where it can be asked.
pub use super::sock_diag::delivery;

/// Lets calls on a descriptor return at once instead of waiting.
pub fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, true)?)
}

/// Creates two connected sockets that keep the bounds of packets and can carry descriptors. Calls on
/// them wait.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Sends a packet, with a copy of a descriptor.
pub fn send_packet(
    to: &OwnedFd,
    packet: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = [IoSlice::new(packet)];
    loop {
        match sendmsg(to, &bytes, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives a packet of at most `most` bytes and the descriptor that came with it. `UnexpectedEof`
/// if the other end is closed.
pub fn receive_packet(from: &OwnedFd, most: usize) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut packet = vec![0; most];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut bytes = [IoSliceMut::new(&mut packet)];
        match recvmsg(from, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    packet.truncate(received.bytes);
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let descriptor = descriptors.next();
    Ok((packet, descriptor))
}

/// Shows the other end of a packet socket that no more packets follow.
#[cfg(feature = "server")]
pub fn end_packets(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Write)?)
}

/// Whether a packet could not be sent because too many descriptors are on their way.
#[cfg(feature = "server")]
pub fn is_too_many_descriptors(e: &io::Error) -> bool {
    e.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
}
