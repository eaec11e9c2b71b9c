//! Fuzz entry for the packets of flows between peers, and for labels.

use crate::client::p2p::label::{of_udp_port, ServiceLabel};
use crate::client::p2p::pieces::{is_piece, split, Assembler, Piece, MAX_DATAGRAM, MAX_PIECE};
use std::time::Instant;

/// Parses packets of flows, each preceded by its length as a byte; parses a label.
pub fn pieces(data: &[u8]) {
    let (mut assembler, now) = (Assembler::default(), Instant::now());
    let mut rest = data;
    while let Some((length, more)) = rest.split_first() {
        let (packet, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        let Some(piece) = Piece::parse(packet) else {
            continue;
        };
        assert!(is_piece(packet) && packet.len() <= MAX_PIECE + 8);
        assembler.add(&piece, now, |datagram| {
            assert!(datagram.len() <= MAX_DATAGRAM)
        });
    }
    drop(assembler);
    // What is sent comes back.
    let mut whole = None;
    let mut assembler = Assembler::default();
    split((1, 2), data, MAX_PIECE, |packet| {
        let piece = Piece::parse(packet).expect("its own packet");
        assembler.add(&piece, now, |datagram| whole = Some(datagram.to_vec()))
    });
    assert_eq!(
        whole.as_deref(),
        (data.len() <= MAX_DATAGRAM).then_some(data)
    );
    let label = String::from_utf8_lossy(data);
    if let ServiceLabel::UdpPort(port) = ServiceLabel::parse(&label) {
        assert_eq!(
            ServiceLabel::parse(&of_udp_port(port)),
            ServiceLabel::UdpPort(port)
        );
    }
}
