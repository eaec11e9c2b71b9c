//! Datagrams in a stream of bytes: each is a record of its length, a big-endian `u16`, and its bytes
//! (docs/wire.md, "Datagrams").

use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::TryReserveError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a record before its datagram.
pub const LENGTH: usize = 2;
/// Maximum bytes of a datagram: what fits a packet of IPv4.
#[cfg_attr(feature = "sim", allow(dead_code))]
pub const MAX_DATAGRAM: usize = 65_507;
/// Maximum number of datagrams that are sent together, below what Linux allows in one call
/// (UDP_MAX_SEGMENTS, 64).
pub const MAX_RUN: usize = 60;
/// Maximum bytes of a flow that wait, with their lengths.
const MAX_QUEUED: usize = 64 * 1024;
/// Maximum bytes of the process in records that have not come whole: as many as one tunnel may leave unread.
const MAX_PARTIAL: usize = 8 * 1024 * 1024;
/// Capacity in bytes of the buffers that a thread keeps for the next datagram.
const SPARE: usize = 4 * 1024;
/// Maximum number of such buffers.
const MAX_SPARES: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A queue of records that holds memory only while it holds bytes. It is read like a stream, so that a
/// record may be taken in pieces.
#[derive(Debug, Default)]
pub struct DatagramQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl DatagramQueue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Returns the number of bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends a datagram. False if too many bytes wait, or if there is no memory: it is not queued.
    pub fn push(&mut self, datagram: &[u8]) -> bool {
        let Ok(length) = u16::try_from(datagram.len()) else {
            return false;
        };
        let more = LENGTH + datagram.len();
        if !self.is_empty() && self.len() + more > MAX_QUEUED {
            return false;
        }
        if self.make_room(more).is_err() {
            return false;
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(datagram);
        true
    }

    fn make_room(&mut self, more: usize) -> Result<(), TryReserveError> {
        if self.bytes.capacity() == 0 && more <= SPARE {
            self.bytes = SPARES
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| Vec::with_capacity(SPARE));
        }
        if self.bytes.len() + more > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.try_reserve(more)
    }

    /// Moves bytes into `buf` and returns their number.
    pub fn take(&mut self, buf: &mut [u8]) -> usize {
        let waiting = self.bytes.get(self.start..).unwrap_or_default();
        let n = waiting.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), waiting.get(..n)) {
            to.copy_from_slice(from);
        }
        self.start += n;
        if self.is_empty() {
            self.clear();
        }
        n
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        self.start = 0;
        let mut memory = std::mem::take(&mut self.bytes);
        memory.clear();
        if memory.capacity() != SPARE {
            return;
        }
        // The thread-local list is already gone while the thread ends.
        let _ = SPARES.try_with(|spares| {
            if let Ok(mut spares) = spares.try_borrow_mut() {
                if spares.len() < MAX_SPARES {
                    spares.push(memory);
                }
            }
        });
    }
}

impl Drop for DatagramQueue {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes of the process in records that have not come whole.
static PARTIAL: AtomicUsize = AtomicUsize::new(0);

/// A parser of records that come in pieces. A record that has not come whole while too many bytes of others
/// wait is dropped.
#[derive(Debug)]
pub struct RecordReader {
    /// A record that has not come whole.
    partial: Vec<u8>,
    /// Bytes that have not come of a record that is dropped.
    dropped: usize,
    /// Bytes that wait in all parsers that share this.
    waiting: &'static AtomicUsize,
}

impl Default for RecordReader {
    fn default() -> Self {
        Self::sharing(&PARTIAL)
    }
}

impl RecordReader {
    fn sharing(waiting: &'static AtomicUsize) -> Self {
        Self {
            partial: Vec::new(),
            dropped: 0,
            waiting,
        }
    }

    /// Takes bytes and passes the datagrams that are whole to `take`, in runs of at most `N`.
    pub fn feed<const N: usize>(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[&[u8]])) {
        let dropped = self.dropped.min(bytes.len());
        self.dropped -= dropped;
        bytes = bytes.get(dropped..).unwrap_or_default();
        if !self.partial.is_empty() {
            bytes = self.complete(bytes);
            if let Some((datagram, _)) = split(&self.partial) {
                take(&[datagram]);
                self.clear();
            }
        }
        let mut run: SmallVec<[&[u8]; N]> = SmallVec::new();
        while let Some((datagram, rest)) = split(bytes) {
            run.push(datagram);
            bytes = rest;
            if run.len() == N {
                take(&run);
                run.clear();
            }
        }
        if !run.is_empty() {
            take(&run);
        }
        self.complete(bytes);
    }

    /// Moves bytes into the partial record until it is whole or dropped, and returns the rest.
    fn complete<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        // First the length is completed, then the datagram.
        for _ in 0..2 {
            let length = self.partial.first_chunk::<LENGTH>();
            let whole = match length {
                Some(length) => LENGTH + usize::from(u16::from_be_bytes(*length)),
                None => LENGTH,
            };
            let missing = whole.saturating_sub(self.partial.len());
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            bytes = rest;
            let waiting = self.waiting.load(Ordering::Relaxed);
            let is_kept = length.is_some() && now.len() < missing;
            if is_kept && waiting.saturating_add(now.len()) > MAX_PARTIAL {
                self.dropped = missing - now.len();
                self.clear();
                return bytes;
            }
            self.waiting.fetch_add(now.len(), Ordering::Relaxed);
            self.partial.extend_from_slice(now);
        }
        bytes
    }

    fn clear(&mut self) {
        let waiting = std::mem::take(&mut self.partial).len();
        self.waiting.fetch_sub(waiting, Ordering::Relaxed);
    }
}

impl Drop for RecordReader {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Splits the first datagram off whole records; `None` if it has not come whole.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0usize..4, 0usize..2000, 60_000usize..=MAX_DATAGRAM];
        let bytes = |(length, first): (usize, u8)| {
            let all = (0..=255u8).cycle().skip(usize::from(first));
            all.take(length).collect()
        };
        (length, any::<u8>()).prop_map(bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn datagrams_keep_their_bounds_however_the_stream_is_cut(
            datagrams in proptest::collection::vec(any_datagram(), 1..20),
            cuts in proptest::collection::vec(1usize..40_000, 1..50),
        ) {
            let mut stream = Vec::new();
            for datagram in &datagrams {
                stream.extend((datagram.len() as u16).to_be_bytes());
                stream.extend(datagram);
            }
            let mut reader = RecordReader::default();
            let mut read: Vec<Vec<u8>> = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (now, after) = rest.split_at(rest.len().min(*cut));
                reader.feed::<4>(now, |run| {
                    assert!((1..=4).contains(&run.len()));
                    read.extend(run.iter().map(|datagram| datagram.to_vec()));
                });
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read, datagrams);
            prop_assert!(reader.partial.is_empty());
        }

        #[test]
        fn a_queue_gives_whole_datagrams_in_order_and_refuses_the_newest(
            datagrams in proptest::collection::vec(any_datagram(), 1..40),
            takes in proptest::collection::vec(0usize..70_000, 1..40),
        ) {
            let mut queue = DatagramQueue::default();
            let mut accepted = Vec::new();
            let mut reader = RecordReader::default();
            let mut read: Vec<Vec<u8>> = Vec::new();
            let mut buf = vec![0; 70_000];
            for (datagram, most) in datagrams.iter().zip(takes.iter().cycle()) {
                if queue.push(datagram) {
                    accepted.push(datagram.clone());
                }
                prop_assert!(queue.len() <= MAX_QUEUED.max(LENGTH + MAX_DATAGRAM));
                let n = queue.take(&mut buf[..*most]);
                reader.feed::<4>(&buf[..n], |run| read.extend(run.iter().map(|it| it.to_vec())));
            }
            while !queue.is_empty() {
                let n = queue.take(&mut buf);
                reader.feed::<4>(&buf[..n], |run| read.extend(run.iter().map(|it| it.to_vec())));
            }
            prop_assert_eq!(read, accepted);
            prop_assert_eq!(queue.bytes.capacity(), 0);
        }
    }

    #[test]
    fn records_that_do_not_come_whole_take_bounded_memory_and_the_next_one_is_read() {
        static WAITING: AtomicUsize = AtomicUsize::new(0);
        let waiting = || WAITING.load(Ordering::Relaxed);
        let record = |datagram: &[u8]| [&[0, datagram.len() as u8], datagram].concat();
        let mut readers: Vec<_> = (0..200).map(|_| RecordReader::sharing(&WAITING)).collect();
        let half = [&[0xFF, 0xE3][..], &[7; 60_000]].concat();
        for reader in &mut readers {
            reader.feed::<4>(&half, |_| panic!("it is not whole"));
            assert!(waiting() <= MAX_PARTIAL, "{}", waiting());
        }
        // Those that were dropped and those that were not go on behind their records.
        let rest = [&vec![8; MAX_DATAGRAM - 60_000][..], &record(b"next")].concat();
        let (mut whole, mut next) = (0, 0);
        for reader in readers.iter_mut().rev() {
            for bytes in rest.chunks(1000) {
                reader.feed::<4>(bytes, |run| {
                    for datagram in run {
                        whole += usize::from(datagram.len() == MAX_DATAGRAM);
                        next += usize::from(*datagram == b"next");
                    }
                });
            }
        }
        assert!((100..150).contains(&whole), "{whole}");
        assert_eq!(next, 200);
        drop(readers);
        assert_eq!(waiting(), 0);
    }

    #[test]
    fn a_full_queue_takes_no_more_and_an_empty_one_takes_any_datagram() {
        let mut queue = DatagramQueue::default();
        assert!(queue.push(&[1; MAX_DATAGRAM]));
        assert!(!queue.push(&[2; 100]), "64 KiB wait");
        let mut buf = vec![0; LENGTH + MAX_DATAGRAM];
        assert_eq!(queue.take(&mut buf), LENGTH + MAX_DATAGRAM);
        assert!(queue.push(b""));
        assert!(!queue.push(&vec![0; 65_536]), "longer than any datagram");
        assert_eq!((queue.take(&mut buf), &buf[..2]), (2, &[0, 0][..]));
    }
}
