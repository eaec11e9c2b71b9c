//! Receiving at intervals, for datagrams that come quickly one by one: each would wake the thread, and cost
//! three system calls at either end of the tunnel. Network cards coalesce their interrupts for the same reason.
//!
//! A socket whose datagrams wake it often is not watched for a while, but looked at each millisecond, and what
//! has come meanwhile goes on together. This slows down peers that wait for each other's answers: if fewer datagrams
//! come than before, the socket is watched again for a time.

use crate::net::{clock, Interest, PollSource, Timer};
use crate::sync::Mutex;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};

/// Number of receives between two looks at the clock.
const RECEIVES: u32 = 16;
/// Maximum time of [`RECEIVES`] receives in a socket that is then looked at in intervals: 4 000 a second.
const QUICK: Duration = Duration::from_millis(4);
/// Time between two looks at a socket that is not watched. A timer fires at the millisecond after its time.
const INTERVAL: Duration = Duration::from_micros(500);
/// Number of intervals after which the rate is compared with the one before.
const INTERVALS: u32 = 8;
/// Minimum number of datagrams in [`INTERVALS`] intervals: with fewer, intervals save nothing.
const FEWEST: u32 = 2 * INTERVALS;
/// Time in which a socket is only watched after intervals have slowed its peers down; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Maximum time in which a socket is only watched.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Decides when a socket's datagrams are received at intervals.
#[derive(Debug, Default)]
pub struct Coalescing(Mutex<Watch>);

/// How a socket learns of datagrams. Small while there are few.
#[derive(Debug, Default)]
struct Watch {
    /// Receives since the last look at the clock.
    receives: u32,
    /// Datagrams that these receives have found.
    datagrams: u32,
    /// What is known of a socket that has received for a while.
    rate: Option<Box<Rate>>,
}

struct Rate {
    /// The last look at the clock.
    since: Instant,
    /// No intervals before this time.
    paused_until: Instant,
    pause: Duration,
    /// The next look at the socket; `None` if it is watched.
    interval: Option<Timer>,
    /// Datagrams and microseconds before the intervals.
    before: (u32, u32),
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rate").finish_non_exhaustive()
    }
}

/// What a receive changes.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// Do not watch the socket any more.
    Hold,
    /// Watch it again.
    Release,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            paused_until: now,
            pause: FIRST_PAUSE,
            interval: None,
            before: (0, 0),
        }
    }
}

impl Watch {
    /// Counts a receive. `drained`: it has emptied the socket. `now` is asked for at times only.
    fn note(&mut self, received: usize, drained: bool, now: impl Fn() -> Instant) -> Change {
        self.datagrams = self
            .datagrams
            .saturating_add(received.try_into().unwrap_or(u32::MAX));
        if !drained {
            return Change::Nothing;
        }
        self.receives += 1;
        let interval = self.rate.as_mut().and_then(|rate| rate.interval.as_mut());
        let due = if interval.is_some() {
            INTERVALS
        } else {
            RECEIVES
        };
        if self.receives >= due {
            return self.look(now());
        }
        if let Some(timer) = interval {
            timer.set_after(INTERVAL);
        }
        Change::Nothing
    }

    /// Looks how many datagrams have come in which time.
    fn look(&mut self, now: Instant) -> Change {
        self.receives = 0;
        let datagrams = std::mem::take(&mut self.datagrams);
        let Some(rate) = &mut self.rate else {
            self.rate = Some(Box::new(Rate::new(now)));
            return Change::Nothing;
        };
        let took = now.saturating_duration_since(std::mem::replace(&mut rate.since, now));
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let Some(timer) = &mut rate.interval else {
            if took > QUICK || now < rate.paused_until {
                return Change::Nothing;
            }
            rate.before = (datagrams, micros);
            rate.interval = Some(Timer::after(INTERVAL));
            return Change::Hold;
        };
        let (before, in_micros) = rate.before;
        let is_half = u64::from(datagrams) * 2 * u64::from(in_micros)
            >= u64::from(before) * u64::from(micros);
        if is_half && datagrams >= FEWEST {
            rate.pause = FIRST_PAUSE;
            timer.set_after(INTERVAL);
            return Change::Nothing;
        }
        rate.interval = None;
        rate.paused_until = now.checked_add(rate.pause).unwrap_or(now);
        rate.pause = (rate.pause * 2).min(MAX_PAUSE);
        Change::Release
    }
}

impl Coalescing {
    /// Ready when datagrams should be received.
    pub fn poll_due(
        &self,
        socket: &PollSource<UdpSocket>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut watch = self.0.lock();
        let interval = watch.rate.as_mut().and_then(|rate| rate.interval.as_mut());
        let Some(timer) = interval else {
            drop(watch);
            return socket.poll_ready(Interest::Read, cx);
        };
        ready!(Pin::new(timer).poll(cx));
        drop(watch);
        socket.assume_readable();
        Poll::Ready(Ok(()))
    }

    /// Notes how many datagrams a receive has found, and whether that emptied the socket.
    pub fn note(&self, socket: &PollSource<UdpSocket>, received: usize, drained: bool) {
        let change = self.0.lock().note(received, drained, clock::now);
        let changed = match change {
            Change::Nothing => Ok(()),
            Change::Hold => socket.hold(),
            Change::Release => socket.release(),
        };
        if let Err(e) = changed {
            log::debug!("watching a UDP socket: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives one datagram every `gap` until something changes; returns what, and after how many.
    fn until_change(
        watch: &mut Watch,
        now: &mut Instant,
        gap: Duration,
        most: u32,
    ) -> (Change, u32) {
        for count in 1..=most {
            *now += gap;
            let change = watch.note(1, true, || *now);
            if change != Change::Nothing {
                return (change, count);
            }
        }
        (Change::Nothing, most)
    }

    /// Receives `each` datagrams every millisecond until something changes.
    fn at_intervals(watch: &mut Watch, now: &mut Instant, each: usize, most: u32) -> (Change, u32) {
        for count in 1..=most {
            *now += Duration::from_millis(1);
            let change = watch.note(each, true, || *now);
            if change != Change::Nothing {
                return (change, count);
            }
        }
        (Change::Nothing, most)
    }

    #[test]
    fn datagrams_that_come_quickly_are_received_at_intervals_and_others_are_not() {
        let mut now = clock::now();
        let mut watch = Watch::default();
        let slow = Duration::from_micros(300);
        assert_eq!(
            until_change(&mut watch, &mut now, slow, 10_000).0,
            Change::Nothing
        );
        let quick = Duration::from_micros(100);
        assert_eq!(
            until_change(&mut watch, &mut now, quick, 1000).0,
            Change::Hold
        );
        assert_eq!(
            at_intervals(&mut watch, &mut now, 10, 10_000).0,
            Change::Nothing
        );
        // They become fewer.
        assert_eq!(
            at_intervals(&mut watch, &mut now, 1, 100).0,
            Change::Release
        );
    }

    #[test]
    fn peers_that_wait_for_answers_are_left_alone_for_longer_each_time() {
        let mut now = clock::now();
        let mut watch = Watch::default();
        let quick = Duration::from_micros(50);
        let mut shares = Vec::new();
        for _ in 0..6 {
            let begun = now;
            assert_eq!(
                until_change(&mut watch, &mut now, quick, 10_000_000).0,
                Change::Hold
            );
            let watched = now - begun;
            // Four peers, each with one question at a time.
            let begun = now;
            assert_eq!(
                at_intervals(&mut watch, &mut now, 4, 100).0,
                Change::Release
            );
            shares.push(watched.as_millis() / (now - begun).as_millis());
        }
        assert!(shares[5] > 100, "{shares:?}");
        assert!(shares.is_sorted(), "{shares:?}");
    }

    #[test]
    fn a_socket_with_few_datagrams_takes_little_memory() {
        assert!(std::mem::size_of::<Coalescing>() <= 24);
        let (mut now, mut watch) = (clock::now(), Watch::default());
        until_change(&mut watch, &mut now, Duration::ZERO, RECEIVES - 1);
        assert!(watch.rate.is_none());
    }
}
