//! Detection of clients that share an id but have different services, and so replace each other.

use crate::wire::hello::ServiceSpec;
use std::time::{Duration, Instant};

/// A registration that returns within this time after it was replaced belongs to a second client.
/// Each of the two waits up to a minute before it reconnects.
const CONFLICT_WINDOW: Duration = Duration::from_secs(180);
/// Minimum time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The recent registrations of one id.
#[derive(Default)]
pub struct RegistrationConflict(Option<Box<Replacement>>);

/// The last replacement of a registration. Most clients have none.
#[derive(Default)]
struct Replacement {
    /// The services that were replaced last, and when.
    replaced: Option<(Vec<Option<ServiceSpec>>, Instant)>,
    warned: Option<Instant>,
}

impl RegistrationConflict {
    /// Records that a registration with the services `before` is replaced by one with `services`.
    /// Returns whether to warn.
    pub fn replaced(
        &mut self,
        before: &[Option<ServiceSpec>],
        services: &[Option<ServiceSpec>],
        now: Instant,
    ) -> bool {
        let last = self.0.get_or_insert_default();
        let is_back = last.replaced.as_ref().is_some_and(|(replaced, at)| {
            replaced == services && now.saturating_duration_since(*at) < CONFLICT_WINDOW
        });
        last.replaced = Some((before.to_vec(), now));
        is_back && last.is_due(now)
    }

    /// Records that a registration returns while the tunnels that it replaced still drain. Returns
    /// whether to warn.
    pub fn refused(&mut self, now: Instant) -> bool {
        self.0.get_or_insert_default().is_due(now)
    }
}

impl Replacement {
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

    fn services(port: u16) -> Vec<Option<ServiceSpec>> {
        let random = false;
        vec![Some(ServiceSpec::Tcp { random, port })]
    }

    #[test]
    fn a_returning_registration_is_reported_once_a_minute() {
        let (mut conflict, start) = (RegistrationConflict::default(), Instant::now());
        let mut turn = |from, to, seconds| {
            let now = start + Duration::from_secs(seconds);
            conflict.replaced(&services(from), &services(to), now)
        };
        assert!(!turn(1, 2, 0), "a client has changed its services");
        assert!(!turn(2, 3, 1), "and once more");
        assert!(turn(3, 2, 6));
        assert!(!turn(2, 3, 11) && !turn(3, 2, 16), "reported before");
        assert!(turn(2, 3, 66));
        assert!(!turn(3, 2, 300), "after this time it is a change back");
    }
}
