//! Messages of NAT-PMP (RFC 6886), for UDP ports. Bytes and values only.

use crate::wire::{u16_at, u32_at};
use std::net::Ipv4Addr;

/// The version, which is the first byte of every message.
const VERSION: u8 = 0;
const EXTERNAL_ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
/// The result for a version that the gateway does not know, in PCP, too.
pub const UNSUPPORTED_VERSION: u16 = 1;
/// What a response adds to the number of its request.
const RESPONSE: u8 = 128;

/// What a gateway answers, or the number of its refusal.
pub type Outcome<T> = Result<T, u16>;

/// A mapping as the gateway has made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The external port.
    pub port: u16,
    /// Lifetime in seconds.
    pub lifetime: u32,
    /// Seconds since the gateway has begun.
    pub epoch: u32,
}

/// The question for the external address.
pub const ADDRESS_REQUEST: [u8; 2] = [VERSION, EXTERNAL_ADDRESS];

/// Parses the answer to [`ADDRESS_REQUEST`]: the external address and the epoch.
pub fn address(bytes: &[u8]) -> Option<Outcome<(Ipv4Addr, u32)>> {
    let (result, epoch) = head(bytes, EXTERNAL_ADDRESS)?;
    if result != 0 {
        return Some(Err(result));
    }
    let ip = *bytes.get(8..)?.first_chunk::<4>()?;
    (bytes.len() == 12).then_some(Ok((Ipv4Addr::from(ip), epoch)))
}

/// Whether this is the answer of a gateway that knows no later version to a request of one.
pub fn refuses_version(bytes: &[u8]) -> bool {
    let is_response = matches!(bytes, [VERSION, operation, ..] if operation & RESPONSE != 0);
    is_response && u16_at(bytes, 2) == Some(UNSUPPORTED_VERSION)
}

/// Writes the request for a mapping of `port`. A lifetime of 0 seconds gives it back.
pub fn map_request(port: u16, wanted: u16, lifetime: u32) -> Vec<u8> {
    let mut bytes = vec![VERSION, MAP_UDP, 0, 0];
    bytes.extend(port.to_be_bytes());
    bytes.extend(wanted.to_be_bytes());
    bytes.extend(lifetime.to_be_bytes());
    bytes
}

/// Parses the answer to [`map_request`] for `port`.
pub fn mapped(bytes: &[u8], port: u16) -> Option<Outcome<Mapped>> {
    let (result, epoch) = head(bytes, MAP_UDP)?;
    if result != 0 {
        // Some gateways leave out the rest.
        let other = u16_at(bytes, 8).is_some_and(|of| of != port && of != 0);
        return (!other).then_some(Err(result));
    }
    let is_ours = bytes.len() == 16 && u16_at(bytes, 8) == Some(port);
    is_ours.then_some(())?;
    Some(Ok(Mapped {
        port: u16_at(bytes, 10)?,
        lifetime: u32_at(bytes, 12)?,
        epoch,
    }))
}

/// Returns the result and the epoch of a response to a request.
fn head(bytes: &[u8], request: u8) -> Option<(u16, u32)> {
    let [version, operation] = *bytes.first_chunk::<2>()?;
    let is_answer = version == VERSION && operation == RESPONSE + request && bytes.len() <= 16;
    is_answer.then_some(())?;
    Some((u16_at(bytes, 2)?, u32_at(bytes, 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_rfc() {
        assert_eq!(
            map_request(40_000, 40_001, 3600),
            [0, 1, 0, 0, 0x9C, 0x40, 0x9C, 0x41, 0, 0, 0x0E, 0x10]
        );
        let answer = [0, 128, 0, 0, 0, 0, 0, 9, 192, 0, 2, 7];
        assert_eq!(address(&answer), Some(Ok((Ipv4Addr::new(192, 0, 2, 7), 9))));
        let answer = [
            0, 129, 0, 0, 0, 0, 0, 9, 0x9C, 0x40, 0x9C, 0x42, 0, 0, 0, 60,
        ];
        let expected = Mapped {
            port: 40_002,
            lifetime: 60,
            epoch: 9,
        };
        assert_eq!(mapped(&answer, 40_000), Some(Ok(expected)));
        assert_eq!(mapped(&answer, 40_001), None);
        // The refusal of a gateway without mappings, or of a newer version.
        assert_eq!(mapped(&[0, 129, 0, 3, 0, 0, 0, 9], 40_000), Some(Err(3)));
        assert_eq!(address(&[0, 128, 0, 2, 0, 0, 0, 9]), Some(Err(2)));
    }

    #[test]
    fn what_is_cut_or_too_long_is_no_answer() {
        let answer = [
            0, 129, 0, 0, 0, 0, 0, 9, 0x9C, 0x40, 0x9C, 0x42, 0, 0, 0, 60,
        ];
        for cut in 0..answer.len() {
            assert_eq!(mapped(&answer[..cut], 40_000), None, "{cut}");
        }
        assert_eq!(mapped(&[&answer[..], &[0]].concat(), 40_000), None);
        for kind in [0, 1, 128, 130] {
            let mut other = answer;
            other[1] = kind;
            assert_eq!(mapped(&other, 40_000), None, "{kind}");
        }
    }
}
