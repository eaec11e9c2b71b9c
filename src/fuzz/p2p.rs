//! Fuzz entries for signaling, and for a peer's packets.

use super::{Pace, Source};
use crate::client::p2p::identity::DtlsRole;
use crate::client::p2p::message::{MessageReader, SignalingMessage, MAX_MESSAGE};
use crate::client::p2p::nat_kind::NatAddress;
use crate::client::p2p::resets::{
    chunks, parameter, OutgoingReset, StreamResets, RECONFIG, REQUEST, RESPONSE,
};
use crate::client::p2p::sdp::{Description, LocalDescription};
use crate::client::p2p::signaling::{read_to_end_of_head, SignalingRequest};
use crate::net::clock;
use crate::wire::u32_at;
use futures_lite::future::block_on;
use std::time::Duration;

/// Parses the part of a signaling request behind `XP `; also a body, and a description alone.
pub fn signaling(data: &[u8]) {
    // Whether longer inputs exceed a reader's limit depends on how they are cut.
    if data.len() > MAX_MESSAGE {
        return;
    }
    let request = [b"XP ", data].concat();
    same(data, |pace| whole_request(&request, pace));
    same(data, |pace| body(data, pace));
    describe(&String::from_utf8_lossy(data));
}

/// The parsed messages, and whether an error follows them.
type Heard = (Vec<SignalingMessage>, bool);

fn same(data: &[u8], hear: impl Fn(Pace) -> Heard) {
    let (messages, wrong) = hear(Pace::Whole);
    for pace in Pace::split(data) {
        let (more, also_wrong) = hear(pace);
        // Messages that come together with an error are not returned.
        assert!(more.starts_with(&messages), "{pace:?}");
        assert_eq!(also_wrong, wrong, "{pace:?}");
        assert!(wrong || more == messages, "{pace:?}");
    }
    for message in messages {
        match &message {
            SignalingMessage::Offer(sdp) | SignalingMessage::Answer(sdp) => describe(sdp),
            SignalingMessage::Candidate(candidate) => tell_nat(candidate),
        }
        let bytes = message.write();
        if bytes.len() <= MAX_MESSAGE {
            let mut reader = MessageReader::default();
            assert!(reader.feed(&bytes));
            assert_eq!(reader.next(), Some(Ok(message)));
            assert_eq!(reader.next(), None);
        }
    }
}

/// Checks that the NAT of a candidate is one that gt would tell.
fn tell_nat(candidate: &str) {
    let Some(nat) = NatAddress::parse(candidate) else {
        return;
    };
    let (ip, port) = (nat.addr.ip(), nat.addr.port());
    let told = format!(
        "candidate:s0 1 udp 1 {ip} {port} typ srflx {}",
        nat.attribute()
    );
    assert_eq!(NatAddress::parse(&told), Some(nat));
}

fn whole_request(bytes: &[u8], pace: Pace) -> Heard {
    let mut source = Source::new(bytes, pace);
    let mut messages = Vec::new();
    let hearing = async {
        let mut head = Vec::new();
        read_to_end_of_head(&mut source, &mut head).await.ok()?;
        let mut request = SignalingRequest::parse(&head)?;
        let mut reader = MessageReader::default();
        while let Some(message) = request.next(&mut source, &mut reader).await.ok()? {
            messages.push(message);
        }
        Some(())
    };
    let wrong = block_on(hearing).is_none();
    (messages, wrong)
}

fn body(bytes: &[u8], pace: Pace) -> Heard {
    let mut source = Source::new(bytes, pace);
    let mut reader = MessageReader::default();
    let mut messages = Vec::new();
    let mut piece = [0; 2048];
    loop {
        let count = source.take(&mut piece);
        if count == 0 {
            return (messages, false);
        }
        if !reader.feed(&piece[..count]) {
            return (messages, true);
        }
        while let Some(next) = reader.next() {
            match next {
                Ok(message) => messages.push(message),
                Err(()) => return (messages, true),
            }
        }
    }
}

/// Checks that the answer to a description is a description itself, of this end only, and fits a
/// message.
fn describe(sdp: &str) {
    let Ok(theirs) = Description::parse(sdp) else {
        return;
    };
    assert!(theirs.candidates.len() <= 32);
    let ours = LocalDescription {
        ufrag: "ours",
        pwd: "ours-and-longer",
        fingerprint: "AA:BB",
        quic: true,
    };
    for side in [DtlsRole::Client, DtlsRole::Server] {
        let answer = theirs.answer(&ours, side);
        assert!(answer.len() < MAX_MESSAGE / 2);
        let said = Description::parse(&answer).expect("a description");
        assert_eq!(
            (&*said.ufrag, &*said.pwd, &*said.fingerprint),
            (ours.ufrag, ours.pwd, ours.fingerprint)
        );
        assert!(said.candidates.is_empty());
    }
}

/// Feeds SCTP packets of both ends to the stream resets: the input is a script of steps, each a
/// kind and a byte, for some kinds with a packet of that many bytes behind them.
pub fn resets(data: &[u8]) {
    let packet_length = data.len();
    let length: usize = chunks(data).map(|chunk| chunk.value.len() + 4).sum();
    assert!(length <= packet_length.saturating_sub(12) || length == 0);

    let mut resets = StreamResets::default();
    let mut now = clock::now();
    // The last request, while nothing can have answered it.
    let mut asked: Option<Vec<u8>> = None;
    let mut rest = data;
    while let [kind, byte, after @ ..] = rest {
        rest = after;
        let stream = u16::from(*byte);
        let (packet, behind) = after.split_at(after.len().min(usize::from(*byte)));
        match kind % 6 {
            0 => resets.written(stream),
            1 => resets.end(stream),
            2 => resets.ended(stream),
            3 => {
                rest = behind;
                if let OutgoingReset::Answered(answer) = resets.outgoing(packet) {
                    assert_eq!(only_parameter(&answer, RESPONSE).len(), 8);
                }
            }
            4 => {
                rest = behind;
                resets.incoming(packet);
                asked = None;
            }
            _ => now += Duration::from_millis(u64::from(*byte) * 16),
        }
        // The peer would be ended here.
        if resets.is_too_much() {
            return;
        }
        let Some(packet) = resets.release(now) else {
            continue;
        };
        let value = only_parameter(&packet, REQUEST);
        let streams = value.len().checked_sub(12).expect("three numbers");
        assert!((2..=2048).contains(&streams) && streams.is_multiple_of(2));
        assert!(resets.release(now).is_none(), "once at a time");
        assert!(resets.deadline().is_some_and(|again| again > now));
        // Only one request at a time, until it is answered.
        let packet = packet.to_vec();
        assert_eq!(*asked.get_or_insert_with(|| packet.clone()), packet);
    }
}

/// Returns the value of the only parameter of a packet of ours, which has to be of this kind.
fn only_parameter(packet: &[u8], wanted: u16) -> &[u8] {
    assert!(packet.len().is_multiple_of(4));
    let mut zeroed = packet.to_vec();
    zeroed[8..12].fill(0);
    assert_eq!(packet[8..12], crc32c::crc32c(&zeroed).to_le_bytes());
    let mut all = chunks(packet);
    let chunk = all.next().expect("a chunk");
    assert!(all.next().is_none());
    assert_eq!(chunk.kind, RECONFIG);
    let (kind, value) = parameter(chunk.value).expect("a parameter");
    assert_eq!(kind, wanted);
    assert!(u32_at(value, 0).is_some());
    value
}
