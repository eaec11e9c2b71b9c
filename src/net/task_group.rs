//! A group of running tasks whose end can be awaited.

use event_listener::Event;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A handle of a group of tasks. Clones refer to the same group.
#[derive(Clone, Default)]
pub struct WaitGroup(Arc<Group>);

#[derive(Default)]
struct Group {
    running: AtomicUsize,
    idle: Event,
}

/// One running task of the group; it counts as ended when this is dropped.
pub struct TaskGuard(WaitGroup);

impl WaitGroup {
    /// Counts a task until the guard is dropped.
    pub fn begin(&self) -> TaskGuard {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        TaskGuard(self.clone())
    }

    /// Whether no task is running.
    pub fn is_idle(&self) -> bool {
        self.0.running.load(Ordering::SeqCst) == 0
    }

    /// Waits until no task is running.
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
        if group.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            group.idle.notify(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn a_group_is_idle_when_its_last_task_has_ended() {
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
