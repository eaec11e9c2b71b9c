//! Fuzz entries for QUIC between two peers: the beginning of a stream, and two ends whose datagrams are delivered, cut,
//! changed, repeated and lost, with any others between them.

use super::dtls::IDENTITY;
use super::Pace;
use crate::client::p2p::checks::{ConnectivityChecks, IceRole};
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::peer::quic::header::{self, HeaderRead, HeaderReader, CHANNELS, MAX_LABEL};
use crate::client::p2p::peer::transport::candidate;
use crate::client::p2p::peer::{Peer, PeerState};
use crate::client::p2p::sdp::{self, Description};
use crate::net::clock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The addresses of the two ends, and others.
const PLACES: [([u8; 4], u16); 4] = [
    ([192, 0, 2, 1], 1000),
    ([192, 0, 2, 2], 2000),
    ([192, 0, 2, 3], 3000),
    ([192, 0, 2, 4], 4000),
];
/// Maximum number of datagrams of one step.
const MAX_DELIVERED: usize = 400;

/// Reads the beginning of a stream in any pieces.
pub fn stream_header(data: &[u8]) {
    let read = |mut pace: Pace| {
        let mut reader = HeaderReader::default();
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(pace.next().min(rest.len()));
            let mut piece = Bytes::copy_from_slice(piece);
            match reader.read(&mut piece) {
                HeaderRead::More => assert!(piece.is_empty()),
                done => return (done, piece.len() + behind.len()),
            }
            rest = behind;
        }
        (HeaderRead::More, 0)
    };
    let (result, left) = read(Pace::Whole);
    for pace in Pace::split(data) {
        let (again, also_left) = read(pace);
        assert_eq!(again, result);
        assert!(result == HeaderRead::Malformed || left == also_left);
    }
    if let HeaderRead::Label(label) = result {
        assert!(label.len() <= MAX_LABEL);
        let written = header::write(&label).expect("a header");
        assert_eq!(written, data[..data.len() - left]);
    }
}

struct Probe {
    ends: [Peer; 2],
    now: Instant,
    /// Where the ends are.
    places: [SocketAddr; 2],
    /// Datagrams on their way: the end that gets it, the source, the bytes.
    way: VecDeque<(usize, SocketAddr, Vec<u8>)>,
    /// The first channel of the first end, and its number at the other one.
    channel: Option<[Option<u16>; 2]>,
    /// Number of bytes that each end has written to it, and read from it.
    written: [usize; 2],
    read: [usize; 2],
}

impl Probe {
    fn new() -> Self {
        let now = clock::now();
        let places = [0, 1].map(|end| SocketAddr::from(PLACES[end]));
        let roles = [IceRole::Offers, IceRole::Answers];
        let mut ends = roles.map(|role| {
            let checks = ConnectivityChecks::new(Arc::default(), role, Vec::new());
            let memory = MemoryShare::new(Arc::default());
            Peer::new(&IDENTITY, checks, memory, now).expect("a peer")
        });
        let parse = |sdp: &str| Description::parse(sdp).expect("a description");
        let offer = parse(&ends[0].describe(&IDENTITY, sdp::offer));
        let side = offer.side_of_answer();
        let answer = ends[1].describe(&IDENTITY, |ours| offer.answer(ours, side));
        let answer = parse(&answer);
        let begun = ends[1].connect(&IDENTITY, &offer, side, now);
        begun.expect("a beginning");
        let begun = ends[0].connect(&IDENTITY, &answer, answer.side_of_offer(), now);
        begun.expect("a beginning");
        for end in 0..2 {
            let named = candidate(places[1 - end]).expect("a candidate");
            ends[end].add_remote(&named, now);
        }
        Self {
            ends,
            now,
            places,
            way: VecDeque::new(),
            channel: None,
            written: [0; 2],
            read: [0; 2],
        }
    }

    fn pump(&mut self) {
        for end in 0..2 {
            self.ends[end].pump(self.now);
            while let Some(datagram) = self.ends[end].out().pop_front() {
                if datagram.to == self.places[1 - end] {
                    let from = self.places[end];
                    self.way.push_back((1 - end, from, datagram.bytes.to_vec()));
                }
            }
            self.way.truncate(2 * MAX_DELIVERED);
            if let Some(opened) = self.ends[end].opened() {
                match &mut self.channel {
                    Some([Some(_), other @ None]) if end == 1 => *other = Some(opened.id),
                    _ => self.ends[end].drop_channel(opened.id, self.now),
                }
            }
            assert!(self.ends[end].channels() <= 2 * CHANNELS as usize);
        }
    }

    fn deliver(&mut self, most: usize) {
        for _ in 0..most {
            let Some((end, from, bytes)) = self.way.pop_front() else {
                return;
            };
            self.ends[end].receive(from, &bytes, self.now);
            self.pump();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pump();
    }

    /// Delivers everything, and lets time pass, until both ends are connected.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.deliver(MAX_DELIVERED);
            let is = |end: &Peer| *end.state() == PeerState::Connected;
            if self.ends.iter().all(is) {
                return;
            }
            self.pass(Duration::from_millis(60));
        }
    }

    fn write(&mut self, end: usize, count: usize) {
        let Some(id) = self.channel.and_then(|ids| ids[end]) else {
            return;
        };
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(room)) = self.ends[end].poll_room(id, &mut cx) {
            let start = self.written[end];
            let bytes: Vec<u8> = (start..start + count.min(room)).map(byte).collect();
            if self.ends[end].write(id, bytes.into(), self.now) {
                self.written[end] += count.min(room);
            }
        }
    }

    /// What is read is what the other end has written.
    fn read(&mut self, end: usize) {
        let Some(id) = self.channel.and_then(|ids| ids[end]) else {
            return;
        };
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(bytes)) = self.ends[end].poll_read(id, &mut cx, self.now) {
            for got in &bytes {
                assert_eq!(*got, byte(self.read[end]));
                self.read[end] += 1;
            }
            assert!(self.read[end] <= self.written[1 - end]);
        }
    }
}

/// Returns the byte at a place of a stream.
fn byte(at: usize) -> u8 {
    (at ^ at >> 8) as u8
}

/// Plays the network between two peers: the input is a script of steps, each a kind and a byte, some with as many
/// bytes behind them.
pub fn peer_packets(data: &[u8]) {
    let mut probe = Probe::new();
    probe.pump();
    let mut rest = data;
    while let [kind, number, after @ ..] = rest {
        rest = after;
        let (end, number) = (usize::from(kind >> 7), usize::from(*number));
        match kind % 16 {
            0 => probe.settle(),
            1..=3 => probe.deliver(number + 1),
            // Changes, cuts, repeats or loses the next one.
            4 => {
                if let Some((.., bytes)) = probe.way.front_mut() {
                    let at = number % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (kind >> 4 & 7);
                    }
                }
                probe.deliver(1);
            }
            5 => {
                if let Some((.., bytes)) = probe.way.front_mut() {
                    bytes.truncate(number);
                }
                probe.deliver(1);
            }
            6 => {
                let again = probe.way.front().cloned();
                probe.way.extend(again);
            }
            7 => drop(probe.way.pop_front()),
            // The same from elsewhere.
            8 => {
                if let Some((_, from, _)) = probe.way.front_mut() {
                    *from = PLACES[number % 4].into();
                }
                probe.deliver(1);
            }
            // Any bytes.
            9 => {
                let (bytes, behind) = after.split_at(after.len().min(number));
                rest = behind;
                let from = SocketAddr::from(PLACES[usize::from(kind >> 4 & 3)]);
                probe.ends[end].receive(from, bytes, probe.now);
                probe.pump();
            }
            10 => probe.pass(Duration::from_millis(number as u64 * 4)),
            11 if probe.channel.is_none() => {
                let id = probe.ends[0].open("gt:x", probe.now);
                probe.channel = id.map(|id| [Some(id), None]);
                probe.pump();
            }
            11 | 12 => {
                probe.write(end, number * 100 + 1);
                probe.pump();
            }
            13 => {
                probe.read(end);
                probe.pump();
            }
            // An end moves.
            14 => probe.places[end] = PLACES[number % 4].into(),
            _ => {
                if let Some(id) = probe.channel.and_then(|ids| ids[end]) {
                    match number % 4 {
                        0 => probe.ends[end].finish(id),
                        1 => probe.ends[end].abort(id, probe.now),
                        _ => {}
                    }
                }
                probe.pump();
            }
        }
    }
    for end in 0..2 {
        probe.read(end);
        let held = probe.ends[end].memory().held();
        assert!(held <= 8 * 1024 * 1024, "{held} bytes are held");
    }
}
