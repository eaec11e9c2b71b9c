//! A program that runs beside the test: its output goes to a file, it is killed with its handle,
//! and a failing test shows the end of its output.

use super::eventually;
use super::scratch::Scratch;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The log text of an old process of gt that names the new one.
pub const TAKES_OVER: &str = " takes over; ";

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    scratch: Scratch,
}

impl Process {
    /// Starts `command` with its standard output and error in one log file.
    pub fn spawn(name: &str, scratch: Scratch, command: &mut Command) -> Process {
        let log = scratch.join("output.log");
        let file = File::create(&log).expect("create a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("share the log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{}", cannot_start(command, &e)));
        Process {
            name: name.to_owned(),
            child,
            log,
            scratch,
        }
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("read the log")).into_owned()
    }

    /// Returns the whole lines so far that contain `text`.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        let log = self.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .filter(|line| line.contains(text))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line that contains `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_lines(text, 1).remove(0)
    }

    /// Waits for `count` lines that contain `text`.
    pub fn wait_for_lines(&mut self, text: &str, count: usize) -> Vec<String> {
        let what = format!("{} to say {text:?} {count} times", self.name);
        eventually(&what, || {
            let ended = self.has_ended();
            let lines = self.lines_with(text);
            if lines.len() < count {
                let is_over = ended.is_some() && !self.has_successor();
                assert!(!is_over, "{what}, but it has ended: {ended:?}");
                return None;
            }
            Some(lines)
        })
    }

    /// Whether another process of gt goes on in its place, with the same log.
    fn has_successor(&self) -> bool {
        !self.lines_with(TAKES_OVER).is_empty()
    }

    /// Waits until it listens on this port of 127.0.0.1.
    pub fn wait_for_listener(&mut self, port: u16) -> SocketAddr {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually(&format!("{} to listen", self.name), || {
            let ended = self.has_ended();
            assert!(ended.is_none(), "{} has ended: {}", self.name, self.log());
            TcpStream::connect(addr).ok()
        });
        addr
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("look after a child")
    }

    /// Waits until it has ended by itself.
    pub fn exit(&mut self) -> ExitStatus {
        let what = format!("{} to end", self.name);
        eventually(&what, || self.has_ended())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its private memory in KiB, without pages of its program's file.
    pub fn anonymous_kib(&self) -> usize {
        let rollup = format!("/proc/{}/smaps_rollup", self.pid());
        let rollup = std::fs::read_to_string(&rollup).unwrap_or_else(|e| panic!("{rollup}: {e}"));
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        kib.unwrap_or_else(|| panic!("no Anonymous: in {rollup}"))
    }

    /// Returns the processor time it has used, in hundredths of a second.
    pub fn work(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("read what it has used");
        // The name, which may contain anything, ends with the last bracket.
        let (_, numbers) = stat.rsplit_once(") ").expect("a name in brackets");
        let number = |at| {
            numbers
                .split(' ')
                .nth(at)
                .and_then(|n: &str| n.parse::<u64>().ok())
        };
        number(11)
            .zip(number(12))
            .map(|(user, system)| user + system)
            .expect("two numbers")
    }

    /// Sends a signal, such as `TERM` or `HUP`.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("run sh").success(), "{kill}");
    }

    /// Kills it at once, like a power cut, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the number of its open descriptors.
    pub fn fds(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("count descriptors").count()
    }

    /// Returns its resident memory in KiB.
    pub fn rss(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("read a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        kib.unwrap_or_else(|| panic!("no VmRSS in {status}"))
    }

    /// Returns how many of its first `most` descriptors are free.
    pub fn free_fds(&self, most: usize) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        let used = std::fs::read_dir(path).expect("list descriptors");
        let names = used.map(|entry| entry.expect("a descriptor").file_name());
        let low = |name: &std::ffi::OsString| {
            let number: usize = name.to_str()?.parse().ok()?;
            (number < most).then_some(())
        };
        most - names.filter(|name| low(name).is_some()).count()
    }

    /// Returns the names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let path = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(path).expect("list threads");
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            let path = task.expect("a thread").path().join("comm");
            // A thread that has just ended has no name.
            std::fs::read_to_string(path).unwrap_or_default()
        };
        tasks.map(name).collect()
    }

    /// Returns how often each thread has waited whose name begins with `name`. A wait is a voluntary
    /// context switch.
    pub fn waits_of_threads(&self, name: &str) -> Vec<u64> {
        let path = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(path).expect("list threads");
        let waits = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            status.strip_prefix("Name:\t")?.strip_prefix(name)?;
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches:"));
            line?.split_whitespace().nth(1)?.parse().ok()
        };
        tasks.filter_map(waits).collect()
    }

    /// Waits until it has at most `count` descriptors open.
    pub fn wait_for_fds(&self, count: usize) {
        eventually(
            &format!("{} to be back at {count} descriptors", self.name),
            || (self.fds() <= count).then_some(()),
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("---- the end of what {} said:\n{tail}\n----", self.name);
        }
    }
}

/// How long a program may run: large files take long on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(150);

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    let scratch = Scratch::new();
    let (out, err) = (scratch.join("out"), scratch.join("err"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("create a file"))
        .stderr(File::create(&err).expect("create a file"))
        .spawn()
        .unwrap_or_else(|e| panic!("{}", cannot_start(command, &e)));
    let end = Instant::now() + RUN_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("look after a child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("waited {RUN_LIMIT:?} in vain: {command:?} to end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output {
        status,
        stdout: std::fs::read(out).expect("read the output"),
        stderr: std::fs::read(err).expect("read the errors"),
    }
}

/// Runs a program, which must succeed, and returns its standard output.
pub fn run_ok(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn cannot_start(command: &Command, e: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    if e.kind() == ErrorKind::NotFound {
        return format!("{program} is not installed; `tests/run` says which packages are missing");
    }
    format!("start {program}: {e}")
}
