//! Answers the command `gt status` about this process.

use super::api::status_body;
use super::site::Site;
use crate::control::pages::socket_name;
use crate::control::socket::Answerer;
use crate::sync::Mutex;
use std::io;
use std::sync::{Arc, Weak};

/// Stack of the thread in bytes.
const STACK: usize = 128 * 1024;

/// The site that is told; `None` before the first one.
static SITE: Mutex<Option<Weak<Site>>> = Mutex::new(None);

/// Answers about what this page shows from now on.
pub fn expose(site: &Arc<Site>) {
    if SITE.lock().replace(Arc::downgrade(site)).is_some() {
        return;
    }
    let answerer = Answerer {
        thread: "status",
        stack: STACK,
        commands: "gt status",
        answer,
    };
    answerer.start(socket_name(std::process::id()));
}

fn answer(_: &str) -> io::Result<String> {
    let site = SITE.lock().as_ref().and_then(Weak::upgrade);
    let body = site.map_or_else(String::new, |site| status_body(&site).to_string());
    Ok(body + "\n")
}
