//! The speed limits of users. The tunnels of a user share its limit.

use crate::collections::HashMap;
use crate::net::TokenBucket;
use crate::sync::Mutex;
use crate::tunnel::SpeedLimit;
use std::sync::{Arc, Weak};

/// The token buckets of users with tunnels.
#[derive(Default)]
pub struct RateLimits(Mutex<Table>);

#[derive(Default)]
struct Table {
    users: HashMap<Box<str>, Pair>,
    /// Number of users at which those without tunnels are forgotten.
    full: usize,
}

/// The buckets of one user for sending and receiving.
type Pair = (Weak<TokenBucket>, Weak<TokenBucket>);

impl RateLimits {
    /// Returns the speed limit that the tunnels of `id` share: `rate` bytes a second in each
    /// direction, 0 for no limit. A changed rate applies to existing tunnels, too.
    pub fn for_user(&self, id: &str, rate: u64) -> SpeedLimit {
        let mut table = self.0.lock();
        if let Some((send, receive)) = table.users.get(id) {
            if let (Some(send), Some(receive)) = (send.upgrade(), receive.upgrade()) {
                send.set_rate(rate);
                receive.set_rate(rate);
                return SpeedLimit { send, receive };
            }
        }
        if table.users.len() >= table.full {
            table.forget_departed();
        }
        let (send, receive) = (
            Arc::new(TokenBucket::new(rate)),
            Arc::new(TokenBucket::new(rate)),
        );
        let buckets = (Arc::downgrade(&send), Arc::downgrade(&receive));
        table.users.insert(id.into(), buckets);
        SpeedLimit { send, receive }
    }

    /// Forgets users without tunnels.
    pub fn forget_departed(&self) {
        self.0.lock().forget_departed();
    }
}

impl Table {
    fn forget_departed(&mut self) {
        let users = &mut self.users;
        users.retain(|_, (send, _)| send.strong_count() > 0);
        self.full = users.len() * 2 + 16;
        users.shrink_to(self.full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_of_one_user_share_and_those_of_two_do_not() {
        let limits = RateLimits::default();
        let one = limits.for_user("id1", 1000);
        let again = limits.for_user("id1", 1000);
        let other = limits.for_user("id2", 1000);
        assert!(Arc::ptr_eq(&one.send, &again.send) && Arc::ptr_eq(&one.receive, &again.receive));
        assert!(!Arc::ptr_eq(&one.send, &other.send) && !Arc::ptr_eq(&one.send, &one.receive));
    }

    #[test]
    fn a_changed_rate_applies_to_existing_tunnels() {
        let limits = RateLimits::default();
        let live = limits.for_user("id1", 0);
        assert_eq!(live.send.grant(1 << 20), Ok(1 << 20));
        limits.for_user("id1", 1000);
        assert!(live.send.is_limited() && live.receive.is_limited());
        assert!(live.send.grant(1 << 20).is_err(), "nothing was saved up");
        limits.for_user("id1", 0);
        assert_eq!(live.receive.grant(1 << 20), Ok(1 << 20));
    }

    #[test]
    fn users_without_tunnels_are_forgotten() {
        let limits = RateLimits::default();
        for n in 0..1000 {
            limits.for_user(&n.to_string(), 1);
        }
        assert!(limits.0.lock().users.len() <= 16, "a few at a time");
        limits.forget_departed();
        assert!(limits.0.lock().users.len() <= 1);
    }
}
