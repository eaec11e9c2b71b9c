//! One tunnel of a pool: its services, and whether another one has to take its place.

use super::context::ClientContext;
use super::offered_services::OfferedServices;
use super::services::Services;
use crate::config::Remote;
use crate::net::Shutdown;
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::Tunnel;
use std::sync::{Arc, OnceLock};

/// One tunnel of the pool.
pub struct PooledTunnel {
    /// The number of the tunnel in the log.
    pub id: u32,
    /// The server's address.
    pub remote: Remote,
    pub tunnel: Tunnel,
    /// The services that its streams are for.
    offered: Mutex<OfferedServices>,
    /// The first reason for a replacement.
    replace_reason: OnceLock<ReplaceReason>,
    /// Triggered when there is a reason to replace it.
    must_replace: Shutdown,
    /// Whether it is one of those that are always kept, which are not closed for being idle.
    pub kept: bool,
}

/// Why a tunnel is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaceReason {
    /// The server asked for it: it is about to end, and another process takes its place.
    Asked,
    /// The server closed it. It stops, or prefers another client with this id: reconnecting at once
    /// would only start a fight.
    ClosedByServer,
    Lost,
}

impl PooledTunnel {
    /// Creates the entry of a tunnel for which the server has confirmed `services`.
    pub fn new(
        id: u32,
        remote: Remote,
        tunnel: Tunnel,
        services: Arc<Services>,
        kept: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            remote,
            tunnel,
            offered: Mutex::new(OfferedServices::new(services)),
            replace_reason: OnceLock::new(),
            must_replace: Shutdown::default(),
            kept,
        })
    }

    /// Marks the tunnel for replacement. Only the first reason counts; returns whether this is the
    /// first.
    pub fn leave(&self, why: ReplaceReason) -> bool {
        let is_first = self.replace_reason.set(why).is_ok();
        self.must_replace.trigger();
        is_first
    }

    /// Waits until a replacement is due.
    pub async fn replaced(&self) -> ReplaceReason {
        self.must_replace.wait().await;
        self.replace_reason
            .get()
            .copied()
            .unwrap_or(ReplaceReason::Lost)
    }

    /// Locks the services that its streams are for.
    pub fn offered(&self) -> MutexGuard<'_, OfferedServices> {
        self.offered.lock()
    }

    /// Changes the services, and tells the server if it would see a difference.
    pub fn offer(&self, context: &ClientContext, services: &Arc<Services>) {
        let mut offered = self.offered();
        if offered.change(services.clone()) {
            let hello = services.hello(&context.id, &context.secret);
            self.tunnel
                .send_bytes(&hello.encode_change(self.tunnel.version()));
        }
    }
}
