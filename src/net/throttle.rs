//! The wait of one direction of a tunnel or a connection for a token bucket.

use super::{Timer, TokenBucket};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// The wait of one direction. Most tunnels and connections never wait.
pub struct Throttle {
    bucket: Arc<TokenBucket>,
    /// Present once the bucket had a rate: most tunnels never have one.
    limited: Option<Box<Limited>>,
}

#[derive(Default)]
struct Limited {
    /// Fires when it is worth asking the bucket again.
    wait: Option<Timer>,
    /// Whether bytes have moved since the last wait.
    served: bool,
}

/// What has just moved bytes asks this much later than those that share the bucket and
/// have not: otherwise it could always be first.
const FAIRNESS_DELAY: Duration = Duration::from_millis(1);

impl Throttle {
    /// Creates the wait for this bucket.
    pub fn new(bucket: Arc<TokenBucket>) -> Self {
        Self {
            bucket,
            limited: None,
        }
    }

    /// Returns how many of `wanted` bytes may move now: at least one, and any number without a
    /// rate.
    pub fn poll_grant(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        loop {
            if let Some(limited) = &mut self.limited {
                if let Some(wait) = &mut limited.wait {
                    ready!(Pin::new(wait).poll(cx));
                    limited.wait = None;
                }
            }
            if !self.bucket.is_limited() {
                return Poll::Ready(usize::MAX);
            }
            let limited = self.limited.get_or_insert_default();
            match self.bucket.grant(wanted) {
                Ok(n) => return Poll::Ready(n),
                Err(later) if std::mem::take(&mut limited.served) => {
                    limited.wait = Some(Timer::at(later + FAIRNESS_DELAY));
                }
                Err(later) => limited.wait = Some(Timer::at(later)),
            }
        }
    }

    /// Whether the bucket has nothing to grant yet.
    pub fn is_waiting(&self) -> bool {
        let limited = self.limited.as_ref();
        limited.is_some_and(|limited| limited.wait.is_some())
    }

    /// Takes the tokens for bytes that have moved.
    pub fn take(&mut self, n: usize) {
        if let Some(limited) = &mut self.limited {
            limited.served = true;
        }
        self.bucket.take(n);
    }
}
