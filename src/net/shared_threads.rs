//! The threads for what blocks, shared out: a disk or a name server that does not answer takes its
//! own share and leaves the others theirs. How many threads there are is `daemon`'s to say.

use super::blocking;
use async_lock::Semaphore;

/// Reads of files that visitors ask for.
#[cfg(feature = "client")]
pub static DISK: ThreadShare = ThreadShare(Semaphore::new(4));
/// Name look-ups.
pub static NAMES: ThreadShare = ThreadShare(Semaphore::new(3));

/// The right to a part of the threads.
pub struct ThreadShare(Semaphore);

impl ThreadShare {
    /// Runs `work` on a thread for that, once one of the share is free.
    pub async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let place = self.0.acquire().await;
        blocking(move || {
            // Also when nobody waits for it any more: the thread is taken until it is done.
            let _place = place;
            work()
        })
        .await
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;
    use async_std::task::{block_on, spawn};
    use std::sync::mpsc::channel;

    #[test]
    fn a_disk_that_hangs_takes_its_share_and_name_look_ups_go_on() {
        let (begun, begins) = channel();
        let mut hung = Vec::new();
        for _ in 0..9 {
            let begun = begun.clone();
            let (release, released) = channel::<()>();
            let work = move || {
                let _ = begun.send(());
                let _ = released.recv();
            };
            hung.push((spawn(DISK.run(work)), release));
        }
        for _ in 0..4 {
            begins.recv().unwrap();
        }
        assert_eq!(block_on(NAMES.run(|| 7)), 7);
        assert!(begins.try_recv().is_err(), "a fifth read has a thread");
        for (read, release) in hung {
            drop(release);
            block_on(read);
        }
    }
}
