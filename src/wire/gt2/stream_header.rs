//! What each visitor's stream of QUIC begins with (docs/wire.md, "QUIC"), with the application protocol `gt/2`.

use crate::wire::frame::{ServiceIndex, StreamId};
use crate::wire::{u16_at, u32_at, Malformed};

/// Length in bytes of a header.
pub const LENGTH: usize = 13;

const CONNECTION: u8 = 0x01;
const FLOW: u8 = 0x02;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The bytes of a visitor's connection.
    Connection,
    /// The datagrams of a visitor of a UDP port, as records.
    Flow,
    /// Something that a later version knows.
    Unknown,
}

/// The header of a visitor's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// What the stream carries.
    pub kind: StreamKind,
    /// The number of the stream in the tunnel.
    pub stream_id: StreamId,
    /// The registration that the service is of: how many times the server has sent *ready* or *services*,
    /// modulo 65536.
    pub registration: u16,
    /// Index of the service that the stream goes to.
    pub service: ServiceIndex,
    /// Bytes that the client may send before it gets credit.
    pub window: u32,
}

impl StreamHeader {
    /// Parses a header.
    pub fn parse(bytes: &[u8; LENGTH]) -> Result<Self, Malformed> {
        let [kind, ..] = *bytes;
        let stream_id = u32_at(bytes, 1).unwrap_or_default();
        if stream_id == 0 {
            return Err(Malformed::NoStream(kind));
        }
        Ok(Self {
            kind: match kind {
                CONNECTION => StreamKind::Connection,
                FLOW => StreamKind::Flow,
                _ => StreamKind::Unknown,
            },
            stream_id: StreamId(stream_id),
            registration: u16_at(bytes, 5).unwrap_or_default(),
            service: ServiceIndex(u16_at(bytes, 7).unwrap_or_default()),
            window: u32_at(bytes, 9).unwrap_or_default(),
        })
    }

    /// Encodes the header.
    pub fn encode(&self) -> [u8; LENGTH] {
        let kind = match self.kind {
            StreamKind::Connection => CONNECTION,
            StreamKind::Flow => FLOW,
            StreamKind::Unknown => 0,
        };
        let [s0, s1, s2, s3] = self.stream_id.0.to_be_bytes();
        let [r0, r1] = self.registration.to_be_bytes();
        let [i0, i1] = self.service.0.to_be_bytes();
        let [w0, w1, w2, w3] = self.window.to_be_bytes();
        [kind, s0, s1, s2, s3, r0, r1, i0, i1, w0, w1, w2, w3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_survive_encoding(
            is_flow in any::<bool>(),
            (stream_id, registration) in (1..=u32::MAX, any::<u16>()),
            (service, window) in any::<(u16, u32)>(),
        ) {
            let header = StreamHeader {
                kind: match is_flow {
                    true => StreamKind::Flow,
                    false => StreamKind::Connection,
                },
                stream_id: StreamId(stream_id),
                registration,
                service: ServiceIndex(service),
                window,
            };
            prop_assert_eq!(StreamHeader::parse(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn a_header_names_a_stream_and_may_be_of_a_later_kind() {
        let mut bytes = [0; LENGTH];
        assert_eq!(StreamHeader::parse(&bytes), Err(Malformed::NoStream(0)));
        for (kind, expected) in [
            (0, StreamKind::Unknown),
            (1, StreamKind::Connection),
            (2, StreamKind::Flow),
            (3, StreamKind::Unknown),
            (0xFF, StreamKind::Unknown),
        ] {
            (bytes[0], bytes[4]) = (kind, 1);
            assert_eq!(StreamHeader::parse(&bytes).unwrap().kind, expected);
        }
    }
}
