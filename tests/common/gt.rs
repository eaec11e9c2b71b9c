//! The program under test, in either role.

use super::process::{run, Process};
use super::{eventually, scratch::Scratch, words};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Output};

pub const GT: &str = env!("CARGO_BIN_EXE_gt");

/// Runs `gt` with these arguments to its end.
pub fn gt(line: &str) -> Output {
    run(Command::new(GT).args(words(line)))
}

/// A running `gt`.
pub struct Gt(Process);

/// Starts `gt server` with these arguments.
pub fn server(line: &str) -> Gt {
    Gt::start("gt server", &["server"], line)
}

/// Starts `gt server` with a limit of `most` open descriptors.
pub fn server_with_descriptors(most: usize, line: &str) -> Gt {
    with_descriptors(most, "server", line)
}

/// Starts `gt client` with a limit of `most` open descriptors.
pub fn client_with_descriptors(most: usize, line: &str) -> Gt {
    with_descriptors(most, "client", line)
}

fn with_descriptors(most: usize, role: &str, line: &str) -> Gt {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited, GT, role]);
    Gt::spawn(&format!("gt {role}"), command, line)
}

/// Starts `gt client` with these arguments.
pub fn client(line: &str) -> Gt {
    Gt::start("gt client", &["client"], line)
}

/// Starts `gt server` with the user of all examples, id1.
pub fn server_of_id1(more: &str) -> Gt {
    server(&format!("-addr 127.0.0.1:0 -id id1 -secret secret1 {more}"))
}

/// Starts `gt client` as id1 and waits until its tunnel is ready.
pub fn client_of_id1(remote: SocketAddr, more: &str) -> Gt {
    let mut client = client(&format!(
        "-remote tcp://{remote} -id id1 -secret secret1 {more}"
    ));
    client.wait_for_tunnel();
    client
}

impl Gt {
    /// Starts `gt` with `role` before the arguments of `line`.
    pub fn start(name: &str, role: &[&str], line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.args(role);
        Gt::spawn(name, command, line)
    }

    /// Starts `gt` with `ca` as the system's only certificate authority.
    pub fn trusting(ca: &Path, line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.env("SSL_CERT_FILE", ca);
        Gt::spawn("gt", command, line)
    }

    /// Starts a copy of `gt`, in either role.
    pub fn of_program(program: &Path, line: &str) -> Gt {
        Gt::spawn("gt", Command::new(program), line)
    }

    /// Starts `gt server` with a supervisor's socket at `place`.
    pub fn supervised(place: &Path, line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.arg("server").env("NOTIFY_SOCKET", place);
        Gt::spawn("gt server", command, line)
    }

    /// Starts `gt` with these arguments in a network namespace.
    pub fn within(namespace: &str, line: &str) -> Gt {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, GT]);
        Gt::spawn("gt", command, line)
    }

    /// Starts `command` with these additional arguments.
    pub fn spawn(name: &str, mut command: Command, line: &str) -> Gt {
        let scratch = Scratch::new();
        command.args(words(line)).current_dir(scratch.path());
        Gt(Process::spawn(name, scratch, &mut command))
    }

    /// Returns the address of `-addr`.
    pub fn addr(&mut self) -> SocketAddr {
        self.listener("Listening addr=")
    }

    /// Returns the address of `-tlsAddr`.
    pub fn tls_addr(&mut self) -> SocketAddr {
        self.listener("Listening TLS addr=")
    }

    /// Returns the address of `-apiAddr`.
    pub fn api_addr(&mut self) -> SocketAddr {
        self.listener("Listening apiAddr=")
    }

    /// Returns the address of `-tcpForwardAddr`.
    pub fn forward_addr(&mut self) -> SocketAddr {
        self.listener("Listening tcpForwardAddr=")
    }

    /// Returns the address of `-sniAddr`.
    pub fn sni_addr(&mut self) -> SocketAddr {
        self.listener("Listening sniAddr=")
    }

    /// Returns the address of `-stunAddr`.
    pub fn stun_addr(&mut self) -> SocketAddr {
        self.bound("Listening stunAddr=", "answering STUN started addr=")
    }

    fn listener(&mut self, announced: &str) -> SocketAddr {
        self.bound(announced, "acceptLoop started addr=")
    }

    fn bound(&mut self, announced: &str, bound: &str) -> SocketAddr {
        self.wait_for(announced);
        let what = format!("the server to say what {announced:?} was bound to");
        let line = eventually(&what, || {
            // The address ends the line, so only whole lines count.
            let lines = self.lines_with("");
            let at = lines.iter().position(|line| line.contains(announced))?;
            lines[at..]
                .iter()
                .find(|line| line.contains(bound))
                .cloned()
        });
        let address = &line[line.find(bound).unwrap() + bound.len()..];
        let address = address.split_whitespace().next().unwrap_or_default();
        address
            .parse()
            .unwrap_or_else(|e| panic!("{line:?} should end in an address: {e}"))
    }

    pub fn wait_for_tunnel(&mut self) {
        self.wait_for("tunnel started connID=");
    }

    /// Waits until a client has failed to open a tunnel a few times. Checks that each attempt logs
    /// one line with all of `why`, that the waits grow, and that it continues.
    pub fn assert_keeps_failing(&mut self, why: &[&str]) {
        const AGAIN: &str = " again in ";
        let failures = self.wait_for_lines(AGAIN, 4);
        let first_try = "trying to connect to remote connID=1";
        let all = self.lines_with("");
        let tried = all.iter().position(|line| line.contains(first_try));
        let since = &all[tried.expect("a first try") + 1..];
        for line in since {
            for word in why.iter().chain([&AGAIN, &" WRN "]) {
                assert!(line.contains(word), "{line:?} should say {word:?}");
            }
        }
        let wait = |line: &str| -> f32 {
            let seconds = line[line.find(AGAIN).unwrap() + AGAIN.len()..].trim_end_matches('s');
            seconds.parse().unwrap_or_else(|e| panic!("{line}: {e}"))
        };
        assert!(wait(&failures[3]) > wait(&failures[0]), "{failures:?}");
        assert!(self.has_ended().is_none(), "it should go on trying");
    }

    /// Returns the port that the server has opened for the `index`th TCP service.
    pub fn wait_for_port(&mut self, index: usize) -> u16 {
        const BEFORE: &str = "receive server information: tcp port ";
        let lines = self.wait_for_lines(BEFORE, index + 1);
        let line = &lines[index];
        let rest = &line[line.find(BEFORE).unwrap() + BEFORE.len()..];
        let (port, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        assert!(rest.starts_with("opened successfully connID="), "{line}");
        port.parse().unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// Reloads the configuration and waits until it is in force.
    pub fn reload(&mut self) {
        self.signal_for("HUP", " INF reloaded");
    }

    /// Reloads an unusable configuration and returns the line that says why nothing has changed.
    pub fn reload_in_vain(&mut self) -> String {
        self.signal_for("HUP", " ERR not reloaded, everything stays as it was: ")
    }

    /// Restarts gt and waits until the new process has taken over. The new process writes to the
    /// same log.
    pub fn restart(&mut self) -> Successor {
        Successor::named_by(&self.signal_for("QUIT", TAKES_OVER))
    }

    /// Returns the program itself where another one runs it as its only child. It is killed when
    /// the handle is dropped: the end of the other one might leave it behind.
    pub fn only_child(&self) -> Successor {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).expect("read the children");
        Successor {
            pid: children.trim().parse().expect("one child"),
        }
    }

    /// Sends a signal and waits for a new line with `text`.
    fn signal_for(&mut self, signal: &str, text: &str) -> String {
        let before = self.lines_with(text).len();
        self.signal(signal);
        self.wait_for_lines(text, before + 1).remove(before)
    }

    /// Asks gt to end and waits for it.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit().code()
    }
}

impl Deref for Gt {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Gt {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// A process that a `gt` has started to replace itself. It ends with the test.
pub struct Successor {
    pub pid: u32,
}

/// The log text of the old process that names the new one.
const TAKES_OVER: &str = " takes over; ";

impl Successor {
    /// Finds the process that this log line names.
    pub fn named_by(line: &str) -> Successor {
        let said = line.split(TAKES_OVER).next().unwrap_or_default();
        let pid = said.rsplit(' ').next().unwrap_or_default();
        Successor {
            pid: pid.parse().unwrap_or_else(|e| panic!("{line}: {e}")),
        }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.pid);
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("run sh").success(), "{kill}");
    }

    fn runs(&self) -> bool {
        // A zombie stays until its parent reaps it; it has no program any more.
        let program = std::fs::read_link(format!("/proc/{}/exe", self.pid));
        program.is_ok_and(|program| program.ends_with("gt"))
    }

    /// Waits until the process has ended.
    pub fn wait_for_end(&self) {
        let what = format!("process {} to end", self.pid);
        eventually(&what, || (!self.runs()).then_some(()));
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.runs() {
            self.signal("KILL");
        }
    }
}
