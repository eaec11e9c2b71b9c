//! What a failed attempt to get a certificate means: for its name, and for all others. Not the attempt.

use super::budget::Budget;
use super::store::NameState;
use super::{schedule, AcmeError, ChallengeKind};
use std::time::Duration;

/// Seconds after which another order takes the place of one whose account the authority does not know.
const WITHOUT_ACCOUNT: i64 = 10;

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The directory, a nonce, the account: the authority has not heard of the name.
    Preparing,
    /// The order is placed.
    Placing,
    /// There is an order.
    Ordered,
}

/// What waits after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// The name.
    Name,
    /// All names: the authority cannot be used.
    All,
}

/// A failed attempt.
pub struct Failure<'a> {
    /// Why it has failed.
    pub error: &'a AcmeError,
    /// How far it has come.
    pub stage: Stage,
    /// What was known of the name before.
    pub before: &'a NameState,
    /// Whether there are two ways to prove the name.
    pub has_two_kinds: bool,
}

impl Failure<'_> {
    /// Notes when the name, and all names, are due again. `file` has the attempt noted already.
    pub fn note(&self, file: &mut NameState, budget: &mut Budget, now: i64) -> Waits {
        let text = super::messages::printable(&self.error.to_string());
        file.error = Some(text.clone());
        file.under_way = false;
        if self.is_outage() {
            let pause = budget.pause(self.asked(), &text, now);
            file.failures = self.before.failures;
            file.next = now.saturating_add(pause);
            let was_asked = self.stage != Stage::Preparing;
            file.resumed = self.before.resumed.saturating_add(u32::from(was_asked));
            return Waits::All;
        }
        match self.error {
            AcmeError::Problem { .. } | AcmeError::Status(..) if self.is_limit() => {
                // It may be that of the name: the others are tried again soon.
                let short = budget.pause_shortly(&text, now);
                let wait = self.asked().unwrap_or(schedule::backoff(file.failures));
                file.next = now.saturating_add(wait.max(short));
            }
            AcmeError::Problem { status, .. } if *status >= 500 => {
                let pause = budget.pause(self.asked(), &text, now);
                let wait = self.asked().unwrap_or(schedule::backoff(file.failures));
                file.next = now.saturating_add(wait.max(pause));
                return Waits::All;
            }
            AcmeError::Problem { problem, .. }
                if problem.is("accountDoesNotExist") && self.before.order.is_some() =>
            {
                // The order has gone with the account, which is not the name's fault.
                file.order = None;
                file.failures = self.before.failures;
                file.next = now.saturating_add(WITHOUT_ACCOUNT);
            }
            AcmeError::Unproved(_, tried) => {
                file.order = None;
                if self.has_two_kinds {
                    file.challenge = tried.map(|kind| match kind {
                        ChallengeKind::Tls => ChallengeKind::Http,
                        ChallengeKind::Http => ChallengeKind::Tls,
                    });
                }
            }
            AcmeError::Slow => {}
            _ => file.order = None,
        }
        Waits::Name
    }

    /// Whether it has nothing to do with the name.
    fn is_outage(&self) -> bool {
        match self.error {
            _ if self.stage == Stage::Preparing => true,
            AcmeError::Unreachable(_) | AcmeError::Local(_) => true,
            AcmeError::Status(..) => !self.is_limit(),
            _ => false,
        }
    }

    /// Whether the authority has been asked too often.
    fn is_limit(&self) -> bool {
        match self.error {
            AcmeError::Problem {
                problem, status, ..
            } => *status == 429 || problem.is("rateLimited"),
            AcmeError::Status(status, _) => *status == 429,
            _ => false,
        }
    }

    /// Returns the seconds that the authority asks to wait.
    fn asked(&self) -> Option<i64> {
        let after = match self.error {
            AcmeError::Status(_, after) => *after,
            AcmeError::Problem { retry_after, .. } => *retry_after,
            _ => None,
        };
        after.map(seconds)
    }
}

/// Returns a time in seconds.
pub fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::messages::Problem;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn problem(kind: &str, status: u16, retry_after: Option<u64>) -> AcmeError {
        AcmeError::Problem {
            problem: Problem {
                r#type: format!("urn:ietf:params:acme:error:{kind}"),
                detail: "text".to_owned(),
            },
            status,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    /// Lets the second attempt of a name fail. Returns what waits, the state of the name, and the time of the
    /// next request for any name.
    fn fail(error: &AcmeError, stage: Stage, order: Option<&str>) -> (Waits, NameState, i64) {
        let before = NameState {
            failures: 1,
            order: order.map(str::to_owned),
            ..NameState::default()
        };
        let mut file = NameState {
            failures: 2,
            next: NOW + schedule::backoff(2),
            under_way: true,
            order: Some("https://h/order".to_owned()),
            ..before.clone()
        };
        let mut budget = Budget::default();
        let failure = Failure {
            error,
            stage,
            before: &before,
            has_two_kinds: true,
        };
        let waits = failure.note(&mut file, &mut budget, NOW);
        assert!(!file.under_way && file.error.is_some());
        (waits, file, budget.next_request(NOW) - NOW)
    }

    #[test]
    fn a_limit_of_one_name_stops_the_others_only_for_a_moment() {
        let limit = problem("rateLimited", 429, Some(3 * 3600));
        for stage in [Stage::Placing, Stage::Ordered] {
            let (waits, file, pause) = fail(&limit, stage, None);
            assert_eq!((waits, pause), (Waits::Name, 60), "{stage:?}");
            assert_eq!(file.next, NOW + 3 * 3600);
            assert!(file.order.is_some());
        }
        let bare = AcmeError::Status(429, None);
        let (waits, file, pause) = fail(&bare, Stage::Placing, None);
        assert_eq!((waits, pause, file.next), (Waits::Name, 60, NOW + 600));
        // At the directory, a nonce or the account it is that of the server.
        let (waits, file, pause) = fail(&limit, Stage::Preparing, None);
        assert_eq!((waits, pause), (Waits::All, 3 * 3600));
        assert_eq!(file.failures, 1);
    }

    #[test]
    fn what_fails_before_the_authority_hears_of_a_name_does_not_count_for_the_name() {
        let errors = [
            AcmeError::Malformed("text".to_owned()),
            problem("invalidContact", 400, None),
            problem("serverInternal", 500, None),
            AcmeError::Status(404, None),
            AcmeError::Slow,
        ];
        for error in &errors {
            let (waits, file, pause) = fail(error, Stage::Preparing, None);
            assert_eq!((waits, pause), (Waits::All, 60), "{error}");
            assert_eq!((file.failures, file.next), (1, NOW + 60), "{error}");
        }
        for error in &errors[..2] {
            let (waits, file, _) = fail(error, Stage::Placing, None);
            assert_eq!((waits, file.failures, file.order), (Waits::Name, 2, None));
            assert_eq!(file.next, NOW + 600);
        }
        let (waits, file, _) = fail(&errors[2], Stage::Ordered, None);
        assert_eq!((waits, file.failures), (Waits::All, 2));
        assert!(file.order.is_some());
    }

    #[test]
    fn an_order_whose_account_is_gone_is_replaced_soon_without_a_failure_but_not_again_and_again() {
        let error = problem("accountDoesNotExist", 400, None);
        let (_, file, _) = fail(&error, Stage::Ordered, Some("https://h/old"));
        assert_eq!((file.order, file.failures), (None, 1));
        assert_eq!(file.next, NOW + WITHOUT_ACCOUNT);
        let (_, file, _) = fail(&error, Stage::Ordered, None);
        assert_eq!((file.failures, file.next), (2, NOW + 600));
    }
}
