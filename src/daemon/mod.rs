//! The process: starts the roles, waits for signals, and ends them in good order.

mod account;
#[cfg(feature = "server")]
mod exchange;
mod running;
mod supervisor;

use crate::config::{self, RoleConfig, SentryConfig};
use crate::handover::{ChildProcess, Inherited, ParentLink, Program, Progress};
use crate::logging;
use crate::net::{blocking, timeout};
use account::Account;
use async_std::channel::{self, Receiver};
use futures_lite::future;
use running::{RolePlans, RunningRoles};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long running streams may take to finish once the process is to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a new process is started when signals that were meant for it, too, have ended it.
const MAX_START_TRIES: u32 = 4;
/// Open files that gt needs before there is a connection: the runtime, the log and listeners take
/// about 20, reading certificates and looking up names a few more.
const FEWEST_FILES: u64 = 32;
/// Threads for name look-ups and files, at most.
const BLOCKING_THREADS: &str = "8";

/// What could not be done.
#[derive(Debug)]
pub struct DaemonError {
    why: String,
    /// The process whose place this one was to take knows, and says so.
    pub is_told: bool,
}

impl DaemonError {
    /// Tells it to the process whose place this one was to take, if there is one.
    pub fn tell(why: String, heir: Option<&ParentLink>) -> Self {
        let told = heir.map(|heir| heir.say(&Progress::Failed(why.clone())));
        let is_told = matches!(told, Some(Ok(())));
        Self { why, is_told }
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for DaemonError {}

/// Gets what the runtime needs: as many open files as possible, and what it reads from the
/// environment. Before the runtime is first touched, and while there is one thread. The error says
/// that there may be too few open files.
pub fn prepare(roles: &[RoleConfig]) -> Result<(), DaemonError> {
    let most = raise_open_files();
    if let Some(most) = most.filter(|most| *most < FEWEST_FILES) {
        let why = format!(
            "this process may have {most} open files, and gt needs {FEWEST_FILES} and one for each \
             connection: raise the limit, with \"ulimit -n\" or LimitNOFILE= of systemd"
        );
        return Err(DaemonError::tell(why, None));
    }
    std::env::set_var("ASYNC_STD_THREAD_COUNT", threads(roles).to_string());
    if std::env::var_os("BLOCKING_MAX_THREADS").is_none() {
        std::env::set_var("BLOCKING_MAX_THREADS", BLOCKING_THREADS);
    }
    Ok(())
}

/// Whether what a role needs of this machine is there: files and folders. The error names what
/// cannot be used. Nothing is started, and addresses to listen on are not tried.
pub fn check(loaded: &RoleConfig) -> Result<(), DaemonError> {
    let there = running::check(loaded);
    let there = there.and(Account::of(std::slice::from_ref(loaded)).map(drop));
    there.map_err(|e| DaemonError::tell(e.to_string(), None))
}

fn threads(roles: &[RoleConfig]) -> usize {
    roles.iter().map(RoleConfig::threads).max().unwrap_or(1)
}

/// Where this process comes from, and how another one like it is started.
pub struct ProcessOrigin {
    /// This program.
    pub program: Program,
    /// If this process takes another one's place: how to talk to it,
    pub heir: Option<ParentLink>,
    /// and what it has left.
    pub legacy: Inherited,
}

/// What SIGHUP and SIGQUIT ask for waits from now on; without this they would end the process. To
/// be called first of all: who signals all that run may mean one that has just begun.
pub fn expect_signals() -> io::Result<Signals> {
    Signals::new([SIGHUP, SIGQUIT])
}

/// Runs the roles until a signal ends the process. `again` reads the configuration once more,
/// for a reload.
pub fn run<E: fmt::Display>(
    roles: Vec<RoleConfig>,
    origin: ProcessOrigin,
    mut signals: Signals,
    again: impl Fn() -> Result<Vec<RoleConfig>, E> + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    let ProcessOrigin {
        program,
        heir,
        mut legacy,
    } = origin;
    let fail = |e: io::Error| DaemonError::tell(e.to_string(), heir.as_ref());
    let mut running = RunningRoles::default();
    let plans = running.plan(&roles, &mut legacy).map_err(fail)?;
    // All listens, and nobody has been served yet.
    become_user(&roles).map_err(fail)?;
    // Before, these end the process, whatever it waits for: a name look-up may take long. After,
    // there is something to be ended in good order.
    let handle = signals.handle();
    let heard = handle.add_signal(SIGINT).and(handle.add_signal(SIGTERM));
    heard.map_err(fail)?;
    running.change(plans).map_err(fail)?;
    // What nobody has taken is closed.
    drop(legacy);
    supervisor::tell("READY=1\n");
    if let Some(heir) = heir {
        running.succeed(heir);
    }
    let constants = Constants::of(&roles);
    drop(roles);
    let (sender, receiver) = channel::unbounded();
    let again = Arc::new(move || again().map_err(|e| e.to_string()));
    crate::spawn(async move {
        serve(running, &program, &constants, &receiver, again).await;
        handle.close();
    });
    let mut asked = false;
    for signal in signals.forever() {
        if ends(signal) && std::mem::replace(&mut asked, true) {
            // Twice is an order.
            std::process::exit(1);
        }
        // It can only be full of signals that nobody waits for any more.
        let _ = sender.try_send(signal);
    }
    Ok(())
}

/// Becomes the user that the roles name, if they do. What that one may not read is told now, and not
/// only when somebody wants it to be read again.
fn become_user(roles: &[RoleConfig]) -> io::Result<()> {
    let Some(account) = Account::of(roles)? else {
        return Ok(());
    };
    if !account.take()? {
        return Ok(());
    }
    for loaded in roles {
        let readable = loaded.source.as_ref().map(|file| match File::open(file) {
            Ok(_) => Ok(()),
            Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", file.display()))),
        });
        let readable = readable.unwrap_or(Ok(()));
        if let Err(e) = readable.and_then(|()| running::check(loaded)) {
            log::warn!("this user can neither reload nor restart gt: {e}");
        }
    }
    Ok(())
}

fn ends(signal: i32) -> bool {
    signal == SIGINT || signal == SIGTERM
}

/// As many open files as the system lets us have: each visitor takes one at each end. Returns how
/// many that are; `None` means no limit.
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

/// Reads the configuration once more. The error says what is wrong with it.
trait ReadConfig: Fn() -> Result<Vec<RoleConfig>, String> + Send + Sync + 'static {}

impl<F: Fn() -> Result<Vec<RoleConfig>, String> + Send + Sync + 'static> ReadConfig for F {}

async fn serve(
    mut running: RunningRoles,
    program: &Program,
    constants: &Constants,
    signals: &Receiver<i32>,
    again: Arc<impl ReadConfig>,
) {
    // Signals that have come while another one was acted on, each once.
    let mut waiting = Vec::new();
    loop {
        let signal = match waiting.is_empty() {
            true => signals.recv().await.ok(),
            false => Some(waiting.remove(0)),
        };
        match signal {
            Some(SIGHUP) => {
                let planned = plan(&running, &again);
                match unless_told_to_end(planned, signals, &mut waiting).await {
                    Some(planned) => reload(&mut running, constants, planned),
                    None => break,
                }
            }
            Some(SIGQUIT) if std::process::id() == 1 => log::error!(
                "not restarted: this is process 1, and its container or namespace ends with it. \
                 Stop and start it instead, or run gt under an init (docker run --init)"
            ),
            Some(SIGQUIT) => {
                let handed_over = async {
                    for _ in 1..MAX_START_TRIES {
                        match hand_over(&running, program).await {
                            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                            result => return result,
                        }
                    }
                    hand_over(&running, program).await
                };
                match unless_told_to_end(handed_over, signals, &mut waiting).await {
                    Some(Ok(successor)) => {
                        if waiting.contains(&SIGHUP) {
                            // It may have read its files before that.
                            successor.reload();
                        }
                        return make_way(&running, successor, signals).await;
                    }
                    Some(Err(e)) => {
                        log::error!("not restarted, everything goes on as it was: {e}");
                        running.keep();
                        waiting.retain(|signal| *signal != SIGQUIT);
                    }
                    None => break,
                }
            }
            _ => break,
        }
    }
    log::info!("stopping");
    supervisor::tell("STOPPING=1\n");
    timeout(DRAIN_TIMEOUT * 2, running.stop(DRAIN_TIMEOUT)).await;
}

/// Waits for the work while other signals are put aside; `None` if one of them ends the process.
async fn unless_told_to_end<T>(
    work: impl Future<Output = T>,
    signals: &Receiver<i32>,
    waiting: &mut Vec<i32>,
) -> Option<T> {
    let told_to_end = async {
        loop {
            match signals.recv().await {
                Ok(signal) if ends(signal) => return None,
                Ok(signal) if !waiting.contains(&signal) => waiting.push(signal),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    future::or(async { Some(work.await) }, told_to_end).await
}

/// What there is once in a process, and only a restart can change.
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

/// A configuration that was read again, and how to become what it says.
type Planned = Result<(Vec<RoleConfig>, RolePlans), String>;

/// Reads the configuration and the files it names, opens listeners, and looks up names. All of that
/// may take long, so it is done on another thread than that of the executor.
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
    let reloaded = changed.map(|roles| {
        for warning in roles.iter().flat_map(|loaded| &loaded.warnings) {
            log::warn!("{warning}");
        }
        if Constants::of(&roles) != *constants {
            log::warn!(
                "threads, the user and the Sentry options stay as they were until a restart"
            );
        }
        // Tens of thousands of users take a while to be freed, too.
        crate::spawn(blocking(move || drop(roles)));
    });
    match reloaded {
        Ok(()) => log::info!("reloaded"),
        Err(e) => log::error!("not reloaded, everything stays as it was: {e}"),
    }
}

/// Starts the program that is installed now and waits until it can take this one's place. If it
/// cannot, it is gone, and the error says why.
async fn hand_over(running: &RunningRoles, program: &Program) -> io::Result<ChildProcess> {
    let mut successor = ChildProcess::start(program)?;
    successor.give(&running.export()).await?;
    successor.hear().await?;
    if !running.serves() {
        // Nobody comes to it: it has to have its tunnels.
        successor.hear().await?;
    }
    successor.takes_over();
    let pid = successor.pid();
    log::info!("process {pid} takes over; this one ends when what runs has finished");
    supervisor::tell(&format!("MAINPID={pid}\n"));
    Ok(successor)
}

/// Lets what runs finish, unless a signal says that it may not.
async fn make_way(running: &RunningRoles, mut successor: ChildProcess, signals: &Receiver<i32>) {
    #[cfg(feature = "server")]
    let servers = running.servers_make_way(successor.link());
    #[cfg(not(feature = "server"))]
    let servers = future::ready(());
    let clients = async {
        if running.serves() {
            // Its clients come to its servers, or to others.
            if let Err(e) = successor.hear().await {
                log::error!("the process that has taken over: {e}");
            }
        }
        running.clients_make_way().await;
    };
    let drained = async {
        future::zip(servers, clients).await;
    };
    let told_to_end = async {
        loop {
            match signals.recv().await {
                // The log file may have been renamed; nothing else is of interest any more.
                Ok(SIGHUP) => logging::reopen(None),
                Ok(SIGQUIT) => {}
                _ => break,
            }
        }
        running.stop(DRAIN_TIMEOUT).await;
    };
    future::or(drained, told_to_end).await;
    log::info!("what ran here has ended");
}
