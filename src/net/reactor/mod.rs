//! Readiness of sockets: tasks wait until one can be read or written, with few system calls.
//!
//! The runtime's reactor arms each socket anew for each wait and makes five calls for a turn of its
//! own: 14 system calls at each end for one request of one visitor, instead of 5. Here a socket is
//! registered once, edge-triggered, with an epoll of gt's own, and that epoll is one source for the
//! runtime: see `epoll`. Where there is no epoll, `portable` is the runtime's reactor itself.
//!
//! A reader or writer clears the readiness first and sets it again if there may be more to do. So
//! an event that comes meanwhile is never lost, whichever thread it comes on.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;

#[cfg(any(target_os = "linux", target_os = "android"))]
use epoll::CountedTask;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use epoll::{BlockingGuard, PollSource};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use portable::CountedTask;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use portable::{BlockingGuard, PollSource};

use crate::sync::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

/// What a socket can be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, or the end, can be read.
    Read,
    /// Bytes can be written, or a connection is established.
    Write,
}

/// Whether the next call is likely to succeed, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The next call is likely to succeed.
    More,
    /// The call has emptied the socket, or filled it: wait for the next event.
    Nothing,
}

/// The result of a call on a non-blocking socket.
pub type Outcome<T> = io::Result<(T, Readiness)>;

/// Spawns a detached task on the executor.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    spawn_boxed(Box::pin(CountedTask::new(task)));
}

/// [`spawn`] with one type for all tasks: otherwise the program would contain the executor's code
/// for a task, half a KiB or more, once for each type.
fn spawn_boxed(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    async_std::task::spawn(task);
}

/// Runs blocking work on a thread of the blocking pool, and tells the reactor that a task waits for
/// more than sockets.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let outcome = Arc::new(Mutex::new(None));
    let place = outcome.clone();
    let work = move || {
        let value = work();
        *place.lock() = Some(value);
    };
    on_thread(Box::new(work)).await;
    let value = outcome.lock().take();
    value.unwrap_or_else(|| unreachable!("work that has ended leaves its outcome"))
}

/// [`blocking`] with one type for all work, which keeps the program small.
async fn on_thread(work: Box<dyn FnOnce() + Send>) {
    let _elsewhere = BlockingGuard::begin();
    async_std::task::spawn_blocking(work).await;
}
