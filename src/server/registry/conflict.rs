//! Finds clients with one id and different services, which replace each other. Not the replacing.

use crate::wire::hello::ServiceSpec;
use std::time::{Duration, Instant};

/// A registration that comes back so soon after it was replaced belongs to another client. Clients
/// wait for up to a minute before they come back, and there are two of them.
const CONFLICT_WINDOW: Duration = Duration::from_secs(180);
/// One warning in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// What is remembered of the registrations of one id.
#[derive(Default)]
pub struct RegistrationConflict {
    /// What was replaced last, and when.
    replaced: Option<(Vec<Option<ServiceSpec>>, Instant)>,
    warned: Option<Instant>,
}

impl RegistrationConflict {
    /// A registration with the offers `before` is replaced by one with other `offers`. Returns
    /// whether a warning is due.
    pub fn replaced(
        &mut self,
        before: &[Option<ServiceSpec>],
        offers: &[Option<ServiceSpec>],
        now: Instant,
    ) -> bool {
        let is_back = self.replaced.as_ref().is_some_and(|(replaced, at)| {
            replaced == offers && now.saturating_duration_since(*at) < CONFLICT_WINDOW
        });
        self.replaced = Some((before.to_vec(), now));
        is_back && self.is_due(now)
    }

    /// A registration comes back while the tunnels with which it was replaced still drain.
    /// Returns whether a warning is due.
    pub fn refused(&mut self, now: Instant) -> bool {
        self.is_due(now)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let quiet = |warned: Instant| now.saturating_duration_since(warned) < WARNING_INTERVAL;
        if self.warned.is_some_and(quiet) {
            return false;
        }
        self.warned = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(port: u16) -> Vec<Option<ServiceSpec>> {
        let random = false;
        vec![Some(ServiceSpec::Tcp { random, port })]
    }

    #[test]
    fn a_registration_that_comes_back_is_warned_of_once_a_minute() {
        let (mut contest, start) = (RegistrationConflict::default(), Instant::now());
        let mut turn = |from, to, seconds| {
            let now = start + Duration::from_secs(seconds);
            contest.replaced(&offers(from), &offers(to), now)
        };
        assert!(!turn(1, 2, 0), "a client has changed its services");
        assert!(!turn(2, 3, 1), "and once more");
        assert!(turn(3, 2, 6));
        assert!(!turn(2, 3, 11) && !turn(3, 2, 16), "that has been said");
        assert!(turn(2, 3, 66));
        assert!(!turn(3, 2, 300), "after so long it has changed back");
    }
}
