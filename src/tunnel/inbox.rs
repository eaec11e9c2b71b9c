//! The receiving half of a tunnel. Parses every frame of each read and delivers payloads to their
//! streams at once; frames that concern the session are returned as an [`Event`].

mod frames;

use super::closing::Closing;
use super::moment::Moment;
use super::quic_carrier::OpenedStream;
use super::{lock, PeerRole, Stream, Tunnel};
use crate::net::clock::{Tick, CLOCK_STEP};
use crate::net::{clock, with_read_buf, Conn, Delivery, Throttle, Timer, TokenBucket};
use crate::wire::codec::HelloReader;
use crate::wire::frame::{ServiceIndex, Signal, StreamId};
use crate::wire::hello::Hello;
use crate::wire::{Malformed, Version};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// A message of a tunnel to its session, which has to act on it.
pub enum Event {
    /// A signal other than ping, close and services, which have events of their own.
    Signal(Signal),
    /// A GT/1 ping, which the session has to answer. The inbox answers pings of GT/2.
    Ping,
    /// The peer has sent close. The tunnel has already sent the answer that is due.
    Close,
    /// The services signal; one from a client carries its registration.
    Services(Option<Hello>),
    /// The peer has opened a stream to the service with this index.
    Opened(Stream, ServiceIndex),
    /// Like [`Event::Opened`], with an index of the services before the last change: the stream was opened before
    /// it and has been overtaken, as it can be over QUIC.
    OpenedBefore(Stream, ServiceIndex),
    /// The session should check its deadlines; see [`Inbox::silence`] and [`Inbox::rest`].
    Tick,
    /// The session should look for changes outside of the tunnel; see [`Tunnel::notify`].
    Notice,
    /// Nothing more is received. `Ok` if the tunnel ended gracefully.
    End(io::Result<()>),
}

/// Maximum bytes of one read while the tunnel has a speed limit or the peer may be opening streams:
/// all streams that one read opens start at the same time.
const READ_LIMIT: usize = 64 * 1024;

/// Events returned in a row before other tasks run, whatever the peer sends.
const EVENTS_PER_TURN: u32 = 32;

/// Longest interval between deadline checks while a sign of life is awaited.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The reader of one tunnel. Only the tunnel's session polls it.
pub struct Inbox {
    tunnel: Tunnel,
    conn: Arc<Conn>,
    reading: ReadState,
    /// Whether [`Event::Notice`] is the next event.
    noticed: bool,
    // In a box: tunnels that only wait have none.
    #[allow(clippy::box_collection)]
    events: Option<Box<VecDeque<Event>>>,
    /// Whether the last read was long and brought nothing but payload.
    bulk: bool,
    timer: Timer,
    /// The usual interval of `timer`, in milliseconds.
    tick: u32,
    /// Whether `timer` runs at [`WATCH_INTERVAL`], until the peer gives a sign of life.
    watching: bool,
    /// Whether `timer` runs as long as the session has said, until the tunnel is used.
    resting: bool,
    heard: Tick,
    /// Whether each stream has a stream of QUIC.
    has_lanes: bool,
    /// Whether the connection is over QUIC.
    is_quic: bool,
    /// When bytes last came that [`Liveness`](super::liveness::Liveness) does not know of yet.
    unreported: Option<Moment>,
    version: Version,
    peer: PeerRole,
    throttle: Option<Throttle>,
    /// Events returned without a wait between them.
    in_a_row: u32,
}

enum ReadState {
    /// Bytes that were read from the connection before the inbox existed come first.
    Begin(Box<[u8]>),
    /// The start of a header whose rest has not come.
    Head(Vec<u8>),
    Payload {
        stream_id: StreamId,
        left: u32,
    },
    /// Payload of a frame that only a later version understands.
    Skip(u32),
    /// A registration, of which at most `left` bytes may come.
    Registration {
        reader: Box<HelloReader>,
        left: u32,
    },
    /// The peer has ended its direction of the connection while bytes of streams are on the way.
    LanesAlone,
    /// Nothing more is read. The session has to learn of the result.
    Ended(io::Result<()>),
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
        let has_lanes = lock(&tunnel.0).quic.is_some();
        Self {
            has_lanes,
            is_quic: conn.is_quic(),
            tunnel,
            conn,
            reading: ReadState::Begin(already.into()),
            noticed: false,
            events: None,
            bulk: false,
            timer: Timer::after(tick),
            tick: u32::try_from(tick.as_millis()).unwrap_or(u32::MAX),
            watching: false,
            resting: false,
            heard: Tick::now(),
            unreported: None,
            version,
            peer,
            throttle: limit.map(Throttle::new),
            in_a_row: 0,
        }
    }

    /// Returns the connection, for use after the tunnel has ended.
    pub fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// Returns the bytes that were read and not parsed; `None` within a frame.
    #[cfg(feature = "server")]
    pub(super) fn unread(&self) -> Option<Vec<u8>> {
        match &self.reading {
            _ if self.has_events() => None,
            ReadState::Begin(unread) => Some(unread.to_vec()),
            ReadState::Head(unread) => Some(unread.clone()),
            _ => None,
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Returns how long the peer has sent nothing while the tunnel was being read.
    pub fn silence(&self) -> Duration {
        self.heard.until(Tick::now())
    }

    /// Whether the tunnel's speed limit delays reading at the moment.
    pub fn is_held_back(&self) -> bool {
        self.throttle.as_ref().is_some_and(|it| it.is_waiting())
    }

    /// Returns the next event. Must not be called again after [`Event::End`].
    pub async fn next(&mut self) -> Event {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns the next event, see [`Inbox::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
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
        if let Some(event) = self.pop_event() {
            return Poll::Ready(event);
        }
        if !self.has_ended() {
            if let Poll::Ready(Err(e)) = self.poll_fill(cx) {
                if e.kind() == io::ErrorKind::InvalidData {
                    // The peer has broken the protocol: nothing is left to say to it.
                    self.conn.cut();
                }
                self.reading = ReadState::Ended(Err(e));
            }
        }
        if let Some(event) = self.pop_event() {
            return Poll::Ready(event);
        }
        if let ReadState::Ended(result) = &mut self.reading {
            let result = std::mem::replace(result, Ok(()));
            self.reading = ReadState::Head(Vec::new());
            lock(&self.tunnel.0).end(result.is_ok());
            return Poll::Ready(Event::End(result));
        }
        ready!(Pin::new(&mut self.timer).poll(cx));
        let mut state = lock(&self.tunnel.0);
        (self.resting, state.rests) = (false, false);
        set_interval(&mut self.timer, self.watching, self.tick);
        state.sweep(Tick::now());
        if self.is_quic {
            state.expect_sign_of_life();
        }
        state.measure();
        state.probe_if_due();
        drop(state);
        if self.watching && (self.is_quic || self.version == Version::One) {
            let delivery = self.conn.delivery();
            let mut state = lock(&self.tunnel.0);
            match delivery {
                Some(Delivery::Lost) => state.liveness.set_lost(true),
                // The first bytes of the stream have arrived; or the peer answers over QUIC, which its program does.
                Some(Delivery::Acknowledged) => state.liveness.answered(),
                _ => state.liveness.set_lost(false),
            }
        }
        Poll::Ready(Event::Tick)
    }

    /// Reads until there is an event, or nothing to read.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let ReadState::Begin(bytes) = &mut self.reading {
            let bytes = std::mem::take(bytes);
            self.reading = ReadState::Head(Vec::new());
            if !bytes.is_empty() {
                self.parse(&bytes)?;
            }
        }
        // A peer that keeps sending must not keep other tasks from running.
        for _ in 0..4 {
            if self.has_events() || self.has_ended() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_may_read(cx));
            if self.has_events() || self.has_ended() {
                return Poll::Ready(Ok(()));
            }
            let mut most = if self.bulk { usize::MAX } else { READ_LIMIT };
            if let Some(throttle) = &mut self.throttle {
                let Poll::Ready(granted) = throttle.poll_grant(cx, READ_LIMIT) else {
                    // The silence is ours, not the peer's.
                    self.heard = Tick::now();
                    let mut state = lock(&self.tunnel.0);
                    state.liveness.stall();
                    // The session tells the peer that the silence is not a failure.
                    if std::mem::take(&mut state.rests) {
                        self.resting = false;
                        set_interval(&mut self.timer, self.watching, self.tick);
                    }
                    return Poll::Pending;
                };
                most = most.min(granted);
            }
            if self.has_lanes && self.poll_lanes(cx, most)? {
                continue;
            }
            if matches!(self.reading, ReadState::LanesAlone) {
                return Poll::Pending;
            }
            let read = with_read_buf(|buf| {
                let most = most.min(buf.len());
                let buf = buf.get_mut(..most).unwrap_or_default();
                let n = ready!(self.conn.poll_read(cx, buf))?;
                if let Some(throttle) = &mut self.throttle {
                    throttle.take(n);
                }
                Poll::Ready(match buf.get(..n) {
                    Some(bytes @ [_, ..]) => self.parse(bytes),
                    _ => {
                        self.conn_ended();
                        Ok(())
                    }
                })
            });
            match ready!(read) {
                // The peer may reset the connection instead of reading our last close.
                Err(e) if e.kind() != io::ErrorKind::InvalidData && self.is_closing() => {
                    self.reading = ReadState::Ended(Ok(()));
                }
                result => result?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits while a GT/1 stream's backlog is full or the peer does not read our answers. Ready
    /// before that if there is an event.
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.tunnel.0);
        if state.over {
            self.reading = ReadState::Ended(match state.aborted.as_deref() {
                Some(why) => Err(io::Error::other(*why)),
                None => Ok(()),
            });
            return Poll::Ready(());
        }
        if std::mem::take(&mut state.notified) {
            self.noticed = true;
            return Poll::Ready(());
        }
        match &state.inbox {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.inbox = Some(cx.waker().clone()),
        }
        let (watched, rests) = (state.liveness.is_watched(), state.rests);
        if watched != self.watching || rests != self.resting {
            if watched && self.is_quic {
                self.conn.probe(true);
            }
            (self.watching, self.resting) = (watched, rests);
            set_interval(&mut self.timer, self.watching, self.tick);
        }
        if state.is_stalled() || state.outbox.is_flooded() {
            // The silence is ours, not the peer's. STUCK_TIMEOUT bounds it.
            self.heard = Tick::now();
            state.liveness.stall();
            return Poll::Pending;
        }
        state.liveness.resume();
        if let Some(at) = self.unreported.take() {
            state.liveness.heard(at);
        }
        Poll::Ready(())
    }

    /// Lets the next [`Event::Tick`] come as late as `time` from now, unless the tunnel is used
    /// before: tunnels that only wait should not wake the process. They need little memory.
    pub fn rest(&mut self, time: Duration) {
        // At that time no deadline may still be ahead, as measured by the coarse clock.
        let time = time.saturating_add(CLOCK_STEP);
        let mut state = lock(&self.tunnel.0);
        let rests =
            time > millis(self.tick) && !self.watching && !self.is_held_back() && state.is_quiet();
        if rests {
            (self.resting, state.rests) = (true, true);
            self.timer.set_about(time);
            state.rest();
            self.events.take_if(|events| events.is_empty());
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.reading, ReadState::Ended(_))
    }

    fn has_events(&self) -> bool {
        let events = self.events.as_ref();
        self.noticed || events.is_some_and(|events| !events.is_empty())
    }

    fn push_event(&mut self, event: Event) {
        self.events.get_or_insert_default().push_back(event);
    }

    fn pop_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.noticed) {
            return Some(Event::Notice);
        }
        self.events.as_mut()?.pop_front()
    }

    fn is_closing(&self) -> bool {
        lock(&self.tunnel.0).closing != Closing::Open
    }

    /// Reads what has come in streams of QUIC. True if there was anything.
    fn poll_lanes(&mut self, cx: &mut Context<'_>, most: usize) -> io::Result<bool> {
        let now = clock::now();
        let progress = self.tunnel.poll_lanes(cx, most, Tick::at(now))?;
        if progress.any {
            self.heard = Tick::at(now);
            self.unreported = Some(Moment::at(now));
        }
        if let Some(throttle) = self.throttle.as_mut().filter(|_| progress.bytes > 0) {
            throttle.take(progress.bytes);
        }
        for opened in progress.opened {
            self.push_opened(opened);
        }
        if matches!(self.reading, ReadState::LanesAlone) && self.conn.has_failed() {
            self.reading = ReadState::Ended(Ok(()));
        }
        Ok(progress.any)
    }

    fn push_opened(&mut self, opened: OpenedStream) {
        let OpenedStream {
            stream, service, ..
        } = opened;
        self.push_event(match opened.is_of_previous {
            false => Event::Opened(stream, service),
            true => Event::OpenedBefore(stream, service),
        });
    }

    /// Ends reading at the end of the connection, or with the last stream that is still on the way.
    fn conn_ended(&mut self) {
        let outlives = self.has_lanes && self.is_closing() && lock(&self.tunnel.0).outlives_peer();
        self.reading = match outlives {
            true => ReadState::LanesAlone,
            false => ReadState::Ended(self.end_of_conn()),
        };
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
}

/// Sets the time up to the next check of deadlines, which comes every `tick` milliseconds.
fn set_interval(timer: &mut Timer, watching: bool, tick: u32) {
    match watching {
        true => timer.set_after(WATCH_INTERVAL.min(millis(tick))),
        false => timer.set_about(millis(tick)),
    }
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

fn malformed(e: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl Drop for Inbox {
    /// Ends the tunnel: it cannot continue without being read.
    fn drop(&mut self) {
        lock(&self.tunnel.0).end(false);
    }
}
