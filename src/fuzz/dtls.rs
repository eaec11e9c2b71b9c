//! Fuzz entries for bytes of a P2P peer before its handshake is over: DTLS records, and fragments
//! of handshake messages.

use super::seed;
use crate::client::p2p::identity::{DtlsRole, Identity};
use crate::client::p2p::records::RecordFilter;
use crate::net::clock;
use bytes::BytesMut;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_shared::TransportProtocol;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// The address that each end takes for the other's.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
/// The number of records that [`RecordFilter`] admits before the handshake is over.
const RECORDS: usize = 256;
const BYTES: usize = 64 * 1024;

pub(super) static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Identity::new().expect("an identity"));

/// One end of a connection, as in [`crate::client::p2p`]: a filter, and DTLS behind it.
struct End {
    records: RecordFilter,
    dtls: Endpoint,
    is_established: bool,
    /// Records and bytes that the filter has admitted.
    passed: (usize, usize),
}

impl End {
    fn new(side: DtlsRole, now: Instant) -> Self {
        let config = IDENTITY.handshake(side, &IDENTITY.fingerprint);
        let config = Arc::new(config.expect("a configuration"));
        let server = (side == DtlsRole::Server).then(|| config.clone());
        let mut dtls = Endpoint::new(PEER, TransportProtocol::UDP, server);
        if side == DtlsRole::Client {
            dtls.connect(now, PEER, config, None)
                .expect("a ClientHello");
        }
        Self {
            records: RecordFilter::default(),
            dtls,
            is_established: false,
            passed: (0, 0),
        }
    }

    /// Takes a datagram; returns whether the peer has ended the connection.
    fn take(&mut self, datagram: &[u8], now: Instant) -> bool {
        let admitted = self.records.admit(datagram);
        assert!(admitted.len() <= datagram.len());
        if !self.is_established {
            self.passed.0 += count(&admitted);
            self.passed.1 += admitted.len();
            assert!(self.passed.0 <= RECORDS && self.passed.1 <= BYTES);
        }
        if admitted.is_empty() {
            return false;
        }
        // What the filter admits together, it must admit again.
        assert_eq!(RecordFilter::default().admit(&admitted), admitted);
        let mut is_over = false;
        for event in self
            .dtls
            .read(now, PEER, None, admitted)
            .unwrap_or_default()
        {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.records.establish();
                    self.is_established = true;
                }
                EndpointEvent::PeerClosed => is_over = true,
                _ => {}
            }
        }
        is_over
    }

    fn sent(&mut self) -> Option<BytesMut> {
        Some(self.dtls.poll_transmit()?.message)
    }
}

/// Returns the number of records in a datagram.
fn count(mut datagram: &[u8]) -> usize {
    let mut count = 0;
    while let Some([a, b]) = datagram.get(11..13) {
        let length = usize::from(u16::from_be_bytes([*a, *b]));
        datagram = datagram.get(13 + length..).unwrap_or_default();
        count += 1;
    }
    count
}

/// Feeds datagrams to a DTLS client and to a DTLS server: each follows its length in two bytes. A
/// length of 0xFFFF stands for a second that passes.
pub fn dtls_records(data: &[u8]) {
    let mut now = clock::now();
    for side in [DtlsRole::Client, DtlsRole::Server] {
        let mut end = End::new(side, now);
        let mut rest = data;
        while let [a, b, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*a, *b]));
            if length == 0xFFFF {
                rest = after;
                now += Duration::from_secs(1);
                // Its handshake may have failed by then.
                let _ = end.dtls.handle_timeout(PEER, now);
            } else {
                let (datagram, behind) = after.split_at(length.min(after.len()));
                rest = behind;
                if end.take(datagram, now) {
                    break;
                }
            }
            while end.sent().is_some() {}
        }
    }
}

/// Runs a handshake of two ends through an attacker: the input is a script of two bytes for each
/// datagram in flight. After its end, everything passes.
pub fn handshake_fragments(data: &[u8]) {
    let now = clock::now();
    let mut ends = [
        End::new(DtlsRole::Client, now),
        End::new(DtlsRole::Server, now),
    ];
    let mut script = data;
    let mut was_disturbed = false;
    // A flight is at most eight datagrams.
    for step in 0..64 {
        let from = step % 2;
        let mut datagrams = Vec::new();
        while let Some(datagram) = ends[from].sent() {
            datagrams.push(datagram.to_vec());
        }
        let to = &mut ends[1 - from];
        for datagram in datagrams {
            let [kind, byte, rest @ ..] = script else {
                to.take(&datagram, now);
                continue;
            };
            script = rest;
            was_disturbed = true;
            for datagram in disturbed(datagram, *kind, *byte, &mut script) {
                if to.take(&datagram, now) {
                    return;
                }
            }
        }
    }
    assert!(was_disturbed || ends.iter().all(|end| end.is_established));
}

/// Returns the datagrams that the attacker sends in place of one.
fn disturbed(mut datagram: Vec<u8>, kind: u8, byte: u8, script: &mut &[u8]) -> Vec<Vec<u8>> {
    let at = usize::from(byte) * datagram.len() / 256;
    let mut some = |count: u8| {
        let (now, later) = script.split_at(script.len().min(usize::from(count)));
        *script = later;
        now.to_vec()
    };
    match kind % 10 {
        0 => vec![datagram],
        1 => vec![],
        2 => vec![datagram.clone(), datagram],
        3 => {
            if let Some(at) = datagram.get_mut(at) {
                *at ^= 1 << (kind >> 5);
            }
            vec![datagram]
        }
        4 => {
            datagram.truncate(at);
            vec![datagram]
        }
        // Every handshake message in fragments, in order or reversed.
        5 => {
            let mut pieces = fragmented(&datagram, usize::from(byte % 64) + 1);
            if byte & 64 != 0 {
                pieces.reverse();
            }
            pieces
        }
        // Overwrite bytes.
        6 => {
            let bytes = some(kind >> 4);
            let end = datagram.len().min(at + bytes.len());
            datagram.splice(at..end, bytes);
            vec![datagram]
        }
        // Put another record before it, with any header and content.
        7 => {
            let body = some(byte);
            let mut record = vec![
                20 + (kind >> 6),
                0xFE,
                0xFD,
                0,
                kind >> 5 & 1,
                0,
                0,
                0,
                0,
                9,
            ];
            record.push(byte);
            record.extend((body.len() as u16).to_be_bytes());
            record.extend(body);
            vec![record, datagram]
        }
        // Put a chain of fragments, with their bytes, before it.
        8 => {
            let sequence = u16::from(kind >> 4);
            let pieces = (0..byte).map(|offset| {
                let header = [1, 0, 0, byte, 0, sequence as u8, 0, 0, offset, 0, 0, 1, 7];
                record(u64::from(offset), &header)
            });
            pieces.rev().chain([datagram]).collect()
        }
        // Put a header of any values before it, with as many bytes as follow.
        _ => {
            let mut body = some(12);
            body.resize(12, 0);
            body.extend(some(byte));
            vec![record(seed(&body) % 1000, &body), datagram]
        }
    }
}

fn record(sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 0xFE, 0xFD, 0, 0];
    record.extend(&sequence.to_be_bytes()[2..]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Puts each record of a datagram into one of its own, and plaintext handshake messages into
/// fragments of `size` bytes, under unused numbers.
fn fragmented(datagram: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = datagram;
    while let Some([a, b]) = rest.get(11..13) {
        let end = 13 + usize::from(u16::from_be_bytes([*a, *b]));
        let (whole, behind) = rest.split_at(end.min(rest.len()));
        rest = behind;
        let (Some(header), Some(body)) = (whole.get(13..25), whole.get(25..)) else {
            pieces.push(whole.to_vec());
            continue;
        };
        if whole[0] != 22 || whole[4] != 0 || body.is_empty() || header[6..9] != [0, 0, 0] {
            pieces.push(whole.to_vec());
            continue;
        }
        for (index, piece) in body.chunks(size).enumerate() {
            let mut fragment = header.to_vec();
            fragment[6..9].copy_from_slice(&((index * size) as u32).to_be_bytes()[1..]);
            fragment[9..12].copy_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
            fragment.extend(piece);
            let sequence = u64::from(header[5]) * 4096 + 64 + index as u64;
            pieces.push(record(sequence, &fragment));
        }
    }
    pieces
}
