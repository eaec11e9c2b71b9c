//! The connectivity checks of a QUIC connection's path, and the answers to the peer's (RFC 8445, section 7). Parsing
//! and writing only.

use crate::client::p2p::crypto::Ring;
use rtc_dtls::crypto_provider::RTCCrypto;
use rtc_ice::attributes::control::{AttrControlled, AttrControlling};
use rtc_ice::attributes::priority::PriorityAttr;
use rtc_ice::Credentials;
use rtc_stun::attributes::ATTR_USERNAME;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{Getter, Message, Setter, TransactionId, BINDING_REQUEST, BINDING_SUCCESS};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;
use std::net::SocketAddr;

/// The priority of a peer-reflexive address that a check would create (RFC 8445, section 5.1.2).
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// A check of the peer, and the answer to it.
    Request(Vec<u8>),
    /// An answer to a check of this end.
    Answer,
}

fn build(setters: &[Box<dyn Setter + '_>]) -> Option<Vec<u8>> {
    let mut message = Message::new();
    message.build(setters).ok()?;
    Some(message.raw)
}

fn integrity(password: &str) -> Box<MessageIntegrity<'static>> {
    const CRYPTO: &dyn RTCCrypto = &Ring;
    Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
        password.to_owned(),
        CRYPTO,
    ))
}

/// Writes a check of the peer's address.
pub(super) fn request(ours: &Credentials, theirs: &Credentials, controls: bool) -> Option<Vec<u8>> {
    let role: Box<dyn Setter> = match controls {
        true => Box::<AttrControlling>::default(),
        false => Box::<AttrControlled>::default(),
    };
    build(&[
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(
            ATTR_USERNAME,
            format!("{}:{}", theirs.ufrag, ours.ufrag),
        )),
        role,
        Box::new(PriorityAttr(PRIORITY)),
        integrity(&theirs.pwd),
        Box::new(FINGERPRINT),
    ])
}

/// Reads a message from `from`; `None` if it is not the peer's.
pub(super) fn read(
    ours: &Credentials,
    theirs: &Credentials,
    from: SocketAddr,
    bytes: &[u8],
) -> Option<Checked> {
    let mut message = Message::new();
    message.raw = bytes.to_vec();
    message.decode().ok()?;
    if message.typ == BINDING_SUCCESS {
        MessageIntegrity::check(&mut message, theirs.pwd.as_bytes(), &Ring).ok()?;
        return Some(Checked::Answer);
    }
    if message.typ != BINDING_REQUEST {
        return None;
    }
    let mut name = TextAttribute::new(ATTR_USERNAME, String::new());
    name.get_from(&message).ok()?;
    if name.text != format!("{}:{}", ours.ufrag, theirs.ufrag) {
        return None;
    }
    MessageIntegrity::check(&mut message, ours.pwd.as_bytes(), &Ring).ok()?;
    let mapped = XorMappedAddress {
        ip: from.ip(),
        port: from.port(),
    };
    let id = message.transaction_id;
    build(&[
        Box::new(BINDING_SUCCESS),
        Box::new(id),
        Box::new(mapped),
        integrity(&ours.pwd),
        Box::new(FINGERPRINT),
    ])
    .map(Checked::Request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::p2p::peer::SOMEWHERE;

    fn credentials(name: &str) -> Credentials {
        Credentials {
            ufrag: name.to_owned(),
            pwd: format!("{name}-and-a-long-password"),
        }
    }

    #[test]
    fn a_check_is_answered_and_the_answer_is_recognized() {
        let (a, b) = (credentials("aaaa"), credentials("bbbb"));
        let check = request(&a, &b, true).unwrap();
        let Some(Checked::Request(answer)) = read(&b, &a, SOMEWHERE, &check) else {
            panic!("the check is not recognized");
        };
        assert_eq!(answer[8..20], check[8..20], "the transaction");
        assert_eq!(read(&a, &b, SOMEWHERE, &answer), Some(Checked::Answer));
    }

    #[test]
    fn messages_without_the_password_are_not_the_peers() {
        let (a, b) = (credentials("aaaa"), credentials("bbbb"));
        let check = request(&a, &b, true).unwrap();
        let mut other = b.clone();
        other.pwd = "another-long-password-of-it".to_owned();
        assert_eq!(read(&other, &a, SOMEWHERE, &check), None);
        assert_eq!(read(&a, &b, SOMEWHERE, &check), None, "another name");
        for at in 0..check.len() {
            let mut check = check.clone();
            check[at] ^= 1;
            assert!(
                !matches!(read(&b, &a, SOMEWHERE, &check), Some(Checked::Answer)),
                "{at}"
            );
            let _ = read(&b, &a, SOMEWHERE, &check[..at]);
        }
    }
}
