//! What the web page shows of a pool.

use super::{Pool, PooledTunnel, ServerSource};
use crate::config::Remote;
use crate::tunnel::Traffic;
use std::sync::Arc;

/// A pool at one moment.
pub struct PoolStatus {
    /// The ways to the server, or the remoteAPI.
    pub source: String,
    /// The address that worked last.
    pub remote: Option<Remote>,
    /// Its tunnels, oldest first.
    pub tunnels: Vec<Arc<PooledTunnel>>,
    /// Why the last attempt to connect has failed; `None` if it has not.
    pub failure: Option<String>,
    /// What tunnels that have ended have carried.
    pub past: Traffic,
}

impl Pool {
    /// Describes the pool.
    pub fn status(&self) -> PoolStatus {
        let remote = match &self.source {
            ServerSource::Fixed(ways) => Some(ways.current().clone()),
            ServerSource::Requested(api) => api.known(),
        };
        let inner = self.lock();
        PoolStatus {
            source: self.source.to_string(),
            remote,
            tunnels: inner.members.clone(),
            failure: inner.last_failure.clone(),
            past: inner.past,
        }
    }
}
