//! gt in a simulated world: processes that run a server or a client from a configuration, and start
//! their successors.

use async_std::channel;
use gt::daemon::{Daemon, ProcessOrigin};
use gt::handover::{Inherited, ParentLink, Program};
use gt::sim::kernel::OwnedFd;
use gt::sim::{self, HostId, ProcessId};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A gt that is installed on a host. Its process may be replaced by another one.
#[derive(Clone)]
pub struct Gt(Arc<Installed>);

struct Installed {
    name: String,
    host: HostId,
    file: PathBuf,
    text: Mutex<String>,
    /// All processes, the latest one last.
    processes: Mutex<Vec<ProcessId>>,
    /// The process that a supervisor has started.
    started: Mutex<Option<ProcessId>>,
}

impl Gt {
    /// Installs gt with a configuration and starts it.
    pub fn start(name: &str, host: HostId, text: String) -> Self {
        let gt = Self::installed(name, host, text);
        gt.start_process();
        gt
    }

    /// Installs gt with a configuration.
    pub fn installed(name: &str, host: HostId, text: String) -> Self {
        let installed = Installed {
            name: name.to_owned(),
            host,
            file: PathBuf::from(format!("/etc/{name}.yaml")),
            text: Mutex::new(text),
            processes: Mutex::new(Vec::new()),
            started: Mutex::new(None),
        };
        Self(Arc::new(installed))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn host(&self) -> HostId {
        self.0.host
    }

    /// The processes that run, the latest one last.
    pub fn running(&self) -> Vec<ProcessId> {
        let all = self.0.processes.lock().unwrap();
        let running = all.iter().filter(|id| sim::exit_status(**id).is_none());
        running.copied().collect()
    }

    /// The process that a supervisor knows: the one it has started, or its successor.
    fn main_process(&self) -> Option<ProcessId> {
        let mut main = (*self.0.started.lock().unwrap())?;
        while let Some(successor) = sim::successor(main) {
            main = successor;
        }
        Some(main)
    }

    /// Starts gt as a supervisor does.
    pub fn start_process(&self) {
        let process = self.launch(None);
        *self.0.started.lock().unwrap() = Some(process);
    }

    /// Writes another configuration file.
    pub fn configure(&self, text: String) {
        *self.0.text.lock().unwrap() = text;
    }

    /// Sends a signal to the process that serves.
    pub fn signal(&self, number: i32) {
        if let Some(id) = self.main_process() {
            sim::signal(id, number);
        }
    }

    /// Stops all processes and starts gt again, as a supervisor does.
    pub async fn stop_and_start(&self, signal: i32, pause: Duration) {
        for process in self.running() {
            sim::signal(process, signal);
        }
        while !self.running().is_empty() {
            sim::pass(Duration::from_millis(100)).await;
        }
        sim::pass(pause).await;
        // Another event may have started it, too.
        if self.running().is_empty() {
            self.start_process();
        }
    }

    /// Starts a process, whose parent is at the other end of a socket.
    pub fn launch(&self, parent: Option<OwnedFd>) -> ProcessId {
        let mut processes = self.0.processes.lock().unwrap();
        let name = format!("{}.{}", self.0.name, processes.len() + 1);
        let id = sim::process(self.0.host, &name);
        processes.push(id);
        drop(processes);
        let gt = self.clone();
        sim::spawn(id, async move {
            if let Err(why) = gt.main(parent).await {
                sim::trace(format_args!("cannot run: {why}"));
                sim::exit(1);
            }
        });
        id
    }

    async fn main(&self, parent: Option<OwnedFd>) -> Result<(), String> {
        let (sender, signals) = channel::unbounded();
        sim::take_signals(sender);
        let (parent, inherited) = match parent {
            Some(socket) => {
                let received = ParentLink::from_socket(socket).await;
                let (parent, inherited) = received.map_err(|e| e.to_string())?;
                (Some(parent), inherited)
            }
            None => (None, Inherited::default()),
        };
        let successor = self.clone();
        let origin = ProcessOrigin {
            program: Program::new(Arc::new(move |socket| successor.launch(socket))),
            parent,
            inherited,
        };
        let begin = || {
            sim::take_stop_signals();
            Ok(())
        };
        let roles = vec![self.configuration()?];
        let daemon = Daemon::start(roles, origin, begin).map_err(|e| e.to_string())?;
        sim::trace(format_args!("runs"));
        let gt = self.clone();
        let again = move || Ok(vec![gt.configuration()?]);
        daemon.serve(&signals, again).await;
        sim::trace(format_args!("ends"));
        sim::exit(0);
        Ok(())
    }

    fn configuration(&self) -> Result<gt::config::RoleConfig, String> {
        sim::configuration(&self.0.file, &self.0.text.lock().unwrap())
    }
}
