//! Receive windows: how many bytes of a stream may come before its reader takes some. GT/2 only
//! (docs/wire.md, "Windows").
//!
//! A window is credit, not memory: only bytes that come and are not taken need memory. But all that
//! may come must fit, so windows begin small where there are many, grow while they hold back a
//! sender whose reader keeps up, and share one reserve for that growth.

use std::time::Duration;

/// First window of a stream that the peer opens, in bytes. The hello carries it.
pub const FIRST_WINDOW: u32 = 32 * 1024;

/// Maximum outstanding credit of one direction of a stream, in bytes, whichever end gives it.
pub(super) const MAX_CREDIT: u32 = (1 << 31) - 1;

/// First windows of streams that are opened here, as (window, limit) in bytes: the first entry
/// counts whose limit the sum of all first windows has not reached.
const FIRST_WINDOWS: [(u32, u32); 2] = [(64 * 1024, 2 * 1024 * 1024), (16 * 1024, 4 * 1024 * 1024)];
/// First window in bytes once the sum has reached all limits of [`FIRST_WINDOWS`].
const MIN_CREDIT: u32 = 4 * 1024;

/// Shorter round trips count as this long. A window that lasts less than two of these makes both
/// ends sleep and wake all the time, and what it may grow to is in flight no longer than that.
const MIN_ROUND_TRIP: Duration = Duration::from_millis(1);

/// Round trip from which on a tunnel is far. A lost packet holds up all behind it for one or two round trips,
/// so that as many more bytes are on their way: at 100 ms and a loss of 2 %, windows of 1 MiB carry 28 Mbit/s of a
/// line of 100 (benches/ways.py).
const FAR: Duration = Duration::from_millis(50);
/// Factor by which the windows of a far tunnel may be larger than others.
const FAR_FACTOR: u32 = 6;
/// The part of the reserve's free bytes, in eighths, that one window may have.
const SHARE: u32 = 4;
/// The part of the reserve's free bytes, in eighths, that one window of a far tunnel may have. The reserve of a far
/// tunnel is half as large again.
const FAR_SHARE: u32 = 7;

/// Maximum bytes for which credit is held back, so that a large window does not act like one of half its size.
const MAX_OWED: u32 = 512 * 1024;

/// How far the windows of one tunnel may grow.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Maximum size of one window, in bytes. [`FAR_FACTOR`] times as much on a far tunnel.
    pub max: u32,
    /// Maximum growth of all windows together beyond their first sizes, in bytes. Half as much again on a far
    /// tunnel.
    pub reserve: u32,
}

/// The budget that the windows of a tunnel share.
#[derive(Debug)]
pub(super) struct Budget {
    growth: Growth,
    /// Sum of all first windows, in bytes.
    first_windows: u32,
    /// Sum of the growth of all windows, in bytes.
    grown: u32,
}

/// The receive window of one stream.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Window {
    first: u32,
    /// Bytes that may be in flight or wait for the reader.
    size: u32,
    /// Bytes that the peer may still send.
    left: u32,
    /// Credit given since `since`, in bytes.
    used: u32,
    since: u32,
}

impl Budget {
    pub fn new(growth: Growth) -> Self {
        Self {
            growth,
            first_windows: 0,
            grown: 0,
        }
    }

    /// Creates the window of a stream that is opened here.
    pub fn window(&mut self) -> Window {
        let fits = FIRST_WINDOWS
            .iter()
            .find(|(_, most)| self.first_windows < *most);
        self.begin(fits.map_or(MIN_CREDIT, |(size, _)| *size))
    }

    /// Creates the window of a stream that the peer has opened.
    pub fn window_of_peer(&mut self) -> Window {
        self.begin(FIRST_WINDOW)
    }

    fn begin(&mut self, size: u32) -> Window {
        self.first_windows = self.first_windows.saturating_add(size);
        Window {
            first: size,
            size,
            left: size,
            used: 0,
            since: 0,
        }
    }

    /// Takes back the share of a stream that has ended.
    pub fn end(&mut self, window: &Window) {
        self.first_windows = self.first_windows.saturating_sub(window.first);
        self.grown = self.grown.saturating_sub(window.grown());
    }

    /// Returns the growth that all windows together may have.
    fn reserve(&self, is_far: bool) -> u32 {
        let more = if is_far { self.growth.reserve / 2 } else { 0 };
        self.growth.reserve.saturating_add(more)
    }

    fn resize(&mut self, window: &mut Window, grown: u32) {
        self.grown = self.grown.saturating_sub(window.grown());
        self.grown = self.grown.saturating_add(grown);
        window.size = window.first.saturating_add(grown);
    }
}

impl Window {
    fn grown(&self) -> u32 {
        self.size.saturating_sub(self.first)
    }

    /// Returns the bytes that the peer may still send.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Takes `n` bytes, of which at least as many are left, from the window.
    pub fn spend(&mut self, n: u32) {
        self.left = self.left.saturating_sub(n);
    }

    /// Returns how many bytes the reader has taken that were not given back as credit, while
    /// `waiting` bytes wait.
    fn unacknowledged(&self, waiting: usize) -> u32 {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let outstanding = self.left.saturating_add(waiting);
        self.size.saturating_sub(outstanding)
    }

    /// Returns credit for the peer if there is enough for a frame of its own, or (`on_the_way`) for
    /// one that is sent with others. `now` is in microseconds; `round_trip` is zero if it is not
    /// known.
    pub fn grant(
        &mut self,
        waiting: usize,
        on_the_way: bool,
        round_trip: Duration,
        now: impl FnOnce() -> u32,
        budget: &mut Budget,
    ) -> Option<u32> {
        let worthwhile = (self.size / if on_the_way { 4 } else { 2 }).min(MAX_OWED);
        let owed = self.unacknowledged(waiting);
        if owed < worthwhile.max(1) {
            return None;
        }
        let begins = self.used == 0;
        self.used = self.used.saturating_add(owed);
        if begins {
            self.since = now();
        } else if self.used >= self.size {
            let now = now();
            let passed = Duration::from_micros(u64::from(now.wrapping_sub(self.since)));
            let known = !round_trip.is_zero();
            let holds_back = known && passed <= round_trip.max(MIN_ROUND_TRIP) * 2;
            self.adjust(holds_back, round_trip >= FAR, budget);
            (self.used, self.since) = (0, now);
        }
        // The size may have changed.
        let owed = self.unacknowledged(waiting);
        self.left = self.left.saturating_add(owed);
        (owed > 0).then_some(owed)
    }

    /// Doubles the size if the window `holds_back` the sender. No window gets more than its share of the
    /// reserve's free bytes, so that it is shared evenly and some is left for new streams.
    fn adjust(&mut self, holds_back: bool, is_far: bool, budget: &mut Budget) {
        let grown = self.grown();
        let (factor, share) = match is_far {
            true => (FAR_FACTOR, FAR_SHARE),
            false => (1, SHARE),
        };
        let max = budget.growth.max.saturating_mul(factor);
        let others = budget.grown.saturating_sub(grown);
        let fair = budget.reserve(is_far).saturating_sub(others) / 8 * share;
        if grown > fair {
            budget.resize(self, fair);
        } else if holds_back {
            let doubled = self.size.saturating_mul(2).min(max);
            let wanted = doubled.saturating_sub(self.first).min(fair);
            budget.resize(self, wanted.max(grown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROWTH: Growth = Growth {
        max: 1024 * 1024,
        reserve: 4 * 1024 * 1024,
    };
    const RTT: Duration = Duration::from_millis(10);

    /// Uses up the window again and again at intervals of `step`, with a reader that takes
    /// everything at once.
    fn stream(window: &mut Window, budget: &mut Budget, step: Duration, times: u32) {
        let mut now = 0u32;
        for _ in 0..times {
            now += u32::try_from(step.as_micros()).unwrap();
            let half = window.left().div_ceil(2);
            window.spend(half);
            window.grant(0, false, RTT, || now, budget);
        }
    }

    #[test]
    fn a_window_grows_while_it_holds_the_sender_back_up_to_its_bound() {
        let mut budget = Budget::new(GROWTH);
        let mut window = budget.window();
        assert_eq!(window.size, 64 * 1024);
        stream(&mut window, &mut budget, RTT, 40);
        assert_eq!(window.size, GROWTH.max);
        assert_eq!(budget.grown, GROWTH.max - 64 * 1024);
        budget.end(&window);
        assert_eq!((budget.grown, budget.first_windows), (0, 0));
    }

    #[test]
    fn windows_of_a_far_tunnel_grow_further_and_share_the_same_reserve() {
        let mut budget = Budget::new(GROWTH);
        let mut windows = [(); 3].map(|()| budget.window());
        let mut now = 0u32;
        let mut use_up = |windows: &mut [Window], budget: &mut Budget| {
            for _ in 0..100 {
                now += 50_000;
                for window in &mut *windows {
                    window.spend(window.left().div_ceil(2));
                    window.grant(0, false, FAR, || now, budget);
                }
            }
        };
        use_up(&mut windows[..1], &mut budget);
        let alone = windows[0].grown();
        let reserve = GROWTH.reserve / 2 * 3;
        assert!(alone > 5 * GROWTH.max && alone < reserve, "{alone}");
        use_up(&mut windows, &mut budget);
        for window in &windows {
            let grown = window.grown();
            assert!(grown > reserve / 5 && grown < reserve / 2, "{grown}");
        }
        assert!(budget.grown < reserve);
    }

    #[test]
    fn a_window_stays_if_the_sender_is_slower_or_the_round_trip_is_unknown() {
        let mut budget = Budget::new(GROWTH);
        let mut window = budget.window();
        stream(&mut window, &mut budget, 4 * RTT, 40);
        assert_eq!(window.size, 64 * 1024);
        for now in 1..=40 {
            window.spend(window.left() / 2);
            window.grant(0, false, Duration::ZERO, || now, &mut budget);
        }
        assert_eq!(window.size, 64 * 1024);
    }

    #[test]
    fn a_window_that_lasts_too_short_grows_even_if_the_peer_is_near() {
        let mut budget = Budget::new(GROWTH);
        let mut window = budget.window();
        for (step, size) in [
            (MIN_ROUND_TRIP * 3, 64 * 1024),
            (MIN_ROUND_TRIP, 128 * 1024),
        ] {
            for now in [0, 1].map(|half| half * u32::try_from(step.as_micros()).unwrap()) {
                window.spend(window.left() / 2);
                window.grant(0, false, RTT / 1000, || now, &mut budget);
            }
            assert_eq!(window.size, size);
        }
    }

    #[test]
    fn bulk_streams_come_to_share_the_reserve_evenly_and_leave_some() {
        let mut budget = Budget::new(GROWTH);
        let mut windows = [(); 15].map(|()| budget.window());
        for _ in 0..200 {
            for window in &mut windows {
                stream(window, &mut budget, RTT, 1);
            }
        }
        let share = GROWTH.reserve / 16;
        for window in &windows {
            let grown = window.grown();
            assert!(grown > share / 2 && grown < share * 2, "{grown} of {share}");
        }
        let free = GROWTH.reserve - budget.grown;
        assert!(free > share / 2, "{free} are free");
    }

    #[test]
    fn first_windows_are_small_where_there_are_many() {
        let mut budget = Budget::new(GROWTH);
        let windows: Vec<_> = (0..1000).map(|_| budget.window()).collect();
        let all: u32 = windows.iter().map(|window| window.size).sum();
        assert_eq!(windows[0].size, 64 * 1024);
        assert_eq!(windows[999].size, MIN_CREDIT);
        assert!(all <= 8 * 1024 * 1024, "{all} bytes");
    }

    #[test]
    fn credit_goes_with_other_frames_sooner_than_alone() {
        let mut budget = Budget::new(GROWTH);
        let mut window = budget.window();
        window.spend(16 * 1024);
        assert_eq!(window.grant(0, false, RTT, || 0, &mut budget), None);
        assert_eq!(
            window.grant(1, true, RTT, || 0, &mut budget),
            None,
            "one byte waits"
        );
        assert_eq!(
            window.grant(0, true, RTT, || 0, &mut budget),
            Some(16 * 1024)
        );
        assert_eq!(window.left(), 64 * 1024);
    }

    proptest! {
        #[test]
        fn credit_and_backlog_never_exceed_their_bounds(
            steps in proptest::collection::vec((0..4usize, 0u32..300_000, 0u32..300_000, 0u32..30_000), 1..300),
        ) {
            let mut budget = Budget::new(GROWTH);
            let mut windows = [(); 4].map(|()| (budget.window(), 0u32));
            let mut now = 0u32;
            for (at, sent, taken, passed) in steps {
                now += passed;
                let (window, waiting) = &mut windows[at];
                let sent = sent.min(window.left());
                window.spend(sent);
                *waiting += sent;
                *waiting -= taken.min(*waiting);
                let before = window.left();
                let credit = window.grant(*waiting as usize, taken % 2 == 0, RTT, || now, &mut budget);
                prop_assert_eq!(window.left(), before + credit.unwrap_or(0));
                prop_assert!(window.left() + *waiting <= GROWTH.max);
                let grown: u32 = windows.iter().map(|(window, _)| window.grown()).sum();
                prop_assert_eq!(grown, budget.grown);
                prop_assert!(grown <= GROWTH.reserve);
            }
        }
    }
}
