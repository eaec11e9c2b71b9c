//! What has gone wrong so far, counted for the API. What went well is counted where it goes.

use super::error_page::ErrorPage;
use crate::wire::frame::RejectCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The highest GT/1 error code a server gives.
const CODES: usize = 9;

/// Errors that visitors were told of, by the status they got or would have got in HTTP.
const STATUSES: [&str; 7] = ["400", "404", "408", "431", "502", "503", "504"];

/// What has become of a datagram that came for STUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "p2p"), allow(dead_code))]
pub enum StunOutcome {
    Answered,
    /// Answered with an error.
    Refused,
    /// No request that could be answered.
    Ignored,
    /// One of too many from there.
    Limited,
    /// Its answer could not be sent.
    Unsent,
}

/// In the order of [`Datagram`].
const DATAGRAMS: [&str; 5] = ["answered", "refused", "ignored", "limited", "unsent"];

#[derive(Default)]
pub struct Counters(Mutex<Counts>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    refused: [u64; CODES],
    unserved: [u64; STATUSES.len()],
    datagrams: [u64; DATAGRAMS.len()],
}

impl Counters {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client was refused.
    pub fn refused(&self, refusal: RejectCode) {
        let at = usize::from(refusal.code()).wrapping_sub(1);
        if let Some(count) = self.lock().refused.get_mut(at) {
            *count = count.saturating_add(1);
        }
    }

    /// A visitor was not served.
    pub fn unserved(&self, answer: ErrorPage) {
        let at = STATUSES
            .iter()
            .position(|status| answer.status().0.starts_with(status));
        let mut counts = self.lock();
        if let Some(count) = at.and_then(|at| counts.unserved.get_mut(at)) {
            *count = count.saturating_add(1);
        }
    }

    /// A datagram came for STUN.
    #[cfg_attr(not(feature = "p2p"), allow(dead_code))]
    pub fn datagram(&self, datagram: StunOutcome) {
        if let Some(count) = self.lock().datagrams.get_mut(datagram as usize) {
            *count = count.saturating_add(1);
        }
    }

    pub fn now(&self) -> Counts {
        *self.lock()
    }
}

impl Counts {
    /// GT/1 error codes, and how many clients were refused with each.
    pub fn refused(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (1..).zip(self.refused)
    }

    /// Statuses, and how many visitors got each.
    pub fn unserved(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        STATUSES.into_iter().zip(self.unserved)
    }

    /// What became of datagrams for STUN, and of how many.
    pub fn datagrams(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DATAGRAMS.into_iter().zip(self.datagrams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_every_answer_has_its_own_count() {
        let counters = Counters::default();
        for refusal in [
            RejectCode::BadCredentials,
            RejectCode::PortNotOpened(7),
            RejectCode::TooManyConnections,
            RejectCode::TooManyHosts,
            RejectCode::HostConflict,
            RejectCode::HostNotAllowed,
            RejectCode::OtherClientConnected,
            RejectCode::TooManyOptions,
            RejectCode::TooManyPorts,
            RejectCode::Other(0),
            RejectCode::Other(10),
        ] {
            counters.refused(refusal);
        }
        for answer in ErrorPage::ALL {
            counters.unserved(answer);
        }
        for datagram in [
            StunOutcome::Unsent,
            StunOutcome::Limited,
            StunOutcome::Ignored,
            StunOutcome::Refused,
            StunOutcome::Answered,
        ] {
            counters.datagram(datagram);
        }
        let counts = counters.now();
        let datagrams: Vec<_> = counts.datagrams().collect();
        assert_eq!(datagrams, DATAGRAMS.map(|name| (name, 1)));
        let refused: Vec<_> = counts.refused().collect();
        assert_eq!(refused, (1..=9).map(|code| (code, 1)).collect::<Vec<_>>());
        let unserved: Vec<_> = counts.unserved().collect();
        assert_eq!(unserved, STATUSES.map(|status| (status, 1)));
    }
}
