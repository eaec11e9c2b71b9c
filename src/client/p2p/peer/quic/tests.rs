//! Two peers over QUIC, joined by queues in memory, with a simulated clock.

use super::super::tests::{ask, numbers, Pair, ANSWERS, KIB, MEMORY, OFFERS, PLACES};
use super::super::RECEIVE;
use super::channel::IN;
use super::header::CHANNELS;
use super::*;
use std::net::{IpAddr, Ipv4Addr};

mod slow;

const SECOND: Duration = Duration::from_secs(1);

fn connected() -> Pair {
    Pair::with([true; 2], |_| {}).connect()
}

fn quic(peer: &mut Peer) -> &mut QuicTransport {
    peer.transport.quic().expect("QUIC")
}

fn connection(peer: &mut Peer) -> &mut Connection {
    quic(peer).phase.connection().expect("a connection")
}

/// Opens a channel from one end; returns its number there and at the other end.
fn open(pair: &mut Pair, end: usize, label: &str) -> [u16; 2] {
    let id = pair.ends[end].open(label, pair.now).expect("a channel");
    let mut opened = None;
    assert!(pair.run(30 * SECOND, |pair| {
        opened = opened.take().or(pair.ends[1 - end].opened());
        let answered = ask(|cx| quic(&mut pair.ends[end]).poll_answered(id, cx));
        opened.is_some() && answered == Some(true)
    }));
    let opened = opened.expect("one that was opened");
    assert_eq!(opened.label, label);
    [id, opened.id]
}

/// Sends bytes from one end while they are read at the other; both directions at once.
fn exchange(pair: &mut Pair, ends: [usize; 2], ids: [u16; 2], count: usize, limit: Duration) {
    let sent = [numbers(count, 3), numbers(count, 5)];
    let (mut at, mut got) = ([0; 2], [Vec::new(), Vec::new()]);
    let done = pair.run(limit, |pair| {
        for side in 0..2 {
            at[side] += pair.write(ends[side], ids[side], &sent[side][at[side]..]);
            let ended = pair.read(ends[side], ids[side], &mut got[side]);
            assert!(!ended, "it has ended after {} bytes", got[side].len());
        }
        got.iter().all(|got| got.len() >= count)
    });
    assert!(done, "{:?} of {count} bytes", got.map(|got| got.len()));
    assert!(got[1] == sent[0] && got[0] == sent[1], "the bytes differ");
}

#[test]
fn two_peers_that_can_use_quic_do() {
    let mut pair = connected();
    assert!(pair.ends.iter().all(Peer::is_quic));
    for end in [OFFERS, ANSWERS, OFFERS] {
        let ids = open(&mut pair, end, "gt:a");
        exchange(&mut pair, [end, 1 - end], ids, 1024 * KIB, 60 * SECOND);
    }
}

#[test]
fn a_peer_that_cannot_use_quic_gets_sctp() {
    for quic in [[true, false], [false, true], [false, false]] {
        let mut pair = Pair::with(quic, |_| {}).connect();
        assert!(!pair.ends.iter().any(Peer::is_quic), "{quic:?}");
        let id = pair.ends[OFFERS].open("label", pair.now).unwrap();
        assert!(pair.run(5 * SECOND, |pair| pair.ends[ANSWERS].opened().is_some()));
        pair.exchange(id, 10 * KIB);
    }
}

#[test]
fn peers_connect_and_deliver_everything_on_a_lossy_path() {
    for seed in 1..=10 {
        let mut pair = Pair::with([true; 2], |_| {});
        (pair.seed, pair.loss) = (seed, 200);
        let mut pair = pair.connect();
        let ids = open(&mut pair, ANSWERS, "gt:a");
        exchange(&mut pair, [ANSWERS, OFFERS], ids, 512 * KIB, 120 * SECOND);
    }
}

#[test]
fn each_direction_ends_by_itself_behind_its_bytes() {
    let mut pair = connected();
    let [here, there] = open(&mut pair, OFFERS, "");
    let (bytes, mut got) = (numbers(100 * KIB, 3), Vec::new());
    assert_eq!(pair.write(OFFERS, here, &bytes[..64 * KIB]), 64 * KIB);
    let mut at = 64 * KIB;
    assert!(pair.run(30 * SECOND, |pair| {
        at += pair.write(OFFERS, here, &bytes[at..]);
        if at == bytes.len() {
            pair.ends[OFFERS].finish(here);
            return true;
        }
        false
    }));
    assert!(pair.run(30 * SECOND, |pair| pair.read(ANSWERS, there, &mut got)));
    assert!(got == bytes);
    assert!(!pair.ends[ANSWERS].is_cut(there));
    // The other direction is open still.
    pair.rest(60 * SECOND);
    let mut back = Vec::new();
    assert_eq!(pair.write(ANSWERS, there, &bytes[..KIB]), KIB);
    pair.ends[ANSWERS].finish(there);
    assert!(pair.run(5 * SECOND, |pair| pair.read(OFFERS, here, &mut back)));
    assert_eq!(back, &bytes[..KIB]);
    for (end, id) in [(OFFERS, here), (ANSWERS, there)] {
        let delivered = |pair: &mut Pair| ask(|cx| pair.ends[end].poll_delivered(id, cx)).is_some();
        assert!(pair.run(5 * SECOND, delivered));
        pair.ends[end].drop_channel(id, pair.now);
        assert_eq!(pair.ends[end].channels(), 0);
    }
}

#[test]
fn a_cut_channel_has_no_graceful_end() {
    let mut pair = connected();
    let [here, there] = open(&mut pair, OFFERS, "");
    pair.write(OFFERS, here, b"part");
    let mut got = Vec::new();
    assert!(pair.run(5 * SECOND, |pair| {
        pair.read(ANSWERS, there, &mut got);
        got == b"part"
    }));
    pair.ends[OFFERS].abort(here, pair.now);
    assert!(pair.run(5 * SECOND, |pair| pair.read(ANSWERS, there, &mut got)));
    assert!(pair.ends[ANSWERS].is_cut(there));
    let room = |pair: &mut Pair| ask(|cx| pair.ends[ANSWERS].poll_room(there, cx)) == Some(None);
    assert!(pair.run(5 * SECOND, room));
    for (end, id) in [(OFFERS, here), (ANSWERS, there)] {
        pair.ends[end].drop_channel(id, pair.now);
    }
    pair.rest(SECOND);
    assert!(pair.ends.iter().all(|end| end.channels() == 0));
}

#[test]
fn a_channel_at_its_idle_limit_looks_complete_to_its_reader_and_cut_to_the_peer() {
    let limit = 5 * SECOND;
    for held in [0, KIB] {
        let mut pair = connected();
        let [here, there] = open(&mut pair, OFFERS, "");
        pair.ends[ANSWERS].limit_idle(there, Some(limit), pair.now);
        pair.write(ANSWERS, there, b"part");
        pair.write(OFFERS, here, &numbers(held, 3));
        let ended = |pair: &mut Pair| pair.ends[ANSWERS].has_ended(there);
        assert!(pair.run(3 * limit, ended));
        // Bytes that the reader did not take are discarded, and it is told.
        assert!(pair.read(ANSWERS, there, &mut Vec::new()));
        assert_eq!(pair.ends[ANSWERS].is_cut(there), held > 0);
        assert!(pair.run(SECOND, |pair| { pair.read(OFFERS, here, &mut Vec::new()) }));
        assert!(pair.ends[OFFERS].is_cut(here));
        for (end, id) in [(OFFERS, here), (ANSWERS, there)] {
            pair.ends[end].drop_channel(id, pair.now);
        }
        pair.rest(SECOND);
        assert!(pair.ends.iter().all(|end| end.channels() == 0));
    }
}

#[test]
fn a_channel_that_is_dropped_without_its_end_is_cut() {
    let mut pair = connected();
    let [here, there] = open(&mut pair, OFFERS, "");
    pair.write(OFFERS, here, b"part");
    pair.ends[OFFERS].drop_channel(here, pair.now);
    assert!(pair.run(5 * SECOND, |pair| pair.read(
        ANSWERS,
        there,
        &mut Vec::new()
    )));
    assert!(pair.ends[ANSWERS].is_cut(there));
    pair.ends[ANSWERS].drop_channel(there, pair.now);
    pair.rest(SECOND);
    assert!(pair.ends.iter().all(|end| end.channels() == 0));
}

#[test]
fn what_was_written_before_the_end_arrives_after_the_channel_was_dropped() {
    let mut pair = connected();
    pair.loss = 300;
    let [here, there] = open(&mut pair, OFFERS, "");
    let bytes = numbers(50 * KIB, 7);
    assert_eq!(pair.write(OFFERS, here, &bytes), bytes.len());
    pair.ends[OFFERS].finish(here);
    pair.ends[OFFERS].drop_channel(here, pair.now);
    let mut got = Vec::new();
    assert!(pair.run(60 * SECOND, |pair| pair.read(ANSWERS, there, &mut got)));
    assert!(got == bytes && !pair.ends[ANSWERS].is_cut(there));
    // The dropped end reads nothing.
    let room = |pair: &mut Pair| ask(|cx| pair.ends[ANSWERS].poll_room(there, cx)) == Some(None);
    assert!(pair.run(10 * SECOND, room));
    pair.ends[ANSWERS].drop_channel(there, pair.now);
    assert!(pair.run(60 * SECOND, |pair| pair
        .ends
        .iter()
        .all(|end| end.channels() == 0)));
}

#[test]
fn an_unread_channel_holds_at_most_its_window() {
    let mut pair = connected();
    let [here, there] = open(&mut pair, OFFERS, "");
    let bytes = numbers(8 * 1024 * KIB, 9);
    let mut at = 0;
    pair.run(60 * SECOND, |pair| {
        at += pair.write(OFFERS, here, &bytes[at..]);
        let channel = &quic(&mut pair.ends[ANSWERS]).channels[&there];
        assert!(
            channel.held() <= IN + RECEIVE as usize,
            "{}",
            channel.held()
        );
        false
    });
    let window = RECEIVE as usize + IN;
    let most = window + MAX_SEND_WINDOW as usize + 64 * KIB + 2 * KIB;
    assert!((window..most).contains(&at), "{at} bytes were taken");
    let (mut got, mut finished) = (Vec::new(), false);
    assert!(pair.run(60 * SECOND, |pair| {
        at += pair.write_open(OFFERS, here, &bytes[at..]);
        if at == bytes.len() && !finished {
            finished = true;
            pair.ends[OFFERS].finish(here);
        }
        pair.read(ANSWERS, there, &mut got)
    }));
    assert!(got == bytes, "{} bytes came", got.len());
}

impl Pair {
    /// Writes unless the channel has ended.
    pub(super) fn write_open(&mut self, end: usize, id: u16, bytes: &[u8]) -> usize {
        match bytes.is_empty() {
            true => 0,
            false => self.write(end, id, bytes),
        }
    }
}

#[test]
fn readers_that_stop_hold_up_nobody() {
    let mut pair = connected();
    let stopped: Vec<[u16; 2]> = (0..4).map(|_| open(&mut pair, OFFERS, "")).collect();
    let used = open(&mut pair, OFFERS, "");
    // Each fills whatever it may.
    let bytes = vec![7; 4 * KIB];
    let flood = |pair: &mut Pair| {
        for [here, _] in &stopped {
            let is_open = |pair: &mut Pair| {
                let room = ask(|cx| pair.ends[OFFERS].poll_room(*here, cx));
                matches!(room, Some(Some(_)))
            };
            while is_open(pair) {
                pair.write(OFFERS, *here, &bytes);
            }
        }
        false
    };
    // Two streams' windows are within the memory of the test.
    pair.run(20 * SECOND, flood);
    exchange(&mut pair, [OFFERS, ANSWERS], used, 256 * KIB, 30 * SECOND);
    let cut = stopped
        .iter()
        .filter(|[_, there]| pair.ends[ANSWERS].is_cut(*there));
    let (cut, memory) = (cut.count(), RECEIVE as usize + IN);
    assert!(cut >= 4 - MEMORY / memory && cut < 4, "{cut} are cut");
    // Memory is given back.
    for [_, there] in stopped.iter().chain([&used]) {
        pair.ends[ANSWERS].drop_channel(*there, pair.now);
    }
    assert!(pair.ends[ANSWERS].is_drained(pair.now));
    assert_eq!(pair.ends[ANSWERS].memory().held(), 0);
    assert_eq!(quic(&mut pair.ends[ANSWERS]).relieved, 0);
}

#[test]
fn a_stopped_reader_loses_its_channel_when_all_hold_too_much() {
    let mut pair = connected();
    let channels: Vec<[u16; 2]> = (0..8).map(|_| open(&mut pair, OFFERS, "")).collect();
    let bytes = vec![1; 100 * KIB];
    for [here, _] in &channels {
        let mut at = 0;
        assert!(pair.run(30 * SECOND, |pair| {
            if ask(|cx| pair.ends[OFFERS].poll_room(*here, cx)) == Some(None) {
                return true;
            }
            at += pair.write_open(OFFERS, *here, &bytes[at..]);
            at == bytes.len()
        }));
    }
    pair.rest(5 * SECOND);
    let held = pair.ends[ANSWERS].memory().held();
    assert!(held <= MEMORY, "{held} bytes are held");
    let cut = channels
        .iter()
        .filter(|[_, there]| pair.ends[ANSWERS].is_cut(*there));
    assert!((1..8).contains(&cut.count()));
}

#[test]
fn a_peer_with_another_certificate_than_described_never_connects() {
    let mut pair = Pair::with([true; 2], |answer| answer.fingerprint = "00".to_owned());
    let connected = |pair: &mut Pair| *pair.ends[OFFERS].state() == PeerState::Connected;
    assert!(!pair.run(130 * SECOND, connected));
    assert!(matches!(pair.ends[ANSWERS].state(), PeerState::Over(_)));
}

#[test]
fn the_number_of_a_peers_channels_is_bounded() {
    let mut pair = connected();
    let ids: Vec<u16> = std::iter::from_fn(|| pair.ends[OFFERS].open("", pair.now)).collect();
    assert_eq!(ids.len(), CHANNELS as usize);
    pair.rest(5 * SECOND);
    let opened: Vec<u16> = std::iter::from_fn(|| pair.ends[ANSWERS].opened())
        .map(|opened| opened.id)
        .collect();
    assert_eq!(opened.len(), CHANNELS as usize);
    // A peer that opens more breaks the protocol.
    for (end, ids) in [(OFFERS, ids), (ANSWERS, opened)] {
        for id in ids {
            pair.ends[end].drop_channel(id, pair.now);
        }
    }
    pair.rest(5 * SECOND);
    // Numbers of streams do not run out.
    for _ in 0..3 * CHANNELS {
        let ids = open(&mut pair, OFFERS, "x");
        for (end, id) in [OFFERS, ANSWERS].into_iter().zip(ids) {
            pair.ends[end].drop_channel(id, pair.now);
        }
        assert!(pair.run(5 * SECOND, |pair| pair
            .ends
            .iter()
            .all(|end| end.channels() == 0)));
    }
}

/// Opens a stream past the channels, and writes these bytes.
fn raw_stream(pair: &mut Pair, bytes: &[u8]) -> StreamId {
    let connection = connection(&mut pair.ends[OFFERS]);
    let id = connection.streams().open(Dir::Bi).unwrap();
    connection.send_stream(id).write(bytes).unwrap();
    id
}

#[test]
fn streams_without_a_label_are_reset() {
    let mut pair = connected();
    for bytes in [&b"\xff\xff"[..], b"\0\x01\xff", b"\0", b"\0\x05gt"] {
        let id = raw_stream(&mut pair, bytes);
        let stopped = |pair: &mut Pair| {
            let stopped = connection(&mut pair.ends[OFFERS]).send_stream(id).stopped();
            stopped.is_ok_and(|code| code == Some(code::MALFORMED))
        };
        assert!(pair.run(12 * SECOND, stopped), "{bytes:?}");
        assert!(pair.ends[ANSWERS].opened().is_none());
        assert_eq!(pair.ends[ANSWERS].channels(), 0, "{bytes:?}");
    }
    // One that ends early.
    let id = raw_stream(&mut pair, b"\0\x05gt");
    connection(&mut pair.ends[OFFERS])
        .send_stream(id)
        .finish()
        .unwrap();
    pair.rest(12 * SECOND);
    assert_eq!(pair.ends[ANSWERS].channels(), 0);
    let ids = open(&mut pair, OFFERS, "gt:x");
    exchange(&mut pair, [OFFERS, ANSWERS], ids, KIB, SECOND);
}

#[test]
fn garbage_changes_nothing() {
    let mut pair = connected();
    let ids = open(&mut pair, OFFERS, "");
    let prefix = quic(&mut pair.ends[ANSWERS]).prefix;
    let stranger = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 9);
    for from in [PLACES[OFFERS], stranger] {
        for first in (64..=127).chain(192..=255) {
            for length in [0, 1, 4, 20, 1199, 1200, 1472] {
                let mut bytes = vec![first];
                bytes.extend(prefix);
                bytes.extend(numbers(length, 77));
                pair.ends[ANSWERS].receive(from, &bytes, pair.now);
                pair.ends[ANSWERS].receive(from, &bytes[..1], pair.now);
            }
        }
    }
    pair.rest(SECOND);
    assert_eq!(pair.ends[ANSWERS].path, Some(PLACES[OFFERS]));
    exchange(&mut pair, [OFFERS, ANSWERS], ids, 100 * KIB, 10 * SECOND);
}

#[test]
fn a_silent_peer_is_ended_and_its_readers_know_that_bytes_are_missing() {
    let mut pair = connected();
    let [here, there] = open(&mut pair, OFFERS, "");
    pair.write(OFFERS, here, b"last");
    pair.rest(SECOND);
    pair.loss = 10_000;
    let over = |pair: &mut Pair| {
        let is = |end: &Peer| matches!(end.state(), PeerState::Over(_));
        pair.ends.iter().all(is)
    };
    assert!(pair.run(60 * SECOND, over));
    let mut got = Vec::new();
    assert!(pair.read(ANSWERS, there, &mut got));
    assert_eq!(got, b"last");
    assert!(pair.ends[ANSWERS].is_cut(there));
    assert_eq!(
        ask(|cx| pair.ends[ANSWERS].poll_room(there, cx)),
        Some(None)
    );
}

#[test]
fn a_dead_path_is_known_within_seconds_and_so_is_one_that_works_again() {
    let mut pair = connected();
    let ids = open(&mut pair, OFFERS, "");
    exchange(&mut pair, [OFFERS, ANSWERS], ids, KIB, 5 * SECOND);
    pair.loss = 10_000;
    pair.write(OFFERS, ids[0], b"?");
    let lost = |pair: &mut Pair| pair.ends.iter().all(Peer::is_lost);
    assert!(pair.run(7 * SECOND, lost));
    assert!(pair
        .ends
        .iter()
        .all(|end| *end.state() == PeerState::Connected));
    pair.loss = 0;
    let found = |pair: &mut Pair| !pair.ends.iter().any(Peer::is_lost);
    assert!(pair.run(5 * SECOND, found));
    let mut got = Vec::new();
    assert!(pair.run(5 * SECOND, |pair| {
        pair.read(ANSWERS, ids[1], &mut got);
        got == b"?"
    }));
}

#[test]
fn a_peer_that_refuses_channels_keeps_those_that_it_has() {
    let mut pair = connected();
    let before = open(&mut pair, OFFERS, "");
    pair.ends[ANSWERS].refuse_channels();
    let refused = pair.ends[OFFERS].open("", pair.now).expect("a channel");
    let is_refused = |pair: &mut Pair| {
        ask(|cx| quic(&mut pair.ends[OFFERS]).poll_answered(refused, cx)) == Some(false)
    };
    assert!(pair.run(5 * SECOND, is_refused));
    assert!(pair.ends[ANSWERS].opened().is_none());
    pair.ends[OFFERS].drop_channel(refused, pair.now);
    exchange(&mut pair, [OFFERS, ANSWERS], before, KIB, 5 * SECOND);
    assert!(pair.ends.iter().all(|end| end.channels() == 1));
}

#[test]
fn a_closed_peer_is_ended_at_the_other_end() {
    let mut pair = connected();
    pair.ends[OFFERS].close(pair.now);
    while let Some(datagram) = pair.ends[OFFERS].out().pop_front() {
        let from = PLACES[OFFERS];
        pair.way
            .push_back((pair.now, ANSWERS, from, datagram.bytes));
    }
    let over = |pair: &mut Pair| matches!(pair.ends[ANSWERS].state(), PeerState::Over(_));
    assert!(pair.run(2 * SECOND, over));
}

/// The address that an end moves to.
fn elsewhere(end: usize) -> SocketAddr {
    let last = [7, 8][end];
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(172, 16, 0, last)), 999)
}

#[test]
fn a_connection_survives_a_change_of_either_address() {
    for (mover, sender) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut pair = connected();
        let ids = open(&mut pair, sender, "");
        let bytes = numbers(4096 * KIB, 3);
        let (mut at, mut got, mut moved) = (0, Vec::new(), None);
        let done = pair.run(60 * SECOND, |pair| {
            at += pair.write_open(sender, ids[0], &bytes[at..]);
            assert!(!pair.read(1 - sender, ids[1], &mut got));
            if got.len() > bytes.len() / 3 && moved.is_none() {
                moved = Some(pair.now);
                pair.places[mover] = elsewhere(mover);
            }
            got.len() == bytes.len()
        });
        assert!(done && got == bytes, "{mover} {sender}: {}", got.len());
        let took = pair.now - moved.unwrap();
        assert!(took < 5 * SECOND, "{mover} {sender}: {took:?}");
        assert_eq!(pair.ends[1 - mover].path, Some(elsewhere(mover)));
        // Idle peers stay on the new path.
        pair.rest(90 * SECOND);
        exchange(&mut pair, [sender, 1 - sender], ids, KIB, SECOND);
    }
}

#[test]
fn an_idle_connection_survives_a_change_of_address_and_back() {
    let mut pair = connected();
    let ids = open(&mut pair, OFFERS, "");
    for round in 0..40 {
        pair.rest(10 * SECOND);
        let end = round % 2;
        pair.places[end] = match pair.places[end] == PLACES[end] {
            true => elsewhere(end),
            false => PLACES[end],
        };
        pair.rest(10 * SECOND);
        exchange(&mut pair, [OFFERS, ANSWERS], ids, KIB, 10 * SECOND);
    }
    for end in 0..2 {
        assert_eq!(*pair.ends[end].state(), PeerState::Connected);
    }
}

#[test]
fn a_repeated_packet_from_elsewhere_changes_no_path() {
    let mut pair = connected();
    let ids = open(&mut pair, OFFERS, "");
    pair.write(OFFERS, ids[0], b"x");
    pair.ends[OFFERS].pump(pair.now);
    let datagram = pair.ends[OFFERS].out().pop_front().expect("a packet");
    let stranger = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 9);
    pair.ends[ANSWERS].receive(stranger, &datagram.bytes, pair.now);
    pair.rest(20 * SECOND);
    assert_eq!(pair.ends[ANSWERS].path, Some(PLACES[OFFERS]));
    assert!(!pair.read(ANSWERS, ids[1], &mut Vec::new()));
    exchange(&mut pair, [OFFERS, ANSWERS], ids, KIB, SECOND);
}

#[test]
fn an_address_learnt_later_is_used_when_the_path_fails() {
    let mut pair = connected();
    let ids = open(&mut pair, OFFERS, "");
    pair.rest(10 * SECOND);
    let candidate = super::super::transport::candidate(elsewhere(ANSWERS)).unwrap();
    pair.ends[OFFERS].add_remote(&candidate, pair.now);
    pair.rest(10 * SECOND);
    assert_eq!(pair.ends[OFFERS].path, Some(PLACES[ANSWERS]));
    // The new address hears nothing before: its end is not known to have moved.
    pair.places[ANSWERS] = elsewhere(ANSWERS);
    pair.write(OFFERS, ids[0], b"x");
    exchange_after(&mut pair, ids);
    assert_eq!(pair.ends[OFFERS].path, Some(elsewhere(ANSWERS)));
}

fn exchange_after(pair: &mut Pair, ids: [u16; 2]) {
    let mut got = Vec::new();
    assert!(pair.run(20 * SECOND, |pair| {
        pair.read(ANSWERS, ids[1], &mut got);
        !got.is_empty()
    }));
}

#[test]
fn an_idle_peer_sends_little_and_wakes_rarely() {
    let mut pair = connected();
    pair.rest(30 * SECOND);
    let (mut steps, start) = (0, pair.now);
    while pair.now < start + 60 * SECOND {
        pair.step();
        steps += 1;
    }
    // A check and its answer every four seconds from each end, and when they are due.
    assert!(steps <= 60 * 3, "{steps} steps");
}
