//! A descriptor that the epoll of an executor thread watches. It is registered once, edge-triggered.

use super::shard::{Shard, ShardId};
use crate::net::runtime::readiness::{SourceState, ENDED, READ, WRITE};
use crate::net::runtime::{Interest, Outcome};
use crate::sync::Mutex;
use rustix::event::epoll;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

/// The events that every socket is registered for.
const TOLD: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

/// Returns the interests that events stand for.
pub(super) fn readiness_of(flags: epoll::EventFlags) -> u8 {
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
    ready
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
    number: u32,
    /// Tells it from others that had or will have the number: an event may come late.
    pub generation: u32,
}

impl SourceKey {
    /// Reads what [`Self::data`] has written.
    pub fn from_event(data: u64) -> Self {
        // The halves of the number.
        let (number, generation) = (data as u32, (data >> 32) as u32);
        Self { number, generation }
    }

    fn data(self) -> epoll::EventData {
        let data = u64::from(self.generation) << 32 | u64::from(self.number);
        epoll::EventData::new_u64(data)
    }

    /// Returns the number in the shard's table.
    pub fn number(self) -> usize {
        self.number as usize
    }
}

impl Place {
    fn new(shard: &'static Shard, state: &Arc<SourceState>) -> Self {
        static GENERATION: AtomicU32 = AtomicU32::new(0);
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let number = shard.sources.lock().insert((generation, state.clone()));
        // A process has fewer than 2^32 descriptors.
        let number = number as u32;
        let key = SourceKey { number, generation };
        Self { shard, key }
    }

    fn remove(self) {
        let state = self.shard.sources.lock().remove(self.key.number());
        // Its wakers may drop tasks, and with them other sources.
        drop(state);
    }
}

impl<T: AsFd> PollSource<T> {
    /// Registers `io`, which must be non-blocking, with this thread's epoll, or with that of the first
    /// executor thread. `ready` names the interests that are likely to succeed at once.
    pub fn new(io: T, ready: &[Interest]) -> io::Result<Self> {
        let state = Arc::new(SourceState::new(ready));
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
        let flags = match self.state.tells_of_room() {
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

    /// Watches the socket for failures alone, until [`Self::release`].
    pub fn hold(&self) -> io::Result<()> {
        self.watch_for(epoll::EventFlags::ET)
    }

    /// Watches a held socket again. What has come meanwhile is an event.
    pub fn release(&self) -> io::Result<()> {
        self.watch_for(TOLD)
    }

    fn watch_for(&self, flags: epoll::EventFlags) -> io::Result<()> {
        let room = match self.state.tells_of_room() {
            true => epoll::EventFlags::OUT,
            false => epoll::EventFlags::empty(),
        };
        let place = self.place.lock();
        epoll::modify(&place.shard.epoll, &self.io, place.key.data(), flags | room)?;
        Ok(())
    }

    /// Lets the next read of a held socket be tried.
    pub fn assume_readable(&self) {
        self.state.assume(READ);
    }

    /// Ends the registration. Closing is enough unless another process shares the descriptor.
    pub fn withdraw(&self) {
        // The descriptor may be closed already.
        let _ = epoll::delete(&self.place.lock().shard.epoll, &self.io);
    }

    /// Ready when a call is likely not to block.
    pub fn poll_ready(&self, way: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.poll(way, cx, || {
            // Registered on first use: most sockets never lack room, and a new one would report it at
            // once.
            let flags = TOLD | epoll::EventFlags::OUT;
            let place = self.place.lock();
            epoll::modify(&place.shard.epoll, &self.io, place.key.data(), flags)?;
            Ok(())
        })
    }

    /// Makes a call if it is likely not to block. `WouldBlock` if it is not likely, or the call
    /// would block after all.
    pub fn try_io<R>(&self, way: Interest, call: impl FnOnce(&T) -> Outcome<R>) -> io::Result<R> {
        self.state.try_io(way, || call(&self.io))
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

    #[test]
    fn an_end_can_be_read_and_a_failure_can_be_read_and_written() {
        use epoll::EventFlags as Flags;
        assert_eq!(readiness_of(Flags::IN), READ);
        assert_eq!(readiness_of(Flags::OUT), WRITE);
        assert_eq!(readiness_of(Flags::RDHUP), READ | ENDED);
        for failed in [Flags::HUP, Flags::ERR] {
            assert_eq!(readiness_of(failed), READ | WRITE | ENDED);
        }
    }
}
