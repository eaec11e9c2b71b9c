//! Work that has begun, and who waits until all of it is done.

use event_listener::Event;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Clones are the same group.
#[derive(Clone, Default)]
pub struct WaitGroup(Arc<Group>);

#[derive(Default)]
struct Group {
    working: AtomicUsize,
    idle: Event,
}

/// One piece of work; done when it is dropped.
pub struct TaskGuard(WaitGroup);

impl WaitGroup {
    pub fn begin(&self) -> TaskGuard {
        self.0.working.fetch_add(1, Ordering::SeqCst);
        TaskGuard(self.clone())
    }

    pub fn is_idle(&self) -> bool {
        self.0.working.load(Ordering::SeqCst) == 0
    }

    pub async fn idle(&self) {
        loop {
            let idle = self.0.idle.listen();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let group = &self.0 .0;
        if group.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            group.idle.notify(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn it_is_idle_when_the_last_work_is_done() {
        let group = WaitGroup::default();
        future::block_on(group.idle());
        let (one, other) = (group.begin(), group.clone().begin());
        let mut idle = Box::pin(group.idle());
        let mut is_idle = || future::block_on(future::poll_once(&mut idle)).is_some();
        assert!(!is_idle());
        drop(one);
        assert!(!is_idle() && !group.is_idle());
        drop(other);
        assert!(is_idle() && group.is_idle());
    }
}
