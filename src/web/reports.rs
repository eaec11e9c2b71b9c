//! What has become of reloads and restarts that the page has asked for: the daemon tells, calls wait for it.

use crate::net::timeout;
use crate::sync::Mutex;
use event_listener::Event;
use rustix::process::{getpid, kill_process, Signal};
use serde::Serialize;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Time that a reload has before its caller is told that it goes on.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Reload,
    Restart,
}

/// What has become of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    number: u32,
    what: Change,
    /// Why it has failed; `None` if it has not.
    error: Option<String>,
}

/// The last report.
#[derive(Default)]
pub struct Reports {
    last: Mutex<Option<Report>>,
    news: Event,
    /// Number of calls that wait for a reload.
    waiting: AtomicUsize,
}

impl Reports {
    /// Notes what has become of a change.
    pub fn note(&self, what: Change, error: Option<String>) {
        let mut last = self.last.lock();
        let number = last.as_ref().map_or(0, |report| report.number);
        *last = Some(Report {
            number: number.wrapping_add(1),
            what,
            error,
        });
        drop(last);
        self.news.notify(usize::MAX);
    }

    /// Returns the last report.
    pub fn last(&self) -> Option<Report> {
        self.last.lock().clone()
    }

    /// Whether a call waits for a reload.
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Has the process read its configuration again, and waits for that. The error is a sentence.
    pub async fn reload(&self) -> Result<(), String> {
        let number = |report: Option<Report>| report.map_or(0, |report| report.number);
        let before = number(self.last());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        signal(Change::Reload).map_err(|e| format!("The process cannot signal itself: {e}."))?;
        let reloaded = async {
            loop {
                let news = self.news.listen();
                match self.last() {
                    Some(report) if report.number != before && report.what == Change::Reload => {
                        return report.error.map_or(Ok(()), Err);
                    }
                    _ => news.await,
                }
            }
        };
        let late = || Err("The reload has not ended yet; the log will tell.".to_owned());
        timeout(RELOAD_TIMEOUT, reloaded).await.unwrap_or_else(late)
    }
}

/// A call that waits for a reload.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends this process the signal by which it reloads or restarts, as `gt -s` does.
pub fn signal(what: Change) -> io::Result<()> {
    let signal = match what {
        Change::Reload => Signal::HUP,
        Change::Restart => Signal::QUIT,
    };
    Ok(kill_process(getpid(), signal)?)
}
