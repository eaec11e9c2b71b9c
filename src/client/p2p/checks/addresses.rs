//! The addresses of a peer whose path is not ICE's to watch any more, see `peer/quic/paths.rs`.

use super::{CandidateState, ConnectivityChecks, InboundCheck, RemoteCandidate, MAX_REMOTES};
use std::net::SocketAddr;
use std::time::Instant;

impl ConnectivityChecks {
    /// Notes that the peer has sent something from an address, which is to be checked like one that has sent a valid
    /// check.
    pub fn hear(&mut self, from: SocketAddr, now: Instant) {
        if self.knows(from) || !self.is_full() {
            self.accept(from, InboundCheck::Request, now);
        }
    }

    /// Whether the peer has as many addresses as it may have.
    pub fn is_full(&self) -> bool {
        self.remotes.len() >= MAX_REMOTES
    }

    /// Forgets the oldest address other than `keep`.
    pub fn forget_one(&mut self, keep: Option<SocketAddr>) {
        if let Some(at) = self.remotes.iter().position(|it| Some(it.addr) != keep) {
            self.remotes.remove(at);
        }
    }

    /// Lets addresses that have not answered be checked as often as new ones.
    pub fn revive(&mut self, now: Instant) {
        let silent = |it: &&mut RemoteCandidate| it.state != CandidateState::Answered;
        for remote in self.remotes.iter_mut().filter(silent) {
            (remote.sent, remote.next) = (0, Some(now));
        }
    }

    /// Returns the addresses of the peer.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.remotes.iter().map(|remote| remote.addr).collect()
    }
}
