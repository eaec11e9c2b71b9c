//! Executor threads on epoll.

mod costly;
mod shard;
mod source;
mod table;
mod timer;
mod wheel;

pub use costly::costly_step;
pub use shard::{set_threads, spawn, ShardId};
pub use source::PollSource;
pub use timer::Timer;

/// Runs blocking work on a thread of the blocking pool.
pub async fn run_blocking(work: Box<dyn FnOnce() + Send>) {
    blocking::unblock(work).await;
}
