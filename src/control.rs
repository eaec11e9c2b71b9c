//! The commands about running processes of gt: `gt -s …` signals them, on which [`crate::daemon`] acts,
//! and `gt bans` and `gt status` ask them.

#[cfg(feature = "client")]
pub mod bans;
#[cfg(any(feature = "client", feature = "web"))]
pub mod socket;
#[cfg(any(feature = "client", feature = "web"))]
pub mod status;

#[cfg(feature = "web")]
pub use status::pages;
#[cfg(feature = "client")]
pub use status::STATUS;

use crate::cli::{self, ControlSignal, SignalRequest};
use crate::config::file::Document;
use crate::config::RoleName;
use rustix::process::{geteuid, kill_process, Pid, Signal};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Suffix of `/proc/PID/exe` when the program's file was replaced or removed.
const DELETED: &[u8] = b" (deleted)";

/// The report of a command about running processes, as lines to print.
#[derive(Debug, Default)]
pub struct ControlReport {
    /// Lines about the processes that were signalled, or that have answered.
    pub done: Vec<String>,
    /// One line for each process with which that has failed, or the reason why none was found.
    pub failed: Vec<String>,
}

impl ControlReport {
    /// Finds the running processes of this program; `None` if that fails, which is reported.
    fn find_running(&mut self) -> Option<RunningProcesses> {
        RunningProcesses::find()
            .map_err(|e| {
                let why = format!("looking for the gt that runs in /proc: {e}");
                self.failed.push(why);
            })
            .ok()
    }
}

/// Signals every running process of this program that matches the request.
pub fn send(request: &SignalRequest) -> ControlReport {
    let mut report = ControlReport::default();
    let Some(running) = report.find_running() else {
        return report;
    };
    let config = request.config.as_deref().map(resolved);
    let mut others = Vec::new();
    for process in &running.ours {
        let pid = process.pid;
        if config.is_some() && process.config != config {
            others.push(pid.to_string());
            continue;
        }
        match request.role.map(|role| process.has_role(role)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => {
                others.push(pid.to_string());
                continue;
            }
            Some(Err(e)) => {
                report.failed.push(format!(
                    "whether process {pid} is meant cannot be told: {e}"
                ));
                continue;
            }
        }
        let (name, number) = number(request.signal);
        if number == Signal::USR1 && !process.handles(number) {
            report.failed.push(format!(
                "process {pid} is not signalled: {name} would end it, as it is too old; restart it"
            ));
            continue;
        }
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(target) = target else {
            continue;
        };
        match kill_process(target, number) {
            Ok(()) => report.done.push(format!("sent {name} to process {pid}")),
            Err(e) if e == rustix::io::Errno::SRCH => {}
            Err(e) => report.failed.push(format!(
                "process {pid} cannot be signalled: {}; try as root, or as the user it runs as",
                io::Error::from(e)
            )),
        }
    }
    if report.done.is_empty() && report.failed.is_empty() {
        report
            .failed
            .push(no_match(request, &others, &running.hidden));
    }
    report
}

/// Explains why no process was signalled.
fn no_match(request: &SignalRequest, others: &[String], hidden: &[UnreadableProcess]) -> String {
    let role = request
        .role
        .map_or_else(|| "gt".to_owned(), |role| format!("gt {role}"));
    let config = request.config.as_ref();
    let config = config.map_or_else(String::new, |path| {
        format!(" with -config {}", path.display())
    });
    let others = match others {
        [] => String::new(),
        others => format!("; there is another gt: process {}", others.join(", ")),
    };
    let me = geteuid().as_raw();
    let hidden: String = hidden
        .iter()
        .map(|&UnreadableProcess { pid, user }| {
            let who = match user {
                user if user == me || user == 0 => "root",
                _ => "root, or as that user",
            };
            format!("; process {pid} of user {user} seems to be a gt: try as {who}")
        })
        .collect();
    format!("no {role}{config} of this program runs{others}{hidden}")
}

fn number(signal: ControlSignal) -> (&'static str, Signal) {
    match signal {
        ControlSignal::Reload => ("SIGHUP", Signal::HUP),
        ControlSignal::Wake => ("SIGUSR1", Signal::USR1),
        ControlSignal::Restart => ("SIGQUIT", Signal::QUIT),
        ControlSignal::Stop => ("SIGTERM", Signal::TERM),
        ControlSignal::Kill => ("SIGKILL", Signal::KILL),
    }
}

/// A running process of this program.
struct Process {
    pid: u32,
    /// The role on the process's command line.
    role: Option<RoleName>,
    /// The value of the process's `-config`.
    config: Option<PathBuf>,
}

impl Process {
    /// Whether the process has this role, by its command line or else by its configuration.
    fn has_role(&self, role: RoleName) -> Result<bool, String> {
        if let Some(said) = self.role.or(RoleName::only()) {
            return Ok(said == role);
        }
        let Some(config) = &self.config else {
            return Err("it does not say its role".to_owned());
        };
        // Opening a pipe would block until it has a writer, or steal bytes from its reader.
        let is_readable = fs::metadata(config).is_ok_and(|it| it.is_file() || it.is_dir());
        if !is_readable {
            let shown = config.display();
            return Err(format!(
                "{shown}, its -config, is not a file or a directory"
            ));
        }
        let documents = Document::open_all(config).map_err(|e| e.to_string())?;
        for document in documents {
            if document.role(None).map_err(|e| e.to_string())? == role {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the process has a handler for the signal, which would end it otherwise. It has none
    /// in versions that do not know the signal, and for a moment when it starts.
    fn handles(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        status.is_ok_and(|status| is_caught(&status, signal))
    }
}

/// Whether a signal is in the mask of caught signals of a `/proc/PID/status`.
fn is_caught(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    // In hexadecimal: the last digit has the signals 1 to 4.
    let bit = usize::try_from(signal.as_raw().saturating_sub(1)).unwrap_or(usize::MAX);
    let digit = mask.and_then(|mask| mask.trim().chars().nth_back(bit / 4)?.to_digit(16));
    digit.is_some_and(|digit| (digit >> (bit % 4)) & 1 == 1)
}

/// A process with the name of this program whose `/proc` entry this user may not read: it belongs
/// to another user or has capabilities.
struct UnreadableProcess {
    pid: u32,
    user: u32,
}

/// The other processes of this program, without those that only send signals.
#[derive(Default)]
struct RunningProcesses {
    ours: Vec<Process>,
    hidden: Vec<UnreadableProcess>,
}

impl RunningProcesses {
    fn find() -> io::Result<Self> {
        let program = as_installed(std::env::current_exe()?);
        let mut running = Self::default();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            let there = PathBuf::from(format!("/proc/{pid}"));
            // An unreadable link belongs to a process that has ended in the meantime.
            match fs::read_link(there.join("exe")).map(as_installed) {
                Ok(exe) if exe == program => {
                    running.ours.extend(read_process(pid, &there));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    running
                        .hidden
                        .extend(unreadable_process(pid, &there, &program));
                }
                _ => {}
            }
        }
        Ok(running)
    }
}

/// Reads a process of this program; `None` if it runs no role.
fn read_process(pid: u32, there: &Path) -> Option<Process> {
    // In a container the same path is another program. A sandbox of systemd (PrivateTmp=,
    // ProtectSystem=) has another view of the disk but shares the PID namespace.
    let numbers = |of: &Path| fs::read_link(of.join("ns/pid")).ok();
    let here = numbers(Path::new("/proc/self"));
    if here.is_some() && numbers(there)? != here? {
        return None;
    }
    let invocation = cli::invocation(&command_line(there)?);
    if invocation.runs_nothing {
        return None;
    }
    let config = match invocation.config {
        Some(config) => Some(resolved(
            &fs::read_link(there.join("cwd")).ok()?.join(config),
        )),
        None => None,
    };
    Some(Process {
        pid,
        role: invocation.role,
        config,
    })
}

/// Guesses from the command line, which is public, whether an unreadable process is a gt.
fn unreadable_process(pid: u32, there: &Path, program: &Path) -> Option<UnreadableProcess> {
    let command_line = command_line(there)?;
    if !may_be_program(command_line.first()?, program)
        || cli::invocation(&command_line).runs_nothing
    {
        return None;
    }
    let user = fs::metadata(there).ok()?.uid();
    Some(UnreadableProcess { pid, user })
}

/// Whether a process started under this name can be this program.
fn may_be_program(name: &str, program: &Path) -> bool {
    let name = Path::new(name);
    if name.is_absolute() {
        // Launchers may start themselves as /proc/self/exe, which resolves to the reader here.
        return !name.starts_with("/proc") && resolved(name) == program;
    }
    name.file_name().is_some() && name.file_name() == program.file_name()
}

/// Returns the command line of a process.
fn command_line(there: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(there.join("cmdline")).ok()?;
    // Each word ends with a zero byte, the last one too.
    let command_line = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if command_line.is_empty() {
        return Some(Vec::new());
    }
    let command_line = command_line.split(|byte| *byte == 0);
    Some(
        command_line
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
    )
}

/// Returns the path under which the program was installed when it started.
fn as_installed(program: PathBuf) -> PathBuf {
    match program.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(name) => OsString::from_vec(name.to_vec()).into(),
        None => program,
    }
}

/// Returns a canonical form of a path: symbolic links are resolved as far as the path exists, the
/// rest stays as written.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let exists = |there: &Path| {
        let rest = path.strip_prefix(there).ok()?;
        Some(fs::canonicalize(there).ok()?.iter().chain(rest).collect())
    };
    path.ancestors().find_map(exists).unwrap_or(path)
}

#[cfg(test)]
mod tests;
