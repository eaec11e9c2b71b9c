//! Signs of life of a tunnel's peer: when it was last heard, and since when it owes an answer.

use super::moment::Moment;
use std::time::Duration;

/// A stream that begins after this much silence of the peer triggers a probe, and so does one after whose
/// beginning the peer is silent for this time.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// Time after which any answer is late. It applies alone while the round-trip time is unknown.
const DEFAULT_LATE_AFTER: Duration = Duration::from_secs(1);
/// Time before which no answer is late.
const NEVER_LATE_BEFORE: Duration = Duration::from_millis(100);

/// How much new streams should prefer another tunnel, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lateness {
    /// The peer owes no answer, or has some time left for it.
    InTime,
    /// The answer takes longer than usual; a lost packet may be the reason.
    Late,
    /// The answer takes so long that the peer may be gone.
    Overdue,
}

/// What is known of one peer's being alive.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When the peer was last heard.
    heard: Moment,
    /// When the first unanswered probe was sent. Anything that the peer sends answers it.
    asked: Option<Moment>,
    /// When the first stream began that no probe has followed, since the last frame of the peer.
    begun: Option<Moment>,
    /// Since when a stream has waited for an answer to its probe.
    watched: Option<Moment>,
    /// Whether new streams prefer other tunnels until there is a sign of life.
    doubted: bool,
    reading: ReadingState,
    /// Whether the kernel reports that bytes do not reach the peer.
    lost: bool,
}

/// Whether the tunnel is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadingState {
    Active,
    /// A full backlog or the speed limit holds up reading: the peer's answers wait unread.
    Stalled,
}

impl Liveness {
    pub fn new(now: Moment) -> Self {
        Self {
            heard: now,
            asked: None,
            begun: None,
            watched: None,
            doubted: false,
            reading: ReadingState::Active,
            lost: false,
        }
    }

    /// Notes that bytes have come from the peer.
    pub fn heard(&mut self, now: Moment) {
        self.heard = now;
        self.answered();
    }

    /// Returns how long nothing has come from the peer.
    pub fn silence(&self, now: Moment) -> Duration {
        self.heard.until(now)
    }

    /// Notes a sign of life of the peer.
    pub fn answered(&mut self) {
        self.asked = None;
        self.begun = None;
        self.watched = None;
        self.doubted = false;
        self.lost = false;
    }

    /// Notes that the peer may have gone: new streams prefer other tunnels until there is a sign of life.
    #[cfg(feature = "server")]
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Whether the peer has given no sign of life since it was doubted.
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Notes that the peer was sent something that it has to answer.
    pub fn asked(&mut self, now: Moment) {
        self.asked.get_or_insert(now);
    }

    /// Notes that the tunnel is not read from now on.
    pub fn stall(&mut self) {
        self.reading = ReadingState::Stalled;
    }

    /// Whether something holds up reading, so that what the peer has sent waits unread.
    pub fn is_stalled(&self) -> bool {
        self.reading == ReadingState::Stalled
    }

    /// Notes that the tunnel is read again. Probes sent meanwhile count from now on.
    pub fn resume(&mut self) {
        if self.reading == ReadingState::Stalled {
            self.resume_at(Moment::now());
        }
    }

    fn resume_at(&mut self, now: Moment) {
        self.reading = ReadingState::Active;
        self.asked = self.asked.map(|_| now);
        self.begun = self.begun.map(|_| now);
        self.watched = self.watched.map(|_| now);
    }

    /// Notes that a stream begins, or that bytes of streams have moved. True if the peer has been silent for
    /// [`PROBE_AFTER`] and should be probed; the tunnel is then watched until there is a sign of life.
    pub fn begin_stream(&mut self, now: Moment) -> bool {
        if self.watched.is_some() || self.reading == ReadingState::Stalled {
            return false;
        }
        if self.heard.until(now) < PROBE_AFTER {
            self.begun.get_or_insert(now);
            return false;
        }
        self.watch(now);
        true
    }

    /// Whether the peer has been silent for [`PROBE_AFTER`] since a stream began and should be probed: it may
    /// have gone before the stream began, and after it was last heard. The tunnel is then watched.
    pub fn is_probe_due(&mut self, now: Moment) -> bool {
        let waited = self.since(self.begun, now);
        let is_due = waited.is_some_and(|waited| waited >= PROBE_AFTER) && self.watched.is_none();
        if is_due {
            self.watch(now);
        }
        is_due
    }

    fn watch(&mut self, now: Moment) {
        self.begun = None;
        self.watched = Some(now);
        self.asked(now);
    }

    /// Whether a stream is waiting for a sign of life.
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Returns how long a stream has waited for a sign of life.
    pub fn watched(&self, now: Moment) -> Option<Duration> {
        self.since(self.watched, now)
    }

    /// Returns how long the peer has left a probe unanswered.
    pub fn unanswered(&self, now: Moment) -> Option<Duration> {
        self.since(self.asked, now)
    }

    fn since(&self, moment: Option<Moment>, now: Moment) -> Option<Duration> {
        let moment = moment.filter(|_| self.reading == ReadingState::Active)?;
        Some(moment.until(now))
    }

    /// Returns how late the answer is, as measured by the smoothed `round_trip`.
    pub fn lateness(&self, round_trip: Option<Duration>, now: Moment) -> Lateness {
        let usual = round_trip.map_or(DEFAULT_LATE_AFTER, |time| {
            (time * 2).clamp(NEVER_LATE_BEFORE, DEFAULT_LATE_AFTER)
        });
        match self.unanswered(now) {
            Some(time) if time > DEFAULT_LATE_AFTER => Lateness::Overdue,
            Some(time) if time > usual => Lateness::Late,
            _ => Lateness::InTime,
        }
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
    fn the_first_stream_after_a_silence_probes_the_peer_once() {
        let begin = Moment::now();
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
    fn a_peer_that_says_nothing_after_a_stream_has_begun_is_probed_once() {
        let begin = Moment::now();
        let mut liveness = Liveness::new(begin);
        let at = |millis| begin + Duration::from_millis(millis);
        assert!(!liveness.begin_stream(at(500)) && !liveness.begin_stream(at(900)));
        assert!(!liveness.is_probe_due(at(1499)));
        assert!(liveness.is_probe_due(at(1500)));
        assert!(!liveness.is_probe_due(at(9000)), "it was asked");
        assert_eq!(liveness.watched(at(2500)), Some(SECOND));
        liveness.heard(at(9000));
        assert!(!liveness.is_probe_due(at(19_000)), "no stream has begun");
        assert!(!liveness.begin_stream(at(9500)));
        liveness.heard(at(10_000));
        assert!(!liveness.is_probe_due(at(19_000)), "it was heard since");
    }

    #[test]
    fn lateness_depends_on_the_round_trip_time() {
        let begin = Moment::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut liveness = Liveness::new(begin);
        let unasked = liveness.lateness(None, at(99_000));
        assert_eq!(unasked, Lateness::InTime, "nothing was asked");
        liveness.asked(begin);
        for (round_trip, in_time, late, how) in [
            (None, 1000, 1001, Lateness::Overdue),
            (Some(10), 100, 101, Lateness::Late),
            (Some(10), 100, 1000, Lateness::Late),
            (Some(10), 100, 1001, Lateness::Overdue),
            (Some(200), 400, 401, Lateness::Late),
            (Some(9000), 1000, 1001, Lateness::Overdue),
        ] {
            let round_trip = round_trip.map(Duration::from_millis);
            let lateness = |millis| liveness.lateness(round_trip, at(millis));
            assert_eq!(lateness(in_time), Lateness::InTime, "{round_trip:?}");
            assert_eq!(lateness(late), how, "{round_trip:?}, {late}");
        }
    }

    #[test]
    fn time_during_which_the_tunnel_is_not_read_does_not_count() {
        let begin = Moment::now();
        let mut liveness = Liveness::new(begin);
        liveness.begin_stream(begin + SECOND);
        liveness.stall();
        assert_eq!(liveness.unanswered(begin + SECOND * 60), None);
        assert_eq!(liveness.watched(begin + SECOND * 60), None);
        liveness.resume_at(begin + SECOND * 60);
        assert_eq!(liveness.unanswered(begin + SECOND * 61), Some(SECOND));
        assert_eq!(liveness.watched(begin + SECOND * 61), Some(SECOND));
    }
}
