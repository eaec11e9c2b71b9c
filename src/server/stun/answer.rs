//! What a basic STUN server answers (RFC 8489, section 12). Datagrams in, datagrams out.
//!
//! An answer must be no weapon against whom its request was forged to come from. So there is no
//! SOFTWARE in it, no text beside an error's number, and FINGERPRINT only where the request has
//! it: it is never longer than the request and the address, an error never than 1.5 requests.

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

/// What there is in RFC 8489 of attributes that have to be understood. Where they are not expected
/// they are to be passed over; there are no users here whose word could be checked.
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

#[derive(Debug)]
pub struct StunResponse {
    pub bytes: Vec<u8>,
    pub is_error: bool,
}

/// Whether it has the head of a binding request. The error says why not.
///
/// Requests without the magic cookie are of RFC 3489, which no peer of WebRTC speaks. What its
/// clients were for, telling kinds of NAT apart, takes a server of two addresses; and the cookie
/// keeps those who look for something that answers anything away.
pub fn could_be_request(datagram: &[u8]) -> Result<(), &'static str> {
    if !is_stun_message(datagram) {
        return Err("it is not STUN");
    }
    let mut numbers = datagram.chunks_exact(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    });
    if numbers.next() != Some(BINDING_REQUEST.value()) {
        return Err("it is no binding request");
    }
    let length = datagram.len().saturating_sub(MESSAGE_HEADER_SIZE);
    if numbers.next().map(usize::from) != Some(length) || !length.is_multiple_of(4) {
        return Err("its length is not what it says");
    }
    Ok(())
}

/// The answer to a datagram that [`could_be_request`]. The error says why there is none.
pub fn to(datagram: &[u8], from: SocketAddr) -> Result<StunResponse, &'static str> {
    let mut request = Message::default();
    let decoded = request.unmarshal_binary(datagram);
    decoded.map_err(|_| "its attributes are malformed")?;
    let attributes = &request.attributes.0;
    let has_fingerprint = request.contains(ATTR_FINGERPRINT);
    if has_fingerprint {
        let last = attributes.last().map(|attribute| attribute.typ);
        if last != Some(ATTR_FINGERPRINT) || FINGERPRINT.check(&request).is_err() {
            return Err("its fingerprint is wrong");
        }
    }
    // What stands behind the integrity is not covered by it, and counts for nothing.
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
    built.map_err(|_| "its answer does not fit")?;
    Ok(StunResponse {
        bytes: answer.raw,
        is_error,
    })
}

#[cfg(test)]
mod tests;
