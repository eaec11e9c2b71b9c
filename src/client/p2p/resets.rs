//! Stream resets (RFC 6525), with which channels end, in a way that every peer supports
//! (docs/p2p.md, "Channels").
//!
//! rtc-sctp sends a reset as soon as it is requested: several at a time, repeated in any order,
//! with "in progress" taken for done; its answer to a peer's reset overtakes data that still waits
//! on that stream, and is not sent at all if the peer's had to wait. Chromium's SCTP handles one
//! reset at a time, so some of its channels would never end, and data behind a reset would be kept
//! for ever, or for the next channel of that number. Once a reset is requested, rtc-sctp also reads
//! no more and makes the peer's reset wait for that. So it is never given one: its own requests are
//! removed from the packets to the peer, and this module sends others, one at a time, each when all
//! data of its streams has been sent and acknowledged.
//!
//! The filter also bounds how far a peer skips data that it has given up (RFC 3758): rtc-sctp takes
//! a step for each number, and a peer could make it take two billion.

use crate::collections::HashMap;
use crate::wire::{u16_at, u32_at};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::{Duration, Instant};

/// Type of a DATA chunk (RFC 9260, section 3.2).
pub const DATA: u8 = 0;
/// Type of a SACK chunk (RFC 9260, section 3.2).
pub const SACK: u8 = 3;
/// Type of a RE-CONFIG chunk (RFC 6525, section 3.1).
pub const RECONFIG: u8 = 130;
/// Type of a FORWARD TSN chunk (RFC 3758, section 3.2).
pub const FORWARD_TSN: u8 = 192;
/// The flag of a message's last fragment.
const LAST_PIECE: u8 = 1;
/// Type of an Outgoing SSN Reset Request parameter (RFC 6525, section 4.1).
pub const REQUEST: u16 = 13;
/// Type of a Re-configuration Response parameter (RFC 6525, section 4.4).
pub const RESPONSE: u16 = 16;
/// Result codes (RFC 6525, section 4.4).
const PERFORMED: u32 = 1;
const IN_PROGRESS: u32 = 6;
/// Length in bytes of a packet's header: ports, tag and checksum.
const HEADER: usize = 12;
/// Time without a response after which a request is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of streams that wait for their reset: twice the maximum number of channels.
const MAX_WAITING: usize = 512;
/// Maximum number of the peer's requests in progress.
const MAX_DEFERRED: usize = 32;
/// Maximum number of DATA chunks that a peer may skip at a time: more than it could have in flight.
const MAX_SKIPPED: u32 = 16 * 1024;

/// The stream resets of one association.
#[derive(Default)]
pub struct StreamResets {
    /// Number of messages of each stream that SCTP has not sent for the first time.
    unsent: HashMap<u16, u32>,
    /// The highest DATA number that was sent.
    sent: Option<u32>,
    /// The highest DATA number without a gap that the peer has acknowledged.
    acknowledged: Option<u32>,
    /// The highest DATA number without a gap that SCTP has acknowledged.
    received: Option<u32>,
    waiting: Vec<u16>,
    request: Option<ResetRequest>,
    /// The number of the next request.
    number: Option<u32>,
    /// The number of the peer's last request.
    heard: u32,
    /// Streams that this end has ended and the peer has not.
    ended: Vec<u16>,
    /// The peer's requests without a final response.
    deferred: Vec<u32>,
    /// Ports and tag of packets to the peer.
    outward: [u8; 8],
    /// Ports and tag of packets from the peer.
    inward: [u8; 8],
}

struct ResetRequest {
    number: u32,
    streams: Vec<u16>,
    /// The last DATA of its streams, or a later one.
    last: u32,
    /// The packet, and when it is sent again; `None` while some data is not acknowledged.
    packet: Option<(Bytes, Instant)>,
}

/// The fate of a packet that SCTP sends.
#[derive(Debug, PartialEq, Eq)]
pub enum OutgoingReset {
    /// The packet is sent.
    Pass,
    /// The packet is not sent; SCTP gets this response.
    Answered(Bytes),
}

impl StreamResets {
    /// Notes that SCTP was given a message for a stream.
    pub fn written(&mut self, stream: u16) {
        let unsent = self.unsent.entry(stream).or_default();
        *unsent = unsent.saturating_add(1);
    }

    /// Notes that this end has ended a stream.
    pub fn end(&mut self, stream: u16) {
        if !self.ended.contains(&stream) {
            self.ended.push(stream);
            self.waiting.push(stream);
        }
    }

    /// Notes that the peer has ended a stream; the answer is a reset of this end's direction.
    pub fn ended(&mut self, stream: u16) {
        match self.ended.iter().position(|ended| *ended == stream) {
            Some(at) => drop(self.ended.swap_remove(at)),
            None => self.waiting.push(stream),
        }
    }

    /// Whether more resets wait than a peer that answers them could leave.
    pub fn is_too_much(&self) -> bool {
        self.waiting.len() > MAX_WAITING
    }

    /// Processes a packet from SCTP to the peer.
    pub fn outgoing(&mut self, packet: &[u8]) -> OutgoingReset {
        if let Some(head) = packet.first_chunk() {
            self.outward = *head;
        }
        for chunk in chunks(packet) {
            match chunk.kind {
                DATA => self.count(&chunk),
                SACK => self.received = u32_at(chunk.value, 0).or(self.received),
                RECONFIG => match parameter(chunk.value) {
                    Some((REQUEST, value)) => return self.answer(value),
                    Some((RESPONSE, value)) => self.answered(value),
                    _ => {}
                },
                _ => {}
            }
        }
        OutgoingReset::Pass
    }

    fn count(&mut self, chunk: &Chunk<'_>) {
        let (Some(number), Some(stream)) = (u32_at(chunk.value, 0), u16_at(chunk.value, 4)) else {
            return;
        };
        if self.sent.is_some_and(|sent| !is_after(number, sent)) {
            return;
        }
        // Request numbers begin with the first DATA number (RFC 6525, section 4.1).
        self.number.get_or_insert(number);
        self.sent = Some(number);
        if chunk.flags & LAST_PIECE != 0 {
            if let Some(unsent) = self.unsent.get_mut(&stream) {
                *unsent = unsent.saturating_sub(1);
                if *unsent == 0 {
                    self.unsent.remove(&stream);
                }
            }
        }
    }

    fn answer(&self, value: &[u8]) -> OutgoingReset {
        let Some(number) = u32_at(value, 0) else {
            return OutgoingReset::Pass;
        };
        let mut response = BytesMut::new();
        response.put_u32(number);
        response.put_u32(PERFORMED);
        OutgoingReset::Answered(reconfig(&self.inward, RESPONSE, &response))
    }

    /// Notes that SCTP has answered a request of the peer.
    fn answered(&mut self, value: &[u8]) {
        let (number, result) = (u32_at(value, 0), u32_at(value, 4));
        if result != Some(IN_PROGRESS) {
            self.deferred.retain(|asked| Some(*asked) != number);
        }
    }

    /// Processes a packet from the peer to SCTP; false if SCTP must not see it.
    pub fn incoming(&mut self, packet: &[u8]) -> bool {
        if let Some(head) = packet.first_chunk() {
            self.inward = *head;
        }
        for chunk in chunks(packet) {
            match chunk.kind {
                SACK => {
                    let number = u32_at(chunk.value, 0);
                    let is_new = |number| self.acknowledged.is_none_or(|it| is_after(number, it));
                    self.acknowledged = number.filter(|n| is_new(*n)).or(self.acknowledged);
                }
                FORWARD_TSN if self.skips_too_much(chunk.value) => return false,
                RECONFIG => {
                    // There may be a second parameter.
                    let mut rest = chunk.value;
                    while let Some((kind, value)) = parameter(rest) {
                        if !self.hear(kind, value) {
                            return false;
                        }
                        let length = (value.len() + 4).next_multiple_of(4);
                        rest = rest.get(length..).unwrap_or_default();
                    }
                }
                _ => {}
            }
        }
        true
    }

    /// Whether the peer skips too far. Before any DATA was received there is nothing to skip; a
    /// peer that skips then repeats it.
    fn skips_too_much(&self, value: &[u8]) -> bool {
        let Some(number) = u32_at(value, 0) else {
            return false;
        };
        self.received.is_none_or(|received| {
            is_after(number, received) && number.wrapping_sub(received) > MAX_SKIPPED
        })
    }

    fn hear(&mut self, kind: u16, value: &[u8]) -> bool {
        let Some(number) = u32_at(value, 0) else {
            return true;
        };
        match kind {
            REQUEST if !self.deferred.contains(&number) => {
                if self.deferred.len() >= MAX_DEFERRED {
                    // The peer repeats it.
                    return false;
                }
                self.heard = number;
                self.deferred.push(number);
            }
            RESPONSE => {
                // The result does not matter: "not there yet" is no longer possible.
                let is_it = |it: &mut ResetRequest| it.number == number && it.packet.is_some();
                self.request.take_if(is_it);
            }
            _ => {}
        }
        true
    }

    /// Returns the packet to send to the peer now, if any.
    pub fn release(&mut self, now: Instant) -> Option<Bytes> {
        if self.request.is_none() {
            self.begin();
        }
        let request = self.request.as_mut()?;
        if let Some((packet, again)) = &mut request.packet {
            if *again > now {
                return None;
            }
            *again = now + RETRY_AFTER;
            return Some(packet.clone());
        }
        if self
            .acknowledged
            .is_none_or(|it| is_after(request.last, it))
        {
            return None;
        }
        let mut value = BytesMut::new();
        value.put_u32(request.number);
        value.put_u32(self.heard);
        value.put_u32(request.last);
        for stream in &request.streams {
            value.put_u16(*stream);
        }
        let packet = reconfig(&self.outward, REQUEST, &value);
        request.packet = Some((packet.clone(), now + RETRY_AFTER));
        Some(packet)
    }

    /// Starts a request for all streams that have nothing more to send.
    fn begin(&mut self) {
        // Every channel begins with a message of one end.
        let (Some(number), Some(last)) = (self.number, self.sent) else {
            return;
        };
        let unsent = &self.unsent;
        let (waiting, streams): (Vec<_>, Vec<_>) =
            self.waiting.iter().partition(|it| unsent.contains_key(it));
        if streams.is_empty() {
            return;
        }
        self.waiting = waiting;
        self.number = Some(number.wrapping_add(1));
        self.request = Some(ResetRequest {
            number,
            streams,
            last,
            packet: None,
        });
    }

    /// Returns when [`StreamResets::release`] is due without another event.
    pub fn deadline(&self) -> Option<Instant> {
        let packet = self.request.as_ref()?.packet.as_ref();
        packet.map(|(_, again)| *again)
    }

    /// Returns the number of streams that have not been reset.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.request.is_some())
    }
}

/// A chunk of a packet (RFC 9260, section 3.2).
pub struct Chunk<'a> {
    /// The type.
    pub kind: u8,
    flags: u8,
    /// The value, without padding.
    pub value: &'a [u8],
}

/// Iterates over the chunks of a packet, up to the first that is truncated.
pub fn chunks(packet: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = packet.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[kind, flags, a, b], _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([a, b]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Chunk { kind, flags, value })
    })
}

/// Returns the type and value of the first parameter.
pub fn parameter(value: &[u8]) -> Option<(u16, &[u8])> {
    let (kind, length) = (u16_at(value, 0)?, u16_at(value, 2)?);
    Some((kind, value.get(4..usize::from(length))?))
}

/// Builds a packet with one parameter.
fn reconfig(head: &[u8; 8], kind: u16, value: &[u8]) -> Bytes {
    let length = |more: usize| u16::try_from(value.len() + more).unwrap_or(u16::MAX);
    let mut packet = BytesMut::with_capacity(HEADER + 8 + value.len() + 2);
    packet.put_slice(head);
    packet.put_u32(0);
    packet.put_slice(&[RECONFIG, 0]);
    packet.put_u16(length(8));
    packet.put_u16(kind);
    packet.put_u16(length(4));
    packet.put_slice(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let sum = crc32c::crc32c(&packet).to_le_bytes();
    if let Some(place) = packet.get_mut(8..HEADER) {
        place.copy_from_slice(&sum);
    }
    packet.freeze()
}

/// Whether a serial number follows another one (RFC 1982).
fn is_after(number: u32, other: u32) -> bool {
    (1..1 << 31).contains(&number.wrapping_sub(other))
}

#[cfg(test)]
mod tests;
