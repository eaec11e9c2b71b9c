//! Counters of failures for the API. Successes are counted where they are handled.

use super::error_page::ErrorPage;
use crate::sync::{Mutex, MutexGuard};
use crate::wire::frame::RejectCode;

/// Highest error code that a server sends.
const CODES: usize = 10;

/// HTTP statuses of the errors that visitors get, or would get over HTTP.
const STATUSES: [&str; 9] = [
    "400", "403", "404", "408", "421", "431", "502", "503", "504",
];

/// The outcome of a datagram that arrived for STUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "p2p"), allow(dead_code))]
pub enum StunOutcome {
    /// The datagram was answered.
    Answered,
    /// The datagram was answered with an error.
    Refused,
    /// The datagram is not a request that can be answered.
    Ignored,
    /// The datagram was dropped because its source has sent too many.
    Limited,
    /// The answer could not be sent.
    Unsent,
}

/// Why datagrams of visitors of UDP ports were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Too many bytes of the flow wait to be sent to the client.
    Queue,
    /// There are too many flows, or too many connections of the address.
    Flows,
    /// The socket did not take an answer to the visitor.
    Socket,
}

/// Names of the losses, in the order of [`Loss`].
const LOSSES: [&str; 3] = ["queue", "flows", "socket"];

/// Names of the outcomes, in the order of [`StunOutcome`].
const DATAGRAMS: [&str; 5] = ["answered", "refused", "ignored", "limited", "unsent"];

/// The failure counts of a server.
#[derive(Default)]
pub struct Counters(Mutex<Counts>);

/// A copy of the counts at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    refused: [u64; CODES],
    unserved: [u64; STATUSES.len()],
    datagrams: [u64; DATAGRAMS.len()],
    losses: [u64; LOSSES.len()],
}

impl Counters {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock()
    }

    /// Counts a rejected client.
    pub fn refused(&self, code: RejectCode) {
        let at = usize::from(code.code()).wrapping_sub(1);
        if let Some(count) = self.lock().refused.get_mut(at) {
            *count = count.saturating_add(1);
        }
    }

    /// Counts a visitor that was not served.
    pub fn unserved(&self, answer: ErrorPage) {
        let at = STATUSES
            .iter()
            .position(|status| answer.status().0.starts_with(status));
        let mut counts = self.lock();
        if let Some(count) = at.and_then(|at| counts.unserved.get_mut(at)) {
            *count = count.saturating_add(1);
        }
    }

    /// Counts datagrams that were dropped.
    pub fn lost(&self, why: Loss, number: usize) {
        if let Some(count) = self.lock().losses.get_mut(why as usize) {
            *count = count.saturating_add(u64::try_from(number).unwrap_or(u64::MAX));
        }
    }

    /// Counts a STUN datagram.
    #[cfg_attr(not(feature = "p2p"), allow(dead_code))]
    pub fn datagram(&self, datagram: StunOutcome) {
        if let Some(count) = self.lock().datagrams.get_mut(datagram as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns the current counts.
    pub fn now(&self) -> Counts {
        *self.lock()
    }
}

impl Counts {
    /// Returns the error codes with the number of clients rejected with each.
    pub fn refused(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (1..).zip(self.refused)
    }

    /// Returns the statuses with the number of visitors that got each.
    pub fn unserved(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        STATUSES.into_iter().zip(self.unserved)
    }

    /// Returns why datagrams of visitors were dropped, with the number of each.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        LOSSES.into_iter().zip(self.losses)
    }

    /// Returns the STUN outcomes with the number of datagrams of each.
    pub fn datagrams(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DATAGRAMS.into_iter().zip(self.datagrams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::ServiceIndex;

    #[test]
    fn every_code_and_every_status_has_its_own_count() {
        let counters = Counters::default();
        for code in [
            RejectCode::BadCredentials,
            RejectCode::PortNotOpened(ServiceIndex(7)),
            RejectCode::TooManyConnections,
            RejectCode::TooManyHosts,
            RejectCode::HostConflict,
            RejectCode::HostNotAllowed,
            RejectCode::OtherClientConnected,
            RejectCode::TooManyOptions,
            RejectCode::TooManyPorts,
            RejectCode::AddressNotAllowed,
            RejectCode::Other(0),
            RejectCode::Other(11),
        ] {
            counters.refused(code);
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
        assert_eq!(refused, (1..=10).map(|code| (code, 1)).collect::<Vec<_>>());
        let unserved: Vec<_> = counts.unserved().collect();
        // Two pages have each of these.
        let pages = |status| {
            if matches!(status, "403" | "503") {
                2
            } else {
                1
            }
        };
        assert_eq!(unserved, STATUSES.map(|status| (status, pages(status))));
    }
}
