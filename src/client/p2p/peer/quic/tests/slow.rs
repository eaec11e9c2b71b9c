//! Slow readers of one connection beside channels whose readers take everything.

use super::super::super::tests::{ask, numbers, Pair, ANSWERS, KIB, OFFERS};
use super::{exchange, open, quic, SECOND};
use std::time::Duration;

/// The memory of a process.
const MUCH: usize = 8 * 1024 * KIB;
/// What a channel carries while others stand still, and the time that it may take.
const PART: usize = 2048 * KIB;
const SOON: Duration = SECOND.saturating_mul(10);

/// Opens channels, of which nothing will be read.
fn open_slow(pair: &mut Pair, count: usize) -> Vec<[u16; 2]> {
    (0..count).map(|_| open(pair, OFFERS, "")).collect()
}

/// Fills whatever the channels may hold, for some time.
fn flood(pair: &mut Pair, slow: &[[u16; 2]], time: Duration) {
    let bytes = numbers(64 * KIB, 7);
    pair.run(time, |pair| {
        for [here, _] in slow {
            while let Some(Some(room)) = ask(|cx| pair.ends[OFFERS].poll_room(*here, cx)) {
                let room = room.min(bytes.len());
                let piece = bytes[..room].to_vec().into();
                assert!(pair.ends[OFFERS].write(*here, piece, pair.now));
            }
        }
        false
    });
}

fn count_cut(pair: &Pair, slow: &[[u16; 2]]) -> usize {
    let is_cut = |it: &&[u16; 2]| pair.ends[ANSWERS].is_cut(it[1]);
    slow.iter().filter(is_cut).count()
}

/// Drops both ends of channels, and waits until nothing of them is left.
fn drop_all(pair: &mut Pair, ids: &[[u16; 2]]) {
    for [here, there] in ids {
        pair.ends[OFFERS].drop_channel(*here, pair.now);
        pair.ends[ANSWERS].drop_channel(*there, pair.now);
    }
    let over = |pair: &mut Pair| pair.ends.iter().all(|end| end.channels() == 0);
    assert!(pair.run(SOON, over));
}

#[test]
fn readers_that_stop_hold_up_nobody_as_long_as_there_is_memory_for_their_bytes() {
    for count in [5, 6, 8, 12] {
        let mut pair = Pair::with_memory(MUCH, [true; 2], |_| {}).connect();
        let slow = open_slow(&mut pair, count);
        flood(&mut pair, &slow, 5 * SECOND);
        let used = open(&mut pair, OFFERS, "");
        exchange(&mut pair, [OFFERS, ANSWERS], used, PART, SOON);
        assert_eq!(count_cut(&pair, &slow), 0, "of {count}");
    }
}

#[test]
fn a_connection_is_as_good_as_new_after_forty_channels_were_cut() {
    let mut pair = Pair::with_memory(MUCH, [true; 2], |_| {}).connect();
    let slow = open_slow(&mut pair, 60);
    flood(&mut pair, &slow, 40 * SECOND);
    let cut = count_cut(&pair, &slow);
    assert!(cut >= 40, "{cut} were cut");
    drop_all(&mut pair, &slow);
    for end in &mut pair.ends {
        let quic = quic(end);
        assert_eq!((quic.unsent, quic.relieved), (0, 0));
    }
    assert_eq!(pair.ends[ANSWERS].memory().held(), 0);
    let slow = open_slow(&mut pair, 12);
    flood(&mut pair, &slow, 5 * SECOND);
    let used = open(&mut pair, OFFERS, "");
    exchange(&mut pair, [OFFERS, ANSWERS], used, PART, SOON);
    assert_eq!(count_cut(&pair, &slow), 0);
}

#[test]
fn more_slow_readers_than_there_is_memory_for_hold_up_others_for_seconds_only() {
    for count in [60, 200] {
        let mut pair = Pair::with_memory(MUCH, [true; 2], |_| {}).connect();
        let slow = open_slow(&mut pair, count);
        let used = open(&mut pair, OFFERS, "");
        flood(&mut pair, &slow, SECOND);
        let start = pair.now;
        let bytes = numbers(PART, 3);
        let (mut at, mut got) = (0, Vec::new());
        let done = pair.run(60 * SECOND, |pair| {
            for [here, _] in &slow {
                while let Some(Some(room)) = ask(|cx| pair.ends[OFFERS].poll_room(*here, cx)) {
                    let piece = bytes[..room].to_vec().into();
                    pair.ends[OFFERS].write(*here, piece, pair.now);
                }
            }
            at += pair.write_open(OFFERS, used[0], &bytes[at..]);
            pair.read(ANSWERS, used[1], &mut got);
            got.len() == bytes.len()
        });
        let took = pair.now - start;
        assert!(
            done && got == bytes && took < 13 * SECOND,
            "{took:?}, {} bytes",
            got.len()
        );
        // The next one does not wait.
        let next = open(&mut pair, OFFERS, "");
        exchange(&mut pair, [OFFERS, ANSWERS], next, PART, SOON);
    }
}

#[test]
fn what_a_stopped_stream_leaves_is_not_counted_any_more() {
    let mut pair = Pair::with_memory(MUCH, [true; 2], |_| {}).connect();
    let [here, there] = open(&mut pair, OFFERS, "");
    pair.ends[ANSWERS].drop_channel(there, pair.now);
    // The peer's word has come and is not processed yet when more is written, and the owner goes.
    let ended = pair.run(5 * SECOND, |pair| {
        let room = |pair: &mut Pair| ask(|cx| pair.ends[OFFERS].poll_room(here, cx));
        if matches!(room(pair), Some(Some(_))) {
            pair.ends[OFFERS].write(here, vec![0; KIB].into(), pair.now);
        }
        room(pair) == Some(None)
    });
    assert!(ended);
    pair.ends[OFFERS].drop_channel(here, pair.now);
    assert_eq!(quic(&mut pair.ends[OFFERS]).unsent, 0);
}
