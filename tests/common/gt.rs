//! The program under test, in either role.

use super::process::{run, Process};
use super::{eventually, scratch::Scratch, words};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Output};

pub const GT: &str = env!("CARGO_BIN_EXE_gt");

/// Runs `gt` with these words to its end.
pub fn gt(line: &str) -> Output {
    run(Command::new(GT).args(words(line)))
}

/// A running `gt`.
pub struct Gt(Process);

/// Starts `gt server` with these words.
pub fn server(line: &str) -> Gt {
    Gt::start("gt server", &["server"], line)
}

/// Starts `gt server` with these words in a process that may have so many descriptors open.
pub fn server_with_descriptors(most: usize, line: &str) -> Gt {
    with_descriptors(most, "server", line)
}

/// The same for `gt client`.
pub fn client_with_descriptors(most: usize, line: &str) -> Gt {
    with_descriptors(most, "client", line)
}

fn with_descriptors(most: usize, role: &str, line: &str) -> Gt {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited, GT, role]);
    Gt::spawn(&format!("gt {role}"), command, line)
}

/// Starts `gt client` with these words.
pub fn client(line: &str) -> Gt {
    Gt::start("gt client", &["client"], line)
}

/// Starts `gt server` for the user every example has.
pub fn server_of_id1(more: &str) -> Gt {
    server(&format!("-addr 127.0.0.1:0 -id id1 -secret secret1 {more}"))
}

/// Starts `gt client` for the user every example has and waits until its tunnel is ready.
pub fn client_of_id1(remote: SocketAddr, more: &str) -> Gt {
    let mut client = client(&format!(
        "-remote tcp://{remote} -id id1 -secret secret1 {more}"
    ));
    client.wait_for_tunnel();
    client
}

impl Gt {
    /// Starts `gt` with these words before and after each other.
    pub fn start(name: &str, role: &[&str], line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.args(role);
        Gt::spawn(name, command, line)
    }

    /// Starts `gt` in a system whose only certificate authority is `ca`.
    pub fn trusting(ca: &Path, line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.env("SSL_CERT_FILE", ca);
        Gt::spawn("gt", command, line)
    }

    /// Starts a copy of `gt`, in either role.
    pub fn of_program(program: &Path, line: &str) -> Gt {
        Gt::spawn("gt", Command::new(program), line)
    }

    /// Starts `gt server` with a supervisor that listens at `place`.
    pub fn supervised(place: &Path, line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.arg("server").env("NOTIFY_SOCKET", place);
        Gt::spawn("gt server", command, line)
    }

    /// Starts `gt` with these words in a network namespace.
    pub fn within(namespace: &str, line: &str) -> Gt {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, GT]);
        Gt::spawn("gt", command, line)
    }

    /// Starts what `command` runs, with these words after its own.
    pub fn spawn(name: &str, mut command: Command, line: &str) -> Gt {
        let scratch = Scratch::new();
        command.args(words(line)).current_dir(scratch.path());
        Gt(Process::spawn(name, scratch, &mut command))
    }

    /// Where `-addr` listens.
    pub fn addr(&mut self) -> SocketAddr {
        self.listener("Listening addr=")
    }

    /// Where `-tlsAddr` listens.
    pub fn tls_addr(&mut self) -> SocketAddr {
        self.listener("Listening TLS addr=")
    }

    /// Where `-apiAddr` listens.
    pub fn api_addr(&mut self) -> SocketAddr {
        self.listener("Listening apiAddr=")
    }

    /// Where `-tcpForwardAddr` listens.
    pub fn forward_addr(&mut self) -> SocketAddr {
        self.listener("Listening tcpForwardAddr=")
    }

    /// Where `-sniAddr` listens.
    pub fn sni_addr(&mut self) -> SocketAddr {
        self.listener("Listening sniAddr=")
    }

    /// Where `-stunAddr` listens.
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
            // The bound address follows the announcement; only whole lines count.
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

    /// Waits until a client has failed to get a tunnel a few times, and checks that this is one
    /// line a try which says all of `why`, with longer and longer waits, and that it goes on.
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

    /// The port that the server says it has opened for the `index`th TCP service.
    pub fn wait_for_port(&mut self, index: usize) -> u16 {
        const BEFORE: &str = "receive server information: tcp port ";
        let lines = self.wait_for_lines(BEFORE, index + 1);
        let line = &lines[index];
        let rest = &line[line.find(BEFORE).unwrap() + BEFORE.len()..];
        let (port, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        assert!(rest.starts_with("opened successfully connID="), "{line}");
        port.parse().unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// Asks it to read its configuration again, and waits until it has.
    pub fn reload(&mut self) {
        self.signal_for("HUP", " INF reloaded");
    }

    /// Asks it to read a configuration that it cannot use, and waits for the line that says why
    /// nothing has changed.
    pub fn reload_in_vain(&mut self) -> String {
        self.signal_for("HUP", " ERR not reloaded, everything stays as it was: ")
    }

    /// Asks it to make way for a new process, and waits until that one has taken over. What the
    /// new one says goes to the same log.
    pub fn restart(&mut self) -> Successor {
        Successor::named_by(&self.signal_for("QUIT", TAKES_OVER))
    }

    /// Sends a signal and waits for a line with `text` that it had not said before.
    fn signal_for(&mut self, signal: &str, text: &str) -> String {
        let before = self.lines_with(text).len();
        self.signal(signal);
        self.wait_for_lines(text, before + 1).remove(before)
    }

    /// Asks it to end, and waits for it.
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

/// A process that a `gt` has started in its own place. It ends with the test.
pub struct Successor {
    pub pid: u32,
}

/// What the old process says of the new one.
const TAKES_OVER: &str = " takes over; ";

impl Successor {
    /// The one that this line of the log tells of.
    pub fn named_by(line: &str) -> Successor {
        let said = line.split(TAKES_OVER).next().unwrap_or_default();
        let pid = said.rsplit(' ').next().unwrap_or_default();
        Successor {
            pid: pid.parse().unwrap_or_else(|e| panic!("{line}: {e}")),
        }
    }

    /// Sends it a signal, by its number's name.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.pid);
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("run sh").success(), "{kill}");
    }

    fn runs(&self) -> bool {
        // What has ended stays until its parent looks, and has no program any more.
        let program = std::fs::read_link(format!("/proc/{}/exe", self.pid));
        program.is_ok_and(|program| program.ends_with("gt"))
    }

    /// Waits until it has ended.
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
