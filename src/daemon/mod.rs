//! The process: starts the roles, waits for signals, and ends them in good order.

mod running;
mod supervisor;

use crate::config::{self, Loaded, Sentry};
use crate::handover::{Heir, Legacy, Program, Successor, Word};
use crate::logging;
use crate::net::within;
use async_std::channel::{self, Receiver};
use async_std::task::spawn_blocking;
use futures_lite::future;
use running::Running;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long running streams may take to finish once the process is to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a new process may take for each step of taking this one's place.
const STEP: Duration = Duration::from_secs(15);
/// Threads for name look-ups and files, at most.
const BLOCKING_THREADS: &str = "8";

/// What could not be done.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Tells the runtime what it reads from the environment. Before the runtime is first touched, and
/// while there is one thread.
pub fn prepare(roles: &[Loaded]) {
    std::env::set_var("ASYNC_STD_THREAD_COUNT", threads(roles).to_string());
    if std::env::var_os("BLOCKING_MAX_THREADS").is_none() {
        std::env::set_var("BLOCKING_MAX_THREADS", BLOCKING_THREADS);
    }
}

fn threads(roles: &[Loaded]) -> usize {
    roles.iter().map(Loaded::threads).max().unwrap_or(1)
}

/// Where this process comes from, and how another one like it is started.
pub struct Origin {
    /// This program.
    pub program: Program,
    /// If this process takes another one's place: how to talk to it,
    pub heir: Option<Heir>,
    /// and what it has left.
    pub legacy: Legacy,
}

/// Runs the roles until a signal ends the process. `again` reads the configuration once more,
/// for a reload.
pub fn run<E: fmt::Display>(
    roles: Vec<Loaded>,
    origin: Origin,
    again: impl Fn() -> Result<Vec<Loaded>, E> + Send + 'static,
) -> Result<(), Error> {
    raise_open_files();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
        .map_err(|e| Error(format!("waiting for signals: {e}")))?;
    let handle = signals.handle();
    let (sender, receiver) = channel::unbounded();
    let result = Arc::new(Mutex::new(Ok(())));
    let theirs = result.clone();
    crate::spawn(async move {
        let ended = serve(roles, origin, &receiver, again).await;
        *theirs.lock().unwrap_or_else(PoisonError::into_inner) = ended;
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
    let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *result, Ok(()))
}

fn ends(signal: i32) -> bool {
    signal == SIGINT || signal == SIGTERM
}

/// As many open files as the system lets us have: each visitor takes one at each end.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        log::debug!("the limit of open files stays at {:?}: {e}", limit.current);
    }
}

async fn serve<E: fmt::Display>(
    roles: Vec<Loaded>,
    origin: Origin,
    signals: &Receiver<i32>,
    again: impl Fn() -> Result<Vec<Loaded>, E>,
) -> Result<(), Error> {
    let Origin {
        program,
        heir,
        mut legacy,
    } = origin;
    let mut running = match Running::start(&roles, &mut legacy) {
        Ok(running) => running,
        Err(e) => {
            if let Some(heir) = &heir {
                heir.say(&Word::Failed(e.to_string()));
            }
            return Err(Error(e.to_string()));
        }
    };
    // What nobody has taken is closed.
    drop(legacy);
    supervisor::tell("READY=1\n");
    if let Some(heir) = heir {
        running.succeed(heir);
    }
    let program = Arc::new(program);
    let constants = Constants::of(&roles);
    drop(roles);
    loop {
        match signals.recv().await {
            Ok(SIGHUP) => reload(&mut running, &constants, again()),
            Ok(SIGQUIT) => match hand_over(&running, program.clone()).await {
                Ok(successor) => {
                    make_way(&running, successor, signals).await;
                    return Ok(());
                }
                Err(e) => log::error!("not restarted, everything goes on as it was: {e}"),
            },
            _ => break,
        }
    }
    log::info!("stopping");
    supervisor::tell("STOPPING=1\n");
    within(PATIENCE * 2, running.stop(PATIENCE)).await;
    Ok(())
}

/// What there is once in a process, and only a restart can change.
#[derive(PartialEq)]
struct Constants {
    threads: usize,
    sentry: Option<Sentry>,
}

impl Constants {
    fn of(roles: &[Loaded]) -> Self {
        Self {
            threads: threads(roles),
            sentry: config::common(roles).1.cloned(),
        }
    }
}

fn reload<E: fmt::Display>(
    running: &mut Running,
    constants: &Constants,
    again: Result<Vec<Loaded>, E>,
) {
    let again = again.map_err(|e| e.to_string());
    logging::reopen(again.as_deref().ok());
    let reloaded = again.and_then(|roles| {
        running
            .change(&roles, &mut Legacy::default())
            .map_err(|e| e.to_string())?;
        for warning in roles.iter().flat_map(|loaded| &loaded.warnings) {
            log::warn!("{warning}");
        }
        if Constants::of(&roles) != *constants {
            log::warn!("threads and the Sentry options stay as they were until a restart");
        }
        Ok(())
    });
    match reloaded {
        Ok(()) => log::info!("reloaded"),
        Err(e) => log::error!("not reloaded, everything stays as it was: {e}"),
    }
}

/// Starts the program that is installed now and waits until it can take this one's place. If it
/// cannot, it is gone, and the error says why.
async fn hand_over(running: &Running, program: Arc<Program>) -> io::Result<Successor> {
    let pieces = running.legacy()?;
    let waits_for_clients = !running.serves();
    let successor = spawn_blocking(move || {
        let mut successor = Successor::start(&program, &pieces)?;
        successor.hear(STEP)?;
        if waits_for_clients {
            successor.hear(STEP)?;
        }
        Ok::<_, io::Error>(successor)
    });
    let successor = successor.await?;
    let pid = successor.pid();
    log::info!("process {pid} takes over; this one ends when what runs has finished");
    supervisor::tell(&format!("MAINPID={pid}\n"));
    Ok(successor)
}

/// Lets what runs finish, unless a signal says that it may not.
async fn make_way(running: &Running, mut successor: Successor, signals: &Receiver<i32>) {
    let servers = running.servers_make_way();
    let clients = async {
        if running.serves() {
            // Its clients come to its servers, or to others.
            if let Err(e) = spawn_blocking(move || successor.hear(STEP)).await {
                log::error!("the process that has taken over does not run: {e}");
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
        running.stop(PATIENCE).await;
    };
    future::or(drained, told_to_end).await;
    log::info!("what ran here has ended");
}
