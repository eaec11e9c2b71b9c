//! `/status`: whether the server works, by its latest self test.

use super::health_check::ProbeTarget;
use super::json;
use crate::cli::VERSION;
use crate::server::ServerState;
use crate::sync::{Mutex, MutexGuard};
use event_listener::Event;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the result of a successful self test is reused.
const GOOD_RESULT_LIFETIME: Duration = Duration::from_secs(15);
/// How long the result of a failed self test is reused.
const BAD_RESULT_LIFETIME: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct StatusPage<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    version: &'static str,
}

/// The result of a self test; the error is the reason.
pub type HealthResult = Result<(), Arc<str>>;

/// Runs self tests on demand and caches the latest result.
pub struct HealthStatus {
    state: Arc<ServerState>,
    front: ProbeTarget,
    known: Mutex<CachedHealth>,
    /// Notified when a self test has ended.
    looked: Event,
}

#[derive(Default)]
struct CachedHealth {
    last: Option<(Instant, HealthResult)>,
    /// Whether a self test is running.
    looking: bool,
}

impl HealthStatus {
    pub fn new(state: Arc<ServerState>, front: ProbeTarget) -> Arc<Self> {
        Arc::new(Self {
            state,
            front,
            known: Mutex::default(),
            looked: Event::new(),
        })
    }

    /// Formats the page; also returns whether the server works.
    pub async fn page(self: &Arc<Self>) -> (bool, String) {
        let failed = self.ask().await.err();
        let page = StatusPage {
            status: if failed.is_none() { "ok" } else { "failed" },
            reason: failed.as_deref(),
            version: VERSION,
        };
        (failed.is_none(), json::line(&page))
    }

    fn lock(&self) -> MutexGuard<'_, CachedHealth> {
        self.known.lock()
    }

    /// Returns the cached result, or that of a new self test if it has expired. One self test runs
    /// at a time.
    async fn ask(self: &Arc<Self>) -> HealthResult {
        loop {
            let looked = self.looked.listen();
            if let Some(verdict) = self.known_or_look() {
                return verdict;
            }
            looked.await;
        }
    }

    fn known_or_look(self: &Arc<Self>) -> Option<HealthResult> {
        let mut known = self.lock();
        match &known.last {
            Some((at, verdict)) if !known.looking && is_fresh(at.elapsed(), verdict) => {
                return Some(verdict.clone());
            }
            _ => {}
        }
        if !known.looking {
            known.looking = true;
            // In a task of its own: the request may be cancelled.
            crate::spawn(self.clone().look());
        }
        None
    }

    async fn look(self: Arc<Self>) {
        let verdict = self.front.check(&self.state).await;
        match &verdict {
            Ok(()) => log::debug!("self test passed"),
            Err(reason) => log::debug!("self test failed: {reason}"),
        }
        let verdict = verdict.map_err(Arc::from);
        let mut known = self.lock();
        let before = known.last.as_ref().map(|(_, verdict)| verdict.is_ok());
        match &verdict {
            Ok(()) if before == Some(false) => log::info!("the status is ok again"),
            Err(reason) if before != Some(false) => log::warn!("the status is failed: {reason}"),
            _ => {}
        }
        known.last = Some((Instant::now(), verdict));
        known.looking = false;
        drop(known);
        self.looked.notify(usize::MAX);
    }
}

fn is_fresh(age: Duration, verdict: &HealthResult) -> bool {
    age < if verdict.is_ok() {
        GOOD_RESULT_LIFETIME
    } else {
        BAD_RESULT_LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_cached_for_less_time_than_successes() {
        let (good, bad) = (Ok(()), Err(Arc::from("why")));
        assert!(is_fresh(
            GOOD_RESULT_LIFETIME - Duration::from_nanos(1),
            &good
        ));
        assert!(!is_fresh(GOOD_RESULT_LIFETIME, &good));
        assert!(is_fresh(
            BAD_RESULT_LIFETIME - Duration::from_nanos(1),
            &bad
        ));
        assert!(!is_fresh(BAD_RESULT_LIFETIME, &bad));
    }
}
