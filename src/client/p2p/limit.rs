//! How many peers visitors may have at a time (webrtcConnections). A permit is taken before
//! anything is awaited and lives as long as the request or the peer it was taken for.

use super::link::Link;
use super::peer::State;
use crate::net::Stop;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The permits that are out. Clones are the same limit.
#[derive(Clone, Default)]
pub struct PeerLimit(Arc<Mutex<VecDeque<Arc<Taken>>>>);

/// The right to one peer. It is given back when it is dropped, or taken back from one that is not
/// connected.
pub struct Permit {
    limit: PeerLimit,
    taken: Arc<Taken>,
}

#[derive(Default)]
struct Taken {
    /// Triggered when the permit is taken back.
    revoked: Stop,
    /// The peer that it is for; none while the request is read.
    peer: Mutex<Option<Link>>,
}

impl Taken {
    fn peer(&self) -> MutexGuard<'_, Option<Link>> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing came of it so far.
    fn is_unconnected(&self) -> bool {
        let peer = self.peer();
        let state = peer.as_ref().map(|link| link.lock().state().clone());
        state != Some(State::Connected)
    }

    fn revoke(&self) {
        self.revoked.say();
        let link = self.peer().take();
        if let Some(link) = link {
            link.with(|peer| peer.end("it did not connect, and another came"));
        }
    }
}

impl PeerLimit {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Taken>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit, of at most `most`. When all are out, the oldest peer or request that is not
    /// connected loses its permit; `None` if all are connected.
    pub fn acquire(&self, most: usize) -> Option<Permit> {
        let mut all = self.lock();
        let mut revoked = Vec::new();
        // After a reload `most` may be less than there are.
        while all.len() >= most {
            let Some(oldest) = all.iter().position(|taken| taken.is_unconnected()) else {
                break;
            };
            revoked.extend(all.remove(oldest));
        }
        let taken = (all.len() < most).then(Arc::<Taken>::default);
        all.extend(taken.clone());
        drop(all);
        revoked.iter().for_each(|taken| taken.revoke());
        let limit = self.clone();
        Some(Permit {
            limit,
            taken: taken?,
        })
    }
}

impl Permit {
    /// Waits until the permit is taken back.
    pub async fn revoked(&self) {
        self.taken.revoked.heard().await;
    }

    /// Makes it the permit of a peer. If it has been taken back, the peer is over.
    pub fn hold(&self, link: &Link) {
        *self.taken.peer() = Some(link.clone());
        if self.taken.revoked.is_said() {
            self.taken.revoke();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut all = self.limit.lock();
        all.retain(|taken| !Arc::ptr_eq(taken, &self.taken));
    }
}
