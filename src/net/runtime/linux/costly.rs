//! Costly steps, such as the signature of a TLS handshake: few of them between two looks at the
//! sockets. A crowd of clients that come back at once waits in a queue of its own, so that visitors
//! are served meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Maximum number of costly steps in one turn of an executor thread. One takes up to a millisecond on
/// a server, and tens of them on a router.
const STEPS_PER_TURN: u32 = 1;

/// Number of waiting tasks for which there is always room.
const FEW: usize = 16;

thread_local! {
    /// Number of steps that may still run in this turn.
    static LEFT: Cell<u32> = const { Cell::new(STEPS_PER_TURN) };
    /// The tasks that wait for a later turn.
    static WAITING: RefCell<VecDeque<Waker>> = const { RefCell::new(VecDeque::new()) };
}

/// Waits until this thread may do a costly step, and counts it.
pub async fn costly_step() {
    let mut waits = false;
    poll_fn(|cx| {
        let left = LEFT.get();
        WAITING.with_borrow_mut(|waiting| {
            if waits || (left > 0 && waiting.is_empty()) {
                LEFT.set(left.saturating_sub(1));
                return Poll::Ready(());
            }
            waits = true;
            waiting.push_back(cx.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// Begins a turn: wakes the tasks whose step comes next.
pub(super) fn begin_turn() {
    LEFT.set(STEPS_PER_TURN);
    for _ in 0..STEPS_PER_TURN {
        let next = WAITING.with_borrow_mut(|waiting| {
            let next = waiting.pop_front();
            if waiting.is_empty() {
                waiting.shrink_to(FEW);
            }
            next
        });
        match next {
            Some(waker) => waker.wake(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    #[test]
    fn one_step_a_turn_in_the_order_of_arrival() {
        begin_turn();
        let (mut first, mut second, mut third) = (
            pin!(costly_step()),
            pin!(costly_step()),
            pin!(costly_step()),
        );
        block_on(async {
            assert!(poll_once(&mut first).await.is_some());
            assert!(poll_once(&mut second).await.is_none());
            begin_turn();
            // Its turn has come, so a later one has to wait.
            LEFT.set(0);
            assert!(poll_once(&mut third).await.is_none());
            assert!(poll_once(&mut second).await.is_some());
            begin_turn();
            assert!(poll_once(&mut third).await.is_some());
        });
        assert!(WAITING.with_borrow(VecDeque::is_empty));
    }
}
