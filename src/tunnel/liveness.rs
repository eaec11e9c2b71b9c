//! Signs of life of a tunnel's peer: what it was asked, and since when it owes an answer.

use std::time::{Duration, Instant};

/// A stream that begins after the peer was silent for this long asks it for a sign of life.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// While the round-trip time is unknown, an answer may take this long before it is late.
const DEFAULT_LATE_AFTER: Duration = Duration::from_secs(1);
/// An answer that is sooner than this is never late.
const NEVER_LATE_BEFORE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Liveness {
    /// The moment the peer was last heard.
    heard: Instant,
    /// The moment of the first question that it has not answered. Everything it sends is an
    /// answer.
    asked: Option<Instant>,
    /// The moment of the first stream that began while the peer was silent.
    watched: Option<Instant>,
    listening: ReadingState,
    /// The kernel has found out that bytes do not reach the peer.
    lost: bool,
}

/// Whether the tunnel is being read at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadingState {
    Yes,
    /// A reader, or the tunnel's speed, holds it up: the peer's answers wait unread.
    No,
}

impl Liveness {
    pub fn new(now: Instant) -> Self {
        Self {
            heard: now,
            asked: None,
            watched: None,
            listening: ReadingState::Yes,
            lost: false,
        }
    }

    /// Bytes have come.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.answered();
    }

    /// The peer has given a sign of life.
    pub fn answered(&mut self) {
        self.asked = None;
        self.watched = None;
        self.lost = false;
    }

    /// The peer has been sent something that it answers.
    pub fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// The tunnel is not read from now on.
    pub fn stalls(&mut self) {
        self.listening = ReadingState::No;
    }

    /// The tunnel is read. What it was asked while it was not, counts from now on.
    pub fn listens(&mut self) {
        if self.listening == ReadingState::No {
            self.listens_from(Instant::now());
        }
    }

    fn listens_from(&mut self, now: Instant) {
        self.listening = ReadingState::Yes;
        self.asked = self.asked.map(|_| now);
        self.watched = self.watched.map(|_| now);
    }

    /// A stream begins. Whether the peer has been silent for so long that it should be asked
    /// for a sign of life; the tunnel is watched then until there is one.
    pub fn begin_stream(&mut self, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.heard) >= PROBE_AFTER;
        if self.watched.is_some() || !silent || self.listening == ReadingState::No {
            return false;
        }
        self.watched = Some(now);
        self.asked(now);
        true
    }

    /// Whether a stream waits for a sign of life.
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// How long a stream has waited for one.
    pub fn watched(&self, now: Instant) -> Option<Duration> {
        self.since(self.watched, now)
    }

    /// How long the peer has left a question unanswered.
    pub fn unanswered(&self, now: Instant) -> Option<Duration> {
        self.since(self.asked, now)
    }

    fn since(&self, moment: Option<Instant>, now: Instant) -> Option<Duration> {
        let moment = moment.filter(|_| self.listening == ReadingState::Yes)?;
        Some(now.saturating_duration_since(moment))
    }

    /// Whether the answer takes so much longer than the smoothed `round_trip` that new streams
    /// are better off in another tunnel.
    pub fn is_late(&self, round_trip: Option<Duration>, now: Instant) -> bool {
        let usual = round_trip.map_or(DEFAULT_LATE_AFTER, |time| {
            (time * 2).clamp(NEVER_LATE_BEFORE, DEFAULT_LATE_AFTER)
        });
        self.unanswered(now).is_some_and(|time| time > usual)
    }

    pub fn set_lost(&mut self, lost: bool) {
        self.lost = lost;
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stream_after_a_silence_asks_once_until_the_peer_is_heard() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(begin);
        assert!(!liveness.begin_stream(begin), "it was heard just now");
        assert!(liveness.begin_stream(begin + SECOND));
        assert!(!liveness.begin_stream(begin + SECOND * 2), "it was asked");
        assert_eq!(liveness.watched(begin + SECOND * 4), Some(SECOND * 3));
        assert_eq!(liveness.unanswered(begin + SECOND * 4), Some(SECOND * 3));
        liveness.heard(begin + SECOND * 5);
        assert_eq!(liveness.unanswered(begin + SECOND * 6), None);
        assert!(!liveness.is_watched());
        assert!(liveness.begin_stream(begin + SECOND * 6));
    }

    #[test]
    fn an_answer_is_late_by_the_round_trip_time() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut liveness = Liveness::new(begin);
        assert!(!liveness.is_late(None, at(99_000)), "nothing was asked");
        liveness.asked(begin);
        for (round_trip, in_time, late) in [
            (None, 1000, 1001),
            (Some(10), 100, 101),
            (Some(200), 400, 401),
            (Some(9000), 1000, 1001),
        ] {
            let round_trip = round_trip.map(Duration::from_millis);
            assert!(!liveness.is_late(round_trip, at(in_time)), "{round_trip:?}");
            assert!(liveness.is_late(round_trip, at(late)), "{round_trip:?}");
        }
    }

    #[test]
    fn time_in_which_nobody_listens_does_not_count() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(begin);
        liveness.begin_stream(begin + SECOND);
        liveness.stalls();
        assert_eq!(liveness.unanswered(begin + SECOND * 60), None);
        assert_eq!(liveness.watched(begin + SECOND * 60), None);
        liveness.listens_from(begin + SECOND * 60);
        assert_eq!(liveness.unanswered(begin + SECOND * 61), Some(SECOND));
        assert_eq!(liveness.watched(begin + SECOND * 61), Some(SECOND));
    }
}
