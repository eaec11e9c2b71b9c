//! Buffers that are lent only while bytes are in them, and given back to the thread.

use std::cell::RefCell;

/// Room that a fresh buffer has. Two of these are the most a busy tunnel holds.
pub(super) const ROOM: usize = 128 * 1024;
/// Buffers a thread keeps for the next tunnel that gets busy.
const SPARE: usize = 4;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are appended at the end and taken from the front. Its memory stays
/// initialised, so that sockets can be read straight into it.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn as_slice(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// The `n` bytes behind the end, which [`Buffer::grow`] makes part of it.
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        let end = self.end.saturating_add(n);
        if self.memory.is_empty() {
            self.memory = SPARES
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| vec![0; ROOM]);
        }
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        self.memory.get_mut(self.end..end).unwrap_or_default()
    }

    pub fn grow(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.memory.len());
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.grow(bytes.len());
    }

    /// Takes `n` bytes off the front; the memory goes back when nothing is left.
    pub fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        let memory = std::mem::take(&mut self.memory);
        if memory.len() == ROOM {
            // At the end of a thread there is no list any more.
            let _ = SPARES.try_with(|spares| {
                if let Ok(mut spares) = spares.try_borrow_mut() {
                    if spares.len() < SPARE {
                        spares.push(memory);
                    }
                }
            });
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_buffer_holds_no_memory() {
        let mut buffer = Buffer::default();
        buffer.push(b"hello");
        assert_eq!(buffer.as_slice(), b"hello");
        buffer.consume(2);
        buffer.push(b"!");
        assert_eq!(buffer.as_slice(), b"llo!");
        buffer.consume(4);
        assert!(buffer.is_empty());
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn more_than_the_usual_room_fits() {
        let mut buffer = Buffer::default();
        let long = vec![7; 3 * ROOM];
        buffer.push(&long);
        assert_eq!(buffer.as_slice(), long);
    }

    #[test]
    fn room_is_not_content_before_it_is_grown() {
        let mut buffer = Buffer::default();
        buffer.room(10)[..3].copy_from_slice(b"abc");
        assert!(buffer.is_empty());
        buffer.grow(3);
        assert_eq!(buffer.as_slice(), b"abc");
    }
}
