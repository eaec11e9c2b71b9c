//! The limit of punches of a client: a visitor chooses where they go.

use crate::sync::Mutex;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of punches in [`SPAN`].
const MAX_PUNCHES: usize = 6;
/// How many of them may be for peers that have come to this client, and for one address of those. The others are for
/// peers that this client dials.
const MAX_OF_VISITORS: usize = 4;
const MAX_OF_ADDRESS: usize = 2;
const SPAN: Duration = Duration::from_secs(60);

/// The punches of a client. Clones refer to the same ones.
#[derive(Clone, Default)]
pub struct PunchLimit(Arc<Mutex<Punches>>);

#[derive(Default)]
struct Punches {
    is_running: bool,
    /// When each began, and for whom.
    begun: VecDeque<(Instant, PunchFor)>,
}

/// The peer that a punch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PunchFor {
    /// One that this client dials.
    Dialled,
    /// One that has come, and names this address as its NAT's.
    Visitor(Ipv4Addr),
}

/// The permission for one punch, returned on drop.
pub struct PunchPermit(PunchLimit);

impl PunchLimit {
    /// Permits a punch, unless another one runs or there have been too many, in all or of its kind.
    pub fn acquire(&self, to: PunchFor, now: Instant) -> Option<PunchPermit> {
        let mut punches = self.0.lock();
        let is_old =
            |(begun, _): &(Instant, PunchFor)| now.saturating_duration_since(*begun) >= SPAN;
        while punches.begun.front().is_some_and(is_old) {
            punches.begun.pop_front();
        }
        if punches.is_running || punches.begun.len() >= MAX_PUNCHES {
            return None;
        }
        if to != PunchFor::Dialled {
            let (mut of_visitors, mut of_address) = (0, 0);
            for (_, before) in &punches.begun {
                of_visitors += usize::from(*before != PunchFor::Dialled);
                of_address += usize::from(*before == to);
            }
            if of_visitors >= MAX_OF_VISITORS || of_address >= MAX_OF_ADDRESS {
                return None;
            }
        }
        punches.is_running = true;
        punches.begun.push_back((now, to));
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
        let to = PunchFor::Dialled;
        let first = limit.acquire(to, now).unwrap();
        assert!(limit.acquire(to, now).is_none());
        drop(first);
        for _ in 1..MAX_PUNCHES {
            assert!(limit.acquire(to, now).is_some());
        }
        assert!(limit.acquire(to, now + SPAN / 2).is_none());
        assert!(limit.acquire(to, now + SPAN).is_some());
    }

    #[test]
    fn strangers_leave_punches_for_others() {
        let (limit, now) = (PunchLimit::default(), Instant::now());
        let stranger = |last| PunchFor::Visitor([192, 0, 2, last].into());
        let punch = |to| limit.acquire(to, now).is_some();
        let of_one = (0..10).filter(|_| punch(stranger(1))).count();
        assert_eq!(of_one, MAX_OF_ADDRESS);
        assert!(punch(stranger(2)), "another one");
        let of_more = (3..20).filter(|last| punch(stranger(*last))).count();
        assert_eq!(of_more, MAX_OF_VISITORS - MAX_OF_ADDRESS - 1);
        assert!(punch(PunchFor::Dialled) && punch(PunchFor::Dialled));
        assert!(!punch(PunchFor::Dialled));
        assert!(limit.acquire(stranger(1), now + SPAN).is_some());
    }
}
