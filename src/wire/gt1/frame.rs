//! GT/1 frames (docs/gt1.md, "Frames").

use crate::wire::frame::{
    Encoded, Header, RejectCode, ServiceIndex, Signal, StreamId, FIRST_RESERVED,
};
use crate::wire::{u16_at, u32_at, Malformed};

/// Maximum length in bytes of a header: that of an open frame.
#[cfg(test)]
const MAX_HEAD: usize = 12;

const PING: u32 = 0xFFFF_FFFF;
const CLOSE: u32 = 0xFFFF_FFFE;
const READY: u32 = 0xFFFF_FFFD;
const ERROR: u32 = 0xFFFF_FFFC;
const INFO: u32 = 0xFFFF_FFFB;
const SERVICES: u32 = 0xFFFF_FFFA;
const RECONNECT: u32 = 0xFFFF_FFF9;

const OP_DATA: u16 = 0;
const OP_CLOSE: u16 = 1;
const OP_SERVICES_DATA: u16 = 2;

const INFO_PORT_OPENED: u16 = 1;

/// Parses a header at the start of `bytes`. Returns the header and its length, at most 12;
/// `None` if bytes are missing.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(first) = u32_at(bytes, 0) else {
        return Ok(None);
    };
    if first >= FIRST_RESERVED {
        return parse_signal(first, bytes);
    }
    let stream_id = first;
    let Some(op) = u16_at(bytes, 4) else {
        return Ok(None);
    };
    let head = match op {
        OP_DATA => u32_at(bytes, 6).map(|len| {
            (
                Header::Data {
                    stream_id: StreamId(stream_id),
                    len,
                },
                10,
            )
        }),
        OP_CLOSE => Some((
            Header::Close {
                stream_id: StreamId(stream_id),
            },
            6,
        )),
        OP_SERVICES_DATA => match (u16_at(bytes, 6), u32_at(bytes, 8)) {
            (Some(service), Some(len)) => {
                let window = 0;
                let head = Header::Open {
                    stream_id: StreamId(stream_id),
                    service: ServiceIndex(service),
                    window,
                    len,
                };
                Some((head, 12))
            }
            _ => None,
        },
        unknown => return Err(Malformed::UnknownOperation(unknown)),
    };
    Ok(head)
}

fn parse_signal(first: u32, bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let plain = |signal| Some((signal, 4));
    let found = match first {
        PING => plain(Signal::Ping),
        CLOSE => plain(Signal::Close),
        READY => plain(Signal::Ready),
        SERVICES => plain(Signal::Services),
        RECONNECT => plain(Signal::Reconnect),
        ERROR => match u16_at(bytes, 4) {
            Some(2) => u16_at(bytes, 6).map(|service| {
                (
                    Signal::Error(RejectCode::PortNotOpened(ServiceIndex(service))),
                    8,
                )
            }),
            Some(code) => {
                let code = match RejectCode::from_code(code) {
                    // Nobody sends it over GT/1.
                    RejectCode::AddressNotAllowed => RejectCode::Other(code),
                    known => known,
                };
                Some((Signal::Error(code), 6))
            }
            None => None,
        },
        INFO => match u16_at(bytes, 4) {
            Some(INFO_PORT_OPENED) => match (u16_at(bytes, 6), u16_at(bytes, 8)) {
                (Some(service), Some(port)) => Some((
                    Signal::PortOpened {
                        service: ServiceIndex(service),
                        port,
                    },
                    10,
                )),
                _ => None,
            },
            Some(code) => Some((Signal::OtherInfo(code), 6)),
            None => None,
        },
        unknown => return Err(Malformed::UnknownSignal(unknown)),
    };
    Ok(found.map(|(signal, len)| (Header::Signal(signal), len)))
}

/// Encodes a header; empty if GT/1 cannot express it.
pub fn encode(head: Header) -> Encoded {
    let out = Encoded::new();
    match head {
        Header::Signal(signal) => encode_signal(signal),
        Header::Open {
            stream_id,
            service,
            len,
            ..
        } => out
            .with(&stream_id.0.to_be_bytes())
            .with(&OP_SERVICES_DATA.to_be_bytes())
            .with(&service.0.to_be_bytes())
            .with(&len.to_be_bytes()),
        Header::Data { stream_id, len } => out
            .with(&stream_id.0.to_be_bytes())
            .with(&OP_DATA.to_be_bytes())
            .with(&len.to_be_bytes()),
        Header::Close { stream_id } | Header::Reset { stream_id, .. } => out
            .with(&stream_id.0.to_be_bytes())
            .with(&OP_CLOSE.to_be_bytes()),
        Header::Ping(_) | Header::Pong(_) => encode_signal(Signal::Ping),
        Header::Finish { .. }
        | Header::Credit { .. }
        | Header::Registration { .. }
        | Header::StreamsOpened(_)
        | Header::Skip { .. } => out,
    }
}

fn encode_signal(signal: Signal) -> Encoded {
    let out = Encoded::new();
    match signal {
        Signal::Ping => out.with(&PING.to_be_bytes()),
        Signal::Close => out.with(&CLOSE.to_be_bytes()),
        Signal::Ready => out.with(&READY.to_be_bytes()),
        Signal::Services => out.with(&SERVICES.to_be_bytes()),
        Signal::Reconnect => out.with(&RECONNECT.to_be_bytes()),
        Signal::Error(code) => {
            let known = match code {
                // The original has no such code.
                RejectCode::AddressNotAllowed => RejectCode::BadCredentials,
                code => code,
            };
            let out = out
                .with(&ERROR.to_be_bytes())
                .with(&known.code().to_be_bytes());
            match code {
                RejectCode::PortNotOpened(service) => out.with(&service.0.to_be_bytes()),
                _ => out,
            }
        }
        Signal::PortOpened { service, port } => out
            .with(&INFO.to_be_bytes())
            .with(&INFO_PORT_OPENED.to_be_bytes())
            .with(&service.0.to_be_bytes())
            .with(&port.to_be_bytes()),
        Signal::PortUnavailable { .. } | Signal::ServiceState { .. } => out,
        Signal::OtherInfo(code) => out.with(&INFO.to_be_bytes()).with(&code.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every header with its bytes, written by hand from the tables of docs/gt1.md.
    const GOLDEN: &[(Header, &[u8])] = &[
        (Header::Signal(Signal::Ping), &[0xFF, 0xFF, 0xFF, 0xFF]),
        (Header::Signal(Signal::Close), &[0xFF, 0xFF, 0xFF, 0xFE]),
        (Header::Signal(Signal::Ready), &[0xFF, 0xFF, 0xFF, 0xFD]),
        (
            Header::Signal(Signal::Error(RejectCode::BadCredentials)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 1],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::PortNotOpened(ServiceIndex(
                0x0102,
            )))),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 2, 1, 2],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::TooManyConnections)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 3],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::TooManyHosts)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 4],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::HostConflict)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 5],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::HostNotAllowed)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 6],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::OtherClientConnected)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 7],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::TooManyOptions)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 8],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::TooManyPorts)),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 9],
        ),
        (
            Header::Signal(Signal::Error(RejectCode::Other(10))),
            &[0xFF, 0xFF, 0xFF, 0xFC, 0, 10],
        ),
        (
            Header::Signal(Signal::PortOpened {
                service: ServiceIndex(3),
                port: 2222,
            }),
            &[0xFF, 0xFF, 0xFF, 0xFB, 0, 1, 0, 3, 0x08, 0xAE],
        ),
        (
            Header::Signal(Signal::OtherInfo(0)),
            &[0xFF, 0xFF, 0xFF, 0xFB, 0, 0],
        ),
        (Header::Signal(Signal::Services), &[0xFF, 0xFF, 0xFF, 0xFA]),
        (Header::Signal(Signal::Reconnect), &[0xFF, 0xFF, 0xFF, 0xF9]),
        (
            Header::Data {
                stream_id: StreamId(1),
                len: 4096,
            },
            &[0, 0, 0, 1, 0, 0, 0, 0, 0x10, 0],
        ),
        (
            Header::Close {
                stream_id: StreamId(0x0102_0304),
            },
            &[1, 2, 3, 4, 0, 1],
        ),
        (
            Header::Open {
                stream_id: StreamId(7),
                service: ServiceIndex(1),
                window: 0,
                len: 0,
            },
            &[0, 0, 0, 7, 0, 2, 0, 1, 0, 0, 0, 0],
        ),
    ];

    #[test]
    fn every_header_has_the_bytes_of_the_wire_page() {
        for (head, bytes) in GOLDEN {
            assert_eq!(encode(*head).as_slice(), *bytes, "{head:?}");
            assert_eq!(parse(bytes), Ok(Some((*head, bytes.len()))), "{head:?}");
        }
    }

    #[test]
    fn a_truncated_header_is_not_parsed() {
        for (head, bytes) in GOLDEN {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn bytes_after_a_header_are_ignored() {
        for (head, bytes) in GOLDEN {
            let longer = [bytes, &[0xAA; 9][..]].concat();
            assert_eq!(parse(&longer), Ok(Some((*head, bytes.len()))));
        }
    }

    #[test]
    fn errors_name_unknown_signals_and_operations() {
        assert_eq!(
            parse(&0xFFFF_FFF8u32.to_be_bytes()),
            Err(Malformed::UnknownSignal(0xFFFF_FFF8))
        );
        assert_eq!(
            parse(&FIRST_RESERVED.to_be_bytes()),
            Err(Malformed::UnknownSignal(FIRST_RESERVED))
        );
        assert_eq!(
            parse(&[0, 0, 0, 1, 0, 3]),
            Err(Malformed::UnknownOperation(3))
        );
    }

    proptest! {
        #[test]
        fn headers_survive_encoding(
            stream_id in 0..FIRST_RESERVED, service in any::<u16>(), len in any::<u32>(), op in 0..3u8,
        ) {
            let head = match op {
                0 => Header::Data { stream_id: StreamId(stream_id), len },
                1 => Header::Close { stream_id: StreamId(stream_id) },
                _ => Header::Open {
                    stream_id: StreamId(stream_id),
                    service: ServiceIndex(service),
                    window: 0,
                    len,
                },
            };
            let bytes = encode(head);
            prop_assert_eq!(parse(bytes.as_slice()), Ok(Some((head, bytes.as_slice().len()))));
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some((head, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len() && used <= MAX_HEAD);
                let again = encode(head);
                prop_assert_eq!(again.as_slice(), &bytes[..used]);
            }
        }
    }
}
