//! The handle of a peer, which its task and its channels share.

use super::peer::{Peer, PeerState};
use crate::net::{clock, timeout};
use crate::sync::{Mutex, MutexGuard};
use event_listener::Event;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Time after which a peer that is lost counts as silent: 8 s after the last sign of it.
const SILENT_AFTER_LOST: Duration = Duration::from_secs(6);

/// A handle of a peer. Clones refer to the same peer.
#[derive(Clone)]
pub struct PeerHandle(Arc<PeerHandleState>);

struct PeerHandleState {
    ufrag: String,
    peer: Mutex<Peer>,
    driver: Mutex<Option<Waker>>,
    /// Notified when the peer's state has changed.
    changed: Event,
}

impl PeerHandle {
    /// Wraps a peer. Its task has to be started separately.
    pub fn new(peer: Peer) -> Self {
        Self(Arc::new(PeerHandleState {
            ufrag: peer.ufrag().to_owned(),
            peer: Mutex::new(peer),
            driver: Mutex::default(),
            changed: Event::new(),
        }))
    }

    /// Returns the ICE user fragment of this end, see [`Peer::ufrag`].
    pub fn ufrag(&self) -> &str {
        &self.0.ufrag
    }

    /// Whether both handles refer to the same peer.
    pub fn is(&self, other: &PeerHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Locks the peer. An event for it must wake its task, see [`PeerHandle::with`].
    pub fn lock(&self) -> MutexGuard<'_, Peer> {
        self.0.peer.lock()
    }

    /// Calls `event` on the peer and wakes its task.
    pub fn with<T>(&self, event: impl FnOnce(&mut Peer) -> T) -> T {
        let result = event(&mut self.lock());
        self.wake();
        result
    }

    /// Passes a datagram to the peer; false if it is not this peer's. A panic in one of the
    /// libraries ends this peer only, because the calling task receives for all peers.
    pub fn receive(&self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        self.contain(|peer| peer.receive(from, bytes, now))
    }

    fn contain(&self, event: impl FnOnce(&mut Peer) -> bool) -> bool {
        let is_taken = catch_unwind(AssertUnwindSafe(|| self.with(event)));
        is_taken.unwrap_or_else(|_| {
            self.with(|peer| peer.end("an internal error, see the log"));
            true
        })
    }

    fn wake(&self) {
        let driver = self.0.driver.lock().take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Waits until the peer is connected; false if it never will be.
    pub async fn connected(&self) -> bool {
        loop {
            let changed = self.0.changed.listen();
            match self.lock().state() {
                PeerState::Connecting => {}
                PeerState::Connected => return true,
                PeerState::Over(_) => return false,
            }
            changed.await;
        }
    }

    /// Waits until the peer has ended, and returns the reason.
    pub async fn over(&self) -> &'static str {
        loop {
            let changed = self.0.changed.listen();
            if let PeerState::Over(why) = self.lock().state() {
                return why;
            }
            changed.await;
        }
    }

    /// Waits until no address of the peer answers; `None` once it has ended.
    pub async fn lost(&self) -> Option<()> {
        loop {
            let changed = self.0.changed.listen();
            {
                let peer = self.lock();
                if matches!(peer.state(), PeerState::Over(_)) {
                    return None;
                }
                if peer.is_lost() {
                    return Some(());
                }
            }
            changed.await;
        }
    }

    /// Waits until an address of a peer answers again, or the peer has ended.
    pub async fn found(&self) {
        loop {
            let changed = self.0.changed.listen();
            if !self.lock().is_lost() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until no address of the peer has answered for a while, as long as it takes to notice that over SCTP, or it
    /// has ended.
    pub async fn silent(&self) {
        while self.lost().await.is_some() {
            if timeout(SILENT_AFTER_LOST, self.found()).await.is_none() {
                return;
            }
        }
    }

    /// Waits until the readers of an ended peer have taken the bytes held for them, or lose them.
    pub async fn drained(&self) {
        poll_fn(|cx| {
            self.set_driver(cx.waker());
            let mut peer = self.lock();
            peer.memory().set_driver(cx.waker());
            match peer.is_drained(clock::now()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Sets the task that is woken by the next event.
    pub fn set_driver(&self, waker: &Waker) {
        *self.0.driver.lock() = Some(waker.clone());
    }

    /// Wakes the tasks that wait for another state of the peer.
    pub fn state_changed(&self) {
        self.0.changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests;
