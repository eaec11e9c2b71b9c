//! The processes of a handover, by this thread's world: the items of `handover/program.rs`.

use super::kernel::{self, OwnedFd};
use super::process::{self, ProcessId};
use super::world;
use crate::config::file::Document;
use crate::config::foreign::Content;
use crate::config::{self, RoleConfig, RoleName};
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// Reads a role's configuration from the text of a file; nothing is read from the disk. The error is a
/// sentence.
pub fn configuration(path: &Path, text: &str) -> Result<RoleConfig, String> {
    let document = Document::parse(path, text.to_owned(), Content::Configuration);
    let document = document.map_err(|e| e.to_string())?;
    let role = document.role(None).map_err(|e| e.to_string())?;
    let loaded = match role {
        RoleName::Server => config::server::load(&[], Some(&document)),
        RoleName::Client => config::client::load(&[], &[], Some(&document)),
    };
    loaded.map_err(|e| e.to_string())
}

/// A function that starts the program again: it creates a process and returns its number. The
/// descriptor, which is the new process's already once it runs, leads to the parent.
pub type Launch = Arc<dyn Fn(Option<OwnedFd>) -> ProcessId + Send + Sync>;

/// A program of the world.
#[derive(Clone)]
pub struct Program(Launch);

impl Program {
    /// Returns a program that cannot be started: the one on the disk.
    pub fn current() -> Self {
        Self(Arc::new(|_| process::ProcessId::NONE))
    }

    /// Creates a program that is started by a function.
    pub fn new(launch: Launch) -> Self {
        Self(launch)
    }
}

/// A child process.
pub(crate) struct Child(ProcessId);

impl Child {
    /// Starts the program with a socket that leads to this process. Returns this process's end.
    pub fn start(program: &Program) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = kernel::packet_pair()?;
        let number = theirs.number();
        let id = (program.0)(Some(theirs));
        world::with(|world| world.give(number, id));
        Ok((Self(id), ours))
    }

    /// Returns the number of the process.
    pub fn pid(&self) -> u32 {
        self.0.number()
    }

    /// Sends SIGHUP to the process.
    pub fn hang_up(&self) {
        process::signal(self.0, signal_hook::consts::SIGHUP);
    }

    /// Returns how the process has ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        process::exit_status(self.0)
    }

    /// Ends the process.
    pub fn kill(&mut self) {
        process::kill(self.0);
    }
}

/// Returns none: a process of the world is given its socket.
pub(crate) fn socket_to_parent(_: Duration) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}
