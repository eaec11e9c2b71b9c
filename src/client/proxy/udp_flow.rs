//! The datagrams from one address and port of a visitor of a SOCKS5 proxy, whose headers say where each
//! goes. One socket sends them all; it takes answers from there alone.

use super::associations::{Admission, Associations};
use super::datagram::{self, MAX_HEADER};
use super::destination::{Destination, DestinationHost};
use crate::config::client::proxy::{allow, may_be};
use crate::config::ServiceConfig;
use crate::logging::FirstRequest;
use crate::net::{
    clock, look_up_for_visitor, spawn, DatagramConn, DatagramQueue, Datagrams, Flow, ShardId,
};
use crate::sync::Mutex;
use smallvec::SmallVec;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Maximum number of addresses that answers may come from: those that the visitor has sent to last.
const MAX_PEERS: usize = 256;
/// Maximum number of names that a flow remembers.
const MAX_NAMES: usize = 64;
/// Maximum number of names of a flow that are looked up at a time.
const MAX_LOOK_UPS: usize = 8;
/// Maximum bytes of a flow that wait for addresses of names.
const MAX_WAITING: usize = 64 * 1024;
/// Maximum number of datagrams of a flow that wait for addresses of names.
const MAX_WAITING_DATAGRAMS: usize = 64;
/// Time for which the addresses of a name are remembered.
const NAME_MEMORY: Duration = Duration::from_secs(60);
/// Time for which it is remembered that a name has no addresses.
const FAILURE_MEMORY: Duration = Duration::from_secs(5);
/// Requested size in bytes of the kernel's buffer of answers.
const RECV_BUFFER: usize = 64 * 1024;
/// Length in bytes of the length before each datagram of a record (docs/wire.md, "Datagrams").
const LENGTH: usize = 2;
/// Length in bytes that answers are assumed to have until a longer one has come.
const SHORT_ANSWER: usize = 64;
/// Maximum number of datagrams that one read takes.
const MAX_BATCH: usize = 16;
/// Maximum number of reads in a row that find only datagrams of addresses that the visitor has not sent to.
const MAX_FRUITLESS: usize = 4;

/// A flow of a visitor.
pub(super) struct UdpFlow {
    service: Arc<ServiceConfig>,
    visitor: IpAddr,
    socket: Datagrams,
    /// The addresses that answers may come from, in the order in which the visitor has sent to them.
    peers: Mutex<Vec<SocketAddr>>,
    names: Mutex<Vec<KnownName>>,
    /// Answers that were received and not read, since the reader had less room.
    received: Mutex<DatagramQueue>,
    /// Length in bytes of the longest recent answer, on which the number of those received at once depends.
    longest: AtomicUsize,
    reader: Mutex<Option<Waker>>,
    is_ended: AtomicBool,
    /// Number of the visitor's datagrams that were dropped.
    dropped: AtomicUsize,
    /// The access log's record of the first datagram, until one has come.
    first: Mutex<Option<Arc<FirstRequest>>>,
}

/// A name that the visitor has sent to.
struct KnownName {
    name: String,
    state: NameState,
}

enum NameState {
    /// The ports and the datagrams that wait for its addresses.
    LookingUp(Vec<(u16, Vec<u8>)>),
    /// The addresses of the name, and until when they are used.
    Known(Vec<IpAddr>, Instant),
}

/// The addresses of a name, as far as they are known.
enum Addresses {
    Known(Vec<IpAddr>),
    /// The addresses are being looked up, or cannot be looked up now.
    Pending,
}

impl UdpFlow {
    /// Begins a flow of a visitor that has an association. Fails with `PermissionDenied` if the visitor has
    /// none, or has too many flows.
    pub(super) fn begin(
        associations: &Associations,
        service: Arc<ServiceConfig>,
        visitor: Option<IpAddr>,
        first: Option<Arc<FirstRequest>>,
    ) -> io::Result<DatagramConn> {
        let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why);
        let none = || denied("it has sent a datagram, but no UDP ASSOCIATE");
        let visitor = visitor.ok_or_else(none)?;
        match associations.admit(visitor) {
            Admission::Admitted => {}
            Admission::NoAssociation => return Err(none()),
            Admission::TooMany => {
                return Err(denied("it has sent datagrams from too many ports at once"));
            }
        }
        let socket = Datagrams::bind(None, 0)?;
        socket.set_recv_buffer(RECV_BUFFER);
        let flow = Arc::new(Self {
            service,
            visitor,
            socket,
            peers: Mutex::default(),
            names: Mutex::default(),
            received: Mutex::default(),
            longest: AtomicUsize::new(0),
            reader: Mutex::default(),
            is_ended: AtomicBool::new(false),
            dropped: AtomicUsize::new(0),
            first: Mutex::new(first),
        });
        match associations.add(visitor, &flow) {
            true => Ok(DatagramConn::new(Box::new(FlowHandle(flow)))),
            false => Err(none()),
        }
    }

    /// Ends the flow: nothing more is sent, and its reader finds the end.
    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.lock().take() {
            reader.wake();
        }
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::SeqCst)
    }

    /// Has `cx` woken when the flow ends.
    fn register(&self, cx: &Context<'_>) {
        let mut reader = self.reader.lock();
        match &mut *reader {
            Some(known) => known.clone_from(cx.waker()),
            None => *reader = Some(cx.waker().clone()),
        }
    }

    fn drop_datagrams(&self, count: usize) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the address that a visitor's datagram goes to, and its payload. `None` if it is dropped, or waits for
    /// the addresses of a name.
    fn forward<'a>(self: &Arc<Self>, datagram: &'a [u8]) -> Option<(SocketAddr, &'a [u8])> {
        let Some((destination, payload)) = datagram::parse(datagram) else {
            self.drop_datagrams(1);
            return None;
        };
        let (targets, port) = (&self.service.targets, destination.port);
        let (name, addresses) = match &destination.host {
            DestinationHost::Address(ip) => (None, Addresses::Known(vec![*ip])),
            DestinationHost::Name(name) if !may_be(targets, name, port) => {
                (Some(name), Addresses::Known(Vec::new()))
            }
            DestinationHost::Name(name) => (Some(name), self.addresses(name, port, payload)),
        };
        let Addresses::Known(addresses) = addresses else {
            self.record(&destination, 200);
            return None;
        };
        let to = self.target(name.map(String::as_str), &addresses, port);
        self.record(&destination, if to.is_some() { 200 } else { 403 });
        if to.is_none() {
            self.drop_datagrams(1);
        }
        Some((to?, payload))
    }

    /// Records the first datagram for the access log.
    fn record(&self, destination: &Destination, status: u16) {
        if let Some(first) = self.first.lock().take() {
            first.request(b"UDP", destination.to_string().as_bytes());
            first.status(status);
        }
    }

    /// Returns the first address that is a target. A name of this machine may have an address of each family;
    /// many programs listen only on the one of IPv4, which no datagram can find out.
    fn target(&self, name: Option<&str>, addresses: &[IpAddr], port: u16) -> Option<SocketAddr> {
        let mut targets = addresses
            .iter()
            .map(|ip| SocketAddr::new(ip.to_canonical(), port))
            .filter(|addr| allow(&self.service.targets, name, *addr))
            .filter(|addr| self.socket.path_to(*addr).is_some());
        let first = targets.next()?;
        let is_usual = |addr: &SocketAddr| addr.ip() == IpAddr::from(Ipv4Addr::LOCALHOST);
        Some(targets.find(is_usual).unwrap_or(first))
    }

    /// Returns the addresses of a name. If they are not known, the datagram waits for them.
    fn addresses(self: &Arc<Self>, name: &str, port: u16, payload: &[u8]) -> Addresses {
        let now = clock::now();
        let mut names = self.names.lock();
        names.retain(|known| !matches!(&known.state, NameState::Known(_, until) if *until <= now));
        let (mut look_ups, mut datagrams, mut bytes) = (0, 0, 0);
        for known in names.iter() {
            if let NameState::LookingUp(waiting) = &known.state {
                look_ups += 1;
                datagrams += waiting.len();
                bytes += waiting.iter().map(|(_, it)| it.len()).sum::<usize>();
            }
        }
        let has_room =
            datagrams < MAX_WAITING_DATAGRAMS && bytes.saturating_add(payload.len()) <= MAX_WAITING;
        match names.iter_mut().find(|known| known.name == name) {
            Some(known) => match &mut known.state {
                NameState::Known(addresses, _) => return Addresses::Known(addresses.clone()),
                NameState::LookingUp(waiting) if has_room => waiting.push((port, payload.to_vec())),
                NameState::LookingUp(_) => self.drop_datagrams(1),
            },
            None if has_room && look_ups < MAX_LOOK_UPS => {
                if names.len() >= MAX_NAMES {
                    let is_known = |it: &KnownName| matches!(it.state, NameState::Known(..));
                    if let Some(oldest) = names.iter().position(is_known) {
                        names.remove(oldest);
                    }
                }
                names.push(KnownName {
                    name: name.to_owned(),
                    state: NameState::LookingUp(vec![(port, payload.to_vec())]),
                });
                spawn(self.clone().look_up(name.to_owned()));
            }
            None => self.drop_datagrams(1),
        }
        Addresses::Pending
    }

    /// Looks a name up, and sends what waits for its addresses.
    async fn look_up(self: Arc<Self>, name: String) {
        let found = look_up_for_visitor(Some(self.visitor), &name, 0).await;
        let (addresses, memory): (Vec<IpAddr>, _) = match found {
            Ok(found) => (found.iter().map(SocketAddr::ip).collect(), NAME_MEMORY),
            Err(e) => {
                log::debug!("datagrams for {name} are dropped: {e}");
                (Vec::new(), FAILURE_MEMORY)
            }
        };
        let until = clock::now() + memory;
        let waiting = {
            let mut names = self.names.lock();
            let Some(known) = names.iter_mut().find(|known| known.name == name) else {
                return;
            };
            let state = NameState::Known(addresses.clone(), until);
            match std::mem::replace(&mut known.state, state) {
                NameState::LookingUp(waiting) => waiting,
                NameState::Known(..) => return,
            }
        };
        for (port, payload) in waiting {
            match self.target(Some(&name), &addresses, port) {
                Some(to) => self.send_to(to, &[&payload]),
                None => self.drop_datagrams(1),
            }
        }
    }

    /// Sends datagrams to one address.
    fn send_to(&self, to: SocketAddr, datagrams: &[&[u8]]) {
        let path = self.socket.path_to(to).filter(|_| !self.is_ended());
        let Some(path) = path else {
            return self.drop_datagrams(datagrams.len());
        };
        {
            let mut peers = self.peers.lock();
            if peers.last() != Some(&to) {
                peers.retain(|peer| *peer != to);
                if peers.len() >= MAX_PEERS {
                    peers.remove(0);
                }
                peers.push(to);
            }
        }
        self.drop_datagrams(self.socket.send(datagrams, &path));
    }

    /// Receives answers into `buf`; those that do not fit wait. Returns the number of bytes, 0 if none is
    /// an answer.
    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let longest = self.longest.load(Ordering::Relaxed);
        let record = LENGTH + MAX_HEADER + longest.max(SHORT_ANSWER);
        let most = (buf.len() / record).clamp(1, MAX_BATCH);
        let (mut received, peers) = (self.received.lock(), self.peers.lock());
        let (mut used, mut now_longest) = (0, longest / 2);
        let polled = self.socket.poll_receive(cx, most, |bytes, path| {
            let from = SocketAddr::new(path.from.ip(), path.from.port());
            if !peers.contains(&from) {
                return;
            }
            now_longest = now_longest.max(bytes.len());
            let header = datagram::header(from);
            let Ok(length) = u16::try_from(header.len() + bytes.len()) else {
                return;
            };
            let room = buf.get_mut(used..used + LENGTH + usize::from(length));
            match room.filter(|_| received.is_empty()) {
                Some(room) => {
                    let (head, body) = room.split_at_mut(LENGTH);
                    head.copy_from_slice(&length.to_be_bytes());
                    let (first, rest) = body.split_at_mut(header.len());
                    first.copy_from_slice(&header);
                    rest.copy_from_slice(bytes);
                    used += LENGTH + usize::from(length);
                }
                None => drop(received.push(&[&header, bytes].concat())),
            }
        });
        ready!(polled)?;
        self.longest.store(now_longest, Ordering::Relaxed);
        used += received.take(buf.get_mut(used..).unwrap_or_default());
        Poll::Ready(Ok(used))
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            let local = &self.service.local;
            log::debug!(
                "{dropped} datagrams of {} to {local} were dropped",
                self.visitor
            );
        }
    }
}

/// The handle that a relay has of a flow. The flow ends when it is dropped.
struct FlowHandle(Arc<UdpFlow>);

impl fmt::Debug for FlowHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdpFlow").field(&self.0.visitor).finish()
    }
}

impl Flow for FlowHandle {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let flow = &self.0;
        flow.register(cx);
        for _ in 0..MAX_FRUITLESS {
            if flow.is_ended() {
                return Poll::Ready(Ok(0));
            }
            let waiting = flow.received.lock().take(buf);
            if waiting > 0 {
                return Poll::Ready(Ok(waiting));
            }
            match ready!(flow.poll_receive(cx, buf)) {
                Ok(0) if !buf.is_empty() => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                received => return Poll::Ready(received),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flow = &self.0;
        flow.register(cx);
        if flow.is_ended() || !flow.received.lock().is_empty() {
            return Poll::Ready(Ok(()));
        }
        flow.socket.poll_readable(cx)
    }

    fn send(&self, datagrams: &[&[u8]]) {
        let flow = &self.0;
        let mut run: SmallVec<[&[u8]; MAX_BATCH]> = SmallVec::new();
        let mut run_to = None;
        for datagram in datagrams {
            let Some((to, payload)) = flow.forward(datagram) else {
                continue;
            };
            if let Some(before) = run_to.filter(|before| *before != to) {
                flow.send_to(before, &run);
                run.clear();
            }
            run_to = Some(to);
            run.push(payload);
        }
        if let Some(to) = run_to {
            flow.send_to(to, &run);
        }
    }

    fn close(&self) {
        self.0.end();
    }

    fn move_to(&self, thread: ShardId) -> io::Result<()> {
        self.0.socket.move_to(thread)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.socket.addr())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

impl Drop for FlowHandle {
    fn drop(&mut self) {
        // Look-ups may still hold it.
        self.0.end();
    }
}
