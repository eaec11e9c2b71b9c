//! A descriptor that the epoll of an executor thread watches.
//!
//! It is registered once, edge-triggered. A reader or writer clears the readiness first and sets it
//! again if there may be more to do, so that an event that comes meanwhile is never lost, whichever
//! thread it comes on.

use super::shard::{Shard, ShardId};
use crate::net::runtime::{Interest, Outcome, Readiness};
use crate::sync::Mutex;
use rustix::event::epoll;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU8, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

/// The events that every socket is registered for.
const TOLD: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

const READ: u8 = 1;
const WRITE: u8 = 2;
/// Bit of a socket whose peer has ended its direction, or whose connection has failed. No more
/// events follow, so a read that found nothing must not wait: it has still to see the end.
const ENDED: u8 = 4;

#[derive(Default)]
pub(super) struct SourceState {
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

impl SourceState {
    /// Stores events and wakes the tasks that wait for them.
    pub(super) fn wake(&self, flags: epoll::EventFlags) {
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
        let mut wakers = self.wakers.lock();
        let reader = wakers.read.take_if(|_| ready & READ != 0);
        let writer = wakers.write.take_if(|_| ready & WRITE != 0);
        drop(wakers);
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// A non-blocking socket, or another descriptor that epoll supports. One task may wait for each
/// interest at a time.
pub struct PollSource<T: AsFd> {
    state: Arc<SourceState>,
    place: Mutex<Place>,
    io: T,
}

/// Where a source is registered.
#[derive(Clone, Copy)]
struct Place {
    shard: &'static Shard,
    key: SourceKey,
}

/// What an event of epoll says of its source.
#[derive(Clone, Copy)]
pub(super) struct SourceKey {
    /// Its number in the shard's table.
    pub number: usize,
    /// Tells it from others that had or will have the number: an event may come late.
    pub generation: u32,
}

impl SourceKey {
    /// Reads what [`Self::data`] has written.
    pub fn from_event(data: u64) -> Self {
        // The halves of the number.
        let (number, generation) = (data as u32, (data >> 32) as u32);
        Self {
            number: usize::try_from(number).unwrap_or(usize::MAX),
            generation,
        }
    }

    fn data(self) -> epoll::EventData {
        // A process has fewer than 2^32 descriptors.
        let data = u64::from(self.generation) << 32 | self.number as u64;
        epoll::EventData::new_u64(data)
    }
}

impl Place {
    fn new(shard: &'static Shard, state: &Arc<SourceState>) -> Self {
        static GENERATION: AtomicU32 = AtomicU32::new(0);
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let number = shard.sources.lock().insert((generation, state.clone()));
        let key = SourceKey { number, generation };
        Self { shard, key }
    }

    fn remove(self) {
        let state = self.shard.sources.lock().remove(self.key.number);
        // Its wakers may drop tasks, and with them other sources.
        drop(state);
    }
}

impl<T: AsFd> PollSource<T> {
    /// Registers `io`, which must be non-blocking, with this thread's epoll, or with that of the first
    /// executor thread. `ready` names the interests that are likely to succeed at once.
    pub fn new(io: T, ready: &[Interest]) -> io::Result<Self> {
        let state = Arc::new(SourceState::default());
        for way in ready {
            state.ready.fetch_or(way.bit(), Ordering::SeqCst);
        }
        let place = Place::new(Shard::current()?, &state);
        let source = Self {
            state,
            place: Mutex::new(place),
            io,
        };
        epoll::add(&place.shard.epoll, &source.io, place.key.data(), TOLD)?;
        Ok(source)
    }

    /// Moves the registration to the epoll of another thread, whose tasks will wait for it from now
    /// on. No event is lost: the new epoll reports what the source is ready for.
    pub fn move_to(&self, id: ShardId) -> io::Result<()> {
        let shard = id.shard()?;
        let mut place = self.place.lock();
        if std::ptr::eq(place.shard, shard) {
            return Ok(());
        }
        let new = Place::new(shard, &self.state);
        // Those that have lacked room once are registered for it, too.
        let flags = match self.state.tells_of_room.load(Ordering::SeqCst) {
            true => TOLD | epoll::EventFlags::OUT,
            false => TOLD,
        };
        if let Err(e) = epoll::add(&shard.epoll, &self.io, new.key.data(), flags) {
            drop(place);
            new.remove();
            return Err(e.into());
        }
        let old = std::mem::replace(&mut *place, new);
        drop(place);
        let _ = epoll::delete(&old.shard.epoll, &self.io);
        old.remove();
        Ok(())
    }

    /// Returns the socket.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Ends the registration. Closing is enough unless another process shares the descriptor.
    pub fn withdraw(&self) {
        // The descriptor may be closed already.
        let _ = epoll::delete(&self.place.lock().shard.epoll, &self.io);
    }

    /// Ready when a call is likely not to block.
    pub fn poll_ready(&self, way: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_ready = || self.state.ready.load(Ordering::SeqCst) & way.bit() != 0;
        if is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut wakers = self.state.wakers.lock();
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
            let place = self.place.lock();
            epoll::modify(&place.shard.epoll, &self.io, place.key.data(), flags)?;
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
        let place = *self.place.lock();
        place.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epoll::EventFlags as Flags;
    use std::sync::atomic::AtomicU32;
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
        state.wake(Flags::IN | Flags::OUT);
        assert_eq!(ready(), READ | WRITE);
        state.wakers.lock().read = Some(reader.clone().into());
        state.wake(Flags::OUT);
        assert_eq!(woken(), [0, 0], "it waits for something else");
        state.wake(Flags::IN);
        state.wake(Flags::IN);
        assert_eq!(woken(), [1, 0], "it is woken once");
        state.wakers.lock().write = Some(writer.clone().into());
        state.wake(Flags::HUP);
        assert_eq!(woken(), [1, 1]);
        assert_eq!(ready(), READ | WRITE | ENDED);
    }
}
