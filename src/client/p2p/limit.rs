//! How many peers visitors may have at a time (webrtcConnections). A permit is taken before
//! anything is awaited and lives as long as the request or the peer it was taken for.

use super::link::PeerHandle;
use super::peer::PeerState;
use crate::net::Shutdown;
use crate::sync::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// The permits that are out. Clones are the same limit.
#[derive(Clone, Default)]
pub struct PeerLimit(Arc<Mutex<VecDeque<Arc<PeerCounts>>>>);

/// The right to one peer. It is given back when it is dropped, or taken back from one that is not
/// connected.
pub struct PeerPermit {
    limit: PeerLimit,
    taken: Arc<PeerCounts>,
}

#[derive(Default)]
struct PeerCounts {
    /// Triggered when the permit is taken back.
    revoked: Shutdown,
    /// The peer that it is for; none while the request is read.
    peer: Mutex<Option<PeerHandle>>,
}

impl PeerCounts {
    fn peer(&self) -> MutexGuard<'_, Option<PeerHandle>> {
        self.peer.lock()
    }

    /// Whether nothing came of it so far.
    fn is_unconnected(&self) -> bool {
        let peer = self.peer();
        let state = peer.as_ref().map(|link| link.lock().state().clone());
        state != Some(PeerState::Connected)
    }

    fn revoke(&self) {
        self.revoked.trigger();
        let link = self.peer().take();
        if let Some(link) = link {
            link.with(|peer| peer.end("it did not connect, and another came"));
        }
    }
}

impl PeerLimit {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<PeerCounts>>> {
        self.0.lock()
    }

    /// A permit, of at most `most`. When all are out, the oldest peer or request that is not
    /// connected loses its permit; `None` if all are connected.
    pub fn acquire(&self, most: usize) -> Option<PeerPermit> {
        let mut all = self.lock();
        let mut revoked = Vec::new();
        // After a reload `most` may be less than there are.
        while all.len() >= most {
            let Some(oldest) = all.iter().position(|taken| taken.is_unconnected()) else {
                break;
            };
            revoked.extend(all.remove(oldest));
        }
        let taken = (all.len() < most).then(Arc::<PeerCounts>::default);
        all.extend(taken.clone());
        drop(all);
        revoked.iter().for_each(|taken| taken.revoke());
        let limit = self.clone();
        Some(PeerPermit {
            limit,
            taken: taken?,
        })
    }
}

impl PeerPermit {
    /// Waits until the permit is taken back.
    pub async fn revoked(&self) {
        self.taken.revoked.wait().await;
    }

    /// Makes it the permit of a peer. If it has been taken back, the peer is over.
    pub fn hold(&self, link: &PeerHandle) {
        *self.taken.peer() = Some(link.clone());
        if self.taken.revoked.is_triggered() {
            self.taken.revoke();
        }
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        let mut all = self.limit.lock();
        all.retain(|taken| !Arc::ptr_eq(taken, &self.taken));
    }
}
