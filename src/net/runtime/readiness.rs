//! What a source is ready for, and the tasks that wait for it. Events are edges: a reader or writer
//! clears the readiness first and sets it again if there may be more to do, so that an event that
//! comes meanwhile is never lost, whichever thread it comes on.

use super::{Interest, Outcome, Readiness};
use crate::sync::Mutex;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

/// Bytes, or the end, can be read.
pub const READ: u8 = 1;
/// Bytes can be written.
pub const WRITE: u8 = 2;
/// Bit of a socket whose peer has ended its direction, or whose connection has failed. No more
/// events follow, so a read that found nothing must not wait: it has still to see the end.
pub const ENDED: u8 = 4;

/// The readiness of one source: bits of [`READ`], [`WRITE`] and [`ENDED`].
#[derive(Default)]
pub struct SourceState {
    ready: AtomicU8,
    /// Whether the source is registered for writability too.
    tells_of_room: AtomicBool,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl SourceState {
    /// Creates the state of a source with the interests that are likely to succeed at once.
    pub fn new(ready: &[Interest]) -> Self {
        let bits = ready.iter().fold(0, |bits, way| bits | way.bit());
        Self {
            ready: AtomicU8::new(bits),
            ..Self::default()
        }
    }

    /// Stores events and wakes the tasks that wait for them.
    pub fn add(&self, ready: u8) {
        self.ready.fetch_or(ready, Ordering::SeqCst);
        let mut wakers = self.wakers.lock();
        let reader = wakers.read.take_if(|_| ready & READ != 0);
        let writer = wakers.write.take_if(|_| ready & WRITE != 0);
        drop(wakers);
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Takes the source for ready. The tasks that wait for it are not woken.
    #[cfg(not(feature = "sim"))]
    pub fn assume(&self, ready: u8) {
        self.ready.fetch_or(ready, Ordering::SeqCst);
    }

    /// Whether the source is registered for writability too.
    #[cfg(not(feature = "sim"))]
    pub fn tells_of_room(&self) -> bool {
        self.tells_of_room.load(Ordering::SeqCst)
    }

    /// Ready when a call is likely not to block. `ask_for_room` registers the source for writability.
    pub fn poll(
        &self,
        way: Interest,
        cx: &mut Context<'_>,
        ask_for_room: impl FnOnce() -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        let is_ready = || self.ready.load(Ordering::SeqCst) & way.bit() != 0;
        if is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut wakers = self.wakers.lock();
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
        if way == Interest::Write && !self.tells_of_room.swap(true, Ordering::SeqCst) {
            ask_for_room()?;
        }
        Poll::Pending
    }

    /// Makes a call if it is likely not to block. `WouldBlock` if it is not likely, or the call
    /// would block after all.
    pub fn try_io<R>(&self, way: Interest, call: impl FnOnce() -> Outcome<R>) -> io::Result<R> {
        let mask = match way {
            Interest::Read => READ | ENDED,
            Interest::Write => WRITE,
        };
        let was = self.ready.fetch_and(!mask, Ordering::SeqCst) & mask;
        if was & way.bit() == 0 {
            self.ready.fetch_or(was, Ordering::SeqCst);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (again, result) = match call() {
            Ok((result, Readiness::More)) => (was, Ok(result)),
            Ok((result, Readiness::Nothing)) if was & ENDED != 0 => (was, Ok(result)),
            Ok((result, Readiness::Nothing)) => (0, Ok(result)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => (0, Err(e)),
            Err(e) => (was, Err(e)),
        };
        self.ready.fetch_or(again, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::sync::Arc;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_waiting_tasks_are_woken_and_no_event_is_lost() {
        let state = SourceState::default();
        let ready = || state.ready.load(Ordering::SeqCst);
        let (reader, writer) = (Arc::<Count>::default(), Arc::<Count>::default());
        let woken = || [&reader, &writer].map(|count| count.0.load(Ordering::SeqCst));
        state.add(READ | WRITE);
        assert_eq!(ready(), READ | WRITE);
        state.wakers.lock().read = Some(reader.clone().into());
        state.add(WRITE);
        assert_eq!(woken(), [0, 0], "it waits for something else");
        state.add(READ);
        state.add(READ);
        assert_eq!(woken(), [1, 0], "it is woken once");
        state.wakers.lock().write = Some(writer.clone().into());
        state.add(READ | WRITE | ENDED);
        assert_eq!(woken(), [1, 1]);
        assert_eq!(ready(), READ | WRITE | ENDED);
    }
}
