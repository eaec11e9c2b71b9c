//! The bound on the bytes that the channels of all peers hold for slow readers, for the whole
//! process. The peer that holds the most loses a channel (docs/p2p.md, "Channels").

#[cfg(all(feature = "quic", not(feature = "sim")))]
mod room;

use crate::collections::HashMap;
use crate::sync::{Mutex, MutexGuard};
use std::sync::Arc;
use std::task::Waker;

/// Maximum bytes held by all channels.
const MAX_HELD: usize = 8 * 1024 * 1024;

/// The memory that all peers share.
pub struct ChannelMemory {
    most: usize,
    table: Mutex<MemoryTable>,
}

#[derive(Default)]
struct MemoryTable {
    held: usize,
    next: u64,
    holders: HashMap<u64, MemoryHolder>,
}

/// The part of the memory that one peer holds.
#[derive(Default)]
struct MemoryHolder {
    held: usize,
    /// Wakes the peer's task.
    driver: Option<Waker>,
}

/// A peer's share of the memory; returned on drop.
pub struct MemoryShare {
    memory: Arc<ChannelMemory>,
    number: u64,
}

impl Default for ChannelMemory {
    fn default() -> Self {
        Self::new(MAX_HELD)
    }
}

impl ChannelMemory {
    /// Creates a memory of `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            table: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MemoryTable> {
        self.table.lock()
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.lock().held
    }
}

impl MemoryShare {
    /// Creates the share of a new peer, which holds nothing yet.
    pub fn new(memory: Arc<ChannelMemory>) -> Self {
        let mut table = memory.lock();
        let number = table.next;
        table.next = table.next.wrapping_add(1);
        table.holders.insert(number, MemoryHolder::default());
        drop(table);
        Self { memory, number }
    }

    /// Sets the task that is woken when this peer must give up memory.
    pub fn set_driver(&self, driver: &Waker) {
        let mut table = self.memory.lock();
        if let Some(holder) = table.holders.get_mut(&self.number) {
            let known = holder.driver.as_ref();
            if !known.is_some_and(|known| known.will_wake(driver)) {
                holder.driver = Some(driver.clone());
            }
        }
    }

    /// Returns the bytes that the peer holds.
    #[cfg(any(test, fuzzing))]
    pub fn held(&self) -> usize {
        let table = self.memory.lock();
        table.holders.get(&self.number).map_or(0, |it| it.held)
    }

    /// Adds bytes that the peer holds.
    pub fn add(&self, bytes: usize) {
        self.change(|held| held.saturating_add(bytes));
    }

    /// Subtracts bytes that the peer no longer holds.
    pub fn sub(&self, bytes: usize) {
        self.change(|held| held.saturating_sub(bytes));
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut table = self.memory.lock();
        if let Some(holder) = table.holders.get_mut(&self.number) {
            let before = holder.held;
            holder.held = change(before);
            let after = holder.held;
            table.held = table.held.saturating_sub(before).saturating_add(after);
        }
    }

    /// Whether this peer has to give up some of its bytes. If another peer has to, wakes that peer.
    pub fn is_too_much(&self) -> bool {
        let driver = {
            let mut table = self.memory.lock();
            if table.held <= self.memory.most {
                return false;
            }
            let largest = table.holders.iter_mut().max_by_key(|(_, it)| it.held);
            match largest {
                Some((number, _)) if *number == self.number => return true,
                Some((_, holder)) => holder.driver.take(),
                None => None,
            }
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        false
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.change(|_| 0);
        self.memory.lock().holders.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::WakeCount;

    #[test]
    fn the_peer_that_holds_the_most_gives_up() {
        let memory = Arc::new(ChannelMemory::new(100));
        let [large, small] = [(); 2].map(|()| MemoryShare::new(memory.clone()));
        let wakes = Arc::<WakeCount>::default();
        large.set_driver(&wakes.clone().into());
        large.add(70);
        small.add(30);
        assert!(!large.is_too_much() && !small.is_too_much());
        small.add(1);
        assert!(!small.is_too_much());
        assert_eq!(wakes.get(), 1);
        assert!(large.is_too_much());
        large.sub(50);
        assert!(!large.is_too_much());
        small.add(100);
        assert!(small.is_too_much());
        drop(small);
        assert_eq!(memory.held(), 20);
        assert!(!large.is_too_much());
    }
}
