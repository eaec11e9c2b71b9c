//! The passwords that wait to be checked: one at a time of each visitor, and a bounded number of all.

use crate::collections::HashMap;
use crate::net::network_of;
use crate::sync::Mutex;
use async_lock::MutexGuardArc;
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of passwords that wait.
const MAX_WAITING: usize = 64;
/// Maximum number of passwords of one visitor that wait. A browser opens six connections at once.
const MAX_OF_VISITOR: usize = 16;

/// The visitors whose passwords wait.
#[derive(Default)]
pub struct PasswordQueue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    count: usize,
    /// By the address, for IPv6 the first of its /64. All unknown ones are one visitor.
    visitors: HashMap<Option<IpAddr>, WaitingVisitor>,
}

#[derive(Default)]
struct WaitingVisitor {
    count: usize,
    turn: Arc<async_lock::Mutex<()>>,
}

/// A place in the queue.
pub struct QueuePlace {
    queue: Arc<PasswordQueue>,
    visitor: Option<IpAddr>,
    turn: Arc<async_lock::Mutex<()>>,
}

/// A visitor's turn.
pub struct PasswordTurn {
    // The next one's turn begins before the place is free.
    _turn: MutexGuardArc<()>,
    _place: QueuePlace,
}

impl PasswordQueue {
    /// Adds a visitor's password to the queue; `None` if too many are waiting.
    pub fn enter(self: &Arc<Self>, visitor: Option<IpAddr>) -> Option<QueuePlace> {
        let visitor = visitor.map(network_of);
        let mut waiting = self.0.lock();
        if waiting.count >= MAX_WAITING {
            return None;
        }
        let entry = waiting.visitors.entry(visitor).or_default();
        if visitor.is_some() && entry.count >= MAX_OF_VISITOR {
            return None;
        }
        entry.count = entry.count.saturating_add(1);
        let turn = entry.turn.clone();
        waiting.count = waiting.count.saturating_add(1);
        Some(QueuePlace {
            queue: self.clone(),
            visitor,
            turn,
        })
    }
}

impl QueuePlace {
    /// Waits for the visitor's turn.
    pub async fn turn(self) -> PasswordTurn {
        PasswordTurn {
            _turn: self.turn.lock_arc().await,
            _place: self,
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut waiting = self.queue.0.lock();
        waiting.count = waiting.count.saturating_sub(1);
        let Some(entry) = waiting.visitors.get_mut(&self.visitor) else {
            return;
        };
        entry.count = entry.count.saturating_sub(1);
        if entry.count == 0 {
            waiting.visitors.remove(&self.visitor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn addr(n: u32) -> Option<IpAddr> {
        Some(std::net::Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn each_visitor_has_one_turn_at_a_time() {
        let queue = Arc::new(PasswordQueue::default());
        let enter = |visitor| queue.enter(visitor).unwrap().turn();
        block_on(async {
            let first = enter(addr(1)).await;
            let mut second = Box::pin(enter(addr(1)));
            assert!(poll_once(&mut second).await.is_none());
            let other = poll_once(enter(addr(2))).await;
            assert!(other.is_some());
            drop(first);
            assert!(poll_once(&mut second).await.is_some());
        });
        assert_eq!(queue.0.lock().count, 0);
        assert!(queue.0.lock().visitors.is_empty());
    }

    #[test]
    fn visitors_who_send_many_passwords_do_not_fill_the_queue() {
        let queue = Arc::new(PasswordQueue::default());
        let of = |visitor: fn(usize) -> Option<IpAddr>| -> Vec<_> {
            (0..1000).map_while(|n| queue.enter(visitor(n))).collect()
        };
        let one = of(|_| addr(1));
        assert_eq!(one.len(), MAX_OF_VISITOR);
        // Of one /64, too.
        let v6 = of(|n| format!("2001:db8::{n:x}").parse().ok());
        assert_eq!(v6.len(), MAX_OF_VISITOR);
        assert_eq!(of(|_| None).len(), MAX_WAITING - 2 * MAX_OF_VISITOR);
        let all = of(|n| addr(100 + u32::try_from(n).unwrap()));
        assert_eq!(all.len(), MAX_WAITING - 2 * MAX_OF_VISITOR);
        drop(one);
        assert!(queue.enter(addr(7)).is_some());
    }
}
