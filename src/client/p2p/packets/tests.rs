use super::*;

const BUFFER: u32 = 512 * 1024;

fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + CHUNK_HEADER).unwrap();
    let mut bytes = vec![kind, 3];
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes
}

fn packet(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = vec![0; PACKET_HEADER];
    for chunk in chunks {
        packet.extend(chunk);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    packet
}

fn data(tsn: u32, bytes: usize) -> Vec<u8> {
    let mut value = tsn.to_be_bytes().to_vec();
    value.extend([0; 8]);
    value.resize(12 + bytes, 7);
    chunk(DATA, &value)
}

fn sack(cumulative: u32, window: u32, gaps: &[(u16, u16)]) -> Vec<u8> {
    let mut value = cumulative.to_be_bytes().to_vec();
    value.extend(window.to_be_bytes());
    value.extend(u16::try_from(gaps.len()).unwrap().to_be_bytes());
    value.extend([0, 0]);
    for (start, end) in gaps {
        value.extend(start.to_be_bytes());
        value.extend(end.to_be_bytes());
    }
    chunk(SACK, &value)
}

fn admits(packets: &mut PacketFilter, tsn: u32) -> bool {
    packets.admit(&packet(&[data(tsn, 1)]))
}

#[test]
fn packets_of_real_peers_pass() {
    let mut packets = PacketFilter::default();
    for chunks in [
        vec![chunk(INIT, &[1; 16])],
        vec![chunk(
            INIT,
            &[&[1; 16][..], &[0xC0, 0, 0, 4, 0x80, 8, 0, 6, 130, 192]].concat(),
        )],
        vec![chunk(HEARTBEAT, &[0, 1, 0, 6, 1, 2])],
        vec![chunk(SHUTDOWN, &[0; 4])],
        vec![chunk(COOKIE_ACK, &[]), data(1, 1)],
        vec![chunk(FORWARD_TSN, &[0; 8])],
        vec![chunk(10, &[1; 32]), data(1, 1000)],
        vec![sack(9, 1000, &[]), data(2, 5), data(3, 6)],
        vec![sack(9, 1000, &[(2, 2), (4, 700)])],
        vec![chunk(RECONFIG, &[0, 16, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1])],
        vec![chunk(
            RECONFIG,
            &[
                &[0, 13, 0, 18][..],
                &[1; 14],
                &[0, 0, 0, 16, 0, 12],
                &[1; 8],
            ]
            .concat(),
        )],
        vec![chunk(ABORT, &[])],
        vec![chunk(ABORT, &[0, 12, 0, 9, 1, 2, 3, 4, 5])],
        vec![chunk(ERROR, &[0, 12, 0, 4, 0, 6, 0, 8, 1, 2, 3, 4])],
        vec![],
    ] {
        let whole = packet(&chunks);
        assert!(packets.admit(&whole), "{chunks:?}");
    }
    // The last chunk may lack its padding.
    assert!(packets.admit(&packet(&[data(4, 5)])[..PACKET_HEADER + 21]));
}

#[test]
fn packets_that_sctp_does_not_validate_are_dropped() {
    let long = packet(&[data(1, MAX_PACKET)]);
    let trailing = [packet(&[data(1, 4)]), vec![0, 0, 0]].concat();
    let cut = packet(&[data(1, 400)])[..200].to_vec();
    for (what, packet) in [
        ("a packet longer than any", long),
        ("something that is no chunk", trailing),
        ("a chunk longer than the packet", cut),
        ("data without bytes", packet(&[data(1, 0)])),
        ("data without a header", packet(&[chunk(DATA, &[0; 3])])),
        ("a chunk of no kind", packet(&[chunk(77, &[0; 4])])),
        (
            "a chunk inside of one that has nothing",
            packet(&[chunk(COOKIE_ACK, &[9, 6, 0, 12, 6, 0, 12, 0])]),
        ),
        (
            "a chunk behind the end of a parameter",
            packet(&[chunk(HEARTBEAT, &[0, 1, 0, 4, 9, 6, 0, 8, 0, 0, 12, 0])]),
        ),
        (
            "a chunk in a response that is longer than it needs to be",
            packet(&[chunk(RECONFIG, &[&[0, 16, 0, 20][..], &[9; 16]].concat())]),
        ),
        (
            "a chunk behind the numbers of a SACK",
            packet(&[chunk(SACK, &[&[0; 12][..], &[9, 6, 0, 8]].concat())]),
        ),
        (
            "a chunk in a parameter without a value",
            packet(&[chunk(
                INIT,
                &[&[1; 16][..], &[0xC0, 0, 0, 12], &[9, 6, 0, 8, 0, 0, 12, 0]].concat(),
            )]),
        ),
        ("a long cause", packet(&[chunk(ABORT, &[0, 12, 0, 5])])),
        ("a short cause", packet(&[chunk(ERROR, &[0, 12, 0, 3])])),
        (
            "a long cause behind another",
            packet(&[chunk(ERROR, &[0, 1, 0, 4, 0, 1, 255, 255, 0])]),
        ),
        ("a repeated gap", packet(&[sack(1, 9, &[(2, 9), (2, 9)])])),
        (
            "a gap that overlaps",
            packet(&[sack(1, 9, &[(2, 9), (9, 10)])]),
        ),
        ("a gap from behind", packet(&[sack(1, 9, &[(5, 4)])])),
        ("a gap of nothing", packet(&[sack(1, 9, &[(0, 4)])])),
    ] {
        assert!(!PacketFilter::default().admit(&packet), "{what}");
    }
}

#[test]
fn the_number_of_inits_is_bounded() {
    let mut packets = PacketFilter::default();
    let init = packet(&[chunk(INIT, &[1; 16])]);
    assert_eq!((0..1000).filter(|_| packets.admit(&init)).count(), 16);
}

#[test]
fn unread_chunks_are_bounded_in_number() {
    let mut packets = PacketFilter::default();
    // The peer's numbers wrap on the way.
    let first = u32::MAX - 100;
    packets.sent(&packet(&[sack(first, BUFFER, &[])]), BUFFER);
    let mut tsn = first;
    while admits(&mut packets, tsn.wrapping_add(1)) {
        tsn = tsn.wrapping_add(1);
        packets.sent(&packet(&[sack(tsn, BUFFER - 1, &[])]), BUFFER);
    }
    assert_eq!(tsn.wrapping_sub(first), MAX_HELD);
    packets.read(10, 0);
    assert!(admits(&mut packets, tsn.wrapping_add(1)));
    // An empty buffer holds none of them, whether they were read or dropped with their stream.
    tsn = tsn.wrapping_add(500);
    packets.sent(&packet(&[sack(tsn, BUFFER - 1, &[])]), BUFFER);
    assert!(!admits(&mut packets, tsn.wrapping_add(1)));
    packets.sent(&packet(&[sack(tsn, BUFFER, &[])]), BUFFER);
    assert!(admits(&mut packets, tsn.wrapping_add(1)));
}

#[test]
fn a_chunk_that_fills_a_gap_is_admitted_beyond_the_limit() {
    let mut packets = PacketFilter::default();
    packets.sent(&packet(&[sack(100, BUFFER, &[])]), BUFFER);
    let gaps = [(2, 2049)];
    packets.sent(&packet(&[sack(100, BUFFER - 1, &gaps)]), BUFFER);
    assert!(!admits(&mut packets, 100 + 2050));
    assert!(admits(&mut packets, 101));
    // The number of gap fills is bounded, too.
    let gaps = [(3, 5000)];
    packets.sent(&packet(&[sack(100, BUFFER - 1, &gaps)]), BUFFER);
    assert!(!admits(&mut packets, 101));
}

#[test]
fn chunks_read_before_they_are_acknowledged_make_no_room() {
    let mut packets = PacketFilter::default();
    packets.sent(&packet(&[sack(100, BUFFER, &[])]), BUFFER);
    packets.read(50, 0);
    assert!(admits(&mut packets, 151));
    packets.sent(&packet(&[sack(150, BUFFER - 1, &[])]), BUFFER);
    assert!(admits(&mut packets, 151));
    packets.sent(
        &packet(&[sack(150 + MAX_HELD - 1, BUFFER - 1, &[])]),
        BUFFER,
    );
    assert!(admits(&mut packets, 150 + MAX_HELD));
    packets.sent(&packet(&[sack(150 + MAX_HELD, BUFFER - 1, &[])]), BUFFER);
    assert!(!admits(&mut packets, 150 + MAX_HELD + 1));
}

#[test]
fn skipped_chunks_count_until_everything_has_been_read() {
    let mut packets = PacketFilter::default();
    packets.sent(&packet(&[sack(100, BUFFER, &[])]), BUFFER);
    let last = 100 + MAX_HELD + 7;
    // Ten bytes are held; all other numbers were skipped.
    packets.sent(&packet(&[sack(last, BUFFER - 10, &[])]), BUFFER);
    assert!(!admits(&mut packets, last + 1));
    packets.read(1, 4);
    assert!(!admits(&mut packets, last + 1));
    packets.read(1, 6);
    assert!(admits(&mut packets, last + 1));
}

#[test]
fn unacknowledged_chunks_keep_held_ones_counted() {
    let mut packets = PacketFilter::default();
    packets.sent(&packet(&[sack(100, BUFFER, &[])]), BUFFER);
    let last = 100 + MAX_HELD;
    packets.sent(
        &packet(&[sack(last - 1, BUFFER - MAX_HELD + 1, &[])]),
        BUFFER,
    );
    // A chunk of another stream, larger than all that are held, is read at once.
    assert!(packets.admit(&packet(&[data(last, 1500)])));
    packets.read(1, 1500);
    packets.sent(&packet(&[sack(last, BUFFER - MAX_HELD + 1, &[])]), BUFFER);
    assert!(admits(&mut packets, last + 1));
    packets.sent(&packet(&[sack(last + 1, BUFFER - MAX_HELD, &[])]), BUFFER);
    assert!(!admits(&mut packets, last + 2));
}

#[test]
fn the_buffer_is_full_of_bytes_or_of_chunks() {
    let mut packets = PacketFilter::default();
    assert!(!packets.are_full(BUFFER));
    packets.sent(&packet(&[sack(100, BUFFER, &[])]), BUFFER);
    packets.sent(&packet(&[sack(101, 100, &[])]), BUFFER);
    assert!(packets.are_full(BUFFER));
    packets.read(1, 64 * 1024);
    assert!(!packets.are_full(BUFFER));
    packets.sent(
        &packet(&[sack(101 + MAX_HELD, BUFFER - MAX_HELD, &[])]),
        BUFFER,
    );
    assert!(packets.are_full(BUFFER));
    packets.read(1, 1);
    assert!(!packets.are_full(BUFFER));
}
