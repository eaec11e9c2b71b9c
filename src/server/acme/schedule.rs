//! When a certificate is ordered or renewed. All times are in seconds since 1970. Not the orders.

use super::store::NameState;

/// Seconds from a failed attempt to the next one. The first comes soon, since it proves the name in the other
/// way.
const BACKOFF: [i64; 6] = [10, 600, 3600, 3 * 3600, 8 * 3600, MAX_BACKOFF];
/// Maximum number of seconds between attempts.
const MAX_BACKOFF: i64 = 24 * 3600;
/// Seconds between a certificate and its renewal, at least.
const LEAST_LIFE: i64 = 5;
/// Seconds between two certificates whose validity the clock of this machine does not confirm.
const OF_WRONG_CLOCK: i64 = 3600;
/// Seconds after a start to the attempt that the process before was in the middle of.
const AFTER_START: i64 = 10;
/// Seconds that the clock of this machine may be behind that of an authority.
const CLOCK_TOLERANCE: i64 = 60;
/// Seconds after the next attempt of a name would have been for which its failures are kept, when no client
/// has it: one that comes back begins where it was.
const KEPT_FAILURES: i64 = 24 * 3600;
/// Number of times that an order is taken up again after a restart or a failure of the authority.
pub const MAX_RESUMES: u32 = 5;

/// Returns the time that an attempt is put off after so many failures.
pub fn backoff(failures: u32) -> i64 {
    let number = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    BACKOFF.get(number).copied().unwrap_or(MAX_BACKOFF)
}

/// Applies a start of gt with this authority to what is known of a name: failures of another authority do not
/// count, and an order that was being worked on is taken up soon.
pub fn start(state: &mut NameState, directory: &str, now: i64) {
    if state.directory != directory {
        state.failures = 0;
        state.next = 0;
    } else if state.under_way && state.order.is_some() && state.resumed < MAX_RESUMES {
        state.next = state.next.min(now.saturating_add(AFTER_START));
    }
}

/// Returns when what is known of a name that no client has any more can be forgotten.
pub fn end(state: &NameState, dates: Option<(i64, i64)>) -> i64 {
    let of_attempts = match state.failures {
        0 => state.next,
        _ => state.next.saturating_add(KEPT_FAILURES),
    };
    match dates {
        Some((_, not_after)) if state.failures == 0 => not_after,
        Some((_, not_after)) => not_after.max(of_attempts),
        None => of_attempts,
    }
}

/// Whether a new certificate with these dates is valid, or will be in a moment.
pub fn is_valid((not_before, not_after): (i64, i64), now: i64) -> bool {
    not_before <= now.saturating_add(CLOCK_TOLERANCE) && now < not_after
}

/// Returns when a name is due. `dates` are those of its certificate, if it has one from the present authority
/// for the present key.
pub fn due(state: &NameState, dates: Option<(i64, i64)>, now: i64) -> i64 {
    // The clock was ahead when this was written.
    let put_off = match state.next.saturating_sub(now) > 8 * MAX_BACKOFF {
        true => 0,
        false => state.next,
    };
    let renewal = match dates {
        None => 0,
        Some((not_before, not_after)) => {
            let life = not_after.saturating_sub(not_before).max(0);
            let third = not_before.saturating_add(life / 3 * 2);
            // A suggestion beyond the end is none.
            let suggested = state.renew.filter(|renew| *renew < not_after);
            suggested.unwrap_or(third)
        }
    };
    renewal.max(put_off)
}

/// Returns the earliest time of the next attempt after a certificate with these dates has come.
pub fn after_success(dates: (i64, i64), now: i64) -> i64 {
    now.saturating_add(match is_valid(dates, now) {
        true => LEAST_LIFE,
        false => OF_WRONG_CLOCK,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_when_the_authority_suggests() {
        let mut state = NameState::default();
        assert_eq!(due(&state, None, 1000), 0);
        assert_eq!(due(&state, Some((1000, 4000)), 1000), 3000);
        state.renew = Some(2000);
        assert_eq!(due(&state, Some((1000, 4000)), 1000), 2000);
        state.renew = Some(4000);
        assert_eq!(due(&state, Some((1000, 4000)), 1000), 3000);
        state.next = 3500;
        assert_eq!(due(&state, Some((1000, 4000)), 1000), 3500);
        assert_eq!(due(&state, None, 1000), 3500);
        state.next = 1000 + 30 * MAX_BACKOFF;
        assert_eq!(due(&state, None, 1000), 0, "the clock was wrong");
    }

    #[test]
    fn attempts_become_rare() {
        let waits: Vec<i64> = (1..9).map(backoff).collect();
        assert_eq!(
            waits,
            [10, 600, 3600, 10_800, 28_800, 86_400, 86_400, 86_400]
        );
        assert_eq!(after_success((0, 100), 50), 55);
        assert_eq!(after_success((0, 100), 100), 3700);
        assert_eq!(after_success((60, 100), 50), 55, "in a moment");
        assert_eq!(after_success((160, 200), 50), 3650);
    }

    #[test]
    fn a_start_takes_up_an_order_soon_and_forgets_failures_at_another_authority() {
        let of = |under_way, order: Option<&str>, resumed| NameState {
            directory: "https://one/".to_owned(),
            under_way,
            order: order.map(str::to_owned),
            resumed,
            failures: 3,
            next: 5000,
            ..NameState::default()
        };
        let next = |mut state: NameState, directory| {
            start(&mut state, directory, 1000);
            (state.next, state.failures)
        };
        assert_eq!(next(of(true, Some("o"), 0), "https://one/"), (1010, 3));
        assert_eq!(next(of(false, Some("o"), 0), "https://one/"), (5000, 3));
        assert_eq!(next(of(true, None, 0), "https://one/"), (5000, 3));
        let worn = of(true, Some("o"), MAX_RESUMES);
        assert_eq!(next(worn, "https://one/"), (5000, 3));
        assert_eq!(next(of(false, None, 0), "https://two/"), (0, 0));
    }

    #[test]
    fn failures_outlast_the_absence_of_a_client() {
        let mut state = NameState {
            next: 100,
            ..NameState::default()
        };
        assert_eq!(end(&state, None), 100);
        assert_eq!(end(&state, Some((0, 5000))), 5000);
        state.failures = 2;
        assert_eq!(end(&state, None), 100 + KEPT_FAILURES);
        assert_eq!(end(&state, Some((0, 5000))), 100 + KEPT_FAILURES);
    }
}
