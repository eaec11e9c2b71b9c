//! One direction of one tunnel that waits for its bucket.

use crate::net::TokenBucket;
use async_io::Timer;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

pub(super) struct Throttle {
    bucket: Arc<TokenBucket>,
    /// Until when there is no use in asking.
    wait: Option<Timer>,
    /// Bytes have moved since it last waited.
    served: bool,
}

/// Whoever has just moved something asks so much later than those who share the bucket and have
/// not: else it could always be first.
const AFTER_YOU: Duration = Duration::from_millis(1);

impl Throttle {
    pub fn new(bucket: Arc<TokenBucket>) -> Self {
        Self {
            bucket,
            wait: None,
            served: false,
        }
    }

    /// How many of `wanted` bytes may move now; at least one, once it is ready. Without a rate any
    /// number may.
    pub fn poll_grant(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(Pin::new(wait).poll(cx));
                self.wait = None;
            }
            if !self.bucket.is_limited() {
                return Poll::Ready(usize::MAX);
            }
            match self.bucket.grant(wanted) {
                Ok(n) => return Poll::Ready(n),
                Err(later) if std::mem::take(&mut self.served) => {
                    self.wait = Some(Timer::at(later + AFTER_YOU));
                }
                Err(later) => self.wait = Some(Timer::at(later)),
            }
        }
    }

    /// Whether it is too early for more.
    pub fn is_waiting(&self) -> bool {
        self.wait.is_some()
    }

    /// Bytes have moved.
    pub fn take(&mut self, n: usize) {
        self.served = true;
        self.bucket.take(n);
    }
}
