//! What is held only if there is room for it.

use super::MemoryShare;

impl MemoryShare {
    /// Adds bytes that the peer is to hold, unless all peers would hold too much.
    pub fn try_add(&self, bytes: usize) -> bool {
        let mut table = self.memory.lock();
        let held = table.held.saturating_add(bytes);
        let fits = held <= self.memory.most;
        if let Some(holder) = table.holders.get_mut(&self.number).filter(|_| fits) {
            holder.held = holder.held.saturating_add(bytes);
            table.held = held;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::super::ChannelMemory;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn bytes_are_added_if_there_is_room() {
        let memory = Arc::new(ChannelMemory::new(100));
        let [one, other] = [(); 2].map(|()| MemoryShare::new(memory.clone()));
        one.add(20);
        assert!(!other.try_add(81) && other.try_add(80) && !other.is_too_much());
        assert_eq!((memory.held(), other.held()), (100, 80));
        assert!(!one.try_add(1));
    }
}
