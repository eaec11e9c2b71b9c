use super::*;

const TO: [u8; 8] = *b"to there";
const FROM: [u8; 8] = *b"from the";
/// The first DATA, just before the numbers wrap.
const FIRST: u32 = u32::MAX - 1;

fn packet(head: [u8; 8], chunks: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut packet = [&head[..], &[0; 4]].concat();
    for (kind, flags, value) in chunks {
        let length = u16::try_from(value.len() + 4).unwrap();
        packet.extend([*kind, *flags]);
        packet.extend(length.to_be_bytes());
        packet.extend(value);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    packet
}

/// Builds DATA with an odd number of bytes.
fn data(number: u32, stream: u16, flags: u8) -> (u8, u8, Vec<u8>) {
    let mut value = number.to_be_bytes().to_vec();
    value.extend(stream.to_be_bytes());
    value.extend([0; 7]);
    (DATA, flags, value)
}

fn sack(number: u32) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.extend([0; 8]);
    packet(FROM, &[(SACK, 0, value)])
}

fn request(head: [u8; 8], number: u32, last: u32, streams: &[u16]) -> Vec<u8> {
    let mut value = Vec::new();
    for number in [number, 0, last] {
        value.extend(number.to_be_bytes());
    }
    value.extend(streams.iter().flat_map(|stream| stream.to_be_bytes()));
    reconfig(&head, REQUEST, &value).to_vec()
}

fn response(head: [u8; 8], number: u32, result: u32) -> Vec<u8> {
    let value = [number.to_be_bytes(), result.to_be_bytes()].concat();
    reconfig(&head, RESPONSE, &value).to_vec()
}

/// Parses a request: its number, the last DATA, and the streams.
fn said(packet: &[u8]) -> (u32, u32, Vec<u16>) {
    assert_eq!(packet[..8], TO);
    let mut zeroed = packet.to_vec();
    zeroed[8..12].fill(0);
    assert_eq!(packet[8..12], crc32c::crc32c(&zeroed).to_le_bytes());
    let mut all = chunks(packet);
    let chunk = all.next().unwrap();
    assert_eq!(chunk.kind, RECONFIG);
    assert!(all.next().is_none());
    let (kind, value) = parameter(chunk.value).unwrap();
    assert_eq!(kind, REQUEST);
    let number = |at| u32_at(value, at).unwrap();
    let (streams, rest) = value[12..].as_chunks();
    assert!(rest.is_empty());
    let streams = streams.iter().map(|pair| u16::from_be_bytes(*pair));
    (number(0), number(8), streams.collect())
}

/// Returns a filter with this many whole messages sent on streams 0, 1, 2, … in turn, and
/// acknowledged if `acknowledged`.
fn started(streams: u16, acknowledged: bool) -> StreamResets {
    let mut resets = StreamResets::default();
    for stream in 0..streams {
        resets.written(stream);
        let number = FIRST.wrapping_add(stream.into());
        let sent = packet(TO, &[data(number, stream, 3)]);
        assert_eq!(resets.outgoing(&sent), OutgoingReset::Pass);
    }
    let last = FIRST.wrapping_add(streams.into()).wrapping_sub(1);
    resets.incoming(&sack(if acknowledged {
        last
    } else {
        last.wrapping_sub(1)
    }));
    resets
}

#[test]
fn resets_are_sent_one_at_a_time_and_waiting_ones_are_combined() {
    let now = Instant::now();
    let mut resets = started(4, true);
    let last = FIRST.wrapping_add(3);
    resets.end(1);
    let first = resets.release(now).unwrap();
    assert_eq!(said(&first), (FIRST, last, vec![1]));
    // A reset that the peer has begun.
    resets.end(0);
    resets.ended(2);
    resets.end(3);
    resets.end(3);
    assert_eq!(resets.release(now), None);
    // No answer comes.
    assert_eq!(resets.deadline(), Some(now + RETRY_AFTER));
    assert_eq!(resets.release(now + RETRY_AFTER), Some(first));
    // The answer is for another request.
    assert!(resets.incoming(&response(FROM, FIRST + 1, PERFORMED)));
    assert_eq!(resets.release(now + RETRY_AFTER), None);
    assert!(resets.incoming(&response(FROM, FIRST, PERFORMED)));
    let second = resets.release(now).unwrap();
    assert_eq!(said(&second), (FIRST + 1, last, vec![0, 2, 3]));
    assert!(resets.incoming(&response(FROM, FIRST + 1, PERFORMED)));
    assert_eq!(resets.release(now), None);
    assert_eq!(resets.deadline(), None);
}

#[test]
fn a_reset_waits_for_all_of_its_stream_to_be_sent_and_acknowledged() {
    let now = Instant::now();
    let mut resets = started(2, false);
    resets.written(1);
    resets.written(1);
    resets.end(1);
    resets.end(0);
    // The other stream has nothing to send, but its data is not acknowledged.
    assert_eq!(resets.release(now), None);
    // One whole message, the beginning of another, and a repetition.
    let pieces = [
        data(0, 1, 3),
        data(1, 1, 2),
        data(FIRST + 1, 1, 3),
        data(0, 1, 3),
    ];
    assert_eq!(resets.outgoing(&packet(TO, &pieces)), OutgoingReset::Pass);
    resets.incoming(&sack(FIRST + 1));
    let first = resets.release(now).unwrap();
    assert_eq!(said(&first), (FIRST, FIRST + 1, vec![0]));
    resets.incoming(&response(FROM, FIRST, PERFORMED));
    assert_eq!(resets.release(now), None);
    // The end of the second message.
    let end = packet(TO, &[data(2, 1, 1)]);
    assert_eq!(resets.outgoing(&end), OutgoingReset::Pass);
    assert_eq!(resets.release(now), None);
    resets.incoming(&sack(1));
    // Data on other streams does not prolong the wait.
    let more = packet(TO, &[data(3, 7, 3)]);
    assert_eq!(resets.outgoing(&more), OutgoingReset::Pass);
    assert_eq!(resets.release(now), None);
    // A late, old acknowledgement.
    resets.incoming(&sack(0));
    assert_eq!(resets.release(now), None);
    resets.incoming(&sack(2));
    assert_eq!(said(&resets.release(now).unwrap()), (FIRST + 1, 2, vec![1]));
}

#[test]
fn a_stream_that_both_have_ended_is_not_reset_twice_but_its_next_channel_is() {
    let now = Instant::now();
    let mut resets = started(2, true);
    let last = FIRST + 1;
    resets.end(1);
    resets.release(now).unwrap();
    resets.incoming(&response(FROM, FIRST, PERFORMED));
    resets.ended(1);
    assert_eq!(resets.release(now), None);
    // Another channel of that number, which the peer ends.
    resets.ended(1);
    assert_eq!(
        said(&resets.release(now).unwrap()),
        (FIRST + 1, last, vec![1])
    );
}

#[test]
fn sctp_s_own_requests_are_not_sent_and_sctp_gets_a_response() {
    let mut resets = started(2, true);
    let asked = request(TO, 77, 0, &[1]);
    let answer = response(FROM, 77, PERFORMED);
    assert_eq!(
        resets.outgoing(&asked),
        OutgoingReset::Answered(answer.into())
    );
    assert_eq!(resets.release(Instant::now()), None);
    // Its responses are sent.
    let answer = response(TO, 78, PERFORMED);
    assert_eq!(resets.outgoing(&answer), OutgoingReset::Pass);
}

#[test]
fn waiting_resets_and_requests_are_bounded() {
    let mut resets = started(1, true);
    for stream in 0..=u16::try_from(MAX_WAITING).unwrap() {
        assert!(!resets.is_too_much());
        resets.ended(stream);
    }
    assert!(resets.is_too_much());

    let most = u32::try_from(MAX_DEFERRED).unwrap();
    for number in 0..most {
        assert!(resets.incoming(&request(FROM, number, 1 << 30, &[1])));
        let answer = response(TO, number, IN_PROGRESS);
        assert_eq!(resets.outgoing(&answer), OutgoingReset::Pass);
    }
    assert!(!resets.incoming(&request(FROM, most, 1 << 30, &[1])));
    // A repeated request is processed again.
    assert!(resets.incoming(&request(FROM, 3, 1 << 30, &[1])));
    resets.outgoing(&response(TO, 3, PERFORMED));
    assert!(resets.incoming(&request(FROM, most, 1 << 30, &[1])));
    assert!(resets.deferred.len() <= MAX_DEFERRED);
}

#[test]
fn malformed_packets_are_ignored() {
    let whole = [
        packet(TO, &[data(FIRST, 1, 3), data(FIRST + 1, 1, 3)]),
        sack(FIRST),
        request(FROM, 1, 2, &[3, 4, 5]),
        response(FROM, 1, PERFORMED),
    ];
    for packet in &whole {
        for end in 0..packet.len() {
            for at in 8..end {
                let mut packet = packet[..end].to_vec();
                for byte in [0, 1, 3, 130, 255] {
                    packet[at] = byte;
                    let mut resets = started(2, true);
                    let _ = resets.outgoing(&packet);
                    resets.incoming(&packet);
                    resets.release(Instant::now());
                }
            }
        }
    }
}

#[test]
fn a_peer_skips_no_more_than_could_be_in_flight() {
    let forward = |number: u32| packet(FROM, &[(FORWARD_TSN, 0, number.to_be_bytes().to_vec())]);
    let mut resets = StreamResets::default();
    assert!(!resets.incoming(&forward(1)), "nothing was received");
    let mut value = FIRST.to_be_bytes().to_vec();
    value.extend([0; 8]);
    resets.outgoing(&packet(TO, &[(SACK, 0, value)]));
    for (ahead, passes) in [
        (1, true),
        (MAX_SKIPPED, true),
        (MAX_SKIPPED + 1, false),
        ((1 << 31) - 1, false),
        // SCTP sees numbers in the past and answers them.
        (0, true),
        (u32::MAX, true),
    ] {
        let packet = forward(FIRST.wrapping_add(ahead));
        assert_eq!(resets.incoming(&packet), passes, "{ahead}");
    }
    let cut = packet(FROM, &[(FORWARD_TSN, 0, vec![0; 3])]);
    assert!(resets.incoming(&cut), "SCTP takes it for what it is");
}
