//! The ways to one server in the order in which they were written, and the one that worked last. Not the
//! attempts, see `pool::better_way`.

use super::connect::ConnectFailure;
use crate::config::Remote;
use crate::sync::Mutex;
use event_listener::{Event, EventListener};
use std::fmt;
use std::time::Duration;

/// Time after which the next way is tried beside those that have no result yet, as RFC 8305 does with addresses.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(300);

/// The place of a way that has failed, and the failure.
pub type FailedWay = (usize, ConnectFailure);

/// The ways to a server; at least one.
pub struct Ways {
    first: Remote,
    others: Vec<Remote>,
    /// The place of the way that worked last; at first the one that was written first.
    current: Mutex<usize>,
    /// Notified when another way works.
    changed: Event,
}

impl Ways {
    /// Creates ways of which none has been tried; `None` without one.
    pub fn new(ways: Vec<Remote>) -> Option<Self> {
        let mut ways = ways.into_iter();
        Some(Self {
            first: ways.next()?,
            others: ways.collect(),
            current: Mutex::new(0),
            changed: Event::new(),
        })
    }

    /// Whether there is more than one way.
    pub fn are_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// Returns the way at a place; the first one if there is none.
    pub fn at(&self, place: usize) -> &Remote {
        let other = place.checked_sub(1).and_then(|at| self.others.get(at));
        other.unwrap_or(&self.first)
    }

    /// Returns the place of a way.
    pub fn place_of(&self, way: &Remote) -> Option<usize> {
        self.all().position(|known| known == way)
    }

    /// Returns the way that worked last.
    pub fn current(&self) -> &Remote {
        self.at(*self.current.lock())
    }

    /// Returns the places of all ways in the order in which they are tried: the one that worked last, and
    /// the others as they were written.
    pub fn order(&self) -> Vec<usize> {
        let current = *self.current.lock();
        let others = (0..self.all().count()).filter(|place| *place != current);
        [current].into_iter().chain(others).collect()
    }

    /// Notes that the way at this place works, of those that were `tried` in this order. Returns the text of a log
    /// line if another one worked before.
    pub fn note_success(
        &self,
        place: usize,
        tried: &[usize],
        failed: &[FailedWay],
    ) -> Option<String> {
        let before = std::mem::replace(&mut *self.current.lock(), place);
        if before == place {
            return None;
        }
        self.changed.notify(usize::MAX);
        let mut line = format!("connected by {}", self.at(place));
        for other in tried.iter().take_while(|other| **other != place) {
            let failure = failed.iter().find(|(failed, _)| failed == other);
            let other = self.at(*other);
            line += &match failure {
                Some((_, failure)) => format!("; {other}: {failure}"),
                None => format!("; {other} did not answer"),
            };
        }
        Some(line)
    }

    /// Returns a future that is ready when the way that works changes after this call.
    pub fn change(&self) -> EventListener {
        self.changed.listen()
    }

    fn all(&self) -> impl Iterator<Item = &Remote> {
        [&self.first].into_iter().chain(&self.others)
    }
}

impl fmt::Display for Ways {
    /// Writes all ways with commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.others.iter().try_for_each(|way| write!(f, ",{way}"))
    }
}

/// Whether a failure is the server's answer, or the client's end, which no other way would change.
pub fn is_answer(failure: &ConnectFailure) -> bool {
    matches!(
        failure,
        ConnectFailure::Refused(..) | ConnectFailure::NothingToPublish | ConnectFailure::Stopped
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Ways {
        let texts = ["tls://h:1", "tls://h:2", "tcp://h:3"];
        Ways::new(texts.map(|text| text.parse().unwrap()).into()).unwrap()
    }

    #[test]
    fn the_way_that_worked_last_is_tried_first() {
        let ways = three();
        assert_eq!(ways.to_string(), "tls://h:1,tls://h:2,tcp://h:3");
        assert_eq!(ways.order(), [0, 1, 2]);
        assert!(ways.note_success(2, &[0, 1, 2], &[]).is_some());
        assert_eq!(ways.order(), [2, 0, 1]);
        assert_eq!(ways.current().to_string(), "tcp://h:3");
        assert_eq!(ways.place_of(ways.at(1)), Some(1));
    }

    #[test]
    fn a_change_of_the_way_is_logged_once_and_says_why() {
        let ways = three();
        assert_eq!(ways.note_success(0, &[0], &[]), None);
        let failed = [(1, ConnectFailure::Silent(Duration::from_secs(15)))];
        assert_eq!(
            ways.note_success(2, &[0, 1, 2], &failed).unwrap(),
            "connected by tcp://h:3; tls://h:1 did not answer; tls://h:2: the server did not answer the \
             hello within 15s"
        );
        assert_eq!(ways.note_success(2, &[2, 0, 1], &[]), None);
        let again = ways.note_success(0, &[0, 1], &[]).unwrap();
        assert_eq!(again, "connected by tls://h:1");
    }
}
