//! What a tunnel receives. Parses every frame of each read and hands payloads to their
//! streams at once; what concerns the session comes out as [`Event`]s.

use super::closing::Closing;
use super::throttle::Throttle;
use super::{lock, CloseReason, PeerRole, Stream, Tunnel};
use crate::net::clock::Tick;
use crate::net::{with_read_buf, Conn, Delivery, TokenBucket};
use crate::wire::frame::{Header, Signal, MAX_HEAD};
use crate::wire::hello::{Hello, HelloReader};
use crate::wire::{Malformed, Version};
use async_io::Timer;
use futures_lite::Stream as _;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};

/// What the session has to act on.
pub enum Event {
    /// Anything but ping, close and services, which come as events of their own.
    Signal(Signal),
    /// GT/1's. Those of GT/2 have been answered.
    Ping,
    /// The peer has said close; the tunnel has already answered as it should.
    Close,
    /// The services signal; a client's carries its registration.
    Services(Option<Hello>),
    /// The peer has opened a stream to this service.
    Opened(Stream, u16),
    /// Time to look at deadlines; see [`Inbox::silence`].
    Tick,
    /// Nothing more comes. `Ok`: the peer or we have ended it in good order.
    End(io::Result<()>),
}

/// Bytes that are asked for at a time where the tunnel is limited, or the peer may be opening
/// streams: all that a read opens begins at the same time.
const MOST_AT_ONCE: usize = 64 * 1024;

/// Events after which others have their turn, whatever the peer sends.
const EVENTS_PER_TURN: u32 = 32;

/// How often deadlines are looked at while a sign of life is waited for, at least.
const WATCH: Duration = Duration::from_millis(500);

/// Payloads of a stream that are handed on together: more than one read brings of a stream that
/// sends much.
const PIECES: usize = 6;

/// Reads one tunnel. Polled by its session alone.
pub struct Inbox {
    tunnel: Tunnel,
    conn: Arc<Conn>,
    /// Bytes that were read before there was an inbox.
    already: Vec<u8>,
    reading: ReadState,
    events: VecDeque<Event>,
    /// The last read was long and brought payload alone.
    bulk: bool,
    timer: Timer,
    /// How often it comes, usually.
    tick: Duration,
    /// It comes more often, until the peer gives a sign of life.
    watching: bool,
    heard: Tick,
    /// When bytes came that [`Core`](super::tunnel_state::Core) has not been told of.
    news: Option<Instant>,
    version: Version,
    peer: PeerRole,
    throttle: Option<Box<Throttle>>,
    /// Events that came without a wait between them.
    in_a_row: u32,
    ended: Option<io::Result<()>>,
}

enum ReadState {
    /// The start of a head whose rest has not come.
    Head(SmallVec<[u8; MAX_HEAD]>),
    Payload {
        task: u32,
        left: u32,
    },
    /// What is for a later version.
    Skip(u32),
    /// `left` bytes at most.
    Registration {
        reader: Box<HelloReader>,
        left: u32,
    },
}

impl Inbox {
    pub(super) fn new(
        tunnel: Tunnel,
        conn: Arc<Conn>,
        already: Vec<u8>,
        (version, peer): (Version, PeerRole),
        tick: Duration,
        limit: Option<Arc<TokenBucket>>,
    ) -> Self {
        Self {
            tunnel,
            conn,
            already,
            reading: ReadState::Head(SmallVec::new()),
            events: VecDeque::new(),
            bulk: false,
            timer: Timer::interval(tick),
            tick,
            watching: false,
            heard: Tick::now(),
            news: None,
            version,
            peer,
            throttle: limit.map(|bucket| Box::new(Throttle::new(bucket))),
            in_a_row: 0,
            ended: None,
        }
    }

    /// The connection, for what comes after the tunnel.
    pub fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// What has been read and not been used, if that is less than a frame.
    #[cfg(feature = "server")]
    pub(super) fn unread(&self) -> Option<Vec<u8>> {
        let between_frames = self.events.is_empty() && self.ended.is_none();
        match &self.reading {
            ReadState::Head(begun) if between_frames => {
                Some([begun.as_slice(), self.already.as_slice()].concat())
            }
            _ => None,
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// How long the peer has said nothing, while we listened.
    pub fn silence(&self) -> Duration {
        self.heard.until(Tick::now())
    }

    /// Whether what the peer says waits because of its speed.
    pub fn is_held_back(&self) -> bool {
        self.throttle.as_ref().is_some_and(|it| it.is_waiting())
    }

    /// The next thing to act on. After [`Event::End`] it must not be asked again.
    pub async fn next(&mut self) -> Event {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.in_a_row >= EVENTS_PER_TURN {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.poll_event(cx);
        self.in_a_row = if next.is_ready() {
            self.in_a_row + 1
        } else {
            0
        };
        next
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        if self.ended.is_none() {
            if let Poll::Ready(Err(e)) = self.poll_fill(cx) {
                self.ended = Some(Err(e));
            }
        }
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        if let Some(result) = self.ended.take() {
            lock(&self.tunnel.0).end(result.is_ok());
            return Poll::Ready(Event::End(result));
        }
        ready!(Pin::new(&mut self.timer).poll_next(cx));
        let mut core = lock(&self.tunnel.0);
        core.sweep(Tick::now());
        core.measure();
        drop(core);
        if self.watching && self.version == Version::One {
            let delivery = self.conn.delivery();
            let mut core = lock(&self.tunnel.0);
            match delivery {
                Some(Delivery::Lost) => core.liveness.set_lost(true),
                // What the stream began with has arrived.
                Some(Delivery::Acknowledged) => core.liveness.answered(),
                _ => core.liveness.set_lost(false),
            }
        }
        Poll::Ready(Event::Tick)
    }

    /// Reads until there is an event, or nothing to read.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.already.is_empty() {
            let bytes = std::mem::take(&mut self.already);
            self.take(&bytes)?;
        }
        // A peer that keeps sending lets others have their turn after a few reads.
        for _ in 0..4 {
            if !self.events.is_empty() || self.ended.is_some() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_may_read(cx));
            if self.ended.is_some() {
                return Poll::Ready(Ok(()));
            }
            let mut most = if self.bulk { usize::MAX } else { MOST_AT_ONCE };
            if let Some(throttle) = &mut self.throttle {
                let Poll::Ready(granted) = throttle.poll_grant(cx, MOST_AT_ONCE) else {
                    // It is not the peer that is silent.
                    self.heard = Tick::now();
                    lock(&self.tunnel.0).liveness.stalls();
                    return Poll::Pending;
                };
                most = most.min(granted);
            }
            let read = with_read_buf(|buf| {
                let most = most.min(buf.len());
                let buf = buf.get_mut(..most).unwrap_or_default();
                let n = ready!(self.conn.poll_read(cx, buf))?;
                if let Some(throttle) = &mut self.throttle {
                    throttle.take(n);
                }
                Poll::Ready(match buf.get(..n) {
                    Some(bytes @ [_, ..]) => self.take(bytes),
                    _ => {
                        self.ended = Some(self.end_of_conn());
                        Ok(())
                    }
                })
            });
            match ready!(read) {
                // The peer may reset instead of reading our last goodbye.
                Err(e) if e.kind() != io::ErrorKind::InvalidData && self.is_closing() => {
                    self.ended = Some(Ok(()));
                }
                result => result?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits while a stream is full or the peer does not take our answers.
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut core = lock(&self.tunnel.0);
        if core.over {
            self.ended = Some(match core.aborted {
                Some(why) => Err(io::Error::other(why)),
                None => Ok(()),
            });
            return Poll::Ready(());
        }
        match &core.inbox {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => core.inbox = Some(cx.waker().clone()),
        }
        if core.is_stalled() || core.outbox.is_flooded() {
            // It is not the peer that is silent; and a stall does not last, see STUCK.
            self.heard = Tick::now();
            core.liveness.stalls();
            return Poll::Pending;
        }
        core.liveness.listens();
        if let Some(at) = self.news.take() {
            core.liveness.heard(at);
        }
        let watched = core.liveness.is_watched();
        drop(core);
        if watched != self.watching {
            self.watching = watched;
            let watch = if watched { WATCH } else { self.tick };
            self.timer.set_interval(watch.min(self.tick));
        }
        Poll::Ready(())
    }

    fn is_closing(&self) -> bool {
        lock(&self.tunnel.0).closing != Closing::Open
    }

    fn end_of_conn(&self) -> io::Result<()> {
        if self.is_closing() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the other end closed the connection",
        ))
    }

    /// Works off what has been read.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        self.heard = Tick::at(now);
        self.news = Some(now);
        let mut gathered = Batch::default();
        let result = self.take_into(&mut gathered, bytes);
        gathered.deliver(&self.tunnel, false, self.heard);
        self.bulk = bytes.len() >= MOST_AT_ONCE / 2 && self.events.is_empty();
        result
    }

    fn take_into<'a>(&mut self, gathered: &mut Batch<'a>, mut bytes: &'a [u8]) -> io::Result<()> {
        while !bytes.is_empty() && self.ended.is_none() {
            match &mut self.reading {
                ReadState::Payload { task, left } => {
                    let (payload, rest) = split(bytes, *left);
                    if gathered.is_full() {
                        gathered.deliver(&self.tunnel, false, self.heard);
                    }
                    gathered.push(*task, payload);
                    bytes = rest;
                    // At most what was left.
                    *left -= payload.len() as u32;
                    if *left == 0 {
                        self.reading = ReadState::Head(SmallVec::new());
                    }
                }
                ReadState::Skip(left) => {
                    let (skipped, rest) = split(bytes, *left);
                    bytes = rest;
                    // At most what was left.
                    *left -= skipped.len() as u32;
                    if *left == 0 {
                        self.reading = ReadState::Head(SmallVec::new());
                    }
                }
                ReadState::Registration { reader, left } => {
                    let (piece, _) = split(bytes, *left);
                    let n = reader.feed(piece).map_err(malformed)?;
                    bytes = bytes.get(n..).unwrap_or_default();
                    // At most what was left.
                    *left -= n as u32;
                    let unread = Box::new(HelloReader::new(self.version));
                    match std::mem::replace(reader, unread).finish() {
                        Ok(hello) => {
                            self.events.push_back(Event::Services(Some(hello)));
                            self.reading = ReadState::Head(SmallVec::new());
                        }
                        Err(unfinished) => **reader = unfinished,
                    }
                }
                ReadState::Head(begun) if begun.is_empty() => {
                    match self.version.parse(bytes).map_err(malformed)? {
                        Some((head, n)) => {
                            bytes = bytes.get(n..).unwrap_or_default();
                            if !gathered.goes_on_with(&head) {
                                let last = gathered.ends_with(&head);
                                gathered.deliver(&self.tunnel, last, self.heard);
                            }
                            self.meet(head).map_err(malformed)?;
                        }
                        None => {
                            begun.extend_from_slice(bytes);
                            bytes = &[];
                        }
                    }
                }
                ReadState::Head(begun) => {
                    // The rest of a head that was cut by the end of a read.
                    let before = begun.len();
                    begun.extend(bytes.iter().copied().take(MAX_HEAD - before.min(MAX_HEAD)));
                    match self.version.parse(begun).map_err(malformed)? {
                        Some((head, n)) => {
                            bytes = bytes.get(n - before..).unwrap_or_default();
                            begun.clear();
                            // It was at the start of what was read.
                            self.meet(head).map_err(malformed)?;
                        }
                        None => bytes = &[],
                    }
                }
            }
        }
        Ok(())
    }

    fn meet(&mut self, head: Header) -> Result<(), Malformed> {
        match head {
            // A client's has fields, and is a registration.
            Header::Signal(Signal::Services)
                if self.version == Version::Two && self.peer == PeerRole::Client =>
            {
                return Err(Malformed::HelloLength(0));
            }
            Header::Signal(signal) => self.hear(signal),
            Header::Data { task, len } => {
                lock(&self.tunnel.0).spend(task, len)?;
                self.expect(task, len);
            }
            Header::Close { task } => lock(&self.tunnel.0).ended_by_peer(task, CloseReason::Closed),
            Header::Finish { task } => {
                lock(&self.tunnel.0).ended_by_peer(task, CloseReason::Finished)
            }
            Header::Reset { task, reason } => {
                lock(&self.tunnel.0).ended_by_peer(task, CloseReason::Reset(reason));
            }
            Header::Credit { task, bytes } => lock(&self.tunnel.0).credit(task, bytes)?,
            Header::Ping(number) => lock(&self.tunnel.0).outbox.push(Header::Pong(number)),
            Header::Pong(number) => {
                let now = Instant::now();
                lock(&self.tunnel.0).round_trip.pong(number, now);
            }
            Header::Open {
                task,
                service,
                window,
                len,
            } => {
                let most = match self.peer {
                    PeerRole::Client => 0,
                    PeerRole::Server { streams } => streams,
                };
                let mut core = lock(&self.tunnel.0);
                let accepted = core.accept(task, window, most);
                core.spend(task, len)?;
                drop(core);
                if accepted {
                    let stream = Stream::new(self.tunnel.clone(), task);
                    self.events.push_back(Event::Opened(stream, service));
                }
                self.expect(task, len);
            }
            Header::Registration { len } if self.peer == PeerRole::Client => {
                let reader = Box::new(HelloReader::registration_of(len));
                self.reading = ReadState::Registration { reader, left: len };
            }
            Header::Registration { len } | Header::Skip { len } if len > 0 => {
                self.reading = ReadState::Skip(len);
            }
            Header::Registration { .. } | Header::Skip { .. } => {}
        }
        Ok(())
    }

    fn expect(&mut self, task: u32, left: u32) {
        self.reading = if left > 0 {
            ReadState::Payload { task, left }
        } else {
            ReadState::Head(SmallVec::new())
        };
    }

    fn hear(&mut self, signal: Signal) {
        let event = match signal {
            // One answer is enough for all that came at once.
            Signal::Ping if matches!(self.events.back(), Some(Event::Ping)) => return,
            Signal::Ping => Event::Ping,
            Signal::Close => {
                self.tunnel.heard_close();
                Event::Close
            }
            Signal::Services if self.peer == PeerRole::Client => {
                let reader = Box::new(HelloReader::registration());
                let left = u32::MAX;
                self.reading = ReadState::Registration { reader, left };
                return;
            }
            Signal::Services => Event::Services(None),
            // A client has no business with the others, and they do no harm.
            _ if self.peer == PeerRole::Client => return,
            other => Event::Signal(other),
        };
        self.events.push_back(event);
    }
}

/// Payloads of one stream that came in one read, to be handed on in one call.
#[derive(Default)]
struct Batch<'a> {
    task: u32,
    pieces: SmallVec<[IoSlice<'a>; PIECES]>,
}

impl<'a> Batch<'a> {
    fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES
    }

    /// Whether what comes behind this head may be added.
    fn goes_on_with(&self, head: &Header) -> bool {
        matches!(head, Header::Data { task, .. } if *task == self.task)
    }

    /// Whether this head says that nothing comes behind it.
    fn ends_with(&self, head: &Header) -> bool {
        matches!(head, Header::Finish { task } | Header::Close { task } if *task == self.task)
    }

    fn push(&mut self, task: u32, payload: &'a [u8]) {
        self.task = task;
        self.pieces.push(IoSlice::new(payload));
    }

    fn deliver(&mut self, tunnel: &Tunnel, last: bool, now: Tick) {
        if !self.pieces.is_empty() {
            lock(&tunnel.0).deliver(self.task, &mut self.pieces, last, now);
            self.pieces.clear();
        }
    }
}

fn malformed(e: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

/// The first `n` bytes, or all there are, and the rest.
fn split(bytes: &[u8], n: u32) -> (&[u8], &[u8]) {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    bytes.split_at(n.min(bytes.len()))
}

impl Drop for Inbox {
    /// Without a reader there is no tunnel.
    fn drop(&mut self) {
        lock(&self.tunnel.0).end(false);
    }
}
