//! Datagrams of flows as packets between two ends of gt, beside the channels of a peer: lost ones are not sent again,
//! and none waits for another (docs/p2p.md, "Datagrams"). A datagram that does not fit a packet is sent in pieces.

use crate::wire::u16_at;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a packet begins with. An SCTP packet begins with a port, which is never 0.
const MARK: [u8; 2] = [0, 0];
/// Length in bytes of a packet's header: the mark, the flow, the datagram, the piece, and the number of pieces.
pub const HEADER: usize = 8;
/// Maximum length in bytes of a piece: with what DTLS adds, it fits the smallest packet that IPv6 must carry.
pub const MAX_PIECE: usize = 1180;
/// Maximum bytes of a datagram: what fits a packet of IPv4.
pub const MAX_DATAGRAM: usize = 65_507;
/// Minimum length in bytes of a piece, but the last one, that is sent: QUIC has less room than DTLS.
pub const MIN_PIECE: usize = 1100;
/// Maximum number of pieces of a datagram.
const MAX_PIECES: usize = MAX_DATAGRAM.div_ceil(MIN_PIECE);
/// Maximum number of datagrams of a flow of which some pieces have come. The oldest makes way.
const MAX_PARTIAL: usize = 4;
/// Maximum bytes of the process in pieces of datagrams that have not come whole.
const MAX_PARTIAL_OF_ALL: usize = 4 * 1024 * 1024;
/// Time after which a datagram that has not come whole is dropped: its other pieces are lost.
const PARTIAL_LIFETIME: Duration = Duration::from_secs(5);
/// Memory of a datagram that has not come whole, beside its pieces, and of each piece that may come.
const OVERHEAD: usize = 64;
const PIECE_OVERHEAD: usize = 32;

/// Bytes of the process in pieces of datagrams that have not come whole.
static PARTIAL_OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// A packet with a piece of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The number of the channel whose flow it belongs to.
    pub flow: u16,
    /// The number of the datagram in its flow.
    number: u16,
    index: u8,
    count: u8,
    bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Parses a packet; `None` if it is not one of a flow, or breaks the rules.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (header, bytes) = packet.split_at_checked(HEADER)?;
        let [0, 0, _, _, _, _, index, count] = *header else {
            return None;
        };
        let is_valid = index < count && usize::from(count) <= MAX_PIECES;
        (is_valid && bytes.len() <= MAX_PIECE).then_some(Self {
            flow: u16_at(header, 2)?,
            number: u16_at(header, 4)?,
            index,
            count,
            bytes,
        })
    }
}

/// Whether a packet is one of a flow, if it is not malformed.
pub fn is_piece(packet: &[u8]) -> bool {
    packet.starts_with(&MARK)
}

/// Passes the packets of a datagram, with pieces of at most `most` bytes, to `send` while that returns true. False if
/// not all were sent.
pub fn split(
    (flow, number): (u16, u16),
    datagram: &[u8],
    most: usize,
    mut send: impl FnMut(&[u8]) -> bool,
) -> bool {
    let most = most.min(MAX_PIECE);
    if datagram.len() > MAX_DATAGRAM || most < MIN_PIECE {
        return false;
    }
    let count = datagram.len().div_ceil(most).max(1);
    let Ok(pieces) = u8::try_from(count) else {
        return false;
    };
    let mut packet = Vec::with_capacity(HEADER + datagram.len().min(most));
    for index in 0..pieces {
        let from = usize::from(index) * most;
        let to = (from + most).min(datagram.len());
        packet.clear();
        packet.extend(MARK);
        packet.extend(flow.to_be_bytes());
        packet.extend(number.to_be_bytes());
        packet.extend([index, pieces]);
        packet.extend_from_slice(datagram.get(from..to).unwrap_or_default());
        if !send(&packet) {
            return false;
        }
    }
    true
}

/// The datagrams of a flow of which some pieces have come.
#[derive(Debug)]
pub struct Assembler {
    partial: Vec<PartialDatagram>,
    /// Bytes that wait in all assemblers that share this.
    waiting: &'static AtomicUsize,
}

#[derive(Debug)]
struct PartialDatagram {
    number: u16,
    /// When its first piece came.
    since: Instant,
    /// Those that have come; as many as there are.
    pieces: Vec<Option<Box<[u8]>>>,
}

impl PartialDatagram {
    /// Returns the memory that it takes.
    fn bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().flatten().map(|piece| piece.len()).sum();
        overhead(self.pieces.len()) + pieces
    }
}

/// Returns the memory of a datagram of this many pieces that has not come whole, beside the pieces.
fn overhead(count: usize) -> usize {
    OVERHEAD + count * PIECE_OVERHEAD
}

impl Default for Assembler {
    fn default() -> Self {
        Self::sharing(&PARTIAL_OF_ALL)
    }
}

impl Assembler {
    fn sharing(waiting: &'static AtomicUsize) -> Self {
        Self {
            partial: Vec::new(),
            waiting,
        }
    }

    /// Adds a piece, and passes its datagram to `take` if that is whole. False if the piece was dropped.
    pub fn add(&mut self, piece: &Piece<'_>, now: Instant, take: impl FnOnce(&[u8])) -> bool {
        if piece.count == 1 {
            take(piece.bytes);
            return true;
        }
        self.expire(now);
        let count = usize::from(piece.count);
        let is_its = |it: &PartialDatagram| it.number == piece.number && it.pieces.len() == count;
        let at = match self.partial.iter().position(is_its) {
            Some(at) => at,
            None => {
                if self.partial.len() >= MAX_PARTIAL {
                    self.forget(0);
                }
                let cost = overhead(count) + piece.bytes.len();
                if self.waiting.load(Ordering::Relaxed).saturating_add(cost) > MAX_PARTIAL_OF_ALL {
                    return false;
                }
                self.waiting.fetch_add(overhead(count), Ordering::Relaxed);
                self.partial.push(PartialDatagram {
                    number: piece.number,
                    since: now,
                    pieces: vec![None; count],
                });
                self.partial.len() - 1
            }
        };
        let waiting = self.waiting.load(Ordering::Relaxed);
        let Some(partial) = self.partial.get_mut(at) else {
            return false;
        };
        let Some(place) = partial.pieces.get_mut(usize::from(piece.index)) else {
            return false;
        };
        if place.is_some() || waiting.saturating_add(piece.bytes.len()) > MAX_PARTIAL_OF_ALL {
            return false;
        }
        *place = Some(piece.bytes.into());
        self.waiting.fetch_add(piece.bytes.len(), Ordering::Relaxed);
        if !partial.pieces.iter().all(Option::is_some) {
            return true;
        }
        let whole: Vec<&[u8]> = partial.pieces.iter().flatten().map(|it| &**it).collect();
        let datagram = whole.concat();
        self.forget(at);
        let is_datagram = datagram.len() <= MAX_DATAGRAM;
        if is_datagram {
            take(&datagram);
        }
        is_datagram
    }

    /// Drops datagrams whose pieces have not come in time.
    pub fn expire(&mut self, now: Instant) {
        // They are in the order of their first pieces.
        let is_late =
            |it: &PartialDatagram| now.saturating_duration_since(it.since) >= PARTIAL_LIFETIME;
        while self.partial.first().is_some_and(is_late) {
            self.forget(0);
        }
    }

    fn forget(&mut self, at: usize) {
        let bytes = self.partial.remove(at).bytes();
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Assembler {
    fn drop(&mut self) {
        let bytes = self.partial.iter().map(PartialDatagram::bytes).sum();
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets(number: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let most = if number.is_multiple_of(2) {
            MAX_PIECE
        } else {
            MIN_PIECE
        };
        let sent = split((7, number), datagram, most, |packet| {
            packets.push(packet.to_vec());
            true
        });
        assert!(sent);
        packets
    }

    fn datagram(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + seed) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn datagrams_come_whole_in_any_order_of_their_pieces(
            lengths in proptest::collection::vec(prop_oneof![0usize..3000, 60_000usize..=MAX_DATAGRAM], 1..4),
            order in any::<u64>(),
        ) {
            let sent: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, it)| datagram(*it, n)).collect();
            let mut all: Vec<Vec<u8>> = (0..).zip(&sent).flat_map(|(n, it)| packets(n, it)).collect();
            let mut state = order | 1;
            for at in (1..all.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                all.swap(at, (state >> 33) as usize % (at + 1));
            }
            let (mut assembler, now) = (Assembler::default(), Instant::now());
            let mut got = Vec::new();
            for packet in &all {
                let piece = Piece::parse(packet).unwrap();
                prop_assert_eq!(piece.flow, 7);
                prop_assert!(packet.len() <= HEADER + MAX_PIECE && is_piece(packet));
                assembler.add(&piece, now, |datagram| got.push(datagram.to_vec()));
            }
            got.sort();
            let mut sent = sent;
            sent.sort();
            prop_assert!(got == sent);
            prop_assert!(assembler.partial.is_empty());
        }
    }

    #[test]
    fn a_lost_piece_costs_its_datagram_only_and_takes_bounded_memory() {
        static WAITING: AtomicUsize = AtomicUsize::new(0);
        let mut assembler = Assembler::sharing(&WAITING);
        let (mut got, now) = (0, Instant::now());
        for number in 0..1000u16 {
            let packets = packets(number, &datagram(5000, 1));
            // Of every other one, the second piece is lost.
            for (at, packet) in packets.iter().enumerate() {
                if at != 1 || number % 2 == 0 {
                    assembler.add(&Piece::parse(packet).unwrap(), now, |_| got += 1);
                }
            }
            assert!(assembler.partial.len() <= MAX_PARTIAL);
            assert!(WAITING.load(Ordering::Relaxed) <= MAX_PARTIAL * (5000 + overhead(5)));
        }
        assert_eq!(got, 500);
        drop(assembler);
        assert_eq!(WAITING.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn pieces_of_all_flows_take_bounded_memory() {
        static WAITING: AtomicUsize = AtomicUsize::new(0);
        let first = &packets(1, &datagram(MAX_DATAGRAM, 1))[..40];
        let now = Instant::now();
        let mut flows: Vec<Assembler> = (0..200).map(|_| Assembler::sharing(&WAITING)).collect();
        for flow in &mut flows {
            for packet in first {
                flow.add(&Piece::parse(packet).unwrap(), now, |_| {
                    panic!("it is not whole")
                });
            }
            assert!(WAITING.load(Ordering::Relaxed) <= MAX_PARTIAL_OF_ALL);
        }
        drop(flows);
        assert_eq!(WAITING.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_datagram_that_does_not_come_whole_is_dropped_after_a_while() {
        static WAITING: AtomicUsize = AtomicUsize::new(0);
        let now = Instant::now();
        let packets = packets(1, &datagram(5000, 1));
        let piece = |at: usize| Piece::parse(&packets[at]).unwrap();
        let mut assembler = Assembler::sharing(&WAITING);
        assembler.add(&piece(0), now, |_| panic!("it is not whole"));
        // What a piece takes is more than its bytes.
        assert!(WAITING.load(Ordering::Relaxed) > piece(0).bytes.len() + 5 * PIECE_OVERHEAD);
        assembler.expire(now + PARTIAL_LIFETIME / 2);
        assert_eq!(assembler.partial.len(), 1);
        assembler.expire(now + PARTIAL_LIFETIME);
        assert!(assembler.partial.is_empty());
        assert_eq!(WAITING.load(Ordering::Relaxed), 0);
        // The pieces of one that is late are not joined with those of one with the same number.
        assembler.add(&piece(0), now, |_| panic!("it is not whole"));
        for at in 1..packets.len() {
            assembler.add(&piece(at), now + PARTIAL_LIFETIME, |_| {
                panic!("it is not whole")
            });
        }
    }

    #[test]
    fn pieces_of_many_small_datagrams_are_counted_with_their_overhead() {
        static WAITING: AtomicUsize = AtomicUsize::new(0);
        let now = Instant::now();
        // An empty piece of 60, in each of four datagrams of each flow.
        let mut flows: Vec<Assembler> = (0..1000).map(|_| Assembler::sharing(&WAITING)).collect();
        let mut taken = 0;
        for flow in &mut flows {
            for number in 0..4 {
                let packet = [0, 0, 0, 7, 0, number, 0, 60];
                taken += usize::from(flow.add(&Piece::parse(&packet).unwrap(), now, |_| {}));
            }
        }
        assert!(WAITING.load(Ordering::Relaxed) <= MAX_PARTIAL_OF_ALL);
        assert!(taken <= MAX_PARTIAL_OF_ALL / overhead(60), "{taken}");
    }

    #[test]
    fn packets_that_break_the_rules_are_not_pieces() {
        let good = [0, 0, 0, 7, 0, 1, 0, 1, 9];
        assert!(Piece::parse(&good).is_some());
        for (at, value) in [(0, 1), (1, 1), (6, 1), (7, 0), (7, 61)] {
            let mut bad = good;
            bad[at] = value;
            assert!(Piece::parse(&bad).is_none(), "{at} {value}");
        }
        assert!(Piece::parse(&good[..7]).is_none());
        assert!(Piece::parse(&[&good[..8], &[0; MAX_PIECE + 1]].concat()).is_none());
        assert!(!split((1, 1), &[0; MAX_DATAGRAM + 1], MAX_PIECE, |_| true));
        assert!(!split((1, 1), b"x", MIN_PIECE - 1, |_| true));
        assert!(!split((1, 1), b"x", MAX_PIECE, |_| false));
    }
}
