//! Executor threads, and the one place in which each of them waits.
//!
//! async-std's executor (async-executor) runs the tasks; the threads under it are gt's own. Those of
//! async-std wait in a reactor that arms each socket anew for each wait and makes five calls for a
//! turn: 14 system calls at each end for one request of one visitor. Here there are 6: two reads,
//! two writes, two waits. On Linux a `Shard` waits in one epoll for all that can wake a task: sockets,
//! which are registered once, deadlines, and other threads. With several threads, each has its own
//! tasks and sockets, so that no byte crosses from one to another. Elsewhere `portable` is async-std's
//! own runtime.

#[cfg(any(not(any(target_os = "linux", target_os = "android")), feature = "sim"))]
pub(crate) mod one_shard;
#[cfg(any(target_os = "linux", target_os = "android", feature = "sim"))]
pub(crate) mod readiness;
#[cfg(all(not(feature = "sim"), any(target_os = "linux", target_os = "android")))]
#[path = "linux/mod.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_os = "android", feature = "sim")))]
#[path = "portable.rs"]
mod system;

#[cfg(feature = "sim")]
use crate::sim::runtime as system;
pub use system::{costly_step, set_threads, PollSource, ShardId, Timer};

use super::kernel::AsFd;
use crate::sync::Mutex;
use std::future::{poll_fn, Future};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Poll};

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

impl<T: AsFd> PollSource<T> {
    /// Repeats a call on a socket until it does not block.
    pub async fn call<R>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|cx| loop {
            match self.try_io(interest, |io| Ok((call(io)?, Readiness::More))) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_ready(interest, cx))?;
                }
                result => return Poll::Ready(result),
            }
        })
        .await
    }
}

/// Spawns a detached task on this executor thread.
///
/// All tasks have one type: otherwise the program would contain the executor's code for a task, half
/// a KiB or more, once for each type.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    spawn_on(ShardId::current(), task);
}

/// Spawns a detached task on an executor thread.
pub fn spawn_on(thread: ShardId, task: impl Future<Output = ()> + Send + 'static) {
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
    system::spawn(thread, task);
}

/// Spawns a detached task on an executor thread, without the box of [`spawn_on`]: for a task of
/// which there are thousands.
#[cfg(feature = "server")]
pub fn spawn_unboxed_on(thread: ShardId, task: impl Future<Output = ()> + Send + 'static) {
    system::spawn(thread, task);
}

/// Runs blocking work on a thread of the blocking pool.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let outcome = Arc::new(Mutex::new(None));
    let place = outcome.clone();
    let work = move || {
        let value = work();
        *place.lock() = Some(value);
    };
    // One type for all work keeps the program small.
    system::run_blocking(Box::new(work)).await;
    let value = outcome.lock().take();
    value.unwrap_or_else(|| unreachable!("work that has ended leaves its outcome"))
}
