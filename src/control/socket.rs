//! The sockets on which a running process answers commands, in Linux's abstract namespace: they have no files, and
//! end with the process. Both ends of the exchange, but not what is answered.

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::{self, BufRead, BufReader, Read, Write};
#[cfg(feature = "client")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// Maximum length in bytes of a request.
const MAX_REQUEST: u64 = 64;
/// Maximum length in bytes of an answer: more than all bans that a process can have.
const MAX_ANSWER: u64 = 16 << 20;
/// Time that a process has to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a command has to send its request and to read the answer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// What answers commands: a thread of its own, since it rests for almost all of the time.
#[derive(Clone, Copy)]
pub struct Answerer {
    /// The name of the thread.
    pub thread: &'static str,
    /// The stack of the thread in bytes.
    pub stack: usize,
    /// The commands that it answers, for the log.
    pub commands: &'static str,
    /// Returns the answer to a line.
    pub answer: fn(&str) -> io::Result<String>,
}

impl Answerer {
    /// Starts the thread with the socket of this name. Only the user that gt runs as, and root, get an answer.
    pub fn start(self, name: io::Result<SocketAddr>) {
        let started = name
            .and_then(|name| UnixListener::bind_addr(&name))
            .and_then(|listener| {
                let thread = std::thread::Builder::new().name(self.thread.to_owned());
                let thread = thread.stack_size(self.stack);
                thread.spawn(move || self.serve(&listener))
            });
        if let Err(e) = started {
            let commands = self.commands;
            log::warn!("{commands} will get no answer from this process: {e}");
        }
    }

    fn serve(self, listener: &UnixListener) {
        for stream in listener.incoming() {
            if let Err(e) = stream.and_then(|stream| self.exchange(&stream)) {
                log::debug!("{}: {e}", self.commands);
                // Without descriptors, the next one fails at once, too.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn exchange(self, mut stream: &UnixStream) -> io::Result<()> {
        let user = socket_peercred(stream)?.uid;
        if !user.is_root() && user != geteuid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        stream.set_write_timeout(Some(COMMAND_TIMEOUT))?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_REQUEST)).read_line(&mut line)?;
        stream.write_all((self.answer)(&line)?.as_bytes())
    }
}

/// Returns the name of the socket on which a process answers. Earlier versions answer `gt bans` on it.
#[cfg(feature = "client")]
pub fn socket_name(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("gt-bans-{pid}"))
}

/// Sends a line to a process and returns its answer; `None` if it answers no commands.
#[cfg(feature = "client")]
pub fn exchange(pid: u32, line: &str) -> io::Result<Option<String>> {
    exchange_by(&socket_name(pid)?, pid, line)
}

/// Sends a line to the socket with this name, which must be of this process, and returns its answer; `None` if
/// there is none.
pub fn exchange_by(name: &SocketAddr, pid: u32, line: &str) -> io::Result<Option<String>> {
    let mut stream = match UnixStream::connect_addr(name) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        stream => stream?,
    };
    // Any program may take the name.
    let listener = socket_peercred(&stream)?.pid.as_raw_pid();
    if u32::try_from(listener) != Ok(pid) {
        return Err(io::Error::other(
            "another program has the name of its socket",
        ));
    }
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    answer.retain(|c| c == '\n' || !c.is_control());
    Ok(Some(answer))
}
