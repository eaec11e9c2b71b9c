//! `gt -s …`: finds the gt that runs, and signals it. What a signal does there, see `daemon`.

use crate::cli::{self, ControlSignal};
use crate::config::file::Document;
use crate::config::RoleName;
use rustix::process::{geteuid, kill_process, Pid};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the kernel puts behind the name of a program that was replaced or removed.
const DELETED: &[u8] = b" (deleted)";

/// Which processes are meant.
#[derive(Debug)]
pub struct SignalRequest {
    pub signal: ControlSignal,
    /// Only those of this role, if it was said.
    pub role: Option<RoleName>,
    /// Only those with this `-config`, if it was said.
    pub config: Option<PathBuf>,
}

/// What came of it, in lines for people.
#[derive(Debug, Default)]
pub struct SignalReport {
    /// Which processes were signalled.
    pub sent: Vec<String>,
    /// Which could not be, or why there was none. Empty if all that are meant were signalled.
    pub failed: Vec<String>,
}

/// Signals every running process of this program that is meant.
pub fn send(wanted: &SignalRequest) -> SignalReport {
    let mut outcome = SignalReport::default();
    let running = match RunningProcesses::find() {
        Ok(running) => running,
        Err(e) => {
            let why = format!("looking for the gt that runs in /proc: {e}");
            outcome.failed.push(why);
            return outcome;
        }
    };
    let config = wanted.config.as_deref().map(resolved);
    let mut others = Vec::new();
    for process in &running.ours {
        let pid = process.pid;
        if config.is_some() && process.config != config {
            others.push(pid.to_string());
            continue;
        }
        match wanted.role.map(|role| process.has(role)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => {
                others.push(pid.to_string());
                continue;
            }
            Some(Err(e)) => {
                outcome.failed.push(format!(
                    "whether process {pid} is meant cannot be told: {e}"
                ));
                continue;
            }
        }
        let (name, number) = of(wanted.signal);
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(target) = target else {
            continue;
        };
        match kill_process(target, number) {
            Ok(()) => outcome.sent.push(format!("sent {name} to process {pid}")),
            Err(e) if e == rustix::io::Errno::SRCH => {}
            Err(e) => outcome.failed.push(format!(
                "process {pid} cannot be signalled: {}; try as root, or as the user it runs as",
                io::Error::from(e)
            )),
        }
    }
    if outcome.sent.is_empty() && outcome.failed.is_empty() {
        outcome
            .failed
            .push(nobody(wanted, &others, &running.hidden));
    }
    outcome
}

fn nobody(wanted: &SignalRequest, others: &[String], hidden: &[UnreadableProcess]) -> String {
    let role = wanted
        .role
        .map_or_else(|| "gt".to_owned(), |role| format!("gt {role}"));
    let config = wanted.config.as_ref();
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

fn of(signal: ControlSignal) -> (&'static str, rustix::process::Signal) {
    use rustix::process::Signal as Number;
    match signal {
        ControlSignal::Reload => ("SIGHUP", Number::HUP),
        ControlSignal::Restart => ("SIGQUIT", Number::QUIT),
        ControlSignal::Stop => ("SIGTERM", Number::TERM),
        ControlSignal::Kill => ("SIGKILL", Number::KILL),
    }
}

/// A gt that runs.
struct Process {
    pid: u32,
    /// The role that its words say.
    role: Option<RoleName>,
    /// Its `-config`.
    config: Option<PathBuf>,
}

impl Process {
    /// Whether it has this role, by its words or by its files.
    fn has(&self, role: RoleName) -> Result<bool, String> {
        if let Some(said) = self.role.or(RoleName::only()) {
            return Ok(said == role);
        }
        let Some(config) = &self.config else {
            return Err("it does not say its role".to_owned());
        };
        // A pipe would have this process wait for its writer, or take what another one is to read.
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
}

/// A process that is called like this program, and that this user may not look at: another user's,
/// or one that has capabilities.
struct UnreadableProcess {
    pid: u32,
    user: u32,
}

/// All processes of this program but this one, and but those that only send signals.
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
            // What cannot be read any more belongs to a process that has ended meanwhile.
            match fs::read_link(there.join("exe")).map(as_installed) {
                Ok(exe) if exe == program => {
                    running.ours.extend(look_at(pid, &there));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    running.hidden.extend(guess_at(pid, &there, &program));
                }
                _ => {}
            }
        }
        Ok(running)
    }
}

/// A process of this program, if it runs anything.
fn look_at(pid: u32, there: &Path) -> Option<Process> {
    // The same path in a container is another program. What systemd keeps from the rest of the
    // disk has another view of it, but the same numbers of processes.
    let numbers = |of: &Path| fs::read_link(of.join("ns/pid")).ok();
    let here = numbers(Path::new("/proc/self"));
    if here.is_some() && numbers(there)? != here? {
        return None;
    }
    let told = cli::invocation(&words(there)?);
    if told.runs_nothing {
        return None;
    }
    let config = match told.config {
        Some(config) => Some(resolved(
            &fs::read_link(there.join("cwd")).ok()?.join(config),
        )),
        None => None,
    };
    Some(Process {
        pid,
        role: told.role,
        config,
    })
}

/// A process that may not be looked at, if it can be a gt. Everybody may read its words.
fn guess_at(pid: u32, there: &Path, program: &Path) -> Option<UnreadableProcess> {
    let words = words(there)?;
    if !is_called(words.first()?, program) || cli::invocation(&words).runs_nothing {
        return None;
    }
    let user = fs::metadata(there).ok()?.uid();
    Some(UnreadableProcess { pid, user })
}

/// Whether one that was started by this name can be this program.
fn is_called(name: &str, program: &Path) -> bool {
    let name = Path::new(name);
    if name.is_absolute() {
        // /proc/self is another one for whoever looks: launchers start themselves by it.
        return !name.starts_with("/proc") && resolved(name) == program;
    }
    name.file_name().is_some() && name.file_name() == program.file_name()
}

/// The command line of a process.
fn words(there: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(there.join("cmdline")).ok()?;
    // There is a zero behind each word, the last one, too.
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if words.is_empty() {
        return Some(Vec::new());
    }
    let words = words.split(|byte| *byte == 0);
    Some(
        words
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
    )
}

/// Where the program is, or was before another took its place.
fn as_installed(program: PathBuf) -> PathBuf {
    match program.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(name) => OsString::from_vec(name.to_vec()).into(),
        None => program,
    }
}

/// The same for every way to write it: without links as far as it exists, and as it was written
/// beyond that.
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
