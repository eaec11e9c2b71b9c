//! A fuzz entry for the SCTP packets of a connected peer.

use crate::client::p2p::packets::PacketFilter;
use crate::client::p2p::peer::channels::accept;
use crate::client::p2p::peer::transport::transport;
use crate::client::p2p::peer::RECEIVE;
use crate::client::p2p::resets::{chunks, OutgoingReset, StreamResets};
use crate::net::clock;
use crate::wire::{u16_at, u32_at};
use bytes::Bytes;
use rtc_sctp::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, StreamEvent,
};
use rtc_shared::TransportProtocol;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
/// The peer's verification tag.
const TAG: u32 = 0x0102_0304;
const FIRST: u32 = u32::MAX - 2;

/// An association as in [`crate::client::p2p`], with its filters, and a peer that writes packets by
/// hand.
struct Ends {
    packets: PacketFilter,
    resets: StreamResets,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    now: Instant,
    /// The tag that the association expects, and its cookie.
    tag: u32,
    cookie: Vec<u8>,
    /// The last number that the association has sent.
    sent: u32,
    is_over: bool,
}

impl Ends {
    fn new() -> Self {
        let server = Arc::new(ServerConfig::new(transport()));
        let config = Arc::new(EndpointConfig::new());
        Self {
            packets: PacketFilter::default(),
            resets: StreamResets::default(),
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, config, Some(server)),
            association: None,
            now: clock::now(),
            tag: 0,
            cookie: Vec::new(),
            sent: 0,
            is_over: false,
        }
    }

    fn established() -> Self {
        let mut ends = Self::new();
        let mut init = TAG.to_be_bytes().to_vec();
        init.extend(65536_u32.to_be_bytes());
        init.extend([1, 0, 1, 0]);
        init.extend(FIRST.to_be_bytes());
        // Supported extensions: RECONFIG and FORWARD-TSN (RFC 5061, section 4.2.7).
        init.extend([0x80, 0x08, 0, 6, 130, 192]);
        ends.take(&packet(0, &chunk(1, 0, &init)));
        let cookie = chunk(10, 0, &ends.cookie);
        ends.take(&packet(ends.tag, &cookie));
        let is_up = |(_, it): &(_, Association)| !it.is_handshaking();
        assert!(ends.association.as_ref().is_some_and(is_up));
        ends
    }

    fn take(&mut self, packet: &[u8]) {
        if self.packets.admit(packet) && self.resets.incoming(packet) {
            self.deliver(Bytes::copy_from_slice(packet));
        }
        self.pump();
    }

    fn deliver(&mut self, packet: Bytes) {
        match self.endpoint.handle(self.now, PEER, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(new))) if self.association.is_none() => {
                self.association = Some((handle, new));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, it)) = self.association.as_mut().filter(|it| it.0 == handle) {
                    it.handle_event(event);
                }
            }
            _ => {}
        }
    }

    fn pump(&mut self) {
        let Some((handle, association)) = &mut self.association else {
            return;
        };
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id }) => {
                    read(
                        association,
                        &mut self.packets,
                        &mut self.resets,
                        id,
                        self.now,
                    );
                }
                Event::Stream(StreamEvent::Opened { .. }) => {
                    while association.accept_stream().is_some() {}
                    self.is_over |= association.stream_ids().len() > 1024;
                }
                Event::AssociationLost { id, .. } => self.resets.ended(id),
                _ => {}
            }
        }
        while let Some(event) = association.poll_endpoint_event() {
            self.endpoint.handle_event(*handle, event);
        }
        let mut responses = Vec::new();
        while let Some(transmit) = association.poll_transmit(self.now) {
            let Payload::RawEncode(out) = transmit.message else {
                continue;
            };
            for packet in out {
                self.packets.sent(&packet, RECEIVE);
                if let OutgoingReset::Answered(response) = self.resets.outgoing(&packet) {
                    responses.push(response);
                }
                for chunk in chunks(&packet) {
                    match chunk.kind {
                        // INIT ACK: its tag, and its only parameter before the extensions.
                        2 => {
                            self.tag = u32_at(chunk.value, 0).expect("a tag");
                            let length = usize::from(u16_at(chunk.value, 18).expect("a cookie"));
                            self.cookie = chunk.value[20..16 + length].to_vec();
                        }
                        0 => self.sent = u32_at(chunk.value, 0).expect("a number"),
                        _ => {}
                    }
                }
            }
        }
        self.is_over |= association.is_closed() && !association.is_handshaking();
        while self.resets.release(self.now).is_some() {}
        for response in responses {
            self.deliver(response);
        }
        self.is_over |= self.resets.is_too_much();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        if let Some((_, association)) = &mut self.association {
            if association.poll_timeout().is_some_and(|at| at <= self.now) {
                association.handle_timeout(self.now);
            }
        }
        self.pump();
    }
}

/// Reads the messages of a stream, the first of which opens a channel.
fn read(
    association: &mut Association,
    packets: &mut PacketFilter,
    resets: &mut StreamResets,
    id: u16,
    now: Instant,
) {
    // Some streams are never read, as part of the test.
    if id % 4 == 3 {
        return;
    }
    loop {
        let Ok(mut stream) = association.stream(id) else {
            return;
        };
        let Ok(Some(message)) = stream.read_sctp() else {
            return;
        };
        packets.read(message.chunks.len(), message.len());
        let Ok(bytes) = message.to_payload(65536) else {
            resets.end(id);
            return;
        };
        if message.ppi != PayloadProtocolIdentifier::Dcep {
            let _ = stream.write_with_ppi(now, &bytes, PayloadProtocolIdentifier::Binary);
            resets.written(id);
            continue;
        }
        let Some(mut channel) = accept(id, &bytes) else {
            continue;
        };
        use sansio::Protocol as _;
        while let Some(answer) = channel.poll_write() {
            let _ = stream.write_with_ppi(now, &answer.payload, answer.ppi);
            resets.written(id);
        }
    }
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let length = (value.len() + 4) as u16;
    let mut bytes = vec![kind, flags];
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Starts a packet with the header of this association.
fn packet(tag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x13, 0x88, 0x13, 0x88];
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(chunks);
    let sum = crc32c::crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// Feeds a peer's packets to an association: the input is a script of steps, each a kind and a
/// byte, most with bytes behind them.
pub fn sctp_chunks(data: &[u8]) {
    let (mut ends, mut rest) = match data {
        // Begin without an association.
        [0, rest @ ..] => (Ends::new(), rest),
        rest => (Ends::established(), rest),
    };
    let mut tsn = FIRST;
    let mut gathered: Vec<u8> = Vec::new();
    while let [kind, byte, after @ ..] = rest {
        rest = after;
        let (bytes, behind) = after.split_at(after.len().min(usize::from(*byte)));
        let flags = kind >> 4;
        match kind % 16 {
            // DATA in order, on one of a few streams.
            0..=4 => {
                rest = behind;
                gathered.extend(data_chunk(tsn, *kind, flags, bytes));
                tsn = tsn.wrapping_add(1);
            }
            // DATA out of order.
            5 => {
                rest = behind;
                let number = tsn.wrapping_add(u32::from(*byte)).wrapping_sub(8);
                gathered.extend(data_chunk(number, *kind, flags, bytes));
            }
            // A SACK of sent, old or future numbers, with gaps.
            6 | 7 => {
                rest = behind;
                let number = ends.sent.wrapping_add(u32::from(flags)).wrapping_sub(4);
                let mut value = number.to_be_bytes().to_vec();
                value.extend(u32::from(*byte).wrapping_mul(256).to_be_bytes());
                value.extend(((bytes.len() / 4) as u16).to_be_bytes());
                value.extend([0, 0]);
                value.extend(bytes);
                gathered.extend(chunk(3, 0, &value));
            }
            // RECONFIG: one or two parameters, with numbers near those in use.
            8 | 9 => {
                rest = behind;
                let mut value = vec![0, 13 + flags % 4, 0, 0];
                for number in [u32::from(flags), ends.sent, tsn.wrapping_sub(1)] {
                    value.extend(number.to_be_bytes());
                }
                value.extend(bytes);
                let length = (value.len() as u16).to_be_bytes();
                value[2..4].copy_from_slice(&length);
                gathered.extend(chunk(130, 0, &value));
            }
            // FORWARD-TSN.
            10 => {
                rest = behind;
                let skipped = tsn.wrapping_add(u32::from(flags));
                let mut value = skipped.to_be_bytes().to_vec();
                value.extend(bytes);
                gathered.extend(chunk(192, 0, &value));
                tsn = skipped.wrapping_add(1);
            }
            // Any chunk of any kind.
            11 => {
                rest = behind;
                let (kind, value) = bytes.split_first().unwrap_or((&6, &[]));
                gathered.extend(chunk(*kind, flags, value));
            }
            // Raw bytes.
            12 => {
                rest = behind;
                gathered.extend(bytes);
            }
            13 => ends.wait(Duration::from_millis(u64::from(*byte) * 40)),
            // Send the packet, now and then with another tag.
            14 if flags == 0 => {
                let tag = u32::from(*byte);
                ends.take(&packet(tag, &gathered));
                gathered.clear();
            }
            _ => {
                let tag = ends.tag;
                ends.take(&packet(tag, &gathered));
                gathered.clear();
            }
        }
        if ends.is_over {
            return;
        }
    }
    let tag = ends.tag;
    ends.take(&packet(tag, &gathered));
    ends.wait(Duration::from_secs(1));
}

fn data_chunk(tsn: u32, kind: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut value = tsn.to_be_bytes().to_vec();
    let stream = bytes.first().copied().unwrap_or(0);
    value.extend([0, stream % 8, 0, stream >> 4]);
    // DCEP, text, binary, and an unknown protocol.
    value.extend([0, 0, 0, 50 + kind % 5]);
    value.extend(bytes.get(1..).unwrap_or_default());
    chunk(0, flags, &value)
}
