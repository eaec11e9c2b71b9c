//! Costly steps, such as the signature of a TLS handshake: few of them between two looks at the
//! sockets. A crowd of clients that come back at once waits in a queue of its own, so that visitors
//! are served meanwhile.

use super::shard;
use crate::sync::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

/// Maximum number of costly steps in one turn of an executor thread. One takes up to a millisecond on
/// a server, and tens of them on a router.
const STEPS_PER_TURN: u32 = 1;
/// Number of waiting tasks for which there is always room.
const FEW: usize = 16;

thread_local! {
    /// Number of steps that may still begin in this turn.
    static LEFT: Cell<u32> = const { Cell::new(STEPS_PER_TURN) };
    /// The steps that wait for a later turn; those whose task has ended cannot be upgraded.
    static WAITING: RefCell<VecDeque<Weak<Mutex<Turn>>>> = const { RefCell::new(VecDeque::new()) };
}

/// The turn of one step.
enum Turn {
    Waits(Waker),
    Granted,
}

/// A future that is ready when this thread may do a costly step.
struct CostlyStep(Option<Arc<Mutex<Turn>>>);

/// Waits until this thread may do a costly step.
pub async fn costly_step() {
    // Other threads take no turns.
    if shard::is_executor_thread() {
        CostlyStep(None).await;
    }
}

impl Future for CostlyStep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(turn) = &self.0 {
            return match &mut *turn.lock() {
                Turn::Granted => Poll::Ready(()),
                Turn::Waits(waker) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
            };
        }
        WAITING.with_borrow_mut(|waiting| match LEFT.get() {
            left @ 1.. if waiting.is_empty() => {
                LEFT.set(left - 1);
                Poll::Ready(())
            }
            _ => {
                let turn = Arc::new(Mutex::new(Turn::Waits(cx.waker().clone())));
                waiting.push_back(Arc::downgrade(&turn));
                self.0 = Some(turn);
                Poll::Pending
            }
        })
    }
}

/// Begins a turn: wakes the tasks whose steps come next.
pub(super) fn begin_turn() {
    LEFT.set(STEPS_PER_TURN);
    while LEFT.get() > 0 {
        let next = WAITING.with_borrow_mut(|waiting| {
            let next = waiting.pop_front();
            if waiting.is_empty() {
                waiting.shrink_to(FEW);
            }
            next
        });
        let Some(next) = next else {
            return;
        };
        let turn = next.upgrade();
        let before = turn.map(|turn| std::mem::replace(&mut *turn.lock(), Turn::Granted));
        if let Some(Turn::Waits(waker)) = before {
            LEFT.set(LEFT.get() - 1);
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn is_ready(step: &mut CostlyStep) -> bool {
        block_on(poll_once(step)).is_some()
    }

    #[test]
    fn one_step_a_turn_in_the_order_of_arrival() {
        begin_turn();
        let [mut first, mut second, mut third] = [(); 3].map(|()| CostlyStep(None));
        assert!(is_ready(&mut first));
        assert!(!is_ready(&mut second));
        begin_turn();
        // Its turn has come, so a later one has to wait, whichever is polled first.
        assert!(!is_ready(&mut third));
        assert!(is_ready(&mut second));
        begin_turn();
        assert!(is_ready(&mut third));
        assert!(WAITING.with_borrow(VecDeque::is_empty));
    }

    #[test]
    fn steps_whose_tasks_have_ended_take_no_turn() {
        begin_turn();
        LEFT.set(0);
        let mut abandoned: Vec<_> = (0..1000).map(|_| CostlyStep(None)).collect();
        assert!(!abandoned.iter_mut().any(is_ready));
        let mut last = CostlyStep(None);
        assert!(!is_ready(&mut last));
        drop(abandoned);
        begin_turn();
        assert!(is_ready(&mut last));
    }
}
