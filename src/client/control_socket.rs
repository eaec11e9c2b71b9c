//! Answers the commands `gt bans` and `gt status` about this process.

use super::bans::Ban;
use super::forward;
use super::visitor_rules::VisitorRules;
use crate::config::{Domain, Exposure};
use crate::control::bans::BanRequest;
use crate::control::socket::{socket_name, Answerer};
use crate::control::STATUS;
use crate::sync::{Mutex, MutexGuard};
use std::io;
use std::sync::{Arc, Weak};

/// Stack of the thread in bytes.
const STACK: usize = 64 * 1024;

/// What commands are answered about.
static EXPOSED: Mutex<Exposed> = Mutex::new(Exposed {
    is_listening: false,
    clients: Vec::new(),
});

struct Exposed {
    is_listening: bool,
    /// The clients of this process that count visitors.
    clients: Vec<Weak<VisitorRules>>,
}

fn exposed() -> MutexGuard<'static, Exposed> {
    EXPOSED.lock()
}

/// Answers about the bans of this client from now on, if it counts visitors.
pub fn expose(rules: &Arc<VisitorRules>) {
    if !rules.count_visitors() {
        return;
    }
    let mut exposed = exposed();
    let clients = &mut exposed.clients;
    clients.retain(|other| other.strong_count() > 0);
    if !clients
        .iter()
        .any(|other| other.as_ptr() == Arc::as_ptr(rules))
    {
        clients.push(Arc::downgrade(rules));
    }
    drop(exposed);
    listen();
}

/// Answers commands from now on.
pub fn listen() {
    if std::mem::replace(&mut exposed().is_listening, true) {
        return;
    }
    let answerer = Answerer {
        thread: "control",
        stack: STACK,
        commands: "gt bans and gt status",
        answer,
    };
    answerer.start(socket_name(std::process::id()));
}

fn answer(line: &str) -> io::Result<String> {
    if line.strip_suffix('\n') == Some(STATUS) {
        let lines = forward::status().into_iter();
        // The first line tells that the process answers.
        let lines = std::iter::once(STATUS.to_owned()).chain(lines);
        return Ok(lines.map(|line| line + "\n").collect());
    }
    let Some(request) = BanRequest::from_line(line) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let clients: Vec<_> = exposed().clients.iter().filter_map(Weak::upgrade).collect();
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
    Ok(lines)
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
        Exposure::Private { .. } => format!("private {}", ban.service.local),
    };
    let net = if ban.network.is_ipv6() { "/64" } else { "" };
    let seconds = ban.left.as_secs().saturating_add(1);
    format!("{}{net} {seconds} {service}\n", ban.network)
}
