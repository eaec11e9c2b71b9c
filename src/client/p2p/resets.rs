//! Resets of streams (RFC 6525): how channels end, in a way that every peer follows.
//!
//! Our SCTP sends a reset as soon as it is asked for one: several at a time, repeated in any
//! order, "in progress" taken for done; the reset that answers a peer's goes before what still
//! waits to be sent on that stream, and not at all if the peer's had to wait. Chromium's SCTP takes
//! one after the other, so some of its channels would never end, and what comes after a reset it
//! would keep for good, or for the next channel of that number. And once asked, ours reads no more,
//! and has the peer's reset wait for that. So it is never asked: its own requests are taken off the
//! way to the peer, and said from here, one at a time, each when all of its streams has been sent
//! and acknowledged.
//!
//! What is seen here is also how far a peer skips what it has given up (RFC 3758): our SCTP takes
//! a step for each number, and a peer could have it take two thousand million.

use crate::wire::{u16_at, u32_at};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Chunks (RFC 9260, section 3.2; RFC 6525, section 3.1),
pub const DATA: u8 = 0;
pub const SACK: u8 = 3;
pub const RECONFIG: u8 = 130;
pub const FORWARD_TSN: u8 = 192;
/// the flag of a message's last piece,
const LAST_PIECE: u8 = 1;
/// and parameters (RFC 6525, section 4).
pub const REQUEST: u16 = 13;
pub const RESPONSE: u16 = 16;
/// Results of a reset (RFC 6525, section 4.4).
const PERFORMED: u32 = 1;
const IN_PROGRESS: u32 = 6;
/// Ports, tag and sum of a packet.
const HEADER: usize = 12;
/// After this time without a response it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Streams that wait for their reset: twice the channels that there may be.
const WAITING: usize = 512;
/// Requests of the peer that may be in progress.
const DEFERRED: usize = 32;
/// DATA that a peer may skip at a time: more than it could have on the way.
const SKIPPED: u32 = 16 * 1024;

#[derive(Default)]
pub struct StreamResets {
    /// Messages of a stream that SCTP has not sent for the first time.
    unsent: HashMap<u16, u32>,
    /// The highest number of DATA that was sent, and that the peer has with all before it.
    sent: Option<u32>,
    acknowledged: Option<u32>,
    /// Where SCTP has said that it has all of the peer's DATA up to.
    received: Option<u32>,
    waiting: Vec<u16>,
    request: Option<ResetRequest>,
    /// The next request's number.
    number: Option<u32>,
    /// The number of the peer's last request.
    heard: u32,
    /// Streams that we have ended and the peer has not.
    ended: Vec<u16>,
    /// The peer's requests that have had no final answer.
    deferred: Vec<u32>,
    /// Ports and tag of packets to the peer, and from it.
    outward: [u8; 8],
    inward: [u8; 8],
}

struct ResetRequest {
    number: u32,
    streams: Vec<u16>,
    /// The last DATA of theirs, or one after it.
    last: u32,
    /// What was sent, and when it is sent again; `None` while something is not acknowledged.
    packet: Option<(Bytes, Instant)>,
}

/// What becomes of a packet that SCTP sends.
#[derive(Debug, PartialEq, Eq)]
pub enum OutgoingReset {
    Pass,
    /// It does not go; SCTP is told that it has this response.
    Answered(Bytes),
}

impl StreamResets {
    /// SCTP has a message for a stream.
    pub fn written(&mut self, stream: u16) {
        let unsent = self.unsent.entry(stream).or_default();
        *unsent = unsent.saturating_add(1);
    }

    /// We say no more on a stream.
    pub fn end(&mut self, stream: u16) {
        if !self.ended.contains(&stream) {
            self.ended.push(stream);
            self.waiting.push(stream);
        }
    }

    /// The peer says no more on a stream, which is answered in kind.
    pub fn ended(&mut self, stream: u16) {
        match self.ended.iter().position(|ended| *ended == stream) {
            Some(at) => drop(self.ended.swap_remove(at)),
            None => self.waiting.push(stream),
        }
    }

    /// Whether the peer lets more resets wait than there could be.
    pub fn is_too_much(&self) -> bool {
        self.waiting.len() > WAITING
    }

    /// Looks at a packet on its way from SCTP to the peer.
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
        // Numbers of requests begin where those of DATA do (RFC 6525, section 4.1).
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

    /// SCTP has answered a request of the peer.
    fn answered(&mut self, value: &[u8]) {
        let (number, result) = (u32_at(value, 0), u32_at(value, 4));
        if result != Some(IN_PROGRESS) {
            self.deferred.retain(|asked| Some(*asked) != number);
        }
    }

    /// Looks at a packet on its way from the peer to SCTP; false if SCTP is not to have it.
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
                    // There may be a second one.
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

    /// Before anything was received there is nothing to skip; a peer that thinks so says it again.
    fn skips_too_much(&self, value: &[u8]) -> bool {
        let Some(number) = u32_at(value, 0) else {
            return false;
        };
        self.received.is_none_or(|received| {
            is_after(number, received) && number.wrapping_sub(received) > SKIPPED
        })
    }

    fn hear(&mut self, kind: u16, value: &[u8]) -> bool {
        let Some(number) = u32_at(value, 0) else {
            return true;
        };
        match kind {
            REQUEST if !self.deferred.contains(&number) => {
                if self.deferred.len() >= DEFERRED {
                    // It will be said again.
                    return false;
                }
                self.heard = number;
                self.deferred.push(number);
            }
            RESPONSE => {
                // Whatever it says: that something is not there yet is no answer any more.
                let is_it = |it: &mut ResetRequest| it.number == number && it.packet.is_some();
                self.request.take_if(is_it);
            }
            _ => {}
        }
        true
    }

    /// The packet that goes to the peer now, if one does.
    pub fn release(&mut self, now: Instant) -> Option<Bytes> {
        if self.request.is_none() {
            self.begin();
        }
        let request = self.request.as_mut()?;
        if let Some((packet, again)) = &mut request.packet {
            if *again > now {
                return None;
            }
            *again = now + AGAIN;
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
        request.packet = Some((packet.clone(), now + AGAIN));
        Some(packet)
    }

    /// Makes a request of all the streams that have nothing more to be sent.
    fn begin(&mut self) {
        // Every channel begins with a word of either end.
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

    /// When [`Resets::release`] has something although nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let packet = self.request.as_ref()?.packet.as_ref();
        packet.map(|(_, again)| *again)
    }

    /// Streams that have not been reset.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.request.is_some())
    }
}

pub struct Chunk<'a> {
    pub kind: u8,
    flags: u8,
    pub value: &'a [u8],
}

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

/// The kind and value of the first parameter.
pub fn parameter(value: &[u8]) -> Option<(u16, &[u8])> {
    let (kind, length) = (u16_at(value, 0)?, u16_at(value, 2)?);
    Some((kind, value.get(4..usize::from(length))?))
}

/// A packet with one parameter.
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

/// Whether a number comes after another one, in numbers that begin again (RFC 1982).
fn is_after(number: u32, other: u32) -> bool {
    (1..1 << 31).contains(&number.wrapping_sub(other))
}

#[cfg(test)]
mod tests;
