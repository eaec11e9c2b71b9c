//! A UDP socket that is connected to a local service: its datagrams come from there alone.

use super::batch::{self, Told, MAX_BATCH};
use super::coalescing::Coalescing;
use super::conn::{DatagramConn, Flow};
use super::losses::DatagramLosses;
use super::records::{DatagramQueue, LENGTH};
use super::run::Run;
use crate::net::{addresses, timeout, Interest, PollSource, Readiness, ShardId};
use crate::sync::Mutex;
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// Requested size in bytes of the kernel's buffer of datagrams that have come. It is the queue of the flow:
/// the kernel drops those that do not fit.
const RECV_BUFFER: usize = 64 * 1024;

/// Connects to the address of a service over UDP, within `patience` for the look-up of its name. `greeting`
/// goes before the first datagram that is sent, in the same packet. What is lost here is counted in `losses`.
pub async fn dial_udp(
    host: &str,
    port: u16,
    patience: Duration,
    greeting: Vec<u8>,
    losses: Arc<DatagramLosses>,
) -> io::Result<DatagramConn> {
    let found = timeout(patience, addresses(host, port)).await;
    let found = found.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    // A name of this machine may stand for both, of which many programs use this one alone. Nothing tells
    // before a datagram is sent.
    let is_usual = |addr: &&SocketAddr| addr.ip() == IpAddr::from([127, 0, 0, 1]);
    let addr = found.iter().find(is_usual).or(found.first());
    let addr = *addr.ok_or(io::ErrorKind::NotFound)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("connecting to {addr}: {e}"));
    let socket = ConnectedDatagrams::connect(addr, greeting, losses).map_err(named)?;
    Ok(DatagramConn::new(Box::new(socket)))
}

#[derive(Debug)]
struct ConnectedDatagrams {
    io: PollSource<UdpSocket>,
    run: Run,
    coalescing: Coalescing,
    /// What was received and not read, since the reader had less room than the datagrams took.
    received: Mutex<DatagramQueue>,
    /// Bytes of the longest datagram lately: how many are received at once depends on it.
    longest: AtomicUsize,
    greeting: Mutex<Option<Box<[u8]>>>,
    is_closed: AtomicBool,
    losses: Arc<DatagramLosses>,
}

impl ConnectedDatagrams {
    fn connect(
        addr: SocketAddr,
        greeting: Vec<u8>,
        losses: Arc<DatagramLosses>,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(addr);
        let socket = RawSocket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        // The kernel may grant less.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECV_BUFFER);
        socket.connect(&addr.into())?;
        Ok(Self {
            io: PollSource::new(socket.into(), &[Interest::Write])?,
            run: Run::default(),
            coalescing: Coalescing::default(),
            received: Mutex::default(),
            longest: AtomicUsize::new(0),
            greeting: Mutex::new((!greeting.is_empty()).then(|| greeting.into())),
            is_closed: AtomicBool::new(false),
            losses,
        })
    }

    /// Receives datagrams into `buf`; those that do not fit wait.
    fn receive(&self, socket: &UdpSocket, buf: &mut [u8]) -> io::Result<(usize, Readiness)> {
        let longest = self.longest.load(Ordering::Relaxed);
        let most = (buf.len() / (LENGTH + longest.max(64))).clamp(1, MAX_BATCH);
        let mut received = self.received.lock();
        let (mut used, mut now_longest) = (0, longest / 2);
        let count = batch::receive(socket, Told::Bytes, most, |datagram| {
            let bytes = datagram.bytes;
            now_longest = now_longest.max(bytes.len());
            let room = buf.get_mut(used..used + LENGTH + bytes.len());
            match (room, u16::try_from(bytes.len())) {
                (Some(room), Ok(length)) if received.is_empty() => {
                    let (head, body) = room.split_at_mut(LENGTH);
                    head.copy_from_slice(&length.to_be_bytes());
                    body.copy_from_slice(bytes);
                    used += LENGTH + bytes.len();
                }
                _ if received.push(bytes) => {}
                _ => self.losses.count_queue(),
            }
        })?;
        self.longest.store(now_longest, Ordering::Relaxed);
        let rest = buf.get_mut(used..).unwrap_or_default();
        used += received.take(rest);
        let emptied = count < most;
        self.coalescing.note(&self.io, count, emptied);
        let more = match emptied {
            true => Readiness::Nothing,
            false => Readiness::More,
        };
        Ok((used, more))
    }
}

impl Flow for ConnectedDatagrams {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.is_closed.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(0));
            }
            let waiting = self.received.lock().take(buf);
            if waiting > 0 {
                return Poll::Ready(Ok(waiting));
            }
            ready!(self.coalescing.poll_due(&self.io, cx))?;
            match self
                .io
                .try_io(Interest::Read, |socket| self.receive(socket, buf))
            {
                Ok(0) if !buf.is_empty() => {}
                Err(e) if is_passing(&e) => self.coalescing.note(&self.io, 0, true),
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed.load(Ordering::Relaxed) || !self.received.lock().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.coalescing.poll_due(&self.io, cx)
    }

    fn send(&self, datagrams: &[&[u8]]) {
        let socket = self.io.get_ref();
        let greeting = self.greeting.lock().take();
        let rest = match (greeting, datagrams) {
            (Some(greeting), [first, rest @ ..]) => {
                let first = [&greeting, *first].concat();
                let lost = self.run.send(socket, None, None, &[&first]);
                self.losses.count_socket(lost);
                rest
            }
            _ => datagrams,
        };
        let lost = self.run.send(socket, None, None, rest);
        self.losses.count_socket(lost);
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn move_to(&self, thread: ShardId) -> io::Result<()> {
        self.io.move_to(thread)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().peer_addr()
    }
}

/// Whether a receive found nothing, was interrupted, or told that an earlier datagram was not delivered:
/// the service may be there the next time.
fn is_passing(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw);
    e.kind() == io::ErrorKind::WouldBlock
        || matches!(
            errno,
            Some(
                Errno::EINTR
                    | Errno::ECONNREFUSED
                    | Errno::EHOSTUNREACH
                    | Errno::ENETUNREACH
                    | Errno::EMSGSIZE
            )
        )
}
