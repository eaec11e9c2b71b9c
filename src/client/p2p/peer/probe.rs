//! What a punch (`client/p2p/punch`) needs of a peer: its NAT, and a check that it answers wherever it arrives.

use super::Peer;
use crate::client::p2p::crypto::Ring;
use crate::client::p2p::nat_kind::NatAddress;
use bytes::BytesMut;
use rtc_ice::attributes::control::{AttrControlled, AttrControlling};
use rtc_ice::attributes::priority::PriorityAttr;
use rtc_stun::attributes::ATTR_USERNAME;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{Message, Setter, TransactionId, BINDING_REQUEST};
use rtc_stun::textattrs::TextAttribute;

/// The priority of an address that a check has found (RFC 8445, section 7.1.1): type preference, local preference,
/// component.
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

impl Peer {
    /// Returns the peer's NAT, if the peer has told its kind.
    pub fn nat(&self) -> Option<NatAddress> {
        self.nat
    }

    /// Whether a valid check has come from an address of the peer.
    pub fn has_been_heard(&self) -> bool {
        self.checks.have_heard()
    }

    /// Builds a check that the peer answers from wherever it arrives; `None` before its description is known. ICE does
    /// not know the check, and takes no notice of an answer to it: the peer checks back.
    pub fn probe(&self) -> Option<BytesMut> {
        let theirs = self.agent.get_remote_credentials()?;
        let ours = self.agent.get_local_credentials();
        let role: Box<dyn Setter> = match self.agent.role() {
            true => Box::new(AttrControlling(0)),
            false => Box::new(AttrControlled(0)),
        };
        let username = format!("{}:{}", theirs.ufrag, ours.ufrag);
        let mut check = Message::new();
        let built = check.build(&[
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(ATTR_USERNAME, username)),
            role,
            Box::new(PriorityAttr(PRIORITY)),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                theirs.pwd.clone(),
                &Ring,
            )),
            Box::new(FINGERPRINT),
        ]);
        built.ok().map(|()| BytesMut::from(&check.raw[..]))
    }
}
