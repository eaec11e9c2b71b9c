//! How many orders a server may place, and for which client the next one is. Not the orders.

use serde::{Deserialize, Serialize};

/// Maximum number of orders in [`PERIOD`].
pub const MAX_ORDERS: usize = 20;
/// An hour in seconds.
pub const PERIOD: i64 = 3600;
/// Seconds of the first pause after the authority could not be used, which each further one doubles.
const FIRST_PAUSE: i64 = 60;
/// Seconds that all names wait after the authority has set a limit to one.
const SHORT_PAUSE: i64 = 60;
/// Number of orders in [`PERIOD`] after which clients with [`FAIR_SHARE`] of them get no further one.
const HALF: usize = MAX_ORDERS / 2;
/// See [`HALF`].
const FAIR_SHARE: usize = 5;
/// Maximum number of seconds of a pause.
const MAX_PAUSE: i64 = 3 * 3600;

/// The orders of the last hour, as they are kept on the disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// The URL of the directory of the authority.
    directory: String,
    /// The other settings for it.
    settings: String,
    /// The time of each order, in seconds since 1970, and the id of the client that has the name.
    orders: Vec<(i64, Box<str>)>,
    /// No request is sent before this time, in seconds since 1970.
    paused: i64,
    /// Number of failures of the authority in a row.
    outages: u32,
    /// Why the authority could not be used, during a pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Box<str>>,
}

impl Budget {
    /// Makes it that of an authority with these settings: another authority has nothing to do with the orders
    /// of this one, and other settings end a pause.
    pub fn at(self, directory: &str, settings: &str) -> Self {
        // An earlier version of gt has written no URL.
        let is_other = !self.directory.is_empty() && self.directory != directory;
        let mut budget = if is_other { Self::default() } else { self };
        if budget.settings != settings {
            budget.resume();
        }
        budget.directory = directory.to_owned();
        budget.settings = settings.to_owned();
        budget
    }

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

    /// Returns the time of the next request, in seconds since 1970; zero for now.
    pub fn next_request(&self, now: i64) -> i64 {
        match self.paused > now {
            true => self.paused,
            false => 0,
        }
    }

    /// Returns the time of the next order for a name of this client, in seconds since 1970; zero for now.
    pub fn next_order(&self, id: &str, now: i64) -> i64 {
        let mut left = self.orders.len();
        let mut its = self.of(id);
        let mut next = 0;
        let mut orders = self.orders.iter();
        while left >= MAX_ORDERS || (left > HALF && its >= FAIR_SHARE) {
            let Some((at, other)) = orders.next() else {
                break;
            };
            left = left.saturating_sub(1);
            its = its.saturating_sub(usize::from(**other == *id));
            next = at.saturating_add(PERIOD);
        }
        match next > now {
            true => next.max(self.next_request(now)),
            false => self.next_request(now),
        }
    }

    /// Returns why the authority could not be used, during a pause.
    pub fn why(&self, now: i64) -> Option<&str> {
        self.why.as_deref().filter(|_| self.paused > now)
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

    /// Notes that the authority could not be used, and why; waits before the next request, as it asks for or
    /// longer each time.
    pub fn pause(&mut self, asked: Option<i64>, why: &str, now: i64) -> i64 {
        let doubled = FIRST_PAUSE << self.outages.min(10);
        self.outages = self.outages.saturating_add(1);
        let pause = asked.unwrap_or_default().max(doubled).min(MAX_PAUSE);
        self.paused = now.saturating_add(pause);
        self.why = Some(why.into());
        pause
    }

    /// Notes that the authority has set a limit to one name, which may hold for others, too; waits a moment.
    pub fn pause_shortly(&mut self, why: &str, now: i64) -> i64 {
        self.paused = self.paused.max(now.saturating_add(SHORT_PAUSE));
        self.why = Some(why.into());
        SHORT_PAUSE
    }

    /// Notes that the authority works.
    pub fn resume(&mut self) {
        self.outages = 0;
        self.paused = 0;
        self.why = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_so_many_orders() {
        let mut budget = Budget::default();
        let ids = ["a", "b", "c", "d", "e"];
        for at in 0..20 {
            let id = ids[usize::try_from(at % 5).unwrap()];
            assert_eq!(budget.next_order(id, 1000 + at), 0);
            budget.place(id, 1000 + at);
        }
        assert_eq!(budget.next_order("f", 1020), 1000 + PERIOD);
        assert_eq!(budget.next_request(1020), 0, "no further order");
        assert_eq!((budget.of("a"), budget.of("f")), (4, 0));
        budget.tidy(1000 + PERIOD);
        assert_eq!(budget.next_order("f", 1000 + PERIOD), 0);
        assert_eq!(budget.of("a"), 3);
        // A clock that was years ahead.
        budget.tidy(500);
        assert_eq!(budget, Budget::default());
    }

    #[test]
    fn a_client_with_many_names_leaves_half_of_the_orders_to_others() {
        let mut budget = Budget::default();
        let mut at = 1000;
        while budget.next_order("a", at) == 0 {
            budget.place("a", at);
            at += 1;
        }
        assert_eq!(budget.of("a"), 11);
        assert_eq!(budget.next_order("a", at), 1000 + PERIOD);
        for other in ["b", "b", "b", "b", "c", "c", "c", "c", "c"] {
            assert_eq!(budget.next_order(other, at), 0, "{other}");
            budget.place(other, at);
        }
        assert_eq!(budget.next_order("b", at), 1000 + PERIOD);
        // When it has 4 itself.
        assert_eq!(budget.next_order("a", at), 1006 + PERIOD);
    }

    #[test]
    fn an_authority_that_cannot_be_used_is_asked_less_and_less_often() {
        let mut budget = Budget::default();
        let pauses: Vec<i64> = (0..10).map(|_| budget.pause(None, "why", 0)).collect();
        assert_eq!(pauses[..4], [60, 120, 240, 480]);
        assert_eq!(pauses[9], MAX_PAUSE);
        assert_eq!(budget.next_request(0), MAX_PAUSE);
        assert_eq!(budget.next_order("a", 0), MAX_PAUSE);
        assert_eq!(budget.why(0), Some("why"));
        assert_eq!(budget.why(MAX_PAUSE), None);
        budget.resume();
        assert_eq!(budget.next_request(0), 0);
        assert_eq!(budget.pause(Some(600), "why", 0), 600);
        assert_eq!(budget.pause_shortly("limit", 0), 60);
        assert_eq!(budget.next_request(0), 600);
        assert_eq!(budget.pause(Some(i64::MAX), "why", 0), MAX_PAUSE);
        budget.tidy(-1);
        assert_eq!(budget.next_request(-1), 0, "the clock was wrong");
    }

    #[test]
    fn other_settings_end_a_pause_and_another_authority_knows_no_orders() {
        let mut budget = Budget::default().at("https://one/", "a@example.org");
        budget.place("a", 5);
        budget.pause(None, "why", 5);
        let same = budget.clone().at("https://one/", "a@example.org");
        assert_eq!(same, budget);
        let mended = budget.clone().at("https://one/", "b@example.org");
        assert_eq!((mended.next_request(5), mended.of("a")), (0, 1));
        let other = budget.at("https://two/", "a@example.org");
        assert_eq!((other.next_request(5), other.of("a")), (0, 0));
        // What an earlier version has written.
        let earlier: Budget = serde_json::from_str(r#"{"orders":[[5,"a"]],"paused":9}"#).unwrap();
        assert_eq!(earlier.at("https://one/", "").of("a"), 1);
    }
}
