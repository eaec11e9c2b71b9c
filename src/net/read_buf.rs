//! A read buffer for each thread, so that connections that wait for bytes need none.

use std::cell::RefCell;

/// Maximum bytes of one read.
pub const READ: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's read buffer, of 128 KiB, to a read whose bytes are consumed at once.
pub fn with_read_buf<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            if scratch.is_empty() {
                *scratch = vec![0; READ];
            }
            use_it(&mut scratch)
        }
        // The buffer is already lent further up the stack.
        Err(_) => use_it(&mut vec![0; READ]),
    })
}
