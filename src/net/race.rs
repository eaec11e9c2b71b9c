//! A race of attempts that run beside each other, of which the first success wins, as in RFC 8305. Not the
//! attempts.

use crate::net::Timer;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// Runs attempts until one succeeds. The next one begins when one has failed, or after `delay` while
/// earlier ones have no result. Returns the first success, or nothing, and the errors of all that have
/// failed before, in the order of their failures. The other attempts are dropped.
pub async fn race<A, T, E>(
    attempts: impl ExactSizeIterator<Item = A>,
    delay: Duration,
) -> (Option<T>, Vec<E>)
where
    A: Future<Output = Result<T, E>> + Unpin,
{
    let mut next = attempts;
    let mut running: Vec<A> = Vec::new();
    let mut failures = Vec::new();
    let mut pause = Timer::never();
    let mut is_due = true;
    let winner = std::future::poll_fn(|cx| loop {
        let mut at = 0;
        while let Some(attempt) = running.get_mut(at) {
            match Pin::new(attempt).poll(cx) {
                Poll::Ready(Ok(result)) => return Poll::Ready(Some(result)),
                Poll::Ready(Err(e)) => {
                    failures.push(e);
                    drop(running.swap_remove(at));
                    is_due = true;
                }
                Poll::Pending => at += 1,
            }
        }
        if !is_due && Pin::new(&mut pause).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let Some(attempt) = next.next() else {
            // All attempts have begun; only running ones are left.
            pause = Timer::never();
            is_due = false;
            return match running.is_empty() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            };
        };
        running.push(attempt);
        is_due = false;
        pause = match next.len() {
            0 => Timer::never(),
            _ => Timer::after(delay),
        };
    })
    .await;
    (winner, failures)
}
