//! Idle HTTP connections that are kept for the next request. They are not checked: a dead one is
//! found when it is used.

use crate::net::{clock, Conn, Timer};
use crate::sync::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Maximum number of idle connections.
pub(super) const MAX_IDLE: usize = 4;
/// Time that an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct IdleConnections(Mutex<IdleState>);

#[derive(Default)]
struct IdleState {
    /// Idle connections with the time to close each, oldest first.
    conns: VecDeque<(Instant, Conn)>,
    /// Whether the task that closes them is running.
    watched: bool,
}

impl IdleConnections {
    fn lock(&self) -> MutexGuard<'_, IdleState> {
        self.0.lock()
    }

    /// Returns the connection that was used last.
    pub(super) fn take(&self) -> Option<Conn> {
        self.lock().conns.pop_back().map(|(_, conn)| conn)
    }

    pub(super) fn put(self: &Arc<Self>, conn: Conn) {
        let mut inner = self.lock();
        let end = clock::now() + IDLE_TIMEOUT;
        inner.conns.push_back((end, conn));
        if inner.conns.len() > MAX_IDLE {
            inner.conns.pop_front();
        }
        if !std::mem::replace(&mut inner.watched, true) {
            crate::net::spawn(watch(Arc::downgrade(self), end));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().conns.len()
    }
}

/// Closes connections whose time has come, until none is left.
async fn watch(idle: Weak<IdleConnections>, mut next: Instant) {
    loop {
        Timer::at(next).await;
        let Some(idle) = idle.upgrade() else {
            return;
        };
        let mut inner = idle.lock();
        let now = clock::now();
        inner.conns.retain(|(end, _)| *end > now);
        match inner.conns.front() {
            Some((end, _)) => next = *end,
            None => {
                inner.watched = false;
                return;
            }
        }
    }
}
