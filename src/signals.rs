//! `gt -s …`: finds the gt that runs, and signals it. What a signal does there, see `daemon`.

use crate::cli::{self, Signal};
use crate::config::file::Document;
use crate::config::RoleName;
use rustix::process::{kill_process, Pid};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the kernel puts behind the name of a program that was replaced or removed.
const DELETED: &[u8] = b" (deleted)";

/// Which processes are meant.
#[derive(Debug)]
pub struct Wanted {
    pub signal: Signal,
    /// Only those of this role, if it was said.
    pub role: Option<RoleName>,
    /// Only those with this `-config`, if it was said.
    pub config: Option<PathBuf>,
}

/// Signals every running process of this program that is meant, and says which: a line each. The
/// error says why there was none, or which one could not be signalled.
pub fn send(wanted: &Wanted) -> Result<Vec<String>, String> {
    let mut sent = Vec::new();
    let mut failed = Vec::new();
    let mut others = Vec::new();
    let running = running().map_err(|e| format!("looking for the gt that runs in /proc: {e}"))?;
    let config = wanted.config.as_deref().map(resolved);
    for process in running {
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
                failed.push(format!(
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
            Ok(()) => sent.push(format!("sent {name} to process {pid}")),
            Err(e) if e == rustix::io::Errno::SRCH => {}
            Err(e) => failed.push(format!(
                "process {pid} cannot be signalled: {}; try as root, or as the user it runs as",
                io::Error::from(e)
            )),
        }
    }
    if !failed.is_empty() {
        sent.append(&mut failed);
        return Err(sent.join("\n"));
    }
    if sent.is_empty() {
        return Err(nobody(wanted, &others));
    }
    Ok(sent)
}

fn nobody(wanted: &Wanted, others: &[String]) -> String {
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
    format!("no {role}{config} of this program runs{others}")
}

fn of(signal: Signal) -> (&'static str, rustix::process::Signal) {
    use rustix::process::Signal as Number;
    match signal {
        Signal::Reload => ("SIGHUP", Number::HUP),
        Signal::Restart => ("SIGQUIT", Number::QUIT),
        Signal::Stop => ("SIGTERM", Number::TERM),
        Signal::Kill => ("SIGKILL", Number::KILL),
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
        let documents = Document::open_all(config).map_err(|e| e.to_string())?;
        for document in documents {
            if document.role(None).map_err(|e| e.to_string())? == role {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// All processes of this program but this one, and but those that only send signals.
fn running() -> io::Result<Vec<Process>> {
    let program = as_installed(std::env::current_exe()?);
    let here = Path::new("/proc/self");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        // One that ends meanwhile, or that nobody may look at, is not ours to signal.
        found.extend(look_at(pid, &program, here));
    }
    Ok(found)
}

fn look_at(pid: u32, program: &Path, here: &Path) -> Option<Process> {
    let there = PathBuf::from(format!("/proc/{pid}"));
    if as_installed(fs::read_link(there.join("exe")).ok()?) != program {
        return None;
    }
    // The same path in a container is another program. What systemd keeps from the rest of the
    // disk has another view of it, but the same numbers of processes.
    let numbers = |of: &Path| fs::read_link(of.join("ns/pid")).ok();
    if numbers(&there)? != numbers(here)? {
        return None;
    }
    let words = fs::read(there.join("cmdline")).ok()?;
    let words: Vec<String> = words
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // There is a zero behind the last word, too.
    let words = words.split_last().map_or(&[][..], |(_, words)| words);
    let told = cli::told(words);
    if told.runs_nothing {
        return None;
    }
    let cwd = fs::read_link(there.join("cwd")).ok();
    let config = told.config.map(|config| {
        let config = cwd.map_or(config.clone(), |cwd| cwd.join(config));
        resolved(&config)
    });
    Some(Process {
        pid,
        role: told.role,
        config,
    })
}

/// Where the program is, or was before another took its place.
fn as_installed(program: PathBuf) -> PathBuf {
    match program.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(name) => OsString::from_vec(name.to_vec()).into(),
        None => program,
    }
}

/// The same for every way to write it, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_has_its_signal() {
        let names = [Signal::Reload, Signal::Restart, Signal::Stop, Signal::Kill];
        let numbers = names.map(|signal| of(signal).1.as_raw());
        assert_eq!(numbers, [1, 3, 15, 9]);
    }

    #[test]
    fn a_program_that_was_replaced_is_still_the_same() {
        let as_installed = |path: &str| as_installed(path.into());
        assert_eq!(
            as_installed("/usr/bin/gt (deleted)"),
            Path::new("/usr/bin/gt")
        );
        assert_eq!(as_installed("/usr/bin/gt"), Path::new("/usr/bin/gt"));
    }
}
