//! The executor threads of systems without epoll: async-std's own.

pub use super::one_shard::{costly_step, ShardId};
use super::{Interest, Outcome, Readiness};
use async_io::Async;
use std::future::Future;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};
use std::{fmt, io};

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

    /// Does nothing: all threads share the reactor.
    pub fn move_to(&self, _: ShardId) -> io::Result<()> {
        Ok(())
    }

    /// Returns the socket.
    pub fn get_ref(&self) -> &T {
        self.io.get_ref()
    }

    /// Does nothing: a socket is watched while a task waits for it.
    pub fn hold(&self) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing.
    pub fn release(&self) -> io::Result<()> {
        Ok(())
    }

    /// Lets the next read be tried.
    pub fn assume_readable(&self) {
        self.readable.store(true, Ordering::SeqCst);
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

/// A future that is ready at a time. It may be set again.
pub struct Timer(async_io::Timer);

impl Timer {
    /// Creates a timer that is ready after this time.
    pub fn after(time: Duration) -> Self {
        Self(async_io::Timer::after(time))
    }

    /// Creates a timer that is ready at this time.
    pub fn at(due: Instant) -> Self {
        Self(async_io::Timer::at(due))
    }

    /// Creates a timer that is never ready until it is set.
    pub fn never() -> Self {
        Self(async_io::Timer::never())
    }

    /// Sets the time after which it is ready.
    pub fn set_after(&mut self, time: Duration) {
        self.0.set_after(time);
    }

    /// Sets the time after which it is ready.
    pub fn set_about(&mut self, time: Duration) {
        self.set_after(time);
    }

    /// Sets the time at which it is ready.
    pub fn set_at(&mut self, due: Instant) {
        self.0.set_at(due);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

/// Sets the number of executor threads. Call it before the first task or socket.
pub fn set_threads(threads: usize) {
    std::env::set_var("ASYNC_STD_THREAD_COUNT", threads.to_string());
}

/// Spawns a detached task.
pub fn spawn(_: ShardId, task: impl Future<Output = ()> + Send + 'static) {
    async_std::task::spawn(task);
}

/// Runs blocking work on a thread of the blocking pool.
pub async fn run_blocking(work: Box<dyn FnOnce() + Send>) {
    blocking::unblock(work).await;
}
