//! Tests that the examples of docs/wire.md are encoded and parsed as the page says.

use super::codec::{answer, parse_answer, HelloAnswer, HelloReader};
use super::frame::{Header, Signal};
use super::hello::{GroupSpec, Hello, Proof, ServiceKinds, ServiceSpec, SignedKey};
use super::origin::{Transport, VisitorOrigin, LENGTH};
use super::Version;
use crate::keys::{Challenge, PublicKey};

const PAGE: &str = include_str!("../../docs/wire.md");

/// Returns the lines of the code block with this name.
fn block(name: &str) -> Vec<&'static str> {
    let start = format!("```{name}\n");
    let (_, rest) = PAGE.split_once(&start).expect("the block");
    let (lines, _) = rest.split_once("```").expect("its end");
    lines.lines().collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).unwrap();
        u8::from_str_radix(pair, 16).unwrap()
    });
    pairs.collect()
}

/// Parses an example: the bytes of a header, the payload length, and the description.
fn example(line: &str) -> (Vec<u8>, usize, &str) {
    let words = line.find(|c: char| c.is_ascii_lowercase()).expect("words");
    let (hex, words) = line.split_at(words);
    let (head, payload) = hex.split_once('(').unwrap_or((hex, ""));
    (bytes(head), bytes(payload).len(), words)
}

/// Describes a header in the words of the page.
fn words(head: Header) -> String {
    match head {
        Header::Data { stream_id, len } => format!("data stream={stream_id} length={len}"),
        Header::Open {
            stream_id,
            service,
            window,
            len,
        } => format!("open stream={stream_id} service={service} window={window} length={len}"),
        Header::Finish { stream_id } => format!("finish stream={stream_id}"),
        Header::Close { stream_id } => format!("close stream={stream_id}"),
        Header::Reset { stream_id, reason } => {
            format!("reset stream={stream_id} reason={}", reason.code())
        }
        Header::Credit { stream_id, bytes } => format!("credit stream={stream_id} bytes={bytes}"),
        Header::Ping(number) => format!("ping number={number}"),
        Header::Pong(number) => format!("pong number={number}"),
        Header::StreamsOpened(number) => format!("streams-opened number={number}"),
        Header::Registration { len } => format!("registration length={len}"),
        Header::Skip { len } => format!("skip length={len}"),
        Header::Signal(signal) => match signal {
            Signal::Close => "close".to_owned(),
            Signal::Ready => "ready".to_owned(),
            Signal::Services => "services".to_owned(),
            Signal::Reconnect => "reconnect".to_owned(),
            Signal::Error(super::frame::RejectCode::PortNotOpened(service)) => {
                format!("error code=2 service={service}")
            }
            Signal::Error(super::frame::RejectCode::LockedOut(seconds)) => {
                format!("error code=1 seconds={seconds}")
            }
            Signal::Error(refusal) => format!("error code={}", refusal.code()),
            Signal::PortOpened { service, port } => {
                format!("port-opened service={service} port={port}")
            }
            Signal::PortUnavailable { service, cause } => {
                format!("port-unavailable service={service} cause={}", cause.code())
            }
            Signal::ServiceState { service, is_up } => {
                format!("service-state service={service} state={}", u8::from(is_up))
            }
            Signal::Ping | Signal::OtherInfo(_) => panic!("exists in GT/1 only"),
        },
    }
}

/// Returns the payload length of a header.
fn following(head: Header) -> u32 {
    match head {
        Header::Data { len, .. }
        | Header::Open { len, .. }
        | Header::Registration { len }
        | Header::Skip { len } => len,
        _ => 0,
    }
}

#[test]
fn every_frame_example_matches_the_code() {
    let lines = block("frames");
    for line in &lines {
        let (head_bytes, payload, said) = example(line);
        let (head, used) = Version::Two.parse(&head_bytes).unwrap().expect(line);
        assert_eq!(
            (words(head).as_str(), used),
            (said, head_bytes.len()),
            "{line}"
        );
        assert_eq!(following(head), u32::try_from(payload).unwrap(), "{line}");
        assert_eq!(Version::Two.encode(head).as_slice(), head_bytes, "{line}");
    }
    assert_eq!(lines.len(), 22);
}

#[test]
fn example_frames_of_later_versions_are_parsed() {
    let lines = block("frames-of-later-versions");
    for line in &lines {
        let (head_bytes, payload, said) = example(line);
        let (head, used) = Version::Two.parse(&head_bytes).unwrap().expect(line);
        assert_eq!(
            (words(head).as_str(), used),
            (said, head_bytes.len()),
            "{line}"
        );
        assert_eq!(following(head), u32::try_from(payload).unwrap(), "{line}");
    }
    assert_eq!(lines.len(), 3);
}

fn host(prefix: Option<&str>) -> ServiceSpec {
    ServiceSpec::Host {
        tls: false,
        prefix: prefix.map(Into::into),
    }
}

#[test]
fn the_hello_examples_match_the_code() {
    let port = ServiceSpec::Tcp {
        random: false,
        port: 2222,
    };
    for (name, services) in [
        ("client-hello", vec![host(None)]),
        (
            "client-hello-of-three",
            vec![port, host(Some("1")), host(Some("2"))],
        ),
        ("client-hello-with-origins", vec![host(None)]),
        ("client-hello-with-bbr", vec![host(None)]),
        (
            "client-hello-with-domains",
            vec![ServiceSpec::Domains {
                tls: false,
                prefix: Some("1".into()),
                domains: vec!["shop.local".into(), "*.a.b".into()],
            }],
        ),
        (
            "client-hello-with-udp",
            vec![ServiceSpec::Udp {
                random: false,
                port: 53,
            }],
        ),
        (
            "client-hello-with-a-group",
            vec![ServiceSpec::Grouped {
                group: Box::new(GroupSpec {
                    name: "web".into(),
                    key: (*b"key1").into(),
                    sticky: true,
                }),
                service: Box::new(host(Some("1"))),
            }],
        ),
    ] {
        let example = bytes(&block(name).concat());
        let hello = Hello {
            id: "id1".into(),
            proof: Proof::Secret((*b"secret1").into()),
            services,
            window: 32768,
            origins: name == "client-hello-with-origins",
            bbr: name == "client-hello-with-bbr",
            instance: (name == "client-hello-with-a-group").then_some([1, 2, 3, 4, 5, 6, 7, 8]),
        };
        assert_eq!(hello.encode(Version::Two), example, "{name}");
        let mut reader = HelloReader::new(Version::Two);
        let credentials = reader.feed(&example[2..]).unwrap();
        reader.feed(&example[2 + credentials..]).unwrap();
        assert_eq!(reader.finish().unwrap(), hello, "{name}");
    }
    let challenge = Challenge([6; 32]);
    for (name, challenge) in [
        ("server-hello", None),
        ("server-hello-with-a-challenge", Some(challenge)),
    ] {
        let example = bytes(&block(name).concat());
        assert_eq!(answer(challenge.as_ref()), example);
        let answer = HelloAnswer {
            length: example.len(),
            origins: true,
            kinds: ServiceKinds::ALL,
            health: true,
            challenge,
        };
        assert_eq!(parse_answer(&example), Ok(Some(answer)));
    }
}

#[test]
fn the_example_of_a_key_matches_the_code() {
    let example = bytes(&block("client-hello-with-a-key").concat());
    let key = SignedKey {
        key: PublicKey([7; 32]),
        signature: Some([8; 64]),
    };
    let hello = Hello {
        id: "id1".into(),
        proof: Proof::Key(Box::new(key)),
        services: vec![ServiceSpec::Host {
            tls: false,
            prefix: None,
        }],
        window: 32768,
        origins: false,
        bbr: false,
        instance: None,
    };
    assert_eq!(hello.encode(Version::Two), example);
    let mut reader = HelloReader::new(Version::Two);
    let credentials = reader.feed(&example[2..]).unwrap();
    reader.feed(&example[2 + credentials..]).unwrap();
    assert_eq!(reader.finish().unwrap(), hello);
}

#[cfg(feature = "server")]
#[test]
fn the_example_of_datagrams_matches_the_code() {
    let example = bytes(&block("datagrams").concat());
    let (head, used) = Version::Two.parse(&example).unwrap().expect("a frame");
    let mut queue = crate::net::DatagramQueue::default();
    for datagram in [&b"abc"[..], b"", b"de"] {
        assert!(queue.push(datagram));
    }
    let mut records = [0; 100];
    let length = queue.take(&mut records);
    assert_eq!(&records[..length], &example[used..]);
    assert_eq!(following(head), u32::try_from(length).unwrap());
}

#[cfg(feature = "quic")]
#[test]
fn the_examples_of_quic_match_the_code() {
    use super::stream_header::{StreamHeader, StreamKind};
    let lines = block("stream-headers");
    for line in &lines {
        let (bytes, _, said) = example(line);
        let header = StreamHeader::parse(&bytes.clone().try_into().unwrap()).unwrap();
        let kind = match header.kind {
            StreamKind::Connection => "connection",
            StreamKind::Flow => "flow",
            StreamKind::Unknown => "unknown",
        };
        let words = format!(
            "{kind} stream={} registration={} service={} window={}",
            header.stream_id, header.registration, header.service, header.window
        );
        assert_eq!(words, said);
        assert_eq!(&header.encode()[..], bytes);
    }
    assert_eq!(lines.len(), 2);
    let (bytes, _, said) = example(block("datagram-frame")[0]);
    assert_eq!(said, "flow stream=2 datagram=abc");
    assert_eq!(bytes, [&2u32.to_be_bytes()[..], b"abc"].concat());
}

#[test]
fn the_origin_examples_match_the_code() {
    for (name, source, destination, server_name) in [
        (
            "origin",
            "192.0.2.7:50000",
            "198.51.100.1:443",
            Some("web.t.example.org"),
        ),
        (
            "origin-over-ipv6",
            "[2001:db8::7]:50000",
            "[2001:db8::1]:22",
            None,
        ),
    ] {
        let example = bytes(&block(name).concat());
        let origin = VisitorOrigin {
            transport: Transport::Tcp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            is_decrypted: server_name.is_some(),
            is_told: false,
            server_name: server_name.map(Into::into),
            subject: None,
        };
        assert_eq!(&*origin.encode(), example, "{name}");
        assert_eq!(
            VisitorOrigin::parse(&example[LENGTH..]),
            Ok(origin),
            "{name}"
        );
    }
}
