//! The wait of one direction of one tunnel for its token bucket.

use crate::net::{Timer, TokenBucket};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

pub(super) struct Throttle {
    bucket: Arc<TokenBucket>,
    /// Fires when it is worth asking the bucket again.
    wait: Option<Box<Timer>>,
    /// Whether bytes have moved since the last wait.
    served: bool,
}

/// A tunnel that has just moved bytes asks this much later than those that share the bucket and
/// have not: otherwise it could always be first.
const FAIRNESS_DELAY: Duration = Duration::from_millis(1);

impl Throttle {
    pub fn new(bucket: Arc<TokenBucket>) -> Self {
        Self {
            bucket,
            wait: None,
            served: false,
        }
    }

    /// Returns how many of `wanted` bytes may move now: at least one, and any number without a
    /// rate.
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
                    self.wait = Some(Box::new(Timer::at(later + FAIRNESS_DELAY)));
                }
                Err(later) => self.wait = Some(Box::new(Timer::at(later))),
            }
        }
    }

    /// Whether the bucket has nothing to grant yet.
    pub fn is_waiting(&self) -> bool {
        self.wait.is_some()
    }

    /// Takes the tokens for bytes that have moved.
    pub fn take(&mut self, n: usize) {
        self.served = true;
        self.bucket.take(n);
    }
}
