//! Fuzz entries for frames and hellos of both versions.

use super::{cuts, Pace};
use crate::wire::codec::{parse_answer, HelloReader, MAX_HEAD};
use crate::wire::frame::{Header, Signal, MAX_ENCODED};
use crate::wire::hello::{Hello, Proof, SignedKey, MAX_LENGTH, MAX_NAME, MAX_OPTIONS};
use crate::wire::origin::{VisitorOrigin, LENGTH, MAX_ORIGIN};
use crate::wire::{Malformed, Version};

/// Parses a sequence of GT/1 frames.
pub fn gt1_frames(data: &[u8]) {
    frames(Version::One, data);
}

/// Parses a sequence of GT/2 frames.
pub fn gt2_frames(data: &[u8]) {
    frames(Version::Two, data);
}

/// Parses a GT/1 hello behind magic and version; a registration is parsed in the same way.
pub fn gt1_hello(data: &[u8]) {
    hello(Version::One, || HelloReader::new(Version::One), data);
}

/// Parses a GT/2 hello behind magic and version, a registration and a server's answer.
pub fn gt2_hello(data: &[u8]) {
    hello(Version::Two, || HelloReader::new(Version::Two), data);
    if let Ok(len) = u32::try_from(data.len()) {
        hello(Version::Two, || HelloReader::registration_of(len), data);
    }
    super::assert_settled(data, |bytes| parse_answer(bytes).transpose());
    if let Ok(Some(answer)) = parse_answer(data) {
        assert!(answer.length <= data.len());
    }
}

/// Parses the origin of a visitor, with its length field.
pub fn origins(data: &[u8]) {
    super::assert_settled(data, |bytes| VisitorOrigin::length(bytes).transpose());
    let Ok(Some(length)) = VisitorOrigin::length(data) else {
        return;
    };
    if let Some(Ok(origin)) = data.get(LENGTH..length).map(VisitorOrigin::parse) {
        let bytes = origin.encode();
        assert!(bytes.len() <= usize::from(MAX_ORIGIN));
        assert_eq!(VisitorOrigin::parse(&bytes[LENGTH..]), Ok(origin));
    }
}

/// Parses the headers of visitors' streams of QUIC, one behind the other.
#[cfg(feature = "quic")]
pub fn stream_headers(data: &[u8]) {
    use crate::wire::stream_header::{StreamHeader, StreamKind, LENGTH};
    let mut rest = data;
    while let Some((bytes, after)) = rest.split_first_chunk::<LENGTH>() {
        rest = after;
        let Ok(header) = StreamHeader::parse(bytes) else {
            assert_eq!(bytes[1..5], [0; 4], "only a number may be wrong");
            continue;
        };
        if header.kind != StreamKind::Unknown {
            assert_eq!(header.encode(), *bytes);
        }
    }
}

fn frames(version: Version, data: &[u8]) {
    let mut rest = data;
    while let Some((head, used)) = frame(version, rest) {
        let payload = match head {
            Header::Open { len, .. }
            | Header::Data { len, .. }
            | Header::Registration { len }
            | Header::Skip { len } => len,
            _ => 0,
        };
        rest = &rest[used..];
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        rest = rest.get(payload..).unwrap_or_default();
    }
}

/// Returns the header at the start of `bytes`, if there is one, and its length.
fn frame(version: Version, bytes: &[u8]) -> Option<(Header, usize)> {
    let whole = version.parse(bytes);
    // A header is complete with its last byte and not before; errors may show earlier.
    let last = bytes.len().min(MAX_HEAD);
    let early = (0..last).map(|cut| (cut, version.parse(&bytes[..cut])));
    for (cut, early) in early {
        match (early, whole) {
            (Ok(None), Ok(Some((_, used)))) => assert!(cut < used, "{cut} of {used}"),
            (Ok(None), _) => {}
            (early, whole) => assert_eq!(early, whole, "after {cut} bytes"),
        }
    }
    let (head, used) = whole.ok()??;
    assert!((1..=last).contains(&used));
    let encoded = version.encode(head);
    let encoded = encoded.as_slice();
    assert!(encoded.len() <= MAX_ENCODED);
    match head {
        // It stands for an unknown frame.
        Header::Skip { .. } => assert!(encoded.is_empty()),
        _ => assert_eq!(version.parse(encoded), Ok(Some((head, encoded.len())))),
    }
    Some((head, used))
}

/// The result of a reader.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Where the credentials end, and their values.
    credentials: Option<(usize, String, Proof)>,
    /// The hello and its length; `None` while bytes are missing.
    hello: Result<Option<(Hello, usize)>, Malformed>,
}

fn hello(version: Version, reader: impl Fn() -> HelloReader, data: &[u8]) {
    let whole = read(reader(), data, Pace::Whole);
    for pace in Pace::split(data) {
        assert_eq!(read(reader(), data, pace), whole, "{pace:?}");
    }
    for cut in cuts(data) {
        let early = read(reader(), &data[..cut], Pace::Whole);
        match &early.hello {
            Ok(None) => {}
            _ => assert_eq!(early, whole, "cut at {cut}"),
        }
    }
    if let Ok(Some((hello, used))) = whole.hello {
        assert!(used <= data.len());
        check(version, &hello);
    }
}

fn read(mut reader: HelloReader, data: &[u8], mut pace: Pace) -> Outcome {
    let mut outcome = Outcome {
        credentials: None,
        hello: Ok(None),
    };
    let mut used = 0;
    // A reader may stop once without consuming a byte: behind the credentials.
    let mut stops = 0;
    while used < data.len() && stops < 2 {
        let piece = &data[used..used.saturating_add(pace.next()).min(data.len())];
        let count = match reader.feed(piece) {
            Ok(count) => count,
            Err(malformed) => {
                outcome.hello = Err(malformed);
                return outcome;
            }
        };
        assert!(count <= piece.len());
        stops = if count == 0 { stops + 1 } else { 0 };
        used += count;
        if let (None, Some(who)) = (&outcome.credentials, reader.credentials()) {
            outcome.credentials = Some((used, who.id.to_owned(), who.proof.clone()));
        }
        reader = match reader.finish() {
            Ok(hello) => {
                outcome.hello = Ok(Some((hello, used)));
                return outcome;
            }
            Err(reader) => reader,
        };
    }
    assert_eq!(used, data.len(), "it takes no more, and has not ended");
    outcome
}

/// Checks the bounds of a hello, and that it is parsed as it is written.
fn check(version: Version, hello: &Hello) {
    assert!((1..=MAX_NAME).contains(&hello.id.len()));
    let is_signed = match &hello.proof {
        Proof::Secret(secret) => {
            assert!((1..=MAX_NAME).contains(&secret.len()));
            true
        }
        Proof::Key(key) => {
            assert_eq!(version, Version::Two);
            key.signature.is_some()
        }
    };
    assert!((1..=MAX_OPTIONS).contains(&hello.services.len()));

    let bytes = hello.encode(version);
    assert!(bytes.len() <= MAX_LENGTH as usize);
    let again = read(HelloReader::new(version), &bytes[2..], Pace::Whole);
    if is_signed {
        assert_eq!(again.hello, Ok(Some((hello.clone(), bytes.len() - 2))));
    }

    let bytes = hello.encode_change(version);
    let (head, used) = version
        .parse(&bytes)
        .expect("a head")
        .expect("a whole head");
    let reader = match head {
        Header::Signal(Signal::Services) => HelloReader::registration(),
        Header::Registration { len } => HelloReader::registration_of(len),
        head => panic!("{head:?} does not begin a registration"),
    };
    let proof = match &hello.proof {
        Proof::Secret(secret) => Proof::Secret(secret.clone()),
        Proof::Key(key) => Proof::Key(Box::new(SignedKey {
            signature: None,
            ..**key
        })),
    };
    let change = Hello {
        proof,
        window: 0,
        origins: false,
        bbr: false,
        instance: None,
        ..hello.clone()
    };
    let again = read(reader, &bytes[used..], Pace::Whole);
    assert_eq!(again.hello, Ok(Some((change, bytes.len() - used))));
}
