//! The reactor on Linux: one edge-triggered epoll, and one task of the runtime, the driver, that
//! polls it.
//!
//! While sockets are busy, the driver polls each time all other tasks have run; with nothing else
//! to do it waits in epoll itself, so that a turn is one system call. That blocks the executor's
//! thread, so it lasts for [`SLICE`] at most: timers and the results of other threads wait for it.
//! When nothing comes in that time, the driver leaves the waiting to the runtime.

use super::{Interest, Outcome, Readiness};
use crate::sync::{Mutex, MutexGuard};
use async_io::Async;
use rustix::event::{epoll, Timespec};
use slab::Slab;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// How long the driver blocks the executor's thread at a time.
const SLICE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// Maximum number of events taken at a time.
const EVENTS: usize = 128;
/// Maximum number of times that all other tasks run before the driver polls again.
const PASSES: u32 = 4;

/// The events that every socket is registered for.
const TOLD: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

const READ: u8 = 1;
const WRITE: u8 = 2;
/// Bit of a socket whose peer has ended its direction, or whose connection has failed. No more
/// events follow, so a read that found nothing must not wait: it has still to see the end.
const ENDED: u8 = 4;

/// Number of turns that counted tasks have had. Wraps.
static RAN: AtomicU32 = AtomicU32::new(0);
/// Number of tasks that wait for another thread.
static ELSEWHERE: AtomicU32 = AtomicU32::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder of the lock can panic half-way through a change.
    mutex.lock()
}

struct Reactor {
    /// Registered with the runtime, which sees when it has events.
    epoll: Async<OwnedFd>,
    states: Mutex<Slab<Arc<ReactorState>>>,
}

#[derive(Default)]
struct ReactorState {
    ready: AtomicU8,
    /// Whether the socket is registered for writability too.
    tells_of_room: AtomicBool,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Reactor {
    fn get() -> io::Result<&'static Self> {
        static REACTOR: OnceLock<Reactor> = OnceLock::new();
        static BEGUN: Mutex<()> = Mutex::new(());
        if let Some(reactor) = REACTOR.get() {
            return Ok(reactor);
        }
        let _begun = lock(&BEGUN);
        if let Some(reactor) = REACTOR.get() {
            return Ok(reactor);
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let reactor = Reactor {
            epoll: Async::new_nonblocking(epoll)?,
            states: Mutex::default(),
        };
        let reactor = REACTOR.get_or_init(|| reactor);
        // Not a counted task: it counts the turns of the others.
        super::spawn_boxed(Box::pin(Driver::new(reactor)));
        Ok(reactor)
    }

    /// Takes events and wakes the tasks that wait for them.
    fn ask(&self, timeout: &Timespec) -> AskResult {
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut room, Some(timeout)) else {
            // Interrupted by a signal; the driver polls again.
            return AskResult::Nothing;
        };
        let mut answer = match events {
            [] => AskResult::Nothing,
            _ => AskResult::Events,
        };
        for event in events.iter() {
            let (flags, key) = (event.flags, event.data.u64());
            let key = usize::try_from(key).unwrap_or(usize::MAX);
            let state = lock(&self.states).get(key).cloned();
            // The socket may be closed already.
            if state.is_some_and(|state| state.tell(flags)) {
                answer = AskResult::Woken;
            }
        }
        answer
    }
}

/// The result of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskResult {
    Nothing,
    /// Events that no task waited for yet.
    Events,
    /// At least one task was woken.
    Woken,
}

impl ReactorState {
    /// Stores events and wakes the tasks that wait for them. True if a task was woken.
    fn tell(&self, flags: epoll::EventFlags) -> bool {
        use epoll::EventFlags as Flags;
        let mut ready = 0;
        if flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR) {
            ready |= READ;
        }
        if flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR) {
            ready |= ENDED;
        }
        if flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR) {
            ready |= WRITE;
        }
        self.ready.fetch_or(ready, Ordering::SeqCst);
        let mut wakers = lock(&self.wakers);
        let reader = wakers.read.take_if(|_| ready & READ != 0);
        let writer = wakers.write.take_if(|_| ready & WRITE != 0);
        drop(wakers);
        let woken = reader.is_some() || writer.is_some();
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
        woken
    }
}

/// The task that polls epoll.
struct Driver {
    reactor: &'static Reactor,
    /// [`RAN`] at the last look.
    ran: u32,
    /// How often the driver has let other tasks run since its last poll.
    passes: u32,
    /// Whether the last poll woke a task.
    woke: bool,
}

impl Driver {
    fn new(reactor: &'static Reactor) -> Self {
        Self {
            reactor,
            ran: 0,
            passes: 0,
            woke: false,
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let ran = RAN.load(Ordering::Relaxed);
        // The task queue is first in, first out: if no task has run since the last time, none is
        // ready.
        let others_run = std::mem::replace(&mut this.ran, ran) != ran;
        if others_run && this.passes < PASSES {
            this.passes += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // The woken task is not a counted one and needs the thread.
        let in_vain = this.woke && !others_run && this.passes == 0;
        this.passes = 0;
        if !in_vain {
            let may_wait = !others_run && ELSEWHERE.load(Ordering::Relaxed) == 0;
            let timeout = if may_wait { &SLICE } else { &NO_TIME };
            let answer = this.reactor.ask(timeout);
            this.woke = answer == AskResult::Woken;
            if answer != AskResult::Nothing || others_run {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        loop {
            match this.reactor.epoll.poll_readable(cx) {
                Poll::Ready(Ok(())) => match this.reactor.ask(&NO_TIME) {
                    // The runtime had seen these events before.
                    AskResult::Nothing => {}
                    answer => {
                        this.woke = answer == AskResult::Woken;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                },
                Poll::Ready(Err(e)) => {
                    log::error!("waiting for sockets: {e}");
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    this.woke = false;
                    return Poll::Pending;
                }
            }
        }
    }
}

/// A non-blocking socket, or another descriptor that epoll supports. One task may wait for each
/// interest at a time.
pub struct PollSource<T: AsFd> {
    state: Arc<ReactorState>,
    key: usize,
    io: T,
}

impl<T: AsFd> PollSource<T> {
    /// Registers `io`. `ready` names the interests that are likely to succeed at once.
    pub fn new(io: T, ready: &[Interest]) -> io::Result<Self> {
        let reactor = Reactor::get()?;
        let state = Arc::new(ReactorState::default());
        for way in ready {
            state.ready.fetch_or(way.bit(), Ordering::SeqCst);
        }
        let key = lock(&reactor.states).insert(state.clone());
        let source = Self { state, key, io };
        epoll::add(&reactor.epoll, &source.io, source.data(), TOLD)?;
        Ok(source)
    }

    fn data(&self) -> epoll::EventData {
        epoll::EventData::new_u64(self.key as u64)
    }

    /// Returns the socket.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Ends the registration. Closing is enough unless another process shares the descriptor.
    pub fn withdraw(&self) {
        if let Ok(reactor) = Reactor::get() {
            // The descriptor may be closed already.
            let _ = epoll::delete(&reactor.epoll, &self.io);
        }
    }

    /// Ready when a call is likely not to block.
    pub fn poll_ready(&self, way: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_ready = || self.state.ready.load(Ordering::SeqCst) & way.bit() != 0;
        if is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut wakers = lock(&self.state.wakers);
        let waker = match way {
            Interest::Read => &mut wakers.read,
            Interest::Write => &mut wakers.write,
        };
        let replaced = match waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => waker.replace(cx.waker().clone()),
        };
        drop(wakers);
        // The task that waited before has ended, or asks again.
        if let Some(replaced) = replaced {
            replaced.wake();
        }
        // An event may have come since the first check.
        if is_ready() {
            return Poll::Ready(Ok(()));
        }
        // Registered on first use: most sockets never lack room, and a new one would report it at
        // once.
        if way == Interest::Write && !self.state.tells_of_room.swap(true, Ordering::SeqCst) {
            let flags = TOLD | epoll::EventFlags::OUT;
            epoll::modify(&Reactor::get()?.epoll, &self.io, self.data(), flags)?;
        }
        Poll::Pending
    }

    /// Makes a call if it is likely not to block. `WouldBlock` if it is not likely, or the call
    /// would block after all.
    pub fn try_io<R>(&self, way: Interest, call: impl FnOnce(&T) -> Outcome<R>) -> io::Result<R> {
        let mask = match way {
            Interest::Read => READ | ENDED,
            Interest::Write => WRITE,
        };
        let was = self.state.ready.fetch_and(!mask, Ordering::SeqCst) & mask;
        if was & way.bit() == 0 {
            self.state.ready.fetch_or(was, Ordering::SeqCst);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let outcome = call(&self.io);
        let (again, result) = match outcome {
            Ok((result, Readiness::More)) => (was, Ok(result)),
            Ok((result, Readiness::Nothing)) if was & ENDED != 0 => (was, Ok(result)),
            Ok((result, Readiness::Nothing)) => (0, Ok(result)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => (0, Err(e)),
            Err(e) => (was, Err(e)),
        };
        self.state.ready.fetch_or(again, Ordering::SeqCst);
        result
    }
}

impl Interest {
    fn bit(self) -> u8 {
        match self {
            Self::Read => READ,
            Self::Write => WRITE,
        }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for PollSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.fmt(f)
    }
}

impl<T: AsFd> Drop for PollSource<T> {
    /// The kernel drops the registration with the last descriptor.
    fn drop(&mut self) {
        if let Ok(reactor) = Reactor::get() {
            let state = lock(&reactor.states).try_remove(self.key);
            drop(state);
        }
    }
}

pin_project_lite::pin_project! {
    /// A task whose turns are counted.
    pub struct CountedTask<F> {
        #[pin]
        task: F,
    }
}

impl<F> CountedTask<F> {
    /// Wraps a task.
    pub fn new(task: F) -> Self {
        Self { task }
    }
}

impl<F: Future> Future for CountedTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Wraps by design; a missed turn costs a millisecond.
        RAN.fetch_add(1, Ordering::Relaxed);
        self.project().task.poll(cx)
    }
}

/// Marks that a task waits for another thread, whose result must be seen at once. The driver does
/// not block while one exists.
pub struct BlockingGuard(());

impl BlockingGuard {
    /// Counts a task that waits for another thread, until the guard is dropped.
    pub fn begin() -> Self {
        ELSEWHERE.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for BlockingGuard {
    fn drop(&mut self) {
        ELSEWHERE.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epoll::EventFlags as Flags;

    #[test]
    fn only_waiting_tasks_are_woken_and_no_event_is_lost() {
        let state = ReactorState::default();
        let ready = || state.ready.load(Ordering::SeqCst);
        assert!(!state.tell(Flags::IN | Flags::OUT), "nobody waits");
        assert_eq!(ready(), READ | WRITE);
        lock(&state.wakers).read = Some(Waker::noop().clone());
        assert!(!state.tell(Flags::OUT), "it waits for something else");
        assert!(state.tell(Flags::IN));
        assert!(!state.tell(Flags::IN), "it has been woken");
        lock(&state.wakers).write = Some(Waker::noop().clone());
        assert!(state.tell(Flags::HUP));
        assert_eq!(ready(), READ | WRITE | ENDED);
    }
}
