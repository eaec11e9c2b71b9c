//! What a client signs to log in with its key (docs/wire.md, "Login with a key"). Not the bytes of the
//! hello around it.

use super::public_key::{PublicKey, Signature};

/// Length of a challenge in bytes.
pub const CHALLENGE: usize = 32;
/// The beginning of every signed message, which makes it different from messages of other protocols.
const CONTEXT: &[u8] = b"gt login with a key 1\0";

/// Random bytes that a server has chosen for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; CHALLENGE]);

/// What binds a signature to the connection that it is sent on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nothing: the connection is not encrypted, and an attacker who changes its bytes can pass a signature on.
    Plain,
    /// The exported keying material of TLS 1.3 (RFC 9266), which no other connection has.
    TlsExporter([u8; 32]),
}

impl Challenge {
    /// Returns the message that the client with this id signs.
    fn message(&self, binding: &Binding, id: &str) -> Vec<u8> {
        let (kind, exported) = match binding {
            Binding::Plain => (0, &[0; 32]),
            Binding::TlsExporter(exported) => (1, exported),
        };
        // All parts but the last have a fixed length, so no two sets of parts make the same message.
        [CONTEXT, &self.0, &[kind], exported, id.as_bytes()].concat()
    }

    /// Signs the challenge.
    #[cfg(feature = "client")]
    pub fn sign(&self, key: &super::PrivateKey, binding: &Binding, id: &str) -> Signature {
        key.sign(&self.message(binding, id))
    }

    /// Whether the signature is that of this key, for this challenge, connection and id.
    pub fn is_signed(
        &self,
        key: &PublicKey,
        signature: &Signature,
        binding: &Binding,
        id: &str,
    ) -> bool {
        key.has_signed(&self.message(binding, id), signature)
    }
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "keys"))]
mod tests {
    use super::super::PrivateKey;
    use super::*;

    #[test]
    fn a_signature_is_for_one_challenge_connection_id_and_key() {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let challenge = Challenge([1; CHALLENGE]);
        let bound = Binding::TlsExporter([2; 32]);
        let signature = challenge.sign(&key, &bound, "id1");
        let public = key.public_key();
        assert!(challenge.is_signed(&public, &signature, &bound, "id1"));
        let elsewhere = [
            (Challenge([3; CHALLENGE]), public, bound, "id1"),
            (challenge, other.public_key(), bound, "id1"),
            (challenge, public, Binding::TlsExporter([3; 32]), "id1"),
            (challenge, public, Binding::TlsExporter([0; 32]), "id1"),
            (challenge, public, Binding::Plain, "id1"),
            (challenge, public, bound, "id2"),
            (challenge, public, bound, "id"),
        ];
        for (at, (challenge, key, binding, id)) in elsewhere.into_iter().enumerate() {
            let is_signed = challenge.is_signed(&key, &signature, &binding, id);
            assert!(!is_signed, "number {at}");
        }
        let mut changed = signature;
        changed[63] ^= 1;
        assert!(!challenge.is_signed(&public, &changed, &bound, "id1"));
    }
}
