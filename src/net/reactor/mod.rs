//! Waiting until a socket can be read or written, with as few system calls as that takes.
//!
//! The runtime's reactor arms each socket anew for each wait and makes five calls for a turn of
//! its own. Here a socket is told of to an epoll of ours once, edge-triggered, and all of that
//! epoll is one source for the runtime: see [`epoll`]. Where there is no epoll, [`portable`] is
//! the runtime's reactor itself.
//!
//! Who reads or writes takes the readiness first and puts it back if there may be more to do. So
//! what comes meanwhile is never forgotten, whichever thread it comes on.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub use epoll::{BlockingGuard, CountedTask, PollSource};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use portable::{Elsewhere, Ran, Source};

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

/// What a socket can be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
}

/// Whether a call has left something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It has: the next call is worth it.
    More,
    /// It has taken, or filled, all there was: wait to be told of more.
    Nothing,
}

/// What a call on a non-blocking socket has brought.
pub type Outcome<T> = io::Result<(T, Readiness)>;

/// Runs a task on the executor. All tasks have one type: the executor's code for a task, half a
/// kibibyte or more, would otherwise be in the program once for each kind of them.
pub fn spawn(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    async_std::task::spawn(task);
}

/// Runs what blocks on a thread for that, and lets the reactor know that a task waits for more
/// than sockets.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let outcome = Arc::new(Mutex::new(None));
    let place = outcome.clone();
    let work = move || {
        let value = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    };
    on_thread(Box::new(work)).await;
    let value = outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    value.unwrap_or_else(|| unreachable!("work that has ended leaves its outcome"))
}

/// Like [`blocking`], of one type for all work, for the sake of the program's size.
async fn on_thread(work: Box<dyn FnOnce() + Send>) {
    let _elsewhere = BlockingGuard::begin();
    async_std::task::spawn_blocking(work).await;
}
