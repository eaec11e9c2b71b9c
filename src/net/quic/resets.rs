//! Stateless resets (RFC 9000, section 10.3): what a server answers to the packets of connections that it does not know,
//! such as those from before it was killed, so that their clients connect anew at once.

#[cfg(feature = "server")]
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};
use std::time::{Duration, Instant};

/// Time after which the processes that had an inherited socket before have ended, a minute more than their streams may
/// take (docs/operations.md, "Restart").
const INHERITANCE: Duration = Duration::from_secs(3 * 60);

/// Returns from when on a server's endpoint that starts now may reset connections that it does not know: the processes
/// that had an inherited socket before may have them.
pub fn begin(is_inherited: bool, now: Instant) -> Instant {
    match is_inherited {
        true => now + INHERITANCE,
        false => now,
    }
}

/// Whether an answer to this packet can only be a reset: it has a short header.
pub fn is_answered_by_reset(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x80 == 0)
}

/// The generator of a server's connection IDs. It takes any ID for one of its own: the protocol answers no packet of
/// others with a reset, and after a kill those of the process before are others.
#[cfg(feature = "server")]
pub struct ServerIds(pub HashedConnectionIdGenerator);

#[cfg(feature = "server")]
impl ConnectionIdGenerator for ServerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.0.generate_cid()
    }

    fn cid_len(&self) -> usize {
        self.0.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.0.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_inherited_a_socket_resets_nothing_while_others_may_have_connections() {
        let now = Instant::now();
        assert_eq!(begin(false, now), now);
        assert!(begin(true, now) > now + Duration::from_secs(120));
    }

    #[test]
    fn only_short_headers_are_answered_by_resets() {
        assert!(is_answered_by_reset(&[0x40]) && is_answered_by_reset(&[0]));
        assert!(!is_answered_by_reset(&[0xC0]) && !is_answered_by_reset(&[]));
    }
}
