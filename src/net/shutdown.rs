//! A one-shot broadcast: every waiter wakes when it is triggered.

use event_listener::Event;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A handle of a one-shot broadcast, with which a role ends its tasks. Clones refer to the same
/// broadcast.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<ShutdownState>);

#[derive(Default)]
struct ShutdownState {
    triggered: AtomicBool,
    event: Event,
}

impl Shutdown {
    /// Wakes every present and future waiter.
    pub fn trigger(&self) {
        self.0.triggered.store(true, Ordering::SeqCst);
        self.0.event.notify(usize::MAX);
    }

    /// Whether both handles refer to the same broadcast.
    pub fn is(&self, other: &Shutdown) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the broadcast has been triggered.
    pub fn is_triggered(&self) -> bool {
        self.0.triggered.load(Ordering::SeqCst)
    }

    /// Waits until the broadcast is triggered.
    pub async fn wait(&self) {
        loop {
            let listener = self.0.event.listen();
            if self.is_triggered() {
                return;
            }
            listener.await;
        }
    }

    /// Runs `task` until it ends or the broadcast is triggered, whichever is first; then returns
    /// `None`.
    pub async fn or<T>(&self, task: impl std::future::Future<Output = T>) -> Option<T> {
        futures_lite::future::or(async { Some(task.await) }, async {
            self.wait().await;
            None
        })
        .await
    }
}
