//! A task that is given so much time and no more.

use async_io::Timer;
use futures_lite::future;
use std::future::Future;
use std::time::Duration;

/// What `task` returns, or `None` if it has not ended in time; then it is dropped.
pub async fn within<T>(patience: Duration, task: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(task.await) }, async {
        Timer::after(patience).await;
        None
    })
    .await
}
