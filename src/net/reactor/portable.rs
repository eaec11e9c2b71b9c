//! The reactor for systems without epoll: a wrapper of the runtime's own.

use super::{Interest, Outcome, Readiness};
use async_io::Async;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{ready, Context, Poll};

/// A non-blocking socket, or another descriptor that can be polled. One task may wait for each
/// interest at a time.
pub struct PollSource<T: AsFd> {
    io: Async<T>,
    readable: AtomicBool,
    writable: AtomicBool,
}

impl<T: AsFd> PollSource<T> {
    /// Registers `io`. `ready` names the interests that are likely to succeed at once.
    pub fn new(io: T, ready: &[Interest]) -> io::Result<Self> {
        Ok(Self {
            io: Async::new_nonblocking(io)?,
            readable: AtomicBool::new(ready.contains(&Interest::Read)),
            writable: AtomicBool::new(ready.contains(&Interest::Write)),
        })
    }

    /// Returns the socket.
    pub fn get_ref(&self) -> &T {
        self.io.get_ref()
    }

    /// Does nothing: closing the socket ends its registration.
    pub fn withdraw(&self) {}

    fn flag(&self, way: Interest) -> &AtomicBool {
        match way {
            Interest::Read => &self.readable,
            Interest::Write => &self.writable,
        }
    }

    /// Ready when a call is likely not to block.
    pub fn poll_ready(&self, way: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.flag(way).load(Ordering::SeqCst) {
            ready!(match way {
                Interest::Read => self.io.poll_readable(cx),
                Interest::Write => self.io.poll_writable(cx),
            })?;
            self.flag(way).store(true, Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }

    /// Makes a call; `WouldBlock` if it would block.
    pub fn try_io<R>(&self, way: Interest, call: impl FnOnce(&T) -> Outcome<R>) -> io::Result<R> {
        let outcome = call(self.get_ref());
        let more = match &outcome {
            Ok((_, left)) => *left == Readiness::More,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        };
        self.flag(way).store(more, Ordering::SeqCst);
        outcome.map(|(result, _)| result)
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for PollSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get_ref().fmt(f)
    }
}

/// A stub: the runtime's reactor need not know how many turns tasks have had.
pub struct CountedTask;

impl CountedTask {
    #[allow(clippy::new_ret_no_self)]
    pub fn new<F: Future>(task: F) -> F {
        task
    }
}

/// A stub: the runtime's reactor never blocks the executor's thread.
pub struct BlockingGuard(());

impl BlockingGuard {
    pub fn begin() -> Self {
        Self(())
    }
}
