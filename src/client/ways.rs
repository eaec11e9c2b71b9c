//! The ways to one server in the order in which they were written, the one that worked last, and how far each is
//! trusted. Not the attempts, see `pool::better_way`.

use super::connect::ConnectFailure;
use super::way_trust::WayTrust;
use crate::config::Remote;
use crate::net::clock;
use crate::sync::Mutex;
use event_listener::{Event, EventListener};
use std::fmt;
use std::time::{Duration, Instant};

/// Time after which the next way is tried beside those that have no result yet, as RFC 8305 does with addresses.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(300);

/// The place of a way that has failed, and the failure.
pub type FailedWay = (usize, ConnectFailure);

/// The ways to a server; at least one.
pub struct Ways {
    first: Remote,
    others: Vec<Remote>,
    state: Mutex<WaysState>,
    /// Notified when another way works.
    changed: Event,
}

/// What is known of the ways to a server.
struct WaysState {
    /// The place of the way that worked last; at first the one that was written first.
    current: usize,
    /// The trust in each way, by its place.
    trust: Vec<WayTrust>,
}

/// What the server has said over a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayAnswer {
    /// The server has accepted the tunnel.
    Accepted,
    /// The server has refused the client.
    Refused,
}

impl Ways {
    /// Creates ways of which none has been tried; `None` without one.
    pub fn new(ways: Vec<Remote>) -> Option<Self> {
        let state = WaysState {
            current: 0,
            trust: vec![WayTrust::default(); ways.len()],
        };
        let mut ways = ways.into_iter();
        Some(Self {
            first: ways.next()?,
            others: ways.collect(),
            state: Mutex::new(state),
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
        self.at(self.state.lock().current)
    }

    /// Returns the places of all ways in the order in which they are tried: the one that worked last, the others as
    /// they were written, and then those whose tunnels do not last.
    pub fn order(&self) -> Vec<usize> {
        let (state, now) = (self.state.lock(), clock::now());
        let others = (0..state.trust.len()).filter(|place| *place != state.current);
        let mut order: Vec<usize> = [state.current].into_iter().chain(others).collect();
        // A stable sort.
        order.sort_by_key(|place| state.is_avoided(*place, now));
        order
    }

    /// Returns the places of the ways that are better than the one at this place: those that were written before it and
    /// whose tunnels last.
    pub fn better_than(&self, place: usize) -> Vec<usize> {
        let (state, now) = (self.state.lock(), clock::now());
        (0..place)
            .filter(|better| !state.is_avoided(*better, now))
            .collect()
    }

    /// Notes that a tunnel over a way, which was open since `begun`, was lost: early if it was open for less than `early`.
    /// Returns for how long the way comes last, if it does from now on.
    pub fn note_loss(&self, way: &Remote, begun: Instant, early: Duration) -> Option<Duration> {
        let place = self.place_of(way).filter(|_| self.are_several())?;
        let (mut state, now) = (self.state.lock(), clock::now());
        let trust = state.trust.get_mut(place)?;
        if now.saturating_duration_since(begun) < early {
            return trust.note_early_loss(begun, now);
        }
        trust.note_lasting();
        None
    }

    /// Notes that the server has answered over the way at this place, of those that were `tried` in this order. Returns
    /// the text of a log line if another one worked before.
    pub fn note_answer(
        &self,
        (place, answer): (usize, WayAnswer),
        tried: &[usize],
        failed: &[FailedWay],
    ) -> Option<String> {
        let before = std::mem::replace(&mut self.state.lock().current, place);
        if before == place {
            return None;
        }
        self.changed.notify(usize::MAX);
        let how = match answer {
            WayAnswer::Accepted => "connected",
            WayAnswer::Refused => "answered",
        };
        let mut line = format!("{how} by {}", self.at(place));
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

impl WaysState {
    fn is_avoided(&self, place: usize, now: Instant) -> bool {
        let trust = self.trust.get(place);
        trust.is_some_and(|trust| trust.is_avoided(now))
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
        let accepted = (2, WayAnswer::Accepted);
        assert!(ways.note_answer(accepted, &[0, 1, 2], &[]).is_some());
        assert_eq!(ways.order(), [2, 0, 1]);
        assert_eq!(ways.current().to_string(), "tcp://h:3");
        assert_eq!(ways.place_of(ways.at(1)), Some(1));
    }

    #[test]
    fn a_way_whose_tunnels_do_not_last_comes_last_and_is_no_better_one() {
        let ways = three();
        let early = Duration::from_secs(60);
        let lose = |place: usize| ways.note_loss(ways.at(place), clock::now(), early);
        assert_eq!(lose(0), None);
        assert_eq!(
            (ways.order(), ways.better_than(2)),
            (vec![0, 1, 2], vec![0, 1])
        );
        assert!(lose(0).is_some());
        assert_eq!(
            (ways.order(), ways.better_than(2)),
            (vec![1, 2, 0], vec![1])
        );
        // All alike.
        for place in [1, 2] {
            lose(place);
            lose(place);
        }
        assert_eq!(ways.order(), [0, 1, 2]);
        // Each of these was open for long enough.
        assert_eq!(
            ways.note_loss(ways.at(2), clock::now(), Duration::ZERO),
            None
        );
        assert_eq!((ways.order(), ways.better_than(2)), (vec![2, 0, 1], vec![]));
    }

    #[test]
    fn the_only_way_is_never_avoided() {
        let ways = Ways::new(vec!["tcp://h".parse().unwrap()]).unwrap();
        for _ in 0..10 {
            let lost = ways.note_loss(ways.at(0), clock::now(), Duration::MAX);
            assert_eq!(lost, None);
        }
    }

    #[test]
    fn a_change_of_the_way_is_logged_once_and_says_why() {
        let ways = three();
        let by = |place| (place, WayAnswer::Accepted);
        assert_eq!(ways.note_answer(by(0), &[0], &[]), None);
        let failed = [(1, ConnectFailure::Silent(Duration::from_secs(15)))];
        assert_eq!(
            ways.note_answer(by(2), &[0, 1, 2], &failed).unwrap(),
            "connected by tcp://h:3; tls://h:1 did not answer; tls://h:2: the server did not answer the \
             hello within 15s"
        );
        assert_eq!(ways.note_answer(by(2), &[2, 0, 1], &[]), None);
        let again = ways.note_answer(by(0), &[0, 1], &[]).unwrap();
        assert_eq!(again, "connected by tls://h:1");
        let refused = ways.note_answer((1, WayAnswer::Refused), &[1, 0], &[]);
        assert_eq!(refused.unwrap(), "answered by tls://h:2");
    }
}
