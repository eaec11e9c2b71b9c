//! The limit of peers that visitors may have (webrtcConnections). A permit is taken before anything
//! is awaited and lives as long as the request or peer that it was taken for.

use super::link::PeerHandle;
use super::peer::PeerState;
use crate::net::Shutdown;
use crate::sync::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// The permits in use. Clones refer to the same limit.
#[derive(Clone, Default)]
pub struct PeerLimit(Arc<Mutex<VecDeque<Arc<PeerCounts>>>>);

/// The permit of one peer. It is returned on drop, and may be revoked while the peer is not
/// connected.
pub struct PeerPermit {
    limit: PeerLimit,
    taken: Arc<PeerCounts>,
}

#[derive(Default)]
struct PeerCounts {
    /// Triggered when the permit is revoked.
    revoked: Shutdown,
    /// The peer that holds the permit; `None` while the request is read.
    peer: Mutex<Option<PeerHandle>>,
}

impl PeerCounts {
    fn peer(&self) -> MutexGuard<'_, Option<PeerHandle>> {
        self.peer.lock()
    }

    /// Whether the request or peer is not connected.
    fn is_unconnected(&self) -> bool {
        let peer = self.peer();
        let state = peer.as_ref().map(|link| link.lock().state().clone());
        state != Some(PeerState::Connected)
    }

    fn revoke(&self) {
        self.revoked.trigger();
        let link = self.peer().take();
        if let Some(link) = link {
            link.with(|peer| peer.end("it did not connect, and another peer came"));
        }
    }
}

impl PeerLimit {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<PeerCounts>>> {
        self.0.lock()
    }

    /// Returns one of at most `most` permits. When all are in use, the oldest request or peer that
    /// is not connected loses its permit; `None` if all are connected.
    pub fn acquire(&self, most: usize) -> Option<PeerPermit> {
        let mut all = self.lock();
        let mut revoked = Vec::new();
        // After a reload, `most` may be less than the number in use.
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
    /// Waits until the permit is revoked.
    pub async fn revoked(&self) {
        self.taken.revoked.wait().await;
    }

    /// Assigns the permit to a peer, which is ended if the permit was revoked.
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
