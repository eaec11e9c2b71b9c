//! The page `/status`: whether the server works, by its latest self test. `health_check` runs the
//! test.

use super::health_check::ProbeTarget;
use super::json;
use crate::net::clock;
use crate::server::acme::CertificateStatus;
use crate::server::state::ServerState;
use crate::sync::{Mutex, MutexGuard};
use crate::version::VERSION;
use event_listener::Event;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that the result of a successful self test is reused.
const GOOD_RESULT_LIFETIME: Duration = Duration::from_secs(15);
/// Time that the result of a failed self test is reused.
const BAD_RESULT_LIFETIME: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct StatusPage<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    version: &'static str,
    /// The certificates of clients' names (`acmeDomain`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<ListedCertificate>,
}

/// Maximum number of certificates listed: those that are missing or expire first.
const MAX_CERTIFICATES: usize = 100;

#[derive(Serialize)]
struct ListedCertificate {
    name: Box<str>,
    /// The end of its validity: Unix time in seconds; `None` without a certificate.
    expires: Option<i64>,
    /// Why the last attempt to get another one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The result of a self test; the error is the reason.
pub type HealthResult = Result<(), Arc<str>>;

/// The latest result of a self test, which is run on demand.
pub struct HealthStatus {
    state: Arc<ServerState>,
    target: ProbeTarget,
    cached: Mutex<CachedHealth>,
    /// Notified when a self test has ended.
    tested: Event,
}

#[derive(Default)]
struct CachedHealth {
    last: Option<(Instant, HealthResult)>,
    /// Whether a self test is running.
    is_running: bool,
}

impl HealthStatus {
    pub fn new(state: Arc<ServerState>, target: ProbeTarget) -> Arc<Self> {
        Arc::new(Self {
            state,
            target,
            cached: Mutex::default(),
            tested: Event::new(),
        })
    }

    /// Formats the page; also returns whether the server works.
    pub async fn page(self: &Arc<Self>) -> (bool, String) {
        let failed = self.ask().await.err();
        let page = StatusPage {
            status: if failed.is_none() { "ok" } else { "failed" },
            reason: failed.as_deref(),
            version: VERSION,
            certificates: self.certificates(),
        };
        (failed.is_none(), json::line(&page))
    }

    fn certificates(&self) -> Vec<ListedCertificate> {
        let mut all = self.state.acme.certificates();
        all.sort_by_key(|(_, status)| status.expires);
        let listed = all.into_iter().take(MAX_CERTIFICATES);
        listed
            .map(
                |(name, CertificateStatus { expires, error })| ListedCertificate {
                    name,
                    expires,
                    error,
                },
            )
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, CachedHealth> {
        self.cached.lock()
    }

    /// Returns the cached result, or that of a new self test if it has expired. One self test runs
    /// at a time.
    async fn ask(self: &Arc<Self>) -> HealthResult {
        loop {
            let tested = self.tested.listen();
            if let Some(verdict) = self.cached_or_start() {
                return verdict;
            }
            tested.await;
        }
    }

    fn cached_or_start(self: &Arc<Self>) -> Option<HealthResult> {
        let mut cached = self.lock();
        match &cached.last {
            Some((at, verdict)) if !cached.is_running && is_fresh(clock::since(*at), verdict) => {
                return Some(verdict.clone());
            }
            _ => {}
        }
        if !cached.is_running {
            cached.is_running = true;
            // In a task of its own: the request may be cancelled.
            crate::net::spawn(self.clone().run_test());
        }
        None
    }

    async fn run_test(self: Arc<Self>) {
        let verdict = self.target.check(&self.state).await;
        let verdict = verdict.map_err(|failure| Arc::from(failure.to_string()));
        match &verdict {
            Ok(()) => log::debug!("self test passed"),
            Err(reason) => log::debug!("self test failed: {reason}"),
        }
        let mut cached = self.lock();
        let before = cached.last.as_ref().map(|(_, verdict)| verdict.is_ok());
        match &verdict {
            Ok(()) if before == Some(false) => log::info!("the status is ok again"),
            Err(reason) if before != Some(false) => log::warn!("the status is failed: {reason}"),
            _ => {}
        }
        cached.last = Some((clock::now(), verdict));
        cached.is_running = false;
        drop(cached);
        self.tested.notify(usize::MAX);
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
