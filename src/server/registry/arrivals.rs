//! The visitors that wait for a client: each registration wakes those that it may be for. After a
//! restart there are thousands of both.

use event_listener::{Event, EventListener};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Number of groups of visitors.
const GROUPS: usize = 64;

/// Waiting visitors, grouped by the host prefix or the client's id that they wait for.
pub struct Arrivals([Event; GROUPS]);

impl Default for Arrivals {
    fn default() -> Self {
        Self([const { Event::new() }; GROUPS])
    }
}

impl Arrivals {
    /// Returns a listener for the next arrival of a host prefix or client's id.
    pub fn listen(&self, name: &str) -> EventListener {
        self.group(name).listen()
    }

    /// Wakes the visitors that wait for this host prefix or client's id.
    pub fn notify(&self, name: &str) {
        self.group(name).notify(usize::MAX);
    }

    /// Wakes all waiting visitors.
    pub fn notify_all(&self) {
        for group in &self.0 {
            group.notify(usize::MAX);
        }
    }

    fn group(&self, name: &str) -> &Event {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        let [first, ..] = &self.0;
        let place = usize::try_from(hash % GROUPS as u64).unwrap_or_default();
        self.0.get(place).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn an_arrival_wakes_those_that_wait_for_it_and_few_others() {
        let arrivals = Arrivals::default();
        let mut waiting: Vec<_> = (0..1000)
            .map(|number| arrivals.listen(&format!("client{number}")))
            .collect();
        arrivals.notify("client7");
        let woken: Vec<bool> = waiting
            .iter_mut()
            .map(|listener| block_on(poll_once(listener)).is_some())
            .collect();
        assert!(woken[7]);
        assert!(woken.iter().filter(|woken| **woken).count() < 50);
        let mut rest = arrivals.listen("client8");
        arrivals.notify_all();
        assert!(block_on(poll_once(&mut rest)).is_some());
    }
}
