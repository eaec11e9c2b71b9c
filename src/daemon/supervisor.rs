//! Notifications for a service supervisor such as systemd (sd_notify(3)): readiness, the main
//! process and the end. Without a supervisor nothing is sent.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment variable with the address of the supervisor's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Sends `state` to the supervisor: lines of `NAME=value`.
pub fn notify(state: &str) {
    let Some(addr_name) = std::env::var_os(VARIABLE) else {
        return;
    };
    let send = || -> io::Result<()> {
        let addr = match addr_name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&addr_name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr)?;
        Ok(())
    };
    if let Err(e) = send() {
        log::warn!("notifying the supervisor at {}: {e}", addr_name.display());
    }
}
