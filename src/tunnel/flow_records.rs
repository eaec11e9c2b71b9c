//! The datagrams of one flow over QUIC: as DATAGRAM frames (RFC 9221) where they fit, otherwise as records in the
//! flow's stream, which are those of other tunnels.

use crate::net::clock::Tick;
use crate::net::quic::{QuicStreamId, QuicStreams, Urgency};
use crate::net::RecordReader;
use crate::wire::frame::StreamId;
use std::io;
use std::time::Duration;

/// Time in which the records of a flow go in its stream before anything has come back: until the stream's header has
/// arrived, a DATAGRAM would be lost.
const HEADER_TIME: Duration = Duration::from_secs(1);
/// Bytes of a record before its datagram.
const LENGTH: usize = 2;

/// The datagrams of one flow, in both directions.
#[derive(Default)]
pub(super) struct FlowRecords {
    /// Records that come in the stream.
    pub reader: RecordReader,
    /// Whether a record has come in the stream, which may be the visitor's origin.
    pub has_begun: bool,
    /// When something was sent first.
    since: Option<Tick>,
    sending: Sending,
}

/// Where the next byte of records belongs that are sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// To a new record.
    #[default]
    Between,
    /// To the length of a record whose first byte was sent in the stream.
    Length(u8),
    /// To a datagram in the stream, of which so many bytes are left.
    Datagram(usize),
}

/// How bytes of records have been sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentRecords {
    /// Bytes that were taken.
    pub taken: usize,
    /// Bytes of these that the stream carries.
    pub in_stream: usize,
}

impl FlowRecords {
    /// Sends bytes of records, as many as the stream takes. `is_answered`: something of the flow has come from the
    /// peer. `waits`: the flow has to share the connection with others, so that its bytes take turns with theirs.
    pub fn send(
        &mut self,
        (streams, id, stream_id): (&QuicStreams, QuicStreamId, StreamId),
        bytes: &[u8],
        urgency: Urgency,
        (is_answered, waits): (bool, bool),
    ) -> io::Result<SentRecords> {
        let mut sent = SentRecords::default();
        let now = Tick::now();
        let begun = self.since.get_or_insert(now).until(now);
        let may_be_lost = is_answered || begun >= HEADER_TIME;
        while let Some(rest) = bytes.get(sent.taken..).filter(|rest| !rest.is_empty()) {
            let record = self.whole_record(rest).filter(|_| !waits);
            if let Some(datagram) = record.filter(|_| may_be_lost) {
                if streams.send_datagram([&stream_id.0.to_be_bytes(), datagram]) {
                    sent.taken += LENGTH + datagram.len();
                    continue;
                }
            }
            let piece = self.piece(rest);
            let n = streams.write(id, piece, urgency)?;
            self.advance(piece.get(..n).unwrap_or(piece));
            sent.taken += n;
            sent.in_stream += n;
            if n < piece.len() {
                break;
            }
        }
        Ok(sent)
    }

    /// Returns the datagram of a whole record at the start of `bytes`.
    fn whole_record<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if self.sending != Sending::Between {
            return None;
        }
        let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
        rest.get(..usize::from(u16::from_be_bytes(*length)))
    }

    /// Returns the bytes at the start of `bytes` that belong to one record.
    fn piece<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let length = match (self.sending, bytes) {
            (Sending::Datagram(left), _) => left,
            (Sending::Length(high), [low, ..]) => 1 + usize::from(u16::from_be_bytes([high, *low])),
            (Sending::Between, [high, low, ..]) => {
                LENGTH + usize::from(u16::from_be_bytes([*high, *low]))
            }
            (_, bytes) => bytes.len(),
        };
        bytes.get(..length).unwrap_or(bytes)
    }

    /// Notes that bytes of one record were sent in the stream.
    fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            self.sending = match self.sending {
                Sending::Between => Sending::Length(*first),
                Sending::Length(high) => match usize::from(u16::from_be_bytes([high, *first])) {
                    0 => Sending::Between,
                    left => Sending::Datagram(left),
                },
                Sending::Datagram(left) => {
                    let now = left.min(bytes.len());
                    bytes = bytes.get(now..).unwrap_or_default();
                    self.sending = match left - now {
                        0 => Sending::Between,
                        left => Sending::Datagram(left),
                    };
                    continue;
                }
            };
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_bounds_of_records_are_known_however_they_are_cut(
            lengths in proptest::collection::vec(0usize..300, 1..20),
            cuts in proptest::collection::vec(1usize..200, 1..50),
        ) {
            let mut bytes = Vec::new();
            let mut bounds = vec![0];
            for length in &lengths {
                bytes.extend(u16::try_from(*length).unwrap().to_be_bytes());
                bytes.resize(bytes.len() + length, 7);
                bounds.push(bytes.len());
            }
            let mut records = FlowRecords::default();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let is_bound = bounds.contains(&at);
                prop_assert_eq!(records.sending == Sending::Between, is_bound);
                let piece = records.piece(&bytes[at..]);
                let next = *bounds.iter().find(|bound| **bound > at).unwrap();
                prop_assert!(piece.len() == next - at, "{} of {}", piece.len(), next - at);
                if is_bound {
                    let whole = records.whole_record(&bytes[at..]).unwrap();
                    prop_assert_eq!(whole.len() + LENGTH, next - at);
                }
                let n = piece.len().min(*cuts.next().unwrap());
                let piece = piece[..n].to_vec();
                records.advance(&piece);
                at += n;
            }
            prop_assert_eq!(records.sending, Sending::Between);
        }
    }
}
