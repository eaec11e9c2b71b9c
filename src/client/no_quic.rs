//! The stub of `quic` in builds without QUIC.

use super::connect::ConnectFailure;
use super::context::ClientContext;
use super::reach::Reached;
use crate::config::Remote;
use crate::wire::Version;
use std::io;
use std::time::Duration;

/// Fails: this build has no QUIC. The configuration refuses such servers, but a remoteAPI may name one.
pub async fn reach(
    _: &ClientContext,
    _: &Remote,
    _: Version,
    _: Duration,
) -> Result<Reached, ConnectFailure> {
    let why = "this gt was built without the feature quic";
    let e = io::Error::new(io::ErrorKind::Unsupported, why);
    Err(ConnectFailure::Unreachable(e))
}
