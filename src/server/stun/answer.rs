//! Answers of a basic STUN server (RFC 8489, section 12), without I/O.
//!
//! Requests can have a forged source address, so an answer must not amplify: it has no SOFTWARE, no
//! text with an error code, and a FINGERPRINT only if the request has one. A success is at most as
//! long as the request plus the address, an error at most 1.5 times the request.

use rtc_stun::attributes::{
    AttrType, ATTR_ERROR_CODE, ATTR_FINGERPRINT, ATTR_MAPPED_ADDRESS, ATTR_MESSAGE_INTEGRITY,
    ATTR_MESSAGE_INTEGRITY_SHA256, ATTR_NONCE, ATTR_PASSWORD_ALGORITHM, ATTR_REALM,
    ATTR_UNKNOWN_ATTRIBUTES, ATTR_USERNAME, ATTR_USER_HASH, ATTR_XORMAPPED_ADDRESS,
};
use rtc_stun::error_code::{ErrorCodeAttribute, CODE_UNKNOWN_ATTRIBUTE};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::message::{
    is_stun_message, Message, Setter, BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS,
    MESSAGE_HEADER_SIZE,
};
use rtc_stun::uattrs::UnknownAttributes;
use rtc_stun::xoraddr::XorMappedAddress;
use std::net::SocketAddr;

/// The attributes of RFC 8489 that a receiver must understand. In a request this server ignores
/// them: it has no users whose integrity could be checked.
const KNOWN: [AttrType; 11] = [
    ATTR_MAPPED_ADDRESS,
    ATTR_USERNAME,
    ATTR_MESSAGE_INTEGRITY,
    ATTR_ERROR_CODE,
    ATTR_UNKNOWN_ATTRIBUTES,
    ATTR_REALM,
    ATTR_NONCE,
    ATTR_MESSAGE_INTEGRITY_SHA256,
    ATTR_PASSWORD_ALGORITHM,
    ATTR_USER_HASH,
    ATTR_XORMAPPED_ADDRESS,
];

/// An encoded answer.
#[derive(Debug)]
pub struct StunResponse {
    /// The datagram to send.
    pub bytes: Vec<u8>,
    /// Whether it is an error response.
    pub is_error: bool,
}

/// Checks that a datagram has the header of a binding request. The error says what is wrong.
///
/// Requests without the magic cookie follow RFC 3489, which no WebRTC peer uses: its purpose,
/// telling kinds of NAT apart, takes a server with two addresses. Requiring the cookie also leaves
/// scanners without an answer.
pub fn could_be_request(datagram: &[u8]) -> Result<(), &'static str> {
    if !is_stun_message(datagram) {
        return Err("not a STUN message");
    }
    let mut numbers = datagram.chunks_exact(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    });
    if numbers.next() != Some(BINDING_REQUEST.value()) {
        return Err("not a binding request");
    }
    let length = datagram.len().saturating_sub(MESSAGE_HEADER_SIZE);
    if numbers.next().map(usize::from) != Some(length) || !length.is_multiple_of(4) {
        return Err("the length field does not match the datagram");
    }
    Ok(())
}

/// Encodes the answer to a datagram that passed [`could_be_request`]. The error says why there is none.
pub fn to(datagram: &[u8], from: SocketAddr) -> Result<StunResponse, &'static str> {
    let mut request = Message::default();
    let decoded = request.unmarshal_binary(datagram);
    decoded.map_err(|_| "malformed attributes")?;
    let attributes = &request.attributes.0;
    let has_fingerprint = request.contains(ATTR_FINGERPRINT);
    if has_fingerprint {
        let last = attributes.last().map(|attribute| attribute.typ);
        if last != Some(ATTR_FINGERPRINT) || FINGERPRINT.check(&request).is_err() {
            return Err("wrong fingerprint");
        }
    }
    // Attributes after the integrity are not covered by it and must be ignored.
    let is_integrity = |typ| typ == ATTR_MESSAGE_INTEGRITY || typ == ATTR_MESSAGE_INTEGRITY_SHA256;
    let types = attributes.iter().map(|attribute| attribute.typ);
    let mut unknown: Vec<AttrType> = types
        .take_while(|typ| !is_integrity(*typ))
        .filter(|typ| typ.required() && !KNOWN.contains(typ))
        .collect();
    unknown.sort_unstable_by_key(AttrType::value);
    unknown.dedup();

    let is_error = !unknown.is_empty();
    let mut setters: Vec<Box<dyn Setter>> = Vec::new();
    if is_error {
        setters.push(Box::new(BINDING_ERROR));
        setters.push(Box::new(request.transaction_id));
        setters.push(Box::new(ErrorCodeAttribute {
            code: CODE_UNKNOWN_ATTRIBUTE,
            reason: Vec::new(),
        }));
        setters.push(Box::new(UnknownAttributes(unknown)));
    } else {
        setters.push(Box::new(BINDING_SUCCESS));
        setters.push(Box::new(request.transaction_id));
        setters.push(Box::new(XorMappedAddress {
            ip: from.ip().to_canonical(),
            port: from.port(),
        }));
    }
    if has_fingerprint {
        setters.push(Box::new(FINGERPRINT));
    }
    let mut answer = Message::new();
    let built = answer.build(&setters);
    built.map_err(|_| "the answer is too long")?;
    Ok(StunResponse {
        bytes: answer.raw,
        is_error,
    })
}

#[cfg(test)]
mod tests;
