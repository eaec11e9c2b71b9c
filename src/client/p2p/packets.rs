//! The filter between a peer's SCTP packets and the SCTP library, which may see only some of them.
//! It parses chunk headers and numbers; `resets.rs` handles stream resets.
//!
//! rtc-sctp 0.21 trusts its peer. It panics at an error cause that is longer than its chunk; it
//! looks for the next chunk behind the part of a chunk that it understands, so that a chunk can
//! hide another; it takes a step for each number in each gap block of a SACK, as often as the
//! blocks repeat it; it bounds the bytes it holds for a peer, but neither the number of their
//! chunks (each takes about 400 bytes more, and some are searched one by one) nor chunks without
//! bytes; and it remembers every INIT as an association of its own.

use super::resets::{chunks, Chunk, DATA, FORWARD_TSN, RECONFIG, REQUEST, RESPONSE, SACK};
use crate::wire::{u16_at, u32_at};

/// Chunk types (RFC 9260, section 3.2).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
/// Parameters that rtc-sctp takes for shorter than they are, unless they have these lengths.
const FORWARD_TSN_SUPPORTED: u16 = 0xC000;
const REQUESTED_HMAC: u16 = 0x8004;
/// Length in bytes of a packet's header.
const PACKET_HEADER: usize = 12;
/// Length in bytes of a chunk's header.
const CHUNK_HEADER: usize = 4;
/// Length in bytes of a DATA chunk's value before its payload.
const DATA_HEADER: usize = 12;
/// Maximum length of a packet in bytes. WebRTC peers send 1,300 bytes at most.
const MAX_PACKET: usize = 2048;
/// Maximum number of packets with an INIT. A peer repeats it 8 times.
const MAX_INITS: u32 = 16;
/// Number of received chunks from which SCTP gets no new ones until some have been read. The
/// receive buffer holds 450 chunks of full size.
const MAX_HELD: u32 = 2048;
/// Maximum number of received chunks if further ones fill gaps between others: without those, the
/// chunks that are there could not be read.
const MAX_HELD_WITH_GAPS: u32 = 2 * MAX_HELD;

/// The filter of one peer's packets, and what SCTP holds for the peer.
#[derive(Debug, Default)]
pub struct PacketFilter {
    inits: u32,
    sack: Option<Sack>,
    /// Number of chunks that SCTP has released; comparable with [`Sack::accepted`].
    released: u32,
    /// Upper bound of the bytes that SCTP holds.
    bytes: u32,
}

/// The chunks that SCTP has acknowledged.
#[derive(Debug, Clone, Copy)]
struct Sack {
    /// The number of the last chunk without a gap before it.
    cumulative: u32,
    /// The highest number that SCTP has.
    highest: u32,
    /// The value of `cumulative` if all chunks that SCTP has were without a gap.
    accepted: u32,
}

impl PacketFilter {
    /// Whether SCTP may see a packet of the peer.
    pub fn admit(&mut self, packet: &[u8]) -> bool {
        if packet.len() > MAX_PACKET {
            return false;
        }
        let (mut length, mut bytes) = (PACKET_HEADER, 0);
        for chunk in chunks(packet) {
            if !self.admits(&chunk) {
                return false;
            }
            if chunk.kind == DATA {
                bytes += chunk.value.len().saturating_sub(DATA_HEADER);
            }
            length = (length + CHUNK_HEADER + chunk.value.len()).next_multiple_of(4);
        }
        // The rest is not a chunk. The last chunk may lack its padding.
        let is_whole = packet.len() <= length;
        if is_whole {
            self.bytes = self.bytes.saturating_add(number(bytes));
        }
        is_whole
    }

    fn admits(&mut self, chunk: &Chunk<'_>) -> bool {
        let is_whole = understood(chunk).is_some_and(|length| {
            length.next_multiple_of(4) == chunk.value.len().next_multiple_of(4)
        });
        is_whole && self.has_room_for_chunk(chunk)
    }

    fn has_room_for_chunk(&mut self, chunk: &Chunk<'_>) -> bool {
        match chunk.kind {
            DATA => {
                let (tsn, has_bytes) = (u32_at(chunk.value, 0), chunk.value.len() > DATA_HEADER);
                has_bytes && tsn.is_some_and(|tsn| self.has_room_for(tsn))
            }
            INIT if self.inits >= MAX_INITS => false,
            INIT => {
                self.inits += 1;
                true
            }
            SACK => has_gaps_in_order(chunk.value),
            _ => true,
        }
    }

    fn has_room_for(&self, tsn: u32) -> bool {
        let Some(sack) = self.sack else {
            return true;
        };
        let fills_gap =
            tsn.wrapping_sub(sack.cumulative) <= sack.highest.wrapping_sub(sack.cumulative);
        let most = if fills_gap {
            MAX_HELD_WITH_GAPS
        } else {
            MAX_HELD
        };
        self.held(sack) < most
    }

    /// Returns the number of acknowledged chunks that SCTP holds.
    fn held(&self, sack: Sack) -> u32 {
        let held = sack.accepted.wrapping_sub(self.released);
        // Negative if chunks were read before they were acknowledged.
        match held > u32::MAX / 2 {
            true => 0,
            false => held,
        }
    }

    /// Whether SCTP, with a receive buffer of `buffer` bytes, takes no new data from the peer until
    /// some has been read.
    pub fn are_full(&self, buffer: u32) -> bool {
        let chunks = self.sack.map_or(0, |sack| self.held(sack));
        chunks >= MAX_HELD || self.bytes.saturating_add(number(MAX_PACKET)) > buffer
    }

    /// Processes a packet that SCTP sends. Its receive buffer is empty if it offers `buffer` bytes.
    pub fn sent(&mut self, packet: &[u8], buffer: u32) {
        for chunk in chunks(packet).filter(|chunk| chunk.kind == SACK) {
            let (Some(cumulative), Some(window)) = (u32_at(chunk.value, 0), u32_at(chunk.value, 4))
            else {
                continue;
            };
            let mut sack = Sack {
                cumulative,
                highest: cumulative,
                accepted: cumulative,
            };
            for (start, end) in gaps(chunk.value) {
                let count = u32::from(end)
                    .wrapping_sub(u32::from(start))
                    .wrapping_add(1);
                sack.accepted = sack.accepted.wrapping_add(count);
                sack.highest = cumulative.wrapping_add(u32::from(end));
            }
            // Once nothing is held, this covers chunks that were dropped with their stream.
            if window >= buffer || self.sack.is_none() {
                self.released = sack.accepted;
            }
            self.sack = Some(sack);
            self.bytes = buffer.saturating_sub(window);
        }
    }

    /// Notes that a message of this many chunks and bytes was read from SCTP.
    pub fn read(&mut self, chunks: usize, bytes: usize) {
        self.released = self.released.wrapping_add(number(chunks));
        self.bytes = self.bytes.saturating_sub(number(bytes));
        // Chunks that the peer has skipped (RFC 3758) were acknowledged and are never read. SCTP
        // would report an empty buffer only after another chunk, which it would not get here.
        if let Some(sack) = self.sack.filter(|_| self.bytes == 0) {
            self.released = self.released.wrapping_add(self.held(sack));
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Returns the first and last number of each gap block of a SACK, relative to its cumulative
/// number.
fn gaps(sack: &[u8]) -> impl Iterator<Item = (u16, u16)> + '_ {
    let count = usize::from(u16_at(sack, 8).unwrap_or(0));
    (0..count).map_while(|index| {
        let at = 12 + 4 * index;
        Some((u16_at(sack, at)?, u16_at(sack, at + 2)?))
    })
}

/// Whether the blocks are in order (RFC 9260, section 3.3.4), so that SCTP takes no more steps than
/// it has chunks in flight.
fn has_gaps_in_order(sack: &[u8]) -> bool {
    let mut last = 0;
    gaps(sack).all(|(start, end)| {
        let is_next = last < start && start <= end;
        last = end;
        is_next
    })
}

/// Returns how many bytes of a chunk's value rtc-sctp understands; `None` if it refuses the packet,
/// or would panic.
fn understood(chunk: &Chunk<'_>) -> Option<usize> {
    let value = chunk.value;
    match chunk.kind {
        DATA | COOKIE_ECHO | FORWARD_TSN => Some(value.len()),
        INIT | INIT_ACK => {
            let (mut at, mut length) = (16, 16);
            // It does not look at the last four bytes.
            while at + 4 < value.len() {
                length = at + parameter_length(value, at)?;
                at = length.next_multiple_of(4);
            }
            Some(length)
        }
        SACK => {
            let (gaps, duplicates) = (u16_at(value, 8)?, u16_at(value, 10)?);
            Some(12 + 4 * (usize::from(gaps) + usize::from(duplicates)))
        }
        HEARTBEAT => parameter_length(value, 0),
        RECONFIG => {
            let first = parameter_length(value, 0)?;
            let second = first.next_multiple_of(4);
            if second >= value.len() {
                return Some(first);
            }
            Some(second + parameter_length(value, second)?)
        }
        ABORT | ERROR => {
            let mut at = 0;
            // It assumes that causes have no padding.
            while at + 4 <= value.len() {
                let length = usize::from(u16_at(value, at + 2)?);
                value
                    .get(at..at + length)
                    .filter(|cause| cause.len() >= 4)?;
                at += length;
            }
            Some(at)
        }
        SHUTDOWN => Some(4),
        SHUTDOWN_ACK | SHUTDOWN_COMPLETE | COOKIE_ACK => Some(0),
        _ => None,
    }
}

/// Returns the length of a parameter with its header, if rtc-sctp takes it for as long as it is.
fn parameter_length(value: &[u8], at: usize) -> Option<usize> {
    let (kind, length) = (u16_at(value, at)?, usize::from(u16_at(value, at + 2)?));
    value.get(at..at + length)?;
    let is_fine = match kind {
        FORWARD_TSN_SUPPORTED => length == 4,
        REQUESTED_HMAC | REQUEST => length.is_multiple_of(2),
        RESPONSE => length == 12,
        _ => true,
    };
    (is_fine && length >= 4).then_some(length)
}

#[cfg(test)]
mod tests;
