//! The process: starts the roles, waits for signals, and ends them in good order.

#[cfg(feature = "client")]
use crate::client::Client;
use crate::config::Loaded;
use crate::logging;
use crate::net::within;
#[cfg(feature = "server")]
use crate::server::Server;
use async_std::channel::{self, Receiver};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long running streams may take to finish once the process is to end.
const PATIENCE: Duration = Duration::from_secs(5);
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
    let threads = roles.iter().map(Loaded::threads).max().unwrap_or(1);
    std::env::set_var("ASYNC_STD_THREAD_COUNT", threads.to_string());
    if std::env::var_os("BLOCKING_MAX_THREADS").is_none() {
        std::env::set_var("BLOCKING_MAX_THREADS", BLOCKING_THREADS);
    }
}

/// Runs the roles until a signal ends the process. `again` reads the configuration once more,
/// for a reload.
pub fn run<E: fmt::Display>(
    roles: Vec<Loaded>,
    again: impl Fn() -> Result<Vec<Loaded>, E> + Send + 'static,
) -> Result<(), Error> {
    raise_open_files();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])
        .map_err(|e| Error(format!("waiting for signals: {e}")))?;
    let handle = signals.handle();
    let (sender, receiver) = channel::unbounded();
    let result = Arc::new(Mutex::new(Ok(())));
    let theirs = result.clone();
    crate::spawn(async move {
        let ended = serve(&roles, &receiver, again).await;
        *theirs.lock().unwrap_or_else(PoisonError::into_inner) = ended;
        handle.close();
    });
    let mut asked = false;
    for signal in signals.forever() {
        if signal != SIGHUP && std::mem::replace(&mut asked, true) {
            // Twice is an order.
            std::process::exit(1);
        }
        // It can only be full of signals that nobody waits for any more.
        let _ = sender.try_send(signal);
    }
    let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *result, Ok(()))
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

/// The roles that run.
#[derive(Default)]
struct Running {
    #[cfg(feature = "server")]
    servers: Vec<Server>,
    #[cfg(feature = "client")]
    clients: Vec<Client>,
}

impl Running {
    /// Servers first: clients in the same process find them there.
    fn start(roles: &[Loaded]) -> io::Result<Self> {
        let mut running = Self::default();
        #[cfg(feature = "server")]
        for config in roles.iter().filter_map(|loaded| loaded.role.server()) {
            running.servers.push(Server::start(config)?);
        }
        #[cfg(feature = "client")]
        for config in roles.iter().filter_map(|loaded| loaded.role.client()) {
            running.clients.push(Client::start(config)?);
        }
        Ok(running)
    }

    /// Brings the services of the clients up to date.
    fn reload(&self, roles: &[Loaded]) -> io::Result<()> {
        #[cfg(feature = "client")]
        {
            let configs = roles.iter().filter_map(|loaded| loaded.role.client());
            // All of them, before the first one changes.
            let prepared: Vec<_> = configs.map(Client::prepare).collect::<io::Result<_>>()?;
            if prepared.len() != self.clients.len() {
                return Err(io::Error::other(
                    "there are more or fewer clients than before; that takes a restart",
                ));
            }
            for (client, services) in self.clients.iter().zip(prepared) {
                client.reload(services);
            }
        }
        #[cfg(not(feature = "client"))]
        let _ = roles;
        Ok(())
    }

    async fn stop(&self) {
        #[cfg(feature = "client")]
        for client in &self.clients {
            client.stop(PATIENCE).await;
        }
        #[cfg(feature = "server")]
        for server in &self.servers {
            server.stop(PATIENCE).await;
        }
    }
}

async fn serve<E: fmt::Display>(
    roles: &[Loaded],
    signals: &Receiver<i32>,
    again: impl Fn() -> Result<Vec<Loaded>, E>,
) -> Result<(), Error> {
    let running = Running::start(roles).map_err(|e| Error(e.to_string()))?;
    while let Ok(SIGHUP) = signals.recv().await {
        let reloaded = again().map_err(|e| e.to_string());
        logging::reopen(reloaded.as_deref().ok());
        let reloaded = reloaded.and_then(|roles| running.reload(&roles).map_err(|e| e.to_string()));
        match reloaded {
            Ok(()) => log::info!("reloaded"),
            Err(e) => log::error!("not reloaded, everything stays as it was: {e}"),
        }
    }
    log::info!("stopping");
    within(PATIENCE * 2, running.stop()).await;
    Ok(())
}
