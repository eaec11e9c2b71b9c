//! A task that is given so much time and no more.

use async_io::Timer;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What `task` returns, or `None` if it has not ended in time; then it is dropped.
pub fn timeout<T: Future>(patience: Duration, task: T) -> Timeout<T> {
    let timer = Timer::after(patience);
    Timeout { task, timer }
}

/// The same for a deadline that several tasks share.
pub fn timeout_at<T: Future>(deadline: Instant, task: T) -> Timeout<T> {
    let timer = Timer::at(deadline);
    Timeout { task, timer }
}

pin_project! {
    /// A type of its own, since an async block would hold the task twice: as what it has been
    /// given, and as what it waits for.
    pub struct Timeout<T> {
        #[pin]
        task: T,
        timer: Timer,
    }
}

impl<T: Future> Future for Timeout<T> {
    type Output = Option<T::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.task.poll(cx) {
            return Poll::Ready(Some(result));
        }
        Pin::new(this.timer).poll(cx).map(|_| None)
    }
}

/// Ready when nothing but this has woken the task for `patience`. Where only a connection can,
/// that is how long it has taken nothing.
pub fn poll_stalled(
    timer: &mut Option<Timer>,
    patience: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let fired = timer
        .as_mut()
        .is_some_and(|timer| Pin::new(timer).poll(cx).is_ready());
    if fired {
        return Poll::Ready(());
    }
    Pin::new(timer.insert(Timer::after(patience)))
        .poll(cx)
        .map(drop)
}
