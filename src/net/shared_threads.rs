//! Shares of the blocking threads, so that a disk or name server that does not answer uses up only
//! its own share. `daemon` sets the number of threads.

use super::blocking;
use async_lock::Semaphore;

/// The share of reads of files that visitors ask for: 4 threads.
#[cfg(feature = "client")]
pub static DISK: ThreadShare = ThreadShare(Semaphore::new(4));
/// The share of checks of passwords, each of which keeps a core of a router busy for seconds: 2 threads.
#[cfg(any(all(feature = "client", feature = "password"), feature = "web"))]
pub static PASSWORDS: ThreadShare = ThreadShare(Semaphore::new(2));
/// The share of look-ups of names that visitors ask for: 2 threads.
#[cfg(all(feature = "client", feature = "proxy"))]
pub static VISITOR_NAMES: ThreadShare = ThreadShare(Semaphore::new(2));
/// The share of other name look-ups: 3 threads.
pub static NAMES: ThreadShare = ThreadShare(Semaphore::new(3));

/// A number of threads that one kind of work may use at a time.
pub struct ThreadShare(Semaphore);

impl ThreadShare {
    /// Runs `work` on a blocking thread, once fewer than the share are in use.
    pub async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        // Worlds of a simulation are on several threads, and none may wait for another.
        let place = match cfg!(feature = "sim") {
            true => None,
            false => Some(self.0.acquire().await),
        };
        blocking(move || {
            // Held until the work is done, even if its caller has given up: the thread is in use
            // until then.
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
    fn a_hanging_disk_uses_its_share_and_look_ups_go_on() {
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
        // Which four of them have a thread is the executor's choice.
        let (reads, releases): (Vec<_>, Vec<_>) = hung.into_iter().unzip();
        drop(releases);
        reads.into_iter().for_each(block_on);
    }
}
