//! What binds a proof to the connection of a peer.

use super::{Peer, PeerState, Transport, SOMEWHERE};
use crate::client::private::ChannelBinding;

/// The label of the keying material that both ends export (RFC 5705; RFC 8446, section 7.5).
const LABEL: &str = "EXPORTER-gt-private-service";
/// Length in bytes of that material.
pub(super) const EXPORTED: usize = 32;

impl Peer {
    /// Returns what only the two ends of this connection have in common; `None` if it is not connected.
    pub fn binding(&self) -> Option<ChannelBinding> {
        if self.state != PeerState::Connected {
            return None;
        }
        let exported = match &self.transport {
            Transport::Quic(quic) => quic.export(LABEL)?.to_vec(),
            Transport::Sctp => {
                let dtls = self.dtls.as_ref()?.get_connection_state(SOMEWHERE)?;
                let exported = dtls.export_keying_material(LABEL, b"", EXPORTED);
                exported.ok()?.into_bytes()
            }
        };
        let [client, server] = self.fingerprints.as_ref()?;
        Some(ChannelBinding::of_peer(&exported, client, server))
    }
}
