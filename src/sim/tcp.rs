//! TCP between the hosts of a world: segments with a delay, windows, ends, resets, and links that can be
//! cut. What gt can observe is as in Linux; retransmission only shows as a delay.

use super::world::{self, nanos, Action, Body, Nanos, ObjectId, World};
use crate::net::runtime::readiness::{ENDED, READ, WRITE};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1000 * MILLISECOND;
/// Delay between two sockets of one host.
const LOOPBACK_DELAY: Nanos = 20_000;
/// Longest segment in bytes that is delivered at once.
const MAX_SEGMENT: usize = 16 * 1024;
/// Number of times that a connection attempt is repeated (tcp_syn_retries).
const MAX_SYN_RETRIES: u32 = 6;
/// Time after which keepalive gives up an idle connection: a minute and nine probes.
const KEEPALIVE: Nanos = (60 + 9 * 75) * SECOND;
/// The same with a probe each second.
const OFTEN: Nanos = 10 * SECOND;
/// Longest delay after which a segment is sent again over a link that works again.
const MAX_RETRANSMIT: Nanos = 60 * SECOND;

/// No limit of the bytes in flight; a third of what a number can hold, since [`Stream::has_room`] takes
/// it three times.
const UNLIMITED: usize = usize::MAX / 3;

/// The number of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(u8);

/// A link between two hosts.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Delay of a segment.
    pub delay: Duration,
    /// Random part of the delay, at most.
    pub jitter: Duration,
    /// Bytes a second in each direction; 0 for no limit.
    pub bandwidth: u64,
    /// Number of segments of 10 000 that are lost and sent again.
    pub loss: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(1),
            bandwidth: 0,
            loss: 0,
        }
    }
}

#[derive(Default)]
struct LinkState {
    link: Link,
    /// Since when nothing passes.
    cut_since: Option<Nanos>,
    /// Time at which the bytes sent so far have passed, by direction.
    busy_until: [Nanos; 2],
    /// What waits for the link to work again.
    held: Vec<Action>,
    /// When connections are resumed that had something held, by the lower number of their ends.
    resumed: BTreeMap<ObjectId, Nanos>,
}

/// Hosts, links, and which ports listen.
#[derive(Default)]
pub(super) struct Network {
    hosts: u8,
    links: BTreeMap<(HostId, HostId), LinkState>,
    listeners: BTreeMap<(HostId, u16), ObjectId>,
    next_port: u16,
    /// Connections that lose all segments, by the lower number of their ends, and since when.
    lost: BTreeMap<ObjectId, Nanos>,
}

impl Network {
    pub fn add_host(&mut self) -> HostId {
        self.hosts += 1;
        HostId(self.hosts)
    }

    pub fn address(&self, host: HostId) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, host.0).into()
    }

    /// Returns the host with an address, as seen from a host.
    fn host_at(&self, ip: IpAddr, from: HostId) -> Option<HostId> {
        match ip.to_canonical() {
            ip if ip.is_loopback() || ip.is_unspecified() => Some(from),
            IpAddr::V4(ip) => match ip.octets() {
                [10, 0, 0, number] if (1..=self.hosts).contains(&number) => Some(HostId(number)),
                _ => None,
            },
            IpAddr::V6(_) => None,
        }
    }

    fn link(&mut self, one: HostId, other: HostId) -> &mut LinkState {
        self.links
            .entry((one.min(other), one.max(other)))
            .or_default()
    }

    fn cut_since(&mut self, one: HostId, other: HostId) -> Option<Nanos> {
        match one == other {
            true => None,
            false => self.link(one, other).cut_since,
        }
    }

    fn ephemeral_port(&mut self) -> u16 {
        self.next_port = match self.next_port {
            32_768..60_999 => self.next_port + 1,
            _ => 32_768,
        };
        self.next_port
    }
}

/// A listening socket.
pub(super) struct Listener {
    host: HostId,
    addr: SocketAddr,
    backlog: usize,
    waiting: VecDeque<ObjectId>,
    is_stopped: bool,
}

impl Listener {
    pub fn readiness(&self) -> u8 {
        match self.waiting.is_empty() && !self.is_stopped {
            true => 0,
            false => READ,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn is_listening(&self) -> bool {
        !self.is_stopped
    }
}

/// One end of a connection.
pub(super) struct Stream {
    host: HostId,
    far_host: HostId,
    pub local: SocketAddr,
    pub peer_addr: SocketAddr,
    peer: Option<ObjectId>,
    is_connecting: bool,
    /// Whether a program has it.
    is_open: bool,
    received: VecDeque<u8>,
    /// Whether the peer has ended its direction.
    has_end: bool,
    /// Whether this end has ended its direction.
    sent_end: bool,
    /// The failure that the next call returns.
    error: Option<Errno>,
    has_failed: bool,
    /// Sent bytes that the peer's program has not read.
    outstanding: usize,
    /// Sent bytes that have not arrived.
    in_flight: usize,
    /// Maximum number of outstanding bytes: the buffers of both ends.
    capacity: usize,
    /// Maximum number of bytes in flight, as congestion control sets it.
    window: usize,
    wants_room: bool,
    /// When the last segment arrives: they stay in order.
    last_arrival: Nanos,
    pub resets_on_close: bool,
    give_up_after: Nanos,
}

impl Stream {
    pub fn readiness(&self) -> u8 {
        if self.has_failed {
            return READ | WRITE | ENDED;
        }
        match (self.received.is_empty(), self.has_end) {
            (_, true) => READ | ENDED,
            (false, false) => READ,
            (true, false) => 0,
        }
    }

    fn room(&self) -> usize {
        let room = self.capacity.saturating_sub(self.outstanding);
        room.min(self.window.saturating_sub(self.in_flight))
    }

    /// Whether there is so much room that the system tells it: a third of all.
    fn has_room(&self) -> bool {
        self.room() * 3 >= self.capacity.min(self.window)
    }

    pub fn describe(&self) -> String {
        let ended = match (self.has_end, self.sent_end, self.has_failed) {
            (_, _, true) => ", failed",
            (true, true, _) => ", ended",
            (true, false, _) => ", the peer has ended",
            (false, true, _) => ", has sent its end",
            _ => "",
        };
        let (unread, unsent) = (self.received.len(), self.outstanding);
        let (local, peer) = (self.local, self.peer_addr);
        format!("{local} to {peer}: {unread} bytes unread, {unsent} outstanding{ended}")
    }

    pub fn is_connected(&self) -> bool {
        !self.is_connecting && !self.has_failed
    }

    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take().map(io::Error::from)
    }

    /// Reads or peeks at received bytes.
    pub fn read(&mut self, buf: &mut [u8], is_peek: bool) -> io::Result<usize> {
        if self.received.is_empty() {
            if let Some(e) = self.take_error() {
                return Err(e);
            }
            return match self.has_end || self.has_failed {
                true => Ok(0),
                false => Err(Errno::AGAIN.into()),
            };
        }
        let count = buf.len().min(self.received.len());
        for (to, from) in buf.iter_mut().zip(&self.received) {
            *to = *from;
        }
        if !is_peek {
            self.received.drain(..count);
        }
        Ok(count)
    }
}

/// What passes a link on its way from one end of a connection to the other.
pub(super) struct Segment {
    from: ObjectId,
    to: ObjectId,
    hosts: (HostId, HostId),
    content: Content,
}

enum Content {
    Data(Vec<u8>),
    End,
    Reset,
    /// The attempt of `to` to connect has this result.
    Answer(Option<Errno>),
    /// The peer of `to` has read this number of bytes.
    Room(usize),
}

/// Sets how segments pass between two hosts.
pub fn set_link(one: HostId, other: HostId, link: Link) {
    world::with(|world| world.network.link(one, other).link = link);
}

/// Returns how segments pass between two hosts.
pub fn link(one: HostId, other: HostId) -> Link {
    world::with(|world| world.network.link(one, other).link)
}

/// Cuts the link between two hosts, or repairs it. Neither end hears of it.
pub fn cut(one: HostId, other: HostId, is_cut: bool) {
    world::with(|world| match is_cut {
        true => world.cut(one, other),
        false => world.repair(one, other),
    });
}

/// Loses all that one of the connections between two hosts carries from now on, as after a change of
/// address at one end. Neither end hears of it.
pub fn lose_one(one: HostId, other: HostId) {
    world::with(|world| {
        let mut crossing = Vec::new();
        for (id, object) in &world.objects {
            if let Body::Stream(stream) = &object.body {
                if (stream.host, stream.far_host) == (one, other) && !stream.has_failed {
                    crossing.extend(stream.peer.map(|peer| (*id, peer)));
                }
            }
        }
        let Some(last) = crossing.len().checked_sub(1) else {
            return;
        };
        let at = usize::try_from(world.random.between(0, last as u64)).unwrap_or(0);
        let Some((one, other)) = crossing.get(at).copied() else {
            return;
        };
        let now = world.now;
        world.network.lost.insert(one.min(other), now);
        for end in [one, other] {
            let patience = world.stream(end).map_or(KEEPALIVE, |it| it.give_up_after);
            world.after(patience, Action::GiveUp(end, now));
        }
    });
}

impl World {
    fn cut(&mut self, one: HostId, other: HostId) {
        let now = self.now;
        let link = self.network.link(one, other);
        let since = *link.cut_since.get_or_insert(now);
        let mut crossing = Vec::new();
        for (id, object) in &self.objects {
            if let Body::Stream(stream) = &object.body {
                let hosts = (stream.host, stream.far_host);
                if hosts == (one, other) || hosts == (other, one) {
                    crossing.push((*id, stream.give_up_after));
                }
            }
        }
        for (id, patience) in crossing {
            self.after(patience, Action::GiveUp(id, since));
        }
    }

    fn repair(&mut self, one: HostId, other: HostId) {
        let now = self.now;
        let link = self.network.link(one, other);
        let Some(since) = link.cut_since.take() else {
            return;
        };
        let held = std::mem::take(&mut link.held);
        let longest = (now - since).min(MAX_RETRANSMIT);
        // The segments of a connection stay in order.
        let mut delays = BTreeMap::new();
        for action in held {
            let connection = match &action {
                Action::Segment(segment) => segment.from.min(segment.to),
                _ => self.number(),
            };
            let delay = match delays.get(&connection) {
                Some(delay) => *delay,
                None => self.random.between(0, longest),
            };
            delays.insert(connection, delay);
            self.after(delay, action);
        }
        let resumed = &mut self.network.link(one, other).resumed;
        resumed.retain(|_, time| *time > now);
        for (connection, delay) in delays {
            // What an earlier repair resumes later comes first.
            let time = resumed.entry(connection).or_default();
            *time = (*time).max(now + delay);
        }
    }

    /// A connection over a link that was cut at this time fails if it is still cut.
    pub fn give_up(&mut self, id: ObjectId, since: Nanos) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        let hosts = (stream.host, stream.far_host);
        let connection = stream.peer.map_or(id, |peer| peer.min(id));
        let is_lost = self.network.lost.get(&connection) == Some(&since);
        if is_lost || self.network.cut_since(hosts.0, hosts.1) == Some(since) {
            self.fail(id, Errno::TIMEDOUT);
        }
    }

    /// Sets how soon an idle connection to a peer that does not answer is given up.
    pub fn probe(&mut self, id: ObjectId, often: bool) {
        let patience = if often { OFTEN } else { KEEPALIVE };
        let Some(stream) = self.stream(id) else {
            return;
        };
        stream.give_up_after = patience;
        let hosts = (stream.host, stream.far_host);
        if let Some(since) = self.network.cut_since(hosts.0, hosts.1) {
            self.after(patience, Action::GiveUp(id, since));
        }
    }

    fn new_stream(&mut self, hosts: (HostId, HostId), addrs: (SocketAddr, SocketAddr)) -> Stream {
        let delay = match hosts.0 == hosts.1 {
            true => Duration::ZERO,
            false => self.network.link(hosts.0, hosts.1).link.delay,
        };
        let capacity = match self.random.between(0, 99) {
            // Tiny windows, and small ones, where they do not take too long: not of one byte, which
            // would come in a frame that is ten times as long. Between hosts a ClientHello must fit:
            // a server leaves it in the kernel until all of it is there, and no kernel's window is
            // smaller.
            0 if delay.is_zero() => self.random.between(16, 64),
            0..5 if delay.is_zero() => self.random.between(200, 2000),
            0..5 if delay < Duration::from_millis(20) => self.random.between(600, 2000),
            5..15 => 4096,
            15..60 => 65_536,
            _ => self.random.between(65_536, 1_000_000),
        };
        Stream {
            host: hosts.0,
            far_host: hosts.1,
            local: addrs.0,
            peer_addr: addrs.1,
            peer: None,
            is_connecting: false,
            is_open: true,
            received: VecDeque::new(),
            has_end: false,
            sent_end: false,
            error: None,
            has_failed: false,
            outstanding: 0,
            in_flight: 0,
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            window: UNLIMITED,
            wants_room: false,
            last_arrival: 0,
            resets_on_close: false,
            give_up_after: KEEPALIVE,
        }
    }

    /// Begins to connect. Returns the descriptor, and whether the connection is established.
    pub fn connect(&mut self, addr: SocketAddr) -> io::Result<(u64, bool)> {
        let host = self.running()?.1.host;
        self.may_open(1)?;
        let far_host = self.network.host_at(addr.ip(), host);
        let far_host = far_host.ok_or(Errno::HOSTUNREACH)?;
        let port = self.network.ephemeral_port();
        let ip = match addr.ip().is_loopback() {
            true => addr.ip(),
            false => self.network.address(host),
        };
        let mut stream = self.new_stream((host, far_host), ((ip, port).into(), addr));
        stream.is_connecting = true;
        let id = self.add_object(Body::Stream(Box::new(stream)));
        let number = self.open(id)?;
        if far_host != host {
            let delay = self.delay(host, far_host, 0);
            self.after(delay, Action::Connect(id, 0));
            return Ok((number, false));
        }
        match self.meet(id) {
            Ok(_) => Ok((number, true)),
            Err(e) => {
                self.close(number);
                Err(e.into())
            }
        }
    }

    /// An attempt to connect has arrived.
    pub fn connect_arrives(&mut self, id: ObjectId, tries: u32) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        let hosts = (stream.host, stream.far_host);
        let answer = match self.network.cut_since(hosts.0, hosts.1) {
            Some(_) => Err(Errno::TIMEDOUT),
            None => self.meet(id),
        };
        match answer {
            // Lost, or there is no room: tried again.
            Err(Errno::TIMEDOUT) if tries < MAX_SYN_RETRIES => {
                self.after(SECOND << tries, Action::Connect(id, tries + 1));
            }
            Err(Errno::TIMEDOUT) => self.fail(id, Errno::TIMEDOUT),
            answer => {
                let arrival = self.now + self.delay(hosts.1, hosts.0, 0);
                if let Some(far) = answer.ok().and_then(|far| self.stream(far)) {
                    far.last_arrival = arrival;
                }
                let segment = Segment {
                    from: answer.unwrap_or(id),
                    to: id,
                    hosts: (hosts.1, hosts.0),
                    content: Content::Answer(answer.err()),
                };
                self.at(arrival, Action::Segment(segment));
            }
        }
    }

    /// Creates the other end of a connection and queues it at the listener.
    fn meet(&mut self, id: ObjectId) -> Result<ObjectId, Errno> {
        let stream = self.stream(id).ok_or(Errno::BADF)?;
        let (hosts, addrs) = (
            (stream.far_host, stream.host),
            (stream.peer_addr, stream.local),
        );
        let listener = self.network.listeners.get(&(hosts.0, addrs.0.port()));
        let listening = *listener.ok_or(Errno::CONNREFUSED)?;
        let listener = self.listener(listening).ok_or(Errno::CONNREFUSED)?;
        if listener.waiting.len() >= listener.backlog {
            return Err(Errno::TIMEDOUT);
        }
        let is_v6 = listener.addr.is_ipv6();
        let mapped = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) if is_v6 => (ip.to_ipv6_mapped(), addr.port()).into(),
            _ => addr,
        };
        let mut far = self.new_stream(hosts, (mapped(addrs.0), mapped(addrs.1)));
        far.peer = Some(id);
        let far = self.add_object(Body::Stream(Box::new(far)));
        if let Some(listener) = self.listener(listening) {
            listener.waiting.push_back(far);
        }
        if let Some(stream) = self.stream(id) {
            stream.peer = Some(far);
            // Within a host, the attempt has succeeded with this call.
            stream.is_connecting = hosts.0 != hosts.1;
        }
        self.wake(listening, READ);
        Ok(far)
    }

    /// Creates a connection within the running process's host.
    pub fn stream_pair(&mut self) -> io::Result<(u64, u64)> {
        let host = self.running()?.1.host;
        self.may_open(2)?;
        let ports = [(); 2].map(|()| self.network.ephemeral_port());
        let [one, other] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let one_end = self.new_stream((host, host), (one, other));
        let mut other_end = self.new_stream((host, host), (other, one));
        let one = self.add_object(Body::Stream(Box::new(one_end)));
        other_end.peer = Some(one);
        let other = self.add_object(Body::Stream(Box::new(other_end)));
        if let Some(stream) = self.stream(one) {
            stream.peer = Some(other);
        }
        Ok((self.open(one)?, self.open(other)?))
    }

    /// Listens on a port of the running process's host.
    pub fn listen(&mut self, mut addr: SocketAddr, backlog: usize) -> io::Result<u64> {
        let host = self.running()?.1.host;
        self.may_open(1)?;
        let is_taken = |network: &Network, port| network.listeners.contains_key(&(host, port));
        if addr.port() == 0 {
            let mut port = self.network.ephemeral_port();
            while is_taken(&self.network, port) {
                port = self.network.ephemeral_port();
            }
            addr.set_port(port);
        }
        if is_taken(&self.network, addr.port()) {
            return Err(Errno::ADDRINUSE.into());
        }
        let listener = Listener {
            host,
            addr,
            backlog,
            waiting: VecDeque::new(),
            is_stopped: false,
        };
        let id = self.add_object(Body::Listener(listener));
        self.network.listeners.insert((host, addr.port()), id);
        self.open(id)
    }

    /// Accepts a connection that waits.
    pub fn accept(&mut self, number: u64) -> io::Result<(u64, SocketAddr)> {
        let id = self.object_of(number)?;
        let listener = self.listener(id).ok_or(Errno::NOTSOCK)?;
        if listener.is_stopped {
            return Err(Errno::INVAL.into());
        }
        if listener.waiting.is_empty() {
            return Err(Errno::AGAIN.into());
        }
        self.may_open(1)?;
        let listener = self.listener(id).ok_or(Errno::NOTSOCK)?;
        let stream = listener.waiting.pop_front().ok_or(Errno::AGAIN)?;
        let number = self.open(stream)?;
        let peer = self.stream(stream).ok_or(Errno::CONNABORTED)?.peer_addr;
        Ok((number, peer))
    }

    /// Stops listening and resets the connections that wait.
    pub fn stop_listening(&mut self, id: ObjectId) {
        let Some(listener) = self.listener(id) else {
            return;
        };
        listener.is_stopped = true;
        let (host, port) = (listener.host, listener.addr.port());
        let waiting = std::mem::take(&mut listener.waiting);
        if self.network.listeners.get(&(host, port)) == Some(&id) {
            self.network.listeners.remove(&(host, port));
        }
        for stream in waiting {
            self.abort(stream);
        }
        self.wake(id, READ | WRITE | ENDED);
    }

    /// Writes bytes; fewer than all if there is no room for more.
    pub fn write(&mut self, number: u64, pieces: &[&[u8]]) -> io::Result<usize> {
        let window = self.window_of(number)?;
        let (id, stream) = self.stream_of(number)?;
        if let Some(e) = stream.take_error() {
            return Err(e);
        }
        if stream.has_failed || stream.sent_end {
            return Err(Errno::PIPE.into());
        }
        stream.window = window;
        if stream.is_connecting || stream.room() == 0 {
            stream.wants_room = true;
            return Err(Errno::AGAIN.into());
        }
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let count = all.min(stream.room());
        stream.wants_room = count < all;
        stream.outstanding += count;
        stream.in_flight += count;
        let mut bytes = Vec::with_capacity(count);
        for piece in pieces {
            let left = count - bytes.len();
            bytes.extend_from_slice(piece.get(..left).unwrap_or(piece));
        }
        while !bytes.is_empty() {
            // Cut anywhere, now and then.
            let most = bytes.len().min(MAX_SEGMENT);
            let length = match self.random.between(0, 9) {
                0 => self.random.between(1, most as u64),
                _ => most as u64,
            };
            let rest = bytes.split_off(usize::try_from(length).unwrap_or(most));
            self.send(id, Content::Data(std::mem::replace(&mut bytes, rest)));
        }
        Ok(count)
    }

    /// Returns how much of a connection may be in flight: what a link with limited bandwidth carries in
    /// an eighth of a second, since some eight connections may share it, and an answer that waits behind
    /// all of them must come before its sender counts as dead.
    fn window_of(&mut self, number: u64) -> io::Result<usize> {
        let (_, stream) = self.stream_of(number)?;
        let (host, far_host) = (stream.host, stream.far_host);
        let bandwidth = match host == far_host {
            true => 0,
            false => self.network.link(host, far_host).link.bandwidth,
        };
        Ok(match usize::try_from(bandwidth) {
            Ok(bandwidth @ 1..) => (bandwidth / 8).max(4096),
            _ => UNLIMITED,
        })
    }

    /// Reads received bytes.
    pub fn read(&mut self, number: u64, buf: &mut [u8], is_peek: bool) -> io::Result<usize> {
        let (id, stream) = self.stream_of(number)?;
        if stream.is_connecting {
            return Err(Errno::AGAIN.into());
        }
        let count = stream.read(buf, is_peek)?;
        if count > 0 && !is_peek {
            self.send(id, Content::Room(count));
        }
        Ok(count)
    }

    /// Ends the direction from this end.
    pub fn shutdown_write(&mut self, number: u64) -> io::Result<()> {
        let (id, stream) = self.stream_of(number)?;
        if stream.is_connecting || stream.has_failed {
            return Err(Errno::NOTCONN.into());
        }
        if !std::mem::replace(&mut stream.sent_end, true) {
            self.send(id, Content::End);
        }
        Ok(())
    }

    /// Closes an end of which no program has a descriptor any more.
    pub fn close_stream(&mut self, id: ObjectId) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        stream.is_open = false;
        if stream.resets_on_close || !stream.received.is_empty() {
            return self.abort(id);
        }
        if stream.has_failed || stream.is_connecting {
            return self.remove_object(id);
        }
        if !std::mem::replace(&mut stream.sent_end, true) {
            self.send(id, Content::End);
        }
        self.forget_pair(id);
    }

    /// Removes both ends once no program has them and nothing is on its way to be read.
    fn forget_pair(&mut self, id: ObjectId) {
        let Some(peer) = self.stream(id).map(|stream| stream.peer) else {
            return;
        };
        let peer_is_closed = match peer.and_then(|peer| self.stream(peer)) {
            Some(peer) => !peer.is_open,
            None => true,
        };
        if peer_is_closed {
            self.remove_object(id);
            if let Some(peer) = peer {
                self.remove_object(peer);
            }
        }
    }

    /// Resets a connection.
    fn abort(&mut self, id: ObjectId) {
        let is_connected = self.stream(id).is_some_and(|stream| stream.is_connected());
        if is_connected {
            self.send(id, Content::Reset);
        }
        self.remove_object(id);
    }

    /// Removes an end without telling the peer.
    pub fn forget_stream(&mut self, id: ObjectId) {
        if self.stream(id).is_some() {
            self.remove_object(id);
        }
    }

    /// Lets an end fail: its calls return the error once.
    fn fail(&mut self, id: ObjectId, error: Errno) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        if stream.has_failed {
            return;
        }
        stream.has_failed = true;
        stream.error = Some(error);
        match stream.is_open {
            true => self.wake(id, READ | WRITE | ENDED),
            false => self.remove_object(id),
        }
    }

    fn delay(&mut self, from: HostId, to: HostId, length: usize) -> Nanos {
        if from == to {
            return LOOPBACK_DELAY + self.random.between(0, LOOPBACK_DELAY);
        }
        let now = self.now;
        let state = self.network.link(from, to);
        let link = state.link;
        let busy = state.busy_until.get_mut(usize::from(from > to));
        let mut delay = nanos(link.delay);
        if let (Some(busy), 1..) = (busy, link.bandwidth) {
            let time = length as u64 * SECOND / link.bandwidth;
            *busy = now.max(*busy) + time;
            delay += *busy - now;
        }
        delay += self.random.between(0, nanos(link.jitter));
        if self.random.between(1, 10_000) <= link.loss {
            delay += 200 * MILLISECOND;
        }
        delay
    }

    /// Sends a segment to the other end of a connection.
    fn send(&mut self, from: ObjectId, content: Content) {
        let Some(stream) = self.stream(from) else {
            return;
        };
        let Some(to) = stream.peer else {
            return;
        };
        let hosts = (stream.host, stream.far_host);
        let length = match &content {
            Content::Data(bytes) => bytes.len(),
            _ => 0,
        };
        let arrival = self.now + self.delay(hosts.0, hosts.1, length);
        let Some(stream) = self.stream(from) else {
            return;
        };
        let arrival = arrival.max(stream.last_arrival);
        stream.last_arrival = arrival;
        let segment = Segment {
            from,
            to,
            hosts,
            content,
        };
        self.at(arrival, Action::Segment(segment));
    }

    /// A segment arrives, unless the link is cut.
    pub fn arrive(&mut self, segment: Segment) {
        let (one, other) = segment.hosts;
        if self.network.cut_since(one, other).is_some() {
            let held = &mut self.network.link(one, other).held;
            held.push(Action::Segment(segment));
            return;
        }
        if one != other {
            let connection = segment.from.min(segment.to);
            let resumed = self.network.link(one, other).resumed.get(&connection);
            // Behind those that were held.
            if let Some(time) = resumed.filter(|time| **time > self.now) {
                let time = *time;
                self.at(time, Action::Segment(segment));
                return;
            }
        }
        if self
            .network
            .lost
            .contains_key(&segment.from.min(segment.to))
        {
            return;
        }
        let Segment {
            from,
            to,
            hosts,
            content,
        } = segment;
        match content {
            Content::Data(bytes) => self.data_arrives(from, to, bytes, hosts),
            Content::End => {
                if let Some(stream) = self.stream(to) {
                    stream.has_end = true;
                    let ready = match stream.sent_end {
                        true => READ | WRITE | ENDED,
                        false => READ | ENDED,
                    };
                    self.wake(to, ready);
                }
            }
            Content::Reset => self.fail(to, Errno::CONNRESET),
            Content::Answer(None) => match self.stream(to) {
                Some(stream) => {
                    stream.is_connecting = false;
                    let ready = WRITE | stream.readiness();
                    self.wake(to, ready);
                }
                // It was closed meanwhile.
                None => self.fail(from, Errno::CONNRESET),
            },
            Content::Answer(Some(error)) => self.fail(to, error),
            Content::Room(count) => {
                let Some(stream) = self.stream(to) else {
                    return;
                };
                stream.outstanding = stream.outstanding.saturating_sub(count);
                if stream.wants_room && stream.has_room() {
                    stream.wants_room = false;
                    self.wake(to, WRITE);
                }
            }
        }
    }

    fn data_arrives(
        &mut self,
        from: ObjectId,
        to: ObjectId,
        bytes: Vec<u8>,
        hosts: (HostId, HostId),
    ) {
        if let Some(sender) = self.stream(from) {
            sender.in_flight = sender.in_flight.saturating_sub(bytes.len());
            if sender.wants_room && sender.has_room() {
                sender.wants_room = false;
                self.wake(from, WRITE);
            }
        }
        match self.stream(to) {
            Some(stream) if stream.is_open && !stream.has_failed => {
                stream.received.extend(bytes);
                self.wake(to, READ);
            }
            // Nothing reads it any more.
            _ => {
                let delay = self.delay(hosts.1, hosts.0, 0);
                let reset = Segment {
                    from: to,
                    to: from,
                    hosts: (hosts.1, hosts.0),
                    content: Content::Reset,
                };
                self.after(delay, Action::Segment(reset));
            }
        }
    }

    /// Tells a source when there is room for more bytes, or that there is.
    pub fn ask_for_room(&mut self, number: u64) -> io::Result<bool> {
        let id = self.object_of(number)?;
        let has_room = match self.stream(id) {
            Some(stream) => {
                let has_room = !stream.is_connecting && stream.has_room();
                stream.wants_room = !has_room;
                has_room || stream.has_failed
            }
            // A packet that did not fit has asked already.
            None => false,
        };
        if has_room {
            self.wake(id, WRITE);
        }
        Ok(has_room)
    }

    /// Returns what is known of the delivery of sent bytes.
    pub fn delivery(&mut self, number: u64) -> Option<crate::net::Delivery> {
        use crate::net::Delivery;
        let (id, stream) = self.stream_of(number).ok()?;
        let connection = stream.peer.map_or(id, |peer| peer.min(id));
        let (in_flight, outstanding) = (stream.in_flight, stream.outstanding);
        let (hosts, is_full) = ((stream.host, stream.far_host), stream.wants_room);
        let now = self.now;
        let lost_since = self.network.lost.get(&connection).copied();
        let since = self.network.cut_since(hosts.0, hosts.1).or(lost_since);
        let is_cut = since.is_some_and(|since| now - since > SECOND);
        Some(match (in_flight, outstanding) {
            (1.., _) if is_cut => Delivery::Lost,
            (1.., _) => Delivery::Moving,
            (0, 1..) if is_full => Delivery::Blocked,
            _ => Delivery::Acknowledged,
        })
    }
}
