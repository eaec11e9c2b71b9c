//! The last hour of a process in numbers, for the graph of the page. To have it when somebody comes to look, points are
//! also taken while nobody does, but seldom. Kept only while there is a page.

use crate::net::{clock, timeout, Timer};
use crate::sync::Mutex;
use event_listener::Event;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Time from one point to the next while somebody looks.
const INTERVAL: Duration = Duration::from_secs(15);
/// Time from one point to the next while nobody looks: less than a wake in a minute.
const IDLE_INTERVAL: Duration = Duration::from_secs(120);
/// Time after which one that has looked is believed to have gone.
const LOOK: Duration = Duration::from_secs(60);
/// Time that points are kept.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Maximum number of points.
const MAX_POINTS: usize = 250;

/// The numbers of a moment, of one role or all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Connected clients of servers.
    pub clients: usize,
    pub tunnels: usize,
    /// Open connections of visitors.
    pub streams: usize,
    /// Bytes from clients to visitors since the start.
    pub bytes_up: u64,
    /// Bytes from visitors to clients since the start.
    pub bytes_down: u64,
}

impl Totals {
    /// Adds the numbers of another role.
    pub fn add(&mut self, other: &Self) {
        self.clients = self.clients.saturating_add(other.clients);
        self.tunnels = self.tunnels.saturating_add(other.tunnels);
        self.streams = self.streams.saturating_add(other.streams);
        self.bytes_up = self.bytes_up.saturating_add(other.bytes_up);
        self.bytes_down = self.bytes_down.saturating_add(other.bytes_down);
    }
}

/// A point: when it was taken, as Unix time in seconds, and the totals.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    time: u64,
    #[serde(flatten)]
    totals: Totals,
}

/// The points.
#[derive(Default)]
pub struct History {
    /// Oldest first.
    points: Mutex<VecDeque<Point>>,
    /// When somebody has last looked.
    looked: Mutex<Option<Instant>>,
    /// Notified when somebody looks after a time without.
    look: Event,
}

impl History {
    /// Adds a point; old ones make way.
    pub fn add(&self, totals: Totals) {
        let time = clock::time_of_day().duration_since(UNIX_EPOCH);
        self.add_at(totals, time.unwrap_or_default().as_secs());
    }

    fn add_at(&self, totals: Totals, time: u64) {
        let mut points = self.points.lock();
        let is_old = |point: &Point| time.saturating_sub(point.time) > MAX_AGE.as_secs();
        while points.len() >= MAX_POINTS || points.front().is_some_and(is_old) {
            points.pop_front();
        }
        points.push_back(Point { time, totals });
    }

    /// Returns the points to one that looks at them.
    pub fn look(&self) -> Vec<Point> {
        if !self.is_looked_at(clock::now()) {
            self.look.notify(usize::MAX);
        }
        *self.looked.lock() = Some(clock::now());
        self.points.lock().iter().copied().collect()
    }

    fn is_looked_at(&self, now: Instant) -> bool {
        let looked = *self.looked.lock();
        looked.is_some_and(|it| now.saturating_duration_since(it) < LOOK)
    }

    /// Waits until the next point is to be taken.
    pub async fn next(&self) {
        let look = self.look.listen();
        match self.is_looked_at(clock::now()) {
            true => Timer::after(INTERVAL).await,
            false => drop(timeout(IDLE_INTERVAL, look).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept() {
        let history = History::default();
        let add = |clients: usize, time| {
            let totals = Totals {
                clients,
                ..Totals::default()
            };
            history.add_at(totals, time);
        };
        for n in 0..1000 {
            add(n, 15 * n as u64);
        }
        let points = history.look();
        assert_eq!(points.len(), 241);
        assert_eq!(points.last().unwrap().totals.clients, 999);
        // Of a clock that has been set, too, no more are kept than that.
        for n in 0..1000 {
            add(n, 0);
        }
        assert_eq!(history.look().len(), MAX_POINTS);
        add(0, 1_000_000);
        assert_eq!(history.look().len(), 1);
    }

    #[test]
    fn one_that_looks_ends_the_long_wait_for_a_point() {
        let history = History::default();
        let now = Instant::now();
        assert!(!history.is_looked_at(now));
        let next = async {
            history.next().await;
            assert!(history.is_looked_at(Instant::now()));
        };
        let look = async {
            // Behind the beginning of the wait.
            futures_lite::future::yield_now().await;
            history.look();
            std::future::pending::<()>().await;
        };
        async_std::task::block_on(futures_lite::future::or(next, look));
        assert!(!history.is_looked_at(Instant::now() + LOOK));
    }
}
