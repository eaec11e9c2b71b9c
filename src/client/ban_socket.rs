//! Answers the command `gt bans` about this process, on a socket in Linux's abstract namespace: it has no
//! file, and ends with the process. Only the user that gt runs as, and root, get an answer.

use super::bans::Ban;
use super::visitor_rules::VisitorRules;
use crate::config::{Domain, Exposure};
use crate::control::bans::{BanRequest, MAX_REQUEST};
use crate::sync::{Mutex, MutexGuard};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Time that a command has to send its request and to read the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Stack of the thread in bytes.
const STACK: usize = 64 * 1024;

/// The clients of this process that count visitors; `None` before the first one.
static CLIENTS: Mutex<Option<Vec<Weak<VisitorRules>>>> = Mutex::new(None);

fn clients() -> MutexGuard<'static, Option<Vec<Weak<VisitorRules>>>> {
    CLIENTS.lock()
}

/// Answers about the bans of this client from now on, if it counts visitors. Its own thread does that,
/// since it rests for almost all of the time.
pub fn expose(rules: &Arc<VisitorRules>) {
    if !rules.count_visitors() {
        return;
    }
    let mut clients = clients();
    if let Some(clients) = &mut *clients {
        clients.retain(|other| other.strong_count() > 0);
        if !clients
            .iter()
            .any(|other| other.as_ptr() == Arc::as_ptr(rules))
        {
            clients.push(Arc::downgrade(rules));
        }
        return;
    }
    *clients = Some(vec![Arc::downgrade(rules)]);
    drop(clients);
    let name = crate::control::bans::socket_name(std::process::id());
    let started = name
        .and_then(|name| UnixListener::bind_addr(&name))
        .and_then(|listener| {
            let thread = std::thread::Builder::new().name("bans".to_owned());
            thread.stack_size(STACK).spawn(move || serve(&listener))
        });
    if let Err(e) = started {
        log::warn!("gt bans will get no answer from this process: {e}");
    }
}

fn serve(listener: &UnixListener) {
    for stream in listener.incoming() {
        match stream.and_then(|stream| answer(&stream)) {
            Ok(()) => {}
            Err(e) => {
                log::debug!("gt bans: {e}");
                // Without descriptors, the next one fails at once, too.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn answer(mut stream: &UnixStream) -> io::Result<()> {
    let user = socket_peercred(stream)?.uid;
    if !user.is_root() && user != geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST)).read_line(&mut line)?;
    let Some(request) = BanRequest::from_line(&line) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let clients: Vec<_> = clients()
        .iter()
        .flatten()
        .filter_map(Weak::upgrade)
        .collect();
    let mut lines = String::new();
    match request {
        BanRequest::List => {
            for ban in clients.iter().flat_map(|rules| rules.bans().list()) {
                lines += &shown(&ban);
            }
        }
        BanRequest::Lift(address) => {
            let lifted = clients.iter().map(|rules| rules.bans().lift(address));
            lines = format!("{}\n", lifted.sum::<usize>());
        }
    }
    stream.write_all(lines.as_bytes())
}

/// Returns the line about a ban: the address, the seconds that are left, and the service.
fn shown(ban: &Ban) -> String {
    let service = match &ban.service.exposure {
        Exposure::Host { tls, prefix } => {
            let scheme = if *tls { "https" } else { "http" };
            let prefix = prefix.as_deref().unwrap_or("the id");
            format!("{scheme} {prefix}")
        }
        Exposure::Domains { tls, domains, .. } => {
            let scheme = if *tls { "https" } else { "http" };
            let domain = domains.first().map_or("", Domain::as_str);
            format!("{scheme} {domain}")
        }
        Exposure::Tcp { port: 0, .. } => "a random TCP port".to_owned(),
        Exposure::Tcp { port, .. } => format!("TCP port {port}"),
        Exposure::Udp { port: 0, .. } => "a random UDP port".to_owned(),
        Exposure::Udp { port, .. } => format!("UDP port {port}"),
    };
    let net = if ban.network.is_ipv6() { "/64" } else { "" };
    let seconds = ban.left.as_secs().saturating_add(1);
    format!("{}{net} {seconds} {service}\n", ban.network)
}
