//! A buffer that belongs to the thread, so that a connection that waits for bytes needs none.

use std::cell::RefCell;

/// Bytes it has room for: as much as one read brings at most.
const ROOM: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's buffer for one read that is used up at once.
pub fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            if scratch.is_empty() {
                *scratch = vec![0; ROOM];
            }
            use_it(&mut scratch)
        }
        // Lent already, further up the stack.
        Err(_) => use_it(&mut vec![0; ROOM]),
    })
}
