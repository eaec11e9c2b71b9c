//! The limit of punches of a client: a visitor chooses where they go.

use crate::sync::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of punches in [`SPAN`].
const MAX_PUNCHES: usize = 6;
const SPAN: Duration = Duration::from_secs(60);

/// The punches of a client. Clones refer to the same ones.
#[derive(Clone, Default)]
pub struct PunchLimit(Arc<Mutex<Punches>>);

#[derive(Default)]
struct Punches {
    is_running: bool,
    begun: VecDeque<Instant>,
}

/// The permission for one punch, returned on drop.
pub struct PunchPermit(PunchLimit);

impl PunchLimit {
    /// Permits a punch, unless another one runs or there have been too many.
    pub fn acquire(&self, now: Instant) -> Option<PunchPermit> {
        let mut punches = self.0.lock();
        let is_old = |begun: &Instant| now.saturating_duration_since(*begun) >= SPAN;
        while punches.begun.front().is_some_and(is_old) {
            punches.begun.pop_front();
        }
        if punches.is_running || punches.begun.len() >= MAX_PUNCHES {
            return None;
        }
        punches.is_running = true;
        punches.begun.push_back(now);
        Some(PunchPermit(self.clone()))
    }
}

impl Drop for PunchPermit {
    fn drop(&mut self) {
        self.0 .0.lock().is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_punch_runs_at_a_time_and_few_in_a_minute() {
        let (limit, now) = (PunchLimit::default(), Instant::now());
        let first = limit.acquire(now).unwrap();
        assert!(limit.acquire(now).is_none());
        drop(first);
        for _ in 1..MAX_PUNCHES {
            assert!(limit.acquire(now).is_some());
        }
        assert!(limit.acquire(now + SPAN / 2).is_none());
        assert!(limit.acquire(now + SPAN).is_some());
    }
}
