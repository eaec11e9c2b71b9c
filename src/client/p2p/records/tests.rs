use super::*;

/// Builds a fragment of a handshake message: header and as many bytes as it says.
fn fragment(sequence: u16, length: u32, offset: u32, fragment: u32) -> Vec<u8> {
    let mut bytes = header(sequence, length, offset, fragment);
    bytes.resize(bytes.len() + fragment as usize, 7);
    bytes
}

fn header(sequence: u16, length: u32, offset: u32, fragment: u32) -> Vec<u8> {
    [
        &[1][..],
        &length.to_be_bytes()[1..],
        &sequence.to_be_bytes(),
        &offset.to_be_bytes()[1..],
        &fragment.to_be_bytes()[1..],
    ]
    .concat()
}

fn record(content_type: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [
        &[content_type, 0xFE, 0xFD][..],
        &epoch.to_be_bytes(),
        &[0; 6],
        &length.to_be_bytes(),
        body,
    ]
    .concat()
}

fn hello() -> Vec<u8> {
    record(HANDSHAKE, 0, &fragment(0, 200, 0, 200))
}

fn established() -> RecordFilter {
    let mut records = RecordFilter::default();
    records.establish();
    records
}

/// Returns how many of these records pass.
fn passing(records: &mut RecordFilter, count: usize, record: &[u8]) -> usize {
    (0..count)
        .filter(|_| records.admit(record) == *record)
        .count()
}

#[test]
fn a_flight_passes_unchanged() {
    let whole = [fragment(1, 90, 0, 90), fragment(2, 0, 0, 0)].concat();
    let flight = [
        hello(),
        record(HANDSHAKE, 0, &whole),
        record(HANDSHAKE, 0, &fragment(3, 2000, 0, 1100)),
        record(HANDSHAKE, 0, &fragment(3, 2000, 1100, 900)),
        record(CHANGE_CIPHER_SPEC, 0, &[1]),
        record(HANDSHAKE, 1, &[9; 48]),
        record(APPLICATION_DATA, 1, &[9; 900]),
        record(ALERT, 0, &[1, 0]),
    ]
    .concat();
    assert_eq!(RecordFilter::default().admit(&flight), flight);
}

#[test]
fn only_the_bad_records_of_a_datagram_are_dropped() {
    let bad = record(HANDSHAKE, 0, &header(0, 200, 0, 200));
    let good = hello();
    let datagram = [&*good, &*bad, &*record(ALERT, 0, &[]), &*good].concat();
    let expected = [&*good, &*good].concat();
    assert_eq!(RecordFilter::default().admit(&datagram), expected);
    // A truncated record.
    let cut = [&*good, &good[..good.len() - 1]].concat();
    assert_eq!(RecordFilter::default().admit(&cut), good);
}

#[test]
fn fragments_that_do_not_fit_their_message_are_dropped() {
    let cases = [
        ("more than 32 KiB", fragment(0, 32 * 1024 + 1, 0, 100)),
        ("behind the end", fragment(0, 100, 90, 11)),
        ("offset at the end", fragment(0, 100, 100, 1)),
        ("sequence", fragment(17, 100, 0, 100)),
        ("no bytes", header(0, 0, 5, 1)),
        ("fewer bytes than it says", header(0, 100, 0, 1)),
        (
            "more bytes than it says",
            [fragment(0, 100, 0, 9), vec![0; 9]].concat(),
        ),
        (
            "a partial one before another",
            [fragment(0, 90, 0, 40), fragment(0, 90, 40, 50)].concat(),
        ),
        ("empty, of a message that is not", fragment(0, 100, 7, 0)),
        ("half a header", fragment(0, 0, 0, 0)[..11].to_vec()),
        (
            "a whole one before a bad one",
            [fragment(0, 9, 0, 9), fragment(17, 9, 0, 9)].concat(),
        ),
    ];
    for (what, body) in cases {
        let admitted = RecordFilter::default().admit(&record(HANDSHAKE, 0, &body));
        assert!(admitted.is_empty(), "{what}");
    }
    let longest = record(HANDSHAKE, 0, &fragment(16, 32 * 1024, 32 * 1024 - 9, 9));
    assert_eq!(RecordFilter::default().admit(&longest), longest);
}

#[test]
fn unauthenticated_records_that_dtls_would_act_on_are_dropped() {
    let cases = [
        ("plaintext data", record(APPLICATION_DATA, 0, &[1; 20])),
        (
            "a cipher change of no kind",
            record(CHANGE_CIPHER_SPEC, 0, &[2]),
        ),
        ("a long alert", record(ALERT, 0, &[2, 40, 0])),
        (
            "a cipher change in epoch 1",
            record(CHANGE_CIPHER_SPEC, 1, &[1]),
        ),
        ("epoch 2", record(APPLICATION_DATA, 2, &[1; 40])),
        ("epoch 65535", record(CHANGE_CIPHER_SPEC, 65535, &[1])),
        ("another content type", record(24, 0, &[1; 20])),
        ("a long encrypted message", record(HANDSHAKE, 1, &[1; 129])),
        ("a long encrypted alert", record(ALERT, 1, &[1; 129])),
        ("another version", {
            let mut record = hello();
            record[2] = 0xFC;
            record
        }),
    ];
    for (what, record) in cases {
        assert!(RecordFilter::default().admit(&record).is_empty(), "{what}");
        assert!(established().admit(&record).is_empty(), "{what}, later");
    }
}

#[test]
fn before_the_handshake_is_over_records_and_bytes_are_bounded() {
    let small = record(APPLICATION_DATA, 1, &[0]);
    assert_eq!(passing(&mut RecordFilter::default(), 1000, &small), 256);
    let large = record(APPLICATION_DATA, 1, &[0; 1387]);
    assert_eq!(passing(&mut RecordFilter::default(), 1000, &large), 46);
    // Fragments count, or a record could contain a hundred.
    let many = record(HANDSHAKE, 0, &fragment(0, 0, 0, 0).repeat(100));
    assert_eq!(passing(&mut RecordFilter::default(), 1000, &many), 2);
    // Dropped records do not count.
    let mut records = RecordFilter::default();
    let bad = record(APPLICATION_DATA, 2, &[0]);
    assert_eq!(passing(&mut records, 1000, &bad), 0);
    assert_eq!(passing(&mut records, 1000, &small), 256);
}

#[test]
fn every_flight_may_be_repeated_a_dozen_times() {
    let flight = [
        hello(),
        record(HANDSHAKE, 0, &fragment(2, 1500, 0, 1100)),
        record(HANDSHAKE, 0, &fragment(2, 1500, 1100, 400)),
        record(HANDSHAKE, 0, &fragment(3, 300, 0, 300)),
        record(HANDSHAKE, 0, &fragment(4, 100, 0, 100)),
        record(CHANGE_CIPHER_SPEC, 0, &[1]),
        record(HANDSHAKE, 1, &[0; 48]),
    ]
    .concat();
    assert_eq!(passing(&mut RecordFilter::default(), 24, &flight), 24);
}

#[test]
fn after_the_handshake_only_encrypted_records_pass() {
    let mut records = established();
    let data = record(APPLICATION_DATA, 1, &[0; 1200]);
    assert_eq!(passing(&mut records, 10_000, &data), 10_000);
    for plaintext in [
        hello(),
        record(ALERT, 0, &[2, 40]),
        record(CHANGE_CIPHER_SPEC, 0, &[1]),
    ] {
        assert_eq!(passing(&mut records, 10, &plaintext), 0);
    }
    let close = record(ALERT, 1, &[0; 26]);
    assert_eq!(passing(&mut records, 2, &close), 2);
}

#[test]
fn encrypted_handshake_records_are_few_in_all_stages() {
    let finished = record(HANDSHAKE, 1, &[0; 48]);
    let mut records = RecordFilter::default();
    assert_eq!(passing(&mut records, 20, &finished), 20);
    records.establish();
    assert_eq!(passing(&mut records, 1000, &finished), 12);
    let data = record(APPLICATION_DATA, 1, &[0; 48]);
    assert_eq!(passing(&mut records, 100, &data), 100);
}
