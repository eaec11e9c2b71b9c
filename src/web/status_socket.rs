//! Answers the command `gt status` about this process, on a socket in Linux's abstract namespace: it has no file,
//! and ends with the process. Only the user that gt runs as, and root, get an answer.

use super::api::status_body;
use super::site::Site;
use crate::control::pages::socket_name;
use crate::control::socket::MAX_REQUEST;
use crate::sync::Mutex;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Time that a command has to send its request and to read the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Stack of the thread in bytes.
const STACK: usize = 128 * 1024;

/// The site that is told; `None` before the first one.
static SITE: Mutex<Option<Weak<Site>>> = Mutex::new(None);

/// Answers about what this page shows from now on. Its own thread does that, since it rests for almost all of the
/// time.
pub fn expose(site: &Arc<Site>) {
    if SITE.lock().replace(Arc::downgrade(site)).is_some() {
        return;
    }
    let started = socket_name(std::process::id())
        .and_then(|name| UnixListener::bind_addr(&name))
        .and_then(|listener| {
            let thread = std::thread::Builder::new().name("status".to_owned());
            thread.stack_size(STACK).spawn(move || serve(&listener))
        });
    if let Err(e) = started {
        log::warn!("gt status will get no answer from this process: {e}");
    }
}

fn serve(listener: &UnixListener) {
    for stream in listener.incoming() {
        if let Err(e) = stream.and_then(|stream| answer(&stream)) {
            log::debug!("gt status: {e}");
            // Without descriptors, the next one fails at once, too.
            std::thread::sleep(Duration::from_millis(10));
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
    let site = SITE.lock().as_ref().and_then(Weak::upgrade);
    let body = site.map_or_else(String::new, |site| status_body(&site).to_string());
    stream.write_all(format!("{body}\n").as_bytes())
}
