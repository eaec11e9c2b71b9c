//! The task that gets certificates: what is due next, one order at a time, and what becomes of it.

mod renewal;
#[cfg(test)]
mod tests;

use super::budget::Budget;
use super::directory::Directory;
use super::failure::{seconds, Failure, Stage, Waits};
use super::jws::Signer;
use super::messages::AcmeUrl;
use super::order::Order;
use super::schedule::{self, MAX_RESUMES};
use super::store::{self, Account, NameState, Store};
use super::{names, AcmeError, AcmeSettings, CertificateStatus, ChallengeKind};
use crate::collections::HashMap;
use crate::net::{blocking, clock, Timer};
use crate::server::state::ServerState;
use crate::state_dir::StateLock;
use futures_lite::future;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Time after which a folder that cannot be used is tried again.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// Number of attempts after which that is told. In a restart, the old process keeps the folder for a moment.
const QUIET_ATTEMPTS: u32 = 3;
/// Longest time between two looks at what is due: the clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Shortest time between two orders.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// Shortest time between two looks after the names of clients have changed: many clients may come at a time.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum time of an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
/// Seconds after the beginning of 1970 before which the clock has not been set: the beginning of 2025.
const BEGIN_OF_2025: i64 = 1_735_689_600;

/// Gets certificates until the server stops.
pub async fn run(state: Arc<ServerState>) {
    let mut failures = 0u32;
    while !state.stop.is_triggered() {
        let woken = state.acme.wake.listen();
        let settings = state.settings.get();
        let Some(acme) = settings.acme.clone() else {
            state.acme.status.lock().clear();
            state.stop.or(woken).await;
            continue;
        };
        drop(settings);
        match Worker::open(&state, acme).await {
            Ok(worker) => {
                failures = 0;
                drop(woken);
                let stopped = async { state.stop.wait().await };
                future::or(worker.run(), stopped).await;
            }
            Err(e) => {
                failures = failures.saturating_add(1);
                if failures == QUIET_ATTEMPTS {
                    log::warn!("no certificates are ordered: {e}");
                }
                let pause = async {
                    Timer::after(STORE_RETRY).await;
                };
                state.stop.or(future::or(pause, woken)).await;
            }
        }
    }
}

/// The task with the settings of one configuration. It has the lock on the folder.
pub struct Worker {
    state: Arc<ServerState>,
    acme: Arc<AcmeSettings>,
    store: Arc<Store>,
    account: Account,
    budget: Budget,
    names: HashMap<Box<str>, KnownName>,
    /// The names that the API shows as waiting for the authority.
    waiting: Vec<Box<str>>,
    /// The way to prove a name that has worked last.
    proven: Option<ChallengeKind>,
    _lock: StateLock,
}

/// A name with its file.
#[derive(Default)]
struct KnownName {
    file: NameState,
    /// The dates of its certificate, if that can stay.
    dates: Option<(i64, i64)>,
}

/// A name to get a certificate for.
struct Task {
    name: Box<str>,
    /// The id of the client that has it.
    owner: Box<str>,
}

impl Worker {
    async fn open(state: &Arc<ServerState>, acme: Arc<AcmeSettings>) -> io::Result<Self> {
        let (path, directory) = (acme.config.state_dir.clone(), acme.directory.clone());
        let settings = format!("{:?} {:?}", acme.config.email, acme.config.ca);
        let opened = blocking(move || {
            let store = Store::open(&path)?;
            let lock = store.lock().map_err(|e| match e.kind() {
                io::ErrorKind::TimedOut => io::Error::new(
                    e.kind(),
                    format!(
                        "another process of gt does so for {}; this one waits until it has ended",
                        store::folder(&path).display()
                    ),
                ),
                _ => e,
            })?;
            let account = store.account(&directory)?;
            let budget = store.budget()?.at(&directory, &settings);
            let names = store::read_names(&path)?;
            Ok::<_, io::Error>((store, lock, account, budget, names))
        });
        let (store, lock, account, budget, names) = opened.await?;
        let mut worker = Self {
            state: state.clone(),
            store: Arc::new(store),
            account,
            budget,
            names: HashMap::default(),
            waiting: Vec::new(),
            proven: None,
            acme,
            _lock: lock,
        };
        for (name, mut file) in names {
            schedule::start(&mut file, &worker.acme.directory, now());
            // One of another authority, like one for tests, is used until there is a better one.
            let dates = worker.acme.use_certificate(&name, &file);
            let dates = dates.filter(|_| file.directory == worker.acme.directory);
            worker.proven = worker.proven.or(file.challenge.filter(|_| dates.is_some()));
            worker.names.insert(name, KnownName { file, dates });
        }
        state.acme.status.lock().clear();
        let all: Vec<_> = worker.names.keys().cloned().collect();
        all.iter().for_each(|name| worker.show(name));
        Ok(worker)
    }

    /// Works until there are other settings.
    async fn run(mut self) {
        loop {
            let woken = self.state.acme.wake.listen();
            let named = self.state.registry.names_changed();
            let settings = self.state.settings.get();
            let is_mine = settings.acme.as_ref();
            if !is_mine.is_some_and(|acme| Arc::ptr_eq(acme, &self.acme)) {
                return;
            }
            drop(settings);
            let wait = match self.next() {
                Next::Order(task) => {
                    self.attempt(task).await;
                    SHORTEST_WAIT
                }
                Next::Ask(name) => {
                    self.ask_for_renewal(&name).await;
                    SHORTEST_WAIT
                }
                Next::Wait(wait) => {
                    let timer = async {
                        Timer::after(wait.min(LONGEST_WAIT)).await;
                    };
                    future::or(future::or(woken, named), timer).await;
                    LOOK_INTERVAL
                }
            };
            Timer::after(wait).await;
        }
    }

    /// Selects what to do next.
    fn next(&mut self) -> Next {
        let now = now();
        if now < BEGIN_OF_2025 {
            // Nothing about certificates can be right before the clock has been set.
            return Next::Wait(Duration::from_secs(10));
        }
        self.budget.tidy(now);
        let in_use = names::in_use(&self.state.registry, &self.acme.config.domains);
        self.forget(&in_use, now);
        let mut waiting = Vec::new();
        let acme = &self.state.acme;
        let mut visited = acme.visited.lock();
        visited.tidy(clock::now(), |name| is_one_of(&in_use, name));
        let mut best: Option<(_, Task)> = None;
        let mut earliest = i64::MAX;
        for (name, owner) in in_use {
            let known = self.names.get(name.as_str());
            let file = known.map(|known| &known.file);
            let own = known.map_or(0, |known| schedule::due(&known.file, known.dates, now));
            let due = own.max(match file.is_some_and(|file| file.order.is_some()) {
                true => self.budget.next_request(now),
                false => self.budget.next_order(&owner, now),
            });
            if own <= now && self.budget.why(now).is_some() {
                waiting.push(name.as_str().into());
            }
            if due > now {
                earliest = earliest.min(due);
                continue;
            }
            // Names of visitors first, then of clients with few orders, then those that have waited longest.
            let is_visited = visited.has(&name);
            let failures = file.map_or(0, |file| file.failures);
            let rank = (!is_visited, self.budget.of(&owner), failures, due);
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                let name = name.into_boxed_str();
                best = Some((rank, Task { name, owner }));
            }
        }
        if let Some((_, task)) = &best {
            visited.remove(&task.name);
        }
        drop(visited);
        self.show_waiting(waiting, now);
        if let Some((_, task)) = best {
            return Next::Order(task);
        }
        let paused = self.budget.next_request(now);
        for (name, known) in &self.names {
            let ask = known.file.ask.max(paused);
            if known.dates.is_some() && ask <= now {
                return Next::Ask(name.clone());
            }
            if known.dates.is_some() {
                earliest = earliest.min(ask);
            }
        }
        let seconds = u64::try_from(earliest.saturating_sub(now)).unwrap_or_default();
        Next::Wait(Duration::from_secs(seconds.max(1)))
    }

    /// Removes what is left of names that no client has any more, when their certificates have expired.
    fn forget(&mut self, in_use: &[(String, Box<str>)], now: i64) {
        let is_over = |name: &str, known: &KnownName| {
            schedule::end(&known.file, known.dates) < now && !is_one_of(in_use, name)
        };
        let over: Vec<Box<str>> = self
            .names
            .iter()
            .filter(|(name, known)| is_over(name, known))
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            self.names.remove(&name);
            self.acme.certificates.remove(&name);
            self.state.acme.status.lock().remove(&name);
            if let Err(e) = self.store.remove(&name) {
                log::debug!("removing the certificate of {name}: {e}");
            }
        }
    }

    /// Makes an attempt to get a certificate. Everything is on the disk before the authority hears of it, so
    /// that a process which is killed in the middle has had its attempt.
    async fn attempt(&mut self, Task { name, owner }: Task) {
        let now = now();
        let known = self.names.entry(name.clone()).or_default();
        let before = known.file.clone();
        let file = &mut known.file;
        if file.directory != self.acme.directory {
            let chain = std::mem::take(&mut file.chain);
            *file = NameState {
                directory: self.acme.directory.clone(),
                chain,
                ..NameState::default()
            };
        }
        file.failures = file.failures.saturating_add(1);
        file.next = now.saturating_add(schedule::backoff(file.failures));
        file.under_way = true;
        match file.resumed >= MAX_RESUMES {
            true => file.order = None,
            false => file.resumed = file.resumed.saturating_add(1),
        }
        let is_new = file.order.is_none();
        if is_new {
            file.resumed = 0;
            self.budget.place(&owner, now);
        }
        let written = self.write(&name, is_new).await;
        let timeout = async {
            Timer::after(ATTEMPT_TIMEOUT).await;
            Err(AcmeError::Slow)
        };
        let mut stage = Stage::Preparing;
        let result = match written {
            Ok(()) => future::or(Box::pin(self.order(&name, &mut stage)), timeout).await,
            Err(e) => Err(AcmeError::Local(e)),
        };
        match result {
            Ok(dates) => self.succeed(&name, dates).await,
            Err(error) => {
                if is_new && stage == Stage::Preparing {
                    self.budget.take_back();
                }
                self.fail(&name, &before, (&error, stage)).await;
            }
        }
        self.show(&name);
    }

    async fn succeed(&mut self, name: &str, dates: (i64, i64)) {
        // The certificate has come after the attempt began.
        let now = now();
        self.budget.resume();
        if let Some(known) = self.names.get_mut(name) {
            known.dates = Some(dates);
        }
        if let Err(e) = self.write_budget().await {
            log::warn!("{e}");
        }
        let days = dates.1.saturating_sub(now) / 86_400;
        log::info!("{name} has a certificate, which is valid for {days} days");
        if !schedule::is_valid(dates, now) {
            log::warn!(
                "the new certificate of {name} is not valid now: is the clock of this machine right?"
            );
        }
    }

    /// Notes a failure, and when the next attempt is.
    async fn fail(&mut self, name: &str, before: &NameState, (error, stage): (&AcmeError, Stage)) {
        let failure = Failure {
            error,
            stage,
            before,
            has_two_kinds: self.kinds(None).len() > 1,
        };
        let Some(known) = self.names.get_mut(name) else {
            return;
        };
        let now = now();
        let waits = failure.note(&mut known.file, &mut self.budget, now);
        let file = known.file.clone();
        if let Err(e) = self.write(name, true).await {
            log::warn!("{e}");
        }
        let until = |at: i64| {
            let wait = u64::try_from(at.saturating_sub(now));
            Duration::from_secs(wait.unwrap_or_default())
        };
        let of_others = match waits {
            Waits::Name => String::new(),
            Waits::All => {
                let pause = until(self.budget.next_request(now));
                format!(", and no other name is tried for {pause:?}")
            }
        };
        log::warn!(
            "{name} has no new certificate: {}; the next attempt is in {:?}{of_others}",
            file.error.as_deref().unwrap_or_default(),
            until(file.next)
        );
    }

    /// Makes an order of [`Worker::order_once`], with a new account if the authority does not know that of
    /// before.
    async fn order(&mut self, name: &str, stage: &mut Stage) -> Result<(i64, i64), AcmeError> {
        let had_account = self.account.url.is_some();
        let result = self.order_once(name, stage).await;
        match &result {
            Err(AcmeError::Problem { problem, .. }) if problem.is("accountDoesNotExist") => {
                self.account.url = None;
            }
            _ => return result,
        }
        // An order that is there has gone with its account.
        if !had_account || *stage != Stage::Placing {
            return result;
        }
        self.order_once(name, stage).await
    }

    /// Orders the certificate of a name, or takes up its order, until the certificate is in use; returns its
    /// dates. `stage` is set before the authority gets what it tells of.
    async fn order_once(&mut self, name: &str, stage: &mut Stage) -> Result<(i64, i64), AcmeError> {
        let acme = self.acme.clone();
        let mut directory = Directory::open(&acme).await?;
        let account = self.account(&mut directory).await?;
        directory.prepare().await?;
        let file = self.file(name);
        let kinds = self.kinds(file.challenge.or(self.proven));
        let replaces = self
            .replaced(&file)
            .filter(|_| directory.urls.renewal_info.is_some());
        let mut order = Order {
            directory: &mut directory,
            key: &self.account.key,
            account: &account,
            certificate_key: &acme.key,
            name,
            pending: &self.state.acme.pending,
            kinds: &kinds,
        };
        let known = file.order.and_then(|text| AcmeUrl::try_from(text).ok());
        let url = match known {
            Some(url) => url,
            None => {
                *stage = Stage::Placing;
                let url = match order.place(replaces.as_deref()).await {
                    // The authority knows nothing of the certificate, or of its replacement.
                    Err(AcmeError::Problem { status, .. })
                        if replaces.is_some() && status < 429 =>
                    {
                        order.place(None).await?
                    }
                    placed => placed?,
                };
                if let Some(known) = self.names.get_mut(name) {
                    known.file.order = Some(url.text.clone());
                }
                self.write(name, false).await.map_err(AcmeError::Local)?;
                url
            }
        };
        *stage = Stage::Ordered;
        let mut order = Order {
            directory: &mut directory,
            key: &self.account.key,
            account: &account,
            certificate_key: &acme.key,
            name,
            pending: &self.state.acme.pending,
            kinds: &kinds,
        };
        let chain = order.finish(&url).await?;
        let issued = acme.key.accept(name, &chain);
        let issued = issued.map_err(AcmeError::BadCertificate)?;
        let dates = (issued.facts.not_before, issued.facts.not_after);
        if dates.0 >= dates.1 {
            return Err(AcmeError::BadCertificate("it is never valid".to_owned()));
        }
        let file = NameState {
            directory: acme.directory.clone(),
            challenge: kinds.first().copied(),
            next: schedule::after_success(dates, now()),
            chain,
            ..NameState::default()
        };
        self.proven = file.challenge;
        if let Some(known) = self.names.get_mut(name) {
            known.file = file;
        }
        acme.certificates.set(name, issued.named);
        if let Err(e) = self.write(name, false).await {
            // It is in use, and gone after a restart; the order is not placed again before it is due.
            log::error!("{e}; the certificate of {name} is lost when gt ends");
        }
        Ok(dates)
    }

    /// Returns the URL of the account, which is made if there is none.
    async fn account(&mut self, directory: &mut Directory) -> Result<String, AcmeError> {
        if let Some(url) = &self.account.url {
            return Ok(url.clone());
        }
        let mut request = json!({"termsOfServiceAgreed": true});
        if let (Some(email), Some(request)) = (&self.acme.config.email, request.as_object_mut()) {
            request.insert("contact".to_owned(), json!([format!("mailto:{email}")]));
        }
        let url = directory.urls.new_account.clone();
        let request = request.to_string();
        let answer = directory.post(&self.account.key, Signer::Key, &url, &request);
        let location = answer.await?.location;
        let location = location
            .ok_or_else(|| AcmeError::Malformed("the new account has no URL".to_owned()))?;
        self.account.url = Some(location.text.clone());
        let (store, name) = (self.store.clone(), self.acme.directory.clone());
        let account = self.account.clone();
        let written = blocking(move || store.write_account(&name, &account)).await;
        written.map_err(AcmeError::Local)?;
        Ok(location.text)
    }

    /// Returns the ways to prove names, the preferred one first.
    fn kinds(&self, preferred: Option<ChallengeKind>) -> Vec<ChallengeKind> {
        let mut kinds = vec![ChallengeKind::Tls];
        if self.acme.has_http {
            kinds.push(ChallengeKind::Http);
        }
        if preferred == Some(ChallengeKind::Http) {
            kinds.reverse();
        }
        kinds
    }

    fn file(&self, name: &str) -> NameState {
        let known = self.names.get(name);
        known.map_or_else(NameState::default, |known| known.file.clone())
    }

    /// Writes the file of a name, after that of recent orders if it has changed.
    async fn write(&self, name: &str, with_budget: bool) -> io::Result<()> {
        if with_budget {
            self.write_budget().await?;
        }
        let (store, name, file) = (self.store.clone(), name.to_owned(), self.file(name));
        blocking(move || store.write(&name, &file)).await
    }

    async fn write_budget(&self) -> io::Result<()> {
        let (store, budget) = (self.store.clone(), self.budget.clone());
        blocking(move || store.write_budget(&budget)).await
    }

    /// Shows the API the certificate of a name.
    fn show(&self, name: &str) {
        if let Some(known) = self.names.get(name) {
            let mut status = self.state.acme.status.lock();
            status.insert(name.into(), known.status());
        }
    }

    /// Shows the API the names that wait since the authority cannot be used, and no others as such.
    fn show_waiting(&mut self, waiting: Vec<Box<str>>, now: i64) {
        let why = self.budget.why(now).unwrap_or_default();
        let mut status = self.state.acme.status.lock();
        for name in &self.waiting {
            match self.names.get(name) {
                Some(known) => status.insert(name.clone(), known.status()),
                None => status.remove(name),
            };
        }
        for name in &waiting {
            let known = self.names.get(name);
            let mut its = known.map_or_else(CertificateStatus::default, KnownName::status);
            let error = || format!("it waits until the authority can be asked again: {why}");
            its.error = its.error.or_else(|| Some(error()));
            status.insert(name.clone(), its);
        }
        self.waiting = waiting;
    }
}

impl KnownName {
    fn status(&self) -> CertificateStatus {
        CertificateStatus {
            expires: self.dates.map(|(_, not_after)| not_after),
            error: self.file.error.clone(),
        }
    }
}

/// Whether a name is one of these, which are sorted.
fn is_one_of(in_use: &[(String, Box<str>)], name: &str) -> bool {
    let found = in_use.binary_search_by(|(other, _)| (**other).cmp(name));
    found.is_ok()
}

enum Next {
    Order(Task),
    /// Ask for the time of the renewal.
    Ask(Box<str>),
    Wait(Duration),
}

/// Returns the time of day in seconds since 1970.
fn now() -> i64 {
    let since = clock::time_of_day().duration_since(UNIX_EPOCH);
    since.map_or(0, seconds)
}
