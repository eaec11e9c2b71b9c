//! GT/2 frames (docs/wire.md, "Frames"): kind, length, stream id, payload.

use crate::wire::frame::{
    Encoded, Header, PortCause, RejectCode, ResetCode, ServiceIndex, Signal, StreamId,
};
use crate::wire::hello::MAX_LENGTH;
use crate::wire::{kind_and_length, u16_at, u32_at, Malformed};

/// Length in bytes of kind, length and stream id.
const HEAD: usize = 8;
/// Maximum length in bytes of a control frame's payload. It leaves room for fields that later
/// versions append and this one ignores.
const MAX_CONTROL: u32 = 64;
/// Maximum length in bytes of a header: a whole control frame.
pub const MAX_HEAD: usize = HEAD + MAX_CONTROL as usize;

const DATA: u8 = 0x01;
const OPEN: u8 = 0x02;
const FINISH: u8 = 0x03;
const RESET: u8 = 0x04;
const CREDIT: u8 = 0x05;
const PING: u8 = 0x06;
const PONG: u8 = 0x07;
const CLOSE: u8 = 0x08;
const READY: u8 = 0x09;
const ERROR: u8 = 0x0A;
const PORT_OPENED: u8 = 0x0B;
const SERVICES: u8 = 0x0C;
const RECONNECT: u8 = 0x0D;
const PORT_UNAVAILABLE: u8 = 0x0E;
const SERVICE_STATE: u8 = 0x0F;
const STREAMS_OPENED: u8 = 0x10;

/// Bit of the kinds that a receiver must know; it may ignore other unknown kinds.
const CRITICAL: u8 = 0x80;

/// Length in bytes of service and window at the start of an open frame's payload.
const OPEN_FIELDS: u32 = 6;
/// The state of a service that is down.
const DOWN: u8 = 0;
/// The reset code of a normal close.
const NORMAL_CLOSE: u16 = 0;

/// Parses a header at the start of `bytes`. Returns the header and its length, at most
/// [`MAX_HEAD`]; `None` if bytes are missing.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let (Some((kind, len)), Some(stream_id)) = (kind_and_length(bytes), u32_at(bytes, 4)) else {
        return Ok(None);
    };
    if matches!(kind, DATA..=CREDIT) && stream_id == 0 {
        return Err(Malformed::NoStream(kind));
    }
    let (head, used) = match kind {
        DATA => {
            return Ok(Some((
                Header::Data {
                    stream_id: StreamId(stream_id),
                    len,
                },
                HEAD,
            )))
        }
        OPEN => {
            let len = len
                .checked_sub(OPEN_FIELDS)
                .ok_or(Malformed::FrameLength(kind))?;
            let (Some(service), Some(window)) = (u16_at(bytes, 8), u32_at(bytes, 10)) else {
                return Ok(None);
            };
            let head = Header::Open {
                stream_id: StreamId(stream_id),
                service: ServiceIndex(service),
                window,
                len,
            };
            return Ok(Some((head, HEAD + 6)));
        }
        SERVICES if len > 0 => {
            if len > MAX_LENGTH {
                return Err(Malformed::HelloLength(len));
            }
            return Ok(Some((Header::Registration { len }, HEAD)));
        }
        FINISH | CLOSE | READY | SERVICES | RECONNECT => {
            let head = match kind {
                FINISH => Header::Finish {
                    stream_id: StreamId(stream_id),
                },
                CLOSE => Header::Signal(Signal::Close),
                READY => Header::Signal(Signal::Ready),
                SERVICES => Header::Signal(Signal::Services),
                _ => Header::Signal(Signal::Reconnect),
            };
            (Some(head), 0)
        }
        RESET => {
            let head = u16_at(bytes, HEAD).map(|code| match code {
                NORMAL_CLOSE => Header::Close {
                    stream_id: StreamId(stream_id),
                },
                code => {
                    let reason = ResetCode::from_code(code);
                    Header::Reset {
                        stream_id: StreamId(stream_id),
                        reason,
                    }
                }
            });
            (head, 2)
        }
        CREDIT => {
            let bytes = u32_at(bytes, HEAD);
            (
                bytes.map(|bytes| Header::Credit {
                    stream_id: StreamId(stream_id),
                    bytes,
                }),
                4,
            )
        }
        PING | PONG => {
            let number = bytes.get(HEAD..).and_then(<[u8]>::first_chunk::<8>);
            let number = number.map(|number| u64::from_be_bytes(*number));
            let head = if kind == PING {
                Header::Ping
            } else {
                Header::Pong
            };
            (number.map(head), 8)
        }
        ERROR => {
            let code = match (u16_at(bytes, HEAD), u16_at(bytes, HEAD + 2)) {
                (Some(1), _) if len >= 6 => u32_at(bytes, HEAD + 2).map(RejectCode::LockedOut),
                (Some(2), Some(service)) if len >= 4 => {
                    Some(RejectCode::PortNotOpened(ServiceIndex(service)))
                }
                (Some(2), _) if len >= 4 => None,
                (code, _) => code.map(RejectCode::from_code),
            };
            (code.map(|code| Signal::Error(code).into()), 2)
        }
        PORT_OPENED => {
            let opened = u16_at(bytes, HEAD).zip(u16_at(bytes, HEAD + 2));
            let head = opened.map(|(service, port)| {
                Signal::PortOpened {
                    service: ServiceIndex(service),
                    port,
                }
                .into()
            });
            (head, 4)
        }
        PORT_UNAVAILABLE => {
            let said = u16_at(bytes, HEAD).zip(u16_at(bytes, HEAD + 2));
            let head = said.map(|(service, code)| {
                let cause = PortCause::from_code(code);
                Signal::PortUnavailable {
                    service: ServiceIndex(service),
                    cause,
                }
                .into()
            });
            (head, 4)
        }
        SERVICE_STATE => {
            let said = u16_at(bytes, HEAD).zip(bytes.get(HEAD + 2));
            let head = said.map(|(service, state)| {
                Signal::ServiceState {
                    service: ServiceIndex(service),
                    // A state of a later version is one in which the service takes visitors.
                    is_up: *state != DOWN,
                }
                .into()
            });
            (head, 3)
        }
        STREAMS_OPENED => (u32_at(bytes, HEAD).map(Header::StreamsOpened), 4),
        unknown if unknown & CRITICAL != 0 => return Err(Malformed::UnknownFrame(unknown)),
        _ => return Ok(Some((Header::Skip { len }, HEAD))),
    };
    if !(used..=MAX_CONTROL).contains(&len) {
        return Err(Malformed::FrameLength(kind));
    }
    // At most MAX_HEAD.
    let whole = HEAD + len as usize;
    Ok(head
        .filter(|_| bytes.len() >= whole)
        .map(|head| (head, whole)))
}

/// Encodes a header; empty if GT/2 cannot express it.
pub fn encode(head: Header) -> Encoded {
    let tunnel = |kind, payload: &[u8]| frame(kind, StreamId(0), payload);
    match head {
        Header::Data { stream_id, len } => begin(DATA, len, stream_id),
        Header::Open {
            stream_id,
            service,
            window,
            len,
        } => begin(OPEN, len.saturating_add(OPEN_FIELDS), stream_id)
            .with(&service.0.to_be_bytes())
            .with(&window.to_be_bytes()),
        Header::Close { stream_id } => frame(RESET, stream_id, &NORMAL_CLOSE.to_be_bytes()),
        Header::Finish { stream_id } => frame(FINISH, stream_id, &[]),
        Header::Reset { stream_id, reason } => {
            frame(RESET, stream_id, &reason.code().to_be_bytes())
        }
        Header::Credit { stream_id, bytes } => frame(CREDIT, stream_id, &bytes.to_be_bytes()),
        Header::Ping(number) => tunnel(PING, &number.to_be_bytes()),
        Header::Pong(number) => tunnel(PONG, &number.to_be_bytes()),
        Header::Registration { len } => begin(SERVICES, len, StreamId(0)),
        Header::StreamsOpened(number) => tunnel(STREAMS_OPENED, &number.to_be_bytes()),
        Header::Signal(signal) => match signal {
            Signal::Close => tunnel(CLOSE, &[]),
            Signal::Ready => tunnel(READY, &[]),
            Signal::Services => tunnel(SERVICES, &[]),
            Signal::Reconnect => tunnel(RECONNECT, &[]),
            Signal::Error(RejectCode::PortNotOpened(service)) => begin(ERROR, 4, StreamId(0))
                .with(&2u16.to_be_bytes())
                .with(&service.0.to_be_bytes()),
            Signal::Error(RejectCode::LockedOut(seconds)) => begin(ERROR, 6, StreamId(0))
                .with(&1u16.to_be_bytes())
                .with(&seconds.to_be_bytes()),
            Signal::Error(code) => tunnel(ERROR, &code.code().to_be_bytes()),
            Signal::PortOpened { service, port } => begin(PORT_OPENED, 4, StreamId(0))
                .with(&service.0.to_be_bytes())
                .with(&port.to_be_bytes()),
            Signal::PortUnavailable { service, cause } => begin(PORT_UNAVAILABLE, 4, StreamId(0))
                .with(&service.0.to_be_bytes())
                .with(&cause.code().to_be_bytes()),
            Signal::ServiceState { service, is_up } => begin(SERVICE_STATE, 3, StreamId(0))
                .with(&service.0.to_be_bytes())
                .with(&[u8::from(is_up)]),
            Signal::Ping | Signal::OtherInfo(_) => Encoded::new(),
        },
        Header::Skip { .. } => Encoded::new(),
    }
}

/// Encodes a header for a payload of `len` bytes.
fn begin(kind: u8, len: u32, stream_id: StreamId) -> Encoded {
    let [_, length @ ..] = len.to_be_bytes();
    Encoded::new()
        .with(&[kind])
        .with(&length)
        .with(&stream_id.0.to_be_bytes())
}

/// Encodes a whole control frame.
fn frame(kind: u8, stream_id: StreamId, payload: &[u8]) -> Encoded {
    // The payload has at most 8 bytes.
    begin(kind, payload.len() as u32, stream_id).with(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::MAX_ENCODED;
    use proptest::prelude::*;

    fn any_head() -> impl Strategy<Value = Header> {
        let stream = 1..=u32::MAX;
        let len = 0..=0x00FF_FFFFu32;
        prop_oneof![
            (stream.clone(), len.clone()).prop_map(|(stream_id, len)| Header::Data {
                stream_id: StreamId(stream_id),
                len
            }),
            (
                stream.clone(),
                any::<u16>(),
                any::<u32>(),
                0..=0x00FF_FFF9u32
            )
                .prop_map(|(stream_id, service, window, len)| Header::Open {
                    stream_id: StreamId(stream_id),
                    service: ServiceIndex(service),
                    window,
                    len
                }),
            stream.clone().prop_map(|stream_id| Header::Close {
                stream_id: StreamId(stream_id)
            }),
            stream.clone().prop_map(|stream_id| Header::Finish {
                stream_id: StreamId(stream_id)
            }),
            (stream.clone(), 1..=u16::MAX).prop_map(|(stream_id, code)| Header::Reset {
                stream_id: StreamId(stream_id),
                reason: ResetCode::from_code(code)
            }),
            (stream, any::<u32>()).prop_map(|(stream_id, bytes)| Header::Credit {
                stream_id: StreamId(stream_id),
                bytes
            }),
            any::<u64>().prop_map(Header::Ping),
            any::<u64>().prop_map(Header::Pong),
            any::<u32>().prop_map(Header::StreamsOpened),
            (1..=MAX_LENGTH).prop_map(|len| Header::Registration { len }),
            prop_oneof![
                Just(Signal::Close),
                Just(Signal::Ready),
                Just(Signal::Services),
                Just(Signal::Reconnect),
                any::<u16>().prop_map(|service| Signal::Error(RejectCode::PortNotOpened(
                    ServiceIndex(service)
                ))),
                any::<u32>().prop_map(|seconds| Signal::Error(RejectCode::LockedOut(seconds))),
                (3..=20u16).prop_map(|code| Signal::Error(RejectCode::from_code(code))),
                (any::<u16>(), any::<u16>()).prop_map(|(service, port)| Signal::PortOpened {
                    service: ServiceIndex(service),
                    port
                }),
                (any::<u16>(), any::<bool>()).prop_map(|(service, is_up)| Signal::ServiceState {
                    service: ServiceIndex(service),
                    is_up
                }),
                (any::<u16>(), any::<u16>()).prop_map(|(service, code)| {
                    let cause = PortCause::from_code(code);
                    Signal::PortUnavailable {
                        service: ServiceIndex(service),
                        cause,
                    }
                }),
            ]
            .prop_map(Header::Signal),
        ]
    }

    proptest! {
        #[test]
        fn headers_survive_encoding_and_truncated_ones_are_not_parsed(head in any_head()) {
            let encoded = encode(head);
            let bytes = encoded.as_slice();
            prop_assert!(bytes.len() <= MAX_ENCODED);
            prop_assert_eq!(parse(bytes), Ok(Some((head, bytes.len()))));
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {}", cut);
            }
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(
            kind in any::<u8>(), len in 0..80u8,
            bytes in proptest::collection::vec(any::<u8>(), 0..90),
        ) {
            let bytes = [&[kind, 0, 0, len], &bytes[..]].concat();
            if let Ok(Some((_, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len() && used <= MAX_HEAD);
            }
        }

        #[test]
        fn fields_appended_by_later_versions_are_ignored(
            head in any_head(), more in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let encoded = encode(head);
            let [kind, _, _, len, rest @ ..] = encoded.as_slice() else { panic!("a head") };
            // In these frames the length includes the payload.
            let has_payload = matches!(*kind, DATA | OPEN | SERVICES);
            // With a second number this error is a different one.
            let is_error = *kind == ERROR && *len == 2 && encode(head).as_slice()[9] == 2;
            if !has_payload && !is_error {
                let len = len + u8::try_from(more.len()).unwrap();
                let bytes = [&[*kind, 0, 0, len], rest, &more, &[0xAA; 5]].concat();
                let whole = encoded.as_slice().len() + more.len();
                prop_assert_eq!(parse(&bytes), Ok(Some((head, whole))));
                prop_assert_eq!(parse(&bytes[..whole - 1]), Ok(None));
            }
        }
    }

    #[test]
    fn unknown_frames_are_ignored_unless_critical() {
        let unknown = |kind| [kind, 1, 2, 3, 0, 0, 0, 0];
        for kind in [0x00, STREAMS_OPENED + 1, 0x7F] {
            let head = Header::Skip { len: 0x01_0203 };
            assert_eq!(parse(&unknown(kind)), Ok(Some((head, 8))));
        }
        for kind in [0x80, 0xFF] {
            assert_eq!(parse(&unknown(kind)), Err(Malformed::UnknownFrame(kind)));
        }
    }

    #[test]
    fn errors_name_wrong_lengths_and_missing_streams() {
        for (kind, len) in [(FINISH, 65), (RESET, 1), (CREDIT, 3), (PING, 7), (OPEN, 5)] {
            let bytes = [kind, 0, 0, len, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(parse(&bytes), Err(Malformed::FrameLength(kind)));
        }
        for kind in [DATA, OPEN, FINISH, RESET, CREDIT] {
            let bytes = [kind, 0, 0, 8, 0, 0, 0, 0];
            assert_eq!(parse(&bytes), Err(Malformed::NoStream(kind)));
        }
        let long = begin(SERVICES, MAX_LENGTH + 1, StreamId(0));
        assert_eq!(
            parse(long.as_slice()),
            Err(Malformed::HelloLength(MAX_LENGTH + 1))
        );
    }
}
