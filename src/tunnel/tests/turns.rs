//! Turns, counted: the test polls streams in the order in which they were woken, and takes what the
//! outbox has gathered. No clock or task is involved.

use super::*;
use crate::tunnel::outbox::{Drained, MAX_SENDERS};
use futures_lite::AsyncWrite;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

/// Streams of one tunnel that always have more to send.
struct Crowd {
    tunnel: Tunnel,
    streams: Vec<Stream>,
    /// Streams to run, first in, first out, as on gt's one thread.
    woken: Arc<Mutex<VecDeque<usize>>>,
    state: u32,
}

struct Runner {
    at: usize,
    woken: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Runner {
    fn wake(self: Arc<Self>) {
        self.woken.lock().push_back(self.at);
    }
}

impl Crowd {
    fn new(streams: u32) -> Self {
        let peer = PeerRole::Server { streams: 100 };
        let policy = Policy::new(Version::Two, peer, Duration::from_secs(60));
        let state = Mutex::new(TunnelState::new(&policy, Weak::new()));
        let mut crowd = Self {
            tunnel: Tunnel(Arc::new(TunnelShared {
                thread: ShardId::current(),
                state,
                conn: Weak::new(),
            })),
            streams: Vec::new(),
            woken: Arc::default(),
            state: 1,
        };
        for stream_id in 1..=streams {
            let stream = crowd.open(StreamId(stream_id));
            crowd.woken.lock().push_back(crowd.streams.len());
            crowd.streams.push(stream);
        }
        // Until all of them are bulk streams.
        for _ in 0..20 {
            crowd.push();
            crowd.take();
        }
        crowd
    }

    fn open(&self, stream_id: StreamId) -> Stream {
        assert!(lock(&self.tunnel.0).accept(stream_id, u32::MAX, 100));
        Stream::new(self.tunnel.clone(), stream_id)
    }

    /// Runs the woken streams in order, and now and then one that was not woken, until no stream
    /// can send any more.
    fn push(&mut self) {
        for _ in 0..3 {
            self.state = self
                .state
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let at = usize::try_from(self.state >> 16).unwrap() % self.streams.len();
            self.woken.lock().push_back(at);
        }
        loop {
            let next = self.woken.lock().pop_front();
            let Some(at) = next else {
                return;
            };
            let woken = self.woken.clone();
            let waker = Waker::from(Arc::new(Runner { at, woken }));
            // As many frames as a relay sends before other tasks run.
            let sent =
                (0..4).take_while(|_| send(&mut self.streams[at], &[7; 100_000], &waker) > 0);
            if sent.count() == 4 {
                waker.wake();
            }
        }
    }

    /// Takes what has gathered, as the writer does. Returns the stream and length of each frame.
    fn take(&mut self) -> Vec<(usize, usize)> {
        let mut state = lock(&self.tunnel.0);
        let taken = state
            .outbox
            .poll_take(&mut Context::from_waker(Waker::noop()), true);
        let Poll::Ready(Drained::Frames(frames)) = taken else {
            panic!("there is nothing");
        };
        state.admit(MAX_SENDERS);
        let mut bytes = frames.as_slice();
        let mut turns = Vec::new();
        while !bytes.is_empty() {
            let (head, used) = Version::Two.parse(bytes).unwrap().unwrap();
            let Header::Data { stream_id, len } = head else {
                panic!("{head:?}");
            };
            let len = usize::try_from(len).unwrap();
            turns.push((usize::try_from(stream_id.0).unwrap(), len));
            bytes = &bytes[used + len..];
        }
        turns
    }

    fn len(&self) -> usize {
        lock(&self.tunnel.0).outbox.len()
    }

    fn set_congested(&self, congested: bool) {
        lock(&self.tunnel.0).outbox.congested = congested;
    }
}

/// Returns how many of the bytes were sent.
fn send(stream: &mut Stream, bytes: &[u8], waker: &Waker) -> usize {
    let mut cx = Context::from_waker(waker);
    match Pin::new(stream).poll_write(&mut cx, bytes) {
        Poll::Ready(sent) => sent.unwrap(),
        Poll::Pending => 0,
    }
}

#[test]
fn bulk_streams_have_turns_of_equal_bytes() {
    for congested in [false, true] {
        let mut crowd = Crowd::new(8);
        let mut bytes = [0; 9];
        let (mut since, mut longest) = ([0; 9], 0);
        for _ in 0..800 {
            crowd.set_congested(congested);
            crowd.push();
            for (stream_id, len) in crowd.take() {
                bytes[stream_id] += len;
                for (other, since) in since.iter_mut().enumerate().skip(1) {
                    *since = if other == stream_id { 0 } else { *since + 1 };
                    longest = longest.max(*since);
                }
            }
        }
        let all: usize = bytes.iter().sum();
        for bytes in &bytes[1..] {
            let share = bytes * 8 * 100 / all;
            assert!((95..=105).contains(&share), "{share} % of its share");
        }
        // One round, and streams that came at the same time.
        assert!(longest <= 10, "a stream waited for {longest} frames");
    }
}

#[test]
fn an_interactive_stream_goes_before_bulk_streams() {
    let mut crowd = Crowd::new(8);
    let mut keys = crowd.open(StreamId(99));
    for _ in 0..50 {
        crowd.push();
        // All of it has been granted its turn; the other streams wait behind it for more.
        let before = crowd.len();
        assert!(before <= 48 * 1024 + 100, "{before} bytes lie before it");
        assert_eq!(
            send(&mut keys, b"key", Waker::noop()),
            3,
            "there is room at once"
        );
        crowd.push();
        assert_eq!(crowd.take().last(), Some(&(99, 3)));
    }
}

#[test]
fn on_a_slow_connection_an_interactive_stream_waits_for_one_frame() {
    let mut crowd = Crowd::new(8);
    let mut keys = crowd.open(StreamId(99));
    for _ in 0..50 {
        crowd.set_congested(true);
        crowd.push();
        assert_eq!(
            send(&mut keys, b"key", Waker::noop()),
            3,
            "there is room at once"
        );
        let turns = crowd.take();
        assert_eq!(turns.len(), 2, "{turns:?}");
        assert_eq!((turns[0].1, turns[1]), (16 * 1024, (99, 3)));
    }
}
