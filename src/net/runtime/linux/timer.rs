//! A timer of a task, on the wheel of its executor thread.

use super::shard::Shard;
use super::wheel::Key;
use crate::net::clock;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A future that is ready at a time, at most a millisecond late. It may be set again.
pub struct Timer {
    due: Option<Instant>,
    /// Milliseconds by which it may be late, so that timers fire together.
    slack: u32,
    /// Its place on a wheel, once it was polled.
    place: Option<(&'static Shard, Key)>,
}

impl Timer {
    /// Creates a timer that is ready after this time.
    pub fn after(time: Duration) -> Self {
        Self {
            due: clock::now().checked_add(time),
            ..Self::never()
        }
    }

    /// Creates a timer that is ready at this time.
    pub fn at(due: Instant) -> Self {
        Self {
            due: Some(due),
            ..Self::never()
        }
    }

    /// Creates a timer that is never ready until it is set.
    pub fn never() -> Self {
        Self {
            due: None,
            slack: 0,
            place: None,
        }
    }

    /// Sets the time after which it is ready.
    pub fn set_after(&mut self, time: Duration) {
        self.cancel();
        self.due = clock::now().checked_add(time);
        self.slack = 0;
    }

    /// Sets the time after which it is ready, at most a sixteenth later: many such timers wake the
    /// thread together.
    pub fn set_about(&mut self, time: Duration) {
        self.set_after(time);
        self.slack = u32::try_from(time.as_millis() / 16).unwrap_or(u32::MAX);
    }

    /// Sets the time at which it is ready.
    pub fn set_at(&mut self, due: Instant) {
        self.cancel();
        self.due = Some(due);
        self.slack = 0;
    }

    fn cancel(&mut self) {
        if let Some((shard, key)) = self.place.take() {
            shard.cancel_timer(key);
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        if clock::now() >= due {
            self.cancel();
            return Poll::Ready(());
        }
        if let Some((shard, key)) = self.place {
            if shard.change_waker(key, cx.waker()) {
                return Poll::Pending;
            }
        }
        match Shard::current() {
            Ok(shard) => self.place = Some((shard, shard.set_timer(due, self.slack, cx.waker()))),
            // Without an executor no task runs, so this cannot wait either.
            Err(_) => return Poll::Ready(()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}
