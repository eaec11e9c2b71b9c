//! Whether the path to a server still works. A client whose path is silent moves to another socket, and so to
//! another port, for which NATs have a new mapping. Not the move, see `mover`.

use quinn_proto::ConnectionStats;
use std::time::{Duration, Instant};

/// Time without an answer of the server, though one is due, after which a path is given up: the time of three
/// probes (RFC 9002, section 6.2) on a line with a round trip of half a second.
const SILENCE: Duration = Duration::from_secs(2);
/// Maximum time of silence: it doubles with each further path that is silent.
const MAX_SILENCE: Duration = Duration::from_secs(16);
/// Time without a packet after a burst of the server's data at which the client asks whether it still arrives:
/// a client that only receives would not notice that its address has changed on the way.
const PAUSE: Duration = Duration::from_secs(1);
/// Number of the server's pieces of data that make a burst.
const BURST: u64 = 16;

/// What has happened on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathCounts {
    /// Frames that were sent and that the peer has to acknowledge.
    pub due: u64,
    /// Pieces of data that have come.
    pub data: u64,
    /// The smoothed round trip. It changes when the server acknowledges something for the first time, and with no
    /// other packet.
    pub round_trip: Duration,
}

impl PathCounts {
    /// Counts what a connection has sent and received.
    pub fn of(stats: &ConnectionStats) -> Self {
        let sent = &stats.frame_tx;
        let due = [
            sent.stream,
            sent.ping,
            sent.max_data,
            sent.max_stream_data,
            sent.reset_stream,
            sent.stop_sending,
        ];
        Self {
            due: due.into_iter().fold(0, u64::saturating_add),
            data: stats.frame_rx.stream,
            round_trip: stats.path.rtt,
        }
    }
}

/// What a client has to do about its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathVerdict {
    /// The path works: nothing to do.
    Fine,
    /// Send a packet that the server has to answer.
    Ask,
    /// Move the connection to another socket.
    Move,
}

/// The silence of a path.
#[derive(Debug)]
pub struct PathWatch {
    counts: PathCounts,
    /// When the last packet of the server came.
    heard: Instant,
    /// Since when an answer is due.
    due_since: Option<Instant>,
    /// Time that the answer may take.
    patience: Duration,
    /// Number of pieces of data in the current burst.
    burst: u64,
}

impl PathWatch {
    /// Watches a path on which a packet of the server has just come.
    pub fn new(now: Instant) -> Self {
        Self {
            counts: PathCounts {
                due: 0,
                data: 0,
                round_trip: Duration::ZERO,
            },
            heard: now,
            due_since: None,
            patience: SILENCE,
            burst: 0,
        }
    }

    /// Decides by what has happened up to `now`; the last packet of the server came at `heard`.
    pub fn check(&mut self, now: Instant, heard: Instant, counts: PathCounts) -> PathVerdict {
        let before = std::mem::replace(&mut self.counts, counts);
        if heard != self.heard {
            if heard.saturating_duration_since(self.heard) >= PAUSE {
                self.burst = 0;
            }
            self.heard = heard;
            self.burst = self
                .burst
                .saturating_add(counts.data.saturating_sub(before.data));
        }
        // Packets alone are no answer: a path can work in one direction.
        if counts.round_trip != before.round_trip {
            self.due_since = None;
            self.patience = SILENCE;
        }
        if counts.due != before.due && self.due_since.is_none() {
            self.due_since = Some(now);
        }
        if self
            .due_since
            .is_some_and(|since| now >= since + self.patience)
        {
            self.due_since = None;
            self.patience = (self.patience * 2).min(MAX_SILENCE);
            return PathVerdict::Move;
        }
        if now >= self.heard + PAUSE {
            let is_burst = std::mem::take(&mut self.burst) >= BURST;
            if is_burst && self.due_since.is_none() {
                return PathVerdict::Ask;
            }
        }
        PathVerdict::Fine
    }

    /// Returns when to check again, at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let silent = self.due_since.map(|since| since + self.patience);
        let paused = (self.burst >= BURST).then(|| self.heard + PAUSE);
        [silent, paused].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counts(due: u64, data: u64) -> PathCounts {
        PathCounts {
            due,
            data,
            round_trip: SECOND,
        }
    }

    fn answered(due: u64) -> PathCounts {
        PathCounts {
            round_trip: SECOND / 2,
            ..counts(due, 0)
        }
    }

    #[test]
    fn a_path_is_given_up_when_an_answer_is_due_and_others_ever_later() {
        let start = Instant::now();
        let mut watch = PathWatch::new(start);
        assert_eq!(watch.check(start, start, counts(0, 0)), PathVerdict::Fine);
        assert_eq!(watch.deadline(), None);
        let (mut now, mut moves, mut due) = (start, Vec::new(), 1);
        while now < start + 60 * SECOND {
            if watch.check(now, start, counts(due, 0)) == PathVerdict::Move {
                moves.push((now - start).as_secs());
                // The move sends something.
                due += 1;
            }
            now += SECOND / 2;
        }
        assert_eq!(moves, [2, 6, 15, 31, 48]);
        // An answer, then the first patience again, also if packets come that are none.
        assert_eq!(watch.check(now, now, answered(due)), PathVerdict::Fine);
        let sent = PathCounts {
            due: due + 1,
            ..answered(due)
        };
        assert_eq!(watch.check(now, now, sent), PathVerdict::Fine);
        assert_eq!(watch.deadline(), Some(now + SILENCE));
        let late = now + SILENCE;
        assert_eq!(watch.check(late, late, sent), PathVerdict::Move);
    }

    #[test]
    fn a_client_that_only_receives_asks_once_after_each_burst() {
        let start = Instant::now();
        let mut watch = PathWatch::new(start);
        let heard = start + SECOND;
        assert_eq!(
            watch.check(heard, heard, counts(0, BURST)),
            PathVerdict::Fine
        );
        assert_eq!(watch.deadline(), Some(heard + PAUSE));
        let paused = heard + PAUSE;
        assert_eq!(
            watch.check(paused, heard, counts(0, BURST)),
            PathVerdict::Ask
        );
        assert_eq!(
            watch.check(paused, heard, counts(1, BURST)),
            PathVerdict::Fine
        );
        // The answer has no data.
        assert_eq!(
            watch.check(
                paused,
                paused,
                PathCounts {
                    data: BURST,
                    ..answered(1)
                }
            ),
            PathVerdict::Fine
        );
        assert_eq!(watch.deadline(), None);
        // Little data, now and then, is no burst.
        let (mut now, mut data) = (paused, BURST);
        for _ in 0..10 {
            now += 10 * SECOND;
            data += 2;
            assert_eq!(watch.check(now, now, counts(1, data)), PathVerdict::Fine);
            assert_eq!(watch.deadline(), None);
        }
    }
}
