//! Reaches a server over QUIC. Not the protocol, see `net::quic`.

use super::connect::ConnectFailure;
use super::context::ClientContext;
use super::reach::Reached;
use crate::config::Remote;
use crate::net::quic::{connect, ClientSetup};
use crate::wire::Version;
use std::io;
use std::time::Duration;

/// Opens a connection for a tunnel of this version to a server, within `patience`.
pub async fn reach(
    context: &ClientContext,
    remote: &Remote,
    version: Version,
    patience: Duration,
) -> Result<Reached, ConnectFailure> {
    if context.dialer.has_proxy() {
        // The configuration refuses such servers, but a remoteAPI may name one.
        let why = "tunnels over QUIC cannot go through remoteProxy";
        let e = io::Error::new(io::ErrorKind::Unsupported, why);
        return Err(ConnectFailure::Unreachable(e));
    }
    let connector = context.tls.connector().map_err(ConnectFailure::Tls)?;
    let setup = ClientSetup::new(&connector, context.bbr, version == Version::Two)
        .map_err(ConnectFailure::Tls)?;
    let serving = context.serving.clone();
    let guard = move || serving.begin();
    let to = (&*context.dialer, remote.host.as_str(), remote.port);
    let reached = connect(to, &setup, guard, patience).await;
    let reached = reached.map(|(conn, link)| Reached { conn, link });
    reached.map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => ConnectFailure::Tls(e),
        io::ErrorKind::TimedOut => {
            let text = format!(
                "{e} (set quicAddr at the server, and open UDP port {} in firewalls)",
                remote.port
            );
            ConnectFailure::Unreachable(io::Error::new(e.kind(), text))
        }
        _ => ConnectFailure::Unreachable(e),
    })
}
