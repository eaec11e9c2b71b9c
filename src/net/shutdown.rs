//! A word that is said once and heard by all who wait for it.

use event_listener::Event;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Clones are the same word.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<ShutdownState>);

#[derive(Default)]
struct ShutdownState {
    said: AtomicBool,
    event: Event,
}

impl Shutdown {
    pub fn trigger(&self) {
        self.0.said.store(true, Ordering::SeqCst);
        self.0.event.notify(usize::MAX);
    }

    /// Whether both are the same word.
    pub fn is(&self, other: &Shutdown) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn is_triggered(&self) -> bool {
        self.0.said.load(Ordering::SeqCst)
    }

    pub async fn wait(&self) {
        loop {
            let listener = self.0.event.listen();
            if self.is_triggered() {
                return;
            }
            listener.await;
        }
    }

    /// Runs `task` until it ends or the word is said, whichever is first.
    pub async fn or<T>(&self, task: impl std::future::Future<Output = T>) -> Option<T> {
        futures_lite::future::or(async { Some(task.await) }, async {
            self.wait().await;
            None
        })
        .await
    }
}
