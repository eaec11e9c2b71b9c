//! How many orders a server may place, and for which client the next one is. Not the orders.

use serde::{Deserialize, Serialize};

/// Maximum number of orders in [`PERIOD`].
pub const MAX_ORDERS: usize = 20;
/// An hour in seconds.
pub const PERIOD: i64 = 3600;
/// Seconds of the first pause after the authority could not be used, which each further one doubles.
const FIRST_PAUSE: i64 = 60;
/// Maximum number of seconds of a pause.
const MAX_PAUSE: i64 = 3 * 3600;

/// The orders of the last hour, as they are kept on the disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// The time of each order, in seconds since 1970, and the id of the client that has the name.
    orders: Vec<(i64, Box<str>)>,
    /// No request is sent before this time, in seconds since 1970.
    paused: i64,
    /// Number of failures of the authority in a row.
    outages: u32,
}

impl Budget {
    /// Forgets what is over, and what lies in the future since the clock was wrong.
    pub fn tidy(&mut self, now: i64) {
        self.orders
            .retain(|(at, _)| *at <= now && now.saturating_sub(*at) < PERIOD);
        let least = self.orders.len().saturating_sub(MAX_ORDERS);
        self.orders.drain(..least);
        if self.paused.saturating_sub(now) > MAX_PAUSE {
            self.paused = 0;
        }
    }

    /// Returns the time of the next request, in seconds since 1970; zero for now. An order that is under way
    /// `resumes` needs no place.
    pub fn next(&self, now: i64, resumes: bool) -> i64 {
        let oldest = self.orders.first().map_or(0, |(at, _)| *at);
        let place = match self.orders.len() >= MAX_ORDERS && !resumes {
            true => oldest.saturating_add(PERIOD),
            false => 0,
        };
        let next = place.max(self.paused);
        if next <= now {
            0
        } else {
            next
        }
    }

    /// Returns the number of orders for names of a client.
    pub fn of(&self, id: &str) -> usize {
        self.orders
            .iter()
            .filter(|(_, other)| **other == *id)
            .count()
    }

    /// Notes an order for a name of this client.
    pub fn place(&mut self, id: &str, now: i64) {
        self.orders.push((now, id.into()));
    }

    /// Notes that the authority has not seen the last order.
    pub fn take_back(&mut self) {
        self.orders.pop();
    }

    /// Notes that the authority could not be used; waits before the next request, as it asks for or longer
    /// each time.
    pub fn pause(&mut self, asked: Option<i64>, now: i64) -> i64 {
        let doubled = FIRST_PAUSE << self.outages.min(10);
        self.outages = self.outages.saturating_add(1);
        let pause = asked.unwrap_or_default().max(doubled).min(MAX_PAUSE);
        self.paused = now.saturating_add(pause);
        pause
    }

    /// Notes that the authority works.
    pub fn resume(&mut self) {
        self.outages = 0;
        self.paused = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_so_many_orders() {
        let mut budget = Budget::default();
        for at in 0..20 {
            assert_eq!(budget.next(1000 + at, false), 0);
            budget.place(if at < 15 { "a" } else { "b" }, 1000 + at);
        }
        assert_eq!(budget.next(1020, false), 1000 + PERIOD);
        assert_eq!(budget.next(1020, true), 0, "no further order");
        assert_eq!((budget.of("a"), budget.of("b"), budget.of("c")), (15, 5, 0));
        budget.tidy(1000 + PERIOD);
        assert_eq!(budget.next(1000 + PERIOD, false), 0);
        assert_eq!(budget.of("a"), 14);
        // A clock that was years ahead.
        budget.tidy(500);
        assert_eq!(budget, Budget::default());
    }

    #[test]
    fn an_authority_that_cannot_be_used_is_asked_less_and_less_often() {
        let mut budget = Budget::default();
        let pauses: Vec<i64> = (0..10).map(|_| budget.pause(None, 0)).collect();
        assert_eq!(pauses[..4], [60, 120, 240, 480]);
        assert_eq!(pauses[9], MAX_PAUSE);
        assert_eq!(budget.next(0, true), MAX_PAUSE);
        budget.resume();
        assert_eq!(budget.next(0, true), 0);
        assert_eq!(budget.pause(Some(600), 0), 600);
        assert_eq!(budget.pause(Some(i64::MAX), 0), MAX_PAUSE);
        budget.tidy(-1);
        assert_eq!(budget.next(-1, true), 0, "the clock was wrong");
    }
}
