//! Two peers joined by queues in memory, with a simulated clock.

use super::super::checks::{IceRole, MAX_REMOTES};
use super::super::memory::ChannelMemory;
use super::channel::IN;
use super::channels::{CHANNELS, JOINED, OUT};
use super::credit::{CREDITED, FIRST_WINDOW, MOST_WINDOW, WINDOW};
use super::transport::candidate;
use super::*;
use crate::client::p2p::sdp::Description;
use crate::client::p2p::MAX_MESSAGE_OUT;
use bytes::Bytes;
use futures_lite::future::poll_once;
use rtc_ice::candidate::unmarshal_candidate;
use rtc_sctp::PayloadProtocolIdentifier;
use std::future::poll_fn;
use std::task::{Context, Poll};

pub(super) const KIB: usize = 1024;
/// Maximum bytes that both ends together hold for readers.
pub(super) const MEMORY: usize = 1024 * KIB;
/// Latency of a datagram.
pub(super) const WAY: Duration = Duration::from_millis(10);
/// Addresses of the offering end and of the other.
pub(super) const PLACES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1000),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 2000),
];
/// Indices of the ends.
pub(super) const OFFERS: usize = 0;
pub(super) const ANSWERS: usize = 1;

pub(super) struct Pair {
    pub(super) ends: [Peer; 2],
    pub(super) now: Instant,
    /// The addresses of the ends.
    pub(super) places: [SocketAddr; 2],
    /// Datagrams in flight: arrival time, receiving end, source, content.
    pub(super) way: VecDeque<(Instant, usize, SocketAddr, BytesMut)>,
    /// Number of datagrams lost in ten thousand.
    pub(super) loss: u32,
    /// State of the random numbers that select lost datagrams.
    pub(super) seed: u32,
}

/// Polls once, like a task that is never woken.
pub(super) fn ask<T>(probe: impl FnMut(&mut Context<'_>) -> Poll<T> + Unpin) -> Option<T> {
    futures_lite::future::block_on(poll_once(poll_fn(probe)))
}

impl Pair {
    /// Creates two peers that know each other's description and use SCTP; `change` edits the answer.
    fn new(change: impl FnOnce(&mut Description)) -> Pair {
        Self::with([false; 2], change)
    }

    /// Creates two peers, as if they could use QUIC or not.
    pub(super) fn with(quic: [bool; 2], change: impl FnOnce(&mut Description)) -> Pair {
        Self::with_memory(MEMORY, quic, change)
    }

    /// Creates two peers, as if they could use QUIC or not, whose channels hold `memory` bytes together.
    pub(super) fn with_memory(
        memory: usize,
        quic: [bool; 2],
        change: impl FnOnce(&mut Description),
    ) -> Pair {
        let memory = Arc::new(ChannelMemory::new(memory));
        let now = Instant::now();
        let identities = [Identity::new().unwrap(), Identity::new().unwrap()];
        let mut ends = [true, false].map(|offers| {
            let identity = &identities[usize::from(!offers)];
            let role = if offers {
                IceRole::Offers
            } else {
                IceRole::Answers
            };
            let checks = ConnectivityChecks::new(Arc::default(), role, Vec::new());
            let memory = MemoryShare::new(memory.clone());
            Peer::new(identity, checks, memory, now).unwrap()
        });
        let told = PLACES.map(|place| candidate(place).unwrap());
        let offer = ends[OFFERS].describe(&identities[OFFERS], |ours| {
            sdp::offer(&sdp::LocalDescription {
                quic: quic[OFFERS],
                ..*ours
            })
        });
        let mut offer = Description::parse(&offer).unwrap();
        let side = offer.side_of_answer();
        let answer = ends[ANSWERS].describe(&identities[ANSWERS], |ours| {
            let quic = quic[ANSWERS];
            offer.answer(&sdp::LocalDescription { quic, ..*ours }, side)
        });
        // What an end cannot use, it does not see.
        offer.quic &= quic[ANSWERS];
        let mut answer = Description::parse(&answer).unwrap();
        change(&mut answer);
        let [a, b] = &mut ends;
        b.connect(&identities[ANSWERS], &offer, side, now).unwrap();
        b.add_remote(&told[OFFERS], now);
        let side = answer.side_of_offer();
        a.connect(&identities[OFFERS], &answer, side, now).unwrap();
        a.add_remote(&told[ANSWERS], now);
        Pair {
            ends,
            now,
            places: PLACES,
            way: VecDeque::new(),
            loss: 0,
            seed: 1,
        }
    }

    fn connected() -> Pair {
        Pair::new(|_| {}).connect()
    }

    /// Waits until both ends are connected.
    pub(super) fn connect(mut self) -> Pair {
        let pair = &mut self;
        let connected = |pair: &mut Pair| {
            let is = |end: &Peer| *end.state() == PeerState::Connected;
            pair.ends.iter().all(is)
        };
        assert!(pair.run(Duration::from_secs(10), connected));
        self
    }

    fn is_lost(&mut self) -> bool {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        self.seed % 10_000 < self.loss
    }

    /// Processes everything that is due, then advances the clock to the next event.
    pub(super) fn step(&mut self) {
        for end in 0..2 {
            self.ends[end].pump(self.now);
            while let Some(datagram) = self.ends[end].out().pop_front() {
                let arrives = datagram.to == self.places[1 - end] && !self.is_lost();
                if arrives {
                    let (at, from) = (self.now + WAY, self.places[end]);
                    self.way.push_back((at, 1 - end, from, datagram.bytes));
                }
            }
        }
        let arrival = self.way.front().map(|(at, ..)| *at);
        // An ended peer is not polled, as in its task.
        let [a, b] = self.ends.each_mut().map(|end| match end.state() {
            PeerState::Over(_) => None,
            _ => end.deadline(),
        });
        let due = [arrival, a, b];
        // Two ended peers have no deadlines.
        let later = self.now + Duration::from_secs(1);
        let next = due.into_iter().flatten().min().unwrap_or(later);
        // A deadline that has passed is processed a moment later.
        self.now = next.max(self.now + Duration::from_micros(10));
        while self.way.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, end, from, bytes)) = self.way.pop_front() else {
                break;
            };
            self.ends[end].receive(from, &bytes, self.now);
        }
    }

    /// Steps until `done` returns true; false if that takes longer than `limit`.
    pub(super) fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut Pair) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if done(self) {
                return true;
            }
            self.step();
        }
        false
    }

    /// Lets this much time pass.
    pub(super) fn rest(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    /// Opens a channel from one end; the other accepts it.
    fn open(&mut self, end: usize) -> u16 {
        self.open_as(end, CREDITED)
    }

    fn open_as(&mut self, end: usize, protocol: &str) -> u16 {
        let id = self.ends[end].open_as("label", protocol, self.now);
        let id = id.expect("a channel");
        let mut opened = None;
        let taken = self.run(Duration::from_secs(60), |pair| {
            opened = opened.take().or(pair.ends[1 - end].opened());
            // The end that opened it knows of that.
            opened.is_some() && !pair.ends[end].channels[&id].dialing
        });
        assert!(taken, "channel {id} did not arrive");
        let opened = opened.expect("one that was opened");
        assert_eq!((opened.id, &*opened.label), (id, "label"));
        id
    }

    /// Writes as much as there is room for; returns how much that is.
    pub(super) fn write(&mut self, end: usize, id: u16, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        while !bytes.is_empty() {
            let peer = &mut self.ends[end];
            let Some(room) = ask(|cx| peer.poll_room(id, cx)) else {
                break;
            };
            let room = room.expect("an open channel").min(bytes.len());
            let (piece, rest) = bytes.split_at(room);
            assert!(self.ends[end].write(id, Bytes::copy_from_slice(piece), self.now));
            bytes = rest;
        }
        all - bytes.len()
    }

    /// Reads what has come; true at the channel's end.
    pub(super) fn read(&mut self, end: usize, id: u16, to: &mut Vec<u8>) -> bool {
        let (peer, now) = (&mut self.ends[end], self.now);
        while let Some(read) = ask(|cx| peer.poll_read(id, cx, now)) {
            match read {
                Some(bytes) => to.extend_from_slice(&bytes),
                None => return true,
            }
        }
        false
    }

    /// Sends bytes both ways at once, and checks that they arrive unchanged.
    pub(super) fn exchange(&mut self, id: u16, count: usize) {
        let sent = [numbers(count, 3), numbers(count, 5)];
        let mut at = [0; 2];
        let mut got = [Vec::new(), Vec::new()];
        let done = self.run(Duration::from_secs(900), |pair| {
            for end in 0..2 {
                at[end] += pair.write(end, id, &sent[end][at[end]..]);
                assert!(!pair.read(end, id, &mut got[end]), "it has ended");
            }
            got[0].len() >= count && got[1].len() >= count
        });
        assert!(done, "{:?} of {count} bytes", got.map(|got| got.len()));
        assert!(got[1] == sent[0] && got[0] == sent[1], "the bytes differ");
    }
}

/// Returns bytes in which a lost, repeated or moved piece shows.
pub(super) fn numbers(count: usize, step: u32) -> Vec<u8> {
    let numbers = (0..).map(|n: u32| n.wrapping_mul(step).to_be_bytes());
    numbers.flatten().take(count).collect()
}

#[test]
fn two_peers_connect_and_carry_bytes_both_ways_at_once() {
    let mut pair = Pair::connected();
    for end in [OFFERS, ANSWERS, OFFERS] {
        let id = pair.open(end);
        pair.exchange(id, 1024 * KIB);
    }
}

#[test]
fn a_lossy_path_still_delivers_everything_in_order() {
    for seed in 1..=4 {
        let mut pair = Pair::connected();
        (pair.seed, pair.loss) = (seed, 50);
        let id = pair.open(OFFERS);
        pair.exchange(id, 512 * KIB);
    }
}

#[test]
fn peers_connect_despite_lost_datagrams() {
    for seed in 1..=20 {
        let mut pair = Pair::new(|_| {});
        (pair.seed, pair.loss) = (seed, 50);
        let connected = pair.run(Duration::from_secs(120), |pair| {
            let is = |end: &Peer| *end.state() == PeerState::Connected;
            pair.ends.iter().all(is)
        });
        let states = pair.ends.each_ref().map(Peer::state);
        assert!(connected, "seed {seed}: {states:?}");
    }
}

#[test]
fn bytes_written_before_the_end_arrive_before_it() {
    for loss in [0, 100] {
        let mut pair = Pair::connected();
        let id = pair.open(OFFERS);
        pair.loss = loss;
        for (end, id) in [(OFFERS, id), (ANSWERS, pair.open(ANSWERS))] {
            let bytes = numbers(100 * KIB, 7);
            let (mut at, mut got) = (0, Vec::new());
            let ended = pair.run(Duration::from_secs(600), |pair| {
                at += pair.write_unless_done(end, id, &bytes, at);
                pair.read(1 - end, id, &mut got)
            });
            assert!(ended, "{} bytes and no end", got.len());
            assert!(got == bytes, "{} bytes came", got.len());
            for end in 0..2 {
                pair.ends[end].drop_channel(id, pair.now);
            }
            let forgotten = |pair: &mut Pair| {
                let has = |end: &Peer| end.channels.contains_key(&id);
                !pair.ends.iter().any(has)
            };
            assert!(pair.run(Duration::from_secs(60), forgotten));
        }
    }
}

impl Pair {
    /// Writes from `at` on, and ends the channel after the last byte. Returns the new position.
    fn write_unless_done(&mut self, end: usize, id: u16, bytes: &[u8], at: usize) -> usize {
        if at == bytes.len() {
            return 0;
        }
        let n = self.write(end, id, &bytes[at..]);
        if at + n == bytes.len() {
            self.ends[end].finish(id);
        }
        n
    }
}

/// Checks that an unread channel of this protocol holds at most its share.
fn nobody_reads(protocol: &str, share: usize, most: usize) {
    let mut pair = Pair::connected();
    let id = pair.open_as(OFFERS, protocol);
    let bytes = numbers(4096 * KIB, 9);
    let mut at = 0;
    // Longer than any limit of SCTP, but too short for the channel to be cut.
    pair.run(Duration::from_secs(85), |pair| {
        at += pair.write(OFFERS, id, &bytes[at..]);
        let out = pair.ends[OFFERS].channels[&id].outstanding;
        assert!(out <= OUT, "{out} bytes are not acknowledged");
        let waiting = pair.ends[ANSWERS].channels[&id].waiting;
        assert!(waiting <= share, "{waiting} bytes wait");
        false
    });
    assert!((IN..=most).contains(&at), "{at} bytes were taken");
    // Everything arrives once it is read.
    let mut got = Vec::new();
    let done = pair.run(Duration::from_secs(600), |pair| {
        at += pair.write_unless_done(OFFERS, id, &bytes, at);
        pair.read(ANSWERS, id, &mut got)
    });
    assert!(done, "{} bytes came", got.len());
    assert!(got == bytes, "{} bytes came", got.len());
}

#[test]
fn an_unread_channel_holds_at_most_its_share() {
    let share = IN + MAX_MESSAGE_OUT;
    nobody_reads("", share, OUT + share + RECEIVE as usize);
}

#[test]
fn an_unread_channel_with_credit_holds_at_most_its_window() {
    nobody_reads(CREDITED, WINDOW, WINDOW);
}

/// Checks many unread channels beside one that is read.
fn readers_stop(protocol: &str) {
    let mut pair = Pair::connected();
    let stopped: Vec<u16> = (0..16).map(|_| pair.open_as(OFFERS, protocol)).collect();
    let used = pair.open_as(OFFERS, protocol);
    let bytes = numbers(IN, 3);
    let mut at = vec![0; stopped.len()];
    let (mut written, mut got) = (0, Vec::new());
    let done = pair.run(Duration::from_secs(600), |pair| {
        for (id, at) in stopped.iter().zip(&mut at) {
            if *at < bytes.len() && pair.ends[OFFERS].channels[id].phase == ChannelPhase::Open {
                *at += pair.write(OFFERS, *id, &bytes[*at..]);
            }
        }
        if at.iter().sum::<usize>() > written {
            written += pair.write(OFFERS, used, &bytes[..KIB]);
        }
        assert!(
            !pair.read(ANSWERS, used, &mut got),
            "the one that is read has ended"
        );
        let all = pair.ends[ANSWERS].channels.values();
        let held: usize = all.map(Channel::held).sum();
        // The bytes of one turn are held before something is cut.
        assert!(held <= MEMORY + RECEIVE as usize, "{held} bytes are held");
        let cut = stopped.iter().filter(|id| pair.ends[ANSWERS].is_cut(**id));
        let is_over =
            |(id, at): (&u16, &usize)| *at == bytes.len() || pair.ends[ANSWERS].is_cut(*id);
        cut.count() >= 8 && stopped.iter().zip(&at).all(is_over)
    });
    assert!(done, "{at:?}");
    // Bytes in flight arrive.
    pair.rest(Duration::from_secs(30));
    let cut = stopped.iter().map(|id| pair.ends[ANSWERS].is_cut(*id));
    let cut: Vec<bool> = cut.collect();
    // Channels that were not cut lose nothing.
    for (id, is_cut) in stopped.iter().zip(cut) {
        let mut got = Vec::new();
        let ended = pair.read(ANSWERS, *id, &mut got);
        assert_eq!((ended, got.is_empty()), (is_cut, is_cut), "channel {id}");
        assert!(is_cut || got == bytes, "{} bytes came", got.len());
    }
    assert!(!pair.read(ANSWERS, used, &mut got));
    pair.exchange(used, 100 * KIB);
    for id in stopped.iter().chain([&used]) {
        pair.ends[ANSWERS].drop_channel(*id, pair.now);
    }
    assert!(pair.ends[ANSWERS].is_drained(pair.now));
}

#[test]
fn stopped_readers_lose_their_channels_when_all_peers_hold_too_much() {
    readers_stop("");
    readers_stop(CREDITED);
}

impl Pair {
    /// Sends messages of `size` bytes on a channel, as many as there is room for.
    fn flood(&mut self, id: u16, size: usize) {
        let message = vec![7; size];
        let is_open = |pair: &Pair| pair.ends[OFFERS].channels[&id].phase == ChannelPhase::Open;
        while is_open(self) && self.write(OFFERS, id, &message) == size {}
    }
}

#[test]
fn a_stopped_reader_loses_its_channel_when_others_wait() {
    for size in [20, 200, 16 * KIB] {
        let mut pair = Pair::connected();
        let [stopped, used] = [(); 2].map(|()| pair.open_as(OFFERS, ""));
        let cut = pair.run(Duration::from_secs(60), |pair| {
            pair.flood(stopped, size);
            pair.ends[ANSWERS].is_cut(stopped)
        });
        assert!(cut, "with messages of {size} bytes");
        pair.exchange(used, 100 * KIB);
        assert!(pair.read(ANSWERS, stopped, &mut Vec::new()));
        pair.ends[ANSWERS].drop_channel(stopped, pair.now);
        assert!(pair.ends[ANSWERS].is_drained(pair.now));
    }
}

#[test]
fn a_slow_reader_keeps_its_channel_and_a_lone_stopped_one_for_long() {
    for size in [20, 200, 16 * KIB] {
        let mut pair = Pair::connected();
        let [slow, _other] = [(); 2].map(|()| pair.open_as(OFFERS, ""));
        for _ in 0..20 {
            pair.run(Duration::from_secs(6), |pair| {
                pair.flood(slow, size);
                false
            });
            let (peer, now) = (&mut pair.ends[ANSWERS], pair.now);
            let read = ask(|cx| peer.poll_read(slow, cx, now));
            assert!(read.flatten().is_some(), "with messages of {size} bytes");
        }
        // Nothing comes for it, and no other channel waits.
        let mut pair = Pair::connected();
        let alone = pair.open_as(OFFERS, "");
        let is_cut = |pair: &mut Pair| {
            pair.flood(alone, size);
            pair.ends[ANSWERS].is_cut(alone)
        };
        assert!(!pair.run(Duration::from_secs(80), is_cut));
        assert!(pair.run(Duration::from_secs(60), is_cut));
        // The next channel could not even be opened; a sender retries once a minute.
        pair.rest(Duration::from_secs(60));
        let id = pair.open_as(OFFERS, "");
        pair.exchange(id, KIB);
    }
}

#[test]
fn a_peer_that_fills_the_buffer_with_unreadable_bytes_is_ended() {
    let mut pair = Pair::connected();
    pair.open(OFFERS);
    pair.rest(Duration::from_secs(2));
    // As if fragments of messages were missing for ever.
    let mut sack = [0; 28];
    (sack[12], sack[15]) = (3, 16);
    pair.ends[ANSWERS].packets.sent(&sack, RECEIVE);
    let is_over = |pair: &mut Pair| matches!(pair.ends[ANSWERS].state(), PeerState::Over(_));
    assert!(!pair.run(Duration::from_secs(80), is_over));
    assert!(pair.run(Duration::from_secs(20), is_over));
}

#[test]
fn a_channel_ends_at_its_idle_limit() {
    let limit = Duration::from_secs(5);
    for held in [0, KIB] {
        let mut pair = Pair::connected();
        let [id, other] = [(); 2].map(|()| pair.open(OFFERS));
        pair.ends[ANSWERS].limit_idle(id, Some(limit), pair.now);
        // Traffic in either direction is enough.
        for number in 0..10 {
            pair.write(number % 2, id, b"x");
            pair.rest(limit * 3 / 5);
            let end = 1 - number % 2;
            assert!(!pair.read(end, id, &mut Vec::new()), "it has ended");
        }
        pair.write(OFFERS, id, &vec![7; held]);
        let ended = |pair: &mut Pair| pair.ends[ANSWERS].has_ended(id);
        assert!(pair.run(limit * 2, ended));
        // Bytes that the reader did not take are discarded, and it is told.
        assert_eq!(pair.ends[ANSWERS].is_cut(id), held > 0);
        let closed = |pair: &mut Pair| pair.ends[OFFERS].is_closed(id);
        assert!(pair.run(Duration::from_secs(10), closed));
        // What has come there is perhaps not all.
        assert!(pair.ends[OFFERS].is_cut(id));
        pair.exchange(other, KIB);
    }
}

#[test]
fn small_messages_take_little_more_than_their_bytes() {
    let mut pair = Pair::connected();
    let id = pair.open_as(OFFERS, "");
    let bytes = numbers(8 * KIB, 3);
    for byte in bytes.chunks(1) {
        assert_eq!(pair.write(OFFERS, id, byte), 1);
        pair.step();
    }
    pair.rest(Duration::from_secs(10));
    let inbox = &pair.ends[ANSWERS].channels[&id].inbox;
    assert_eq!(inbox.iter().map(BytesMut::len).sum::<usize>(), bytes.len());
    assert!(
        inbox.len() <= 2 + bytes.len() / JOINED,
        "{} pieces",
        inbox.len()
    );
    let mut got = Vec::new();
    assert!(!pair.read(ANSWERS, id, &mut got));
    assert!(got == bytes);
}

#[test]
fn few_bytes_are_in_flight_to_a_peer_until_it_keeps_up() {
    let mut pair = Pair::connected();
    let id = pair.open(OFFERS);
    assert_eq!(pair.ends[OFFERS].window.limit, FIRST_WINDOW);
    let bytes = numbers(6 * 1024 * KIB, 11);
    let first = pair.write(OFFERS, id, &bytes);
    assert_eq!(first, FIRST_WINDOW);
    let (mut at, mut got) = (first, Vec::new());
    let done = pair.run(Duration::from_secs(600), |pair| {
        at += pair.write(OFFERS, id, &bytes[at..]);
        let peer = &pair.ends[OFFERS];
        assert!(
            peer.window.outstanding <= peer.window.limit,
            "{}",
            peer.window.outstanding
        );
        pair.read(ANSWERS, id, &mut got);
        got.len() == bytes.len()
    });
    assert!(done && got == bytes, "{} bytes came", got.len());
    assert_eq!(
        (
            pair.ends[OFFERS].window.limit,
            pair.ends[OFFERS].window.losses
        ),
        (MOST_WINDOW, 0)
    );
}

#[test]
fn a_reused_channel_number_waits_until_the_last_channel_is_dropped() {
    let mut pair = Pair::connected();
    let id = pair.open(OFFERS);
    pair.exchange(id, KIB);
    pair.ends[OFFERS].drop_channel(id, pair.now);
    let ended = |pair: &mut Pair| {
        let gone = !pair.ends[OFFERS].channels.contains_key(&id);
        gone && pair.ends[ANSWERS].is_closed(id)
    };
    assert!(pair.run(Duration::from_secs(60), ended));
    // Other implementations reuse numbers.
    pair.ends[OFFERS].next_id = id;
    assert_eq!(pair.ends[OFFERS].open("again", pair.now), Some(id));
    pair.rest(Duration::from_secs(1));
    assert!(pair.ends[ANSWERS].opened().is_none(), "the last is there");
    assert!(pair.read(ANSWERS, id, &mut Vec::new()));
    pair.ends[ANSWERS].drop_channel(id, pair.now);
    let opened = pair.ends[ANSWERS].opened().expect("the next one");
    assert_eq!((opened.id, &*opened.label), (id, "again"));
    pair.exchange(id, 100 * KIB);
}

#[test]
fn a_peer_with_another_certificate_than_described_never_connects() {
    let mut pair = Pair::new(|answer| answer.fingerprint = "00".to_owned());
    let connected = pair.run(Duration::from_secs(130), |pair| {
        *pair.ends[OFFERS].state() == PeerState::Connected
    });
    assert!(!connected);
    assert_ne!(*pair.ends[ANSWERS].state(), PeerState::Connected);
}

#[test]
fn a_silent_peer_is_ended_with_its_channels() {
    let mut pair = Pair::connected();
    let id = pair.open(OFFERS);
    pair.exchange(id, KIB);
    pair.loss = 10_000;
    let over = pair.run(Duration::from_secs(60), |pair| {
        let is = |end: &Peer| matches!(end.state(), PeerState::Over(_));
        pair.ends.iter().all(is)
    });
    assert!(over);
    for end in 0..2 {
        assert!(pair.read(end, id, &mut Vec::new()), "it should end");
        assert!(pair.ends[end].is_cut(id), "not all has come");
        assert!(ask(|cx| pair.ends[end].poll_room(id, cx)).is_some_and(|it| it.is_none()));
    }
}

#[test]
fn a_channel_with_credit_that_is_dropped_without_its_end_is_cut() {
    for is_ended in [false, true] {
        let mut pair = Pair::connected();
        let id = pair.open(OFFERS);
        pair.exchange(id, KIB);
        let mut got = Vec::new();
        pair.write(OFFERS, id, b"part");
        if is_ended {
            pair.ends[OFFERS].finish(id);
        }
        pair.ends[OFFERS].drop_channel(id, pair.now);
        let ended = |pair: &mut Pair| pair.read(ANSWERS, id, &mut got);
        assert!(pair.run(Duration::from_secs(10), ended));
        assert_eq!(got, b"part");
        assert_eq!(pair.ends[ANSWERS].is_cut(id), !is_ended);
    }
}

#[test]
fn a_peer_that_refuses_channels_keeps_those_that_it_has() {
    let mut pair = Pair::connected();
    let before = pair.open(OFFERS);
    pair.ends[ANSWERS].refuse_channels();
    let refused = pair.ends[OFFERS]
        .open("label", pair.now)
        .expect("a channel");
    let is_refused =
        |pair: &mut Pair| ask(|cx| pair.ends[OFFERS].poll_answered(refused, cx)) == Some(false);
    assert!(pair.run(Duration::from_secs(5), is_refused));
    assert!(pair.ends[ANSWERS].opened().is_none());
    pair.exchange(before, KIB);
}

#[test]
fn addresses_are_exchanged_a_few_times_only() {
    let mut pair = Pair::connected();
    let peer = &mut pair.ends[ANSWERS];
    let count = (0..100).filter(|_| peer.may_exchange(pair.now)).count();
    assert!((1..=5).contains(&count), "{count}");
    let later = pair.now + Duration::from_secs(10);
    assert!(pair.ends[ANSWERS].may_exchange(later));
}

#[test]
fn a_closed_peer_is_ended_at_the_other_end() {
    let mut pair = Pair::connected();
    pair.ends[OFFERS].close(pair.now);
    while let Some(datagram) = pair.ends[OFFERS].out().pop_front() {
        pair.way
            .push_back((pair.now, ANSWERS, PLACES[OFFERS], datagram.bytes));
    }
    let over = pair.run(Duration::from_secs(2), |pair| {
        matches!(pair.ends[ANSWERS].state(), PeerState::Over(_))
    });
    assert!(over);
}

#[test]
fn only_a_few_of_many_candidates_are_tried() {
    let mut pair = Pair::new(|_| {});
    for number in 1..10_000u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let line = format!("candidate:1 1 udp 1 192.0.{high}.{low} 7 typ host");
        pair.ends[OFFERS].add_remote(&line, pair.now);
    }
    let tried = pair.ends[OFFERS].agent.get_remote_candidates().len();
    assert!((10..=MAX_REMOTES).contains(&tried), "{tried}");
}

/// Runs only the answering end, and returns the destinations of its datagrams.
fn sent_in(pair: &mut Pair, time: Duration) -> Vec<SocketAddr> {
    let peer = &mut pair.ends[ANSWERS];
    let (mut now, end) = (pair.now, pair.now + time);
    let mut sent = Vec::new();
    while now < end {
        peer.pump(now);
        sent.extend(peer.out().drain(..).map(|datagram| datagram.to));
        let due = peer.deadline().unwrap_or(end);
        now = due.max(now + Duration::from_micros(10));
    }
    sent
}

#[test]
fn valid_checks_from_many_sources_create_few_candidates_and_little_traffic() {
    let mut pair = Pair::new(|_| {});
    pair.ends[OFFERS].pump(pair.now);
    let check = pair.ends[OFFERS].out().pop_front().expect("a check");
    let mut taken = 0;
    for number in 0..1500 {
        let from = SocketAddr::from(([198, 51, 100, 1], 10_000 + number));
        // As fast as the rate limit allows, so that only the number of sources is limited.
        let now = pair.now + Duration::from_millis(30) * u32::from(number);
        taken += usize::from(pair.ends[ANSWERS].receive(from, &check.bytes, now));
    }
    let candidates = pair.ends[ANSWERS].agent.get_remote_candidates().len();
    assert_eq!((taken, candidates), (MAX_REMOTES - 1, MAX_REMOTES));
    // An answer for each accepted check, and checks.
    let sent = sent_in(&mut pair, Duration::from_secs(60)).len();
    assert!(sent <= taken + MAX_REMOTES * 20, "{sent} datagrams");
}

#[test]
fn addresses_named_by_a_visitor_get_few_checks() {
    let mut pair = Pair::new(|_| {});
    for number in 0..32 {
        let line = format!(
            "candidate:1 1 udp 1 198.51.100.1 {} typ host",
            5000 + number
        );
        pair.ends[ANSWERS].add_remote(&line, pair.now);
    }
    let sent = sent_in(&mut pair, Duration::from_secs(60));
    let at_it = |to: &&SocketAddr| to.ip() != PLACES[OFFERS].ip();
    let count = sent.iter().filter(at_it).count();
    assert!((8..=64).contains(&count), "{count} checks at one host");
    for to in &sent {
        let checks = sent.iter().filter(|other| *other == to).count();
        assert!(checks <= 8, "{checks} checks to {to}");
    }
}

#[test]
fn the_number_of_a_peer_s_channels_is_bounded() {
    let mut pair = Pair::connected();
    for _ in 0..CHANNELS {
        let opened = pair.ends[OFFERS].open("", pair.now);
        assert!(opened.is_some());
    }
    assert_eq!(pair.ends[OFFERS].open("", pair.now), None);
    pair.rest(Duration::from_secs(5));
    let opened = std::iter::from_fn(|| pair.ends[ANSWERS].opened()).count();
    assert_eq!(opened, CHANNELS);
}

#[test]
fn channels_ended_by_both_ends_with_bytes_in_flight_are_all_dropped() {
    for seed in 1..=4 {
        let mut pair = Pair::connected();
        (pair.seed, pair.loss) = (seed, 200);
        for _ in 0..3 {
            let ids: Vec<u16> = (0..24).map(|n| pair.open(n % 2)).collect();
            for id in &ids {
                let bytes = numbers(64 * KIB, 7);
                for end in 0..2 {
                    pair.write(end, *id, &bytes);
                }
            }
            // Some of it arrives. The first end waits for nothing.
            pair.rest(3 * WAY);
            for (number, id) in ids.iter().enumerate() {
                pair.ends[number % 2].drop_channel(*id, pair.now);
            }
            // The other end drops its ended channels.
            let forgotten = pair.run(Duration::from_secs(120), |pair| {
                for end in 0..2 {
                    for id in &ids {
                        let ended = pair.read(end, *id, &mut Vec::new());
                        if ended && pair.ends[end].is_closed(*id) {
                            pair.ends[end].drop_channel(*id, pair.now);
                        }
                    }
                }
                let left = |end: &Peer| end.channels() + end.resets.waiting();
                pair.ends.iter().map(left).sum::<usize>() == 0
            });
            let left = pair.ends.each_ref().map(Peer::channels);
            assert!(forgotten, "seed {seed}: {left:?} channels are left");
        }
    }
}

/// Builds a record with one-byte handshake fragments of message 0 at these offsets. Each contains
/// its byte if `has_bytes`.
fn chain(sequence: u32, offsets: std::ops::Range<u32>, has_bytes: bool) -> Vec<u8> {
    let mut body = Vec::new();
    for offset in offsets {
        body.extend([1, 0, 16, 0, 0, 0, 0]);
        body.extend(&offset.to_be_bytes()[2..]);
        body.extend([0, 0, 1]);
        if has_bytes {
            body.push(0);
        }
    }
    let length = u16::try_from(body.len()).unwrap();
    let mut record = vec![22, 0xFE, 0xFD, 0, 0, 0, 0];
    record.extend(sequence.to_be_bytes());
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn chained_handshake_fragments_neither_crash_nor_prevent_connecting() {
    let mut pair = Pair::new(|_| {});
    let mut sequence = 1000;
    let mut offset = 1;
    let connected = |pair: &mut Pair| {
        for end in 0..2 {
            let from = PLACES[1 - end];
            for _ in 0..20 {
                let record = chain(sequence, offset..offset + 100, false);
                pair.ends[end].receive(from, &record, pair.now);
                sequence += 1;
            }
        }
        offset += 2000;
        let is = |end: &Peer| *end.state() == PeerState::Connected;
        pair.ends.iter().all(is)
    };
    assert!(pair.run(Duration::from_secs(10), connected));
    // The fragment that all others wait for.
    for end in 0..2 {
        let from = PLACES[1 - end];
        pair.ends[end].receive(from, &chain(sequence, 0..1, false), pair.now);
    }
    let id = pair.open(OFFERS);
    pair.exchange(id, 100 * KIB);
}

#[test]
fn dtls_is_accepted_only_from_addresses_that_answered_a_check() {
    let mut pair = Pair::new(|_| {});
    let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 3000);
    let candidate = "candidate:1 1 udp 2113937151 10.0.0.3 3000 typ host";
    pair.ends[ANSWERS].add_remote(candidate, pair.now);
    let hello = chain(0, 0..1, true);
    let take = |pair: &mut Pair, from| {
        let now = pair.now;
        pair.ends[ANSWERS].receive(from, &hello, now)
    };
    assert!(!take(&mut pair, PLACES[OFFERS]));
    assert!(!take(&mut pair, other));
    pair.rest(Duration::from_secs(1));
    assert!(take(&mut pair, PLACES[OFFERS]));
    assert!(!take(&mut pair, other));
}

#[test]
fn a_candidate_with_an_invalid_component_is_skipped() {
    let mut pair = Pair::new(|_| {});
    let (end, now) = (&mut pair.ends[ANSWERS], pair.now);
    let before = end.agent.get_remote_candidates().len();
    for component in [0, 257, 65535] {
        let line = format!("candidate:1 {component} udp 0 10.0.0.4 4000 typ host");
        end.add_remote(&line, now);
    }
    assert_eq!(end.agent.get_remote_candidates().len(), before);
}

#[test]
fn malformed_channel_messages_end_nothing() {
    let mut pair = Pair::connected();
    let id = pair.open(OFFERS);
    let now = pair.now;
    let ppi = PayloadProtocolIdentifier::Dcep;
    // Every type, complete and truncated.
    for (stream, kind) in (id + 2..).step_by(2).zip(0..6) {
        let end = &mut pair.ends[OFFERS];
        let (_, association) = end.association.as_mut().unwrap();
        association.open_stream(stream, ppi).unwrap();
        let mut stream = association.stream(stream).unwrap();
        for length in [1, 2, 5] {
            let message = vec![kind; length];
            stream.write_with_ppi(now, &message, ppi).unwrap();
        }
    }
    pair.exchange(id, 10 * KIB);
    assert_eq!(*pair.ends[ANSWERS].state(), PeerState::Connected);
}

#[test]
fn multicast_dns_names_are_not_resolved() {
    let mut pair = Pair::new(|_| {});
    let peer = &mut pair.ends[ANSWERS];
    let name = unmarshal_candidate("1 1 udp 1 a-peer.local 9 typ host").unwrap();
    peer.add_remote("candidate:1 1 udp 1 a-peer.local 9 typ host", pair.now);
    // ICE does not resolve such a name either.
    let _ = peer.agent.add_remote_candidate(name);
    for _ in 0..10 {
        pair.now += Duration::from_secs(1);
        let _ = peer.agent.handle_timeout(pair.now);
        while let Some(message) = peer.agent.poll_write() {
            assert_ne!(message.transport.peer_addr.port(), 5353);
        }
    }
}
