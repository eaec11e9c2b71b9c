//! Futures with a time limit.

use crate::net::Timer;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Runs `task` for at most `patience`; `None` if it has not ended by then. It is dropped with the
/// future.
pub fn timeout<T: Future>(patience: Duration, task: T) -> Timeout<T> {
    let timer = Timer::after(patience);
    Timeout { task, timer }
}

/// Runs `task` until `deadline`, which several tasks may share; `None` if it has not ended by then.
pub fn timeout_at<T: Future>(deadline: Instant, task: T) -> Timeout<T> {
    let timer = Timer::at(deadline);
    Timeout { task, timer }
}

pin_project! {
    /// The future of [`timeout`]. An async block would hold the task twice: as its argument, and
    /// while it awaits it.
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

/// Ready when only this timer has woken the task for `limit`. Where only a connection can wake it,
/// that is how long the connection has taken nothing.
pub fn poll_stalled(timer: &mut Option<Timer>, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
    let fired = timer
        .as_mut()
        .is_some_and(|timer| Pin::new(timer).poll(cx).is_ready());
    if fired {
        return Poll::Ready(());
    }
    Pin::new(timer.insert(Timer::after(limit)))
        .poll(cx)
        .map(drop)
}
