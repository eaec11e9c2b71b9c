//! The socket on which a running client answers commands: its name, and the command's end of the exchange.

use rustix::net::sockopt::socket_peercred;
use std::io::{self, Read, Write};
#[cfg(feature = "client")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// Maximum length in bytes of a request.
pub const MAX_REQUEST: u64 = 64;
/// Maximum length in bytes of an answer: more than all bans that a process can have.
const MAX_ANSWER: u64 = 16 << 20;
/// Time that a process has to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

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
