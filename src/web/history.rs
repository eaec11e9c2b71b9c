//! The last hour of a process in numbers, a point every 15 s. Kept only while there is a page.

use crate::net::clock;
use crate::sync::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

/// Time from one point to the next.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// Maximum number of points: an hour.
const MAX_POINTS: usize = 240;

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

/// The points, oldest first.
#[derive(Default)]
pub struct History(Mutex<VecDeque<Point>>);

impl History {
    /// Adds a point; the oldest one makes way.
    pub fn add(&self, totals: Totals) {
        let time = clock::time_of_day().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default().as_secs();
        let mut points = self.0.lock();
        if points.len() >= MAX_POINTS {
            points.pop_front();
        }
        points.push_back(Point { time, totals });
    }

    /// Returns the points.
    pub fn points(&self) -> Vec<Point> {
        self.0.lock().iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept() {
        let history = History::default();
        for clients in 0..1000 {
            history.add(Totals {
                clients,
                ..Totals::default()
            });
        }
        let points = history.points();
        assert_eq!(points.len(), MAX_POINTS);
        assert_eq!(points.last().unwrap().totals.clients, 999);
        assert_eq!(INTERVAL * 240, Duration::from_secs(3600));
    }
}
