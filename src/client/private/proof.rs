//! What the ends of a connection to a private service prove to each other: that they have its key, at both ends
//! of this very connection (docs/p2p.md, "Private services").

use crate::config::Secret;
use ring::{digest, hmac};

/// Length in bytes of a message: a version and a MAC.
pub const MESSAGE: usize = 1 + MAC;
const MAC: usize = 32;
/// The version of the proof.
const VERSION: u8 = 1;
/// What a MAC begins with, so that it proves nothing else.
const CONTEXT: &[u8] = b"gt private service 1\0";
/// What the digest of a peer's connection begins with.
const PEER_CONTEXT: &[u8] = b"gt private service over DTLS 1\0";

/// What is the same at both ends of one connection, and differs from that of any other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// Of a session of TLS 1.3: what both ends export.
    pub fn of_session(exported: [u8; 32]) -> Self {
        Self(exported)
    }

    /// Of a peer: what both ends export from DTLS, and the fingerprints of both certificates, so that the keying
    /// material cannot be that of another session.
    pub fn of_peer(exported: &[u8], client: &str, server: &str) -> Self {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(PEER_CONTEXT);
        for part in [exported, client.as_bytes(), server.as_bytes()] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            digest.update(&length.to_be_bytes());
            digest.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Self(bytes)
    }
}

/// The end that proves the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvingEnd {
    /// The end that has opened the connection, which proves the key first.
    Dialling,
    /// The end with the service.
    Serving,
}

/// What the connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    Bytes,
    Datagrams,
}

/// Returns the bytes that a MAC is over.
fn signed(end: ProvingEnd, carried: Carried, binding: &ChannelBinding) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    bytes.push(match end {
        ProvingEnd::Dialling => 1,
        ProvingEnd::Serving => 2,
    });
    bytes.push(match carried {
        Carried::Bytes => 1,
        Carried::Datagrams => 2,
    });
    bytes.extend(binding.0);
    bytes
}

/// Returns the message by which an end proves that it has the key.
pub fn prove(
    key: &Secret,
    end: ProvingEnd,
    carried: Carried,
    binding: &ChannelBinding,
) -> [u8; MESSAGE] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, &signed(end, carried, binding));
    let mut message = [VERSION; MESSAGE];
    if let Some(mac) = message.get_mut(1..) {
        mac.copy_from_slice(tag.as_ref());
    }
    message
}

/// Whether a message proves the key. Takes as long for any wrong one.
pub fn is_proof(
    message: &[u8; MESSAGE],
    key: &Secret,
    end: ProvingEnd,
    carried: Carried,
    binding: &ChannelBinding,
) -> bool {
    let [VERSION, mac @ ..] = message else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::verify(&key, &signed(end, carried, binding), mac).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Carried::{Bytes, Datagrams};
    use ProvingEnd::{Dialling, Serving};

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn a_proof_counts_for_its_key_its_end_and_its_connection_only() {
        let (key, here) = (secret("a key of both ends"), ChannelBinding([7; 32]));
        let proof = prove(&key, Dialling, Bytes, &here);
        assert!(is_proof(&proof, &key, Dialling, Bytes, &here));
        let other_key = secret("a key of nobody here");
        let elsewhere = ChannelBinding([8; 32]);
        assert!(!is_proof(&proof, &other_key, Dialling, Bytes, &here));
        assert!(!is_proof(&proof, &key, Serving, Bytes, &here), "reflected");
        assert!(!is_proof(&proof, &key, Dialling, Datagrams, &here));
        assert!(
            !is_proof(&proof, &key, Dialling, Bytes, &elsewhere),
            "replayed"
        );
        for at in 0..MESSAGE {
            let mut damaged = proof;
            damaged[at] ^= 1;
            assert!(!is_proof(&damaged, &key, Dialling, Bytes, &here), "{at}");
        }
    }

    /// As computed by the hmac module of Python.
    #[test]
    fn the_message_is_that_of_the_documentation() {
        let binding = ChannelBinding([0x11; 32]);
        let proof = prove(&secret("0123456789abcdef"), Dialling, Bytes, &binding);
        let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, VECTOR);
    }

    const VECTOR: &str = "0109850097d1cbdccbb83e0f604d63726ba97729994c7f18d598acdeb32e4c08b0";

    #[test]
    fn peers_with_another_certificate_have_another_binding() {
        let binding = ChannelBinding::of_peer(&[1; 32], "AA", "BB");
        assert!(binding == ChannelBinding::of_peer(&[1; 32], "AA", "BB"));
        for other in [
            ChannelBinding::of_peer(&[2; 32], "AA", "BB"),
            ChannelBinding::of_peer(&[1; 32], "BB", "AA"),
            ChannelBinding::of_peer(&[1; 32], "AAB", "B"),
        ] {
            assert!(binding != other);
        }
    }
}
