//! Receive windows: how much of a stream may come before its reader takes some. GT/2 alone.
//!
//! A window is credit, not memory: only what comes and is not taken needs room. But what may
//! come must fit, so windows begin small where there are many, grow while their reader keeps
//! up with a sender that a window holds back, and share one reserve for that.

use std::time::Duration;

/// The first window of a stream that the peer opens, which it learns from the hello.
pub const FIRST_WINDOW: u32 = 32 * 1024;

/// Most that one direction of a stream may have outstanding, whoever gives the credit.
pub(super) const MAX_CREDIT: u32 = (1 << 31) - 1;

/// First windows of streams that are opened here: the first of these while all first windows
/// together are less than the second.
const FIRSTS: [(u32, usize); 2] = [(64 * 1024, 2 * 1024 * 1024), (16 * 1024, 4 * 1024 * 1024)];
/// And then.
const MIN_CREDIT: u32 = 4 * 1024;

/// Round trips that are shorter count for as much: a window that lasts for less than two of these
/// makes both ends sleep and wake again and again, and what it may grow to is on its way for no
/// longer.
const SHORT: Duration = Duration::from_millis(1);

/// What the windows of one tunnel may grow to.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Of one window, in bytes.
    pub most: u32,
    /// Of all together, beyond their first sizes.
    pub reserve: u32,
}

/// What the windows of a tunnel share.
#[derive(Debug)]
pub(super) struct Budget {
    growth: Growth,
    /// Bytes of all first windows.
    firsts: usize,
    /// Bytes by which all have grown.
    grown: u32,
}

/// The window of one stream.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Window {
    first: u32,
    /// What may be on its way or wait for the reader.
    size: u32,
    /// What the peer may still send.
    left: u32,
    /// Credit given since `since`.
    used: u32,
    since: u32,
}

impl Budget {
    pub fn new(growth: Growth) -> Self {
        Self {
            growth,
            firsts: 0,
            grown: 0,
        }
    }

    /// A window for a stream that is opened here.
    pub fn window(&mut self) -> Window {
        let fits = FIRSTS.iter().find(|(_, most)| self.firsts < *most);
        self.begin(fits.map_or(MIN_CREDIT, |(size, _)| *size))
    }

    /// A window for a stream that the peer has opened.
    pub fn window_of_peer(&mut self) -> Window {
        self.begin(FIRST_WINDOW)
    }

    fn begin(&mut self, size: u32) -> Window {
        self.firsts = self.firsts.saturating_add(size as usize);
        Window {
            first: size,
            size,
            left: size,
            used: 0,
            since: 0,
        }
    }

    /// The stream has ended.
    pub fn end(&mut self, window: &Window) {
        self.firsts = self.firsts.saturating_sub(window.first as usize);
        self.grown = self.grown.saturating_sub(window.grown());
    }

    /// Bytes of the reserve that nobody has.
    fn free(&self) -> u32 {
        self.growth.reserve.saturating_sub(self.grown)
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

    /// What the peer may still send.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The peer sends `n` bytes, not more than are left.
    pub fn spend(&mut self, n: u32) {
        self.left = self.left.saturating_sub(n);
    }

    /// What has been taken and not given back, while `waiting` bytes wait.
    fn unacknowledged(&self, waiting: usize) -> u32 {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let outstanding = self.left.saturating_add(waiting);
        self.size.saturating_sub(outstanding)
    }

    /// Credit for the peer, if what is owed is worth a frame of its own, or (`on_the_way`) one
    /// that goes with others. `now` is in millionths of a second, as is the round-trip time,
    /// which is 0 if it is not known.
    pub fn grant(
        &mut self,
        waiting: usize,
        on_the_way: bool,
        round_trip: Duration,
        now: impl FnOnce() -> u32,
        budget: &mut Budget,
    ) -> Option<u32> {
        let worthwhile = self.size / if on_the_way { 4 } else { 2 };
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
            self.adjust(known && passed <= round_trip.max(SHORT) * 2, budget);
            (self.used, self.since) = (0, now);
        }
        // The size may have changed.
        let owed = self.unacknowledged(waiting);
        self.left = self.left.saturating_add(owed);
        (owed > 0).then_some(owed)
    }

    /// Doubles the size if the window `holds_back` the sender. Nobody has more of the reserve
    /// than is free beside: so it is shared evenly, and there is always some for who comes.
    fn adjust(&mut self, holds_back: bool, budget: &mut Budget) {
        let grown = self.grown();
        let fair = budget.free().saturating_add(grown) / 2;
        if grown > fair {
            budget.resize(self, fair);
        } else if holds_back {
            let doubled = self.size.saturating_mul(2).min(budget.growth.most);
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
        most: 1024 * 1024,
        reserve: 4 * 1024 * 1024,
    };
    const RTT: Duration = Duration::from_millis(10);

    /// Uses the window up again and again, a time `step` apart, with a reader that takes all
    /// at once.
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
        assert_eq!(window.size, GROWTH.most);
        assert_eq!(budget.grown, GROWTH.most - 64 * 1024);
        budget.end(&window);
        assert_eq!((budget.grown, budget.firsts), (0, 0));
    }

    #[test]
    fn a_window_stays_where_the_sender_is_slower_or_the_way_is_not_known() {
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
    fn a_window_that_lasts_for_a_moment_grows_however_near_the_peer_is() {
        let mut budget = Budget::new(GROWTH);
        let mut window = budget.window();
        for (step, size) in [(SHORT * 3, 64 * 1024), (SHORT, 128 * 1024)] {
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
        assert!(budget.free() > share / 2, "{} are free", budget.free());
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
        fn what_may_come_and_what_waits_is_never_more_than_the_bounds(
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
                prop_assert!(window.left() + *waiting <= GROWTH.most);
                let grown: u32 = windows.iter().map(|(window, _)| window.grown()).sum();
                prop_assert_eq!(grown, budget.grown);
                prop_assert!(grown <= GROWTH.reserve);
            }
        }
    }
}
