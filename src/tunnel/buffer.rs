//! Byte buffers that hold memory only while they contain bytes, and return it to the thread.

use std::cell::RefCell;

/// Payload capacity of a large buffer, in bytes. A busy tunnel holds at most two of these.
pub(super) const ROOM: usize = 128 * 1024;
/// Capacity of a small buffer, in bytes: enough for a tunnel that only sends its hello or answers
/// pings.
const SMALL: usize = 4 * 1024;
/// Maximum number of spare buffers of each size that a thread keeps.
const SPARE: usize = 4;

/// The spare buffers of one thread, by size.
struct SpareBuffers {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

thread_local! {
    static SPARES: RefCell<SpareBuffers> = const {
        RefCell::new(SpareBuffers { small: Vec::new(), large: Vec::new() })
    };
}

impl SpareBuffers {
    /// Returns the spares of this size; `None` if buffers of this size are not kept.
    fn of(&mut self, size: usize) -> Option<&mut Vec<Vec<u8>>> {
        match size {
            SMALL => Some(&mut self.small),
            ROOM => Some(&mut self.large),
            _ => None,
        }
    }
}

fn lend(size: usize) -> Vec<u8> {
    let spare = SPARES.with_borrow_mut(|spares| spares.of(size)?.pop());
    spare.unwrap_or_else(|| vec![0; size])
}

fn give_back(memory: Vec<u8>) {
    // The thread-local list is already gone while the thread ends.
    let _ = SPARES.try_with(|spares| {
        let Ok(mut spares) = spares.try_borrow_mut() else {
            return;
        };
        match spares.of(memory.len()) {
            Some(kept) if kept.len() < SPARE => kept.push(memory),
            _ => {}
        }
    });
}

/// A queue of bytes in one allocation. Its memory stays initialised, so that a socket can be read
/// straight into it.
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

    /// Returns the `n` bytes behind the end; [`Buffer::grow`] makes them part of the content.
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        let end = self.end.saturating_add(n);
        if self.memory.len() < end {
            self.enlarge(end);
        }
        self.memory.get_mut(self.end..end).unwrap_or_default()
    }

    fn enlarge(&mut self, size: usize) {
        let Some(size) = [SMALL, ROOM].into_iter().find(|fits| size <= *fits) else {
            return self.memory.resize(size, 0);
        };
        let mut memory = lend(size);
        if let (Some(to), Some(from)) = (memory.get_mut(..self.end), self.memory.get(..self.end)) {
            to.copy_from_slice(from);
        }
        give_back(std::mem::replace(&mut self.memory, memory));
    }

    pub fn grow(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.memory.len());
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.grow(bytes.len());
    }

    /// Removes `n` bytes from the front and returns the memory when nothing is left.
    pub fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        give_back(std::mem::take(&mut self.memory));
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
    fn a_buffer_is_as_large_as_its_content_needs() {
        let mut buffer = Buffer::default();
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * ROOM).collect();
        let mut at = 0;
        for (len, capacity) in [(10, SMALL), (SMALL, SMALL), (SMALL + 1, ROOM), (ROOM, ROOM)] {
            buffer.push(&bytes[at..len]);
            at = len;
            assert_eq!(buffer.capacity(), capacity, "with {len} bytes");
            assert_eq!(buffer.as_slice(), &bytes[..len]);
        }
        buffer.consume(100);
        buffer.push(&bytes[at..]);
        assert_eq!(buffer.as_slice(), &bytes[100..]);
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
