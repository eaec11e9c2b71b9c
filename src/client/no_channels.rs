//! The stub of `channels` for builds without P2P.

use super::context::ClientContext;
use super::p2p::{AcceptChannel, RelayRequest};
use crate::logging::FirstRequest;
use crate::wire::origin::VisitorOrigin;
use std::io;
use std::sync::Arc;

/// Accepts no channel: no peer opens any.
pub const ACCEPT: AcceptChannel = ();

/// See `channels`.
pub async fn relay(
    _: &ClientContext,
    request: RelayRequest,
    _: Option<VisitorOrigin>,
    _: Option<Arc<FirstRequest>>,
) -> io::Result<()> {
    match request {}
}
