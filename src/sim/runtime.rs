//! What gt takes from executor threads, by this thread's world: the items of `net/runtime/portable.rs`.

use super::process;
use super::world::{self, nanos, Action, EventKey};
use crate::net::kernel::AsFd;
pub use crate::net::runtime::one_shard::{costly_step, ShardId};
use crate::net::runtime::readiness::SourceState;
use crate::net::{clock, Interest};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Longest time in nanoseconds that blocking work takes while nothing hangs.
const MAX_WORK: u64 = 2_000_000;

/// A descriptor of the world that tasks wait for.
pub struct PollSource<T: AsFd> {
    state: Arc<SourceState>,
    io: T,
}

impl<T: AsFd> PollSource<T> {
    /// Registers `io`. `ready` names the interests that are likely to succeed at once.
    pub fn new(io: T, ready: &[Interest]) -> io::Result<Self> {
        let state = Arc::new(SourceState::new(ready));
        world::with(|world| world.watch(io.as_fd().number(), &state))?;
        Ok(Self { state, io })
    }

    /// Does nothing: the world has one thread.
    pub fn move_to(&self, _: ShardId) -> io::Result<()> {
        Ok(())
    }

    /// Returns the socket.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Ends the registration.
    pub fn withdraw(&self) {
        world::try_with(|world| world.unwatch(self.io.as_fd().number(), &self.state));
    }

    /// Ready when a call is likely not to block.
    pub fn poll_ready(&self, way: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let number = self.io.as_fd().number();
        let ask_for_room = || world::with(|world| world.ask_for_room(number)).map(drop);
        match self.state.poll(way, cx, ask_for_room) {
            // Asking may have found room at once.
            Poll::Pending => self.state.poll(way, cx, || Ok(())),
            ready => ready,
        }
    }

    /// Makes a call if it is likely not to block.
    pub fn try_io<R>(
        &self,
        way: Interest,
        call: impl FnOnce(&T) -> crate::net::runtime::Outcome<R>,
    ) -> io::Result<R> {
        self.state.try_io(way, || call(&self.io))
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for PollSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.fmt(f)
    }
}

impl<T: AsFd> Drop for PollSource<T> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// A future that is ready at a time, at most a millisecond late. It may be set again.
pub struct Timer {
    due: Option<Instant>,
    event: Option<EventKey>,
}

impl Timer {
    /// Creates a timer that is ready after this time.
    pub fn after(time: Duration) -> Self {
        Self {
            due: clock::now().checked_add(time),
            event: None,
        }
    }

    /// Creates a timer that is ready at this time.
    pub fn at(due: Instant) -> Self {
        Self {
            due: Some(due),
            event: None,
        }
    }

    /// Creates a timer that is never ready until it is set.
    pub fn never() -> Self {
        Self {
            due: None,
            event: None,
        }
    }

    /// Sets the time after which it is ready.
    pub fn set_after(&mut self, time: Duration) {
        self.cancel();
        self.due = clock::now().checked_add(time);
    }

    /// Sets the time after which it is ready, at most a sixteenth later.
    pub fn set_about(&mut self, time: Duration) {
        let late = super::between(0, nanos(time) / 16);
        self.set_after(time.saturating_add(Duration::from_nanos(late)));
    }

    /// Sets the time at which it is ready.
    pub fn set_at(&mut self, due: Instant) {
        self.cancel();
        self.due = Some(due);
    }

    fn cancel(&mut self) {
        if let Some(event) = self.event.take() {
            world::try_with(|world| world.cancel(event));
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        if clock::now() >= due {
            self.cancel();
            return Poll::Ready(());
        }
        let event = self.event;
        self.event = world::with(|world| {
            if let Some(event) = event {
                if world.change_waker(event, cx.waker()) {
                    return Some(event);
                }
            }
            let late = world.random.between(0, 1_000_000);
            let time = nanos(due.saturating_duration_since(world::base()));
            Some(world.at(time.saturating_add(late), Action::Wake(cx.waker().clone())))
        });
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Does nothing: the world has one thread.
pub fn set_threads(_: usize) {}

/// Spawns a detached task of the running process.
pub fn spawn(_: ShardId, task: impl Future<Output = ()> + Send + 'static) {
    if let Some(id) = process::current() {
        process::spawn_boxed(id, Box::pin(task));
    }
}

/// Runs blocking work in one turn, after a while.
pub async fn run_blocking(work: Box<dyn FnOnce() + Send>) {
    let due = world::with(|world| {
        let takes = world.random.between(0, MAX_WORK);
        let hangs_until = world
            .running()
            .map_or(0, |(_, process)| process.disk_hangs_until);
        world.now.max(hangs_until) + takes
    });
    Timer::at(world::base() + Duration::from_nanos(due)).await;
    work();
}
