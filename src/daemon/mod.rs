//! The process: starts the roles, handles signals, and shuts down in order.

mod account;
#[cfg_attr(not(feature = "client"), path = "no_client_role.rs")]
mod client_role;
#[cfg(feature = "web")]
#[cfg_attr(not(feature = "client"), path = "no_client_views.rs")]
mod client_views;
#[cfg(feature = "server")]
mod exchange;
mod file_privileges;
#[cfg(not(all(feature = "server", feature = "client", feature = "web")))]
mod no_role;
mod role;
mod running;
#[cfg_attr(not(feature = "server"), path = "no_server_role.rs")]
mod server_role;
#[cfg(feature = "web")]
#[cfg_attr(not(feature = "server"), path = "no_server_views.rs")]
mod server_views;
#[cfg(not(feature = "sim"))]
mod supervisor;
#[cfg_attr(not(feature = "web"), path = "no_web_role.rs")]
mod web_role;

use crate::config::{self, RoleConfig, SentryConfig};
use crate::handover::{ChildProcess, Inherited, ParentLink, Program, Progress, TakeoverError};
use crate::keys::Fingerprint;
use crate::logging;
use crate::net::{blocking, set_threads, set_udp_offload};
#[cfg(feature = "sim")]
use crate::sim::supervisor;
use crate::state_dir::{self, IDENTITY};
use account::Account;
use async_std::channel::{self, Receiver};
use futures_lite::future;
use running::{RolePlans, RunningRoles};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};
use web_role::Change;

/// Time that streams have to finish when the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of times that a child is started, if signals to both processes end it before it
/// handles them.
const MAX_START_TRIES: u32 = 4;
/// Number of open files that gt needs without any connection: the runtime, the log and the
/// listeners take about 20, reading certificates and resolving names a few more.
const MIN_OPEN_FILES: u64 = 32;
/// Default maximum number of threads for name look-ups and file access; `net` divides them into
/// shares.
const BLOCKING_THREADS: &str = "10";

/// The reason why the process cannot start or continue: a sentence for the user.
#[derive(Debug)]
pub struct DaemonError {
    why: String,
    /// Whether the parent process has been told, which then reports the error itself.
    pub is_reported: bool,
}

impl DaemonError {
    /// Creates the error and reports it to the parent process, if there is one.
    pub fn report(why: String, parent: Option<&ParentLink>) -> Self {
        let sent = parent.map(|parent| parent.report(&Progress::Failed(why.clone())));
        let is_reported = matches!(sent, Some(Ok(())));
        Self { why, is_reported }
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for DaemonError {}

/// Prepares the process for the runtime: refuses the rights of program files, raises the limit of
/// open files and sets the environment variables that the runtime reads. Call it while there is one
/// thread, before the runtime is used. Fails if the limit of open files is too low.
pub fn prepare(roles: &[RoleConfig]) -> Result<(), DaemonError> {
    file_privileges::refuse();
    let most = raise_open_files();
    if let Some(most) = most.filter(|most| *most < MIN_OPEN_FILES) {
        let why = format!(
            "this process may have {most} open files, and gt needs {MIN_OPEN_FILES} and one for each \
             connection: raise the limit, with \"ulimit -n\" or LimitNOFILE= of systemd"
        );
        return Err(DaemonError::report(why, None));
    }
    set_threads(threads(roles));
    set_udp_offload(roles.iter().all(RoleConfig::udp_offload));
    if std::env::var_os("BLOCKING_MAX_THREADS").is_none() {
        std::env::set_var("BLOCKING_MAX_THREADS", BLOCKING_THREADS);
    }
    Ok(())
}

/// Checks that the files and folders that a role needs exist and can be used. Starts nothing and
/// opens no listeners. The error names the file or folder that cannot be used.
pub fn check(loaded: &RoleConfig) -> Result<(), DaemonError> {
    let account = Account::of(std::slice::from_ref(loaded)).map(drop);
    let there = account.and_then(|()| check_files(loaded));
    there.map_err(|e| DaemonError::report(e.to_string(), None))
}

/// Returns the fingerprints of the keys of the servers among the roles, which make their keys if they
/// have none yet. First becomes the user that the roles run as, to which the files belong.
pub fn fingerprints(roles: &[RoleConfig]) -> Result<Vec<Fingerprint>, DaemonError> {
    make_state_dirs(roles).map_err(|e| DaemonError::report(e.to_string(), None))?;
    check_as_user(roles)?;
    let mut found = Vec::new();
    for loaded in roles {
        let file = loaded.state_dir().map(|path| path.join(IDENTITY));
        let missing = file.filter(|file| !file.exists());
        let fingerprint = running::fingerprint(loaded);
        if let Some(made) = missing.filter(|file| file.exists()) {
            // A relative path may lead elsewhere than that of the service.
            let made = std::path::absolute(&made).unwrap_or(made);
            eprintln!("gt: made a key, in {}", made.display());
        }
        found.extend(fingerprint.map_err(|e| DaemonError::report(e.to_string(), None))?);
    }
    match found.is_empty() {
        false => Ok(found),
        true => {
            let why = "there is no server with a key of its own: set certFile and keyFile with \
                       tlsAddr or quicAddr, or stateDir";
            Err(DaemonError::report(why.to_owned(), None))
        }
    }
}

/// Returns a warning for each file with secrets that every user of this machine can read, and about a `stateDir`
/// that cannot be used or that others can change.
pub fn exposed_files(loaded: &RoleConfig) -> Vec<String> {
    let mut warnings = config::secret_file::readable_by_all(&loaded.secret_files);
    warnings.extend(
        loaded
            .state_dir()
            .map(state_dir::faults)
            .unwrap_or_default(),
    );
    warnings
}

/// Makes the directories that the roles keep something in, for the user that they run as, if any.
fn make_state_dirs(roles: &[RoleConfig]) -> io::Result<()> {
    let account = Account::of(roles)?;
    account.map_or(Ok(()), |account| account.make_state_dirs(roles))
}

/// Lets root become the user that the roles run as, for [`check`]: what that user cannot read, gt
/// cannot reload.
pub fn check_as_user(roles: &[RoleConfig]) -> Result<(), DaemonError> {
    match Account::of(roles) {
        Ok(Some(account)) if account::is_root() => match account.switch() {
            Ok(_) => Ok(()),
            Err(e) => Err(DaemonError::report(e.to_string(), None)),
        },
        // `check` reports a user that does not exist.
        _ => Ok(()),
    }
}

/// Checks that a role's own file, and what it names, can be read.
fn check_files(loaded: &RoleConfig) -> io::Result<()> {
    if let Some(file) = &loaded.source {
        let explain = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", file.display()));
        File::open(file).map_err(explain)?;
    }
    running::check(loaded)
}

fn threads(roles: &[RoleConfig]) -> usize {
    roles.iter().map(RoleConfig::threads).max().unwrap_or(1)
}

/// The way in which this process was started, and the program to start as its child.
pub struct ProcessOrigin {
    /// This program and its arguments.
    pub program: Program,
    /// The link to the parent process, if this process takes over from one.
    pub parent: Option<ParentLink>,
    /// The sockets and state that the parent has handed over.
    pub inherited: Inherited,
}

/// Starts to queue SIGHUP, SIGQUIT and SIGUSR1, which would end the process otherwise. Call it
/// first: a signal to all running processes may reach one that has just started.
pub fn expect_signals() -> io::Result<Signals> {
    let signals = Signals::new([SIGHUP, SIGQUIT, SIGUSR1])?;
    if std::process::id() == 1 {
        // These do not end process 1 by themselves: without this they would be lost during the start.
        signals.handle().add_signal(SIGINT)?;
        signals.handle().add_signal(SIGTERM)?;
    }
    Ok(signals)
}

/// Runs the roles until a signal ends the process. `again` reads the configuration anew for a
/// reload.
pub fn run<E: fmt::Display>(
    roles: Vec<RoleConfig>,
    origin: ProcessOrigin,
    mut signals: Signals,
    again: impl Fn() -> Result<Vec<RoleConfig>, E> + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    let handle = signals.handle();
    // Until now SIGINT and SIGTERM end the process at once, whatever it waits for: resolving a
    // name may take long. From then on there are connections to drain.
    let expect_stop = || handle.add_signal(SIGINT).and(handle.add_signal(SIGTERM));
    let daemon = Daemon::start(roles, origin, expect_stop)?;
    let (sender, receiver) = channel::unbounded();
    let again = move || again().map_err(|e| e.to_string());
    crate::net::spawn(async move {
        daemon.serve(&receiver, again).await;
        handle.close();
    });
    let mut stopping = false;
    for signal in signals.forever() {
        if is_stop(signal) && std::mem::replace(&mut stopping, true) {
            // A second signal skips the drain.
            std::process::exit(1);
        }
        // Only fails once nothing reads the signals any more.
        let _ = sender.try_send(signal);
    }
    Ok(())
}

/// A process whose roles run.
pub struct Daemon {
    running: RunningRoles,
    program: Program,
    constants: Constants,
}

impl Daemon {
    /// Starts the roles. `begin` is called when all listeners are open and no connection has been
    /// accepted yet.
    pub fn start(
        roles: Vec<RoleConfig>,
        origin: ProcessOrigin,
        begin: impl FnOnce() -> io::Result<()>,
    ) -> Result<Self, DaemonError> {
        let ProcessOrigin {
            program,
            parent,
            mut inherited,
        } = origin;
        let fail = |e: io::Error| DaemonError::report(e.to_string(), parent.as_ref());
        make_state_dirs(&roles).map_err(fail)?;
        let mut running = RunningRoles::default();
        let plans = running.plan(&roles, &mut inherited).map_err(fail)?;
        become_user(&roles).map_err(fail)?;
        begin().map_err(fail)?;
        running.change(plans).map_err(fail)?;
        // Closes the inherited sockets that no role has taken.
        drop(inherited);
        supervisor::notify("READY=1\n");
        if let Some(parent) = parent {
            running.report_to_parent(parent);
        }
        let constants = Constants::of(&roles);
        Ok(Self {
            running,
            program,
            constants,
        })
    }

    /// Acts on the signals until one of them ends the process. `again` reads the configuration anew
    /// for a reload.
    pub async fn serve(self, signals: &Receiver<i32>, again: impl ReadConfig) {
        serve(
            self.running,
            &self.program,
            &self.constants,
            signals,
            Arc::new(again),
        )
        .await;
    }
}

/// Switches to the configured user, if any. Warns now, rather than at the next reload, about files
/// that this user cannot read.
fn become_user(roles: &[RoleConfig]) -> io::Result<()> {
    let Some(account) = Account::of(roles)? else {
        return Ok(());
    };
    if !account.switch()? {
        return Ok(());
    }
    for loaded in roles {
        if let Err(e) = check_files(loaded) {
            log::warn!("this user can neither reload nor restart gt: {e}");
        }
    }
    Ok(())
}

fn is_stop(signal: i32) -> bool {
    signal == SIGINT || signal == SIGTERM
}

/// Raises the limit of open files as far as the system allows (each visitor takes one file at each
/// end). Returns the limit; `None` for unlimited.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// A function that reads the configuration anew for a reload. The error is a sentence.
pub trait ReadConfig: Fn() -> Result<Vec<RoleConfig>, String> + Send + Sync + 'static {}

impl<F: Fn() -> Result<Vec<RoleConfig>, String> + Send + Sync + 'static> ReadConfig for F {}

async fn serve(
    mut running: RunningRoles,
    program: &Program,
    constants: &Constants,
    signals: &Receiver<i32>,
    again: Arc<impl ReadConfig>,
) {
    // Signals that came while another one was handled, each once.
    let mut waiting = Vec::new();
    loop {
        let signal = match waiting.is_empty() {
            true => signals.recv().await.ok(),
            false => Some(waiting.remove(0)),
        };
        match signal {
            Some(SIGHUP) => {
                let planned = plan(&running, &again);
                match unless_stopped(planned, signals, &mut waiting).await {
                    Some(planned) => reload(&mut running, constants, planned),
                    None => break,
                }
            }
            Some(SIGUSR1) => {
                log::debug!("woken");
                running.wake();
            }
            Some(SIGQUIT) if std::process::id() == 1 => log::error!(
                "not restarted: this is process 1, and its container or namespace ends with it. \
                 Stop and start it instead"
            ),
            Some(SIGQUIT) => {
                let handed_over = async {
                    for _ in 1..MAX_START_TRIES {
                        match hand_over(&running, program).await {
                            Err(TakeoverError::Signaled(_)) => {}
                            result => return result,
                        }
                    }
                    hand_over(&running, program).await
                };
                match unless_stopped(handed_over, signals, &mut waiting).await {
                    Some(Ok(child)) => {
                        if waiting.contains(&SIGHUP) {
                            // The child may have read its files before the signal.
                            child.reload();
                        }
                        // SIGUSR1 is not passed on: the child has just tried to connect, and the
                        // signal would end a version of gt that does not know it.
                        return drain(&running, child, signals).await;
                    }
                    Some(Err(e)) => {
                        log::error!("not restarted, everything goes on as it was: {e}");
                        running.report(Change::Restart, Some(e.to_string()));
                        running.cancel_handover();
                        waiting.retain(|signal| *signal != SIGQUIT);
                    }
                    None => break,
                }
            }
            _ => break,
        }
    }
    log::info!("stopping");
    supervisor::notify("STOPPING=1\n");
    // Each of its waits has a bound. One over all would be over together with them in a process that
    // stood still meanwhile, which then would end without its resets.
    running.stop(DRAIN_TIMEOUT).await;
}

/// Runs `work` and queues other signals; `None` if a signal ends the process first.
async fn unless_stopped<T>(
    work: impl Future<Output = T>,
    signals: &Receiver<i32>,
    waiting: &mut Vec<i32>,
) -> Option<T> {
    let stop_signal = async {
        loop {
            match signals.recv().await {
                Ok(signal) if is_stop(signal) => return None,
                Ok(signal) if !waiting.contains(&signal) => waiting.push(signal),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    future::or(async { Some(work.await) }, stop_signal).await
}

/// Settings of the whole process that only a restart can change.
#[derive(PartialEq)]
struct Constants {
    threads: usize,
    sentry: Option<SentryConfig>,
    account: Option<config::AccountConfig>,
}

impl Constants {
    fn of(roles: &[RoleConfig]) -> Self {
        Self {
            threads: threads(roles),
            sentry: config::common(roles).1.cloned(),
            account: config::account(roles).cloned(),
        }
    }
}

/// A configuration that was read again, and the plans to apply it.
type Planned = Result<(Vec<RoleConfig>, RolePlans), String>;

/// Reads the configuration and the files it names, opens listeners, and resolves names. Runs on a
/// thread of its own because each of these may block for long.
async fn plan(running: &RunningRoles, again: &Arc<impl ReadConfig>) -> Planned {
    let (running, again) = (running.clone(), again.clone());
    blocking(move || {
        let roles = again()?;
        let plans = running.plan(&roles, &mut Inherited::default());
        plans.map(|plans| (roles, plans)).map_err(|e| e.to_string())
    })
    .await
}

fn reload(running: &mut RunningRoles, constants: &Constants, planned: Planned) {
    let changed = planned.and_then(|(roles, plans)| {
        let changed = running.change(plans);
        changed.map(|()| roles).map_err(|e| e.to_string())
    });
    logging::reopen(changed.as_deref().ok());
    if let Ok(roles) = &changed {
        logging::keep_tail(roles.iter().any(|role| role.web().is_some()));
    }
    let reloaded = changed.map(|roles| {
        for warning in roles.iter().flat_map(|loaded| &loaded.warnings) {
            log::warn!("{warning}");
        }
        if Constants::of(&roles) != *constants {
            log::warn!(
                "threads, the user and the Sentry options stay as they were until a restart"
            );
        }
        // Dropping tens of thousands of users takes a while, too.
        crate::net::spawn(blocking(move || drop(roles)));
    });
    match &reloaded {
        Ok(()) => log::info!("reloaded"),
        Err(e) => log::error!("not reloaded, everything stays as it was: {e}"),
    }
    running.report(Change::Reload, reloaded.err());
}

/// Starts the installed program and waits until it has taken over. If that fails, the child is
/// ended.
async fn hand_over(
    running: &RunningRoles,
    program: &Program,
) -> Result<ChildProcess, TakeoverError> {
    let mut child = ChildProcess::start(program).map_err(TakeoverError::Io)?;
    child.send_items(&running.export()).await?;
    child.next_progress().await?;
    if !running.has_servers() {
        // Without a server only its tunnels show that the child works: wait for them.
        child.next_progress().await?;
    }
    child.detach();
    let pid = child.pid();
    log::info!("process {pid} takes over; this one ends when what runs has finished");
    supervisor::notify(&format!("MAINPID={pid}\n"));
    Ok(child)
}

/// Waits until the roles of this process have drained after a child has taken over, or a signal
/// stops them.
async fn drain(running: &RunningRoles, mut child: ChildProcess, signals: &Receiver<i32>) {
    running.stop_webs();
    let servers = running.drain_servers(&mut child);
    let clients = async {
        if running.has_servers() {
            // The child's clients connect to its servers, or to others.
            if let Err(e) = child.next_progress().await {
                log::error!("waiting for the tunnels of the new process: {e}");
            }
        }
        running.drain_clients().await;
    };
    let drained = async {
        future::zip(servers, clients).await;
    };
    let stop_signal = async {
        loop {
            match signals.recv().await {
                // The log file may have been renamed. The others have no meaning any more.
                Ok(SIGHUP) => logging::reopen(None),
                Ok(SIGQUIT | SIGUSR1) => {}
                _ => break,
            }
        }
        running.stop(DRAIN_TIMEOUT).await;
    };
    future::or(drained, stop_signal).await;
    log::info!("drained; this process ends");
}
