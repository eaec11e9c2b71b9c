//! What a supervisor such as systemd wants to hear (sd_notify(3)): that the service is ready, and
//! which process it is. Without one, nothing is said.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where a supervisor listens.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Says `state`, lines of `NAME=value`.
pub fn tell(state: &str) {
    let Some(place) = std::env::var_os(VARIABLE) else {
        return;
    };
    let send = || -> io::Result<()> {
        let addr = match place.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&place)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr)?;
        Ok(())
    };
    if let Err(e) = send() {
        log::warn!("telling the supervisor at {}: {e}", place.display());
    }
}
