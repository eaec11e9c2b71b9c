//! The processes of a handover as the system knows them: the program to start as a child, the running
//! child, and the socket that leads from it to its parent.

use crate::net::kernel::{self, AsFd, OwnedFd};
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::process::{kill_process, Pid, Signal};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command, ExitStatus};
use std::time::Duration;

/// Environment variable that tells a new process that its standard input leads to its parent.
const VARIABLE: &str = "GT_TAKES_OVER";

/// The program file and the arguments with which to start this program again.
pub struct Program {
    /// The path of the program when this process started; another version may have been installed
    /// there since. Or why the system does not tell it.
    file: io::Result<PathBuf>,
    argv: Vec<OsString>,
}

impl Program {
    /// Records the path and the arguments of this process. Call it when the process starts, since
    /// an installation may change the path later.
    pub fn current() -> Self {
        Self {
            file: std::env::current_exe(),
            argv: std::env::args_os().collect(),
        }
    }
}

/// A child process.
pub(super) struct Child(process::Child);

impl Child {
    /// Starts the program with a socket that leads to this process. Returns this process's end, which
    /// does not block.
    pub fn start(program: &Program) -> io::Result<(Self, OwnedFd)> {
        let file = program.file.as_ref().map_err(|e| {
            let why = format!("reading /proc/self/exe to find this program: {e}");
            io::Error::new(e.kind(), why)
        })?;
        let (ours, theirs) = kernel::packet_pair()?;
        kernel::set_nonblocking(&ours)?;
        let mut command = Command::new(file);
        let mut argv = program.argv.iter();
        if let Some(name) = argv.next() {
            command.arg0(name);
        }
        command.args(argv).env(VARIABLE, "1").stdin(theirs);
        let child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("starting {}: {e}", file.display())))?;
        Ok((Self(child), ours))
    }

    /// Returns the number of the process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGHUP to the process.
    pub fn hang_up(&self) {
        // Fails if the child has ended already, which the next step shows.
        let _ = kill_process(Pid::from_child(&self.0), Signal::HUP);
    }

    /// Returns how the process has ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Ends the process.
    pub fn kill(&mut self) {
        // Fails if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the socket that leads to the parent process, if one has started this process for a
/// handover; `patience` is how long the receiver of a packet waits. Call it once, before anything
/// else.
pub(super) fn socket_to_parent(patience: Duration) -> io::Result<Option<OwnedFd>> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    std::env::remove_var(VARIABLE);
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    // Child processes, and anything else that reads stdin, must not see the socket.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
    Ok(Some(socket))
}
