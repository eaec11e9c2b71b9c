//! What must hold, and whether what a visitor saw may be.
//!
//! Wrong bytes and bytes of another service are never right. A visit may fail only while something that gt
//! cannot hide happens to its server or client: an excuse. An end that hides that bytes are missing is
//! right only if a process was killed, whose kernel ends its connections like that, or over GT/1, which
//! has no sign for a reset.

use gt::sim;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Time after a fault within which everything works again.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// Time after which a process that is replaced cuts what still runs and cannot move.
pub const DRAIN: Duration = Duration::from_secs(120);
/// Time by which the end of a drain may differ: the new process has to start first.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

/// Time within which a tunnel that has lost its connection is found, from the first visit that it was
/// given: 3 s, and three delays of the slowest link (80 ms), after which a visit's request is there.
const DEAD_TUNNEL_FOUND: Duration = Duration::from_millis(3000 + 3 * 80);

#[derive(Clone, Default)]
pub struct Referee(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    excuses: Vec<Excuse>,
    faults: Vec<String>,
    visits: u64,
    /// Visits that are going on.
    open: u64,
    excused: u64,
    /// Visits whose streams were given to a dead tunnel: of which client, when it died, and when they
    /// began.
    of_dead_tunnels: Vec<(usize, Duration, Duration)>,
    /// Clients whose tunnels two processes of a restart have divided: a dead one may be the only one of
    /// its process.
    divided: BTreeSet<usize>,
}

struct Excuse {
    scope: Scope,
    kind: ExcuseKind,
    from: Duration,
    until: Duration,
}

/// Why nothing is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExcuseKind {
    /// The world has just begun.
    Start,
    /// Something happens that gt cannot hide.
    Trouble,
    /// Processes are killed.
    Kill,
}

/// What a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Server(usize),
    Client(usize),
    /// The TCP service of a client.
    Tcp(usize),
    /// One of a client's tunnels.
    Tunnel(usize),
}

/// A visit that is going on.
pub struct Visit {
    referee: Referee,
    what: String,
    scopes: Vec<Scope>,
    began: Duration,
}

impl Referee {
    /// Excuses failures of visits from now until `time` later and as long as recovery takes.
    pub fn excuse(&self, scope: Scope, time: Duration) {
        self.add(scope, ExcuseKind::Trouble, sim::elapsed() + time + RECOVERY);
    }

    /// Notes that the server of a client restarts.
    pub fn divide(&self, client: usize) {
        self.0.lock().unwrap().divided.insert(client);
    }

    /// Excuses failures while processes are killed and start again.
    pub fn excuse_kill(&self, scope: Scope, time: Duration) {
        self.add(scope, ExcuseKind::Kill, sim::elapsed() + time + RECOVERY);
    }

    /// Excuses failures of visits until all is up for the first time.
    pub fn excuse_start(&self, scope: Scope, until: Duration) {
        self.add(scope, ExcuseKind::Start, until);
    }

    /// Excuses failures of visits that go on when the drain of a server ends that restarts now.
    pub fn excuse_drain_end(&self, scope: Scope) {
        let end = sim::elapsed() + DRAIN;
        let excuse = Excuse {
            scope,
            kind: ExcuseKind::Trouble,
            from: end.saturating_sub(DRAIN_SLACK),
            until: end + DRAIN_SLACK,
        };
        self.0.lock().unwrap().excuses.push(excuse);
    }

    fn add(&self, scope: Scope, kind: ExcuseKind, until: Duration) {
        let excuse = Excuse {
            scope,
            kind,
            from: sim::elapsed(),
            until,
        };
        self.0.lock().unwrap().excuses.push(excuse);
    }

    /// Returns the time at which the last excuse ends that has begun.
    pub fn last_excuse(&self) -> Duration {
        let now = sim::elapsed();
        let state = self.0.lock().unwrap();
        let begun = state.excuses.iter().filter(|excuse| excuse.from <= now);
        begun.map(|excuse| excuse.until).max().unwrap_or_default()
    }

    /// Begins a visit, which faults with these scopes concern.
    pub fn begin(&self, what: String, scopes: Vec<Scope>) -> Visit {
        let mut state = self.0.lock().unwrap();
        state.visits += 1;
        state.open += 1;
        drop(state);
        Visit {
            referee: self.clone(),
            what,
            scopes,
            began: sim::elapsed(),
        }
    }

    /// Something has failed that began at a time; it is a fault unless it is excused.
    pub fn check(&self, what: &str, scopes: &[Scope], began: Duration) {
        let now = sim::elapsed();
        let state = self.0.lock().unwrap();
        let mut excuses = state.excuses.iter();
        let is_excused = excuses.any(|excuse| {
            let overlaps = excuse.from <= now && began <= excuse.until;
            overlaps && scopes.contains(&excuse.scope)
        });
        drop(state);
        if !is_excused {
            self.fault(format!("{what} in vain"));
        }
    }

    /// Whether anything has happened to these so far.
    pub fn is_disturbed(&self, scopes: &[Scope]) -> bool {
        let now = sim::elapsed();
        let state = self.0.lock().unwrap();
        let mut begun = state.excuses.iter().filter(|excuse| excuse.from <= now);
        begun.any(|excuse| excuse.kind != ExcuseKind::Start && scopes.contains(&excuse.scope))
    }

    /// Something is wrong that nothing excuses.
    pub fn fault(&self, what: String) {
        sim::trace(format_args!("FAULT: {what}"));
        let mut state = self.0.lock().unwrap();
        if state.faults.is_empty() {
            sim::trace_files();
        }
        state.faults.push(what);
    }

    /// Once the streams of a dead tunnel are given up, it gets no more.
    pub fn check_dead_tunnels(&self) {
        let mut state = self.0.lock().unwrap();
        let visits = std::mem::take(&mut state.of_dead_tunnels);
        let divided = std::mem::take(&mut state.divided);
        drop(state);
        let whole = visits.iter().filter(|it| !divided.contains(&it.0));
        for (client, from, began) in whole {
            let its = visits.iter().filter(|it| (it.0, it.1) == (*client, *from));
            let first = its.map(|(_, _, began)| *began).min().unwrap_or_default();
            if *began > first + DEAD_TUNNEL_FOUND {
                let (began, first) = (began.as_secs_f64(), first.as_secs_f64());
                self.fault(format!(
                    "a visit of client{client} that began at {began:.3} was given to a tunnel that \
                     was dead for visits from {first:.3} on"
                ));
            }
        }
    }

    /// Whether no visit is going on.
    pub fn is_quiet(&self) -> bool {
        self.0.lock().unwrap().open == 0
    }

    pub fn faults(&self) -> Vec<String> {
        self.0.lock().unwrap().faults.clone()
    }

    /// Returns the number of visits, and of those whose failure was excused.
    pub fn visits(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap();
        (state.visits, state.excused)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.referee.0.lock().unwrap().open -= 1;
    }
}

impl Visit {
    /// Whether anything has happened to its server or client so far.
    pub fn was_disturbed(&self) -> bool {
        self.referee.is_disturbed(&self.scopes)
    }

    /// The visit has failed, as the visitor can tell.
    pub fn failed(&self, why: &str) {
        self.judge(why, |_| true);
    }

    /// The visit has ended as if it were complete, and is not.
    pub fn hidden(&self, why: &str, has_resets: bool) {
        self.judge(why, |excuse| excuse.kind == ExcuseKind::Kill || !has_resets);
    }

    fn judge(&self, why: &str, may_excuse: impl Fn(&Excuse) -> bool) {
        let now = sim::elapsed();
        let mut state = self.referee.0.lock().unwrap();
        let mut excuses = state.excuses.iter();
        let mut is_excused = excuses.any(|excuse| {
            let overlaps = excuse.from <= now && self.began <= excuse.until;
            overlaps && self.scopes.contains(&excuse.scope) && may_excuse(excuse)
        });
        let dead = state
            .excuses
            .iter()
            .rev()
            .find_map(|excuse| match excuse.scope {
                Scope::Tunnel(client) if self.scopes.contains(&Scope::Client(client)) => {
                    let overlaps = excuse.from <= now && self.began <= excuse.until;
                    overlaps.then_some((client, excuse.from))
                }
                _ => None,
            });
        if let (Some((client, from)), false) = (dead, is_excused) {
            is_excused = true;
            if self.began > from && why.contains(" 502 ") {
                state.of_dead_tunnels.push((client, from, self.began));
            }
        }
        if is_excused {
            state.excused += 1;
            drop(state);
            sim::trace(format_args!("{} failed, excused: {why}", self.what));
        } else {
            drop(state);
            let began = self.began.as_secs_f64();
            let what = &self.what;
            self.referee
                .fault(format!("{what} (began at {began:.3}) failed: {why}"));
        }
    }

    /// The visitor has seen what must never be.
    pub fn wrong(&self, why: &str) {
        self.referee
            .fault(format!("{} saw what must not be: {why}", self.what));
    }
}
